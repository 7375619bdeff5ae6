"""A variational auto-encoder as a prior for recovery: the evidence lower bound, in nats a pixel, and what it is for.

    loss = E_q(z|x) [ |x - G(z)|^2 / (2 sigma^2) + n log sigma ] / n + beta KL(q(z|x) | N(0, 1)) / n
           + aggregate KL(N(m, S) | N(0, 1)) / k + recovery log(|x - G(z_T)|^2 / n) / 2

for n pixels and k latents. `beta` rises to its value over the first part of the training: the latents are given a
meaning before they are made to pay for it. The constant n log(2 pi) / 2 is left out.

m and S are the mean and the covariance of the z of a batch. Where the bound is best they are 0 and 1, but it hardly
minds if they are not: a grey level with half of its spread costs a thousandth of a nat a pixel. A recovery from few
measurements rests on the prior, and its error was twice as large.

The bound also makes a decoder good around the latents of whole images. Few measurements tell little of most latents;
their estimates lie near 0, in between all images, where such a decoder was never trained. So z_T is what T steps of
recovery make of random Gaussian measurements y = A x, with B = A L for the linear part L of the decoder (it costs three
times the rest; `recovery` = 0 leaves it out):

    z' = z + (B.T B + w)^-1 (B.T (y - A G(z)) - w z),        w = n sigma^2 / m,     z_0 = 0

Source: Kingma and Welling 2014; a decoder trained through its recovery: Wu, Rosca, Lillicrap 2019.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, PRNGKeyArray

from emjax.metrics import psnr
from emjax.training.tasks.base import Task

FLOOR_STEPS = 200
MEASURED = 50  # in the validation


@dataclasses.dataclass(frozen=True)
class Generate(Task):
    """`beta`: of the divergence at the end, 1 for the evidence bound. `warm_up`: the share of the steps over which it
    rises from 0. `aggregate`: the weight of the divergence of all z of a batch together, which has more patches than
    latents. `recovery`: the weight of the recovery's error; 0: the bound alone. `counts`: the range of its numbers
    of measurements, drawn evenly on a logarithmic scale, one for a batch. `recovery_steps`: T. `zoom`: half of the
    patches are magnified by up to that factor, for images with smaller pixels; 1: none.
    """

    beta: float = 1.0
    warm_up: float = 0.2
    aggregate: float = 0.3
    recovery: float = 0.0
    counts: tuple[int, int] = (16, 200)
    recovery_steps: int = 2
    zoom: float = 1.0

    def check(self) -> None:
        for name in ("beta", "aggregate", "recovery"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"task.{name} is a number, 0 or above, got {getattr(self, name)}")
        if not 0 <= self.warm_up <= 1:
            raise ValueError(f"task.warm_up is a share of the steps, from 0 to 1, got {self.warm_up}")
        if not 1 <= self.counts[0] <= self.counts[1]:
            raise ValueError(f"task.counts is [fewest, most] measurements, 1 or more, got {list(self.counts)}")
        if self.recovery_steps < 1:
            raise ValueError(f"task.recovery_steps is a whole number above 0, got {self.recovery_steps}")
        if not 1 <= self.zoom <= 4:
            raise ValueError(f"task.zoom is a factor from 1 to 4, got {self.zoom}")

    def loss(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, progress: Array, **arrays: Array
    ) -> tuple[Array, dict[str, Array]]:
        zoom_key, latent_key, count_key, matrix_key = jax.random.split(key, 4)
        if self.zoom > 1:
            images = magnify(zoom_key, images, self.zoom)
        beta = self.beta * jnp.clip(progress / self.warm_up, 0, 1) if self.warm_up else self.beta
        loss, parts = self._bound(network, images, latent_key, beta)
        z = parts.pop("z")
        if self.aggregate:
            parts["aggregate"] = gaussian_divergence(z)
            loss += self.aggregate * parts["aggregate"]
        if self.recovery:
            low, high = (jnp.log(float(c)) for c in self.counts)
            count = jnp.exp(jax.random.uniform(count_key, minval=low, maxval=high))
            error = self._recovery_error(network, images, matrix_key, count, self.counts[1])
            loss += self.recovery * jnp.log(error) / 2
            parts["recovery_error"] = error
        return loss, parts

    def evaluate(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, **arrays: Array
    ) -> dict[str, Array]:
        """`psnr` of the recovery of 50 Gaussian measurements by the steps of the training, `psnr_encoder` of images
        through encoder and decoder, `psnr_floor` with the latent optimised on the image itself (the least error that
        any recovery with this decoder can have), and the bound as `elbo`."""
        from emjax.operators import Identity
        from emjax.reconstructors import Generative

        mean, _ = network.encode(images)
        best = Generative(network, weight=0.0, steps=FLOOR_STEPS, starts=mean[:, None])
        floor = best(images, Identity(images.shape[1:]))
        recovered = self._recovery_error(network, images, key, jnp.asarray(float(MEASURED)), MEASURED)
        return {
            "psnr": -10 * jnp.log10(recovered),
            "psnr_encoder": psnr(network.decode(mean), images).mean(),
            "psnr_floor": psnr(floor, images).mean(),
            "elbo": -self._bound(network, images, key, self.beta)[0],
        }

    def _bound(self, network: Any, images: Array, key: Array, beta: Any) -> tuple[Array, dict[str, Array]]:
        mean, log_variance = network.encode(images)
        z = mean + jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape, mean.dtype)
        error = jnp.mean((network.decode(z) - images) ** 2)
        divergence = jnp.sum(mean**2 + jnp.exp(log_variance) - 1 - log_variance, -1).mean() / 2
        likelihood = error / (2 * network.sigma**2) + jnp.log(network.sigma)
        loss = likelihood + beta * divergence / (images.shape[-2] * images.shape[-1])
        return loss, {"error": error, "divergence": divergence, "sigma": network.sigma, "z": z}

    def _recovery_error(self, network: Any, images: Array, key: Array, count: Array, most: int) -> Array:
        """The mean squared error of `recovery_steps` steps from `count` of `most` rows, the same for all images."""
        n = images.shape[-2] * images.shape[-1]
        rows = (jnp.arange(most) < count)[:, None] / jnp.sqrt(count)
        A = rows * jax.random.normal(key, (most, n), images.dtype)
        # How the steps go is not trained, only where they lead.
        B = A @ lax.stop_gradient(network.linear_part()).reshape(-1, n).T
        weight = lax.stop_gradient(network.sigma) ** 2 * n / count
        inverse = jnp.linalg.inv(B.T @ B + weight * jnp.eye(B.shape[1], dtype=B.dtype))
        z = jnp.zeros((images.shape[0], B.shape[1]), images.dtype)
        for _ in range(self.recovery_steps):
            residual = (images - network.decode(z)).reshape(-1, n) @ A.T
            z = z + (residual @ B - weight * z) @ inverse
        return jnp.mean((network.decode(z) - images) ** 2)


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
