"""A batch over eight simulated devices: the results of one device, and they stay where they were computed."""

from collections.abc import Callable

PROGRAM = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from emjax import TV, LeastSquares, Problem, solve
from emjax.operators import PixelSampling
from emjax.solvers import PDHG, Implicit, Unrolled

rng = np.random.default_rng(0)
mask = (rng.random((8, 6)) < 0.7).astype("f4")
edges = np.add.outer(np.arange(8) > 3, np.arange(6) > 2) / 2
ys = (mask * (edges + 0.1 * rng.standard_normal((16, 8, 6)))).astype("f4")
weights = np.geomspace(0.01, 0.5, 16).astype("f4")[:, None, None]

def recover(y, weight):
    return solve(Problem(LeastSquares(PixelSampling(mask), y), TV(weight)), PDHG(), gradient=Implicit())

def gradient(y, shared):
    return jax.grad(lambda y, w: (recover(y, w).value ** 2).sum(), argnums=(0, 1))(y, shared)

one, shared = recover(ys, weights), np.float32(0.1)
slopes = jax.jit(gradient)(ys, shared)
assert len(jax.devices()) == 8 and len(set(one.steps.tolist())) > 4
mesh = jax.make_mesh((8,), ("items",))
split = NamedSharding(mesh, P("items"))
y, placed = jax.device_put(ys, split), jax.device_put(weights, split)
program = jax.jit(recover).lower(y, placed).compile()
mapped = jax.shard_map(recover, mesh=mesh, in_specs=P("items"), out_specs=P("items"), check_vma=False)
for many in (recover(y, weights), program(y, placed), jax.jit(mapped)(y, placed)):
    for name in ("value", "status", "steps", "gap", "objective"):
        np.testing.assert_allclose(getattr(many, name), getattr(one, name), atol=1e-6)
        assert [s.data.shape[0] for s in getattr(many, name).addressable_shards] == 8 * [2], name
assert "all-gather" not in program.as_text() and "all-reduce" not in program.as_text()
by_item, by_weight = jax.jit(gradient)(y, shared)
np.testing.assert_allclose(by_item, slopes[0], atol=1e-4)
np.testing.assert_allclose(by_weight, slopes[1], rtol=1e-4)
assert len(by_item.sharding.device_set) == 8 and by_item.sharding.spec[0] == "items"
# Unrolled likewise, outside of `jax.set_mesh` too.
def unrolled(y, weight):
    return solve(Problem(LeastSquares(PixelSampling(mask), y), TV(weight)), PDHG(), gradient=Unrolled(9)).value
slope = jax.jit(jax.grad(lambda y, w: (unrolled(y, w) ** 2).sum(), argnums=(0, 1)))
np.testing.assert_allclose(unrolled(y, placed), unrolled(ys, weights), atol=1e-6)
for few, many in zip(slope(ys, shared), slope(y, shared)):
    np.testing.assert_allclose(few, many, rtol=1e-4, atol=1e-5)
assert slope(y, shared)[0].sharding.spec[0] == "items"
try:
    jax.device_put(ys[:13], split)
except ValueError as error:
    assert "13" in str(error)
else:
    raise AssertionError("13 items do not divide among 8 devices")
"""


def test_a_batch_over_devices(on_eight_devices: Callable[[str], None]) -> None:
    on_eight_devices(PROGRAM)
