"""DnCNN (Zhang et al., IEEE TIP 26, 2017), a residual denoiser, told the noise level (as FFDNet, IEEE TIP 27, 2018).

    x = v - f(v, sigma),    f: 3 x 3 convolutions with ReLU between, input v and a map that is sigma everywhere

without batch normalisation, which would tie the items of a batch together. The last layer starts at zero, so that an
untrained network returns its input.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from emjax.networks.base import Network, convolve


class DnCNN(Network):
    """A denoiser `network(v, sigma) -> x`, `width` channels and `depth` layers; any image size."""

    kind = "dncnn"

    def __init__(self, width: int = 64, depth: int = 17, *, rngs: nnx.Rngs):
        if width < 1 or depth < 2:
            raise ValueError(f"dncnn takes width >= 1 and depth >= 2, got {width} and {depth}")
        self.width, self.depth = width, depth
        he = nnx.initializers.he_normal()
        sizes = [2, *[width] * (depth - 1), 1]
        self.layers = nnx.List(
            nnx.Conv(
                sizes[i],
                sizes[i + 1],
                (3, 3),
                padding="SAME",
                kernel_init=nnx.initializers.zeros if i == depth - 1 else he,
                rngs=rngs,
            )
            for i in range(depth)
        )

    def __call__(self, v: Float[Array, "*batch h w"], sigma: Any) -> Float[Array, "*batch h w"]:  # type: ignore[override]
        """Images without their noise of standard deviation `sigma`, one number or one for each item."""
        v = jnp.asarray(v)
        sigma = jnp.asarray(sigma, v.dtype)
        level = jnp.broadcast_to(sigma.reshape(*sigma.shape, 1, 1), v.shape)
        x = jnp.stack([v, level], -1).reshape(-1, *v.shape[-2:], 2)
        for layer in self.layers[:-1]:
            x = jax.nn.relu(convolve(layer, x))
        return v - convolve(self.layers[-1], x).reshape(v.shape)
