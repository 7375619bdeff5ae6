"""Counts by way of stabilised variance: `f`, a method for Gaussian noise of unit variance, the exact unbiased inverse.

See `emjax.acquisition.stabilisation`. An alternative to the Poisson likelihood, which brings any reconstructor or
denoiser to a few electrons a pixel, read-out noise included.
"""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, pytree_dataclass
from emjax.acquisition.noise import Noise, estimate_poisson_gaussian
from emjax.acquisition.stabilisation import stabilise, unbiased_inverse
from emjax.functionals import as_denoiser
from emjax.operators import LinearOperator, PixelSampling
from emjax.reconstructors.base import Reconstructor, check_noise


@pytree_dataclass
class Stabilised(Reconstructor):
    """`Stabilised(inner)`: `inner` on the stabilised values of a pixel scan, and back.

    inner: a reconstructor, or a denoiser `eta(v, sigma)` for scans of every pixel (of others it makes NaN). noise: the
    levels; None takes them from the call, or from the scan (`estimate_poisson_gaussian`). Masks are 0/1: soft weights
    would give every pixel another noise (ValueError; under `jit` NaN).
    """

    inner: Any
    noise: Any = None

    def __post_init__(self) -> None:
        if self.inner is None:
            raise TypeError("Stabilised takes a reconstructor or a denoiser, such as emjax.load('tv'); got None")
        check_noise(self.noise)
        if not isinstance(self.inner, Reconstructor):
            assign(self, inner=as_denoiser(self.inner))

    def __call__(self, y: Array, A: LinearOperator, noise: Noise | None = None, *, key: Array | None = None) -> Array:
        self._check(A)
        return Reconstructor.__call__(self, y, A, noise, key=key)

    def fit(self, y: Array, A: LinearOperator, noise: Noise | None = None, *, key: Array | None = None) -> Self:
        self._check(A)
        return Reconstructor.fit(self, y, A, noise, key=key)

    def _check(self, A: LinearOperator) -> None:
        if not isinstance(A, PixelSampling):
            raise ValueError(
                f"only single pixels can be stabilised, by PixelSampling; {A} mixes them: PoissonLikelihood"
            )
        if not isinstance(A.mask, jax.core.Tracer) and not bool(np.isin(np.asarray(A.mask), (0, 1)).all()):
            raise ValueError("Stabilised takes a mask of 0 and 1, got soft weights; use PoissonLikelihood for them")

    def _fit(self, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Self:
        assert isinstance(A, PixelSampling)
        level = self.noise if self.noise is not None else noise
        if level is None:
            if y.ndim != 2:
                raise ValueError(
                    f"the noise is estimated from 2-D scans; for shape {y.shape} give it: noise=Noise(...)"
                )
            level = estimate_poisson_gaussian(y, jnp.broadcast_to(A.mask, y.shape))
        inner = self.inner
        if isinstance(inner, Reconstructor):
            inner = inner._fit(A.measured(stabilise(y, level)), A, Noise(0.0, 1.0), key)
        return dataclasses.replace(self, inner=inner, noise=level)

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        assert isinstance(A, PixelSampling)
        d = A.measured(stabilise(y, self.noise))
        if isinstance(self.inner, Reconstructor):
            d = self.inner._recover(d, A, None)  # the weights know the noise, which is the same everywhere
        else:
            d = jnp.where(jnp.all(A.mask != 0), self.inner(d, jnp.ones((), d.dtype)), jnp.nan)
        binary = jnp.all((A.mask == 0) | (A.mask == 1))
        return jnp.where(binary, unbiased_inverse(d, self.noise), jnp.nan).astype(y.dtype)
