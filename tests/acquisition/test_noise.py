"""Noise: its variance law, the measurements it makes, and its estimate from a scan."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.acquisition import Noise, estimate_noise, estimate_poisson_gaussian, measure, phantom, uniform
from emjax.operators import Fourier, PixelSampling

KEY = jax.random.key(5)
# Poisson numbers take seconds to compile for every shape, less so without optimisations.
measured = jax.jit(measure, compiler_options={"xla_backend_optimization_level": 0})
estimate = jax.jit(lambda y, mask: estimate_noise(y, mask).read_sigma)
estimate_both = jax.jit(estimate_poisson_gaussian)


@functools.cache
def tissue(kind: str) -> np.ndarray:
    return phantom((320, 320), 2, kind=kind).image


@pytest.fixture
def image() -> np.ndarray:
    return tissue("neuropil")


def test_variance_is_linear_in_the_mean_and_never_negative() -> None:
    noise = Noise(gain=0.02, read_sigma=0.1)
    np.testing.assert_allclose(noise.variance(jnp.array([0.0, 0.5, 1.0, -0.3])), [0.01, 0.02, 0.03, 0.01], rtol=1e-6)
    np.testing.assert_allclose(Noise.from_dose(50, 0.1).gain, 0.02, rtol=1e-6)
    assert float(Noise.from_dose(jnp.inf).variance(jnp.ones(()))) == 0


@pytest.mark.parametrize(
    "levels", [(0.0, -1), (-1e-3, 0.0), (jnp.nan, 0.0), (0.0, jnp.inf), (0.0, jnp.array([0.1, -0.1])), (np.inf, 0.0)]
)
def test_levels_below_zero_or_not_finite_are_refused(levels: tuple) -> None:
    with pytest.raises(ValueError, match="of a noise is finite and 0 or above"):
        Noise(*levels)
    # Traced ones cannot be looked at, and pass.
    assert jax.jit(lambda gain, sigma: Noise(gain, sigma).read_sigma)(*levels).shape == np.shape(levels[1])


def test_other_things_than_levels_are_refused() -> None:
    with pytest.raises(TypeError, match="gain of a noise is a real number, got complex64"):
        Noise(1j)
    with pytest.raises(TypeError, match="a number or an array of numbers"):
        Noise(read_sigma="much")
    for dose in (0.0, -3, jnp.nan, jnp.array([10.0, 0.0])):
        with pytest.raises(ValueError, match="the dose is the expected number of electrons"):
            Noise.from_dose(dose)


def test_an_estimate_may_be_nan() -> None:
    y, mask = jnp.zeros((4, 5)), jnp.zeros((4, 5)).at[1, 1].set(1)
    assert jnp.isnan(estimate_noise(y, mask).read_sigma)
    assert jnp.isnan(estimate_poisson_gaussian(y, mask).gain)


@pytest.mark.parametrize(("dose", "read"), [(20.0, 0.0), (50.0, 0.03), (jnp.inf, 0.05), (1e4, 0.02)])
def test_measurements_have_the_right_mean_and_variance(dose: float, read: float) -> None:
    x = jnp.linspace(0, 1, 8)[:, None] * jnp.ones((8, 4000))
    noise = Noise.from_dose(dose, read)
    y = measured(KEY, x, PixelSampling(jnp.ones(x.shape)), noise)
    expected = np.asarray(noise.variance(x[:, 0]))
    sigma = np.sqrt(expected / 4000)
    assert (np.abs(y.mean(1) - x[:, 0]) <= 5 * sigma + 1e-6).all()
    # The variance of a sample variance of Poisson-Gaussian data is close to that of Gaussian data at these doses.
    assert (np.abs(y.var(1) - expected) <= 8 * expected * (2 / 4000) ** 0.5 + 1e-9).all()


def test_counts_are_multiples_of_the_gain() -> None:
    y = measured(KEY, jnp.full((30, 30), 0.4), PixelSampling(jnp.ones((30, 30))), Noise.from_dose(16))
    np.testing.assert_allclose(16 * y, np.round(16 * y), atol=1e-5)


def test_nothing_stands_where_nothing_is_measured() -> None:
    mask = uniform(KEY, (20, 30), 0.3)
    y = measured(KEY, jnp.ones((4, 20, 30)), PixelSampling(mask), Noise.from_dose(10, 0.1))
    assert y.shape == (4, 20, 30)
    assert (np.asarray(y)[:, ~np.asarray(mask)] == 0).all()
    assert (y[0] != y[1]).any()


def test_without_noise_a_measurement_is_the_operator() -> None:
    A = PixelSampling(uniform(KEY, (9, 8), 0.5))
    x = jax.random.uniform(KEY, (9, 8))
    np.testing.assert_array_equal(measured(KEY, x, A), A(x))
    np.testing.assert_array_equal(measured(KEY, x, A, Noise()), A(x))


def test_soft_weights_scale_what_was_counted() -> None:
    weights = jnp.where(uniform(KEY, (30, 40), 0.5), 0.25, 1.0)
    x = jnp.full((60, 30, 40), 0.5)
    y = measured(KEY, x, PixelSampling(weights), Noise.from_dose(30))
    np.testing.assert_allclose(y.mean(0), 0.5 * weights, atol=0.1)
    # var(w v) = w^2 gain x.
    for w in (0.25, 1.0):
        found = float(y.var(0)[weights == w].mean())
        np.testing.assert_allclose(found, w * w * 0.5 / 30, rtol=0.05)


def test_complex_measurements_take_read_out_noise() -> None:
    A = Fourier((16, 16))
    y = measured(KEY, jnp.zeros((300, 16, 16)), A, Noise(read_sigma=0.1))
    assert jnp.iscomplexobj(y)
    np.testing.assert_allclose(float(jnp.mean(jnp.abs(y) ** 2)), 0.01, rtol=0.03)
    with pytest.raises(ValueError, match="complex"):
        measure(KEY, jnp.zeros((16, 16)), A, Noise.from_dose(10))


def test_a_level_for_each_item_of_a_batch() -> None:
    noise = Noise(gain=jnp.array([0.0, 0.0, 0.01]), read_sigma=jnp.array([0.0, 0.1, 0.0]))
    x = jnp.full((3, 100, 100), 0.5)
    y = measured(KEY, x, PixelSampling(jnp.ones((100, 100))), noise)
    np.testing.assert_allclose(y.std((1, 2)), [0, 0.1, 0.005**0.5], rtol=0.05, atol=1e-7)
    np.testing.assert_allclose(noise.variance(x)[:, 0, 0], [0, 0.01, 0.005], rtol=1e-5, atol=1e-9)


@pytest.mark.slow
def test_measure_is_pure_and_exports() -> None:
    A, x = PixelSampling(jnp.ones((8, 9))), jax.random.uniform(KEY, (2, 8, 9))
    noise = Noise(0.01, 0.1)
    np.testing.assert_array_equal(measured(KEY, x, A, noise), measured(KEY, x, A, noise))
    assert (measured(KEY, x, A, noise) != measured(jax.random.key(6), x, A, noise)).any()
    export = jax.export.export(jax.jit(measure), platforms=["cpu", "cuda", "tpu"])(KEY, x, A, noise)
    assert export.out_avals[0].shape == (2, 8, 9)


@pytest.mark.parametrize("kind", ["neuropil", "axons"])
@pytest.mark.parametrize("ratio", [0.1, 0.25, 0.5, 1.0])
@pytest.mark.parametrize("sigma", [0.03, 0.05, 0.1])
def test_the_noise_is_found(kind: str, ratio: float, sigma: float) -> None:
    x = tissue(kind)
    rng = np.random.default_rng(1)
    mask = rng.random(x.shape) < ratio
    y = np.where(mask, x + sigma * rng.standard_normal(x.shape), np.nan).astype(np.float32)
    assert abs(float(estimate(y, mask)) / sigma - 1) < 0.15


def test_counting_noise_counts_with_its_mean_variance(image: np.ndarray) -> None:
    A = PixelSampling(uniform(KEY, image.shape, 0.25))
    noise = Noise.from_dose(100, 0.02)
    found = float(estimate(measured(KEY, image, A, noise), A.mask))
    assert abs(found / float(noise.variance(image.mean())) ** 0.5 - 1) < 0.15


def test_no_noise_is_found_where_there_is_none(image: np.ndarray) -> None:
    mask = uniform(KEY, image.shape, 0.25)
    assert float(estimate(jnp.asarray(image), mask)) < 0.01
    assert float(estimate(jnp.full((64, 64), 0.7), mask[:64, :64])) == 0


def test_the_estimate_scales_and_shifts_with_the_data(image: np.ndarray) -> None:
    y = jnp.asarray(image) + 0.05 * jax.random.normal(KEY, image.shape)
    mask = uniform(KEY, image.shape, 0.2)
    first = float(estimate(y, mask))
    np.testing.assert_allclose(estimate(1000 * y - 300, mask), 1000 * first, rtol=0.01)


def test_fits_agree_with_non_negative_least_squares() -> None:
    from scipy.optimize import nnls

    from emjax.acquisition.noise import _non_negative

    rng = np.random.default_rng(0)
    for _ in range(20):
        columns, values, weights = rng.random((40, 5)), rng.standard_normal(40), rng.random(40)
        root = np.sqrt(weights)
        want = nnls(columns * root[:, None], values * root)[0]
        np.testing.assert_allclose(_non_negative(*map(jnp.float32, (columns, values, weights))), want, atol=2e-3)


def test_too_little_to_go_by_gives_nan() -> None:
    lonely = jnp.zeros((32, 32)).at[0, 0].set(1).at[31, 31].set(1)
    assert np.isnan(estimate(jnp.ones((32, 32)), lonely))
    assert np.isnan(estimate(jnp.ones((1, 1)), jnp.ones((1, 1))))
    assert np.isfinite(estimate(jnp.arange(40.0)[None], jnp.ones((1, 40))))


def test_estimates_map_export_and_refuse_batches(image: np.ndarray) -> None:
    ys = jnp.stack([image[:96, :96] + s * jax.random.normal(KEY, (96, 96)) for s in (0.05, 0.1)])
    masks = jnp.ones(ys.shape)
    both = jax.vmap(lambda y, m: estimate_noise(y, m).read_sigma)(ys, masks)
    np.testing.assert_allclose(both, [estimate(y, m) for y, m in zip(ys, masks, strict=True)], rtol=1e-3)
    jax.export.export(jax.jit(estimate_noise), platforms=["cpu", "cuda", "tpu"])(ys[0], masks[0])
    with pytest.raises(ValueError, match="vmap"):
        estimate_noise(ys, masks)


@pytest.mark.parametrize("ratio", [0.4, 1.0])
@pytest.mark.parametrize(
    ("kind", "dose", "read"),
    [("neuropil", 20, 0.0), ("neuropil", 50, 0.05), ("neuropil", 200, 0.02), ("axons", 20, 0.0), ("axons", 50, 0.05)],
)
def test_gain_and_read_out_are_told_apart(kind: str, dose: float, read: float, ratio: float) -> None:
    x = tissue(kind)
    A = PixelSampling(uniform(KEY, x.shape, ratio))
    found = estimate_both(measured(KEY, x, A, Noise.from_dose(dose, read)), A.mask)
    assert abs(float(found.gain) * dose - 1) < 0.2
    # What is left of a read-out that adds little to the counting noise is small, too.
    assert abs(float(found.read_sigma) - read) < max(0.5 * read, 0.2 * (x.mean() / dose) ** 0.5)
    variance = float(Noise.from_dose(dose, read).variance(x.mean()))
    assert abs(float(found.variance(x.mean())) / variance - 1) < 0.2


def test_pure_read_out_noise_has_no_gain() -> None:
    # Hills of all greys, smooth but for the noise: here the two are told apart sharply.
    x = jnp.clip(jax.image.resize(jax.random.uniform(KEY, (16, 16)), (320, 320), "cubic"), 0, 1)
    for noise in (Noise(0.0, 0.05), Noise(0.02, 0.0), Noise(0.01, 0.08)):
        found = estimate_both(measured(KEY, x, PixelSampling(jnp.ones(x.shape)), noise), jnp.ones(x.shape))
        assert abs(float(found.gain) - float(noise.gain)) < 0.002
        assert abs(float(found.read_sigma) - float(noise.read_sigma)) < 0.012


def test_gain_scales_with_the_grey_values_and_ignores_what_was_not_measured(image: np.ndarray) -> None:
    A = PixelSampling(uniform(KEY, image.shape, 0.5))
    y = measured(KEY, image, A, Noise.from_dose(50, 0.05))
    first, scaled = estimate_both(y, A.mask), estimate_both(jnp.where(A.mask > 0, 1000 * y, jnp.nan), A.mask)
    np.testing.assert_allclose(scaled.gain, 1000 * first.gain, rtol=0.01)
    np.testing.assert_allclose(scaled.read_sigma, 1000 * first.read_sigma, rtol=0.01)


@pytest.mark.slow
def test_poisson_gaussian_estimates_map_export_and_refuse_batches(image: np.ndarray) -> None:
    ys = measured(KEY, jnp.stack([image[:96, :96]] * 2), PixelSampling(jnp.ones((96, 96))), Noise.from_dose(30))
    masks = jnp.ones(ys.shape)
    both = jax.jit(jax.vmap(estimate_poisson_gaussian))(ys, masks)
    np.testing.assert_allclose(both.gain, [estimate_both(y, m).gain for y, m in zip(ys, masks, strict=True)], rtol=1e-3)
    jax.export.export(jax.jit(lambda y, m: estimate_poisson_gaussian(y, m).gain), platforms=["cpu", "cuda", "tpu"])(
        ys[0], masks[0]
    )
    assert np.isnan(estimate_both(jnp.ones((32, 32)), jnp.zeros((32, 32))).gain)
    assert float(estimate_both(jnp.full((32, 32), 0.7), jnp.ones((32, 32))).gain) == 0
    with pytest.raises(ValueError, match="vmap"):
        estimate_poisson_gaussian(ys, masks)
