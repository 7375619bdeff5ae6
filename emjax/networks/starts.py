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

import functools
import math
from collections.abc import Iterable, Sequence
from typing import Any

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


def gaussian_start(
    field: Sequence[float], y: Array, A: LinearOperator, noise: Noise | None = None
) -> tuple[Array, Array]:
    """The start "gaussian" and the standard deviation of its error in that field, both `(*batch, *A.in_shape)`."""
    parts = (A, Noise() if noise is None else noise)
    return map_batch(lambda parts, y: _estimate(field, y, *parts), parts, y, A.out_shape)


def _item(start: str, field: Sequence[float], y: Array, A: LinearOperator, noise: Noise) -> Array:
    if start == "backprojection":
        x = A.adjoint(y)
        again = A.forward(x)
        power = jnp.sum(jnp.abs(again) ** 2)
        return x * (jnp.sum(jnp.real(jnp.conj(again) * y)) / jnp.where(power > 0, power, 1))
    return _estimate(field, y, A, noise)[0]


def _estimate(field: Sequence[float], y: Array, A: LinearOperator, noise: Noise) -> tuple[Array, Array]:
    # Counting noise depends on the image, which is not known yet.
    variance = jnp.square(noise.read_sigma).astype(y.dtype)
    if not isinstance(A, Blockwise):
        x, deviation = _gaussian(field, y[None], A, variance)
        return x[0], deviation
    blocks = y.reshape(-1, *A.op.out_shape)
    x, deviation = _gaussian(field, blocks, A.op, variance)
    return A.join(x), A.join(jnp.broadcast_to(deviation, x.shape))


def _gaussian(field: Sequence[float], y: Array, op: LinearOperator, variance: Array) -> tuple[Array, Array]:
    """The estimates of blocks from their measurements, `(blocks, *op.in_shape)`, and their deviation, `op.in_shape`."""
    n = math.prod(op.in_shape)
    units = jnp.eye(n, dtype=y.dtype).reshape(n, *op.in_shape)
    matrix = jax.vmap(op.forward)(units).reshape(n, -1)  # A.T
    covariance = _covariance(field, op.in_shape).astype(y.dtype)
    cross = jnp.matmul(covariance, matrix, precision="highest")  # R A.T
    system = jnp.matmul(matrix.T, cross, precision="highest")
    level = jnp.diagonal(system)
    # A trace of ridge for rounding; rows that measure nothing must not make it singular.
    ridge = variance + 1e-6 * jnp.max(level) + jnp.where(level > 0, 0, 1)
    factor = jnp.linalg.cholesky(system + jnp.diag(ridge))
    mean = jnp.asarray(field[0], y.dtype)
    centred = y.reshape(len(y), -1) - mean * jnp.sum(matrix, 0)
    # With L L.T the system, both need L^-1 A R.
    solve = functools.partial(jax.scipy.linalg.solve_triangular, factor, lower=True)
    known = solve(cross.T)
    x = mean + jnp.matmul(solve(centred.T).T, known, precision="highest")
    left = jnp.maximum(jnp.diagonal(covariance) - jnp.sum(jnp.square(known), 0), 0)
    return x.reshape(len(y), *op.in_shape), jnp.sqrt(left).reshape(op.in_shape)


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
