"""Orthogonal wavelets with periodic boundaries: the sparsity of piecewise smooth images.

One level maps a line of even length n to `lo[k] = sum_j h[j] x[2k + j - o]` and `hi[k] = sum_j g[j] x[2k + j
- o]`, indices modulo n, with the scaling filter `h` of length F, `g[j] = (-1)^j h[F-1-j]` and `o = F/2 - 1`.
Every axis is transformed, then the low corner again: S. Mallat, A theory for multiresolution signal
decomposition, IEEE PAMI 11 (1989) 674-693.
"""

import itertools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, pytree_dataclass, static
from emjax.operators._wavelet_filters import SCALING_FILTERS
from emjax.operators.base import LinearOperator, Shape, check_shape, default_float, round_up, unit


class Band(NamedTuple):
    """One band of a wavelet transform: `coefficients[band.slices]`.

    `level` counts from 1, the finest; the coarse band carries the last level. `kind` has a letter an axis,
    "a" for low and "d" for high: "aa" is the coarse band of an image, "ad" is high along its last axis.
    """

    level: int
    kind: str
    slices: tuple[slice, ...]


@pytree_dataclass
class Wavelet(LinearOperator):
    """The orthogonal wavelet transform of items of `shape` (any number of axes, any sizes), as one array of
    that shape.

    `name` is haar, db1 to db10 or sym2 to sym10. The coarse band lies in the low corner (Mallat layout),
    `bands()` says where the others are. `levels` is by default the largest number for which the coarse side
    of the shortest axis (axes of length 1 apart) is not shorter than the filter, but at least 1 where an axis
    can be halved.

    For even sizes the coefficients are those of PyWavelets with mode="periodization". A line of odd length
    leaves its last sample, unchanged, at the end of the coarse half. So `W` is square and orthogonal for
    every shape: `W.H W = W W.H = I`.

    Raises ValueError for an unknown name or for more levels than the shape can be halved.
    """

    shape: Shape = static()
    name: str = static(default="db4")
    levels: int | None = static(default=None)

    def __post_init__(self) -> None:
        shape = check_shape(self.shape)
        if self.name not in SCALING_FILTERS:
            raise ValueError(f"unknown wavelet {self.name!r}; there are {', '.join(SCALING_FILTERS)}")
        most = (max(shape) - 1).bit_length()
        levels = _default_levels(shape, len(SCALING_FILTERS[self.name])) if self.levels is None else int(self.levels)
        if not 0 <= levels <= most:
            raise ValueError(f"items of shape {shape} have 0 to {most} wavelet levels, got {self.levels}")
        assign(self, shape=shape, levels=levels)

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return self.shape

    def _corners(self) -> list[Shape]:
        """The shapes of the low corner before each level, and of the coarse band."""
        assert self.levels is not None
        return [tuple(-(-n // 2**level) for n in self.shape) for level in range(self.levels + 1)]

    @property
    def coarse_shape(self) -> Shape:
        """The shape of the coarse band, which starts at index 0 of every axis."""
        return self._corners()[-1]

    def bands(self) -> tuple[Band, ...]:
        """All bands that are not empty, the coarse one first, then from the coarsest level to the finest."""
        corners = self._corners()
        ndim = len(self.shape)
        found = [Band(len(corners) - 1, "a" * ndim, tuple(slice(0, n) for n in corners[-1]))]
        for level in range(len(corners) - 1, 0, -1):
            parts = [
                (("a", slice(0, inner)), ("d", slice(inner, outer)))
                for outer, inner in zip(corners[level - 1], corners[level], strict=True)
            ]
            for choice in itertools.product(*parts):
                kind = "".join(letter for letter, _ in choice)
                if "d" in kind and all(s.stop > s.start for _, s in choice):
                    found.append(Band(level, kind, tuple(s for _, s in choice)))
        return tuple(found)

    def level_map(self) -> np.ndarray:
        """The level of every coefficient: 0 for the coarse band, else 1 (finest) to `levels`; int32 of
        `shape`."""
        out = np.zeros(self.shape, np.int32)
        for band in self.bands()[1:]:
            out[band.slices] = band.level
        return out

    def coarse_mask(self) -> np.ndarray:
        """True for the coefficients of the coarse band (thresholds usually leave these alone); bool of
        `shape`."""
        return self.level_map() == 0

    def forward(self, x: Array) -> Array:
        h = SCALING_FILTERS[self.name]
        out, low = x, x
        for corner in self._corners()[:-1]:
            low = low[tuple(slice(0, n) for n in corner)]
            for axis in range(x.ndim):
                low = _analyse(low, axis, h)
            out = lax.dynamic_update_slice(out, low, (0,) * x.ndim)
        return out

    def adjoint(self, y: Array) -> Array:
        h = SCALING_FILTERS[self.name]
        out = y
        for corner in reversed(self._corners()[:-1]):
            low = out[tuple(slice(0, n) for n in corner)]
            for axis in range(y.ndim):
                low = _synthesise(low, axis, h)
            out = lax.dynamic_update_slice(out, low, (0,) * y.ndim)
        return out

    def norm_bound(self) -> Array:
        return round_up(jnp.ones((), default_float()))

    def gram_diagonal(self) -> Array:
        return unit()

    def gram_scale(self) -> Array:
        return unit()

    def row_scale(self) -> Array:
        return unit()


def _default_levels(shape: Shape, length: int) -> int:
    side = min((n for n in shape if n > 1), default=1)
    levels = 0
    while -(-side // 2) >= length:
        side, levels = -(-side // 2), levels + 1
    return max(levels, int(side > 1))


def wavelet_filter(h: tuple[float, ...]) -> tuple[float, ...]:
    return tuple((-1) ** j * c for j, c in enumerate(reversed(h)))


# Weighted sums of shifted slices: XLA fuses them into one pass. On a CPU that was 4 to 25 times faster than
# matrix products, 4 to 10 times faster than block-banded ones and 6 to 14 times faster than strided
# convolutions (db4, images of 256 to 1024 pixels a side).


def _analyse(x: Array, axis: int, h: tuple[float, ...]) -> Array:
    """One level along one axis: lo, the last sample where the length is odd, hi."""
    even = x.shape[axis] // 2 * 2
    if even == 0:
        return x
    length, offset = len(h), len(h) // 2 - 1
    p = wrap(lax.slice_in_dim(x, 0, even, axis=axis), offset, length - 2 - offset, axis)
    shifted = [lax.slice_in_dim(p, j, j + even - 1, 2, axis) for j in range(length)]
    lo = weighted_sum(h, shifted)
    hi = weighted_sum(wavelet_filter(h), shifted)
    return jnp.concatenate([lo, lax.slice_in_dim(x, even, x.shape[axis], axis=axis), hi], axis)


def _synthesise(y: Array, axis: int, h: tuple[float, ...]) -> Array:
    """The adjoint, and inverse, of `_analyse`."""
    n = y.shape[axis]
    half, coarse = n // 2, (n + 1) // 2
    if half == 0:
        return y
    # x[2p + s] = sum_q h[2q + t] lo[p + d - q] + g[2q + t] hi[p + d - q] with s + offset = 2d + t, t in {0,
    # 1}.
    taps, offset = len(h) // 2, len(h) // 2 - 1
    phases = [divmod(s + offset, 2) for s in (0, 1)]
    before, after = taps - 1 - min(d for d, _ in phases), max(d for d, _ in phases)
    lo = wrap(lax.slice_in_dim(y, 0, half, axis=axis), before, after, axis)
    hi = wrap(lax.slice_in_dim(y, coarse, n, axis=axis), before, after, axis)
    samples = []
    for d, t in phases:
        parts = [
            lax.slice_in_dim(band, start, start + half, axis=axis)
            for band in (lo, hi)
            for start in range(before + d, before + d - taps, -1)
        ]
        samples.append(weighted_sum(h[t::2] + wavelet_filter(h)[t::2], parts))
    x = jnp.stack(samples, axis + 1).reshape(*y.shape[:axis], 2 * half, *y.shape[axis + 1 :])
    return jnp.concatenate([x, lax.slice_in_dim(y, half, coarse, axis=axis)], axis)


def weighted_sum(weights: tuple[float, ...], parts: list[Array]) -> Array:
    total = weights[0] * parts[0]
    for w, part in zip(weights[1:], parts[1:], strict=True):
        total = total + w * part
    return total


def wrap(x: Array, before: int, after: int, axis: int) -> Array:
    """Periodic padding; lines shorter than the padding go round several times."""
    n = x.shape[axis]
    copies = -(-before // n), -(-after // n)
    tiled = jnp.concatenate([x] * (sum(copies) + 1), axis) if sum(copies) else x
    return lax.slice_in_dim(tiled, copies[0] * n - before, (copies[0] + 1) * n + after, axis=axis)
