"""What measurements say of `z = A x`, beyond least squares: Poisson counts, outliers, a ball of known radius.

Separable ones know their derivative (`gradient`), so that solvers can fold them into a pixel's own prox.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.functionals.base import Functional, feasible, weights
from emjax.operators.base import as_float


@pytree_dataclass
class KullbackLeibler(Functional):
    """`g(z) = sum_i (z + b - y + y log(y / (z + b)))_i / gain`: the Poisson log-likelihood of counts `y / gain`.

    `y >= 0` in grey values, one electron being worth `gain`; `background` b >= 0 is what the detector adds on average.
    Infinite where `z + b < 0`. Source: Csiszár 1991; prox: Chaux, Combettes, Pesquet, Wajs 2007.
    """

    y: Any = leaf("ndim")
    gain: Any = leaf("ndim", default=1.0)
    background: Any = leaf("ndim", default=0.0)
    ndim: int | None = static(default=None)

    def __post_init__(self) -> None:
        assign(self, y=as_float(self.y), gain=as_float(self.gain), background=as_float(self.background))

    def __call__(self, z: Array) -> Array:
        w = z + self.background
        seen = (self.y > 0) & (w > 0)
        ratio = jnp.where(seen, self.y / jnp.where(seen, w, 1), 1)
        value = w - self.y + jnp.where(seen, self.y * jnp.log(ratio), 0)
        # Without counts `z + b` may be zero, with counts it may not.
        outside = (w < 0) | ((self.y > 0) & (w <= 0))
        return self.total(jnp.where(outside, jnp.inf, value / self.gain))

    def gradient(self, z: Array) -> Array:
        w = z + self.background
        ratio = jnp.where(self.y > 0, self.y / jnp.where(w > 0, w, 0), 0)
        return (1 - ratio) / self.gain

    def prox(self, z: Array, step: Array) -> Array:
        t = step / self.gain
        half = 0.5 * (z + self.background - t)
        root = jnp.sqrt(half**2 + t * self.y)
        # The positive root of w^2 - 2 half w - t y, without the cancellation of a negative half.
        w = jnp.where(half > 0, half + root, t * self.y / jnp.maximum(root - half, jnp.finfo(root.dtype).tiny))
        return w - self.background

    def _left(self, u: Array) -> Array:
        """`1 - gain u >= 0`; a rounding error below zero is zero."""
        left = 1 - self.gain * u
        return jnp.where(jnp.abs(left) <= 4 * jnp.finfo(u.dtype).eps, jnp.maximum(left, 0), left)

    def conjugate(self, u: Array) -> Array:
        left = self._left(u)
        logarithm = jnp.where(self.y > 0, self.y * jnp.log(jnp.where(left > 0, left, 1)), 0) / self.gain
        outside = (left < 0) | ((self.y > 0) & (left <= 0))
        return self.total(jnp.where(outside, jnp.inf, -logarithm - self.background * u))

    def project(self, u: Array) -> Array:
        """A point where the conjugate is finite: `u <= 1 / gain`, less a little where there are counts."""
        return jnp.minimum(u, jnp.where(self.y > 0, 1 - 4 * jnp.finfo(u.dtype).eps, 1) / self.gain)

    def fenchel_gap(self, z: Array, u: Array) -> Array:
        # With s = (z + b)(1 - gain u) / y it is y (s - 1 - log s), and s -> 1 at the optimum.
        w, left = z + self.background, self._left(u)
        counted = self.y > 0
        s = w * left / jnp.where(counted, self.y, 1)
        inside = (w > 0) & (left > 0)
        s = jnp.where(inside, s, 1)
        d = s - 1
        excess = d - jnp.where(jnp.abs(d) < 0.5, jnp.log1p(jnp.clip(d, -0.5, 0.5)), jnp.log(s))
        piece = jnp.where(counted, jnp.where(inside, self.y * excess, jnp.inf), w * left)
        piece = jnp.where((w < 0) | (left < 0), jnp.inf, piece)
        return self.total(piece / self.gain)

    def slope(self, z: Array, u: Array) -> Array:
        slope = self.gradient(z) - u
        return self.norm(jnp.where(jnp.isfinite(slope), slope, 0))


@pytree_dataclass
class Huber(Functional):
    """`g(z) = sum_i h(z_i - y_i)` with `h(r) = r^2 / 2` up to `delta` and `delta |r| - delta^2 / 2` beyond.

    Least squares that outliers (hot pixels, charging) move no more than by `delta`. `delta > 0`. Source: Huber 1964.
    """

    delta: Any = leaf("ndim")
    y: Any = leaf("ndim", default=0.0)
    ndim: int | None = static(default=None)

    def __post_init__(self) -> None:
        assign(self, delta=weights("delta", self.delta), y=as_float(self.y))

    def __call__(self, z: Array) -> Array:
        size = jnp.abs(z - self.y)
        return self.total(jnp.where(size <= self.delta, 0.5 * size**2, self.delta * (size - 0.5 * self.delta)))

    def gradient(self, z: Array) -> Array:
        return jnp.clip(z - self.y, -self.delta, self.delta)

    def prox(self, z: Array, step: Array) -> Array:
        r = z - self.y
        return self.y + r - step * jnp.clip(r / (1 + step), -self.delta, self.delta)

    def conjugate(self, u: Array) -> Array:
        excess = self.largest(jnp.abs(u) / self.delta) - 1
        return feasible(excess, u, self.total(0.5 * u**2 + u * self.y))

    def conjugate_prox(self, u: Array, step: Array) -> Array:
        return jnp.clip((u - step * self.y) / (1 + step), -self.delta, self.delta)

    def project(self, u: Array) -> Array:
        return jnp.clip(u, -self.delta, self.delta)

    def fenchel_gap(self, z: Array, u: Array) -> Array:
        r = z - self.y
        size, along = jnp.abs(r), jnp.sign(r) * u
        far = (self.delta - along) * (size - 0.5 * (self.delta + along))
        return self.total(jnp.where(size <= self.delta, 0.5 * (r - u) ** 2, far))

    def slope(self, z: Array, u: Array) -> Array:
        return self.norm(self.gradient(z) - u)


@pytree_dataclass
class Ball(Functional):
    """The constraint `|z - centre|_2 <= radius` over an item, real or complex; `radius >= 0`."""

    radius: Any = leaf("_scalar")
    centre: Any = leaf("ndim", default=0.0)
    ndim: int | None = static(default=None)

    def __post_init__(self) -> None:
        assign(self, radius=weights("the radius of a ball", self.radius), centre=as_float(self.centre))

    @property
    def _scalar(self) -> int:
        return 0

    def _radius(self, like: Array) -> Array:
        """The radius with an axis of length one for each of the item's."""
        axes = 0 if self.ndim is None else self.ndim
        return self.radius.reshape(*self.radius.shape, *[1] * axes).astype(jnp.real(like).dtype)

    def violation(self, z: Array) -> Array:
        """By how much the radius is exceeded, relative to it (or to a thousandth of the centre's norm, if larger)."""
        centre = self.norm(jnp.broadcast_to(self.centre, z.shape))
        excess = jnp.maximum(self.norm(z - self.centre) - self.radius, 0)
        scale = jnp.maximum(self.radius, 1e-3 * centre)
        return excess / jnp.where(scale > 0, scale, 1)

    def __call__(self, z: Array) -> Array:
        violation = self.violation(z)
        return feasible(violation, jnp.real(z), jnp.zeros_like(violation))

    def prox(self, z: Array, step: Any = None) -> Array:
        r = z - self.centre
        square = jnp.sum(jnp.real(r * jnp.conj(r)), self._axes(r), keepdims=True)
        # The double where keeps the derivative of the norm finite at the centre.
        size = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
        radius = self._radius(z)
        return self.centre + r * jnp.where(size > radius, radius / jnp.where(size > 0, size, 1), 1)

    def conjugate(self, u: Array) -> Array:
        return self.total(jnp.real(jnp.conj(self.centre) * u)) + self.radius * self.norm(u)

    def fenchel_gap(self, z: Array, u: Array) -> Array:
        return self.radius * self.norm(u) - self.total(jnp.real(jnp.conj(z - self.centre) * u))
