"""Poisson-disc patterns: random pixels of which no two are closer than a radius (blue noise, no clumps, no holes).

Pixels come in a random order; one is taken if no pixel that was taken before lies within the radius r. When none is
left, r shrinks and the rest may come, until the count is met: `r_0 = 0.9 / sqrt(ratio)`, at which about 85 % of the
count fit, then on to the next smaller distance of two pixels. Sources: Cook 1986 (Poisson-disc sampling); McCool and
Fiume 1992 (shrinking radii).

Radii may differ from place to place, as `r / sqrt(d)` with a relative density d, and pixels may be taken beforehand:
`poisson_disc_after` fills in what an earlier pass has left.

The order is not walked pixel by pixel: a pixel that comes first within its disc is taken at once, with all others of
that kind, and shuts its disc (Luby 1986). The outcome is that of the walk, after a handful of rounds.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax.acquisition._pattern_arguments import check_pattern, each_scan, pixel_count


def poisson_disc(key: Array, shape: Sequence[int], ratio: float) -> Array:
    """Exactly `round(ratio * h * w)` (at least one) pixels, as far apart as a random order lets them be.

    Leading axes are a stack of independent scans. Work and memory grow with `h w / sqrt(ratio)`.
    """
    shape = check_pattern(shape, ratio, "Poisson-disc")
    h, w = shape[-2:]
    count = pixel_count((h, w), ratio)
    # No two pixels of an image are further apart than its diagonal, whatever the ratio.
    radii = _radii(min(0.9 * math.sqrt(h * w / count), math.hypot(h, w)))
    start, even = jnp.zeros((h, w), bool), jnp.ones((h, w), jnp.float32)
    throws = jnp.asarray(radii, jnp.float32)
    return each_scan(lambda k: _throw(k, throws, even, start, count, int(radii[0])), key, shape)


def poisson_disc_after(key: Array, mask: Array, density: Array, count: Array | int, radius: float) -> Array:
    """`mask` and more pixels, `count` in all, far from each other and from those of the mask. Pure in `key`.

    mask: `(h, w)`, boolean. density: `(h, w)`, about 1 on average; the radius at a pixel is that of an even pattern
    over the root of its density, at most `3 radius`. radius: the largest to be tried at density 1.
    """
    radii = _radii(min(radius, math.hypot(*mask.shape)))
    scale = jnp.minimum(jnp.maximum(density, 1e-6) ** -0.5, 3.0).astype(jnp.float32)
    reach = min(math.ceil(3 * radii[0]), max(mask.shape))
    return _throw(key, jnp.asarray(radii, jnp.float32), scale, mask, count, reach)


def _radii(first: float) -> np.ndarray:
    """The first radius, then the distances of pixel pairs below it at steps of 5 % or more; at last 0: all may come."""
    reach = np.arange(math.ceil(first) + 1)
    # Pixels at distance d may both be taken at a radius just below d; the discs are closed.
    distances = np.unique(reach[:, None] ** 2 + reach[None] ** 2)
    radii = [first]
    for d in np.sqrt(distances[distances > 0])[::-1]:
        if d * 0.999 < 0.95 * radii[-1]:
            radii.append(d * 0.999)
    return np.array([*radii, 0.0])


@functools.partial(jax.jit, static_argnames=("reach",))
def _throw(key: Array, radii: Array, scale: Array, mask: Array, count: Array | int, reach: int) -> Array:
    """Darts with a list of radii times `scale`, at most `reach + 1`, until the mask and they are `count` pixels."""
    shape, size = mask.shape, mask.size
    # 1 to n, the first to come has the highest; 0 is for pixels that are out of the running.
    rank = 1 + jax.random.permutation(key, size).reshape(shape).astype(jnp.int32)

    def unfinished(state: tuple) -> Array:
        return jnp.sum(state[1] >= 0) < count

    def free(taken: Array, level: Array) -> Array:
        return _disc_maximum((taken >= 0).astype(jnp.int32), radii[level] * scale, reach) == 0

    def round_of(state: tuple) -> tuple:
        level, taken, open_ = state
        ahead = jnp.where(open_, rank, 0)
        new = open_ & (ahead == _disc_maximum(ahead, radii[level] * scale, reach))
        # `taken` remembers the level, for the last of them takes more than are asked for.
        taken = jnp.where(new, level, taken)
        open_ = open_ & free(taken, level)

        def shrink(_: None) -> tuple:
            following = jnp.minimum(level + 1, len(radii) - 1)
            return following, taken, free(taken, following)

        return lax.cond(jnp.any(open_), lambda _: (level, taken, open_), shrink, None)

    before = jnp.where(mask, 0, -1)  # level 0 is that of the mask
    radii = jnp.concatenate([radii[:1], radii])
    start = (jnp.int32(1), before, free(before, jnp.int32(1)))
    _, taken, _ = lax.while_loop(unfinished, round_of, start)
    # Earlier levels first, and within the last level those that come first.
    order = jnp.lexsort((-rank.ravel(), jnp.where(taken < 0, len(radii), taken).ravel()))
    place = jnp.zeros(size, jnp.int32).at[order].set(jnp.arange(size, dtype=jnp.int32))
    return (place < count).reshape(shape)


def _disc_maximum(x: Array, radius: Array, reach: int) -> Array:
    """The maximum of `x >= 0` over the closed disc around each pixel, `radius < reach + 1` (h, w); 0 stands outside.

    A disc is a stack of horizontal runs; the maximum over a run is that over two runs of a power of two that cover it.
    """
    h, w = x.shape
    levels = max(1, (2 * reach + 1).bit_length())
    table = [jnp.pad(x, ((reach, reach), (reach, reach)))]
    for k in range(1, levels):
        shift = 1 << (k - 1)  # table[k][i, j] = max x[i, j : j + 2^k]
        table.append(jnp.maximum(table[-1], jnp.pad(table[-1][:, shift:], ((0, 0), (0, shift)))))
    runs = jnp.stack(table).ravel()
    rows, columns = jnp.arange(h)[:, None], jnp.arange(w)[None] + reach
    height, width = table[0].shape

    def row(offset: Array, best: Array) -> Array:
        across = radius**2 - jnp.square((offset - reach).astype(jnp.float32))
        half = jnp.minimum(jnp.sqrt(jnp.maximum(across, 0)).astype(jnp.int32), reach)
        level = 31 - lax.clz(2 * half + 1)
        line = (level * height + rows + offset) * width + columns
        found = jnp.maximum(runs[line - half], runs[line + half + 1 - (1 << level)])
        return jnp.where(across >= 0, jnp.maximum(best, found), best)

    return lax.fori_loop(0, 2 * reach + 1, row, jnp.zeros_like(x))
