"""Block compressive sensing: `network(y, A) -> x` for images measured block by block with a few matrices.

Every step sees all matrices, each on its share of the batch, so that one network serves all ratios. One network a
ratio: a recipe with one matrix.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from emjax.metrics import psnr
from emjax.operators import Blockwise, Dense, PixelSampling, gaussian
from emjax.training import losses
from emjax.training.tasks.base import Task, arguments

_SLACK = 1e-3  # how far from orthonormal the rows of a file may be


@dataclasses.dataclass(frozen=True)
class _Table:
    """The [task] table. Give `matrices`, files in the data folder, or `ratios`, for random ones from `seed`."""

    matrices: tuple[str, ...] = ()
    ratios: tuple[float, ...] = ()
    block: int = 33
    seed: int = 0
    loss_name: str = "l1"
    symmetry: float = 0.01
    balanced: bool = True


@dataclasses.dataclass(frozen=True, eq=False)
class Block(Task):
    """`matrices`: each m x block^2 with orthonormal rows, for blocks read row-major.

    loss_name: a name in `emjax.training.losses.LOSSES`. symmetry: the weight of the symmetry loss, for networks that
    have one (ISTA-Net). balanced: the mean of the logarithms of the losses at each ratio, so that a per cent of error
    counts the same at every ratio; otherwise the low ratios, whose errors are large, rule.
    """

    matrices: Sequence[Any]
    block: int = 33
    loss_name: str = "l1"
    symmetry: float = 0.01
    balanced: bool = True

    @classmethod
    def from_recipe(cls, table: dict[str, Any], folder: Path | None) -> Self:
        from emjax.training.recipe import parse

        keys = parse(_Table, table, "task")
        if bool(keys.matrices) == bool(keys.ratios):
            raise ValueError("[task] takes either matrices, a list of files, or ratios, a list of numbers")
        if keys.block < 1:
            raise ValueError(f"task.block is the side of a block in pixels, 1 or more, got {keys.block}")
        if keys.matrices:
            if folder is None:
                raise ValueError("task.matrices are files of the data folder, which was not given")
            matrices = [read_matrix(folder / name, keys.block) for name in keys.matrices]
        else:
            matrices = _random(keys)
        task = cls(matrices, keys.block, keys.loss_name, keys.symmetry, keys.balanced)
        task.check()
        return task

    def check(self) -> None:
        n = self.block**2
        for matrix in self.matrices:
            if np.ndim(matrix) != 2 or not 1 <= np.shape(matrix)[0] <= n or np.shape(matrix)[1] != n:
                raise ValueError(f"matrices for blocks of {self.block} pixels are m x {n}, got {np.shape(matrix)}")
            m = np.asarray(matrix, np.float64)
            if not np.abs(m @ m.T - np.eye(len(m))).max() <= _SLACK:
                raise ValueError("the rows of a matrix are not orthonormal; take those of np.linalg.qr(matrix.T)[0].T")
        if self.loss_name not in losses.LOSSES:
            raise ValueError(f"task.loss_name is one of {', '.join(losses.LOSSES)}; got {self.loss_name!r}")
        if not 0 <= self.symmetry < float("inf"):
            raise ValueError(f"task.symmetry is a number, 0 or more, got {self.symmetry}")

    def refuses(self, network: Any) -> str | None:
        takes = "A" in arguments(network) and not hasattr(network, "encode")
        return None if takes else 'networks that invert an operator, such as kind = "ista-net-plus"'

    @property
    def ratios(self) -> list[float]:
        """The sampling ratio of each matrix."""
        return [np.shape(m)[0] / np.shape(m)[1] for m in self.matrices]

    def operator(self, shape: tuple[int, ...]) -> Blockwise:
        """The operators of all matrices for images of `shape`, as one with a batch axis.

        Every matrix is completed to as many orthonormal rows as the largest, and the rows it has not are masked: one
        program for all ratios, and exact norms.
        """
        rows = max(np.shape(m)[0] for m in self.matrices)
        full = np.stack([_complete(np.asarray(m, np.float64), rows) for m in self.matrices])
        mask = np.stack([np.arange(rows) < np.shape(m)[0] for m in self.matrices])
        dense = Dense(full.astype(np.float32), (self.block, self.block), orthonormal=True)
        return Blockwise(PixelSampling(mask.astype(np.float32), ndim=1) @ dense, shape)

    def loss(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, progress: Array, **arrays: Array
    ) -> tuple[Array, dict[str, Array]]:
        k = len(self.matrices)
        if len(images) % k:
            raise ValueError(f"data.batch is a multiple of the number of matrices, {k}; got {len(images)}")
        truth = images.reshape(-1, k, *images.shape[1:])
        A = self.operator(images.shape[1:])
        y, parts = A(truth), {}
        if self.symmetry and hasattr(network, "with_symmetry"):
            x, asymmetry = network.with_symmetry(y, A)
            parts["symmetry"] = asymmetry
        else:
            x, asymmetry = network(y, A), jnp.zeros(())
        each = jax.vmap(losses.LOSSES[self.loss_name], in_axes=1)(x, truth)
        error = jnp.mean(jnp.log(each + 1e-8)) if self.balanced else jnp.mean(each)
        return error + self.symmetry * asymmetry, {"error": jnp.mean(each), **parts}

    def evaluate(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, **arrays: Array
    ) -> dict[str, Array]:
        A = self.operator(images.shape[1:])
        truth = jnp.broadcast_to(images[:, None], (len(images), len(self.matrices), *images.shape[1:]))
        each = psnr(network(A(truth), A), truth).mean(0)
        return {"psnr": each.mean(), **{f"psnr_{r:.2f}": v for r, v in zip(self.ratios, each, strict=True)}}


def read_matrix(path: Path, block: int) -> np.ndarray:
    """The m x block^2 matrix of a .mat file (its only matrix of that width) or a .npy file, as float64.

    Raises ValueError: no such file, or no such matrix in it.
    """
    n = block**2
    try:
        if path.suffix == ".npy":
            found = {path.name: np.load(path, allow_pickle=False)}
        else:
            from scipy.io import loadmat

            found = {name: np.asarray(v) for name, v in loadmat(path).items() if not name.startswith("__")}
    except (OSError, ValueError, TypeError, NotImplementedError) as err:
        raise ValueError(f"{path}: the matrix cannot be read: {err}") from err
    fitting = [v for v in found.values() if v.ndim == 2 and v.shape[1] == n and v.dtype.kind in "fiu"]
    if len(fitting) != 1:
        shapes = ", ".join(f"{name} {v.shape}" for name, v in found.items())
        raise ValueError(f"{path}: expected one matrix of {n} columns (blocks of {block} pixels), got {shapes}")
    return fitting[0].astype(np.float64)


def _random(keys: _Table) -> list[np.ndarray]:
    for ratio in keys.ratios:
        if not 0 < ratio <= 1:
            raise ValueError(f"task.ratios are numbers above 0, up to 1, got {ratio}")
    shape = (keys.block, keys.block)
    each = jax.random.split(jax.random.key(keys.seed), len(keys.ratios))
    return [np.asarray(gaussian(k, shape, ratio=r, orthonormal=True).matrix) for k, r in zip(each, keys.ratios)]


def _complete(matrix: np.ndarray, rows: int) -> np.ndarray:
    """`matrix` with further rows, orthonormal to it and to each other."""
    m, n = matrix.shape
    extra = np.random.default_rng(0).standard_normal((rows - m, n))
    q = np.linalg.qr(np.concatenate([matrix, extra]).T)[0].T
    return np.concatenate([matrix, q[m:]])
