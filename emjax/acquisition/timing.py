"""The time that a scan takes: dwell, settling after jumps, and fly-back.

The beam walks line by line and visits the measured pixels of a line in order. With n pixels, J jumps longer than one
pixel within lines, and L lines that hold a measured pixel,

    T = n dwell + J settling + L flyback.

A step to a neighbour needs no settling, for the coils follow a raster; after a jump the beam must come to rest before
it may count, and the fly-back to the next line holds the settling at its start. Sources: Anderson et al. 2013 ("Sparse
imaging for fast electron microscopy": sparse scans pay for settling); Trampert et al. 2018 ("How should a fixed budget
of dwell time be spent in scanning electron microscopy"); Mullarkey et al. 2022 (fly-back and hysteresis of the coils).
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax.operators.base import as_float, check_shape


def scan_time(mask: Any, dwell: Any, settling: Any = 0.0, flyback: Any = 0.0, *, bands: int | None = None) -> Array:
    """Seconds of one scan with a mask `(h, w)`, non-zero where the beam counts; dwell a pixel, settling a jump longer
    than to one of the eight neighbours, flyback a line, all in seconds.

    bands: the lines of the walk as equal bands of rows, walked column by column, as `line_hop` does with
    `round(h * ratio)` of them; None is a raster, every row a line. Empty lines cost nothing. A two-pass scan takes the
    sum of its passes; a spiral has its own, `spiral_time`. Pure; times may be arrays. Raises ValueError for a batch of
    masks (use `jax.vmap`).
    """
    seen = jnp.asarray(mask) != 0
    if seen.ndim != 2:
        raise ValueError(f"the time of a scan needs one mask (h, w), got shape {seen.shape}; for a batch use jax.vmap")
    h = seen.shape[0]
    if bands is not None and not 1 <= bands <= h:
        raise ValueError(f"{h} rows are walked in 1 to {h} bands, got bands={bands}")
    pixels, jumps, lines = _walk(seen, bands or h)
    return pixels * as_float(dwell) + jumps * as_float(settling) + lines * as_float(flyback)


def spiral_time(weights: Any, dwell: Any, flyback: Any = 0.0, *, radius: float | None = None) -> Array:
    """Seconds of one spiral scan with soft weights `(h, w)` of `spiral`, walked along its path: nothing settles.

    The weights sum to the path's length in pixels, at `dwell` seconds a pixel. What lies outside of the image is swept
    too, at the same pitch: the length grows as the disc of `radius` (None: up to the corner, as for `spiral`) over its
    part inside. flyback: once, back to the centre. Pure. Raises ValueError for a batch (use `jax.vmap`) or
    a radius that is not above 0.
    """
    w = jnp.asarray(weights)
    if w.ndim != 2:
        raise ValueError(
            f"the time of a scan needs the weights (h, w) of one, got shape {w.shape}; for a batch use jax.vmap"
        )
    if radius is not None and not radius > 0:
        raise ValueError(f"the radius of a spiral is above 0 pixels, got radius={radius}")
    r = np.hypot(*np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in w.shape], indexing="ij"))
    radius = float(r.max() + 0.5) if radius is None else float(radius)
    inside = float(np.sum(r <= radius))
    outside = max(1.0, math.pi * radius**2 / max(inside, 1.0))
    return jnp.sum(w) * outside * as_float(dwell) + as_float(flyback)


@functools.partial(jax.jit, static_argnames=("bands",))
def _walk(seen: Array, bands: int) -> tuple[Array, Array, Array]:
    """The numbers of pixels, of jumps, and of lines that are not empty."""
    h, w = seen.shape
    # The visit order, a static permutation of all pixels: by line, then column, then row.
    rows, columns = (v.ravel() for v in np.indices((h, w)))
    line = np.searchsorted(np.round(np.arange(bands + 1) * (h / bands)), rows, side="right") - 1
    order = np.lexsort((rows, columns, line))
    row, column, band = (jnp.asarray(v[order], jnp.int32) for v in (rows, columns, line))
    here = seen.ravel()[order]
    # The last visited pixel before each, by its place in the order; -1 before the first.
    place = jnp.where(here, jnp.arange(h * w), -1)
    before = jnp.concatenate([jnp.full(1, -1), lax.cummax(place)[:-1]])
    same = here & (before >= 0) & (band[before] == band)
    far = jnp.maximum(jnp.abs(row - row[before]), jnp.abs(column - column[before])) > 1
    return jnp.sum(here), jnp.sum(same & far), jnp.sum(here & ~same)


def ratio_at_time(
    seconds: float,
    key: Array,
    shape: Sequence[int],
    build: Callable[[Array, Sequence[int], float], Any],
    *,
    cost: Callable[[Any], Any],
    tolerance: float = 0.002,
) -> float:
    """The sampling ratio with which a pattern takes a given time, so that patterns are compared at equal time.

    build: a pattern, `(key, shape, ratio) -> mask`; cost: the seconds of what it builds, as
    `lambda mask: scan_time(mask, dwell, settling, flyback)`. With long settling a dense scan with gaps takes longer
    than a full raster: the answer is the highest ratio below the first at which the time is exceeded, to the relative
    `tolerance`; 1 if none is. On the host: it builds some twenty masks, and some patterns compile for each. Raises
    ValueError where no pixel fits in.
    """

    def fits(ratio: float) -> bool:
        return float(cost(build(key, shape, ratio))) <= seconds

    shape = check_shape(shape)
    low = 1 / math.prod(shape)
    if not fits(low):
        least = float(cost(build(key, shape, low)))
        raise ValueError(f"no pixel can be measured in {seconds} s; the smallest scan takes {least} s")
    while low < 1:  # up in steps of 1.5, for the time need not grow with the ratio all the way
        high = min(1.0, 1.5 * low)
        if not fits(high):
            break
        low = high
    else:
        return 1.0
    while high > (1 + tolerance) * low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
