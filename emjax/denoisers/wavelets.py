"""Translation-invariant wavelet shrinkage: `W.H soft(W v, factor sigma_l)` in the undecimated frame.

A coefficient of level l of `d` axes carries the noise `sigma_l = 2^(-l d / 2) sigma`; the coarse band is left alone.
As `W.H W = I`, this is the mean over all shifts of the shrinkage in the orthonormal basis. Source: Coifman and Donoho
1995.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax._pytree import assign, pytree_dataclass, static
from emjax.denoisers.base import Denoiser
from emjax.functionals.base import weights
from emjax.operators import UndecimatedWavelet


@pytree_dataclass
class WaveletDenoiser(Denoiser):
    """The denoiser of this module; see there.

    factor: the threshold in noise levels of a coefficient. hard: keep what is above the threshold whole; better
    pictures, but no proximal map of anything. name, levels: of `emjax.operators.UndecimatedWavelet`.
    """

    factor: Any = 1.5
    hard: bool = static(default=False)
    name: str = static(default="sym8")
    levels: int | None = static(default=None)
    ndim: int = static(default=2)

    def __post_init__(self) -> None:
        assign(self, factor=weights("the threshold's factor", self.factor))

    def _denoise(self, v: Array, sigma: Array) -> Array:
        W = UndecimatedWavelet(v.shape, self.name, self.levels)
        level = W.level_map()
        scale = jnp.asarray(2.0 ** (-0.5 * self.ndim * level) * (level > 0), v.dtype)
        # No infinity times zero in the coarse band.
        threshold = scale * jnp.minimum(self.factor * sigma, jnp.finfo(v.dtype).max).astype(v.dtype)
        c = W.forward(v)
        size = jnp.abs(c)
        shrunk = jnp.where(size <= threshold, 0, c) if self.hard else jnp.sign(c) * jnp.maximum(size - threshold, 0)
        return jnp.where(jnp.isnan(sigma), jnp.nan, W.adjoint(shrunk))
