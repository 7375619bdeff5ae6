"""A denoising network as a denoiser: for plug-and-play, message passing, or a picture on its own.

    eta(v, sigma) = black + s f((v - black) / s, min(sigma / s, highest)),      s = white - black

with f a network of images in [0, 1], such as DnCNN, and images whose grey values have any range.
"""

import inspect
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, pytree_dataclass, static
from emjax.denoisers.base import Denoiser
from emjax.operators.base import as_float


@pytree_dataclass
class NetworkDenoiser(Denoiser):
    """`network(v, sigma)` as it is, e.g. `emjax.zoo.network("./runs/denoise")`; see the module.

    black, white: the grey values that the network is to see as 0 and 1, those of its training. highest: the largest
    noise level of its training, in these units; stronger noise is told as that, as a network does anything at levels
    that it never saw. Raises TypeError for an inverting network, `network(y, A)`; ValueError for `white <= black` and
    `highest <= 0`.
    """

    network: Any
    black: Any = 0.0
    white: Any = 1.0
    highest: Any = float("inf")
    ndim: int = static(default=2)

    def __post_init__(self) -> None:
        if isinstance(self.network, type) or not callable(self.network) or "A" in _arguments(self.network):
            raise TypeError(
                "NetworkDenoiser takes a network that is called (v, sigma), such as emjax.networks.build('dncnn'); "
                f"got {type(self.network).__name__}"
            )
        black, white, highest = (as_float(v) for v in (self.black, self.white, self.highest))
        if not any(isinstance(v, jax.core.Tracer) for v in (black, white, highest)):
            if not np.all(np.asarray(white) > np.asarray(black)):
                raise ValueError(f"white is a larger grey value than black, got {white} and {black}")
            if not np.all(np.asarray(highest) > 0):
                raise ValueError(f"highest is a noise level above 0, got {highest}")
        assign(self, black=black, white=white, highest=highest)

    def _denoise(self, v: Array, sigma: Array) -> Array:
        black, scale = self.black.astype(v.dtype), (self.white - self.black).astype(v.dtype)
        level = jnp.minimum(sigma / scale, self.highest.astype(v.dtype))
        x = black + scale * self.network((v - black) / scale, level)
        return jnp.where(sigma == 0, v, x)  # whatever a network makes of an image without noise


def _arguments(network: Any) -> list[str]:
    try:
        return list(inspect.signature(network).parameters)
    except (TypeError, ValueError):  # compiled functions of some libraries tell nothing
        return []
