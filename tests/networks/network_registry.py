"""The networks of the tests, a line each, with the operator that they are given and their evaluation in NumPy."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy_networks as plain
from flax import nnx
from numpy_scan import scan

from emjax.acquisition.noise import Noise
from emjax.networks import Network, build
from emjax.operators import Blockwise, Dense, Downsampling, Identity, LinearOperator, PixelSampling, SubsampledFourier

H, W = 13, 11
TINY = {"phases": 2, "width": 3}
SCAN = {"unshuffle": 2, "widths": (4, 6), "encoder": (0, 1), "decoder": (1,), "depth": 2}


def rows(m: int, n: int, orthonormal: bool = False) -> np.ndarray:
    matrix = np.random.default_rng(5).standard_normal((m, n))
    return (np.linalg.qr(matrix.T)[0].T if orthonormal else matrix / np.sqrt(m)).astype("f4")


def drawn(*shape: int, soft: bool = False) -> np.ndarray:
    """A mask, of weights up to 1 where it is soft."""
    rng = np.random.default_rng(7)
    mask = (rng.random(shape) < 0.4).astype("f4")
    return mask * (0.2 + 0.8 * rng.random(shape)).astype("f4") if soft else mask


OPERATORS: dict[str, Callable[[], LinearOperator]] = {
    "pixels": lambda: PixelSampling(drawn(H, W, soft=True)),
    "blocks": lambda: Blockwise(Dense(rows(6, 16), (4, 4)), (H, W)),
    "orthonormal blocks": lambda: Blockwise(Dense(rows(6, 16, True), (4, 4), orthonormal=True), (H, W)),
    "matrix": lambda: Dense(rows(12, 20)),
    "fourier": lambda: SubsampledFourier(drawn(H, W)),
    "small": lambda: Downsampling((14, 12), 2),
    "scan": lambda: PixelSampling(drawn(30, 43, soft=True)),
    "nothing": lambda: Identity((H, W)),
    "latent": lambda: Identity((6,)),
}


@dataclasses.dataclass(frozen=True)
class Case:
    """`start`: whether untrained it returns the linear start. `call`: how it is called."""

    kind: str
    operator: str
    reference: Callable[..., np.ndarray]
    parameters: int
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    noise: Noise | None = None
    start: bool = False
    call: Callable[..., jax.Array] = lambda network, y, A, noise: network(y, A, noise)


_blocks = {"start": "gaussian", **TINY}
_dual = {"iterations": 2, "width": 3}
_modl = {"depth": 2, "admm": False, **TINY}
_read, _counts = Noise(read_sigma=0.05), Noise(gain=0.01, read_sigma=0.05)
_level = jnp.float32(0.3)

CASES: dict[str, Case] = {
    "deep-inverse": Case("deep-inverse", "pixels", plain.deep_inverse, 259_521, start=True),
    "deep-inverse-posterior": Case(
        "deep-inverse", "blocks", plain.deep_inverse, 259_521, {"start": "gaussian", "posterior": True}, _read, True
    ),
    "ista-net": Case("ista-net", "fourier", plain.ista_net, 724, {"phases": 2, "width": 4}),
    "ista-net-plus": Case("ista-net-plus", "blocks", plain.ista_net_plus, 760, _blocks, _read),
    "lista": Case("lista", "matrix", plain.lista, 660, {"m": 12, "n": 20, "layers": 3}),
    "lista-untied": Case("lista", "matrix", plain.lista, 1580, {"m": 12, "n": 20, "layers": 3, "tied": False}),
    "primal-dual": Case(
        "learned-primal-dual", "small", plain.learned_primal_dual, 958, _dual | {"memory": 2}, start=True
    ),
    "primal-dual-pointwise": Case(
        "learned-primal-dual", "blocks", plain.learned_primal_dual, 402,
        _dual | {"memory": 1, "dual": "pointwise", "start": "gaussian"}, _read, True,
    ),
    "modl": Case("modl", "blocks", plain.modl, 88, _modl | {"steps": 30, "start": "gaussian"}, _read),
    "modl-admm": Case("modl", "pixels", plain.modl, 88, _modl | {"admm": True}),
    "scan": Case("scan", "scan", scan, 1764, SCAN | {"stages": 2}, _counts),
    "scan-field": Case("scan", "scan", scan, 3017, SCAN | {"unshuffle": 4, "depth": 1, "field_steps": 1}, _read),
    "dncnn": Case(
        "dncnn", "nothing", plain.dncnn, 169, {"width": 3, "depth": 3}, start=True,
        call=lambda n, y, A, noise: n(y, _level),
    ),
    "vae": Case(
        "vae", "latent", plain.vae, 647, {"side": 4, "latent": 6, "width": 5, "encoder": 7},
        call=lambda n, y, A, noise: n.decode(y),
    ),
}  # fmt: skip


@functools.cache
def operator(name: str) -> LinearOperator:
    return OPERATORS[name]()


@functools.cache
def matrix(name: str) -> plain.Matrix:
    """The operator as NumPy has it."""
    op = operator(name)
    n = int(np.prod(op.in_shape))
    columns = np.asarray(op(jnp.eye(n).reshape(n, *op.in_shape)))
    columns = columns.reshape(n, -1).astype(np.complex128 if np.iscomplexobj(columns) else np.float64)
    found = plain.Matrix(columns.T, float(op.norm_bound()), op.in_shape, op.out_shape)
    if isinstance(op, Blockwise):
        assert isinstance(op.op, Dense)
        found.block, found.block_shape = np.asarray(op.op.matrix, np.float64), op.op.in_shape
    if isinstance(op, PixelSampling):
        found.mask = np.asarray(op.mask, np.float64)
    return found


@functools.cache
def untrained(name: str, seed: int = 0) -> Network:
    case = CASES[name]
    return build(case.kind, case.settings, seed)


@functools.cache
def network(name: str, seed: int = 0) -> Network:
    """With random values in every parameter, those that begin at zero too."""
    case, rng = CASES[name], np.random.default_rng(seed)
    # Only the shapes are asked of it: the compilation of all that draws first values would be most of the tests' time.
    graph, state = nnx.split(nnx.eval_shape(lambda: build(case.kind, case.settings)))

    def drawn(p: jax.ShapeDtypeStruct) -> jax.Array:
        # Kernels as rectifiers want them (He), biases of 0.1, thresholds and steps of 0.02.
        scale = np.sqrt(2 / np.prod(p.shape[:-1])) if len(p.shape) > 1 else 0.1 if p.shape else 0.02
        return jnp.asarray(scale * rng.standard_normal(p.shape), jnp.float32)

    return nnx.merge(graph, jax.tree.map(drawn, state))


@functools.cache
def measured(name: str, items: int = 3) -> jax.Array:
    """Measurements of smooth images, `(items, *out_shape)`, with some noise."""
    op, rng = operator(CASES[name].operator), np.random.default_rng(1)
    if len(op.in_shape) == 1:
        return op(jnp.asarray(rng.standard_normal((items, *op.in_shape)), jnp.float32))
    i, j = np.indices(op.in_shape)
    phase = rng.random((items, 4, 1, 1))
    images = 0.5 + 0.2 * np.sin(i / 3 + 6 * phase[:, 0]) + 0.2 * np.cos((i * phase[:, 1] + j) / 4 + 6 * phase[:, 2])
    y = op(jnp.asarray(images + 0.03 * rng.standard_normal(images.shape), jnp.float32))
    return op.measured(y)


def weights(found: Any) -> plain.Weights:
    """Path -> array of a network, or of anything like its state."""
    state = found if isinstance(found, nnx.State) else nnx.state(found, nnx.Param)
    flat = nnx.to_flat_state(state)
    return {"/".join(map(str, path)): np.asarray(v.get_value(), np.float64) for path, v in flat}


def reference(name: str, values: plain.Weights, y: np.ndarray) -> np.ndarray:
    """What the network of these weights makes of one item, in float64."""
    case = CASES[name]
    return case.reference(values, network(name).settings, y, matrix(case.operator), case.noise)
