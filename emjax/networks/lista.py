"""LISTA: the steps of ISTA for sparse vectors, with trained matrices in place of those of the operator.

    x_1 = soft(W_1 y, t_1),      x_k = soft(W_k y + S_k x_(k-1), t_k)

ISTA for `1/2 |A x - y|^2 + weight |x|_1` has `W = A.T / L`, `S = I - A.T A / L`, `t = weight / L`, with `L = |A|^2`.
`LISTA.from_operator(A)` begins there, so that untrained it is so many steps of ISTA. Tied, all layers share W, S and t
(the published network); untied, each has its own.
Source: K. Gregor, Y. LeCun, Learning fast approximations of sparse coding, ICML 2010.
"""

import math
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array

from emjax._pytree import batch_axes
from emjax.acquisition.noise import Noise
from emjax.functionals import L1
from emjax.networks.base import Network
from emjax.operators import LinearOperator


class LISTA(Network):
    """`x = network(y, A)` for real items of `n` elements from `m` measurements: for the `A` it is trained for.

    The matrices are its own: of the operator at the call only the shapes count. A new network begins as ISTA for a
    random Gaussian matrix; `from_operator` is what to begin with.
    """

    kind = "lista"

    def __init__(self, m: int, n: int, layers: int = 16, tied: bool = True, *, rngs: nnx.Rngs) -> None:
        if min(m, n, layers) < 1:
            raise ValueError(f"LISTA takes m, n and layers of 1 or more, got {m}, {n} and {layers}")
        self.m, self.n, self.layers, self.tied = m, n, layers, tied
        matrix = jax.random.normal(rngs.params(), (m, n)) / math.sqrt(m)
        # The norm of a large Gaussian matrix: no decomposition where only shapes are asked for.
        self._begin(matrix, (1 + math.sqrt(n / m)) ** 2, 0.1)

    @classmethod
    def from_operator(cls, A: LinearOperator, layers: int = 16, tied: bool = True, weight: float = 0.1) -> Self:
        """The network that takes `layers` steps of ISTA for `1/2 |A x - y|^2 + weight |x|_1`. On the host.

        Raises ValueError for a complex operator, one with batch axes, or a weight below 0.
        """
        m, n = math.prod(A.out_shape), math.prod(A.in_shape)
        network = cls(m, n, layers, tied, rngs=nnx.Rngs(0))
        if reason := network.supports(A):
            raise ValueError(reason)
        if not weight >= 0:
            raise ValueError(f"the weight of the l1 norm is 0 or more, got {weight}")
        if any(jax.tree.leaves(batch_axes(A))):
            raise ValueError(f"LISTA is made for one matrix, got {A} with batch axes")
        matrix = A(jnp.eye(n, dtype=A.in_dtype).reshape(n, *A.in_shape)).reshape(n, m).T
        network._begin(matrix, float(np.linalg.norm(np.asarray(matrix, np.float64), 2)) ** 2, weight)
        return network

    def _begin(self, matrix: Array, lipschitz: float, weight: float) -> None:
        scale = 1 / lipschitz if lipschitz else 0.0
        step = scale * matrix.T
        mix = jnp.eye(self.n, dtype=matrix.dtype) - jnp.matmul(step, matrix, precision="highest")
        count, mixes = (1, min(1, self.layers - 1)) if self.tied else (self.layers, self.layers - 1)
        self.encoders = nnx.Param(jnp.tile(step, (count, 1, 1)))
        self.mixes = nnx.Param(jnp.tile(mix, (mixes, 1, 1)))
        self.thresholds = nnx.Param(jnp.full((count, self.n), weight * scale, matrix.dtype))

    def supports(self, A: LinearOperator) -> str | None:
        if jnp.issubdtype(A.in_dtype, jnp.complexfloating) or jnp.issubdtype(A.out_dtype, jnp.complexfloating):
            return f"LISTA takes real vectors and measurements, not those of {A}"
        if (math.prod(A.out_shape), math.prod(A.in_shape)) != (self.m, self.n):
            return (
                f"this LISTA takes {self.m} measurements of {self.n} elements, {A} gives {math.prod(A.out_shape)} of "
                f"{math.prod(A.in_shape)}; make one by LISTA.from_operator(A)"
            )
        return None

    def __call__(self, y: Array, A: LinearOperator, noise: Noise | None = None) -> Array:
        """Recover `x`, shape `(*batch, *A.in_shape)`, from `y`, shape `(*batch, *A.out_shape)`."""
        y = self.measurements(y, A)
        batch = y.shape[: y.ndim - len(A.out_shape)]
        y = y.reshape(*batch, self.m)
        x = jnp.zeros((*batch, self.n), y.dtype)
        for layer in range(self.layers):
            shared = 0 if self.tied else layer
            v = _multiply(self.encoders[...][shared], y)
            if layer:
                v = v + _multiply(self.mixes[...][0 if self.tied else layer - 1], x)
            # The sign of a threshold does not matter: it cannot leave the range where soft thresholding is one.
            threshold = L1(jnp.abs(self.thresholds[...][shared]).astype(y.dtype), ndim=1)
            x = threshold.prox(v, jnp.ones((), y.dtype))
        return x.reshape(*batch, *A.in_shape)


def _multiply(matrix: Array, x: Array) -> Array:
    """`matrix @ x` for vectors `(*batch, n)`."""
    return jnp.matmul(x, matrix.T.astype(x.dtype), precision="highest")
