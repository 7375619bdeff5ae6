"""Patterns drawn from a density: each pixel has its own chance to be measured, and the count is kept.

The chances are `p_i = min(1, c d_i)` with c such that they sum to the count. Pixels are lined up along a Hilbert curve,
the chances are summed along it, and a pixel is measured where the sum, from a random start u, passes an integer:

    mask_i = floor(u + p_1 + .. + p_i) - floor(u + p_1 + .. + p_(i-1))

Every pixel has exactly its chance, and as neighbours on the curve are neighbours in the image, the samples keep a
distance: in a flat density this is close to a jittered grid, where independent draws leave holes and clumps. Sources:
Madow 1949 (systematic sampling); Stevens and Olsen 2004 (along a space-filling curve).
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax.acquisition._pattern_arguments import check_pattern, each_scan, pixel_count
from emjax.operators.base import as_float

# The least chance, in shares of the largest: a pixel of density 0 is measured when nothing else is left.
LEAST = 1e-6


def variable_density(
    key: Array, shape: Sequence[int], ratio: float, *, density: Any = None, power: float = 2.0
) -> Array:
    """`round(ratio * h * w)` (at least one) pixels, drawn by a density `(h, w)` of any scale, not negative.

    Without one the centre is scanned more finely: `d = (1 - r / r_max)^power + 0.02`, with r the distance from the
    centre and r_max that of the corners. Leading axes are a stack of independent scans of the same density. Raises
    ValueError for a density of another shape. Where it is NaN, infinite or negative it counts as zero.
    """
    shape = check_pattern(shape, ratio, "variable-density")
    if density is None:
        density = centre_weighted(shape[-2:], power)
    density = as_float(density)
    if density.shape != shape[-2:]:
        raise ValueError(f"the density of scans of shape {shape[-2:]} has that shape, got {density.shape}")
    chances = inclusion(density, pixel_count(shape[-2:], ratio))
    return each_scan(lambda k: draw(k, chances), key, shape)


def centre_weighted(shape: Sequence[int], power: float = 2.0) -> np.ndarray:
    """`(1 - r / r_max)^power + 0.02`, shape `(h, w)`: the law of Lustig, Donoho and Pauly 2007, with a floor."""
    axes = np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in shape], indexing="ij")
    r = np.sqrt(sum(a**2 for a in axes))
    return (1 - r / max(r.max(), 1)) ** power + 0.02


@jax.jit
def inclusion(density: Array, count: Array | int) -> Array:
    """The chances `min(1, c density)` of shape `(h, w)` that sum to `count`. Pure; `count` may be traced."""
    d = jnp.where(jnp.isfinite(density), jnp.maximum(density, 0), 0)
    top = jnp.max(d)
    d = jnp.maximum(d / jnp.where(top > 0, top, 1), LEAST)
    count = jnp.asarray(count, d.dtype)

    # The sum grows with c; between c = count / size, where no chance can sum to more, and 1 / least, where all are 1.
    def halve(_: int, bounds: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = bounds
        middle = 0.5 * (low + high)
        less = jnp.sum(jnp.minimum(1, jnp.exp(middle) * d)) < count
        return jnp.where(less, middle, low), jnp.where(less, high, middle)

    ends = (jnp.log(count / d.size) - 0.1, jnp.full((), -np.log(LEAST) + 0.1, d.dtype))
    low, high = lax.fori_loop(0, 40, halve, ends)
    return jnp.minimum(1, jnp.exp(0.5 * (low + high)) * d)


@jax.jit
def draw(key: Array, chances: Array) -> Array:
    """A boolean mask `(h, w)` of `sum(chances)` pixels, rounded, each with its chance in [0, 1]. Pure in `key`."""
    h, w = chances.shape
    bits = max(1, (max(h, w) - 1).bit_length()) + 1
    turn, place, start, swap = jax.random.split(key, 4)
    # The curve fills a square twice as large; the image lies at a random place of it, so that its seams lie anywhere.
    shift = jax.random.randint(place, (2,), 0, jnp.asarray([(1 << bits) - h + 1, (1 << bits) - w + 1]))
    flip = jax.random.bernoulli(turn, shape=(2,))
    rows, columns = shift[0] + jnp.arange(h)[:, None], shift[1] + jnp.arange(w)[None]
    last = (1 << bits) - 1
    rows, columns = jnp.where(flip[0], last - rows, rows), jnp.where(flip[1], last - columns, columns)
    # Pixels swap places over half a sampling distance: equal chances of 1 / 4 would give a lattice, which aliases.
    window = jnp.maximum(0.5 * chances.size / jnp.maximum(jnp.sum(chances), 1), 1).astype(jnp.int32)
    swaps = jax.random.randint(swap, (h, w), 0, window).astype(jnp.uint32)
    y, x = jnp.broadcast_arrays(rows, columns)
    along = jnp.argsort((_hilbert(y, x, bits) + swaps).ravel())
    total = jnp.cumsum(chances.ravel()[along])
    # Scaled to an integer at the end, the differences of the floors sum to it.
    whole = jnp.round(total[-1])
    total = (total * (whole / jnp.where(total[-1] > 0, total[-1], 1))).at[-1].set(whole)
    passed = jnp.floor(total + 0.999 * jax.random.uniform(start, (), chances.dtype))
    hit = passed > jnp.concatenate([jnp.zeros(1, passed.dtype), passed[:-1]])
    return jnp.zeros(h * w, bool).at[along].set(hit).reshape(h, w)


def _hilbert(y: Array, x: Array, bits: int) -> Array:
    """The place of pixels on the Hilbert curve through a square of side `2^bits`, as uint32 (bits up to 16)."""
    d = jnp.zeros(y.shape, jnp.uint32)
    for level in reversed(range(bits)):
        right, below = (x >> level) & 1, (y >> level) & 1
        d = d + (((3 * right) ^ below).astype(jnp.uint32) << (2 * level))
        # Each quadrant holds a smaller curve, turned so that the ends meet.
        mirror = (below == 0) & (right == 1)
        side = (1 << (level + 1)) - 1
        x, y = jnp.where(mirror, side - x, x), jnp.where(mirror, side - y, y)
        x, y = jnp.where(below == 0, y, x) & (side >> 1), jnp.where(below == 0, x, y) & (side >> 1)
    return d
