"""Drift and line jitter: identity at zero, whole displacements are exact, moments, batches, transformations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.acquisition import displace, drift, line_jitter

KEY = jax.random.key(11)
X = jax.random.uniform(KEY, (24, 30))


@pytest.mark.parametrize("distort", [drift, line_jitter])
def test_no_amplitude_no_change(distort) -> None:
    np.testing.assert_array_equal(distort(KEY, X, 0.0), X)


@pytest.mark.slow
@pytest.mark.parametrize("distort", [drift, line_jitter])
def test_batches_amplitudes_and_keys(distort) -> None:
    xs = jnp.stack([X, X, X])
    out = distort(KEY, xs, jnp.array([0.0, 1.0, 1.0]))
    assert out.shape == xs.shape and out.dtype == xs.dtype
    np.testing.assert_array_equal(out[0], X)
    assert (out[1] != out[2]).any() and (out[1] != X).any()
    np.testing.assert_array_equal(out, distort(KEY, xs, jnp.array([0.0, 1.0, 1.0])))
    assert (out != distort(jax.random.key(1), xs, jnp.array([0.0, 1.0, 1.0])))[1:].any()
    jax.export.export(jax.jit(distort), platforms=["cpu", "cuda", "tpu"])(KEY, xs, 1.0)
    assert np.isfinite(jax.grad(lambda a: jnp.sum(distort(KEY, X, a) ** 2))(0.7))
    with pytest.raises(ValueError, match="real images"):
        distort(KEY, jnp.zeros(4), 1.0)


def test_whole_displacements_move_pixels_exactly_and_repeat_the_border() -> None:
    out = displace(X, jnp.full(24, 2.0), jnp.full(24, -3.0))
    np.testing.assert_array_equal(out[:-2, 3:], X[2:, :-3])
    np.testing.assert_array_equal(out[-2:, 3:], jnp.stack([X[-1, :-3]] * 2))
    np.testing.assert_array_equal(out[:-2, 0], X[2:, 0])
    np.testing.assert_array_equal(displace(X, jnp.zeros(24), jnp.full(24, 1e9)), jnp.repeat(X[:, -1:], 30, 1))


def test_displacements_between_pixels_are_exact_on_parabolas() -> None:
    i, j = jnp.meshgrid(jnp.arange(24.0), jnp.arange(30.0), indexing="ij")

    def image(i: jax.Array, j: jax.Array) -> jax.Array:
        return (0.01 * i**2 - 0.1 * i + 1) * (0.02 * j**2 - 0.3 * j)

    down, across = jnp.linspace(-1, 1, 24), jnp.linspace(0.9, -0.7, 24)
    out = displace(image(i, j), down, across)
    want = image(i + down[:, None], j + across[:, None])
    np.testing.assert_allclose(out[3:-3, 3:-3], want[3:-3, 3:-3], atol=1e-4)


def test_jitter_has_its_amplitude_and_no_mean() -> None:
    ramp = jnp.broadcast_to(jnp.arange(80.0), (4000, 80))
    moved = (line_jitter(KEY, ramp, 1.5) - ramp)[:, 40]
    assert abs(float(moved.mean())) < 5 * 1.5 / 4000**0.5
    np.testing.assert_allclose(float(moved.std()), 1.5, rtol=0.05)
    assert abs(float(jnp.corrcoef(moved[1:], moved[:-1])[0, 1])) < 0.08
    slow = (line_jitter(KEY, ramp, 1.5, correlation=0.8) - ramp)[:, 40]
    np.testing.assert_allclose(float(slow.std()), 1.5, rtol=0.15)
    np.testing.assert_allclose(float(jnp.corrcoef(slow[1:], slow[:-1])[0, 1]), 0.8, atol=0.05)
    with pytest.raises(ValueError, match=r"\[0, 1\)"):
        line_jitter(KEY, ramp, 1.0, correlation=1.0)


@pytest.mark.slow
def test_drift_grows_along_the_frame_and_is_no_one_way_street() -> None:
    i, j = jnp.meshgrid(jnp.arange(64.0), jnp.arange(64.0), indexing="ij")
    for ramp in (i, j):  # displacements along the lines and across them
        moved = (drift(KEY, jnp.broadcast_to(ramp, (600, 64, 64)), 4.0) - ramp)[:, :, 32]
        path = (moved[:, 47] - moved[:, 15]) * 2
        assert abs(float(path.mean())) < 5 * 4 / 600**0.5
        np.testing.assert_allclose(float(path.std()), 4, rtol=0.15)
        np.testing.assert_allclose(moved[:, 31] + moved[:, 32], 0, atol=1e-4)


def test_shapes_that_do_not_go_together_are_named() -> None:
    with pytest.raises(ValueError, match=r"\(24, 30\), \(23,\)"):
        displace(X, jnp.zeros(23), jnp.zeros(24))
    both = displace(X, jnp.zeros((5, 24)), jnp.ones(24))
    assert both.shape == (5, 24, 30)
