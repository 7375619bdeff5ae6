"""Large images in tiles with overlap: the one implementation.

Every tile of an image has the same shape (one compilation): the smallest that needs no more tiles than the largest one
allowed. Where tiles overlap, their results are cross-faded by weights that are zero within `halo / 2` of a tile's inner
border and rise linearly after that, so that what is least certain of a tile, its rim, does not count.
"""

import collections
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future
from typing import Any

import numpy as np

# Tiles have sides that are multiples of this (where the image allows): fast Fourier transforms, aligned rows.
_MULTIPLE = 16


def spans(n: int, tile: int, halo: int, multiple: int = 1) -> tuple[list[int], int]:
    """The starts and the one length, at most `tile`, of tiles that cover `n` samples and overlap by `2 halo`.

    With `multiple` the starts are multiples of it; `n`, `tile` and `halo` must be so, too.
    """
    if multiple > 1 and any(v % multiple for v in (n, tile, halo)):
        raise ValueError(f"{n} samples in tiles of {tile} with a halo of {halo}: not all are multiples of {multiple}")
    if n <= tile:
        return [0], n
    step = tile - 2 * halo
    if step < 1:
        raise ValueError(f"tiles of {tile} samples cannot overlap by 2 x {halo}; take larger tiles or a smaller halo")
    count = -(-(n - 2 * halo) // step)
    size = -(-(n - 2 * halo) // count) + 2 * halo
    unit = math.lcm(_MULTIPLE, multiple)
    size = min(tile, -(-size // unit) * unit)
    # Integer division: no two starts are farther apart than the rounded-up mean distance, which is at most the step.
    return [i * (n - size) // (count - 1) // multiple * multiple for i in range(count)], size


def ramp(n: int, start: int, size: int, halo: int, dead: int | None = None) -> np.ndarray:
    """The weight of a tile's samples along one axis, float32; full at borders of the image itself.

    It is zero up to `dead` samples from a tile's inner border (half of the halo unless given).
    """
    weight = np.ones(size, np.float32)
    dead = halo // 2 if dead is None else dead
    rise = np.clip((np.arange(size) - dead + 1) / max(1, 2 * (halo - dead)), 0, 1).astype(np.float32)
    if start > 0:
        weight = np.minimum(weight, rise)
    if start + size < n:
        weight = np.minimum(weight, rise[::-1])
    return weight


def tiles(
    shape: Sequence[int], tile: int, halo: int, dead: int | None = None, multiple: int = 1
) -> Iterator[tuple[tuple[slice, ...], np.ndarray]]:
    """The slices and the cross-fading weights of every tile of an image `(h, w)`."""
    h, w = shape
    (rows, height), (columns, width) = spans(h, tile, halo, multiple), spans(w, tile, halo, multiple)
    for i in rows:
        for j in columns:
            weight = ramp(h, i, height, halo, dead)[:, None] * ramp(w, j, width, halo, dead)[None, :]
            yield (slice(i, i + height), slice(j, j + width)), weight


def count(shape: Sequence[int], tile: int, halo: int, multiple: int = 1) -> int:
    """How many tiles there are."""
    return len(spans(shape[0], tile, halo, multiple)[0]) * len(spans(shape[1], tile, halo, multiple)[0])


def tiled(
    fn: Callable[..., Any],
    arrays: Sequence[np.ndarray],
    *,
    tile: int = 512,
    halo: int = 32,
    dead: int | None = None,
    multiple: int = 1,
    done: Callable[[], None] | None = None,
    pool: Executor | None = None,
    ahead: int = 2,
) -> np.ndarray:
    """`fn(*tiles of arrays) -> tile` over images of one shape `(h, w)`, blended to one float32 image. On the host.

    halo: how many samples around a tile's share also enter its computation. dead: how far a tile's rim does not count
    at all (default: half of the halo; with `dead = halo` tiles meet without a fade, which is exact for functions that
    look no farther). multiple: tiles begin at multiples of it, as the sides, `tile` and `halo` must be. done: called
    after each tile, in the calling thread. pool: where `fn` runs, at most `ahead` tiles at a time; default: in the
    calling thread.
    Raises ValueError for arrays of unequal shapes, a tile no larger than twice the halo, or a result of another shape.
    """
    shape = np.shape(arrays[0])
    if len(shape) != 2 or any(np.shape(a) != shape for a in arrays):
        raise ValueError(f"tiling takes 2-D arrays of one shape, got {[np.shape(a) for a in arrays]}")
    if halo < 0 or tile < 1 or ahead < 1:
        raise ValueError(f"tiles of {tile} samples with a halo of {halo}, {ahead} ahead: take a larger number")
    out, total = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def blend(where: tuple[slice, ...], weight: np.ndarray, result: Any) -> None:
        result = np.asarray(result, np.float32)
        if result.shape != weight.shape:
            raise ValueError(f"the function made {result.shape} of a tile of shape {weight.shape}")
        # A running weighted mean: where tiles agree, it is what they agree on, to the last bit.
        total[where] += weight
        share = np.divide(weight, total[where], out=np.zeros_like(weight), where=weight > 0)
        out[where] += share * (result - out[where])
        if done is not None:
            done()

    # Results are blended in the order of the tiles, whichever is ready first: a sum that does not depend on timing.
    waiting: collections.deque[tuple[tuple[slice, ...], np.ndarray, Future[Any]]] = collections.deque()
    try:
        for where, weight in tiles(shape, tile, halo, dead, multiple):
            parts = [a[where] for a in arrays]
            if pool is None:
                blend(where, weight, fn(*parts))
                continue
            waiting.append((where, weight, pool.submit(fn, *parts)))
            if len(waiting) > ahead:
                first, fade, future = waiting.popleft()
                blend(first, fade, future.result())
        while waiting:
            first, fade, future = waiting.popleft()
            blend(first, fade, future.result())
    finally:
        for _, _, future in waiting:
            future.cancel()
    return out
