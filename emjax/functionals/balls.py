"""The ball of a weighted l1 norm: `sum_i w_i |x_i| <= radius`, and the projection onto it.

The nearest point is `x_i (1 - theta w_i / |x_i|)_+` with the least `theta >= 0` for which it lies in the ball. The
excess `f(theta) = sum_i w_i (|x_i| - theta w_i)_+ - radius` is convex, decreasing and piecewise linear, so that the
iteration of Newton from 0 climbs to its root and arrives after finitely many steps (Michelot 1986; for a survey, Condat
2016).
"""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.functionals.base import Functional, feasible, weights


@pytree_dataclass
class L1Ball(Functional):
    """The constraint `sum_i w_i |x_i| <= radius` for real or complex `x`; `radius >= 0`, one number an item.

    With `LeastSquares` this is the LASSO as Tibshirani (1996) wrote it. Entries of infinite weight are zero, those of
    weight zero are free: no certificate is known for them.
    """

    radius: Any = leaf("_scalar")
    weight: Any = leaf("ndim", default=1.0)
    ndim: int | None = static(default=None)

    def __post_init__(self) -> None:
        assign(
            self,
            radius=weights("the radius of a ball", self.radius),
            weight=weights("the weight of a norm", self.weight),
        )

    @property
    def _scalar(self) -> int:
        return 0

    def _lifted(self, values: Array) -> Array:
        """One number an item with an axis of length one for each of the item's."""
        return values.reshape(*values.shape, *[1] * (0 if self.ndim is None else self.ndim))

    def norm_of(self, x: Array) -> Array:
        """`sum_i w_i |x_i|`."""
        return self.total(jnp.where(x == 0, 0, self.weight * jnp.abs(x)))

    def violation(self, x: Array) -> Array:
        """By how much the radius is exceeded, relative to it."""
        excess = jnp.maximum(self.norm_of(x) - self.radius, 0)
        return jnp.where(excess > 0, excess / jnp.where(self.radius > 0, self.radius, 1), 0)

    def __call__(self, x: Array) -> Array:
        violation = self.violation(x)
        # The sum has as many roundings as there are entries.
        entries = math.prod(x.shape[a] for a in self._axes(x))
        return feasible(violation / max(1.0, entries**0.5 / 4), jnp.real(x), jnp.zeros_like(violation))

    def prox(self, x: Array, step: Any = None) -> Array:
        size = jnp.abs(x)
        # Of the largest finite weight: squares of small and of large float32 numbers leave its range.
        finite = jnp.where(jnp.isinf(self.weight), 0, self.weight)
        unit = self._max(jnp.broadcast_to(finite, size.shape))
        unit = jnp.where(unit > 0, unit, 1)
        w = jnp.where(jnp.isinf(self.weight), jnp.inf, finite / unit).astype(size.dtype)
        inside = jnp.where(jnp.isinf(w), 0, w)
        size = jnp.where(jnp.isinf(w), 0, size)
        radius = (self._lifted(jnp.asarray(self.radius)) / unit).astype(size.dtype)

        def newton(size: Array, radius: Array, active: Array) -> Array:
            slope = self._sum(jnp.where(active, inside * inside, 0))
            excess = self._sum(jnp.where(active, inside * size, 0)) - radius
            return jnp.where(slope > 0, excess / jnp.where(slope > 0, slope, 1), 0)

        def climbing(state: tuple[Array, Array, Array]) -> Array:
            i, theta, before = state
            return jnp.any(theta > before) & (i < 100)

        def climb(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            i, theta, _ = state
            new = newton(fixed, of_radius, fixed > theta * inside)
            return i + 1, jnp.maximum(theta, new), theta

        fixed, of_radius = lax.stop_gradient((size, radius))
        zero = jnp.zeros_like(of_radius + self._sum(fixed))
        theta = lax.while_loop(climbing, climb, (jnp.int32(0), zero, zero - 1))[1]
        # Once more, with derivatives: those of the root, because the active entries no longer change.
        theta = jnp.maximum(newton(size, radius, fixed > theta * inside), 0)
        kept = jnp.maximum(size - theta * inside, 0) / jnp.where(size > 0, size, 1)
        kept = jnp.where((radius > 0) | (inside == 0), kept, 0)
        kept = jnp.where(jnp.isinf(w), 0, kept)
        # Far outside of a small ball most of `size` cancels, and what is left is rounded by more than its own eps.
        norm = self._sum(inside * size * lax.stop_gradient(kept))
        shrunk = jnp.where(norm > radius, radius / jnp.where(norm > 0, norm, 1), 1)
        kept = jnp.where(inside > 0, kept * lax.stop_gradient(shrunk), kept)
        # An item with an infinite entry has no projection.
        return jnp.where(jnp.isfinite(theta), x * kept, jnp.nan)

    def conjugate(self, u: Array) -> Array:
        slope = self.slopes(u)
        return jnp.where(slope == 0, 0, self.radius * slope)

    def slopes(self, u: Array) -> Array:
        """The dual norm `max_i |u_i| / w_i`."""
        size = jnp.abs(u)
        ratio = size / jnp.where(self.weight > 0, self.weight, 1)
        return self.largest(jnp.where(self.weight > 0, ratio, jnp.where(size > 0, jnp.inf, 0)))

    def fenchel_gap(self, x: Array, u: Array) -> Array:
        # s (radius - sum w |x|) + sum (s w |x| - <u, x>) with the dual norm s: no piece below zero in the ball.
        s = self.slopes(u)
        safe = jnp.where(jnp.isinf(s), 0, s)
        along = self.total(
            jnp.where(x == 0, 0, self._lifted(safe) * self.weight * jnp.abs(x) - jnp.real(jnp.conj(u) * x))
        )
        return jnp.where(jnp.isinf(s), jnp.inf, safe * (self.radius - self.norm_of(x)) + along)

    def _sum(self, values: Array) -> Array:
        return jnp.sum(values, self._axes(values), keepdims=True)

    def _max(self, values: Array) -> Array:
        return jnp.max(values, self._axes(values), keepdims=True)
