"""Fourier sampling: `y = mask * F x` with the orthonormal discrete Fourier transform, full-size and zero off
the mask.

Of real items only half of the spectrum is free: `F x` at -k is its conjugate at k. So `A.H A x = Re(F.H m^2 F
x) = F.H s F x`, where `s` is the mean of `m^2` and its point reflection: diagonal in Fourier space for every
mask.
"""

from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.operators.base import LinearOperator, Shape, as_float, check_shape, default_float, round_up, unit


@pytree_dataclass
class Fourier(LinearOperator):
    """The orthonormal DFT over all axes of items of `shape`, frequencies in the order of `numpy.fft.fftfreq`.

    With `real` (the default) it takes real items, raising TypeError for complex ones, and its adjoint is the
    real part of the inverse; `F.H F = I`, but `F F.H` is the projection to Hermitian spectra. Without `real`
    it is unitary.
    """

    shape: Shape = static()
    real: bool = static(default=True)

    def __post_init__(self) -> None:
        assign(self, shape=check_shape(self.shape), real=bool(self.real))

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return self.shape

    @property
    def in_dtype(self) -> np.dtype:
        return default_float() if self.real else self.out_dtype

    @property
    def out_dtype(self) -> np.dtype:
        return jnp.promote_types(default_float(), jnp.complex64)

    def forward(self, x: Array) -> Array:
        return _forward(x, self.real)

    def adjoint(self, y: Array) -> Array:
        return _adjoint(y, self.real)

    def norm_bound(self) -> Array:
        return round_up(jnp.ones((), default_float()))

    def gram_diagonal(self) -> Array:
        return unit()

    def gram_scale(self) -> Array:
        return unit()

    def row_scale(self) -> Array | None:
        return None if self.real else unit()


@pytree_dataclass
class SubsampledFourier(LinearOperator):
    """`y = mask * F x` with a real mask of 0/1 or soft weights, shape `(*batch, *in_shape)`.

    The mask's frequencies are in the order of `numpy.fft.fftfreq` (zero first); for a mask drawn with zero
    frequency in the middle use `SubsampledFourier.centred`. `ndim` is the number of axes of one item. With
    `real` the items are real and the adjoint is the real part of `F.H (mask * y)`. `(I + tau A.H A)^-1` has a
    closed form for every mask.
    """

    mask: Any = leaf("in_shape")
    ndim: int = static(default=2)
    real: bool = static(default=True)

    def __post_init__(self) -> None:
        assign(self, mask=as_float(self.mask), real=bool(self.real))
        if jnp.iscomplexobj(self.mask):
            raise ValueError("a sampling mask is real, got a complex one")
        if self.ndim < 1 or self.mask.ndim < self.ndim:
            raise ValueError(
                f"a mask of items with {self.ndim} axes has at least {self.ndim} axes, "
                f"got shape {self.mask.shape}; say how many axes an item has: SubsampledFourier(mask, ndim=...)"
            )

    @classmethod
    def centred(cls, mask: Any, ndim: int = 2, real: bool = True) -> "SubsampledFourier":
        """From a mask with the zero frequency in the middle, as it is drawn (`numpy.fft.fftshift` order)."""
        return cls(jnp.fft.ifftshift(as_float(mask), axes=tuple(range(-ndim, 0))), ndim, real)

    @property
    def in_shape(self) -> Shape:
        return self.mask.shape[self.mask.ndim - self.ndim :]

    @property
    def out_shape(self) -> Shape:
        return self.in_shape

    @property
    def in_dtype(self) -> np.dtype:
        return self.mask.dtype if self.real else self.out_dtype

    @property
    def out_dtype(self) -> np.dtype:
        return jnp.promote_types(self.mask.dtype, jnp.complex64)

    def forward(self, x: Array) -> Array:
        return self.mask * _forward(x, self.real)

    def adjoint(self, y: Array) -> Array:
        return _adjoint(self.mask * y, self.real)

    def measured(self, y: Array) -> Array:
        return jnp.where(self.mask != 0, y, 0)

    def count_measured(self) -> Array:
        # Of a real item the opposite frequency tells the same.
        return jnp.sum(self._gram_spectrum() > 0).astype(jnp.real(self.mask).dtype)

    def gram_spectrum(self, basis: str) -> Array | None:
        return self._gram_spectrum() if basis == "fft" else None

    def _gram_spectrum(self) -> Array:
        """`s` with `A.H A x = F.H (s * F x)`."""
        square = self.mask * self.mask
        return (square + _reflect(square, range(-self.ndim, 0))) / 2 if self.real else square

    def norm_bound(self) -> Array:
        return round_up(jnp.sqrt(jnp.max(self._gram_spectrum())))

    @property
    def has_resolvent(self) -> bool:
        return True

    def resolvent(self, v: Array, tau: Array) -> Array:
        denominator = 1 + tau * self._gram_spectrum()
        if not self.real:
            return _adjoint(_forward(v, False) / denominator, False)
        half = v.shape[-1] // 2 + 1
        return jnp.fft.irfftn(jnp.fft.rfftn(as_fft_input(v)) / denominator[..., :half], s=v.shape)


def as_fft_input(x: Array) -> Array:
    """Half-precision items as float32: there is no FFT of them."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _forward(x: Array, real: bool) -> Array:
    if not real:
        return jnp.fft.fftn(as_fft_input(x), norm="ortho")
    if jnp.iscomplexobj(x):
        raise TypeError("this Fourier operator takes real items, got complex ones; build it with real=False")
    # The other half by symmetry: on a CPU up to twice as fast as the complex transform.
    half = jnp.fft.rfftn(as_fft_input(x), norm="ortho")
    inner = half[..., 1 : (x.shape[-1] + 1) // 2]
    other = jnp.conj(jnp.flip(_reflect(inner, range(x.ndim - 1)), -1))
    return jnp.concatenate([half, other], -1)


def _adjoint(y: Array, real: bool) -> Array:
    x = jnp.fft.ifftn(as_fft_input(y), norm="ortho")
    return x.real if real else x


def _reflect(v: Array, axes: Iterable[int]) -> Array:
    """`v[-k]`, indices modulo the lengths of `axes`."""
    for axis in axes:
        v = jnp.roll(jnp.flip(v, axis), 1, axis)
    return v
