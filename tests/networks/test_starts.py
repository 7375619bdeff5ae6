"""The linear start of least error, and the field that it takes from images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.acquisition.noise import Noise
from emjax.networks.starts import FIELD, LENGTHS, Estimate, estimate_field, linear_start
from emjax.operators import Blockwise, Dense, PixelSampling


def textures(count: int, n: int, field: tuple[float, ...]) -> np.ndarray:
    """Periodic Gaussian random images of that field."""
    mean, white, level, *variances = field
    i = np.minimum(np.arange(n), n - np.arange(n))
    h = np.hypot(i[:, None], i)
    covariance = white * (h == 0)
    for v, length in zip(variances, LENGTHS, strict=True):
        covariance = covariance + v * (1 + h / length) * np.exp(-h / length)
    rng = np.random.default_rng(0)
    root = np.sqrt(np.maximum(np.fft.fft2(covariance).real, 0))
    noise = np.fft.ifft2(root * np.fft.fft2(rng.standard_normal((count, n, n)))).real
    return mean + noise + np.sqrt(level) * rng.standard_normal((count, 1, 1))


def test_no_linear_estimate_is_better_in_its_field() -> None:
    """Against `X Y.T (Y Y.T)^-1` of as many blocks of the same images."""
    field = (0.5, 0.001, 0.01, 0.005, 0.01, 0.0)
    images = textures(40, 64, field)
    rng = np.random.default_rng(1)
    A = Blockwise(Dense(np.linalg.qr(rng.standard_normal((64, 12)))[0].T.astype("f4"), (8, 8)), (64, 64))
    sigma = 0.05
    y = np.asarray(A(jnp.asarray(images, jnp.float32)))
    y = y + sigma * rng.standard_normal(y.shape)
    x = linear_start("gaussian", field, jnp.asarray(y, jnp.float32), A, Noise(read_sigma=sigma))
    error = np.mean((np.asarray(x) - images) ** 2)
    blocks = images.reshape(-1, 8, 8, 8, 8).transpose(0, 1, 3, 2, 4).reshape(-1, 64).T - 0.5
    seen = y.reshape(-1, 12).T - 0.5 * np.asarray(A.op.matrix).sum(1)[:, None]
    fitted = blocks @ seen.T @ np.linalg.inv(seen @ seen.T) @ seen
    assert np.mean((fitted - blocks) ** 2) < error < 1.03 * np.mean((fitted - blocks) ** 2)
    # Another level of noise, or none, is not as good.
    for other in (None, Noise(read_sigma=3 * sigma)):
        assert (
            np.mean((np.asarray(linear_start("gaussian", field, jnp.asarray(y, "f4"), A, other)) - images) ** 2) > error
        )


def test_rows_that_measure_nothing_do_no_harm() -> None:
    mask = (np.arange(12) < 7).astype("f4")
    rows = np.linalg.qr(np.random.default_rng(1).standard_normal((64, 12)))[0].T.astype("f4")
    some = Dense(rows[:7], (8, 8))
    all_of_them = Blockwise(PixelSampling(mask, ndim=1) @ Dense(rows, (8, 8)), (8, 8))
    image = jnp.asarray(textures(1, 8, FIELD)[0], jnp.float32)
    x = linear_start("gaussian", FIELD, all_of_them(image), all_of_them)
    np.testing.assert_allclose(x, linear_start("gaussian", FIELD, some(image), some), atol=1e-4)


def test_what_the_measurements_leave_open_and_the_error_that_is_expected() -> None:
    field = (0.5, 0.001, 0.01, 0.005, 0.01, 0.0)
    images = jnp.asarray(textures(40, 64, field), jnp.float32)
    rows = np.linalg.qr(np.random.default_rng(1).standard_normal((64, 12)))[0].T.astype("f4")
    A = Blockwise(Dense(rows, (8, 8)), (64, 64))
    v = jax.random.normal(jax.random.key(0), (64, 64))
    exact, noisy = (Estimate.of(field, A, Noise(0.0, s), v.dtype).unseen(v) for s in (0.0, 100.0))
    np.testing.assert_allclose(A(exact), jnp.zeros(A.out_shape), atol=1e-5)
    np.testing.assert_allclose(v - exact, A.adjoint(A(v)), atol=1e-5)
    np.testing.assert_allclose(noisy, v, atol=1e-4)
    estimate = Estimate.of(field, A, Noise(), v.dtype)
    errors = jax.vmap(lambda image: estimate.start(A(image)) - image)(images)
    assert float(jnp.mean(errors**2)) == pytest.approx(float(jnp.mean(estimate.error() ** 2)), rel=0.05)


@pytest.mark.parametrize("shape", [(13, 11), (3, 2)])
def test_blocks_that_lie_in_the_image_only_in_part(shape: tuple[int, int]) -> None:
    """What is beyond the image is known: the estimate explains the measurements, however few pixels a block has."""
    rows = np.linalg.qr(np.random.default_rng(1).standard_normal((64, 12)))[0].T.astype("f4")
    A = Blockwise(Dense(rows, (8, 8)), shape)
    image = jnp.asarray(textures(1, 24, FIELD)[0], jnp.float32)[: shape[0], : shape[1]]
    estimate = Estimate.of(FIELD, A, Noise(), image.dtype)
    np.testing.assert_allclose(A(estimate.start(A(image))), A(image), atol=2e-3)
    v = jax.random.normal(jax.random.key(0), shape)
    np.testing.assert_allclose(A(estimate.unseen(v)), jnp.zeros(A.out_shape), atol=1e-3)
    assert estimate.error().shape == shape and bool((estimate.error() >= 0).all())
    few = min(shape) < 4  # more measurements than pixels: all is known
    assert not few or float(jnp.max(jnp.abs(estimate.start(A(image)) - image))) < 0.02


def test_the_field_of_images_is_found() -> None:
    field = (0.5, 0.002, 0.0, 0.004, 0.012, 0.0)
    found = estimate_field(textures(8, 128, field), side=17, patches=300)
    assert found[0] == pytest.approx(0.5, abs=0.02)
    r = {h: sum(v * (1 + h / k) * np.exp(-h / k) for v, k in zip(field[3:], LENGTHS, strict=True)) for h in (0, 2, 8)}
    for h, expected in r.items():
        value = found[2] + sum(v * (1 + h / k) * np.exp(-h / k) for v, k in zip(found[3:], LENGTHS, strict=True))
        assert value == pytest.approx(expected, abs=0.1 * r[0])
    with pytest.raises(ValueError, match="33 pixels or more, got \\(5, 5\\)"):
        estimate_field([np.zeros((5, 5))])


def test_backprojection_explains_the_measurements_best() -> None:
    A = Dense(3 * np.random.default_rng(2).standard_normal((20, 30)).astype("f4"), (5, 6))
    y = A(jax.random.normal(jax.random.key(0), (5, 6)))
    x = linear_start("backprojection", FIELD, y, A)
    errors = [float(jnp.sum((A(s * x) - y) ** 2)) for s in (0.99, 1.0, 1.01)]
    assert errors[1] == min(errors)
    assert not np.asarray(linear_start("backprojection", FIELD, 0 * y, A)).any()
