"""The denoising task: losses without truth estimate the error, and the network is told the noise that there is."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from emjax.training.tasks import Denoise

SIGMA = 0.1
GREYS = np.random.default_rng(0).random((4, 1, 1))
IMAGES = np.broadcast_to(GREYS, (4, 128, 128)).astype(np.float32)


def mean(v: Array, sigma: Array) -> Array:
    """The mean of 16 pixels, each itself among them: a sixteenth of the variance."""
    assert sigma.shape == v.shape[:1]
    blocks = jnp.mean(v.reshape(-1, 32, 4, 32, 4), (2, 4), keepdims=True)
    return jnp.broadcast_to(blocks, (len(v), 32, 4, 32, 4)).reshape(v.shape)


def nothing(v: Array, sigma: Array) -> Array:
    return v


@pytest.mark.parametrize(
    ("name", "of_mean", "of_nothing"),
    [
        ("mse", 1 / 16, 1.0),
        ("sure", 1 / 16, 1.0),
        # The noise of the hidden pixel counts, too.
        ("noise2void", 1 + 1 / 16, 2.0),
    ],
)
def test_losses_without_truth_are_the_error_or_more_by_a_constant(name: str, of_mean: float, of_nothing: float) -> None:
    task = Denoise(sigma=(SIGMA, SIGMA), loss_name=name)
    both = jax.jit(lambda images, key: [task.loss(f, images, key, jnp.zeros(()))[0] for f in (mean, nothing)])
    found = np.asarray(both(IMAGES, jax.random.key(0))) / SIGMA**2
    np.testing.assert_allclose(found, [of_mean, of_nothing], rtol=0.05, atol=0.02)


def test_the_noise_level_is_drawn_from_its_range_and_told() -> None:
    found = []

    def network(v: Array, sigma: Array) -> Array:
        found.append((np.asarray(v), np.asarray(sigma)))
        return v

    task = Denoise(sigma=(0.05, 0.2))
    task.loss(network, np.full((64, 32, 32), 0.5, np.float32), jax.random.key(0), jnp.zeros(()))
    scores = task.evaluate(network, IMAGES, jax.random.key(0))
    (noisy, sigma), (held_out, middle) = found
    assert 0.05 <= sigma.min() < 0.07 and 0.18 < sigma.max() <= 0.2
    np.testing.assert_allclose(noisy.std((1, 2)), sigma, rtol=0.15)
    np.testing.assert_allclose(middle, 0.125, rtol=1e-6)
    np.testing.assert_allclose((held_out - IMAGES).std(), 0.125, rtol=0.05)
    assert float(scores["psnr"]) == float(scores["psnr_noisy"])
