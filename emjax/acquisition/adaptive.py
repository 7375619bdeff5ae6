"""Adaptive scans in two passes: a coarse one, then more pixels where it saw more to see.

The first pass measures a share of the budget, evenly. A density function makes a map of detail `s(y, mask)` from it,
and both passes together are to follow the density `d = mix + (1 - mix) s / mean(s)`: the second pass throws darts with
radii `r / sqrt(d)` (Poisson discs), which keep off the pixels that the first one took. Drawn without regard to the
first pass, its pixels fall beside those that are known, and the scan is worse than an even one of a single pass.

Where the error of a recovery falls like `s^2 rho^-g` with the local density rho of pixels, the best density is
`s^(2 / (1 + g))`: for pictures with spectra `f^-3`, g = 1/2 and the power is 4/3. Sources: Godaliyadda et al. 2016
(SLADS, dynamic sampling by expected reduction of distortion); Dahmen et al. 2016 (feature-adaptive SEM: an even first
pass, a second one at detail). The interpolation behind the maps is normalised convolution (Knutsson and Westin 1993).
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax.acquisition._pattern_arguments import check_pattern, pixel_count
from emjax.acquisition.poisson_disc import poisson_disc, poisson_disc_after
from emjax.operators.base import as_float

Density = Callable[[Array, Array], Array]
POWER = 4 / 3


@jax.jit
def gradient_density(y: Array, mask: Array) -> Array:
    """`|grad u|^(4/3)` of the interpolated scan u: edges. Shape `(h, w)`, not negative."""
    m, v = _samples(y, mask)
    u = _interpolate(m, v, _spacing(m))
    # Across an axis of one pixel nothing changes.
    squares = [jnp.square(jnp.asarray(jnp.gradient(u, axis=axis))) for axis, n in enumerate(u.shape) if n > 1]
    return (sum(squares, _floor(v, m)) * jnp.ones_like(u)) ** (POWER / 2)


@jax.jit
def variance_density(y: Array, mask: Array) -> Array:
    """`sigma^(4/3)`, the standard deviation of the samples around each pixel, within about three spacings."""
    m, v = _samples(y, mask)
    width = 1.5 * _spacing(m)
    mean = _interpolate(m, v, width)
    variance = _interpolate(m, jnp.square(v), width) - jnp.square(mean)
    return (jnp.maximum(variance, 0) + _floor(v, m)) ** (POWER / 2)


@jax.jit
def residual_density(y: Array, mask: Array) -> Array:
    """`e^(4/3)`, the error (root mean square) of predicting each sample from its neighbours, smoothed over them."""
    m, v = _samples(y, mask)
    spacing = _spacing(m)
    rows, columns = (_gaussian(n, spacing, m.dtype) for n in m.shape)
    # Left out of the sums, a sample no longer predicts itself.
    own = jnp.diagonal(rows)[:, None] * jnp.diagonal(columns)[None]
    weight = _apply(rows, m, columns) - own * m
    guess = (_apply(rows, m * v, columns) - own * m * v) / jnp.maximum(weight, 1e-6)
    error = jnp.where((m > 0) & (weight > 1e-6), jnp.square(v - guess), 0)
    return (jnp.maximum(_interpolate(m, error, 1.5 * spacing), 0) + _floor(v, m)) ** (POWER / 2)


DENSITIES: dict[str, Density] = {
    "gradient": gradient_density,
    "variance": variance_density,
    "residual": residual_density,
}


def second_pass(
    key: Array, y: Array, mask: Array, ratio: float, *, density: Density = residual_density, mix: float = 0.6
) -> Array:
    """The pixels to measure after a first pass: a boolean mask `(h, w)`, none of them in `mask`. Pure in `key`.

    Both passes together have `round(ratio h w)` pixels. y, mask: the first pass, zero or anything else off its mask.
    `density(y, mask)` is any function that gives a map `(h, w)` that is not negative. mix: the share of the budget
    that is spread evenly; 1 makes a scan that does not adapt. Raises ValueError for batches (use `jax.vmap`) and for
    a mix outside [0, 1].
    """
    if jnp.ndim(y) != 2 or jnp.shape(y) != jnp.shape(mask):
        raise ValueError(
            f"a second pass follows one scan (h, w) with its mask, got shapes {jnp.shape(y)} and {jnp.shape(mask)}; "
            "for a batch use jax.vmap"
        )
    if not 0 <= mix <= 1:
        raise ValueError(f"mix is the share of pixels that is spread evenly, in [0, 1], got {mix}")
    shape = check_pattern(jnp.shape(y), ratio, "adaptive")
    first = jnp.asarray(mask) != 0
    detail = density(y, mask)
    detail = jnp.where(jnp.isfinite(detail), jnp.maximum(detail, 0), 0)
    mean = jnp.mean(detail)
    wanted = mix + (1 - mix) * jnp.where(mean > 0, detail / jnp.where(mean > 0, mean, 1), 1)
    count = pixel_count(shape, ratio)
    return poisson_disc_after(key, first, wanted, count, 1.2 * (first.size / count) ** 0.5) & ~first


def adaptive(
    key: Array,
    scan: Callable[[Array], Array],
    shape: Sequence[int],
    ratio: float,
    *,
    share: float = 0.5,
    first: Callable[[Array, Sequence[int], float], Array] = poisson_disc,
    density: Density = residual_density,
    mix: float = 0.6,
) -> tuple[Array, Array]:
    """Scan in two passes: the measurements `(h, w)`, zero off the mask, and the boolean mask of both passes.

    `scan(mask)` measures the pixels of a mask, as `lambda m: measure(key, x, PixelSampling(m), noise)` does. share:
    the part of the budget of `round(ratio h w)` pixels that the first pass takes, in (0, 1), by the pattern `first`.
    density, mix: see `second_pass`. Pure, and transformable where `scan` is. Raises ValueError for a share outside its
    range.
    """
    shape = check_pattern(shape, ratio, "adaptive")
    if not 0 < share < 1:
        raise ValueError(f"share is the part of the pixels that the first pass measures, in (0, 1), got {share}")
    first_key, second_key = jax.random.split(key)
    coarse = first(first_key, shape, share * ratio)
    y = jnp.where(coarse, scan(coarse), 0)
    fine = second_pass(second_key, y, coarse, ratio, density=density, mix=mix)
    return jnp.where(fine, scan(fine), y), coarse | fine


def _samples(y: Array, mask: Array) -> tuple[Array, Array]:
    """The mask as 0 and 1, and the samples less their mean, 0 off the mask."""
    y = as_float(y)
    seen = jnp.asarray(mask) != 0
    m = seen.astype(y.dtype)
    v = jnp.where(seen, y, 0)
    return m, jnp.where(seen, v - jnp.sum(v) / jnp.maximum(jnp.sum(m), 1), 0)


def _spacing(m: Array) -> Array:
    """0.7 of the mean distance of measured pixels: the least width with which they cover the image."""
    return 0.7 * jnp.sqrt(m.size / jnp.maximum(jnp.sum(m), 1))


def _floor(v: Array, m: Array) -> Array:
    """A millionth of the variance, so that powers of it have derivatives and a flat scan a flat density."""
    return 1e-6 * jnp.sum(v**2) / jnp.maximum(jnp.sum(m), 1) + jnp.finfo(v.dtype).tiny


def _interpolate(m: Array, v: Array, width: Array) -> Array:
    """Normalised convolution `G(m v) / G(m)` with a Gaussian G; in large holes it fades to 0, the mean."""
    rows, columns = (_gaussian(n, width, v.dtype) for n in v.shape)
    return _apply(rows, m * v, columns) / jnp.maximum(_apply(rows, m, columns), 1e-6)


def _gaussian(n: int, width: Array, dtype: Any) -> Array:
    """The Gaussian filter along one axis as a symmetric matrix: its width may be traced."""
    i = jnp.arange(n, dtype=dtype)
    return jnp.exp(-0.5 * jnp.square((i[:, None] - i) / width))


def _apply(rows: Array, x: Array, columns: Array) -> Array:
    return jnp.matmul(jnp.matmul(rows, x, precision="highest"), columns, precision="highest")
