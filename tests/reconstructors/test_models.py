"""The reconstructors solve the problems they say: TV and wavelets against `solve`, spectral against dense algebra."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft

import emjax
from emjax import LeastSquares, Noise, solve
from emjax.operators import Dense, PixelSampling, SubsampledDCT
from emjax.reconstructors import Spectral, WaveletL1
from emjax.reconstructors.base import grey_level

RNG = np.random.default_rng(4)


@pytest.fixture
def x64() -> Iterator[None]:
    before = jax.config.read("jax_enable_x64")
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", before)


def small_scan(dtype: str = "float32") -> tuple[jax.Array, PixelSampling]:
    mask = (RNG.random((16, 16)) < 0.4).astype(dtype)
    image = np.add.outer(np.sin(np.arange(16) / 3), np.cos(np.arange(16) / 4))
    return jnp.asarray((image + 0.1 * RNG.standard_normal((16, 16))) * mask, dtype), PixelSampling(jnp.asarray(mask))


def dense_posterior_mean(
    y: np.ndarray, mask: np.ndarray, weight: float, exponent: float, inverse_variance: np.ndarray | None = None
) -> np.ndarray:
    """`argmin |W^(1/2) (M x - y)|^2 + |d^(1/2) C (x - mean)|^2` by solving the normal equations.

    `d = weight f^p`, but no less than a ten-thousandth of the mean of `M^2`.
    """
    h, w = mask.shape
    C = np.kron(*(scipy.fft.dct(np.eye(n), axis=0, norm="ortho") for n in (h, w)))
    f = np.hypot(*np.meshgrid(np.arange(h) / (2 * h), np.arange(w) / (2 * w), indexing="ij"))
    f[0, 0] = 0.25 / max(h, w)
    m = mask.ravel()
    prior = C.T @ np.diag(np.maximum(weight * f.ravel() ** exponent, 1e-4 * np.mean(m * m))) @ C
    data = np.diag(m * m * (1 if inverse_variance is None else inverse_variance.ravel()))
    mean = (m * y.ravel()).sum() / (m * m).sum()
    right = data @ np.where(m > 0, y.ravel() / np.where(m > 0, m, 1), 0) + prior @ np.full(h * w, mean)
    return np.linalg.solve(data + prior, right).reshape(h, w)


@pytest.mark.parametrize(("weight", "exponent"), [(10.0, 3.0), (0.5, 2.0), (300.0, 4.0)])
def test_spectral_is_the_posterior_mean_of_its_field(x64: None, weight: float, exponent: float) -> None:
    y, A = small_scan("float64")
    want = dense_posterior_mean(np.asarray(y), np.asarray(A.mask), weight, exponent)
    x = Spectral(weight, exponent, gap=1e-13, max_steps=500)(y, A)
    assert x.dtype == jnp.float64
    np.testing.assert_allclose(x, want, atol=1e-6)


def test_spectral_with_soft_weights(x64: None) -> None:
    y, A = small_scan("float64")
    soft = PixelSampling(A.mask * (0.5 + RNG.random((16, 16))))
    want = dense_posterior_mean(np.asarray(y), np.asarray(soft.mask), 10.0, 3.0)
    np.testing.assert_allclose(Spectral(10.0, 3.0, gap=1e-13, max_steps=500)(y, soft), want, atol=1e-6)


def test_spectral_weighs_counting_noise(x64: None) -> None:
    y, A = small_scan("float64")
    y = A.measured(y + 2)  # electrons are counted upwards from zero
    noise, recon = Noise(gain=0.3, read_sigma=0.1), Spectral(10.0, 3.0, gap=1e-13, max_steps=500)
    first = np.asarray(recon(y, A))
    mask = np.asarray(A.mask)
    inverse = 1 / (0.3 * np.maximum(first, 0) + 0.01)
    inverse /= (inverse * mask).sum() / mask.sum()
    want = dense_posterior_mean(np.asarray(y), mask, 10.0, 3.0, inverse)
    np.testing.assert_allclose(recon(y, A, noise), want, atol=1e-6)
    assert np.abs(want - first).max() > 1e-3
    # Read-out noise alone is the same everywhere: there is nothing to weigh.
    np.testing.assert_allclose(recon(y, A, Noise(read_sigma=0.2)), first, atol=1e-6)


@pytest.mark.parametrize("isotropic", [True, False])
def test_tv_is_the_solution_of_its_problem(isotropic: bool) -> None:
    y, A = small_scan()
    recon = emjax.load("tv", weight=0.05, isotropic=isotropic, gap=1e-4)
    problem = recon.problem(LeastSquares(A, y), recon.weight)
    solution = solve(problem, emjax.solvers.PDHG(), gap=1e-4)
    x = recon(y, A)
    np.testing.assert_allclose(x, solution.value, atol=1e-6)
    assert float(problem.objective(x)) <= float(solution.objective) * (1 + 2e-4)
    own = emjax.Problem(LeastSquares(A, y), emjax.TV(0.05, isotropic=isotropic))
    np.testing.assert_allclose(problem.objective(x), own.objective(x), rtol=1e-6)


def test_wavelet_is_the_solution_of_its_problem() -> None:
    y, A = small_scan()
    recon = WaveletL1(weight=0.05, gap=1e-4, name="haar")
    centre = jnp.sum(y) / jnp.sum(A.mask)
    problem = recon.problem(LeastSquares(A, y - centre), recon.weight)
    solution = solve(problem, gap=1e-4)
    np.testing.assert_allclose(recon(y, A), centre + solution.value, atol=1e-4)


@pytest.mark.parametrize("name", ["tv", "wavelet", "spectral"])
def test_constant_and_nearly_empty_scans(name: str) -> None:
    full = PixelSampling(jnp.ones((16, 16)))
    np.testing.assert_allclose(emjax.load(name)(jnp.full((16, 16), 0.7), full), 0.7, atol=1e-5)
    one = PixelSampling(jnp.zeros((16, 16)).at[3, 4].set(1))
    x = emjax.load(name)(jnp.full((16, 16), 0.7), one)
    np.testing.assert_allclose(x, 0.7, atol=1e-3)


@pytest.mark.parametrize("name", ["tv", "wavelet", "spectral"])
def test_grey_values_may_be_of_any_size(name: str) -> None:
    # Automatic weights go with the data: a scan in counts is the same picture.
    y, A = small_scan()
    x = emjax.load(name)(y, A)
    scaled = emjax.load(name)(A.measured(4096 * y + 2e4), A)
    np.testing.assert_allclose((scaled - 2e4) / 4096, x, atol=0.05)


@pytest.mark.parametrize(("rows", "least"), [(10, 17), (100, 20)])
def test_the_box_of_few_mixed_measurements_holds_the_image(rows: int, least: int) -> None:
    """Random rows of 1 and 10 percent see little of an image, but its energy."""
    truth = np.clip(0.5 + 0.25 * np.random.default_rng(0).standard_normal((32, 32)), 0, 1).astype(np.float32)
    tv, held = emjax.load("tv", weight=0.1), 0
    for seed in range(20):
        A = Dense(jnp.asarray(np.random.default_rng(seed).standard_normal((rows, 1024)), jnp.float32), (32, 32))
        (box,) = tv._bounds(LeastSquares(A, A(truth)))
        held += int(box.low <= truth.min() and truth.max() <= box.high)
    assert held >= least


def test_a_transform_without_its_mean_knows_no_grey_level() -> None:
    """What it makes of a uniform image is rounding error, which nothing is divided by."""
    x = jnp.asarray(np.random.default_rng(0).uniform(0.2, 0.8, (20, 18)), jnp.float32)
    A = SubsampledDCT(jnp.ones(x.shape).at[0, 0].set(0))
    assert float(grey_level(A(x), A)) == 0
    assert float(grey_level(A(x), SubsampledDCT(jnp.ones(x.shape)))) == pytest.approx(0, abs=1e-6)
    (box,) = emjax.load("tv", weight=0.1)._bounds(LeastSquares(A, A(x)))
    assert -10 < float(box.low) < float(box.high) < 10
