"""The denoiser of total variation, `argmin_x 1/2 |x - v|^2 + factor sigma TV(x)` (Rudin, Osher, Fatemi 1992)."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax._pytree import assign, pytree_dataclass, static
from emjax.denoisers.base import Denoiser
from emjax.functionals import LeastSquares
from emjax.functionals.base import weights
from emjax.operators import PixelSampling
from emjax.operators.base import as_float
from emjax.solvers import PDHG, TV, Problem, Unrolled, solve


@pytree_dataclass
class TVDenoiser(Denoiser):
    """The denoiser of this module, solved to a certified gap.

    factor: the weight of total variation over the noise level. gap, max_steps: where PDHG stops. steps: take exactly so
    many instead, which makes it differentiable. An infinite sigma gives the mean. ndim: axes of one item.
    """

    factor: Any = 1.0
    gap: Any = 1e-3
    max_steps: Any = 500
    isotropic: bool = static(default=True)
    steps: int | None = static(default=None)
    ndim: int = static(default=2)

    def __post_init__(self) -> None:
        assign(self, factor=weights("the factor of total variation", self.factor), gap=as_float(self.gap))
        assign(self, max_steps=jnp.asarray(self.max_steps))

    def _denoise(self, v: Array, sigma: Array) -> Array:
        mean = jnp.mean(v)
        # The largest weight that makes a difference: a field with div p = v - mean needs no component above it.
        most = jnp.sum(jnp.abs(v - mean)) + jnp.finfo(v.dtype).tiny
        weight = self.factor * sigma
        data = LeastSquares(PixelSampling(jnp.ones_like(v), self.ndim), v - mean)
        problem = Problem(data, TV(jnp.minimum(weight, most).astype(v.dtype), isotropic=self.isotropic))
        if self.steps is None:
            x = solve(problem, PDHG(), gap=self.gap, max_steps=self.max_steps).value
        else:
            x = solve(problem, PDHG(), gradient=Unrolled(self.steps)).value
        x = jnp.where(weight >= most, 0, x)
        return mean + jnp.where(jnp.isfinite(mean) & ~jnp.isnan(weight), x, jnp.nan)
