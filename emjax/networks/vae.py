"""A variational auto-encoder of small EM patches: the prior of `emjax.reconstructors.Generative`.

    x = G(z) + sigma e,   z ~ N(0, 1),  e ~ N(0, 1);     q(z | x) = N(mu(x), diag s(x)^2)

The decoder is a linear map plus a correction by three dense layers: with few measurements little more than the linear
part can be told, and descent on the latent is well-conditioned from the start. Dense layers, because the recovery runs
the decoder and its gradient some thousand times in one compiled loop, where convolutions are slow on a CPU. The noise
level sigma is trained too, so that the recovery knows how far the truth lies from what the decoder can make.

Source: Kingma and Welling 2014; trained noise level: Rybkin, Daniilidis, Levine 2021; use as a prior: Bora et al. 2017.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from emjax.networks.base import Network
from emjax.operators import LinearOperator


class VAE(Network):
    """Encoder and decoder of patches of `side` x `side` pixels, grey values around [0, 1].

    latent: the dimension of z. width: units of the decoder's hidden layers; encoder: of the encoder's.
    Raises ValueError for sizes below 1.
    """

    kind: ClassVar[str] = "vae"

    def __init__(
        self, side: int = 32, latent: int = 48, width: int = 224, encoder: int = 128, *, rngs: nnx.Rngs
    ) -> None:
        for name, value in (("side", side), ("latent", latent), ("width", width), ("encoder", encoder)):
            if value < 1:
                raise ValueError(f"a VAE's {name} is 1 or more, got {value}")
        self.side, self.latent, self.width, self.encoder = side, latent, width, encoder
        n = side * side

        def dense(inputs: int, outputs: int, scale: float = 1.0) -> nnx.Linear:
            init = nnx.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
            return nnx.Linear(inputs, outputs, kernel_init=init, rngs=rngs)

        self.encoding = nnx.List([dense(n, encoder), dense(encoder, encoder)])
        self.moments = dense(encoder, 2 * latent)
        self.means = dense(n, latent)
        self.hidden = nnx.List([dense(latent, width), dense(width, width)])
        self.correction = dense(width, n, 0.01)
        self.linear = dense(latent, n, 0.05)
        self.log_sigma = nnx.Param(jnp.full((), -2.0))

    @property
    def sigma(self) -> Array:
        """How far a pixel lies from the decoder's image, a standard deviation."""
        return jnp.exp(self.log_sigma[...])

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Mean and logarithm of the variance of z, `(*batch, latent)`, for images `(*batch, side, side)`."""
        flat = x.reshape(*x.shape[:-2], self.side**2) - 0.5
        h = flat
        for layer in self.encoding:
            h = jax.nn.silu(layer(h))
        mean, log_variance = jnp.split(self.moments(h), 2, -1)
        return mean + self.means(flat), jnp.clip(log_variance - 2, -12, 4)

    def decode(self, z: Array) -> Array:
        """`G(z)`, `(*batch, side, side)`, for `z` of shape `(*batch, latent)`."""
        h = z
        for layer in self.hidden:
            h = jax.nn.silu(layer(h))
        flat = self.linear(z) + self.correction(h) + 0.5
        return flat.reshape(*z.shape[:-1], self.side, self.side)

    def supports(self, A: LinearOperator) -> str | None:
        """Why `A` measures no such patches, or None."""
        if (reason := super().supports(A)) is None and tuple(A.in_shape) != (self.side, self.side):
            reason = f"this VAE makes images of {self.side} x {self.side} pixels, {A} measures {A.in_shape}"
        return reason

    def __call__(self, y: Any, A: Any, noise: Any = None) -> Array:
        raise TypeError("a VAE is a prior and inverts nothing by itself; emjax.reconstructors.Generative(network) does")
