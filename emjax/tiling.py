"""Large images in tiles with overlap: the one implementation.

Every tile has the same shape (one compilation): tiles at the far borders are moved inwards. Where tiles overlap, their
results are cross-faded by weights that are zero within `halo / 2` of a tile's inner border and rise linearly after that,
so that what is least certain of a tile, its rim, does not count.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np


def spans(n: int, tile: int, halo: int) -> list[int]:
    """The starts of tiles of length `min(tile, n)` that cover `n` samples and overlap by at least `2 halo`."""
    if n <= tile:
        return [0]
    step = tile - 2 * halo
    if step < 1:
        raise ValueError(f"tiles of {tile} samples cannot overlap by 2 x {halo}; take larger tiles or a smaller halo")
    count = -(-(n - tile) // step) + 1
    return [round(i * (n - tile) / (count - 1)) for i in range(count)]


def ramp(n: int, start: int, tile: int, halo: int) -> np.ndarray:
    """The weight of a tile's samples along one axis, float32; full at borders of the image itself."""
    size = min(tile, n)
    weight = np.ones(size, np.float32)
    dead = halo // 2
    rise = np.clip((np.arange(size) - dead + 1) / max(1, 2 * (halo - dead)), 0, 1).astype(np.float32)
    if start > 0:
        weight = np.minimum(weight, rise)
    if start + size < n:
        weight = np.minimum(weight, rise[::-1])
    return weight


def tiles(shape: Sequence[int], tile: int, halo: int) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """The slices and the cross-fading weights of every tile of an image `(h, w)`."""
    h, w = shape
    for i in spans(h, tile, halo):
        for j in spans(w, tile, halo):
            weight = ramp(h, i, tile, halo)[:, None] * ramp(w, j, tile, halo)[None, :]
            yield (slice(i, i + weight.shape[0]), slice(j, j + weight.shape[1])), weight


def count(shape: Sequence[int], tile: int, halo: int) -> int:
    """How many tiles there are."""
    return len(spans(shape[0], tile, halo)) * len(spans(shape[1], tile, halo))


def tiled(
    fn: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    *,
    tile: int = 256,
    halo: int = 32,
    done: Callable[[], None] | None = None,
) -> np.ndarray:
    """`fn(*tiles of arrays) -> tile` over images of one shape `(h, w)`, blended to one float32 image. On the host.

    halo: how many samples around a tile's share also enter its computation. done: called after each tile.
    Raises ValueError for arrays of unequal shapes or a tile no larger than twice the halo.
    """
    shape = arrays[0].shape
    if len(shape) != 2 or any(a.shape != shape for a in arrays):
        raise ValueError(f"tiling takes 2-D arrays of one shape, got {[a.shape for a in arrays]}")
    out, total = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
    for where, weight in tiles(shape, tile, halo):
        out[where] += weight * np.asarray(fn(*(a[where] for a in arrays)), np.float32)
        total[where] += weight
        if done is not None:
            done()
    out /= total
    return out
