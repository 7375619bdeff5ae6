"""Down-sampling without aliasing: an image as a coarser scan of the same field would show it.

Output pixel i is centred at `u = (i + 1/2) f - 1/2` of the input and averages it with weights `k((u - j) / f)`,
normalised to the sum 1: the kernel is widened by the factor f. Beyond the edges the item is mirrored (half-sample
symmetric). Kernels: R. G. Keys, Cubic convolution interpolation for digital image processing, IEEE TASSP 29 (1981)
1153-1160, with a = -1/2, widened as in MATLAB's `imresize`; Lanczos-3; and the mean over the area of a pixel.
"""

import functools
import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, pytree_dataclass, static
from emjax.operators.base import LinearOperator, Shape, check_shape, default_float, round_up


@pytree_dataclass
class Downsampling(LinearOperator):
    """Items of `shape`, any number of axes, at `1 / factor` of their resolution.

    `factor` is a number of at least 1, or one for each axis: an integer, a fraction, or a float (taken exactly). The
    output has `ceil(n / factor)` samples along an axis; `Downsampling.to_shape` gives the output shape instead.
    `kernel` is "bicubic" (the images of MATLAB's `imresize(x, 1 / factor)`), "lanczos3" or "area".

    Separable: a small dense matrix for each axis. `norm_bound` is the product of their largest singular values, so it
    is exact. For "area" with factors that divide the lengths `A A.H` is a multiple of I, with a closed-form resolvent.

    Raises ValueError for a factor below 1 or an unknown kernel.
    """

    shape: Shape = static()
    factor: Any = static()
    kernel: str = static(default="bicubic")

    def __post_init__(self) -> None:
        shape = check_shape(self.shape)
        factors = tuple(self.factor) if isinstance(self.factor, list | tuple) else (self.factor,) * len(shape)
        if len(factors) != len(shape) or not all(math.isfinite(f) and f >= 1 for f in factors):
            raise ValueError(
                f"factor is one number of at least 1, or one for each of the axes {shape}, got {self.factor}; "
                "to enlarge items use the adjoint"
            )
        if self.kernel not in _WEIGHTS:
            raise ValueError(f"kernel is one of {', '.join(_WEIGHTS)}, got {self.kernel!r}")
        assign(self, shape=shape, factor=tuple(Fraction(f) for f in factors))

    @classmethod
    def to_shape(cls, shape: Sequence[int], out_shape: Sequence[int], kernel: str = "bicubic") -> "Downsampling":
        """The one whose output has `out_shape`: the factor along each axis is `shape[a] / out_shape[a]`."""
        shape, out_shape = check_shape(shape), check_shape(out_shape)
        if len(shape) != len(out_shape):
            raise ValueError(f"the output of items of shape {shape} has as many axes, got {out_shape}")
        return cls(shape, tuple(Fraction(n, m) for n, m in zip(shape, out_shape)), kernel)

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return tuple(math.ceil(n / f) for n, f in zip(self.shape, self.factor))

    def matrices(self) -> tuple[np.ndarray, ...]:
        """The weights along each axis, (out length, in length) in float64; their rows add up to 1."""
        return tuple(_matrix(n, f, self.kernel) for n, f in zip(self.shape, self.factor))

    def _apply(self, x: Array, transpose: bool) -> Array:
        # Half-precision items are averaged in float32.
        y = x.astype(jnp.promote_types(x.dtype, jnp.float32))
        for axis, (matrix, f) in enumerate(zip(self.matrices(), self.factor)):
            if f != 1:
                weights = (matrix.T if transpose else matrix).astype(y.dtype)
                y = jnp.moveaxis(jnp.tensordot(weights, y, axes=(1, axis), precision="highest"), 0, axis)
        return y.astype(x.dtype)

    def forward(self, x: Array) -> Array:
        return self._apply(x, transpose=False)

    def adjoint(self, y: Array) -> Array:
        return self._apply(y, transpose=True)

    def norm_bound(self) -> Array:
        norm = math.prod(_norm(n, f, self.kernel) for n, f in zip(self.shape, self.factor))
        # The weights are rounded to the dtype of the items, each by a part of itself.
        return round_up(jnp.asarray(norm, default_float()), 4 * (1 + len(self.shape)))

    def row_scale(self) -> Array | None:
        if self.kernel != "area" or any(f.denominator != 1 or n % f for n, f in zip(self.shape, self.factor)):
            return None
        return jnp.asarray(float(1 / math.prod(self.factor)), default_float())


def _bicubic(d: np.ndarray, f: float) -> np.ndarray:
    t = np.abs(d / f)
    inner, outer = (1.5 * t - 2.5) * t**2 + 1, ((-0.5 * t + 2.5) * t - 4) * t + 2
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0))


def _lanczos3(d: np.ndarray, f: float) -> np.ndarray:
    return np.where(np.abs(d) < 3 * f, np.sinc(d / f) * np.sinc(d / f / 3), 0)


def _area(d: np.ndarray, f: float) -> np.ndarray:
    """What an output pixel of width f and an input pixel share, at the distance d of their centres."""
    return np.maximum(np.minimum(d + 0.5, f / 2) - np.maximum(d - 0.5, -f / 2), 0)


# Weights by the distance from the centre, and the distance beyond which they are 0, in output pixels.
_WEIGHTS: dict[str, tuple[Callable[[np.ndarray, float], np.ndarray], int]] = {
    "bicubic": (_bicubic, 2),
    "lanczos3": (_lanczos3, 3),
    "area": (_area, 1),
}


@functools.lru_cache(maxsize=16)
def _matrix(n: int, f: Fraction, kernel: str) -> np.ndarray:
    weights, reach = _WEIGHTS[kernel]
    m = math.ceil(n / f)
    u = np.asarray([float((i + Fraction(1, 2)) * f - Fraction(1, 2)) for i in range(m)])
    steps = math.ceil(reach * f) + 1
    j = np.floor(u).astype(int)[:, None] + np.arange(-steps, steps + 1)
    w = weights(j - u[:, None], float(f))
    on_torus = j % (2 * n)
    mirrored = np.minimum(on_torus, 2 * n - 1 - on_torus)
    out = np.zeros((m, n))
    np.add.at(out, (np.arange(m)[:, None], mirrored), w / w.sum(1, keepdims=True))
    return out


@functools.lru_cache(maxsize=16)
def _norm(n: int, f: Fraction, kernel: str) -> float:
    import scipy.linalg  # when it is used: emjax does not load SciPy

    # Output pixels overlap with few neighbours: the Gram matrix is a band, whose largest eigenvalue costs a hundredth
    # of the singular values of a line of 2048.
    matrix = _matrix(n, f, kernel)
    gram = matrix @ matrix.T
    m = len(gram)
    width = int(np.max(np.abs(np.subtract(*np.nonzero(gram)))))
    band = np.zeros((width + 1, m))
    for k in range(width + 1):
        band[k, : m - k] = np.diagonal(gram, -k)
    return math.sqrt(scipy.linalg.eigvals_banded(band, lower=True, select="i", select_range=(m - 1, m - 1))[0])
