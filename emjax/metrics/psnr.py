"""Mean errors and the peak signal-to-noise ratio.

    MSE = mean (x - t)^2        MAE = mean |x - t|        PSNR = 10 log10(R^2 / MSE)   in dB

PSNR is only comparable between papers when three choices are the same, so they are arguments here: the data
range R, whether the reconstruction is clipped to it, and how much border is left out.
"""

import functools

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ._inputs import check_data_range, image_pair


def _space(ndim: int) -> tuple[int, ...]:
    return tuple(range(-ndim, 0))


def mse(
    image: Float[Array, "*batch h w"], truth: Float[Array, "*batch h w"], *, ndim: int = 2
) -> Float[Array, "*batch"]:
    """Mean squared error over the last `ndim` axes (2 or 3, static; with 3 the shapes are `(*batch, d, h, w)`).

    Raises ValueError (at trace time) when shapes differ, have too few axes, or the dtype is not float32 or float64.
    """
    image, truth = image_pair(image, truth, ndim)
    return jnp.mean(jnp.square(image - truth), axis=_space(ndim))


def mae(
    image: Float[Array, "*batch h w"], truth: Float[Array, "*batch h w"], *, ndim: int = 2
) -> Float[Array, "*batch"]:
    """Mean absolute error over the last `ndim` axes; shapes and errors as in `mse`."""
    image, truth = image_pair(image, truth, ndim)
    return jnp.mean(jnp.abs(image - truth), axis=_space(ndim))


def psnr(
    image: Float[Array, "*batch h w"],
    truth: Float[Array, "*batch h w"],
    *,
    data_range: ArrayLike = 1.0,
    crop: int = 0,
    clip: bool = True,
    ndim: int = 2,
) -> Float[Array, "*batch"]:
    """Peak signal-to-noise ratio in dB, one per image: `10 log10(data_range^2 / MSE)`.

    Args:
        image: the reconstruction, `(*batch, h, w)`, or `(*batch, d, h, w)` with `ndim=3`.
        truth: same shape. It is never changed, not even where it leaves `[0, data_range]`.
        data_range: the grey value of white (one positive number), always given and never inferred: a maximum taken
            from the image would make the figure depend on the picture.
        crop: static; this many pixels are left out at every side of every spatial axis.
        clip: static; clip the reconstruction to `[0, data_range]` first, as a viewer or a file would. The gradient
            is zero at clipped pixels; `clip=False` when training on it.
        ndim: static, 2 or 3 spatial axes.

    Returns:
        `(*batch,)` in dB. Identical images give `+inf` (where the gradient is not finite). For a batch, the mean
        of these values is the mean over images; it is not the PSNR of the pooled error.

    Raises:
        ValueError: (at trace time) shapes differ, too few axes, dtype not float32 or float64, `crop` leaves nothing.
    """
    image, truth = image_pair(image, truth, ndim)
    check_data_range(data_range)
    size = image.shape[-ndim:]
    if crop < 0 or 2 * crop >= min(size):
        raise ValueError(
            f"crop={crop} was given for images of size {size}; it must be between 0 and {(min(size) - 1) // 2}, "
            "as it is taken off both ends of every axis"
        )
    return _psnr(image, truth, data_range, crop, clip, ndim)


@functools.partial(jax.jit, static_argnums=(3, 4, 5))
def _psnr(image: Array, truth: Array, data_range: ArrayLike, crop: int, clip: bool, ndim: int) -> Array:
    if crop:
        inner = (..., *(slice(crop, -crop),) * ndim)
        image, truth = image[inner], truth[inner]
    white = jnp.asarray(data_range, image.dtype)
    if clip:
        image = jnp.clip(image, 0, white)
    # Dividing before squaring keeps a small data_range from underflowing.
    return -10 * jnp.log10(mse(image / white, truth / white, ndim=ndim))
