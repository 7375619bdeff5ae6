"""Norms and constraints: l1, group l1, box. Weights are array leaves that broadcast to `(*batch, *item shape)`."""

import functools
import operator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.functionals.base import Functional, feasible, weights
from emjax.operators.base import as_float


@pytree_dataclass
class L1(Functional):
    """`g(x) = sum_i w_i |x_i|` for real or complex `x`; `w >= 0`, infinite for entries that have to be zero."""

    weight: Any = leaf("ndim")
    ndim: int | None = static(default=None)

    def __post_init__(self) -> None:
        assign(self, weight=weights("the weight of a norm", self.weight))

    def __call__(self, x: Array) -> Array:
        return self.total(jnp.where(x == 0, 0, self.weight * jnp.abs(x)))

    def prox(self, x: Array, step: Array) -> Array:
        threshold = step * self.weight
        if jnp.iscomplexobj(x):
            size = jnp.abs(x)
            return x * (jnp.maximum(size - threshold, 0) / jnp.where(size > 0, size, 1))
        return jnp.sign(x) * jnp.maximum(jnp.abs(x) - threshold, 0)

    def conjugate(self, u: Array) -> Array:
        return _ball(self, jnp.abs(u), self.weight)

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
        return _shrink(self, jnp.abs(u), self.weight)

    def slope(self, x: Array, u: Array) -> Array:
        finite = jnp.where(jnp.isinf(self.weight), 0, self.weight)  # what has to be zero is so exactly
        return self.norm(u) + self.norm(jnp.broadcast_to(finite, x.shape))

    def fenchel_gap(self, x: Array, u: Array) -> Array:
        return self.total(jnp.where(x == 0, 0, self.weight * jnp.abs(x) - jnp.real(jnp.conj(u) * x)))


@pytree_dataclass
class GroupL1(Functional):
    """`g(z) = sum_i w_i |z_i|_2` over the first axis of each item; with finite differences: isotropic TV.

    The weight broadcasts to `(*batch, 1, *rest of the item)`.
    """

    weight: Any = leaf("ndim")
    ndim: int | None = static(default=None)

    def __post_init__(self) -> None:
        assign(self, weight=weights("the weight of a norm", self.weight))

    def _over_group(self, values: Array) -> Array:
        axis = 0 if self.ndim is None else values.ndim - self.ndim
        if values.shape[axis] > 4:
            return jnp.sum(values, axis=axis, keepdims=True)
        # Two or three directions: written out, the sum fuses with what stands around it; a reduction does not.
        parts = [lax.slice_in_dim(values, i, i + 1, axis=axis) for i in range(values.shape[axis])]
        return functools.reduce(operator.add, parts)

    def _norm(self, z: Array) -> Array:
        square = self._over_group(jnp.real(z * jnp.conj(z)))
        # The double where keeps the derivative of the norm finite (zero) at zero.
        return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)

    def __call__(self, z: Array) -> Array:
        return self.total(self.weight * self._norm(z))

    def prox(self, z: Array, step: Array) -> Array:
        size = self._norm(z)
        return z * (jnp.maximum(size - step * self.weight, 0) / jnp.where(size > 0, size, 1))

    def conjugate(self, u: Array) -> Array:
        return _ball(self, self._norm(u), self.weight)

    def conjugate_prox(self, u: Array, step: Array) -> Array:
        return self.project(u)

    def project(self, u: Array) -> Array:
        """The nearest point of the dual ball `|u_i|_2 <= w_i`."""
        # The hot spot of TV: one pass to the factor, one to the product. `w / w` is exactly 1 inside the ball.
        square = self._over_group(jnp.real(u * jnp.conj(u)))
        size = jnp.sqrt(jnp.maximum(square, jnp.finfo(square.dtype).tiny))
        return u * (self.weight / jnp.maximum(size, self.weight))

    def shrink(self, u: Array) -> Array:
        """The largest `s <= 1` with `s u` in the dual ball."""
        return _shrink(self, self._norm(u), self.weight)

    def slope(self, z: Array, u: Array) -> Array:
        size = self._norm(z)
        return self.norm(u) + self.norm(jnp.broadcast_to(self.weight, size.shape))

    def fenchel_gap(self, z: Array, u: Array) -> Array:
        return self.total(self.weight * self._norm(z) - self._over_group(jnp.real(jnp.conj(u) * z)))


@pytree_dataclass
class Box(Functional):
    """The constraint `low <= x <= high`; either bound may be infinite."""

    low: Any = leaf("ndim", default=0.0)
    high: Any = leaf("ndim", default=1.0)
    ndim: int | None = static(default=None)

    def __post_init__(self) -> None:
        low, high = as_float(self.low), as_float(self.high)
        traced = isinstance(low, jax.core.Tracer) or isinstance(high, jax.core.Tracer)
        if not traced and bool(np.any(np.asarray(low) > np.asarray(high))):
            raise ValueError(f"a box needs low <= high everywhere, got {self.low} and {self.high}")
        assign(self, low=low, high=high)

    def __call__(self, x: Array) -> Array:
        scale = jnp.maximum(1, self.largest(jnp.abs(x)))
        outside = self.total(jnp.maximum(jnp.maximum(self.low - x, x - self.high), 0))
        return feasible(outside / scale, x, jnp.zeros_like(outside))

    def prox(self, x: Array, step: Any = None) -> Array:
        return jnp.clip(x, self.low, self.high)

    def conjugate(self, u: Array) -> Array:
        return self.total(jnp.where(u == 0, 0, u * self.farthest(u)))

    def farthest(self, u: Array) -> Array:
        """The point of the box with the largest inner product with `u`."""
        return jnp.where(u > 0, self.high, self.low)

    def reach(self, x: Array) -> Array:
        """The distance from `x` to the farther bound."""
        return jnp.maximum(self.high - x, x - self.low)

    def fenchel_gap(self, x: Array, u: Array) -> Array:
        return self.total(jnp.where(u == 0, 0, u * (self.farthest(u) - x)))


def nonnegative() -> Box:
    """The constraint `x >= 0`: electrons are counted upwards from zero."""
    return Box(0.0, jnp.inf)


def _shrink(g: Functional, size: Array, weight: Array) -> Array:
    return -g.largest(-jnp.where(size > weight, weight / jnp.where(size > 0, size, 1), 1))


def _ball(g: Functional, size: Array, weight: Array) -> Array:
    """The conjugate of a norm: zero in the dual ball `size <= weight`, else infinite."""
    scale = g.largest(jnp.broadcast_to(weight, jnp.broadcast_shapes(jnp.shape(weight), size.shape)))
    excess = g.largest(size - weight) / jnp.maximum(scale, jnp.finfo(size.dtype).tiny)
    return feasible(excess, size, jnp.zeros_like(excess))
