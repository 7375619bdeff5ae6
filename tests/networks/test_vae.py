"""The variational auto-encoder, and the task that trains it."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from scipy.fft import dctn, idctn

from emjax import zoo
from emjax.networks import VAE, build
from emjax.operators import Identity
from emjax.training.recipe import load_recipe
from emjax.training.tasks import TASKS
from emjax.training.tasks.vae import gaussian_divergence, magnify

SMALL = {"side": 8, "latent": 3, "width": 6, "encoder": 5}


@pytest.fixture(scope="module")
def vae() -> Any:
    return build("vae", SMALL, 0)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def dense(layer: nnx.Linear, x: np.ndarray) -> np.ndarray:
    assert layer.bias is not None
    return x @ np.asarray(layer.kernel[...], np.float64) + np.asarray(layer.bias[...], np.float64)


def test_the_decoder_and_the_encoder_are_those_of_numpy(vae: Any) -> None:
    rng = np.random.default_rng(0)
    z, x = rng.standard_normal((2, 4, 3)), rng.random((2, 4, 8, 8))
    h = silu(dense(vae.hidden[1], silu(dense(vae.hidden[0], z))))
    k = np.arange(8)
    spread = 4 / (1 + k[:, None] ** 2 + k**2) ** 0.75
    table = (dense(vae.linear, z) + dense(vae.correction, h)).reshape(2, 4, 8, 8) * spread
    image = idctn(table, axes=(-2, -1), norm="ortho") + 0.5
    np.testing.assert_allclose(vae.decode(jnp.asarray(z, jnp.float32)), image, atol=1e-5)
    flat = (dctn(x - 0.5, axes=(-2, -1), norm="ortho") / spread).reshape(2, 4, 64)
    h = silu(dense(vae.encoding[1], silu(dense(vae.encoding[0], flat))))
    moments = dense(vae.moments, h)
    mean, log_variance = vae.encode(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(mean, moments[..., :3] + dense(vae.means, flat), atol=1e-5)
    np.testing.assert_allclose(log_variance, moments[..., 3:] - 2, atol=1e-5)


def test_sizes_and_limits(vae: Any) -> None:
    network = load_recipe("csgm-vae").network
    shipped = build(network.pop("kind"), network)
    assert shipped.parameter_count() == 592_768  # 1.2 MB in float16
    assert vae.settings == {**SMALL, "spectrum": False}
    with pytest.raises(ValueError, match="latent is 1 or more, got 0"):
        VAE(latent=0, rngs=nnx.Rngs(0))
    with pytest.raises(TypeError, match=r"reconstructors\.Generative\(network\) does"):
        vae(jnp.zeros((8, 8)), Identity((8, 8)))
    assert vae.supports(Identity((8, 8))) is None
    assert "8 x 8 pixels" in (vae.supports(Identity((8, 9))) or "")


def test_it_learns(vae: Any) -> None:
    """Images of two numbers: the bound rises, its parts add up, and the floor is below the encoder's error."""
    task = TASKS["vae"].from_recipe({"warm_up": 0.5}, None)
    rng = np.random.default_rng(1)
    basis = rng.standard_normal((2, 8, 8)) / 8
    images = jnp.asarray(0.5 + np.tensordot(rng.standard_normal((64, 2)), basis, 1), jnp.float32)
    graph, state = nnx.split(vae)

    def step(state: Any, t: jax.Array) -> Any:
        def loss(s: Any) -> Any:
            return task.loss(nnx.merge(graph, s), images, jax.random.fold_in(jax.random.key(0), t), t / 150)

        (value, parts), gradient = jax.value_and_grad(loss, has_aux=True)(state)
        return jax.tree.map(lambda p, g: p - 0.05 * g / (1 + jnp.linalg.norm(g)), state, gradient), (value, parts)

    state, (values, parts) = jax.jit(lambda s: jax.lax.scan(step, s, jnp.arange(150)))(state)
    divergence = parts["divergence"] / 64 + 0.3 * parts["aggregate"]
    likelihood = parts["error"] / (2 * parts["sigma"] ** 2) + jnp.log(parts["sigma"])
    np.testing.assert_allclose(values[-1], (likelihood + divergence)[-1], rtol=1e-4)  # beta is 1 by now
    assert values[-1] < values[0] - 0.1
    found = jax.jit(lambda s: task.evaluate(nnx.merge(graph, s), images, jax.random.key(1)))(state)
    assert set(found) == {"psnr", "psnr_encoder", "psnr_floor"}
    assert found["psnr_floor"] >= found["psnr_encoder"] - 0.01 > 15


def test_the_surprise_of_a_spectrum_is_a_normal_density() -> None:
    network = build("vae", {**SMALL, "spectrum": True}, 0)
    network.log_sigma[...] = jnp.asarray(np.random.default_rng(0).normal(-1, 0.5, (8, 8)), jnp.float32)
    rest = np.random.default_rng(1).standard_normal((3, 8, 8)).astype(np.float32)
    D = np.asarray(network.deviation(), np.float64)
    flat = rest.reshape(3, 64)
    expected = np.sum(flat * np.linalg.solve(D, flat.T).T, 1) / 2 + np.linalg.slogdet(D)[1] / 2
    np.testing.assert_allclose(network.surprise(jnp.asarray(rest)), expected / 64, rtol=1e-4)


def test_settings_of_the_task() -> None:
    for table, word in (
        ({"beta": -1.0}, "task.beta"),
        ({"warm_up": 2.0}, "task.warm_up"),
        ({"aggregate": -1}, "task.aggregate"),
        ({"zoom": 0.5}, "task.zoom"),
        ({"gamma": 1}, "gamma"),
    ):
        with pytest.raises(ValueError, match=word):
            TASKS["vae"].from_recipe(table, None)


def test_the_divergence_of_all_latents() -> None:
    z = np.random.default_rng(0).standard_normal((500, 3)) @ np.diag([1.0, 2.0, 0.5]) + [0.0, 0.3, 0.0]
    covariance, mean = np.cov(z.T, ddof=0), z.mean(0)
    expected = (np.trace(covariance) + mean @ mean - np.linalg.slogdet(covariance)[1] - 3) / 6
    np.testing.assert_allclose(gaussian_divergence(jnp.asarray(z, jnp.float32)), expected, rtol=1e-2)


def test_magnified_about_the_centre() -> None:
    ramp = jnp.broadcast_to(jnp.linspace(-1, 1, 9), (64, 9, 9))
    found = np.asarray(magnify(jax.random.key(0), ramp, 2.0))
    np.testing.assert_allclose(found[:, :, 4], 0, atol=1e-5)
    slopes = found[:, 4, 5] - found[:, 4, 4]
    assert 0.3 < np.mean(slopes > 0.2499) < 0.7 and slopes.min() >= 0.12 and slopes.max() <= 0.2501


def test_the_zoo_keeps_it(vae: Any, tmp_path: Path) -> None:
    assert zoo.save(tmp_path / "mine", vae, card="# mine\n").reconstructor == "Generative"
    again: Any = zoo.read(tmp_path / "mine")
    z = jnp.ones(3)
    np.testing.assert_allclose(again.decode(z), vae.decode(z), atol=2e-3)
