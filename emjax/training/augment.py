"""Random patches of images and changes to them, all compiled, all pure in the key.

A patch is turned by one of the eight symmetries of the square, and its grey values are changed:

    x  ->  c (x^g - 1/2) + 1/2 + o,   clipped to [0, 1],   and 1 - x with the probability `inversion`

with log g uniform in +-`gamma`, c - 1 in +-`gain`, o in +-`offset`. Before that, a share `blurred` of the patches is
blurred by a Gaussian with a standard deviation uniform in [0, `blur`] pixels, as by a wide beam or a magnification that
resolves more than there is. Pixels that are NaN stay so: nothing was measured.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, PRNGKeyArray

from emjax.training.data import Images


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Strengths, see the top of this file; 0 switches one off. `inversion`, `binning`, `blurred` are probabilities.

    `binning`: patches twice as large are averaged 2 x 2 (where the image is large enough): another pixel size.
    """

    symmetries: bool = True
    gain: float = 0.0
    offset: float = 0.0
    gamma: float = 0.0
    inversion: float = 0.0
    binning: float = 0.0
    blur: float = 0.0
    blurred: float = 0.0

    def check(self) -> None:
        """Raises ValueError for an entry outside of its range, naming the key."""
        most = {
            "gain": 1.0,
            "offset": 1.0,
            "gamma": 3.0,
            "inversion": 1.0,
            "binning": 1.0,
            "blur": 16.0,
            "blurred": 1.0,
        }
        for key, bound in most.items():
            if not 0 <= getattr(self, key) <= bound:
                raise ValueError(f"data.augment.{key} is a number in [0, {bound:g}], got {getattr(self, key)}")


def random_crops(
    key: PRNGKeyArray, images: Images, crop: int, batch: int, binning: float = 0.0
) -> Float[Array, "batch crop crop"]:
    """`batch` random square patches of the images, in [0, 1]; an image is drawn by its weight times its pixels.

    Of scans, their noisy grey values, and NaN where nothing was measured.
    """
    keys = jax.random.split(key, batch)

    def one(key: Array) -> Array:
        which, place, bin_key, bin_place = jax.random.split(key, 4)
        index = jnp.searchsorted(images.cumulative, jax.random.uniform(which), side="right")
        index = jnp.minimum(index, images.cumulative.size - 1)
        patch = _patch(place, images, index, crop)
        if not binning:
            return patch
        large = jnp.minimum(images.height[index], images.width[index]) >= 2 * crop
        binned = _patch(bin_place, images, index, 2 * crop).reshape(crop, 2, crop, 2).mean((1, 3))
        return jnp.where(large & (jax.random.uniform(bin_key) < binning), binned, patch)

    return jax.vmap(one)(keys)


def _patch(key: Array, images: Images, index: Array, crop: int) -> Array:
    height, width = images.height[index], images.width[index]
    row_key, column_key = jax.random.split(key)
    # An image that is too small for a binned patch (which is then not used) must not make the range empty.
    top = jax.random.randint(row_key, (), 0, jnp.maximum(height - crop, 0) + 1)
    left = jax.random.randint(column_key, (), 0, jnp.maximum(width - crop, 0) + 1)
    starts = images.offset[index] + (top + jnp.arange(crop)) * width + left
    rows = jax.vmap(lambda start: lax.dynamic_slice(images.pixels, (start,), (crop,)))(starts)
    return rows.astype(jnp.float32) / images.white


def augment(
    key: PRNGKeyArray, patches: Float[Array, "batch n n"], how: Augmentation, clip: bool = True
) -> Float[Array, "batch n n"]:
    """Each square patch turned and its grey values changed as `how` says.

    clip: keep patches in [0, 1] there; not for noisy values, whose mean it would change.
    """

    def one(key: Array, x: Array) -> Array:
        turn, *grey = jax.random.split(key, 5)
        if how.symmetries:
            x = symmetry(x, jax.random.randint(turn, (), 0, 8))
        if how.blur and how.blurred:
            which, width = jax.random.uniform(jax.random.fold_in(key, 5), (2,))
            x = jnp.where(which < how.blurred, blur(x, how.blur * width), x)
        if how.gamma:
            # Not at 0, where the power has no finite derivative; nobody differentiates here, but NaNs spread.
            x = jnp.maximum(x, 1e-6) ** jnp.exp(how.gamma * jax.random.uniform(grey[0], minval=-1.0))
        if how.gain or how.offset:
            contrast = 1 + how.gain * jax.random.uniform(grey[1], minval=-1.0)
            shift = how.offset * jax.random.uniform(grey[2], minval=-1.0)
            x = contrast * (x - 0.5) + 0.5 + shift
            x = jnp.clip(x, 0, 1) if clip else x
        if how.inversion:
            x = jnp.where(jax.random.uniform(grey[3]) < how.inversion, 1 - x, x)
        return x

    return jax.vmap(one)(jax.random.split(key, patches.shape[0]), patches)


def blur(x: Float[Array, "n n"], sigma: Array) -> Float[Array, "n n"]:
    """A square image blurred by a Gaussian of that standard deviation, pixels; at its edges by the part that is inside.

    NaN where it was.
    """
    lag = jnp.square(jnp.arange(len(x))[:, None] - jnp.arange(len(x)))
    kernel = jnp.exp(-0.5 * lag / jnp.maximum(sigma, 1e-2) ** 2).astype(x.dtype)
    known = jnp.isfinite(x)

    def smooth(v: Array) -> Array:
        return jnp.matmul(jnp.matmul(kernel, v, precision="highest"), kernel, precision="highest")

    total = smooth(known.astype(x.dtype))
    return jnp.where(known, smooth(jnp.where(known, x, 0)) / jnp.where(known, total, 1), jnp.nan)


def symmetry(x: Float[Array, "n n"], number: Array) -> Float[Array, "n n"]:
    """The symmetry `number` (0 to 7) of a square image: bit 0 transposes, bit 1 flips the rows, bit 2 the columns."""
    x = jnp.where(number & 1, x.T, x)
    x = jnp.where(number & 2, x[::-1], x)
    return jnp.where(number & 4, x[:, ::-1], x)
