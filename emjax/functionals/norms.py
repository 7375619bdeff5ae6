"""Norms and constraints: l1, group l1, box. Weights are array leaves that broadcast to `(*batch, *item shape)`."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.functionals.base import Functional, feasible
from emjax.operators.base import as_float


@pytree_dataclass
class L1(Functional):
    """`g(x) = sum_i w_i |x_i|` for real or complex `x`; `w >= 0`."""

    weight: Array = leaf("ndim")
    ndim: int | None = static(default=None)

    def __post_init__(self) -> None:
        assign(self, weight=as_float(self.weight))

    def __call__(self, x: Array) -> Array:
        return self.total(self.weight * jnp.abs(x))

    def prox(self, x: Array, step: Array) -> Array:
        threshold = step * self.weight
        if jnp.iscomplexobj(x):
            size = jnp.abs(x)
            return x * (jnp.maximum(size - threshold, 0) / jnp.where(size > 0, size, 1))
        return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)

    def conjugate(self, u: Array) -> Array:
        excess = jnp.max(jnp.abs(u) - self.weight) / jnp.maximum(jnp.max(self.weight), jnp.finfo(u.dtype).tiny)
        return feasible(excess, jnp.real(u), jnp.zeros((), jnp.real(u).dtype))

    def conjugate_prox(self, u: Array, step: Array) -> Array:
        return self.project(u)

    def project(self, u: Array) -> Array:
        """The nearest point of the dual ball `|u_i| <= w_i`."""
        if jnp.iscomplexobj(u):
            size = jnp.abs(u)
            return u * (jnp.minimum(size, self.weight) / jnp.where(size > 0, size, 1))
        return jnp.clip(u, -self.weight, self.weight)

    def shrink(self, u: Array) -> Array:
        """The largest `s <= 1` with `s u` in the dual ball."""
        return _shrink(jnp.abs(u), self.weight)

    def fenchel_gap(self, x: Array, u: Array) -> Array:
        return self.total(self.weight * jnp.abs(x) - jnp.real(jnp.conj(u) * x))


@pytree_dataclass
class GroupL1(Functional):
    """`g(z) = sum_i w_i |z_i|_2` over the first axis of each item; with finite differences: isotropic TV.

    The weight broadcasts to `(*batch, 1, *rest of the item)`.
    """

    weight: Array = leaf("ndim")
    ndim: int | None = static(default=None)

    def __post_init__(self) -> None:
        assign(self, weight=as_float(self.weight))

    def _norm(self, z: Array) -> Array:
        axis = 0 if self.ndim is None else z.ndim - self.ndim
        square = jnp.sum(jnp.real(z * jnp.conj(z)), axis=axis, keepdims=True)
        # The double where keeps the derivative of the norm finite (zero) at zero.
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)

    def __call__(self, z: Array) -> Array:
        return self.total(self.weight * self._norm(z))

    def prox(self, z: Array, step: Array) -> Array:
        size = self._norm(z)
        return z * (jnp.maximum(size - step * self.weight, 0) / jnp.where(size > 0, size, 1))

    def conjugate(self, u: Array) -> Array:
        excess = jnp.max(self._norm(u) - self.weight) / jnp.maximum(jnp.max(self.weight), jnp.finfo(u.dtype).tiny)
        return feasible(excess, jnp.real(u), jnp.zeros((), jnp.real(u).dtype))

    def conjugate_prox(self, u: Array, step: Array) -> Array:
        return self.project(u)

    def project(self, u: Array) -> Array:
        """The nearest point of the dual ball `|u_i|_2 <= w_i`."""
        size = self._norm(u)
        return u * jnp.where(size > self.weight, self.weight / jnp.where(size > 0, size, 1), 1)

    def shrink(self, u: Array) -> Array:
        """The largest `s <= 1` with `s u` in the dual ball."""
        return _shrink(self._norm(u), self.weight)

    def fenchel_gap(self, z: Array, u: Array) -> Array:
        size = self._norm(z)
        axis = 0 if self.ndim is None else z.ndim - self.ndim
        return self.total(self.weight * size - jnp.sum(jnp.real(jnp.conj(u) * z), axis=axis, keepdims=True))


@pytree_dataclass
class Box(Functional):
    """The constraint `low <= x <= high`; either bound may be infinite."""

    low: Array = leaf("ndim", default=0.0)
    high: Array = leaf("ndim", default=1.0)
    ndim: int | None = static(default=None)

    def __post_init__(self) -> None:
        assign(self, low=as_float(self.low), high=as_float(self.high))

    def __call__(self, x: Array) -> Array:
        scale = jnp.maximum(1, jnp.max(jnp.abs(x)))
        outside = self.total(jnp.maximum(jnp.maximum(self.low - x, x - self.high), 0))
        return feasible(outside / scale, x, jnp.zeros_like(outside))

    def prox(self, x: Array, step: Any = None) -> Array:
        return jnp.clip(x, self.low, self.high)

    def conjugate(self, u: Array) -> Array:
        return self.total(jnp.where(u == 0, 0, u * self.farthest(u)))

    def farthest(self, u: Array) -> Array:
        """The point of the box with the largest inner product with `u`."""
        return jnp.where(u > 0, self.high, self.low)

    def fenchel_gap(self, x: Array, u: Array) -> Array:
        return self.total(jnp.where(u == 0, 0, u * (self.farthest(u) - x)))


def _shrink(size: Array, weight: Array) -> Array:
    ratio = jnp.where(size > weight, weight / jnp.where(size > 0, size, 1), 1)
    return jnp.min(ratio)
