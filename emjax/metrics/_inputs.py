"""The checks that every metric makes on its two images, at trace time."""

from numbers import Real

import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float


def image_pair(
    image: Float[ArrayLike, "*batch h w"], truth: Float[ArrayLike, "*batch h w"], ndim: int
) -> tuple[Float[Array, "*batch h w"], Float[Array, "*batch h w"]]:
    """Both images as arrays of one shape and a floating dtype, or a ValueError that tells how to get there."""
    if ndim not in (2, 3):
        raise ValueError(f"ndim={ndim!r} was given; use ndim=2 for images or ndim=3 for volumes")
    image, truth = jnp.asarray(image), jnp.asarray(truth)
    for array in (image, truth):
        # Integers would wrap round in a difference, half precision has too few digits for a local variance, and
        # complex numbers have no grey value.
        if array.dtype not in (jnp.float32, jnp.float64):
            raise ValueError(
                f"expected float32 or float64 images, got dtype {array.dtype}; convert first, "
                "for example image.astype('float32') / 255 for 8-bit images, or jnp.abs(image) for complex ones"
            )
    # Broadcasting is refused: an (n, 1, h, w) batch against (n, h, w) would silently compare all with all.
    if image.shape != truth.shape:
        raise ValueError(
            f"the two images have shapes {image.shape} and {truth.shape}, expected equal ones; for one truth and "
            "many images use jnp.broadcast_to(truth, image.shape) or jax.vmap(..., in_axes=(0, None))"
        )
    if image.ndim < ndim:
        raise ValueError(
            f"ndim={ndim} needs arrays with at least {ndim} axes, got shape {image.shape}; "
            "give whole images, and ndim=2 for images, ndim=3 for volumes"
        )
    return image, truth


def check_data_range(data_range: object) -> None:
    """`data_range` is one positive number. A traced one is trusted, as bad values cannot raise under jit."""
    if jnp.ndim(data_range) != 0:  # type: ignore[arg-type]
        raise ValueError(
            f"data_range must be one number for all images, got shape {jnp.shape(data_range)}; "  # type: ignore[arg-type]
            "for a range per image use jax.vmap"
        )
    if isinstance(data_range, Real) and not 0 < float(data_range) < float("inf"):
        raise ValueError(
            f"data_range={data_range!r} was given; it must be positive and finite: the white of the image, such as 1.0"
        )
