"""Every linear operator, small enough to be compared with its dense matrix: a new one is a line in
`EXAMPLES`.

A real-linear map between real or complex items is a real matrix M on the pairs (Re, Im). With it every claim
can be checked: the adjoint is `M.T`, the norm is the largest singular value of M, `gram_scale` is the c in
`M.T M = c I`.
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax import operators as ops
from emjax.operators import LinearOperator

Shape = tuple[int, ...]
Build = Callable[["Numbers", Shape], LinearOperator]

# Odd, tiny, one pixel high, not square, and one longer than the blocks that DCT treats as matrices.
SHAPES_2D = ((8, 8), (7, 9), (1, 5), (2, 2), (12, 5), (66, 2))
SHAPES_POWERS = ((8, 8), (1, 4), (2, 2), (16, 2), (4, 1), (64, 2))
SHAPES_3D = ((4, 2, 6), (3, 5, 7), (1, 2, 2), (1, 1, 5), (2, 2, 2), (5, 4, 1))
SEEDS = 32
ADJOINT_BAR = {"float32": 1e-5, "float64": 1e-12}


class Numbers:
    """Random arrays that float32 holds exactly, so that the float32 and the float64 operator are the same
    map."""

    def __init__(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def normal(self, *shape: int) -> jax.Array:
        return _exact(self._rng.standard_normal(shape))

    def complex(self, *shape: int) -> jax.Array:
        real, imaginary = (self._rng.standard_normal(shape).astype(np.float32) for _ in range(2))
        return jax.device_put(real.astype(np.float64) + 1j * imaginary)

    def weights(self, *shape: int) -> jax.Array:
        return _exact(self._rng.random(shape))

    def mask(self, *shape: int) -> jax.Array:
        mask = self._rng.random(shape) < 0.4
        mask.flat[0] = True
        return _exact(mask)

    def scramble(self, *shape: int, ndim: int = 2) -> ops.Scramble:
        item = shape[len(shape) - ndim :]
        signs = _exact(np.sign(self._rng.standard_normal(shape)))
        places = np.broadcast_to(np.arange(np.prod(item), dtype=np.int32), (*shape[:-ndim], np.prod(item)))
        return ops.Scramble(item, signs, jax.device_put(self._rng.permuted(places, axis=-1).reshape(shape)))

    def rows(self, m: int, n: int) -> jax.Array:
        """Orthonormal ones, fewer than m where there are no m; float32 has zeros and signs of them exactly."""
        return _exact(self._rng.permutation(np.eye(n))[:m] * np.sign(self._rng.standard_normal(n)))

    def symmetric(self, *shape: int) -> jax.Array:
        kernel = self._rng.standard_normal(shape)
        for axis in range(kernel.ndim):
            kernel = (kernel + np.flip(kernel, axis)) / 2
        return _exact(kernel)


def _exact(x: np.ndarray) -> jax.Array:
    # `device_put`: `jnp.asarray` would compile a program for every shape.
    return jax.device_put(x.astype(np.float32).astype(np.float64))


@dataclasses.dataclass(frozen=True)
class Example:
    """One operator at six shapes. `tight` is the largest allowed ratio of norm bound and norm (None: any)."""

    name: str
    build: Build
    tight: float | None = None
    shapes: tuple[Shape, ...] = SHAPES_2D


def _pooling(x: jax.Array) -> jax.Array:
    return x[..., ::2].cumsum(0)


# The closed forms are exact up to rounding; "any" where only an upper bound is known.
EXACT, CLOSE = 1.0001, 1.01
EXAMPLES = (
    Example("identity", lambda r, s: ops.Identity(s), EXACT),
    Example("pixel sampling, 0/1", lambda r, s: ops.PixelSampling(r.mask(*s)), EXACT),
    Example("pixel sampling, soft", lambda r, s: ops.PixelSampling(r.weights(*s)), EXACT),
    Example("pixel sampling, 3-D", lambda r, s: ops.PixelSampling(r.mask(*s), ndim=3), EXACT, SHAPES_3D),
    Example("differences", lambda r, s: ops.FiniteDifference(s), EXACT),
    Example("differences, spacing", lambda r, s: ops.FiniteDifference(s, (0.5, 2.0)), EXACT),
    Example("differences, 3-D", lambda r, s: ops.FiniteDifference(s, (4.0, 1.0, 1.0)), EXACT, SHAPES_3D),
    Example("symmetric gradient", lambda r, s: ops.SymmetricGradient(s)),
    Example(
        "symmetric gradient, spacing, 3-D", lambda r, s: ops.SymmetricGradient(s, (4.0, 1.0, 0.5)), None, SHAPES_3D
    ),
    Example("gradient less field", lambda r, s: ops.GradientLessField(s)),
    Example("gradient less field, 3-D", lambda r, s: ops.GradientLessField(s, (2.0, 1.0, 1.0)), None, SHAPES_3D),
    Example("on the image", lambda r, s: ops.OnImage(ops.PixelSampling(r.weights(*s)), 2), EXACT),
    Example("on the field", lambda r, s: ops.OnField(ops.SymmetricGradient(s))),
    Example("DCT", lambda r, s: ops.DCT(s), EXACT),
    Example("DCT, 3-D", lambda r, s: ops.DCT(s), EXACT, SHAPES_3D),
    Example("wavelet, db4", lambda r, s: ops.Wavelet(s), EXACT),
    Example("wavelet, haar", lambda r, s: ops.Wavelet(s, "haar"), EXACT),
    Example("wavelet, sym5, 3-D", lambda r, s: ops.Wavelet(s, "sym5"), EXACT, SHAPES_3D),
    Example("undecimated wavelet", lambda r, s: ops.UndecimatedWavelet(s, "db2"), EXACT),
    Example("undecimated wavelet, 3-D", lambda r, s: ops.UndecimatedWavelet(s, "haar", 1), EXACT, SHAPES_3D),
    Example("frame", lambda r, s: ops.parseval_frame(ops.DCT(s), ops.Wavelet(s, "haar")), EXACT),
    Example("Fourier, real", lambda r, s: ops.Fourier(s), EXACT),
    Example("Fourier, complex", lambda r, s: ops.Fourier(s, real=False), EXACT),
    Example("Fourier, real, 3-D", lambda r, s: ops.Fourier(s), EXACT, SHAPES_3D),
    Example("subsampled Fourier, 0/1", lambda r, s: ops.SubsampledFourier(r.mask(*s)), EXACT),
    Example("subsampled Fourier, soft", lambda r, s: ops.SubsampledFourier(r.weights(*s)), EXACT),
    Example("subsampled Fourier, complex", lambda r, s: ops.SubsampledFourier(r.weights(*s), real=False), EXACT),
    Example("Hadamard", lambda r, s: ops.Hadamard(s), EXACT, SHAPES_POWERS),
    Example("Hadamard, sequency, 3-D", lambda r, s: ops.Hadamard((*s, 2), "sequency"), EXACT, SHAPES_POWERS),
    Example("scramble", lambda r, s: r.scramble(*s), EXACT),
    Example(
        "scrambled Hadamard, 0/1",
        lambda r, s: ops.SubsampledHadamard(r.mask(*s), r.scramble(*s)),
        EXACT,
        SHAPES_POWERS,
    ),
    Example("scrambled DCT, soft", lambda r, s: ops.SubsampledDCT(r.weights(*s), r.scramble(*s)), EXACT),
    Example("blur, periodic", lambda r, s: ops.Blur(r.normal(3, 4), s), CLOSE),
    Example("blur, periodic, 3-D", lambda r, s: ops.Blur(r.normal(2, 3, 3), s), CLOSE, SHAPES_3D),
    Example("blur, reflect", lambda r, s: ops.Blur(r.normal(4, 3), s, "reflect")),
    Example("blur, reflect, symmetric", lambda r, s: ops.Blur(r.symmetric(3, 5), s, "reflect"), CLOSE),
    Example("blur, reflect, promised", lambda r, s: ops.Blur(r.symmetric(3, 5), s, "reflect", symmetric=True), CLOSE),
    Example("blur, zero", lambda r, s: ops.Blur(r.normal(5, 2), s, "zero")),
    Example("dense", lambda r, s: ops.Dense(r.normal(*s)), 1.05),
    Example("dense, complex", lambda r, s: ops.Dense(r.complex(5, s[0] * s[1]), s), 1.05),
    Example("dense, orthonormal", lambda r, s: ops.Dense(r.rows(*s), orthonormal=True), EXACT),
    Example("blocks, padded", lambda r, s: ops.BlockSampling(r.normal(4, 6), s, (3, 2))),
    Example(
        "blocks, orthonormal",
        lambda r, s: ops.BlockSampling(r.rows(2, 6), (3 * s[0], 2 * s[1]), (3, 2), orthonormal=True),
        EXACT,
        ((2, 2), (1, 3), (3, 1), (2, 1), (1, 1), (1, 2)),
    ),
    Example("blocks of masks", lambda r, s: ops.Blockwise(ops.PixelSampling(r.weights(2, 3)), s)),
    Example("blocks, 3-D", lambda r, s: ops.Blockwise(ops.DCT((2, 2, 2)), s), EXACT, SHAPES_3D),
    Example("patches of a stack", lambda r, s: ops.Patches(s, 2), EXACT, SHAPES_3D),
    Example("down-sampling, bicubic", lambda r, s: ops.Downsampling(s, 2), EXACT),
    Example("down-sampling, Lanczos", lambda r, s: ops.Downsampling(s, (1.5, 3), "lanczos3"), EXACT),
    Example("down-sampling, area", lambda r, s: ops.Downsampling((2 * s[0], s[1]), (2, 1), "area"), EXACT),
    Example("down-sampling, area, 3-D", lambda r, s: ops.Downsampling(s, 2.5, "area"), EXACT, SHAPES_3D),
    Example("reshape", lambda r, s: ops.Reshape(s, (s[1] * s[0],)), EXACT),
    Example("function", lambda r, s: ops.from_function(_pooling, s, norm=float(s[0]))),
    Example("scale", lambda r, s: -0.75 * ops.PixelSampling(r.weights(*s)), EXACT),
    Example("sum", lambda r, s: ops.DCT(s) + 0.5 * ops.Identity(s) - ops.PixelSampling(r.weights(*s))),
    Example(
        "stack",
        lambda r, s: ops.stack(ops.PixelSampling(r.weights(*s)), 2 * ops.PixelSampling(r.weights(*s))),
    ),
    Example("stack, real and complex", lambda r, s: ops.stack(ops.PixelSampling(r.mask(*s)), ops.Fourier(s))),
    Example(
        "stack behind Fourier",
        lambda r, s: ops.stack(ops.PixelSampling(r.weights(*s)), ops.PixelSampling(r.mask(*s))) @ ops.Fourier(s),
    ),
    Example("compose", lambda r, s: ops.PixelSampling(r.mask(*s)) @ ops.Wavelet(s).H),
    Example("compose, gram diagonal", lambda r, s: ops.DCT(s) @ ops.PixelSampling(r.weights(*s)), EXACT),
    Example("adjoint of subsampled Fourier", lambda r, s: ops.SubsampledFourier(r.weights(*s)).H, EXACT),
    Example("transpose of subsampled Fourier", lambda r, s: ops.SubsampledFourier(r.weights(*s)).T, EXACT),
    Example("transpose of a real map", lambda r, s: ops.FiniteDifference(s).T, EXACT),
    Example("gram", lambda r, s: ops.FiniteDifference(s).gram, EXACT),
)


def enable_x64() -> contextlib.AbstractContextManager:
    """float64 in this context only."""
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # older versions of JAX

    return enable_x64(True)


def precision(dtype: str) -> contextlib.AbstractContextManager:
    return enable_x64() if dtype == "float64" else contextlib.nullcontext()


def items(numbers: Numbers, dtype: Any, *shape: int) -> np.ndarray:
    complex_items = jnp.issubdtype(dtype, jnp.complexfloating)
    return np.asarray(numbers.complex(*shape) if complex_items else numbers.normal(*shape))


def unit_items(dtype: Any, shape: Shape) -> np.ndarray:
    """The basis of the items as a real vector space."""
    eye = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    if jnp.issubdtype(dtype, jnp.complexfloating):
        eye = np.concatenate([eye, 1j * eye])
    return eye


def as_real(y: Any, dtype: Any, batch: int) -> np.ndarray:
    """Items as real vectors in float64: (batch, n) or (batch, 2n)."""
    y = np.asarray(y).reshape(batch, -1)
    parts = [y.real, y.imag] if jnp.issubdtype(dtype, jnp.complexfloating) else [y.real]
    return np.concatenate(parts, 1).astype(np.float64)


@dataclasses.dataclass
class Measured:
    """What one operator did: its matrix M, that of its adjoint, adjoint errors per seed, its claims.

    `dtypes` are those of `A.H y` and `A x`, to be compared with the declared `in_dtype` and `out_dtype`.
    """

    op: LinearOperator
    in_dtype: np.dtype
    out_dtype: np.dtype
    matrix: np.ndarray
    adjoint_matrix: np.ndarray
    adjoint_errors: np.ndarray
    norm_bound: float
    dtypes: tuple[np.dtype, np.dtype]
    claims: dict[str, np.ndarray]

    @functools.cached_property
    def norm(self) -> float:
        return float(np.linalg.norm(self.matrix, 2))


def _everything(op: LinearOperator, x: jax.Array, y: jax.Array, claims: bool) -> tuple:
    found = {}
    if claims:
        found = {name: getattr(op, name)() for name in ("gram_diagonal", "gram_scale", "row_scale")}
        if op.has_resolvent:
            found["resolvent"] = jax.vmap(lambda v: op.resolvent(v, jnp.asarray(0.7)))(x)
        found |= {basis: op.gram_spectrum(basis) for basis in ("dct", "fft")}
        found |= dict(zip(("row_sums", "column_sums"), op.absolute_sums() or (None, None), strict=True))
    return op(x), op.H(y), op.norm_bound(), {k: v for k, v in found.items() if v is not None}


# Hundreds of small programs are compiled by the tests: the compiler may save its optimisations there.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
_apply = jax.jit(_everything, static_argnames="claims")
_quick_apply = quick_jit(_everything, static_argnames="claims")


def measure(example: Example, shape: Shape, dtype: str, seed: int = 0, optimised: bool = False) -> Measured:
    """Apply the operator and its adjoint to 32 random items and all unit items; claims in float64 only."""
    with precision(dtype):
        numbers = Numbers(seed)
        op = example.build(numbers, shape)
        units_x, units_y = unit_items(op.in_dtype, op.in_shape), unit_items(op.out_dtype, op.out_shape)
        x = np.concatenate([items(numbers, op.in_dtype, SEEDS, *op.in_shape), units_x])
        y = np.concatenate([items(numbers, op.out_dtype, SEEDS, *op.out_shape), units_y])
        apply = _apply if optimised else _quick_apply
        ax, ahy, bound, claims = apply(op, x, y, claims=dtype == "float64")
        in_dtype, out_dtype = op.in_dtype, op.out_dtype
    u, v = as_real(x, in_dtype, len(x)), as_real(y, out_dtype, len(y))
    au, atv = as_real(ax, out_dtype, len(x)), as_real(ahy, in_dtype, len(y))
    s = slice(0, SEEDS)
    inner = np.sum(au[s] * v[s], 1) - np.sum(u[s] * atv[s], 1)
    # |A x| vanishes where A does (a single row has no differences along its columns): no relative error then.
    scale = np.linalg.norm(au[s], axis=1) * np.linalg.norm(v[s], axis=1)
    errors = np.abs(inner) / np.where(scale > 0, scale, 1.0)
    checked = {name: np.asarray(value) for name, value in claims.items()}
    if "resolvent" in checked:
        checked["resolvent"] = as_real(checked["resolvent"], in_dtype, len(x))[SEEDS:].T
    dtypes = (ahy.dtype, ax.dtype)
    return Measured(op, in_dtype, out_dtype, au[SEEDS:].T, atv[SEEDS:].T, errors, float(bound), dtypes, checked)
