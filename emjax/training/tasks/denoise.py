"""Denoising of full images: `network(y, sigma) -> x` for y = x + sigma n, with and without a ground truth."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from emjax.metrics import psnr
from emjax.training import losses
from emjax.training.tasks.base import Task, arguments

BLIND = ("noise2void", "sure")


@dataclasses.dataclass(frozen=True)
class Denoise(Task):
    """`sigma`: the range of noise levels, one is drawn for each patch; validation stands in its middle.

    `loss_name`: a name in `emjax.training.losses.LOSSES`, or "noise2void" or "sure", which never see the truth.
    """

    sigma: tuple[float, float] = (0.0, 0.2)
    loss_name: str = "charbonnier"

    def check(self) -> None:
        low, high = self.sigma
        if not 0 <= low <= high < float("inf"):
            raise ValueError(f"task.sigma is [lowest, highest] noise level, 0 or above, got {list(self.sigma)}")
        if self.loss_name not in (*losses.LOSSES, *BLIND):
            there = ", ".join((*losses.LOSSES, *BLIND))
            raise ValueError(f"task.loss_name is one of {there}; got {self.loss_name!r}")

    def refuses(self, network: Any) -> str | None:
        return 'denoisers such as kind = "dncnn"' if "A" in arguments(network) else None

    def loss(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, progress: Array, **arrays: Array
    ) -> tuple[Array, dict[str, Array]]:
        level, noise, probe = jax.random.split(key, 3)
        sigma = jax.random.uniform(level, images.shape[:1], minval=self.sigma[0], maxval=self.sigma[1])
        y = images + sigma[:, None, None] * jax.random.normal(noise, images.shape)
        if self.loss_name == "noise2void":
            return losses.noise2void(lambda v: network(v, sigma), y, probe), {}
        if self.loss_name == "sure":
            return losses.sure(lambda v: network(v, sigma), y, sigma, probe), {}
        return losses.LOSSES[self.loss_name](network(y, sigma), images), {}

    def evaluate(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, **arrays: Array
    ) -> dict[str, Array]:
        sigma = jnp.full(images.shape[:1], sum(self.sigma) / 2)
        y = images + sigma[:, None, None] * jax.random.normal(key, images.shape)
        return {"psnr": psnr(network(y, sigma), images).mean(), "psnr_noisy": psnr(y, images).mean()}
