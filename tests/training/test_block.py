"""The task of block sensing: one operator for all matrices, losses that count each ratio, and what it refuses."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emjax.metrics import psnr
from emjax.networks import build
from emjax.operators import BlockSampling
from emjax.training import parameters as par
from emjax.training.tasks import Block
from emjax.training.tasks.block import read_matrix

IMAGES = jnp.asarray(np.random.default_rng(0).random((4, 9, 8)), jnp.float32)
PAIRS = jnp.repeat(IMAGES[:, None], 2, 1)  # each for both matrices
KEY = jax.random.key(0)
NETWORKS: dict[str, dict[str, Any]] = {
    "ista-net-plus": {"phases": 1, "width": 2, "start": "gaussian"},
    "modl": {"phases": 1, "width": 2, "depth": 2, "start": "gaussian"},
}


@functools.cache
def task() -> Block:
    return Block.from_recipe({"ratios": [0.2, 0.5], "block": 4, "loss_name": "mse", "symmetry": 0.5}, None)


def test_one_operator_is_that_of_every_matrix() -> None:
    block = task()
    assert block.ratios == [3 / 16, 0.5]
    y = block.operator((9, 8))(PAIRS)
    assert y.shape == (4, 2, 3, 2, 8)
    for k, matrix in enumerate(block.matrices):
        m = len(matrix)
        alone = BlockSampling(matrix, (9, 8), 4, orthonormal=True)
        np.testing.assert_allclose(y[:, k, ..., :m], alone(IMAGES), atol=1e-5)
        assert not np.asarray(y[:, k, ..., m:]).any()


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_loss_is_that_of_every_ratio(kind: str) -> None:
    block, found = task(), build(kind, NETWORKS[kind])
    graph, state, rest = par.split(found)

    @jax.jit
    def run(state: Any) -> Any:
        def loss(state: Any) -> Any:
            return block.loss(par.join(graph, state, rest), IMAGES, KEY, jnp.zeros(()))

        A = block.operator((9, 8))
        return jax.value_and_grad(loss, has_aux=True)(state), block.evaluate(found, IMAGES, KEY), found(A(PAIRS), A)

    ((value, parts), gradient), scores, x = run(state)
    assert all(bool(jnp.isfinite(v).all()) for v in jax.tree.leaves(gradient))
    assert any(bool(v.any()) for v in jax.tree.leaves(gradient))
    # Image i of the batch is measured by matrix i mod 2.
    errors = [float(jnp.mean((x[k::2, k] - IMAGES[k::2]) ** 2)) for k in range(2)]
    each = [float(psnr(x[:, k], IMAGES).mean()) for k in range(2)]
    symmetry = 0.5 * float(parts["symmetry"]) if kind == "ista-net-plus" else 0
    assert float(value) == pytest.approx(np.mean(np.log(errors)) + symmetry, abs=1e-3)
    assert float(parts["error"]) == pytest.approx(np.mean(errors), rel=1e-3)
    assert [float(scores[f"psnr_{r:.2f}"]) for r in block.ratios] == pytest.approx(each, abs=1e-3)
    assert float(scores["psnr"]) == pytest.approx(np.mean(each), abs=1e-3)


def test_layers_in_bfloat16_leave_the_rest_in_float32() -> None:
    found = build("ista-net-plus", NETWORKS["ista-net-plus"])
    graph, state, rest = par.split(found)
    narrow = par.join(graph, state, rest, "bfloat16")
    A = task().operator((9, 8))
    x = jax.eval_shape(lambda y: narrow(y, A), A(PAIRS))
    assert x.dtype == jnp.float32
    kinds = {str(v.get_value().dtype) for _, v in nnx.to_flat_state(nnx.state(narrow))}
    assert kinds == {"bfloat16", "float32"}


def test_files_of_matrices(tmp_path: Path) -> None:
    from scipy.io import savemat

    rows = np.linalg.qr(np.random.default_rng(1).standard_normal((16, 5)))[0].T
    savemat(tmp_path / "phi.mat", {"phi": rows, "note": "rows"})
    np.save(tmp_path / "phi.npy", rows)
    savemat(tmp_path / "other.mat", {"phi": rows[:, :9]})
    for name in ("phi.mat", "phi.npy"):
        np.testing.assert_array_equal(read_matrix(tmp_path / name, 4), rows)
        assert Block.from_recipe({"matrices": [name], "block": 4}, tmp_path).ratios == [5 / 16]
    with pytest.raises(ValueError, match=r"expected one matrix of 16 columns.*phi \(5, 9\)"):
        read_matrix(tmp_path / "other.mat", 4)
    with pytest.raises(ValueError, match=r"none\.mat: the matrix cannot be read"):
        read_matrix(tmp_path / "none.mat", 4)


@pytest.mark.parametrize(
    "table, words",
    [
        ({}, "takes either matrices"),
        ({"matrices": ["phi.npy"], "ratios": [0.1]}, "takes either matrices"),
        ({"matrices": ["phi.npy"]}, "were? not given|was not given"),
        ({"ratios": [1.5]}, "above 0, up to 1, got 1.5"),
        ({"ratios": [0.5], "block": 0}, "1 or more, got 0"),
        ({"ratios": [0.5], "block": 4, "loss_name": "l3"}, "task.loss_name is one of"),
        ({"ratios": [0.5], "block": 4, "symmetry": -1.0}, "0 or more, got -1"),
    ],
)
def test_refused(table: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Block.from_recipe(table, None)


def test_rows_that_are_not_orthonormal_and_batches_that_do_not_divide_are_refused() -> None:
    with pytest.raises(ValueError, match="not orthonormal"):
        Block([np.ones((2, 16))], 4).check()
    with pytest.raises(ValueError, match="m x 16, got"):
        Block([np.ones((2, 9))], 4).check()
    with pytest.raises(ValueError, match="multiple of the number of matrices, 2; got 3"):
        task().loss(None, IMAGES[:3], KEY, jnp.zeros(()))
