"""Where an inverting network starts: a linear estimate of the image from its measurements.

"backprojection": the proxy `c A.T y`, with the `c` that fits the measurements of each item best (least squares).

"gaussian": the linear estimate of least mean square error (LMMSE). Grey values are a random field of stationary
covariance, a few numbers (`FIELD`) in place of the matrix `X X.T / N` of training patches:

    r(h) = level + white [h = 0] + sum_k v_k (1 + h / l_k) exp(-h / l_k),    l = 2, 4, 8 pixels
    x = mean + R A.T (A R A.T + sigma^2 I)^-1 (y - A mean)

Block by block, or for one small matrix. On EM images it is as good as `X Y.T (Y Y.T)^-1` to 0.05 dB (0.2 dB at a
quarter of the coefficients), and it follows the operator and the noise, which a stored matrix does not. It also knows
how far off it is: the deviation of its own error, the root of the diagonal of R - R A.T (A R A.T + sigma^2 I)^-1 A R.
Nothing in it is trained.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.acquisition.noise import Noise
from emjax.operators import Blockwise, Dense, LinearOperator
from emjax.operators.base import Shape, map_batch

STARTS = ("backprojection", "gaussian")
LENGTHS = (2.0, 4.0, 8.0)

# mean, white, level, and v_k: of SEM images of nerve tissue and FIB-SEM images of a fly's brain, grey values in [0, 1].
FIELD = (0.46, 0.0006, 0.0112, 0.0058, 0.0152, 0.0104)

# Pixels of a block, beyond which the matrices of the estimate are too large to be made at every call.
_LARGEST = 4096


def check_start(start: str, field: Sequence[float]) -> None:
    """ValueError for a start that there is not, or a field of other than six numbers with variances of 0 or more."""
    if start not in STARTS:
        raise ValueError(f"unknown start {start!r}; there are {', '.join(STARTS)}")
    if len(field) != len(FIELD) or min(field[1:]) < 0 or sum(field[1:]) <= 0:
        raise ValueError(
            f"a field is (mean, white, level, and the variances at the lengths {LENGTHS}), 0 or more, got {field}"
        )


def supports_start(start: str, A: LinearOperator) -> str | None:
    """Why there is no such start for `A`, or None."""
    block = A.op if isinstance(A, Blockwise) else A
    known = isinstance(A, Blockwise | Dense) and math.prod(block.in_shape) <= _LARGEST
    if start != "gaussian" or (known and not jnp.issubdtype(A.out_dtype, jnp.complexfloating)):
        return None
    return (
        f"the network starts from the matrix of a block: it takes Blockwise and Dense operators of real matrices of up "
        f"to {_LARGEST} pixels, not {A}. For pixel scans take scan-compact or scan-full, for other operators an "
        "iterative method, or train the network with start = 'backprojection'"
    )


def linear_start(start: str, field: Sequence[float], y: Array, A: LinearOperator, noise: Noise | None = None) -> Array:
    """The start of that name, shape `(*batch, *A.in_shape)`; `supports_start` says for which operators."""
    parts = (A, Noise() if noise is None else noise)
    return map_batch(lambda parts, y: _item(start, field, y, *parts), parts, y, A.out_shape)


def _item(start: str, field: Sequence[float], y: Array, A: LinearOperator, noise: Noise) -> Array:
    if start == "backprojection":
        x = A.adjoint(y)
        again = A.forward(x)
        power = jnp.sum(jnp.abs(again) ** 2)
        return x * (jnp.sum(jnp.real(jnp.conj(again) * y)) / jnp.where(power > 0, power, 1))
    return Estimate.of(field, A, noise, y.dtype).start(y)


class _Blocks(NamedTuple):
    """The blocks of one part of the grid, which see the same pixels; all blocks of an image of whole blocks.

    `matrix` is A.T, its rows zero for pixels beyond the image, whose value is known. With L L.T = A R A.T + sigma^2 I,
    `factor` is L and `known` L^-1 A R; `deviation` (one a pixel) is that of the estimate's error.
    """

    part: tuple[slice, ...]  # of the grid
    whole: bool
    inside: Array  # one for a pixel of the image
    matrix: Array
    factor: Array
    known: Array
    deviation: Array


class Estimate(NamedTuple):
    """The linear estimate "gaussian" of one operator without batch axes; `variance` is sigma^2."""

    A: LinearOperator
    mean: Array
    variance: Array
    parts: tuple[_Blocks, ...]

    @classmethod
    def of(cls, field: Sequence[float], A: LinearOperator, noise: Noise, dtype: Any) -> Self:
        op = A.op if isinstance(A, Blockwise) else A
        n = math.prod(op.in_shape)
        units = jnp.eye(n, dtype=dtype).reshape(n, *op.in_shape)
        whole = jax.vmap(op.forward)(units).reshape(n, -1)
        covariance = _covariance(field, op.in_shape).astype(dtype)
        # Counting noise depends on the image, which is not known yet.
        variance = jnp.square(noise.read_sigma).astype(dtype)
        parts = []
        for part, pixels in _parts(A):
            inside, all_of_them = jnp.asarray(pixels.ravel(), dtype), bool(pixels.all())
            matrix = inside[:, None] * whole
            cross = inside[:, None] * jnp.matmul(covariance, matrix, precision="highest")  # R A.T
            factor = _factor(jnp.matmul(matrix.T, cross, precision="highest"), variance, all_of_them)
            known = jax.scipy.linalg.solve_triangular(factor, cross.T, lower=True)
            left = jnp.maximum(inside * jnp.diagonal(covariance) - jnp.sum(jnp.square(known), 0), 0)
            parts.append(_Blocks(part, all_of_them, inside, matrix, factor, known, jnp.sqrt(left)))
        return cls(A, jnp.asarray(field[0], dtype), variance, tuple(parts))

    def start(self, y: Array) -> Array:
        """The image, `A.in_shape`, from all of its measurements `A.out_shape`."""

        def estimate(b: _Blocks, y: Array) -> Array:
            centred = y - self.mean * jnp.sum(b.matrix, 0)
            weights = jax.scipy.linalg.solve_triangular(b.factor, centred.T, lower=True)
            return self.mean + jnp.matmul(weights.T, b.known, precision="highest")

        return self._each(estimate, y)

    def unseen(self, v: Array) -> Array:
        """`v - A.T (A A.T + sigma^2 / s^2 I)^-1 A v`, s^2 the mean variance of the estimate's error, `A.in_shape`.

        What of a change v of the estimate the measurements leave open; without noise A of it is zero.
        """

        def seen(b: _Blocks, y: Array) -> Array:
            expected = jnp.sum(jnp.square(b.deviation)) / jnp.sum(b.inside)
            system = jnp.matmul(b.matrix.T, b.matrix, precision="highest")
            factor = _factor(system, self.variance / jnp.maximum(expected, 1e-12), b.whole)
            weights = jax.scipy.linalg.cho_solve((factor, True), y.T)
            return jnp.matmul(weights.T, b.matrix.T, precision="highest")

        return v - self._each(seen, self.A.forward(v))

    def error(self) -> Array:
        """The deviation of the error at every pixel, `A.in_shape`."""
        nothing = jnp.zeros(self.A.out_shape, self.mean.dtype)
        return self._each(lambda b, y: jnp.broadcast_to(b.deviation, (len(y), b.deviation.size)), nothing)

    def _each(self, function: Callable[[_Blocks, Array], Array], y: Array) -> Array:
        """The image of `function(part, measurements (blocks, m)) -> (blocks, pixels)` of all parts."""
        A, (n, m) = self.A, self.parts[0].matrix.shape
        if not isinstance(A, Blockwise):
            return function(self.parts[0], y.reshape(1, m)).reshape(A.in_shape)
        y = y.reshape(*A.grid, m)
        if len(self.parts) == 1:
            return A.join(function(self.parts[0], y.reshape(-1, m)).reshape(-1, *A.op.in_shape))
        blocks = jnp.zeros((*A.grid, n), y.dtype)
        for b in self.parts:
            some = y[b.part]
            blocks = blocks.at[b.part].set(function(b, some.reshape(-1, m)).reshape(*some.shape[:-1], n))
        return A.join(blocks.reshape(-1, *A.op.in_shape))


def _parts(A: LinearOperator) -> list[tuple[tuple[slice, ...], np.ndarray]]:
    """The parts of the grid whose blocks lie as far within the image as each other, and which pixels do, a block."""
    if not isinstance(A, Blockwise):
        return [((), np.ones(A.in_shape, bool))]
    axes = []
    for size, block, count in zip(A.shape, A.op.in_shape, A.grid, strict=True):
        rest = size - (count - 1) * block  # of the last block
        axis = [(slice(0, count - 1), block), (slice(count - 1, count), rest)] if rest < block else []
        axes.append([(s, k) for s, k in axis if s.start < s.stop] or [(slice(0, count), block)])
    found = []
    for choice in itertools.product(*axes):
        inside = np.zeros(A.op.in_shape, bool)
        inside[tuple(slice(0, k) for _, k in choice)] = True
        found.append((tuple(s for s, _ in choice), inside))
    return found


def _factor(system: Array, variance: Array, whole: bool) -> Array:
    """The Cholesky factor of `system + variance I`, and a trace more for rounding; rows of zeros do no harm.

    More of a block that lies in the image only in part (not `whole`): its rows are more than its pixels, perhaps.
    """
    level = jnp.diagonal(system)
    ridge = (1e-6 if whole else 1e-5) * jnp.max(level)
    return jnp.linalg.cholesky(system + jnp.diag(variance + ridge + jnp.where(level > 0, 0, 1)))


def _covariance(field: Sequence[float], shape: Shape) -> Array:
    """The covariance of all pairs of pixels of a block, row-major, `(n, n)`."""
    _, white, level, *variances = field
    # The function of the lags is a small table; the matrix itself is too large to be a constant of the program.
    h = np.sqrt(sum(a.astype(float) ** 2 for a in np.indices(shape)))
    table = level + white * (h == 0)
    table = table + sum(
        v * (1 + h / length) * np.exp(-h / length) for v, length in zip(variances, LENGTHS, strict=True)
    )
    places = jnp.unravel_index(jnp.arange(math.prod(shape)), shape)
    return jnp.asarray(table)[tuple(jnp.abs(i[:, None] - i[None, :]) for i in places)]


def estimate_field(images: Iterable[Any], side: int = 33, patches: int = 1000, seed: int = 0) -> tuple[float, ...]:
    """The field of training images `(h, w)` with grey values in [0, 1]: of so many random patches of each. On the host.

    The covariance of all pairs of pixels of a patch, averaged over pairs at one distance, is fitted by `r(h)` with
    variances of 0 or more. Raises ValueError for images smaller than the patches.
    """
    from scipy.optimize import nnls

    rng, cut = np.random.default_rng(seed), []
    for image in images:
        image = np.asarray(image, np.float64)
        if image.ndim != 2 or min(image.shape) < side:
            raise ValueError(f"the field is estimated from images (h, w) of {side} pixels or more, got {image.shape}")
        corners = rng.integers(0, np.subtract(image.shape, side) + 1, (patches, 2))
        cut.append(np.stack([image[i : i + side, j : j + side].ravel() for i, j in corners]))
    x = np.concatenate(cut)
    mean = x.mean()
    covariance = (x - mean).T @ (x - mean) / len(x)
    where = np.indices((side, side)).reshape(2, -1)
    square = sum((i[:, None] - i[None, :]) ** 2 for i in where)
    squares, inverse, count = np.unique(square, return_inverse=True, return_counts=True)
    values = np.bincount(inverse.ravel(), covariance.ravel()) / count
    h = np.sqrt(squares)[:, None]
    columns = np.concatenate([h == 0, np.ones_like(h), *[(1 + h / k) * np.exp(-h / k) for k in LENGTHS]], 1)
    # Near pairs matter most; the thousands of pairs at one distance are not independent.
    weight = np.sqrt(np.minimum(count, 2000) / (1 + h[:, 0]))
    variances, _ = nnls(columns * weight[:, None], values * weight)
    return tuple(float(v) for v in (mean, *variances))
