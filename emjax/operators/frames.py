"""Tight frames: more coefficients than pixels, `A.H A = I`; denoising with them leaves fewer artefacts than a basis.

The undecimated wavelet transform keeps every shift of the orthogonal one. Level l maps a line of any length n to
`lo[i] = 2^(-1/2) sum_j h[j] x[i + 2^(l-1) (j - o)]` and `hi` likewise with g, indices modulo n (filters and offset as
in `wavelets`): M. J. Shensa, The discrete wavelet transform: wedding the a trous and Mallat algorithms, IEEE Trans.
Signal Processing 40 (1992) 2464-2482. Since `|h^(w)|^2 + |g^(w)|^2 = 2` at every frequency, each level is a Parseval
frame for every n.
"""

import itertools
import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, pytree_dataclass, static
from emjax.operators._wavelet_filters import SCALING_FILTERS
from emjax.operators.algebra import stack
from emjax.operators.base import LinearOperator, Shape, default_float, round_up, unit
from emjax.operators.wavelets import Band, Wavelet, wavelet_filter, weighted_sum, wrap


@pytree_dataclass
class UndecimatedWavelet(LinearOperator):
    """The stationary wavelet transform of items of `shape` (any number of axes, any sizes), periodic.

    Out shape `(1 + levels (2^d - 1), *shape)`: the coarse band, then the others from the coarsest level to the finest;
    `bands()` names them. `name` and `levels` are those of `Wavelet`. A shift of the item shifts its coefficients.

    A Parseval frame, `W.H W = I`: the coefficients are those of `pywt.swtn(x, norm=True, trim_approx=True)`. Where the
    sizes are multiples of `2^l`, every `2^l`-th coefficient of level l along each of d axes, times `2^(l d / 2)`, is
    one of the orthogonal transform.

    Raises ValueError for an unknown name or for more levels than `Wavelet` has.
    """

    shape: Shape = static()
    name: str = static(default="db4")
    levels: int | None = static(default=None)

    def __post_init__(self) -> None:
        decimated = Wavelet(self.shape, self.name, self.levels)
        assign(self, shape=decimated.shape, levels=decimated.levels)

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        assert self.levels is not None
        return (1 + self.levels * (2 ** len(self.shape) - 1), *self.shape)

    def bands(self) -> tuple[Band, ...]:
        """All bands in their order; `coefficients[band.slices]` has shape `(1, *shape)`."""
        assert self.levels is not None
        ndim = len(self.shape)
        kinds = [(self.levels, "a" * ndim)]
        kinds += [(level, kind) for level in range(self.levels, 0, -1) for kind in _kinds(ndim)[1:]]
        whole = (slice(None),) * ndim
        return tuple(Band(level, kind, (slice(i, i + 1), *whole)) for i, (level, kind) in enumerate(kinds))

    def level_map(self) -> np.ndarray:
        """The level of every coefficient: 0 for the coarse band, else 1 (finest) to `levels`; int32 of `out_shape`."""
        levels = np.asarray([0, *(band.level for band in self.bands()[1:])], np.int32)
        return np.broadcast_to(levels.reshape(-1, *[1] * len(self.shape)), self.out_shape).copy()

    def coarse_mask(self) -> np.ndarray:
        """True for the coefficients of the coarse band (thresholds usually leave these alone); bool of `out_shape`."""
        return self.level_map() == 0

    def _filters(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        h = SCALING_FILTERS[self.name]
        return tuple(c / math.sqrt(2) for c in h), tuple(c / math.sqrt(2) for c in wavelet_filter(h))

    def forward(self, x: Array) -> Array:
        assert self.levels is not None
        filters = self._filters()
        details: list[Array] = []
        low = x
        for level in range(1, self.levels + 1):
            parts = [low]
            for axis in range(x.ndim):
                parts = [_correlate(p, axis, f, level, 1) for p in parts for f in filters]
            low, details = parts[0], parts[1:] + details
        return jnp.stack([low, *details])

    def adjoint(self, y: Array) -> Array:
        assert self.levels is not None
        (lo, hi), count = self._filters(), 2 ** len(self.shape) - 1
        low = y[0]
        for level in range(self.levels, 0, -1):
            start = 1 + (self.levels - level) * count
            parts = [low, *y[start : start + count]]
            for axis in reversed(range(len(self.shape))):
                pairs = zip(parts[::2], parts[1::2], strict=True)
                parts = [_correlate(a, axis, lo, level, -1) + _correlate(d, axis, hi, level, -1) for a, d in pairs]
            (low,) = parts
        return low

    def norm_bound(self) -> Array:
        return round_up(jnp.ones((), default_float()))

    def gram_diagonal(self) -> Array:
        return unit()

    def gram_scale(self) -> Array:
        return unit()


def parseval_frame(*ops: LinearOperator) -> LinearOperator:
    """Several orthonormal bases, or tight frames, as one Parseval frame: `x -> c^(-1/2) (A1 x, A2 x, ...)`.

    c is the sum of their `gram_scale`, so that `A.H A = I`; the outputs have one shape and are stacked along a new
    first axis. In `parseval_frame(DCT(shape), Wavelet(shape))` textures are sparse by the one, edges by the other.

    Raises ValueError for an operator without a `gram_scale`, or for different shapes.
    """
    scales = []
    for op in ops:
        if (c := op.gram_scale()) is None:
            raise ValueError(f"a frame is made of operators with A.H A = c I, and {op} is not known to be one")
        scales.append(c)
    return stack(*ops) * (1 / jnp.sqrt(sum(scales, jnp.zeros(()))))


def _kinds(ndim: int) -> list[str]:
    return ["".join(letters) for letters in itertools.product("ad", repeat=ndim)]


def _correlate(x: Array, axis: int, f: tuple[float, ...], level: int, sign: int) -> Array:
    """`sum_j f[j] x[i + sign 2^(level-1) (j - o)]` along one axis; the other sign is the adjoint."""
    n, offset = x.shape[axis], len(f) // 2 - 1
    taps: dict[int, float] = {}
    for j, c in enumerate(f):
        # Filters longer than the line are laid round it; the shortest way round needs the least padding.
        shift = (sign * 2 ** (level - 1) * (j - offset) + n // 2) % n - n // 2
        taps[shift] = taps.get(shift, 0.0) + c
    before, after = -min(0, *taps), max(0, *taps)
    padded = wrap(x, before, after, axis)
    shifted = [lax.slice_in_dim(padded, before + s, before + s + n, axis=axis) for s in taps]
    return weighted_sum(tuple(taps.values()), shifted)
