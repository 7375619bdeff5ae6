"""The schedule against its formula; clipping, decay and the average act on what they are meant for."""

import jax
import jax.numpy as jnp
import numpy as np

from emjax.training.optimiser import Optimiser


def test_warm_up_then_cosine() -> None:
    how = Optimiser(learning_rate=2.0, warm_up=0.1, final=0.1)
    rates = how.rate(np.arange(100), 100)
    np.testing.assert_allclose(rates[:10], 2 * np.arange(1, 11) / 10, rtol=1e-6)
    np.testing.assert_allclose(rates[10:], 2 * (0.1 + 0.45 * (1 + np.cos(np.pi * np.arange(90) / 90))), rtol=1e-5)
    np.testing.assert_allclose(Optimiser(warm_up=0.0, learning_rate=0.5).rate(0, 1), 0.5)


def test_only_kernels_decay_and_gradients_are_clipped() -> None:
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3), "step": jnp.ones(())}
    zero = {key: jnp.zeros_like(value) for key, value in params.items()}
    chain = Optimiser(weight_decay=0.1).transformation()
    updates, _ = jax.jit(chain.update)(zero, chain.init(params), params)
    np.testing.assert_allclose(updates["kernel"], 0.1)
    assert np.abs(updates["bias"]).max() == 0 == float(updates["step"])
    # Adam forgets the size of a gradient, but for that of the step before.
    chain = Optimiser(clip=1.0).transformation()
    small = {key: jnp.full_like(value, 0.1) for key, value in params.items()}
    huge = {key: jnp.full_like(value, 1e6) for key, value in params.items()}
    update = jax.jit(chain.update)
    _, state = update(huge, chain.init(params), params)
    updates, _ = update(small, state, params)
    assert float(updates["bias"][0]) > 0.5


def test_the_average_starts_fast() -> None:
    how = Optimiser(ema=0.9)
    np.testing.assert_allclose([how.decay(t) for t in (0, 8, 1000)], [0.1, 0.5, 0.9], rtol=1e-6)
