"""A variational auto-encoder: the evidence lower bound of patches, in nats a pixel.

    loss = E_q(z|x) [ |x - G(z)|^2 / (2 sigma^2) + n log sigma ] / n + beta KL(q(z|x) | N(0, 1)) / n

for n pixels. `beta` rises to its value over the first part of the training: the latents are given a meaning before they
are made to pay for it. The constant n log(2 pi) / 2 is left out.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from emjax.metrics import psnr
from emjax.training.tasks.base import Task

FLOOR_STEPS = 200


@dataclasses.dataclass(frozen=True)
class Generate(Task):
    """`beta`: of the divergence at the end, 1 for the evidence bound. `warm_up`: the share of the steps over which it
    rises from 0."""

    beta: float = 1.0
    warm_up: float = 0.2

    def check(self) -> None:
        if not 0 <= self.beta < float("inf"):
            raise ValueError(f"task.beta is a number, 0 or above, got {self.beta}")
        if not 0 <= self.warm_up <= 1:
            raise ValueError(f"task.warm_up is a share of the steps, from 0 to 1, got {self.warm_up}")

    def loss(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, progress: Array, **arrays: Array
    ) -> tuple[Array, dict[str, Array]]:
        mean, log_variance = network.encode(images)
        z = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape, mean.dtype)
        error = jnp.mean((network.decode(z) - images) ** 2)
        divergence = jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, -1).mean() / 2
        beta = self.beta * jnp.clip(progress / self.warm_up, 0, 1) if self.warm_up else self.beta
        likelihood = error / (2 * network.sigma**2) + jnp.log(network.sigma)
        loss = likelihood + beta * divergence / (images.shape[-2] * images.shape[-1])
        return loss, {"error": error, "divergence": divergence, "sigma": network.sigma}

    def evaluate(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, **arrays: Array
    ) -> dict[str, Array]:
        """`psnr` of images through encoder and decoder, `psnr_floor` with the latent optimised on the image itself
        (the least error that any recovery with this decoder can have), and the bound as `elbo`."""
        from emjax.operators import Identity
        from emjax.reconstructors import Generative

        mean, _ = network.encode(images)
        best = Generative(network, weight=0.0, steps=FLOOR_STEPS, starts=mean[:, None])
        floor = best(images, Identity(images.shape[1:]))
        return {
            "psnr": psnr(network.decode(mean), images).mean(),
            "psnr_floor": psnr(floor, images).mean(),
            "elbo": -self.loss(network, images, key, jnp.ones(()))[0],
        }
