"""Convolution by a small kernel: the shape of the beam, defocus, drift during the dwell time.

`(A x)[i] = sum_l k[l] x[i + c - l]` with the centre `c = size // 2` along each axis. Outside the item, `x` is
periodic, mirrored (half-sample symmetric) or zero. The products are taken in Fourier space.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.operators.base import LinearOperator, Shape, as_float, check_shape, round_up
from emjax.operators.fourier import as_fft_input

_BOUNDARIES = ("periodic", "reflect", "zero")


@pytree_dataclass
class Blur(LinearOperator):
    """Convolution of items of `shape` by a real `kernel` with as many axes, of any size, even or odd.

    Agrees with `scipy.ndimage.convolve` with mode "wrap" (`boundary="periodic"`), "reflect" or "constant"
    (`"zero"`). The kernel is a leaf: it can be differentiated, and leading axes `(*batch, *size)` give each
    item its own.

    `norm_bound` is exact for the periodic boundary, and for "reflect" when the kernel is symmetric along
    every axis. Only the periodic boundary has a closed-form resolvent. With `symmetric` the kernel is promised to
    be so, of odd size and unchanged by a flip of any axis: with "reflect", the DCT diagonalises such a blur.
    """

    kernel: Any = leaf("in_shape")
    shape: Shape = static()
    boundary: str = static(default="periodic")
    symmetric: bool = static(default=False)

    def __post_init__(self) -> None:
        assign(self, kernel=as_float(self.kernel), shape=check_shape(self.shape))
        if jnp.iscomplexobj(self.kernel):
            raise ValueError("a blur kernel is real, got a complex one")
        if self.kernel.ndim < len(self.shape) or 0 in self.kernel.shape:
            raise ValueError(
                f"a kernel for items of shape {self.shape} has {len(self.shape)} axes (batch axes in front), "
                f"none of them empty, got shape {self.kernel.shape}"
            )
        if self.boundary not in _BOUNDARIES:
            raise ValueError(f"boundary is one of {', '.join(_BOUNDARIES)}, got {self.boundary!r}")
        if self.symmetric and not isinstance(self.kernel, jax.core.Tracer):
            _check_symmetric(np.asarray(self.kernel), self._size)

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return self.shape

    @property
    def in_dtype(self) -> np.dtype:
        return self.kernel.dtype

    @property
    def _size(self) -> Shape:
        return self.kernel.shape[self.kernel.ndim - len(self.shape) :]

    @property
    def _pads(self) -> list[tuple[int, int]]:
        """How many samples beyond the edges the convolution reaches."""
        return [(k - 1 - k // 2, k // 2) for k in self._size]

    @property
    def _torus(self) -> Shape:
        """The lengths of the FFT: the item's, or long enough that nothing that is kept has gone round."""
        if self.boundary == "periodic":
            return self.shape
        pad = 2 if self.boundary == "reflect" else 1
        return tuple(_fast_length(n + pad * (k - 1)) for n, k in zip(self.shape, self._size, strict=True))

    def _start(self) -> Shape:
        """Where the result begins on the torus."""
        if self.boundary == "periodic":
            return (0,) * len(self.shape)
        reflect = self.boundary == "reflect"
        return tuple((before if reflect else 0) + after for before, after in self._pads)

    def _extend(self, x: Array) -> Array:
        return jnp.pad(x, self._pads, mode="symmetric") if self.boundary == "reflect" else x

    def _transfer(self, dtype: Any) -> Array:
        """The spectrum of the kernel of one item on the torus."""
        kernel = as_fft_input(self.kernel.astype(dtype))
        if self.boundary != "periodic":
            return jnp.fft.rfftn(kernel, s=self._torus)
        for axis, (n, k) in enumerate(zip(self.shape, self._size, strict=True)):
            # A kernel longer than the axis is laid round it several times; its centre goes to index 0.
            kernel = jnp.pad(kernel, [(0, -k % n if a == axis else 0) for a in range(kernel.ndim)])
            kernel = kernel.reshape(*kernel.shape[:axis], -1, n, *kernel.shape[axis + 1 :]).sum(axis)
            kernel = jnp.roll(kernel, -(k // 2), axis)
        return jnp.fft.rfftn(kernel)

    def forward(self, x: Array) -> Array:
        if jnp.iscomplexobj(x):
            return lax.complex(self.forward(x.real), self.forward(x.imag))
        dtype = jnp.result_type(self.kernel.dtype, x.dtype)
        spectrum = self._transfer(dtype) * jnp.fft.rfftn(as_fft_input(self._extend(x.astype(dtype))), s=self._torus)
        on_torus = jnp.fft.irfftn(spectrum, s=self._torus)
        return on_torus[tuple(slice(b, b + n) for b, n in zip(self._start(), self.shape, strict=True))].astype(dtype)

    def adjoint(self, y: Array) -> Array:
        if jnp.iscomplexobj(y):
            return lax.complex(self.adjoint(y.real), self.adjoint(y.imag))
        dtype = jnp.result_type(self.kernel.dtype, y.dtype)
        ends = zip(self._start(), self.shape, self._torus, strict=True)
        on_torus = jnp.pad(as_fft_input(y.astype(dtype)), [(b, t - b - n) for b, n, t in ends])
        spectrum = jnp.conj(self._transfer(dtype)) * jnp.fft.rfftn(on_torus)
        extended = jnp.fft.irfftn(spectrum, s=self._torus)
        struct = jax.ShapeDtypeStruct(self.shape, extended.dtype)
        size = jax.eval_shape(self._extend, struct).shape
        (x,) = jax.linear_transpose(self._extend, struct)(extended[tuple(slice(0, n) for n in size)])
        return x.astype(dtype)

    def norm_bound(self) -> Array:
        kernels = self.kernel.reshape(-1, *self._size)
        return jnp.max(jax.vmap(lambda k: Blur(k, self.shape, self.boundary)._norm_bound())(kernels))

    def _norm_bound(self) -> Array:
        # Rounding of an FFT grows with the logarithm of its length.
        ulps = 16 * (1 + math.log2(math.prod(self._torus)))
        # Exact on the torus; with zeros outside, embedding into it and cropping have norm 1.
        on_torus = jnp.max(jnp.abs(self._transfer(self.in_dtype)))
        bound = self._mirrored_norm() if self.boundary == "reflect" else on_torus
        if self.boundary != "periodic":
            # Schur's test: sqrt(largest row sum * largest column sum) of the absolute values.
            absolute = Blur(jnp.abs(self.kernel), self.shape, self.boundary)
            ones = jnp.ones(self.shape, self.in_dtype)
            slack = ulps * jnp.finfo(self.in_dtype).eps * jnp.sum(absolute.kernel)
            rows, columns = jnp.max(absolute.forward(ones)), jnp.max(absolute.adjoint(ones))
            bound = jnp.minimum(bound, jnp.sqrt((rows + slack) * (columns + slack)))
        return round_up(bound, ulps).astype(self.in_dtype)

    def gram_spectrum(self, basis: str) -> Array | None:
        if basis == "fft" and self.boundary == "periodic":
            transfer = jnp.fft.fftn(jnp.fft.irfftn(self._transfer(self.in_dtype), s=self.shape))
            return (transfer.real**2 + transfer.imag**2).astype(self.in_dtype)
        if basis == "dct" and self.boundary == "reflect" and self.symmetric:
            return self._cosine_transfer() ** 2
        return None

    def _cosine_transfer(self) -> Array:
        """The spectrum of a symmetric kernel with mirrored edges: `B = C.H s C` with the DCT `C`."""
        part = self.kernel
        for n, k in zip(self.shape, self._size, strict=True):
            wave = np.cos(np.pi / n * np.outer(np.arange(n), np.arange(k) - k // 2)).astype(self.in_dtype)
            part = jnp.tensordot(part, wave, axes=(0, 1), precision="highest")
        return part

    def _mirrored_norm(self) -> Array:
        # Mirroring counts border samples twice, so the largest absolute value of the spectrum is no bound:
        # the shift by one pixel has norm sqrt(2). Split the kernel into parts, even or odd along each axis. A
        # part maps even functions of the torus of double length to functions of its own parity, whose norm
        # over the item is a fixed share of that over the torus: so its norm is at most the largest absolute
        # value of its spectrum.
        waves = []
        for n, k in zip(self.shape, self._size, strict=True):
            phase = np.pi / n * np.outer(np.arange(n), np.arange(k) - k // 2)
            waves.append((np.cos(phase), np.sin(phase)))
        bound = jnp.zeros((), self.in_dtype)
        for parity in itertools.product(*waves):
            part = self.kernel
            for wave in parity:
                part = jnp.tensordot(part, wave.astype(self.in_dtype), axes=(0, 1), precision="highest")
            bound = bound + jnp.max(jnp.abs(part))
        return bound

    @property
    def has_resolvent(self) -> bool:
        return self.boundary == "periodic"

    def resolvent(self, v: Array, tau: Array) -> Array:
        if not self.has_resolvent:
            return super().resolvent(v, tau)
        if jnp.iscomplexobj(v):
            return lax.complex(self.resolvent(v.real, tau), self.resolvent(v.imag, tau))
        dtype = jnp.result_type(self.kernel.dtype, v.dtype)
        transfer = self._transfer(dtype)
        power = transfer.real**2 + transfer.imag**2
        return jnp.fft.irfftn(jnp.fft.rfftn(as_fft_input(v.astype(dtype))) / (1 + tau * power), s=self.shape).astype(
            dtype
        )


def _check_symmetric(kernel: np.ndarray, size: Shape) -> None:
    slack = 8 * np.finfo(kernel.dtype).eps * np.abs(kernel).max()
    axes = range(-len(size), 0)
    if not all(k % 2 for k in size) or any(np.abs(kernel - np.flip(kernel, a)).max() > slack for a in axes):
        raise ValueError(
            f"this kernel of size {size} is not odd in size and unchanged by a flip of each axis; leave symmetric=False"
        )


def _fast_length(n: int) -> int:
    """The smallest length of at least `n` without prime factors above 5."""
    while True:
        rest = n
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return n
        n += 1


def gaussian_kernel(
    sigma: Any, ndim: int = 2, *, truncate: float = 4.0, radius: int | Sequence[int] | None = None
) -> Array:
    """A normalised Gaussian kernel of odd size `2 radius + 1` along each of `ndim` axes.

    `sigma` is its standard deviation in pixels, one number or a tuple with one for each axis; 0 leaves an
    axis as it is. The radius is `truncate * sigma`, rounded, as in `scipy.ndimage.gaussian_filter`; give it
    where `sigma` is traced (to differentiate by it). Raises ValueError for a negative sigma or wrong counts.
    """
    sigmas = tuple(sigma) if isinstance(sigma, list | tuple) else (sigma,) * ndim
    if len(sigmas) != ndim:
        raise ValueError(f"sigma is one number or one for each of {ndim} axes, got {len(sigmas)}")
    if radius is None:
        if not all(math.isfinite(s) and s >= 0 for s in sigmas):
            raise ValueError(f"sigma is finite and not negative, got {sigma}")
        radii = tuple(int(truncate * float(s) + 0.5) for s in sigmas)
    else:
        radii = (radius,) * ndim if isinstance(radius, int) else tuple(radius)
        if len(radii) != ndim or min(radii) < 0:
            raise ValueError(f"radius is one number or one for each of {ndim} axes, not negative, got {radius}")
    kernel = jnp.ones(())
    for s, r in zip(sigmas, radii, strict=True):
        offsets = jnp.arange(-r, r + 1)
        positive = jnp.asarray(s) > 0
        line = jnp.where(positive, jnp.exp(-0.5 * (offsets / jnp.where(positive, s, 1.0)) ** 2), offsets == 0)
        kernel = kernel[..., None] * (line / jnp.sum(line))
    return kernel
