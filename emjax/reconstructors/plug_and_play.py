"""Plug-and-play recovery: a denoiser for a prior, by half-quadratic splitting from a smooth first recovery.

    x' = argmin 1/2 |A x - y|^2_w + weight / (2 sigma^2) |x - z|^2,    z' = eta(x', sigma)

A denoiser knows white noise, and the error of a sparse scan is none: it is as smooth as the gaps are wide, looks like
structure, and is kept or grows. So the gaps are filled first, by `Spectral`, and a gentle step follows that brings in
what the first recovery cannot know, such as edges and repetition: 0.1 dB on the mean of phantoms and SEM crops. More
steps lose that again, and the iteration's fixed point lies decibels below its start on sparse scans.
Source: Zhang et al. 2021.
"""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, leaf, pytree_dataclass
from emjax.acquisition.noise import Noise
from emjax.denoisers import NonLocalMeans
from emjax.functionals import LeastSquares, as_denoiser
from emjax.operators import LinearOperator, PixelSampling
from emjax.operators.base import as_float
from emjax.reconstructors.base import Reconstructor, check_gap, check_steps, noise_weights, recovered
from emjax.reconstructors.selection import needs_noise, scan_variance
from emjax.reconstructors.spectral import Spectral
from emjax.reconstructors.variational import check_weight
from emjax.solvers import HQS, Problem, solve


@pytree_dataclass
class PlugAndPlay(Reconstructor):
    """Plug-and-play recovery; see the module.

    weight: the noise variance of a measurement; None or "auto" takes it from `noise`, or from the scan of 2-D pixel
    scans. denoiser: `eta(v, sigma)`; None for `NonLocalMeans`. strength: sigma over the standard deviation of the first
    recovery. start: the reconstructor that makes that; None for `Spectral`, with weights of its own. gap: the residual
    at which it ends before `max_steps`.
    """

    weight: Any = leaf("_scalar", default=None)
    denoiser: Any = None
    strength: Any = leaf("_scalar", default=0.1)
    gap: Any = leaf("_scalar", default=1e-4)
    max_steps: Any = leaf("_scalar", default=1)
    start: Any = None

    def __post_init__(self) -> None:
        start = Spectral() if self.start is None else self.start
        if not isinstance(start, Reconstructor):
            raise TypeError(f"start is a reconstructor, such as emjax.load('tv'); got {start!r}")
        strength = as_float(self.strength)
        if not isinstance(strength, jax.core.Tracer) and not bool(np.all(np.asarray(strength) > 0)):
            raise ValueError(f"the strength of plug-and-play is above 0, got {strength}")
        assign(self, weight=check_weight(self.weight), denoiser=as_denoiser(self.denoiser), strength=strength)
        assign(self, start=start, gap=check_gap(self.gap), max_steps=check_steps(self.max_steps))

    def _fit(self, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Self:
        weight, scan = self.weight, isinstance(A, PixelSampling) and A.ndim == 2
        if weight is None:
            if isinstance(A, PixelSampling) and scan:
                weight = scan_variance(y, A, noise)
            elif noise is None:
                raise needs_noise("pnp")
            else:
                weight = jnp.mean(noise.variance(jnp.abs(y)))
        level = noise
        if noise is None and not scan:
            level = Noise(0.0, jnp.sqrt(weight))
        start = self.start._fit(y, A, level, key)
        return dataclasses.replace(self, weight=jnp.asarray(weight, y.real.dtype), start=start)

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        assert self.weight is not None
        x = self.start._recover(y, A, noise)
        ndim = len(A.in_shape)
        eta = NonLocalMeans(1.0, 1, 7 if ndim < 3 else 3, ndim) if self.denoiser is None else self.denoiser
        weights = None
        if noise is not None and isinstance(A, PixelSampling):
            weights = noise_weights(x, noise, A.mask)
        limits = jnp.finfo(x.dtype)
        sigma = jnp.maximum(self.strength * jnp.std(x), limits.eps * jnp.max(jnp.abs(x)) + limits.tiny)
        solver = HQS(eta, self.weight, sigma, iterations=1, check_every=1)
        problem = Problem(LeastSquares(A, y, weights))
        return recovered(solve(problem, solver, gap=self.gap, max_steps=self.max_steps, start=x))
