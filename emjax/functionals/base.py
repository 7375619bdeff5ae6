"""Convex functions with a closed-form proximal map.

    g(x),   prox(x, step) = argmin_v g(v) + |v - x|^2 / (2 step),   conjugate(u) = sup_x <x, u> - g(x)

Items have the trailing `ndim` axes (all axes when `ndim` is None); further leading axes are a batch, whose values come
back with the batch's shape. A step is one number.

`fenchel_gap(x, u) = g(x) + g*(u) - <x, u> >= 0` is the local piece of a duality gap: summed over the terms of a problem
it gives `P - D` without the cancellation of two large numbers.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.operators.base import Shape, as_float


def weights(what: str, value: Any) -> Array:
    """Real weights as floats; ValueError for negative ones. Inside of a trace, where none is known, they become NaN,
    which ends in a status."""
    value = as_float(value)
    if jnp.iscomplexobj(value):
        raise ValueError(f"{what} is real, got a complex value")
    if isinstance(value, jax.core.Tracer):
        return jnp.where(value >= 0, value, jnp.nan)
    # In NumPy: inside of a trace even the operations on known values are traced.
    if (known := np.asarray(value)).size and known.min() < 0:
        raise ValueError(f"{what} is 0 or more, got {known.min():g}")
    return value


def check_broadcast(what: str, value: Array, shape: Shape) -> None:
    """ValueError unless the trailing axes of `value` broadcast to `shape`."""
    own = jnp.shape(value)[max(0, jnp.ndim(value) - len(shape)) :]
    if any(a not in (1, b) for a, b in zip(own[::-1], shape[::-1], strict=False)):
        raise ValueError(f"{what} has shape {jnp.shape(value)}, whose trailing axes do not broadcast to {shape}")


class Functional:
    """Base class: subclasses give `__call__`, `prox`, `conjugate`, and `fenchel_gap` if there is a local form."""

    ndim: int | None

    def __call__(self, x: Array) -> Array:
        """`g(x)`."""
        raise NotImplementedError

    def prox(self, x: Array, step: Array) -> Array:
        """The proximal map with step `step > 0`."""
        raise NotImplementedError

    def conjugate(self, u: Array) -> Array:
        """`g*(u)`."""
        raise NotImplementedError

    def conjugate_prox(self, u: Array, step: Array) -> Array:
        """The proximal map of `g*`, by the Moreau identity unless a direct form is known."""
        return u - step * self.prox(u / step, 1 / step)

    def project(self, u: Array) -> Array:
        """The nearest point where `g*` is finite; everywhere, unless a subclass says otherwise."""
        return u

    def fenchel_gap(self, x: Array, u: Array) -> Array:
        """`g(x) + g*(u) - <x, u>`, never negative in exact arithmetic."""
        return self(x) + self.conjugate(u) - self.total(x * u)

    def slope(self, x: Array, u: Array) -> Array:
        """How fast `fenchel_gap` changes with `x`, in Euclidean norms: what an error of `x` may hide."""
        return self.norm(u)

    def with_ndim(self, ndim: int) -> "Functional":
        """The same functional for items with `ndim` axes, unless it already knows."""
        if self.ndim is not None:
            return self
        return dataclasses.replace(self, ndim=ndim)  # type: ignore[type-var]

    def total(self, values: Array) -> Array:
        """The sum over one item."""
        return jnp.sum(values, axis=self._axes(values))

    def largest(self, values: Array) -> Array:
        """The largest value of one item."""
        return jnp.max(values, axis=self._axes(values))

    def norm(self, values: Array) -> Array:
        """The Euclidean norm of one item."""
        return jnp.sqrt(self.total(jnp.real(values * jnp.conj(values))))

    def _axes(self, values: Array) -> tuple[int, ...]:
        return tuple(range(0 if self.ndim is None else values.ndim - self.ndim, values.ndim))


def feasible(violation: Array, like: Array, total: Array) -> Array:
    """`total`, or +inf where the largest relative violation of a constraint exceeds rounding."""
    return jnp.where(violation > 16 * jnp.finfo(like.dtype).eps, jnp.inf, total)
