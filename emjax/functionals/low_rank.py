"""The nuclear norm: the sum of singular values, whose prox thresholds them (Cai, Candès, Shen 2010).

g(X) = sum_b w_b |X_b|_*,    X_b the matrix in the last two axes of an item, b its other axes
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.functionals.base import Functional, feasible, weights


@pytree_dataclass
class NuclearNorm(Functional):
    """`sum_b w_b |X_b|_*` over the matrices in the last two axes, real or complex; `w` broadcasts to the axes before.

    For a stack of slices take `Term(NuclearNorm(w), Patches(shape, side))`: each patch of all slices is a matrix of
    slices by pixels, of low rank where the slices resemble each other.
    """

    weight: Any = leaf("_blocks")
    ndim: int | None = static(default=None)

    def __post_init__(self) -> None:
        assign(self, weight=weights("the weight of a norm", self.weight))
        if self.ndim is not None and self.ndim < 2:
            raise ValueError(f"a nuclear norm is of items with two axes or more, got {self.ndim}")

    @property
    def _blocks(self) -> int | None:
        return None if self.ndim is None else self.ndim - 2

    def _total(self, values: Array) -> Array:
        """The sum over the blocks of an item, `values` having lost the matrices' axes."""
        blocks = values.ndim if self._blocks is None else self._blocks
        return jnp.sum(values, axis=tuple(range(values.ndim - blocks, values.ndim)))

    def _norms(self, x: Array) -> Array:
        return jnp.sum(_singular_values(x), -1)

    def __call__(self, x: Array) -> Array:
        return self._total(self.weight * self._norms(x))

    def _on_singular_values(self, x: Array, factor: Any) -> Array:
        """`U diag(s factor(s)) V.H`, through the smaller Gram matrix: `x` times a small matrix."""
        m, n = x.shape[-2:]
        g = (
            jnp.matmul(x, x.mT.conj(), precision="highest")
            if m <= n
            else jnp.matmul(x.mT.conj(), x, precision="highest")
        )
        squares, u = _eigh(g)
        # Below about sqrt(eps) of the largest, a Gram matrix does not know its singular values; thresholds lie above.
        s = jnp.sqrt(jnp.maximum(squares, 0))
        scaled = jnp.matmul(u * factor(s)[..., None, :], u.mT.conj(), precision="highest")
        return jnp.matmul(scaled, x, precision="highest") if m <= n else jnp.matmul(x, scaled, precision="highest")

    def prox(self, x: Array, step: Array) -> Array:
        threshold = (step * self.weight)[..., None]
        return self._on_singular_values(x, lambda s: jnp.maximum(s - threshold, 0) / jnp.where(s > 0, s, 1))

    def conjugate(self, u: Array) -> Array:
        largest = _singular_values(u)[..., 0]
        weight = jnp.broadcast_to(self.weight, largest.shape)
        blocks = tuple(range(largest.ndim - (largest.ndim if self._blocks is None else self._blocks), largest.ndim))
        excess = jnp.max(largest - weight, axis=blocks)
        scale = jnp.maximum(jnp.max(weight, axis=blocks), jnp.finfo(largest.dtype).tiny)
        return feasible(excess / scale / max(u.shape[-2:]), largest, jnp.zeros_like(excess))

    def conjugate_prox(self, u: Array, step: Array) -> Array:
        return self.project(u)

    def project(self, u: Array) -> Array:
        """The nearest point of the dual ball: no singular value above `w`."""
        weight = jnp.asarray(self.weight)[..., None]
        return self._on_singular_values(u, lambda s: jnp.minimum(weight / jnp.where(s > 0, s, 1), 1))

    def shrink(self, u: Array) -> Array:
        """The largest `s <= 1` with `s u` in the dual ball."""
        largest = _singular_values(u)[..., 0]
        ratio = jnp.where(largest > self.weight, self.weight / jnp.where(largest > 0, largest, 1), 1)
        blocks = tuple(range(ratio.ndim - (ratio.ndim if self._blocks is None else self._blocks), ratio.ndim))
        return jnp.min(ratio, axis=blocks)

    def fenchel_gap(self, x: Array, u: Array) -> Array:
        return self._total(self.weight * self._norms(x) - jnp.sum(jnp.real(jnp.conj(u) * x), (-2, -1)))

    def slope(self, x: Array, u: Array) -> Array:
        rank = min(x.shape[-2:])
        return self.norm(u) + jnp.sqrt(self._total(rank * jnp.broadcast_to(self.weight, x.shape[:-2]) ** 2))


# Compiled functions of their own, so that eager calls do not compile a new loop each time.


@jax.jit
def _singular_values(x: Array) -> Array:
    return _one_by_one(lambda v: jnp.linalg.svd(v, compute_uv=False), x)


@jax.jit
def _eigh(x: Array) -> tuple[Array, Array]:
    return _one_by_one(lambda v: tuple(jnp.linalg.eigh(v)), x)


def _one_by_one(decompose: Callable[[Array], Any], x: Array) -> Any:
    """`decompose` of every matrix in the last two axes; on a CPU one after the other.

    A decomposition of several matrices waits there for threads of the pool that runs it: two of them at once, as of two
    terms of a problem, may wait for each other for ever (seen with jaxlib 0.10.2).
    """
    axes = x.shape[:-2]
    if not axes:
        return decompose(x)
    flat = x.reshape(-1, *x.shape[-2:])
    out = lax.platform_dependent(flat, cpu=lambda v: lax.map(decompose, v), default=decompose)
    return jax.tree.map(lambda v: v.reshape(*axes, *v.shape[1:]), out)
