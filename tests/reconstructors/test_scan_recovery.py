"""Scan networks as reconstructors: what they take from the scan, and what the one of the zoo is worth."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import emjax
from emjax.acquisition import Noise, measure, phantom, spiral, uniform
from emjax.metrics import psnr
from emjax.operators import DCT, PixelSampling
from emjax.reconstructors import ScanRecovery

SHAPE = (96, 80)


@pytest.fixture(scope="module")
def compact() -> Any:
    return emjax.load("scan-compact")


@pytest.fixture(scope="module")
def scans() -> tuple[jax.Array, jax.Array, PixelSampling]:
    """Two truths, their scans of 25 % with noise of 0.05, and the operator."""
    truth = jnp.stack([jnp.asarray(phantom(SHAPE, seed).image, jnp.float32) for seed in (3, 4)])
    A = PixelSampling(jnp.stack([uniform(jax.random.key(k), SHAPE, 0.25) for k in (0, 1)]))
    return truth, measure(jax.random.key(2), truth, A, Noise(0.0, 0.05)), A


def test_it_is_better_than_the_best_linear_estimate(compact: Any, scans: Any) -> None:
    truth, y, A = scans
    learned, linear = (jnp.mean(psnr(emjax.load(n)(y, A), truth)) for n in ("scan-compact", "spectral"))
    assert learned > linear + 0.2


def test_level_contrast_and_noise_come_from_the_scan(compact: Any, scans: Any) -> None:
    truth, y, A = scans
    fitted = compact.fit(y, A)
    assert fitted.level.shape == fitted.contrast.shape == fitted.read_sigma.shape == (2,)
    np.testing.assert_allclose(fitted.level, truth.mean((1, 2)), atol=0.03)
    np.testing.assert_allclose(fitted.contrast, truth.std((1, 2)), rtol=0.15)
    np.testing.assert_allclose(fitted.read_sigma, 0.05, rtol=0.4)
    np.testing.assert_allclose(fitted(y, A), compact(y, A), atol=1e-5)


def test_a_batch_is_its_items(compact: Any, scans: Any) -> None:
    _, y, A = scans
    together = compact(y, A)
    for i in range(2):
        np.testing.assert_allclose(compact(y[i], PixelSampling(A.mask[i])), together[i], atol=1e-4)


def test_measured_pixels_stay_without_noise(compact: Any, scans: Any) -> None:
    truth, _, A = scans
    x = compact(A(truth), A, Noise())
    np.testing.assert_allclose(A(x), A(truth), atol=1e-5)


def test_fine_texture_is_no_noise(compact: Any, scans: Any) -> None:
    truth, _, A = scans
    texture = 0.1 * jnp.std(truth) * jax.random.normal(jax.random.key(9), truth.shape)
    x = compact(A(truth + texture), A)
    np.testing.assert_allclose(A(x), A(truth + texture), atol=2e-3)


@pytest.mark.parametrize("unit", [1e-20, 1e3, 1e18])
def test_grey_values_may_be_of_any_size(compact: Any, scans: Any, unit: float) -> None:
    _, y, A = scans
    np.testing.assert_allclose(compact(unit * y, A) / unit, compact(y, A), atol=1e-3)
    told = compact(y, A, Noise(0.0, 0.05))
    np.testing.assert_allclose(compact(unit * y, A, Noise(0.0, 0.05 * unit)) / unit, told, atol=1e-3)


def test_a_constant_scan_has_a_derivative(compact: Any, scans: Any) -> None:
    A = PixelSampling(scans[2].mask[0])
    assert jnp.all(jnp.isfinite(jax.grad(lambda y: compact(y, A).sum())(jnp.full(SHAPE, 0.5))))


def test_soft_weights_measure_what_masks_do(compact: Any, scans: Any) -> None:
    truth, _, A = scans
    soft = PixelSampling(0.5 * A.mask)
    np.testing.assert_allclose(compact(soft(truth), soft, Noise()), compact(A(truth), A, Noise()), atol=1e-4)


def test_the_noise_of_a_soft_beam(compact: Any, scans: Any) -> None:
    truth = scans[0][0]
    A = PixelSampling(spiral(jax.random.key(0), SHAPE, 0.6))
    y = measure(jax.random.key(5), truth, A, Noise(0.0, 0.03))
    np.testing.assert_allclose(compact.fit(y, A).read_sigma, 0.03, rtol=0.4)


@pytest.mark.parametrize("case", ["nothing measured", "one pixel", "constant", "NaN off the mask"])
def test_odd_scans(compact: Any, scans: Any, case: str) -> None:
    truth, y, A = (v[0] if isinstance(v, jax.Array) else PixelSampling(v.mask[0]) for v in scans)
    mask = np.zeros(SHAPE, np.float32)
    mask[40, 30] = case == "one pixel"
    if case == "constant":
        x = compact(A(jnp.full(SHAPE, 0.3)), A)
        np.testing.assert_allclose(x, 0.3, atol=1e-3)
    elif case == "NaN off the mask":
        np.testing.assert_array_equal(compact(jnp.where(A.mask > 0, y, jnp.nan), A), compact(y, A))
    else:
        x = compact(truth * mask, PixelSampling(mask))
        np.testing.assert_allclose(x, truth[40, 30] if case == "one pixel" else 0, atol=0.05)


def test_what_it_cannot_take_is_said(compact: Any) -> None:
    with pytest.raises(ValueError, match="PixelSampling of images"):
        compact(jnp.ones(SHAPE), DCT(SHAPE))
    with pytest.raises(ValueError, match="shape"):
        compact(jnp.ones((5, 5)), PixelSampling(np.ones(SHAPE)))
    with pytest.raises(TypeError, match="scan network"):
        ScanRecovery(jnp.ones(3))
    for name, value in (("read_sigma", -1), ("contrast", 0), ("level", np.nan), ("read_sigma", np.inf)):
        with pytest.raises(ValueError, match=f"the {name} of a scan"):
            emjax.load("scan-compact", **{name: value})
    with pytest.raises(TypeError, match="no setting"):
        emjax.load("scan-compact", weight=0.1)
