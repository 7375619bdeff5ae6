"""Hadamard, scrambled, dense and block-wise sampling against SciPy, dense matrices and published ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
from operator_registry import Numbers, enable_x64, quick_jit

from emjax import operators as ops


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


@pytest.mark.parametrize("shape", [(1,), (2,), (8,), (16,), (512,), (4, 32), (2, 16, 4)])
def test_hadamard_agrees_with_scipy(shape: tuple[int, ...]) -> None:
    natural = sequency = x = normal(*shape)
    for axis, n in enumerate(shape):
        h = scipy.linalg.hadamard(n) / np.sqrt(n)
        by_changes = h[np.argsort((np.diff(h, axis=1) != 0).sum(1))]
        natural = np.moveaxis(np.tensordot(h, natural, (1, axis)), 0, axis)
        sequency = np.moveaxis(np.tensordot(by_changes, sequency, (1, axis)), 0, axis)
    with enable_x64():
        y, z = quick_jit(lambda x: (ops.Hadamard(shape)(x), ops.Hadamard(shape, "sequency")(x)))(x)
    np.testing.assert_allclose(y, natural, atol=1e-13)
    np.testing.assert_allclose(z, sequency, atol=1e-13)


def test_scramble_is_a_permutation_of_flipped_pixels() -> None:
    signs, places = np.asarray([[1, -1, 1], [1, 1, -1]]), np.asarray([[3, 1, 0], [5, 4, 2]])
    np.testing.assert_array_equal(
        ops.Scramble((2, 3), signs, places)(np.arange(6.0).reshape(2, 3)), [[3, -1, 0], [-5, 4, 2]]
    )
    drawn = ops.Scramble.random(jax.random.key(1), (4, 8))
    assert not np.array_equal(drawn(jnp.ones((4, 8))), jnp.ones((4, 8))) and len(set(np.ravel(drawn.permutation))) == 32
    unflipped = ops.Scramble.random(jax.random.key(1), (4, 8), flip=False)
    np.testing.assert_array_equal(unflipped.permutation, drawn.permutation)
    assert unflipped.signs is None and ops.Scramble.random(jax.random.key(1), (4, 8), permute=False).permutation is None


def test_a_scramble_differentiates_as_a_gather() -> None:
    scramble, x = Numbers(0).scramble(3, 4), jnp.asarray(normal(3, 4), jnp.float32)
    slope = jax.jit(jax.grad(lambda s, x: jnp.sum(jnp.sin(s.forward(x))), argnums=1))
    np.testing.assert_array_equal(slope(scramble, x), scramble.H(jnp.cos(scramble(x))))
    assert "scatter" not in slope.lower(scramble, x).as_text()
    _, pushed = jax.jvp(scramble.forward, (x,), (x,))
    np.testing.assert_array_equal(pushed, scramble(x))


def test_what_a_scrambled_transform_leaves_out_is_not_read() -> None:
    mask = Numbers(0).mask(8, 8)
    op = ops.SubsampledHadamard(mask, Numbers(0).scramble(8, 8), order="sequency")
    y = np.where(np.asarray(mask) != 0, 1.0, np.nan)
    np.testing.assert_array_equal(op.measured(y), mask)
