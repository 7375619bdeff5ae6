"""Spiral scans: the beam runs along an Archimedean spiral and weighs the pixels that it brushes.

    r = pitch theta / 2 pi,    w(d) = max(0, 1 - d / width) / width,    d the distance of a pixel to the path

The triangle of base 2 width holds one pixel of path (its integral is 1): a weight is the share of the dwell time of a
full pixel, and `y = w * x` (`measure` counts with the dose of a full pixel and scales what was recorded, as the
published spirals were made from full scans). Close to the published spirals of partial-scan STEM, whose paths of one
pixel at a pitch of 20 are smoothed by the kernel (1, 2, 1) / 4 along both axes: along an axis that is this profile with
width 2. Sources: Sang et al. 2016 ("Dynamic scan control in STEM: spiral scans"); Ede and Beanland 2020 ("Partial
scanning transmission electron microscopy with deep learning").
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax.acquisition._pattern_arguments import check_pattern, each_scan

# Pitches that are tried, in shares of `2 width / ratio`, that of an unlimited plane.
PITCHES = np.geomspace(0.4, 2.5, 96)


def spiral(key: Array, shape: Sequence[int], ratio: float, *, width: float = 2.0, radius: float | None = None) -> Array:
    """Soft weights `(..., h, w)` in `[0, 1 / width]`, of which about a share `ratio` is not zero.

    The key draws the direction in which the path sets out from the centre. width: half the base of the beam's profile,
    pixels, 1 or more. radius: where the path ends, pixels; None is the corner, so that it sweeps the whole image on
    paths of which a part lies outside. The pitch is the one, of 96, that comes closest to the ratio. Leading axes are
    a stack of independent scans. Raises ValueError for a width below 1 or a radius that is not above 0.
    """
    shape = check_pattern(shape, ratio, "spiral")
    if not width >= 1:
        raise ValueError(f"a beam has a width of one pixel or more, got width={width}")
    if radius is not None and not radius > 0:
        raise ValueError(f"the radius of a spiral is above 0 pixels, got radius={radius}")
    return each_scan(lambda k: _weights(k, shape[-2:], ratio, width, radius), key, shape)


@functools.partial(jax.jit, static_argnames=("shape", "radius"))
def _weights(key: Array, shape: tuple[int, int], ratio: float, width: float, radius: float | None) -> Array:
    """The weights of one scan at the pitch that comes closest to the ratio."""
    axes = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    r = np.hypot(*axes).astype(np.float32)
    turns = (np.arctan2(*axes) / (2 * np.pi)).astype(np.float32)
    inside = r <= (r.max() if radius is None else radius)
    pitches = 2 * width / ratio * jnp.asarray(inside.mean() * PITCHES, jnp.float32)
    start = jax.random.uniform(key)

    def weights(pitch: Array) -> Array:
        # Signed distance along the radius to the nearest arm, then across the arm, which runs at an angle to it.
        arm = pitch * (jnp.mod(r / pitch - turns - start + 0.5, 1) - 0.5)
        across = jnp.abs(arm) * r / jnp.hypot(r, pitch / (2 * np.pi))
        # The path begins at the centre, whatever the pitch.
        profile = jnp.maximum(0, 1 - jnp.minimum(across, r) / width) / width
        return jnp.where(inside, profile, 0)

    shares = lax.map(lambda pitch: jnp.mean(weights(pitch) > 0), pitches)
    return weights(pitches[jnp.argmin(jnp.abs(shares - ratio))])
