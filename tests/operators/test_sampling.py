"""Hadamard, scrambled, dense and block-wise sampling against SciPy, dense matrices and published ones."""

import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.io
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


@pytest.mark.parametrize("make", [ops.gaussian, ops.bernoulli])
def test_random_matrices(make) -> None:
    plain = make(jax.random.key(0), (16, 16), ratio=0.25)
    assert plain.out_shape == (64,) and plain.in_shape == (16, 16) and plain.row_scale() is None
    # E |Phi x|^2 = |x|^2: the squared entries add up to n.
    assert abs(np.sum(np.square(plain.matrix)) / 256 - 1) < 0.02
    if make is ops.bernoulli:
        assert set(np.abs(np.ravel(plain.matrix))) == {0.125}
    rows = make(jax.random.key(0), (16, 16), rows=64, orthonormal=True)
    np.testing.assert_allclose(rows.matrix @ rows.matrix.T, np.eye(64), atol=2e-6)
    # The same subspace: what the plain rows measure, the orthonormal ones keep.
    np.testing.assert_allclose(plain.matrix @ (rows.matrix.T @ rows.matrix), plain.matrix, atol=2e-6)
    drawn = jax.jit(lambda key: make(key, (4, 4), rows=3, orthonormal=True).matrix)(jax.random.key(1))
    np.testing.assert_allclose(drawn, make(jax.random.key(1), (4, 4), rows=3, orthonormal=True).matrix, atol=1e-6)
    assert make(jax.random.key(0), (3, 3), ratio=0.01).out_shape == (1,)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (5, 40), (40, 5), (300, 300)])
def test_the_norm_bound_of_a_dense_matrix_is_never_below(m: int, n: int) -> None:
    rng = np.random.default_rng(0)
    norm_bound = quick_jit(lambda a: ops.Dense(a).norm_bound())
    # Where a bound is attained: rank 1 (all of them), a scaled permutation (Schur), and a random one.
    permutation = 3 * np.eye(max(m, n))[rng.permutation(max(m, n))][:m, :n]
    for matrix in (np.ones((m, n)), permutation, rng.standard_normal((m, n)), np.outer(rng.random(m), rng.random(n))):
        for scale in (1, 1e-12, 1e12):
            single = (scale * matrix).astype(np.float32)
            norm = np.linalg.norm(single.astype(np.float64), 2)
            assert norm <= float(norm_bound(single)) <= 1.1 * norm
    assert ops.Dense(np.zeros((m, n))).norm_bound() == 0


def test_a_matrix_with_many_rows_has_a_cheaper_bound() -> None:
    matrix = np.random.default_rng(0).standard_normal((2049, 2050), np.float32)
    assert 90 < float(ops.Dense(matrix).norm_bound()) < 2100


def test_rows_of_float32_keep_the_promise_to_be_orthonormal() -> None:
    rows = np.linalg.qr(normal(400, 300))[0].T.astype(np.float32)
    op = ops.Dense(rows, (20, 20), orthonormal=True)
    assert np.linalg.norm(rows.astype(float), 2) <= float(op.norm_bound()) < 1.0001
    with pytest.raises(ValueError, match="not orthonormal"):
        ops.Dense(rows * (1 + 1e-3), (20, 20), orthonormal=True)


def test_blocks_are_row_major_and_end_in_zeros() -> None:
    x = np.arange(35.0).reshape(5, 7)
    phi = normal(3, 6).astype(np.float32)
    op = ops.BlockSampling(phi, x.shape, (2, 3))
    padded = np.pad(x, ((0, 1), (0, 2)))
    want = [[phi @ padded[i : i + 2, j : j + 3].ravel() for j in range(0, 9, 3)] for i in range(0, 6, 2)]
    assert op.grid == (3, 3) and op.out_shape == (3, 3, 3)
    np.testing.assert_allclose(op(x), want, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(op.join(op.split(x)), x)


def test_what_a_block_leaves_out_is_not_read() -> None:
    mask = np.asarray([[1.0, 0.0], [0.0, 1.0]])
    op = ops.Blockwise(ops.PixelSampling(mask), (4, 4))
    tiles = np.broadcast_to(mask, (3, 2, 2, 2, 2))
    np.testing.assert_array_equal(op.measured(np.where(tiles != 0, 1.0, np.nan)), tiles)


def test_published_block_matrix() -> None:
    folder = Path(os.environ.get("EMJAX_DATA", Path(__file__).resolve().parents[3] / "shared" / "data"))
    path = folder / "reconnet-phi" / "phi_0_10_1089.mat"
    if not path.exists():
        pytest.skip("no published sampling matrices: set EMJAX_DATA to a folder with reconnet-phi/phi_0_10_1089.mat")
    phi = scipy.io.loadmat(path)["phi"]
    assert phi.shape == (109, 1089) and np.abs(phi @ phi.T - np.eye(109)).max() < 1e-14
    image = np.random.default_rng(0).random((66, 70))
    with enable_x64():
        op = ops.BlockSampling(phi, (66, 66), 33, orthonormal=True)
        assert op.row_scale() == 1 and op.norm_bound() >= np.linalg.norm(phi, 2)
        y, padded = op(image[:, :66]), ops.BlockSampling(phi, image.shape, 33, orthonormal=True)
        np.testing.assert_allclose(y[1, 0], phi @ image[33:, :33].reshape(1089), atol=1e-12)
        np.testing.assert_allclose(op(op.H(y)), y, atol=1e-12)
        assert padded.out_shape == (2, 3, 109) and padded.row_scale() is None
        np.testing.assert_allclose(padded(image)[:, :2], y, atol=1e-12)
    assert ops.BlockSampling(phi.astype(np.float32), (66, 66), 33, orthonormal=True).norm_bound() < 1.0001
