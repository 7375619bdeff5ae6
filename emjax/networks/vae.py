"""A variational auto-encoder of small EM patches: the prior of `emjax.reconstructors.Generative`.

    x = G(z) + C.T sigma e,   z ~ N(0, 1),  e ~ N(0, 1);     q(z | x) = N(mu(x), diag s(x)^2),     C the DCT

The decoder is a linear map plus a correction by three dense layers: with few measurements little more than the linear
part can be told, and descent on the latent is well-conditioned from the start. Dense layers, because the recovery runs
the decoder and its gradient some thousand times in one compiled loop, where convolutions are slow on a CPU. Encoder and
decoder work on DCT coefficients over their usual spread in EM images, `4 (1 + k^2)^-3/4` at frequency k: numbers of one
size, where pixels would have the training dwell on the grey level. What the decoder leaves out, sigma, is trained too,
one number or one for every coefficient: a recovery then knows how far the truth lies from what the decoder can make,
and in which directions.

Source: Kingma and Welling 2014; trained noise level: Rybkin, Daniilidis, Levine 2021; use as a prior: Bora et al. 2017.
"""

import functools
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from emjax.networks.base import Network
from emjax.operators import LinearOperator


class VAE(Network):
    """Encoder and decoder of patches of `side` x `side` pixels, grey values around [0, 1].

    latent: the dimension of z. width: units of the decoder's hidden layers; encoder: of the encoder's. spectrum: a
    sigma for every coefficient of the DCT, `(side, side)`, rather than one for all.
    Raises ValueError for sizes below 1.
    """

    kind: ClassVar[str] = "vae"

    def __init__(
        self,
        side: int = 32,
        latent: int = 64,
        width: int = 224,
        encoder: int = 128,
        spectrum: bool = False,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        for name, value in (("side", side), ("latent", latent), ("width", width), ("encoder", encoder)):
            if value < 1:
                raise ValueError(f"a VAE's {name} is 1 or more, got {value}")
        self.side, self.latent, self.width, self.encoder, self.spectrum = side, latent, width, encoder, bool(spectrum)
        n = side * side

        def dense(inputs: int, outputs: int, scale: float = 1.0) -> nnx.Linear:
            init = nnx.initializers.variance_scaling(scale, "fan_in", "truncated_normal")
            return nnx.Linear(inputs, outputs, kernel_init=init, rngs=rngs)

        self.encoding = nnx.List([dense(n, encoder), dense(encoder, encoder)])
        self.moments = dense(encoder, 2 * latent)
        self.means = dense(n, latent)
        self.hidden = nnx.List([dense(latent, width), dense(width, width)])
        self.correction = dense(width, n, 0.01)
        self.linear = dense(latent, n, 0.3)
        self.log_sigma = nnx.Param(jnp.full((side, side) if spectrum else (), -2.0))

    @property
    def sigma(self) -> Array:
        """How far a pixel, or each coefficient of the DCT, lies from the decoder's image, a standard deviation."""
        return jnp.exp(self.log_sigma[...])

    def surprise(self, rest: Array) -> Array:
        """`-log p(x | z)` of what the decoder left out, `(*batch, side, side)`, nats a pixel, but for a constant."""
        if self.spectrum:
            rest = self._coefficients(rest)
        return jnp.mean(rest**2 / (2 * self.sigma**2) + self.log_sigma[...], (-2, -1))

    def deviation(self) -> Array:
        """The covariance of a patch given z, `(side^2, side^2)`."""
        n = self.side**2
        variance = jnp.broadcast_to(self.sigma**2, (self.side, self.side)).reshape(-1)
        rows = self._coefficients(jnp.eye(n, dtype=variance.dtype).reshape(n, self.side, self.side)).reshape(n, n)
        return jnp.matmul(rows * variance, rows.T, precision="highest")

    def _coefficients(self, x: Array) -> Array:
        cosines, _ = _dct(self.side)
        return jnp.matmul(jnp.matmul(cosines, x, precision="highest"), cosines.T, precision="highest")

    def encode(self, x: Array) -> tuple[Array, Array]:
        """Mean and logarithm of the variance of z, `(*batch, latent)`, for images `(*batch, side, side)`."""
        _, spread = _dct(self.side)
        flat = (self._coefficients(x - 0.5) / spread).reshape(*x.shape[:-2], -1)
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
        return self._image(self.linear(z) + self.correction(h)) + 0.5

    def _image(self, coefficients: Array) -> Array:
        cosines, spread = _dct(self.side)
        table = coefficients.reshape(*coefficients.shape[:-1], self.side, self.side) * spread
        return jnp.matmul(jnp.matmul(cosines.T, table, precision="highest"), cosines, precision="highest")

    def supports(self, A: LinearOperator) -> str | None:
        """Why `A` measures no such patches, or None."""
        if (reason := super().supports(A)) is None and tuple(A.in_shape) != (self.side, self.side):
            reason = f"this VAE makes images of {self.side} x {self.side} pixels, {A} measures {A.in_shape}"
        return reason

    def __call__(self, y: Any, A: Any, noise: Any = None) -> Array:
        raise TypeError("a VAE is a prior and inverts nothing by itself; emjax.reconstructors.Generative(network) does")


@functools.cache
def _dct(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The matrix of the orthonormal DCT of n samples, and the usual spread of the coefficients of an n x n image."""
    k = np.arange(n)
    cosines = np.sqrt(2 / n) * np.cos(np.pi / (2 * n) * np.outer(k, 2 * k + 1))
    cosines[0] = np.sqrt(1 / n)
    return cosines.astype(np.float32), (4 * (1 + k[:, None] ** 2 + k**2) ** -0.75).astype(np.float32)
