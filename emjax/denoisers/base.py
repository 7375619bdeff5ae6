"""What the denoisers share: `eta(v, sigma)` for one item or leading batch axes, a noise level for each or for all."""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax.operators.base import as_float


class Denoiser:
    """Base class: subclasses give `_denoise` for one item of `ndim` axes."""

    ndim: int

    def _denoise(self, v: Array, sigma: Array) -> Array:
        raise NotImplementedError

    def __call__(self, v: Any, sigma: Any) -> Array:
        """`v = x + sigma n` without its noise, `(*batch, *item)`; `sigma` is one number or one for each item.

        `sigma = 0` returns `v`. NaN makes the item NaN where it reaches. Raises ValueError for shapes that do not fit.
        """
        v, sigma = as_float(v), as_float(sigma)
        if jnp.iscomplexobj(v) or jnp.iscomplexobj(sigma):
            raise ValueError(f"{type(self).__name__} takes real images and noise levels, got complex ones")
        if v.ndim < self.ndim:
            raise ValueError(f"{type(self).__name__} takes items with {self.ndim} axes, got shape {v.shape}")
        batch, core = v.shape[: v.ndim - self.ndim], v.shape[v.ndim - self.ndim :]
        try:
            batch = jnp.broadcast_shapes(batch, sigma.shape)
        except ValueError:
            raise ValueError(
                f"sigma is one number, or one for each item of the batch {batch}; got shape {sigma.shape}"
            ) from None
        return _apply(self, jnp.broadcast_to(v, (*batch, *core)), sigma.astype(v.dtype))


@jax.jit
def _apply(eta: Denoiser, v: Array, sigma: Array) -> Array:
    batch = v.shape[: v.ndim - eta.ndim]
    if not batch:
        return eta._denoise(v, sigma)
    flat = v.reshape(-1, *v.shape[len(batch) :])
    if sigma.ndim:
        x = jax.vmap(eta._denoise)(flat, jnp.broadcast_to(sigma, batch).ravel())
    else:
        x = jax.vmap(lambda item: eta._denoise(item, sigma))(flat)
    return x.reshape(v.shape)
