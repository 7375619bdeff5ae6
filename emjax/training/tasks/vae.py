"""A variational auto-encoder as a prior for recovery: the evidence lower bound, in nats a pixel, and a standard prior.

    loss = E_q(z|x) [ sum_i r_i^2 / (2 sigma_i^2) + log sigma_i ] / n + beta KL(q(z|x) | N(0, 1)) / n
           + aggregate KL(N(m, S) | N(0, 1)) / k

for n pixels and k latents, r = x - G(z), or its DCT where sigma is a spectrum. `beta` rises to its value over the first
part of the training: the latents are given a meaning before they are made to pay for it. The constant n log(2 pi) / 2
is left out.

m and S are the mean and the covariance of all z of a batch. Where the bound is best they are 0 and 1, but it hardly
minds if they are not: a grey level with half of its spread costs a thousandth of a nat a pixel. A recovery from few
measurements rests on the prior, and without this term its error was twice as large.

Source: Kingma and Welling 2014; moments of all latents: Zhao, Song, Ermon 2019.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from emjax.metrics import psnr
from emjax.training.tasks.base import Task

# Of the recoveries in the validation.
STEPS, MEASUREMENTS = 200, 0.05


@dataclasses.dataclass(frozen=True)
class Generate(Task):
    """`beta`: of the divergence at the end, 1 for the evidence bound. `warm_up`: the share of the steps over which it
    rises from 0. `aggregate`: the weight of the divergence of all z of a batch together, which has more patches than
    latents. `zoom`: half of the patches are magnified by up to that factor, for images with smaller pixels; 1: none.
    """

    beta: float = 1.0
    warm_up: float = 0.2
    aggregate: float = 0.3
    zoom: float = 1.0

    def check(self) -> None:
        for name in ("beta", "aggregate"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"task.{name} is a number, 0 or above, got {getattr(self, name)}")
        if not 0 <= self.warm_up <= 1:
            raise ValueError(f"task.warm_up is a share of the steps, from 0 to 1, got {self.warm_up}")
        if not 1 <= self.zoom <= 4:
            raise ValueError(f"task.zoom is a factor from 1 to 4, got {self.zoom}")

    def refuses(self, network: Any) -> str | None:
        return None if hasattr(network, "encode") else 'variational auto-encoders, kind = "vae"'

    def loss(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, progress: Array, **arrays: Array
    ) -> tuple[Array, dict[str, Array]]:
        zoom_key, latent_key = jax.random.split(key)
        if self.zoom > 1:
            images = magnify(zoom_key, images, self.zoom)
        mean, log_variance = network.encode(images)
        z = mean + jnp.exp(log_variance / 2) * jax.random.normal(latent_key, mean.shape, mean.dtype)
        rest = images - network.decode(z)
        divergence = jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, -1).mean() / 2
        beta = self.beta * jnp.clip(progress / self.warm_up, 0, 1) if self.warm_up else self.beta
        loss = jnp.mean(network.surprise(rest)) + beta * divergence / (images.shape[-2] * images.shape[-1])
        aggregate = gaussian_divergence(z)
        sigma = jnp.sqrt(jnp.mean(network.sigma**2))
        parts = {"error": jnp.mean(rest**2), "divergence": divergence, "aggregate": aggregate, "sigma": sigma}
        return loss + self.aggregate * aggregate, parts

    def evaluate(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, **arrays: Array
    ) -> dict[str, Array]:
        """`psnr` of the recovery from a twentieth as many Gaussian measurements as pixels; `psnr_encoder` of images
        through encoder and decoder; `psnr_floor` with the latent optimised on the image itself, the least error that
        any recovery with this decoder can have."""
        from emjax.operators import Dense, Identity
        from emjax.reconstructors import Generative

        shape = images.shape[1:]
        mean, _ = network.encode(images)
        best = Generative(network, weight=0.0, steps=STEPS, starts=mean[:, None])
        count = max(1, round(MEASUREMENTS * shape[0] * shape[1]))
        A = Dense(jax.random.normal(key, (count, shape[0] * shape[1])) / count**0.5, shape)
        found = Generative(network, restarts=1, steps=STEPS)(A(images), A)
        return {
            "psnr": psnr(found, images).mean(),
            "psnr_encoder": psnr(network.decode(mean), images).mean(),
            "psnr_floor": psnr(best(images, Identity(shape)), images).mean(),
        }


def gaussian_divergence(z: Float[Array, "batch latent"]) -> Array:
    """The divergence of the normal distribution with the moments of `z` from N(0, 1), a latent."""
    mean, covariance = jnp.mean(z, 0), jnp.atleast_2d(jnp.cov(z.T, ddof=0))
    # Not by a determinant, which underflows; a batch of fewer patches than latents has no inverse.
    covariance += 1e-4 * jnp.eye(covariance.shape[0], dtype=z.dtype)
    root = jnp.linalg.cholesky(covariance)
    return (jnp.mean(jnp.diagonal(covariance)) + jnp.mean(mean**2) - 2 * jnp.mean(jnp.log(jnp.diagonal(root))) - 1) / 2


def magnify(key: Array, images: Float[Array, "batch h w"], most: float) -> Float[Array, "batch h w"]:
    """Half of the images magnified about their centre, by factors from 1 to `most`."""

    def one(key: Array, image: Array) -> Array:
        scale = jnp.maximum(1, jax.random.uniform(key, minval=2 - most, maxval=most))
        size = jnp.array(image.shape, image.dtype)
        shift = (1 - scale) * size / 2
        scaled = jax.image.scale_and_translate(
            image, image.shape, (0, 1), jnp.full(2, scale), shift, method="cubic", antialias=False
        )
        return jnp.where(scale > 1, scaled, image)

    return jax.vmap(one)(jax.random.split(key, images.shape[0]), images)
