"""Problems in the coefficients of their term: `z = W x` instead of `x`, a matrix multiplied by the transform once.

    minimise 1/2 |A x - y|^2 + g(W x)     is     minimise 1/2 |B z - y|^2 + g(z),   B = A W.H / k,

for a square `W` with `W.H W = W W.H = k I`. Where `A` is a matrix, or one for all blocks of an image, `B` is one too:
a step is then two products with it, without a transform, and coefficients may have step sizes of their own.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax._pytree import pytree_dataclass, static
from emjax.functionals import L1, LeastSquares
from emjax.operators import Blockwise, Dense, Identity, LinearOperator
from emjax.operators.dense import gram_bound
from emjax.solvers.certificate import Certificate, norm, units
from emjax.solvers.problem import Problem, Term


@pytree_dataclass
class _Known(Dense):
    """A matrix with its Gram matrix and its norm: they would be computed anew at each certificate."""

    gram: Any = None
    norm: Any = None

    @classmethod
    def of(cls, matrix: Array) -> "_Known":
        # Entries are brought near 1 first, because squares of small float32 numbers vanish.
        largest = positive(jnp.max(jnp.abs(matrix)))
        near = matrix / largest
        gram = jnp.matmul(near, jnp.conj(near.T), precision="highest")
        norm = Dense(matrix)._upwards(gram_bound(gram) * largest)
        return cls(matrix, matrix.shape[-1:], gram=gram * largest**2, norm=norm)

    def norm_bound(self) -> Array:
        return self.norm

    def row_gram(self) -> Array:
        return self.gram


@pytree_dataclass
class Coefficients:
    """`problem` in `z = W x`, a vector of `blocks` equal parts that share the matrix `B`."""

    problem: Problem
    transform: LinearOperator  # W
    isometry: Array  # k
    blocks: int = static()

    @property
    def matrix(self) -> Array:
        """`B`, of a block."""
        A = self.problem.data.A
        assert isinstance(A, Blockwise) and isinstance(A.op, Dense)
        return A.op.matrix

    @property
    def weight(self) -> Array:
        """The weights of the coefficients, `(blocks, n)`."""
        g = self.problem.terms[0].functional
        assert isinstance(g, L1)
        return jnp.broadcast_to(g.weight, (self.blocks, self.matrix.shape[-1]))

    def of_image(self, certificate: Certificate, z: Array) -> Certificate:
        """The certificate of the image of `z`, which rounding keeps from having exactly these coefficients."""
        weight = jnp.where(jnp.isfinite(self.weight), self.weight, 0)
        # Of a transform that is zero nothing comes back, and `B` is not the matrix.
        gap = jnp.where(self.isometry > 0, certificate.gap, jnp.inf)
        allowance = certificate.allowance + units(z) * norm(z) * norm(weight)
        return certificate._replace(gap=gap, allowance=allowance)

    def analyse(self, x: Array) -> Array:
        return self.transform.forward(x).ravel()

    def synthesise(self, z: Array) -> Array:
        return self.transform.adjoint(z.reshape(self.transform.out_shape)) / positive(self.isometry)


def in_coefficients(problem: Problem) -> Coefficients | None:
    """The same problem in coefficients, or None where that takes more than a product of matrices."""
    data = problem.data
    if not isinstance(data, LeastSquares) or len(problem.terms) != 1 or problem.box is not None:
        return None
    if data.weight is not None:
        return None
    g, W, A = problem.terms[0].functional, problem.terms[0].K, data.A
    if not isinstance(g, L1) or math.prod(W.out_shape) != math.prod(W.in_shape):
        return None
    if (k := W.gram_scale()) is None:
        return None
    one, block = A, W
    if isinstance(A, Blockwise):
        if not isinstance(W, Blockwise) or W.op.in_shape != A.op.in_shape:
            return None
        if any(n % b for n, b in zip(A.shape, A.op.in_shape, strict=True)):
            return None
        one, block = A.op, W.op
    if not isinstance(one, Dense):
        return None
    isometry = k.astype(jnp.finfo(one.matrix.dtype).dtype)
    k = positive(isometry)
    rows = jnp.conj(one.matrix).reshape(-1, *one.in_shape)
    B = jnp.conj(jax.vmap(block.forward)(rows).reshape(one.matrix_shape)) / k
    n, blocks = B.shape[-1], math.prod(A.in_shape) // B.shape[-1]
    weight = g.weight
    if weight.ndim:
        weight = jnp.broadcast_to(weight, W.out_shape).reshape(blocks, n)
    matrix = _Known.of(B)
    inside = Problem(
        LeastSquares(Blockwise(matrix, (blocks * n,)), data.y.reshape(blocks, -1)),
        Term(L1(weight, 2), Blockwise(Identity((n,)), (blocks * n,))),
    )
    return Coefficients(inside, W, isometry, blocks)


def positive(k: Array) -> Array:
    """`k`, or 1 for a transform that is zero."""
    return jnp.where(k > 0, k, 1)


def penalised_gram(B: Array, c: Array) -> Array:
    """`B C^-1 B.H` for one positive `c` a column."""
    return jnp.matmul(B / c, jnp.conj(B.T), precision="highest")
