"""A batch over eight simulated devices: every kind of reconstructor gives what it gives on one, and leaves it split."""

from collections.abc import Callable

PROGRAM = """
import jax, numpy as np
from jax.sharding import NamedSharding, PartitionSpec as P
from emjax.acquisition import Noise
from emjax.operators import Dense, PixelSampling
from emjax.reconstructors import OMP, Lasso, TotalVariation

rng = np.random.default_rng(0)
matrices = (rng.standard_normal((16, 20, 32)) / 20**0.5).astype("f4")
x = np.zeros((16, 32), "f4")
x[:, :2] = 1 + rng.random((16, 2))
mask = (rng.random((8, 6)) < 0.7).astype("f4")
edges = np.add.outer(np.arange(8) > 3, np.arange(6) > 2) / 2
pixels = (mask * (edges + 0.1 * rng.standard_normal((16, 8, 6)))).astype("f4")
one, many, levels = Dense(matrices[0]), Dense(matrices), Noise(0.0, np.linspace(0.05, 0.15, 16).astype("f4"))
cases = {
    "OMP": (OMP(2), x @ matrices[0].T, one, None),
    "LASSO, a matrix each": (Lasso(0.05), np.einsum("bmn,bn->bm", matrices, x), many, None),
    "TV, a noise each": (TotalVariation(0.1, max_steps=100), pixels, PixelSampling(mask), levels),
}
mesh = jax.make_mesh((8,), ("items",))
split = NamedSharding(mesh, P("items"))
assert len(jax.devices()) == 8
for name, (recon, y, A, noise) in cases.items():
    expected = recon(y, A, noise)
    placed = jax.device_put(y, split)
    parts = [(A, noise)]
    if A is many or noise is not None:
        parts.append(jax.tree.map(lambda v: jax.device_put(v, split) if v.shape[:1] == (16,) else v, (A, noise)))
    for A, noise in parts:
        found = recon(placed, A, noise)
        np.testing.assert_allclose(found, expected, atol=1e-5, err_msg=name)
        assert [s.data.shape[0] for s in found.addressable_shards] == 8 * [2], name
# A fit that does not look at the measurements, too.
y = jax.device_put(x @ matrices[0].T, split)
np.testing.assert_allclose(OMP(2).fit(y, one)(y, one), x, atol=1e-4)
"""


def test_a_batch_over_devices(on_eight_devices: Callable[[str], None]) -> None:
    on_eight_devices(PROGRAM)
