"""Losses against plain NumPy; those without truth against the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.training import losses

RNG = np.random.default_rng(0)
TRUTH = jnp.asarray(RNG.random((3, 16, 16)), jnp.float32)
X = jnp.asarray(RNG.random((3, 16, 16)), jnp.float32)


@pytest.mark.parametrize("name", sorted(losses.LOSSES))
def test_losses_of_equal_images_are_zero_and_smooth(name: str) -> None:
    loss = losses.LOSSES[name]
    both = jax.jit(jax.value_and_grad(loss))
    value, gradient = both(X, TRUTH)
    assert value.shape == () and float(value) > 0.05
    zero, at_zero = both(TRUTH, TRUTH)
    assert abs(float(zero)) < 1e-6 and np.isfinite(at_zero).all()
    gradient = np.asarray(gradient)
    assert float(both(X - 0.01 * gradient / np.linalg.norm(gradient), TRUTH)[0]) < float(value)
    np.testing.assert_allclose(losses.l1(X, TRUTH), np.abs(np.asarray(X - TRUTH)).mean(), rtol=1e-6)


def test_a_split_mask_adds_up() -> None:
    mask = jnp.asarray(RNG.random((4, 64, 64)) < 0.3, jnp.float32) * 0.5
    share = jnp.asarray([0.1, 0.5, 0.9, 1.0])[:, None, None]
    seen, held = map(np.asarray, jax.jit(losses.split_mask)(jax.random.key(0), mask, share))
    np.testing.assert_array_equal(seen + held, mask)
    assert (seen * held).max() == 0
    binary = losses.split_mask(jax.random.key(0), mask > 0, share)
    assert all(part.dtype == bool and (part == (own > 0)).all() for part, own in zip(binary, (seen, held), strict=True))
    np.testing.assert_allclose(seen.sum((1, 2)) / np.asarray(mask).sum((1, 2)), np.ravel(share), atol=0.05)
    held_out, flat = jax.jit(losses.held_out), np.full(mask.shape, 0.5, np.float32)
    assert float(held_out(flat, mask * flat, held)) < 1e-12
    assert float(held_out(mask, mask * flat, 0 * flat)) == 0


def test_blind_spots_take_the_value_of_a_neighbour() -> None:
    blind = jax.jit(losses.blind_spots)
    y = np.arange(2 * 64, dtype=np.float32).reshape(2, 8, 8)
    blinded, spots = map(np.asarray, blind(jax.random.key(0), y, 0.5))
    np.testing.assert_array_equal(blinded == y, spots == 0)  # never its own
    moved = (blinded - 64 * np.arange(2)[:, None, None]).astype(int)
    i, j = np.indices((8, 8))
    assert moved.min() >= 0 and moved.max() < 64  # never of another image
    assert np.abs(moved // 8 - i).max() <= 2 and np.abs(moved % 8 - j).max() <= 2
    everywhere = blind(jax.random.key(1), np.broadcast_to(y[0], (500, 8, 8)), 1.0)[0]
    assert len(np.unique(np.asarray(everywhere[:, 4, 4]))) == 24


def test_sure_estimates_the_error_without_the_truth() -> None:
    sigma = jnp.asarray([0.05, 0.1, 0.3])
    truth = jnp.asarray(RNG.random((3, 128, 128)), jnp.float32)
    y = truth + sigma[:, None, None] * jax.random.normal(jax.random.key(0), truth.shape)

    def shrink(v: jax.Array) -> jax.Array:
        return 0.7 * v + 0.2 * jnp.tanh(jnp.roll(v, 1, -1))

    got = jax.jit(lambda y, key: losses.sure(shrink, y, sigma, key))(y, jax.random.key(1))
    np.testing.assert_allclose(got, losses.mse(shrink(y), truth), rtol=0.03)
