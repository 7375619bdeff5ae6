"""Dense sampling: one matrix for the whole item, or the same one for every block of it.

`y = Phi x` with independent Gaussian or +-1 entries, or with orthonormal rows, is the textbook measurement of
compressive sensing; block by block it costs memory for one block only: L. Gan, Block compressed sensing of natural
images, Int. Conf. on Digital Signal Processing (2007) 403-406.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.operators.base import LinearOperator, Shape, as_float, check_shape, default_float, map_batch, round_up, unit

# The bound of the norm by powers of the Gram matrix costs five products: of 1000 x 10000, 0.2 s on two CPU cores.
_GRAM_LIMIT = 2048


@pytree_dataclass
class Dense(LinearOperator):
    """`y = Phi x` for items of `shape`, read row-major as vectors; `Phi` is m x n, real or complex.

    `shape` is by default `(n,)`. The matrix is a leaf: it can be trained, and leading axes `(*batch, m, n)` give each
    item its own. With `orthonormal` its rows are promised to be so (`Phi Phi.H = I`), which gives an exact norm and a
    closed-form resolvent. Otherwise `norm_bound` is at most `k^(1/64)` times the norm (1.08 times for a shorter side
    of k = 100), up to k = 2048; above, that of a random matrix is several times too large.

    Raises ValueError for a shape of other than n elements, or rows that break the promise (where they are known).
    """

    matrix: Any = leaf("matrix_shape")
    shape: Shape | None = static(default=None)
    orthonormal: bool = static(default=False)

    def __post_init__(self) -> None:
        matrix = as_float(self.matrix)
        if matrix.ndim < 2 or 0 in matrix.shape:
            raise ValueError(f"a matrix has two axes (m, n), batch axes in front, got shape {matrix.shape}")
        n = matrix.shape[-1]
        shape = check_shape((n,) if self.shape is None else self.shape)
        if math.prod(shape) != n:
            raise ValueError(f"a matrix of {n} columns takes items of {n} elements, got the shape {shape}")
        assign(self, matrix=matrix, shape=shape, orthonormal=bool(self.orthonormal))
        if self.orthonormal and not isinstance(matrix, jax.core.Tracer):
            _check_rows(np.asarray(matrix), 2 * self._allowance())

    @property
    def matrix_shape(self) -> Shape:
        return self.matrix.shape[-2:]

    @property
    def in_shape(self) -> Shape:
        assert self.shape is not None
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return self.matrix.shape[-2:-1]

    @property
    def in_dtype(self) -> np.dtype:
        return self.matrix.dtype

    def forward(self, x: Array) -> Array:
        return jnp.matmul(self.matrix, x.ravel(), precision="highest")

    def adjoint(self, y: Array) -> Array:
        # From the left: on a CPU 60 to 100 times faster than the product with the transpose.
        return jnp.conj(jnp.matmul(jnp.conj(y), self.matrix, precision="highest")).reshape(self.in_shape)

    def _allowance(self) -> float:
        """How far from orthonormal rounding leaves rows: each entry is off by a part of itself."""
        return 4 * (2 + math.sqrt(sum(self.matrix_shape))) * float(jnp.finfo(self.in_dtype).eps)

    def norm_bound(self) -> Array:
        if self.orthonormal:
            return jnp.asarray(1 + self._allowance(), jnp.finfo(self.in_dtype).dtype)
        # The least of three true bounds, without power iteration: Frobenius, sqrt(|A|_1 |A|_inf), powers of the Gram
        # matrix. Entries are brought near 1 first, because squares of small float32 numbers vanish.
        largest = jnp.max(jnp.abs(self.matrix), (-2, -1), keepdims=True)
        matrix = self.matrix / jnp.where(largest > 0, largest, 1)
        a = jnp.abs(matrix)
        schur = jnp.sqrt(jnp.max(jnp.sum(a, -1), -1) * jnp.max(jnp.sum(a, -2), -1))
        bound = jnp.minimum(jnp.sqrt(jnp.sum(jnp.sum(a * a, -1), -1)), schur)
        if min(self.matrix_shape) <= _GRAM_LIMIT:
            bound = jnp.minimum(bound, _schatten(matrix))
        return self._upwards(jnp.max(bound * largest[..., 0, 0]))

    def _upwards(self, bound: Array) -> Array:
        return round_up(bound, 4 * sum(self.matrix_shape))

    def row_scale(self) -> Array | None:
        return unit() if self.orthonormal else None

    def gram_scale(self) -> Array | None:
        m, n = self.matrix_shape
        return unit() if self.orthonormal and m == n else None

    def gram_diagonal(self) -> Array | None:
        return self.gram_scale()

    @property
    def has_row_gram(self) -> bool:
        return self.matrix_shape[0] <= _GRAM_LIMIT

    def row_gram(self) -> Array:
        return jnp.matmul(self.matrix, jnp.conj(jnp.swapaxes(self.matrix, -1, -2)), precision="highest")

    def absolute_sums(self) -> tuple[Array, Array]:
        size = jnp.abs(self.matrix)
        return jnp.sum(size, -1), jnp.sum(size, -2).reshape(*size.shape[:-2], *self.in_shape)


def _schatten(a: Array) -> Array:
    """`(sum_i sigma_i^64)^(1/64) >= sigma_1` over the singular values, by squaring the Gram matrix four times."""
    a = jnp.swapaxes(a, -1, -2) if a.shape[-2] > a.shape[-1] else a
    return gram_bound(jnp.matmul(a, jnp.conj(jnp.swapaxes(a, -1, -2)), precision="highest"))


def gram_bound(g: Array) -> Array:
    """The same from the Gram matrix, `(sum_i sigma_i^64)^(1/64)` with `sigma_i^2` the eigenvalues of `g`."""
    bound = jnp.ones(())
    for k in range(5):
        # g = s * (g / s), so that no power over- or underflows: sigma_1^2 = s_0 s_1^(1/2) s_2^(1/4) ...
        s = jnp.sqrt(jnp.sum(jnp.abs(g) ** 2, (-2, -1), keepdims=True))
        bound, g = bound * s ** (0.5 ** (k + 1)), g / jnp.where(s > 0, s, 1)
        g = jnp.matmul(g, g, precision="highest") if k < 4 else g
    return bound[..., 0, 0]


def _check_rows(matrix: np.ndarray, tolerance: float) -> None:
    m, n = matrix.shape[-2:]
    # One random vector finds rows that are not orthonormal almost surely, at the price of two products.
    v = np.random.default_rng(0).standard_normal(m)
    matrix = matrix.astype(np.result_type(matrix.dtype, np.float64))
    back = np.einsum("...ij,...j->...i", matrix, np.einsum("...ij,i->...j", matrix.conj(), v))
    error = np.max(np.linalg.norm(back - v, axis=-1)) / np.linalg.norm(v)
    if m > n or not error <= tolerance:
        raise ValueError(
            f"the rows of this {m} x {n} matrix are not orthonormal: |Phi Phi.H v - v| is {error:.1e} |v|, expected at "
            f"most {tolerance:.1e}; leave orthonormal=False, or take the rows of np.linalg.qr(matrix.T)[0].T"
        )


def gaussian(
    key: Array, shape: Sequence[int], *, ratio: float | None = None, rows: int | None = None, orthonormal: bool = False
) -> Dense:
    """`Dense` with m independent rows of normal entries of variance `1/m`, so that `E |Phi x|^2 = |x|^2`.

    m is `rows`, or `ratio` times the number of elements of one item, rounded, but at least 1. With `orthonormal` the
    rows span the same random subspace, orthonormalised (`E |Phi x|^2 = m/n |x|^2`).
    """
    shape, m = check_shape(shape), _rows(shape, ratio, rows, orthonormal)
    return _random(jax.random.normal(key, (m, math.prod(shape)), default_float()), shape, orthonormal)


def bernoulli(
    key: Array, shape: Sequence[int], *, ratio: float | None = None, rows: int | None = None, orthonormal: bool = False
) -> Dense:
    """`Dense` with m rows of independent entries `+-1/sqrt(m)`; the arguments are those of `gaussian`.

    Orthonormalised rows no longer hold two values only.
    """
    shape, m = check_shape(shape), _rows(shape, ratio, rows, orthonormal)
    return _random(jax.random.rademacher(key, (m, math.prod(shape)), default_float()), shape, orthonormal)


def _rows(shape: Shape, ratio: float | None, rows: int | None, orthonormal: bool) -> int:
    n = math.prod(shape)
    if (ratio is None) == (rows is None):
        raise ValueError(f"say how many rows there are, either by ratio= or by rows=, got ratio={ratio}, rows={rows}")
    m = rows if ratio is None else max(1, round(ratio * n))
    assert m is not None
    if m < 1 or (orthonormal and m > n):
        raise ValueError(f"items of {n} elements have 1 to {n} orthonormal rows (others any number from 1), got {m}")
    return m


def _random(entries: Array, shape: Shape, orthonormal: bool) -> Dense:
    if orthonormal:
        return Dense(jnp.linalg.qr(entries.T)[0].T, shape, orthonormal=True)
    return Dense(entries / math.sqrt(entries.shape[0]), shape)


@pytree_dataclass
class Blockwise(LinearOperator):
    """The same operator on every non-overlapping block of items of `shape`; out shape `(*grid, *op.out_shape)`.

    The blocks have the operator's `in_shape` and are taken in row-major order; the grid has
    `ceil(shape[a] / block[a])` of them along axis a. Items that are no multiple of the block end in zeros: with P the
    padding, `A = (I kron op) P`. Then `A A.H` is no multiple of I even where the operator's is, but every other closed
    form stays. `Blockwise(DCT((8, 8)), shape)` is the transform of JPEG.
    """

    op: LinearOperator
    shape: Shape = static()

    def __post_init__(self) -> None:
        shape = check_shape(self.shape)
        if not isinstance(self.op, LinearOperator):
            raise TypeError(f"Blockwise takes the linear operator of one block, got {type(self.op).__name__}")
        if len(shape) != len(self.op.in_shape):
            raise ValueError(
                f"blocks have as many axes as the items they tile, got blocks of {self.op.in_shape} for {shape}"
            )
        assign(self, shape=shape)

    @property
    def grid(self) -> Shape:
        """The number of blocks along each axis."""
        return tuple(-(-n // b) for n, b in zip(self.shape, self.op.in_shape, strict=True))

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return (*self.grid, *self.op.out_shape)

    @property
    def in_dtype(self) -> np.dtype:
        return self.op.in_dtype

    @property
    def out_dtype(self) -> np.dtype:
        return self.op.out_dtype

    def split(self, x: Array) -> Array:
        """`(blocks, *block)`: the blocks of one item in row-major order, padded with zeros."""
        ndim, block = len(self.shape), self.op.in_shape
        x = jnp.pad(x, [(0, g * b - n) for g, b, n in zip(self.grid, block, self.shape, strict=True)])
        x = x.reshape([k for pair in zip(self.grid, block, strict=True) for k in pair])
        return x.transpose([*range(0, 2 * ndim, 2), *range(1, 2 * ndim, 2)]).reshape(-1, *block)

    def join(self, blocks: Array) -> Array:
        """The item of shape `shape` that these blocks make up, the padding cut off."""
        ndim, block = len(self.shape), self.op.in_shape
        x = blocks.reshape(*self.grid, *block)
        x = x.transpose([a for pair in zip(range(ndim), range(ndim, 2 * ndim), strict=True) for a in pair])
        x = x.reshape([g * b for g, b in zip(self.grid, block, strict=True)])
        return x[tuple(slice(0, n) for n in self.shape)]

    def forward(self, x: Array) -> Array:
        return jax.vmap(self.op.forward)(self.split(x)).reshape(self.out_shape)

    def adjoint(self, y: Array) -> Array:
        return self.join(jax.vmap(self.op.adjoint)(y.reshape(-1, *self.op.out_shape)))

    def norm_bound(self) -> Array:
        return self.op.norm_bound()

    def gram_diagonal(self) -> Array | None:
        d = self.op.gram_diagonal()
        if d is None or d.ndim == 0:
            return d
        tiled = jnp.tile(d, (1,) * (d.ndim - len(self.shape)) + self.grid)
        return tiled[(..., *(slice(0, n) for n in self.shape))]

    def gram_scale(self) -> Array | None:
        return self.op.gram_scale()

    def absolute_sums(self) -> tuple[Array, Array] | None:
        sums = self.op.absolute_sums()
        if sums is None:
            return None
        rows, columns = (
            jnp.broadcast_to(s, (math.prod(self.grid), *shape))
            for s, shape in zip(sums, (self.op.out_shape, self.op.in_shape), strict=True)
        )
        return rows.reshape(self.out_shape), self.join(columns)

    @property
    def _padded(self) -> bool:
        return any(n % b for n, b in zip(self.shape, self.op.in_shape, strict=True))

    def row_scale(self) -> Array | None:
        return None if self._padded else self.op.row_scale()

    def measured(self, y: Array) -> Array:
        def one(op: LinearOperator, y: Array) -> Array:
            return jax.vmap(op.measured)(y.reshape(-1, *op.out_shape)).reshape(y.shape)

        return map_batch(one, self.op, y, self.out_shape)

    @property
    def has_resolvent(self) -> bool:
        return super().has_resolvent or (self.op.has_resolvent and not self._padded)

    def resolvent(self, v: Array, tau: Array) -> Array:
        if super().has_resolvent or not self.has_resolvent:
            return super().resolvent(v, tau)
        return self.join(jax.vmap(lambda block: self.op.resolvent(block, tau))(self.split(v)))

    @property
    def has_row_gram(self) -> bool:
        return self.op.has_row_gram and not self._padded

    def row_gram(self) -> Array:
        return self.op.row_gram()


def BlockSampling(
    phi: Any, image_shape: Sequence[int], block: int | Sequence[int], *, orthonormal: bool = False
) -> Blockwise:
    """`y[i, j] = phi x_ij` for every block `x_ij` of an image: `phi` is m x (elements of a block), read row-major.

    `block` is the side of a square (or cubic) block, or its shape; out shape `(*grid, m)`. Images that are no multiple
    of the block end in zeros, as in `Blockwise`. With `orthonormal` the rows of `phi` are promised to be so.
    """
    shape = check_shape(image_shape)
    block = check_shape((block,) * len(shape) if isinstance(block, int) else block)
    return Blockwise(Dense(phi, block, orthonormal), shape)
