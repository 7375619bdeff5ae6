"""Quadratic functions: least squares on measurements, and priors diagonal in a fast orthonormal transform."""

from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.functionals.base import Functional, check_broadcast, weights
from emjax.operators.base import LinearOperator, Shape, as_float, check_measured, map_batch


@pytree_dataclass
class LeastSquares(Functional):
    """The data term `1/2 sum_i w_i |A x - y|_i^2`.

    `y` has shape `(*batch, *A.out_shape)`; `weight` (inverse noise variances, optional) broadcasts to it. Where a pixel
    mask is zero, `y` is set to zero: what was not measured may hold anything, NaN included.

    Raises ValueError when the trailing axes of `y` are not `A.out_shape`.
    """

    A: LinearOperator
    y: Any = leaf("out_shape")
    weight: Any = leaf("out_shape", default=None)

    def __post_init__(self) -> None:
        y, shape = check_measured(self.A, self.y, "LeastSquares(A, y)"), self.A.out_shape
        weight = None if self.weight is None else weights("the weight of least squares", self.weight)
        if weight is not None:
            check_broadcast("the weight of least squares", weight, shape)
        assign(self, y=y, weight=weight)

    @property
    def ndim(self) -> int:  # type: ignore[override]
        return len(self.A.in_shape)

    @property
    def out_shape(self) -> Shape:
        return self.A.out_shape

    def residual(self, x: Array) -> Array:
        """`A x - y` for one item."""
        return self.A.forward(x) - self.y

    def weighted(self, r: Array) -> Array:
        return r if self.weight is None else self.weight * r

    def __call__(self, x: Array) -> Array:
        def value(data: LeastSquares, v: Array) -> Array:
            r = data.residual(v)
            return 0.5 * jnp.sum(data.weighted(jnp.real(r * jnp.conj(r))))

        return map_batch(value, self, x, self.A.in_shape)

    def gradient(self, x: Array) -> Array:
        """`A.H w (A x - y)` for one item."""
        return self.A.adjoint(self.weighted(self.residual(x)))

    def lipschitz(self) -> Array:
        """An upper bound of the gradient's Lipschitz constant."""
        square = self.A.norm_bound() ** 2
        return square if self.weight is None else square * jnp.max(self.weight)

    def backprojection(self) -> Array:
        """`A.H w y`."""
        return self.A.adjoint(self.weighted(self.y))

    def gram_diagonal(self) -> Array | None:
        """`d` with `A.H w A x = d * x`, or None."""
        d = self.A.gram_diagonal()
        if d is None:
            return None
        d = d.astype(self.y.real.dtype)
        if self.weight is None:
            return d
        # With weights only an operator that is itself diagonal keeps a diagonal normal operator.
        return d * self.weight if self.A.weights_stay_diagonal else None

    def target(self) -> tuple[Array, Array]:
        """`A.H y / (A.H A)`, the best `x` entry by entry where `A.H A` is diagonal, and how far rounding may move it.

        Zero where nothing is measured. For a 0/1 mask it is `y` itself, exactly.
        """
        gram = self.A.gram_diagonal()
        assert gram is not None
        seen = gram > 0
        t = jnp.where(seen, self.A.adjoint(self.y) / jnp.where(seen, gram, 1), 0)
        size = jnp.abs(t)
        size = jnp.where(gram == 1, 0, size) if self.A.is_diagonal else size + jnp.sqrt(jnp.mean(size * size))
        return t, 4 * jnp.finfo(size.dtype).eps * size

    @property
    def has_prox(self) -> bool:
        return self.gram_diagonal() is not None or (self.weight is None and self.A.has_resolvent)

    def prox(self, x: Array, step: Array) -> Array:
        def one(data: LeastSquares, x: Array) -> Array:
            v = x + step * data.backprojection()
            if (d := data.gram_diagonal()) is not None:
                return v / (1 + step * d)
            return data.A.resolvent(v, step)

        return map_batch(one, self, x, self.A.in_shape)


@pytree_dataclass
class SquaredDistance(Functional):
    """`g(z) = 1/2 sum_i w_i |z_i - y_i|^2`: a data term seen from the side of the measurements."""

    y: Array = leaf("ndim")
    weight: Array | None = leaf("ndim", default=None)
    ndim: int | None = static(default=None)

    def _w(self) -> Array:
        return jnp.ones((), jnp.real(self.y).dtype) if self.weight is None else self.weight

    def __call__(self, z: Array) -> Array:
        r = z - self.y
        return 0.5 * self.total(self._w() * jnp.real(r * jnp.conj(r)))

    def prox(self, z: Array, step: Array) -> Array:
        return (z + step * self._w() * self.y) / (1 + step * self._w())

    def conjugate(self, u: Array) -> Array:
        w = self._w()
        quadratic = jnp.where(u == 0, 0, 0.5 * jnp.abs(u) ** 2 / w)
        return self.total(quadratic + jnp.real(jnp.conj(self.y) * u))

    def conjugate_prox(self, u: Array, step: Array) -> Array:
        w = self._w()
        return w * (u - step * self.y) / (w + step)

    def fenchel_gap(self, z: Array, u: Array) -> Array:
        w = self._w()
        r = w * (z - self.y) - u
        return self.total(jnp.where(r == 0, 0, 0.5 * jnp.abs(r) ** 2 / w))

    def slope(self, z: Array, u: Array) -> Array:
        return self.norm(self._w() * (z - self.y) - u)


@pytree_dataclass
class Quadratic(Functional):
    """`g(x) = 1/2 |d^(1/2) C (x - mean)|^2` with an orthonormal transform `C` and `d` in its domain, 0 or above.

    With the DCT for `C` and `1/d` the power spectrum this is the negative log-density of a Gaussian random field.
    `d` has the shape of `C`'s output, `mean` broadcasts to its input; both may have batch axes.
    """

    C: LinearOperator
    d: Any = leaf("out_shape")
    mean: Any = leaf("in_shape", default=0.0)

    def __post_init__(self) -> None:
        if self.C.gram_scale() is None or self.C.row_scale() is None:
            raise ValueError(f"Quadratic needs an orthonormal transform, {self.C} is not known to be one")
        assign(self, d=as_float(self.d), mean=as_float(self.mean))

    @property
    def ndim(self) -> int:  # type: ignore[override]
        return len(self.C.in_shape)

    def with_ndim(self, ndim: int) -> "Quadratic":
        return self

    @property
    def in_shape(self) -> Shape:
        return self.C.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.C.out_shape

    def __call__(self, x: Array) -> Array:
        def value(g: Quadratic, v: Array) -> Array:
            c = g.C.forward(v - g.mean)
            return 0.5 * jnp.sum(g.d * jnp.real(c * jnp.conj(c)))

        return map_batch(value, self, x, self.in_shape)

    def apply(self, x: Array) -> Array:
        """The Hessian `C.H d C x`."""
        return self.C.adjoint(self.d * self.C.forward(x))

    def apply_inverse(self, x: Array) -> Array:
        """`C.H d^-1 C x`: the covariance of the random field."""
        return self.C.adjoint(self.C.forward(x) / self.d)

    def gradient(self, x: Array) -> Array:
        return self.apply(x - self.mean)

    def prox(self, x: Array, step: Array) -> Array:
        def one(g: Quadratic, x: Array) -> Array:
            return g.mean + g.C.adjoint(g.C.forward(x - g.mean) / (1 + step * g.d))

        return map_batch(one, self, x, self.in_shape)

    def conjugate(self, u: Array) -> Array:
        def one(g: Quadratic, u: Array) -> Array:
            return 0.5 * jnp.sum(over(g.C.forward(u), g.d)) + jnp.sum(u * g.mean)

        return map_batch(one, self, u, self.in_shape)

    def fenchel_gap(self, x: Array, u: Array) -> Array:
        def one(g: Quadratic, x: Array, u: Array) -> Array:
            c, root = g.C.forward(u), jnp.sqrt(g.d)
            r = root * g.C.forward(x - g.mean) - c / jnp.where(root > 0, root, 1)
            return 0.5 * jnp.sum(jnp.where(root > 0, jnp.real(r * jnp.conj(r)), over(c, root)))

        both = jnp.stack(jnp.broadcast_arrays(x, u), axis=-self.ndim - 1)
        return map_batch(lambda g, v: one(g, v[0], v[1]), self, both, (2, *self.in_shape))

    def slope(self, x: Array, u: Array) -> Array:
        gap = self.fenchel_gap(x, u)
        return jnp.sqrt(jnp.max(self.d)) * jnp.sqrt(2 * jnp.where(jnp.isfinite(gap), gap, 0))


def over(r: Array, weight: Array | None) -> Array:
    """`|r|^2 / w`, zero where both are zero: what has no weight has no dual but zero."""
    square = jnp.real(r * jnp.conj(r))
    return square if weight is None else jnp.where(square == 0, 0, square / weight)
