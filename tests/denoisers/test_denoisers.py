"""Denoisers: what they compute, against other implementations; batches, derivatives, and values out of the ordinary."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from skimage.restoration import denoise_nl_means

from emjax import TV, LeastSquares, Problem
from emjax.acquisition import phantom
from emjax.denoisers import NonLocalMeans, TVDenoiser, WaveletDenoiser
from emjax.metrics import psnr
from emjax.operators import PixelSampling
from emjax.reconstructors import AMP
from emjax.solvers import HQS

RNG = np.random.default_rng(3)
SHAPE = (14, 11)
V = RNG.random(SHAPE).astype("f4")
DENOISERS: dict[str, Any] = {
    "non-local means": NonLocalMeans(0.8, 1, 2),
    "total variation": TVDenoiser(),
    "wavelets": WaveletDenoiser(name="db2"),
    "hard wavelets": WaveletDenoiser(3.0, True, name="db2"),
}
every = pytest.mark.parametrize("eta", DENOISERS.values(), ids=DENOISERS)


def plain_means(v: np.ndarray, sigma: float, h: float, r: int, s: int) -> np.ndarray:
    """Non-local means, pixel by pixel."""
    g = np.exp(-0.5 * (np.arange(-r, r + 1) / (0.5 * r)) ** 2)
    g = np.outer(g, g) / g.sum() ** 2
    padded, out = np.pad(v, r, mode="reflect"), np.zeros_like(v)
    size = 2 * r + 1
    for i, j in np.ndindex(*v.shape):
        total = weight = 0.0
        for a in range(max(0, i - s), min(v.shape[0], i + s + 1)):
            for b in range(max(0, j - s), min(v.shape[1], j + s + 1)):
                d = np.sum(g * (padded[i : i + size, j : j + size] - padded[a : a + size, b : b + size]) ** 2)
                w = np.exp(-max(d - 2 * sigma**2, 0) / h**2)
                total, weight = total + w * v[a, b], weight + w
        out[i, j] = total / weight
    return out


def test_non_local_means_are_those_of_a_plain_loop_and_of_another_library() -> None:
    eta = NonLocalMeans(0.8, 1, 2)
    for k in range(20):
        v = np.random.default_rng(k).random(SHAPE)
        sigma = (0.1, 0.3)[k % 2]
        found = eta(v.astype("f4"), sigma)
        np.testing.assert_allclose(found, plain_means(v, sigma, 0.8 * sigma, 1, 2), atol=5e-6)
        # That library rounds its exponentials to about a hundredth, and leaves out weights below exp(-5).
        theirs = denoise_nl_means(v, 3, 2, h=0.8 * sigma, sigma=sigma, fast_mode=False)
        np.testing.assert_allclose(found, theirs, atol=1e-2)


def test_total_variation_is_the_certified_minimum() -> None:
    x = TVDenoiser(0.8, gap=1e-5, max_steps=5000)(V, 0.2)
    objective = Problem(LeastSquares(PixelSampling(np.ones(SHAPE, "f4")), V), TV(0.16)).objective
    best = float(objective(x))
    for direction in RNG.standard_normal((20, *SHAPE)):  # a convex minimum is lowest in every direction
        assert float(objective(x + 1e-2 * direction.astype("f4"))) > best
    assert float(objective(x)) < float(objective(jnp.asarray(V)))


@every
def test_noise_is_taken_off(eta: Any) -> None:
    image = jnp.asarray(phantom((48, 48), 1).image)
    v = image + 0.1 * jax.random.normal(jax.random.key(0), image.shape)
    assert float(psnr(eta(v, 0.1), image)) > float(psnr(v, image)) + 2.5


@every
def test_a_batch_is_its_items(eta: Any) -> None:
    vs, sigmas = jnp.stack([V, 2 * V, V[::-1]]), jnp.asarray([0.1, 0.3, 0.2])
    batch = eta(vs, sigmas)
    shared = jax.jit(jax.vmap(lambda v: eta(v, jnp.float32(0.1))))(vs[:, None])[:, 0]
    assert batch.dtype == jnp.float32
    for i in range(3):
        np.testing.assert_allclose(batch[i], eta(vs[i], sigmas[i]), atol=1e-5)
    np.testing.assert_allclose(shared[0], batch[0], atol=1e-5)
    np.testing.assert_allclose(eta(V, sigmas)[1], eta(V, 0.3), atol=1e-5)


@every
def test_noise_of_zero_and_infinity(eta: Any) -> None:
    np.testing.assert_allclose(eta(V, 0.0), V, atol=1e-5)
    assert bool(jnp.isfinite(eta(V, jnp.inf)).all())
    assert bool(jnp.isnan(eta(V, jnp.nan)).any())
    assert bool(jnp.isnan(eta(jnp.asarray(V).at[3, 3].set(jnp.nan), 0.1)[3, 3]))
    np.testing.assert_allclose(eta(jnp.full(SHAPE, 7.0), 0.1), 7, rtol=1e-5)
    if isinstance(eta, TVDenoiser):
        np.testing.assert_allclose(eta(V, jnp.inf), V.mean(), rtol=1e-5)


@pytest.mark.parametrize("eta", [NonLocalMeans(0.8, 1, 2), TVDenoiser(steps=20), WaveletDenoiser(name="db2")])
def test_derivatives(eta: Any) -> None:
    with jax.enable_x64(True):
        v, direction = jnp.asarray(V, float), jnp.asarray(RNG.standard_normal(SHAPE))

        def loss(t: Any) -> Any:
            return jnp.sum(eta(v + t * direction, 0.2) ** 2)

        slope = jax.jit(jax.grad(loss))(0.0)
        np.testing.assert_allclose(slope, (loss(1e-6) - loss(-1e-6)) / 2e-6, rtol=1e-4)


def test_bad_arguments_are_refused() -> None:
    for make in (lambda: NonLocalMeans(-1.0), lambda: TVDenoiser(-1.0), lambda: WaveletDenoiser(-1.0)):
        with pytest.raises(ValueError, match="0 or more"):
            make()
    with pytest.raises(ValueError, match="patch_radius is a whole number"):
        NonLocalMeans(patch_radius=1.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="items with 2 axes"):
        NonLocalMeans()(V[0], 0.1)
    with pytest.raises(ValueError, match="one for each item"):
        NonLocalMeans()(jnp.stack([V, V]), jnp.ones(3))
    with pytest.raises(ValueError, match="complex"):
        NonLocalMeans()(V + 1j, 0.1)


def test_other_dimensions_and_users() -> None:
    assert NonLocalMeans(0.8, 1, 1, ndim=3)(jnp.ones((4, 5, 6)), 0.1).shape == (4, 5, 6)
    np.testing.assert_allclose(NonLocalMeans()(jnp.ones((1, 1)), 0.1), 1)
    eta = DENOISERS["non-local means"]
    assert AMP(eta).denoiser is eta and HQS(eta).denoiser is eta
