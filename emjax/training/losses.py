"""Losses, with and without a ground truth. All are means, so that they do not depend on the number of pixels.

With truth t:   l1  |x - t|      mse  (x - t)^2      charbonnier  sqrt((x - t)^2 + e^2) - e
                ssim-mix  (1 - a) |x - t| + a (1 - SSIM(x, t))     (Zhao, Gallo, Frosio & Kautz, IEEE TCI 3, 2017)

Without truth, from noisy measurements alone:
    splitting      the network sees a random part of the measured pixels and is scored on the rest; as their noise is
                   independent, the expected score is the error there plus a constant (Yaman et al., MRM 84, 2020)
    noise2void     of a full image, some pixels are hidden and predicted (Krull, Buchholz & Jug, CVPR 2019)
    SURE           |f(y) - y|^2 / n - s^2 + 2 s^2 div f(y) / n estimates the mean squared error for Gaussian noise of
                   standard deviation s (Stein 1981), its divergence by one random probe (Ramani, Blu & Unser 2008)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray, Shaped

from emjax.metrics import ssim

EPSILON = 1e-3  # charbonnier: a quarter of a grey level of 8 bits
SSIM_SHARE = 0.2
RADIUS = 2  # noise2void: hidden pixels take the value of another one at most this far away


def l1(x: Float[Array, "*batch h w"], truth: Float[Array, "*batch h w"]) -> Float[Array, ""]:
    """Mean absolute error."""
    return jnp.mean(jnp.abs(x - truth))


def mse(x: Float[Array, "*batch h w"], truth: Float[Array, "*batch h w"]) -> Float[Array, ""]:
    """Mean squared error."""
    return jnp.mean(jnp.square(x - truth))


def charbonnier(x: Float[Array, "*batch h w"], truth: Float[Array, "*batch h w"]) -> Float[Array, ""]:
    """A smooth mean absolute error (Charbonnier et al., ICIP 1994); 0 for equal images."""
    return jnp.mean(jnp.sqrt(jnp.square(x - truth) + EPSILON**2) - EPSILON)


def ssim_mix(x: Float[Array, "*batch h w"], truth: Float[Array, "*batch h w"]) -> Float[Array, ""]:
    """Mean absolute error and structural similarity; images of at least 11 pixels a side."""
    return (1 - SSIM_SHARE) * l1(x, truth) + SSIM_SHARE * jnp.mean(1 - ssim(x, truth))


LOSSES: dict[str, Callable[[Array, Array], Array]] = {
    "l1": l1,
    "mse": mse,
    "charbonnier": charbonnier,
    "ssim-mix": ssim_mix,
}


def split_mask(
    key: PRNGKeyArray, mask: Shaped[Array, "*batch h w"], share: float | Array
) -> tuple[Shaped[Array, "*batch h w"], Shaped[Array, "*batch h w"]]:
    """A mask in two parts, `(seen, rest)`, which add up to it: each pixel is seen with the probability `share`.

    Weights or booleans. `share` is one number or one per item (with axes of length 1 for h and w).
    """
    seen, none = jax.random.uniform(key, mask.shape) < share, jnp.zeros_like(mask)
    return jnp.where(seen, mask, none), jnp.where(seen, none, mask)


def held_out(
    x: Float[Array, "*batch h w"], y: Float[Array, "*batch h w"], mask: Float[Array, "*batch h w"]
) -> Float[Array, ""]:
    """Mean squared misfit `(w x - y)^2` of the reconstruction over the pixels that `mask` (weights w) holds."""
    inside = mask > 0
    misfit = jnp.where(inside, mask * x - y, 0)
    return jnp.sum(jnp.square(misfit)) / jnp.maximum(jnp.sum(inside), 1)


def blind_spots(
    key: PRNGKeyArray, y: Float[Array, "*batch h w"], share: float
) -> tuple[Float[Array, "*batch h w"], Float[Array, "*batch h w"]]:
    """`(blinded, spots)`: in `blinded` a share of the pixels, marked 1 in `spots`, has the value of a neighbour.

    Images of at least 5 pixels a side: a neighbour beyond an edge is replaced by the one on the other side.
    """
    where, offsets = jax.random.split(key)
    spots = jax.random.uniform(where, y.shape) < share
    n = 2 * RADIUS + 1
    # All offsets but (0, 0), each as likely.
    flat = jax.random.randint(offsets, y.shape, 1, n * n) + (n * n) // 2
    dy, dx = (flat % (n * n)) // n - RADIUS, flat % n - RADIUS
    h, w = y.shape[-2:]
    i, j = jnp.arange(h)[:, None], jnp.arange(w)[None, :]
    i = jnp.where((i + dy < 0) | (i + dy >= h), i - dy, i + dy)
    j = jnp.where((j + dx < 0) | (j + dx >= w), j - dx, j + dx)
    neighbour = jnp.take_along_axis(y.reshape(*y.shape[:-2], h * w), (i * w + j).reshape(*y.shape[:-2], h * w), axis=-1)
    return jnp.where(spots, neighbour.reshape(y.shape), y), spots.astype(y.dtype)


def noise2void(
    network: Callable[[Array], Array], y: Float[Array, "*batch h w"], key: PRNGKeyArray, share: float = 0.02
) -> Float[Array, ""]:
    """Mean squared error at hidden pixels, predicted by `network(y)`. The noise of pixels must be independent."""
    blinded, spots = blind_spots(key, y, share)
    return held_out(network(blinded), y, spots)


def sure(
    network: Callable[[Array], Array], y: Float[Array, "*batch h w"], sigma: float | Array, key: PRNGKeyArray
) -> Float[Array, ""]:
    """Stein's unbiased estimate of the mean squared error of `network(y)` for noise `sigma` (one, or `(*batch,)`).

    Items of a batch must not influence each other in the network. Can be negative, as it is an estimate.
    """
    sigma = jnp.asarray(sigma, y.dtype)
    variance = jnp.square(sigma)[..., None, None] if sigma.ndim else jnp.square(sigma)
    probe = jax.random.rademacher(key, y.shape, y.dtype)
    x, change = jax.jvp(network, (y,), (probe,))
    return jnp.mean(jnp.square(x - y) - variance + 2 * variance * probe * change)
