"""Structural similarity with a Gaussian window (Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 13, 2004, eq. 13).

    SSIM = (2 mx mt + C1) (2 cxt + C2) / ((mx^2 + mt^2 + C1) (vx + vt + C2)),   C1 = (0.01 R)^2,  C2 = (0.03 R)^2

with local means m, population variances v and covariance c under a Gaussian of sigma 1.5 (11 taps), averaged over
the pixels whose whole window lies inside the image.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ._inputs import check_data_range, image_pair

SIGMA, RADIUS, K1, K2 = 1.5, 5, 0.01, 0.03
TAPS = 2 * RADIUS + 1
BLOCK = 128  # outputs per matrix product; larger wastes arithmetic on zeros, smaller wastes memory traffic on halos


def ssim(
    image: Float[Array, "*batch h w"],
    truth: Float[Array, "*batch h w"],
    *,
    data_range: ArrayLike = 1.0,
    ndim: int = 2,
) -> Float[Array, "*batch"]:
    """Mean structural similarity, one per image: at most 1, which identical images reach; 0 is no similarity.

    The same number as scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5,
    use_sample_covariance=False)`. Nothing is clipped; symmetric in its two images.

    Args:
        image: `(*batch, h, w)`, or `(*batch, d, h, w)` with `ndim=3` (a three-dimensional window).
        truth: same shape.
        data_range: the grey value of white (one positive number); always given, never inferred.
        ndim: static, 2 or 3 spatial axes. Stacks thinner than 11 slices can be judged slice by slice with `ndim=2`.

    Returns:
        `(*batch,)`.

    Raises:
        ValueError: (at trace time) shapes differ, too few axes, dtype not float32 or float64, a spatial axis below 11.
    """
    image, truth = image_pair(image, truth, ndim)
    check_data_range(data_range)
    size = image.shape[-ndim:]
    if min(size) < TAPS:
        raise ValueError(
            f"images of size {size} are smaller than the {TAPS}-pixel window of SSIM; give at least {TAPS} pixels "
            "along every spatial axis" + (", or ndim=2 to judge the slices of a thin stack" if ndim == 3 else "")
        )
    return _ssim(image, truth, data_range, ndim)


@functools.partial(jax.jit, static_argnums=3)
def _ssim(image: Array, truth: Array, data_range: ArrayLike, ndim: int) -> Array:
    # In terms of the sum s = x + t and the difference d = x - t,
    #     2 mx mt = (ms^2 - md^2) / 2,   mx^2 + mt^2 = (ms^2 + md^2) / 2,   and the same for 2 cxt and vx + vt,
    # so four filters do the work of five and each factor is 1 minus a small term: equal images give exactly 1, and
    # the cancellation that the textbook form suffers in float32 is gone. For the same reason the variances are taken
    # about the common mean grey value, which they do not depend on (hence no gradient through it).
    space = tuple(range(-ndim, 0))
    c1, c2 = (jnp.asarray(k * data_range, image.dtype) ** 2 for k in (K1, K2))
    centre = lax.stop_gradient(jnp.mean(0.5 * image + 0.5 * truth, axis=space, keepdims=True))
    s, d = (image - centre) + (truth - centre), image - truth
    ms, md = _gaussian(s, ndim), _gaussian(d, ndim)
    # Rounding can turn the variance of a flat region negative, and with a small C2 the quotient with it.
    vs = jnp.maximum(_gaussian(s * s, ndim) - ms * ms, 0)
    vd = jnp.maximum(_gaussian(d * d, ndim) - md * md, 0)
    ms = ms + 2 * centre
    luminance = 1 - md * md / (0.5 * (ms * ms + md * md) + c1)
    contrast_structure = 1 - vd / (0.5 * (vs + vd) + c2)
    return jnp.mean(luminance * contrast_structure, axis=space)


def _gaussian(x: Array, ndim: int) -> Array:
    """Filter the last `ndim` axes, keeping only pixels with a whole window: each axis shrinks by 10."""
    for axis in range(x.ndim - ndim, x.ndim):
        x = _gaussian_along(x, axis)
    return x


def _gaussian_along(x: Array, axis: int) -> Array:
    # Products with a banded matrix, block by block. On CPUs a one-channel convolution is several times slower, and
    # the sum of eleven shifted slices, as fast forward, several times slower in its gradient (a sum of padded arrays).
    outputs = x.shape[axis] - 2 * RADIUS
    blocks = -(-outputs // BLOCK)
    block = -(-outputs // blocks)
    width = block + 2 * RADIUS
    lead, trail = x.shape[:axis], x.shape[axis + 1 :]
    matrix = jnp.asarray(_band(block), x.dtype)
    if trail:
        x = x.reshape(*lead, x.shape[axis], math.prod(trail))
    padding = [(0, 0)] * x.ndim
    padding[axis] = (0, blocks * block - outputs)
    x = jnp.pad(x, padding)
    windows = jnp.stack([lax.slice_in_dim(x, i * block, i * block + width, axis=axis) for i in range(blocks)], axis)
    # Full precision: TF32 would spoil the variances on a GPU.
    if trail:
        y = jnp.matmul(matrix, windows, precision=lax.Precision.HIGHEST)
    else:
        y = jnp.matmul(windows, matrix.T, precision=lax.Precision.HIGHEST)
    y = y.reshape(*lead, blocks * block, *y.shape[axis + 2 :])
    return lax.slice_in_dim(y, 0, outputs, axis=axis).reshape(*lead, outputs, *trail)


def _band(outputs: int) -> np.ndarray:
    """`(outputs, outputs + 10)`: row i holds the normalised Gaussian in columns i to i + 10."""
    offset = np.arange(outputs + 2 * RADIUS) - RADIUS - np.arange(outputs)[:, None]
    kernel = np.where(np.abs(offset) <= RADIUS, np.exp(-0.5 * (offset / SIGMA) ** 2), 0.0)
    return kernel / kernel.sum(1, keepdims=True)
