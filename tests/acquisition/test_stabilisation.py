"""Stabilised variance: close to one, its inverse unbiased against sums and integrals by SciPy, and recoveries by it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm, poisson

import emjax
from emjax import Noise
from emjax.acquisition import asymptotic_inverse, measure, phantom, stabilise, unbiased_inverse
from emjax.denoisers import TVDenoiser
from emjax.metrics import psnr
from emjax.operators import Blur, PixelSampling, gaussian_kernel
from emjax.reconstructors import Stabilised

MEANS = np.array([0.01, 0.03, 0.1, 0.5, 1.0, 3.0, 10.0, 40.0, 140.0, 160.0, 1000.0])


def mean_of_f(mean: float, s: float) -> float:
    """`E[f(z)]` in float64 by SciPy's probabilities: counts summed, the read-out integrated on a fine grid."""
    k = np.arange(int(mean + 12 * mean**0.5 + 40))
    p = poisson.pmf(k, mean)
    if s == 0:
        return float(np.sum(p * 2 * np.sqrt(k + 0.375)))
    n = np.linspace(-9, 9, 4001)
    root = 2 * np.sqrt(np.maximum(k[p > 1e-13, None] + 0.375 + s * s + s * n, 0))
    return float(np.sum(p[p > 1e-13] * (root @ norm.pdf(n)) * (n[1] - n[0]))) - 2 * s


@pytest.mark.parametrize("s", [0.0, 0.1, 1.0, 5.0])
def test_the_inverse_is_unbiased(s: float) -> None:
    """To 3e-4 electrons, from 0.01 expected electrons to a thousand, in float32."""
    gain = 0.02
    d = jnp.asarray([mean_of_f(m, s) for m in MEANS], jnp.float32)
    found = unbiased_inverse(d, Noise(gain, s * gain)) / gain
    np.testing.assert_allclose(found, MEANS, atol=3e-4, rtol=2e-6)
    many = MEANS >= 100
    np.testing.assert_allclose(asymptotic_inverse(d, Noise(gain, s * gain))[many] / gain, MEANS[many], atol=3e-3)
    if s == 0:  # and biased for few
        assert float(asymptotic_inverse(d[:1], Noise(gain, 0.0))[0]) / gain > 0.2


@pytest.mark.parametrize("s", [0.0, 2.0])
def test_the_variance_is_one(s: float) -> None:
    noise, key = Noise(0.1, 0.1 * s), jax.random.key(0)
    x = 0.1 * jnp.asarray([4.0, 10.0, 100.0])[:, None] * jnp.ones((3, 20_000))
    t = stabilise(measure(key, x, PixelSampling(jnp.ones(x.shape)), noise), noise)
    np.testing.assert_allclose(t.std(1), 1, atol=0.04)


def test_levels_of_any_kind() -> None:
    y = jnp.asarray([-1.0, 0.0, 0.3, 2.0])
    np.testing.assert_allclose(stabilise(y, Noise(0.0, 0.5)), y / 0.5)
    np.testing.assert_allclose(unbiased_inverse(y / 0.5, Noise(0.0, 0.5)), y, atol=1e-6)
    np.testing.assert_allclose(stabilise(y, Noise(1e-6, 0.5)), y / 0.5, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(unbiased_inverse(y / 0.5, Noise(1e-6, 0.5))[2:], y[2:], rtol=1e-3)
    np.testing.assert_allclose(stabilise(y[1:], Noise(1.0)), 2 * np.sqrt(np.asarray(y[1:]) + 0.375), rtol=1e-6)
    np.testing.assert_allclose(stabilise(jnp.asarray([-2.0, -0.375]), Noise(1.0)), 0, atol=1e-3)  # no counts
    assert float(unbiased_inverse(jnp.asarray(0.1), Noise(1.0))) == 0  # below the mean of no electron at all
    # What the constructor refuses may still come traced.
    both = jax.jit(lambda *levels: (stabilise(y, Noise(*levels)), unbiased_inverse(y, Noise(*levels))))
    for gain, sigma in ((0.0, 0.0), (jnp.inf, 0.1), (0.1, jnp.inf), (jnp.nan, 0.1), (-1.0, 0.1), (0.1, -1.0)):
        assert all(bool(jnp.isnan(z).all()) for z in both(gain, sigma))
    assert bool(jnp.isnan(unbiased_inverse(jnp.asarray([jnp.nan, 3.0]), Noise(1.0))[0]))


def test_batches_and_derivatives() -> None:
    d, gains = jnp.linspace(2, 8, 6).reshape(2, 3), jnp.asarray([0.1, 0.0])
    batch = jax.jit(unbiased_inverse)(d, Noise(gains, 0.1))
    for i in range(2):
        np.testing.assert_allclose(batch[i], unbiased_inverse(d[i], Noise(gains[i], 0.1)), rtol=1e-6)
        np.testing.assert_allclose(stabilise(d, Noise(gains, 0.1))[i], stabilise(d[i], Noise(gains[i], 0.1)), rtol=1e-6)
    slope = jax.grad(lambda t: unbiased_inverse(t, Noise(0.1, 0.1)).sum())(d)
    assert bool((slope > 0).all())


def test_a_dose_limited_scan_is_recovered() -> None:
    image, noise = jnp.asarray(phantom((64, 64), 5).image), Noise.from_dose(10.0, 0.02)
    full = PixelSampling(jnp.ones(image.shape))
    y = measure(jax.random.key(2), image, full, noise)
    known = Stabilised(TVDenoiser())(y, full, noise)
    assert float(psnr(known, image)) > float(psnr(y, image)) + 5
    assert abs(float(known.mean() - image.mean())) < 0.01
    batch = Stabilised(TVDenoiser(), noise)(jnp.stack([y, y[::-1]]), full)
    np.testing.assert_allclose(batch[0], known, atol=1e-5)


@pytest.mark.slow
def test_the_noise_of_a_sparse_scan_is_estimated() -> None:
    image, noise = jnp.asarray(phantom((64, 64), 5).image), Noise.from_dose(10.0, 0.02)
    y = measure(jax.random.key(2), image, PixelSampling(jnp.ones(image.shape)), noise)
    sparse = PixelSampling(jax.random.uniform(jax.random.key(1), image.shape) < 0.5)
    assert bool(jnp.isnan(Stabilised(TVDenoiser(), noise)(y, sparse)).all())
    recon = Stabilised(emjax.load("spectral")).fit(jnp.where(sparse.mask > 0, y, jnp.nan), sparse)
    assert float(psnr(recon(y, sparse), image)) > 18 and recon.inner.weight.shape == ()


def test_what_cannot_be_stabilised_is_refused() -> None:
    y = jnp.ones((8, 8))
    with pytest.raises(ValueError, match="soft weights"):
        Stabilised(TVDenoiser())(y, PixelSampling(0.5 * y), Noise(0.1))
    with pytest.raises(ValueError, match="only single pixels"):
        Stabilised(TVDenoiser())(y, Blur(gaussian_kernel(1.0, radius=1), (8, 8)), Noise(0.1))
    with pytest.raises(TypeError, match="a reconstructor or a denoiser"):
        Stabilised(None)
    with pytest.raises(ValueError, match="give it"):
        Stabilised(TVDenoiser(ndim=1))(y[0], PixelSampling(y[0], 1))
    soft = jax.jit(lambda m: Stabilised(TVDenoiser())(y, PixelSampling(m), Noise(0.1)))(0.5 * y)
    assert bool(jnp.isnan(soft).all())
