"""Adaptive scans: exact budgets, no pixel twice, more pixels where there is more to see, pure transformations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.acquisition import DENSITIES, adaptive, jittered_grid, poisson_disc, second_pass, uniform

KEY = jax.random.key(8)
SHAPE = (64, 72)
# Flat on the left, stripes on the right.
X = jnp.where(jnp.arange(72) < 36, 0.5, 0.5 + 0.4 * jnp.sin(jnp.arange(72) + 0.3 * jnp.arange(64)[:, None]))
every = pytest.mark.parametrize("name", list(DENSITIES))


def scan(mask: jax.Array) -> jax.Array:
    return jnp.where(mask, X, jnp.nan)


@pytest.mark.slow
@every
@pytest.mark.parametrize("share", [0.3, 0.7])
def test_both_passes_keep_the_budget_and_look_where_there_is_detail(name: str, share: float) -> None:
    seen = []

    def watched(mask: jax.Array) -> jax.Array:
        seen.append(mask)
        return scan(mask)

    y, mask = adaptive(KEY, watched, SHAPE, 0.15, share=share, density=DENSITIES[name])
    coarse, fine = seen
    assert int(mask.sum()) == round(0.15 * 64 * 72)
    assert int(coarse.sum()) == round(share * 0.15 * 64 * 72)
    assert not (coarse & fine).any()
    np.testing.assert_array_equal(mask, coarse | fine)
    np.testing.assert_array_equal(y, jnp.where(mask, X, 0))
    assert float(fine[:, 40:].mean()) > 2 * float(fine[:, :32].mean())


@every
def test_densities_are_finite_scale_free_and_blind_off_the_mask(name: str) -> None:
    mask = uniform(KEY, SHAPE, 0.1)
    d = DENSITIES[name](scan(mask), mask)
    assert d.shape == SHAPE and np.isfinite(d).all() and (d >= 0).all()
    assert float(d[:, 40:].mean()) > 2 * float(d[:, :30].mean())
    scaled = DENSITIES[name](7 * scan(mask) - 3, mask)
    np.testing.assert_allclose(scaled / scaled.mean(), d / d.mean(), rtol=0.05, atol=0.02)
    for odd in (jnp.zeros((1, 1)), jnp.ones((1, 9)), jnp.ones((9, 1))):
        assert np.isfinite(DENSITIES[name](odd, jnp.ones(odd.shape))).all()
        assert np.isfinite(DENSITIES[name](odd, jnp.zeros(odd.shape))).all()


def test_a_flat_scan_or_a_mix_of_one_is_even() -> None:
    coarse = jittered_grid(KEY, SHAPE, 0.05)
    flat = second_pass(KEY, jnp.where(coarse, 0.7, 0), coarse, 0.15)
    mixed = second_pass(KEY, scan(coarse), coarse, 0.15, mix=1.0)
    for mask in (flat, mixed):
        assert abs(float(mask[:, :36].mean()) / float(mask[:, 36:].mean()) - 1) < 0.2


def test_a_second_pass_keeps_off_the_first() -> None:
    from scipy.spatial import cKDTree

    coarse = poisson_disc(KEY, SHAPE, 0.05)
    fine = second_pass(KEY, scan(coarse), coarse, 0.1, mix=1.0)
    nearest = cKDTree(np.argwhere(coarse)).query(np.argwhere(fine))[0]
    assert nearest.min() > 1.4  # spacing 3.2 pixels


@every
def test_a_budget_that_is_spent_leaves_nothing(name: str) -> None:
    coarse = uniform(KEY, SHAPE, 0.2)
    assert not second_pass(KEY, scan(coarse), coarse, 0.1, density=DENSITIES[name]).any()
    everything = second_pass(KEY, scan(coarse), coarse, 1.0, density=DENSITIES[name])
    np.testing.assert_array_equal(everything, ~coarse)


@pytest.mark.slow
def test_scans_jit_map_and_export() -> None:
    run = functools.partial(adaptive, scan=lambda m: jnp.where(m, X, 0), shape=SHAPE, ratio=0.1)
    keys = jax.random.split(KEY, 2)
    ys, masks = jax.jit(jax.vmap(lambda k: run(k)))(keys)
    for key, y, mask in zip(keys, ys, masks, strict=True):
        np.testing.assert_array_equal(mask, run(key)[1])
        np.testing.assert_array_equal(y, run(key)[0])
    assert (masks[0] != masks[1]).any()
    jax.export.export(jax.jit(lambda k: run(k)), platforms=["cpu", "cuda", "tpu"])(KEY)


def test_errors_say_what_is_wrong() -> None:
    mask = uniform(KEY, (8, 8), 0.3)
    with pytest.raises(ValueError, match="vmap"):
        second_pass(KEY, jnp.zeros((2, 8, 8)), mask, 0.5)
    with pytest.raises(ValueError, match="mix"):
        second_pass(KEY, mask, mask, 0.5, mix=1.5)
    with pytest.raises(ValueError, match="share"):
        adaptive(KEY, scan, SHAPE, 0.1, share=1.0)
