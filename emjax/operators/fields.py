"""Operators on an image together with a vector field: what second-order priors are made of.

The field has a component for each axis. Its component along axis `a` is paired with the forward difference along `a`,
and so has one entry less along that axis: the last one is ignored.
"""

import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, pytree_dataclass, static
from emjax.operators.base import LinearOperator, Shape, round_up
from emjax.operators.differences import FiniteDifference


def _padded(x: Array, axis: int, before: int, after: int) -> Array:
    return jnp.pad(x, [(before, after) if a == axis else (0, 0) for a in range(x.ndim)])


def _inner(x: Array, axis: int) -> Array:
    return lax.slice_in_dim(x, 0, x.shape[axis] - 1, axis=axis)


@pytree_dataclass
class SymmetricGradient(LinearOperator):
    """`(E w)_aa = d_a w_a`, `(E w)_ab = (d_b w_a + d_a w_b) / sqrt(2)`: in shape `(ndim, *shape)`.

    Out shape `(ndim (ndim + 1) / 2, *shape)`: the diagonal first, then the pairs a < b, scaled so that the Euclidean
    norm of a pixel is the Frobenius norm of the symmetrised Jacobian. Backward differences, zero where a neighbour is
    missing, so that `E D x = 0` for an affine image. `spacing` as for `FiniteDifference`.
    Source: Bredies, Kunisch, Pock 2010.
    """

    shape: Shape = static()
    spacing: tuple[float, ...] | None = static(default=None)

    def __post_init__(self) -> None:
        D = FiniteDifference(self.shape, self.spacing)
        assign(self, shape=D.shape, spacing=D.spacing)

    @property
    def in_shape(self) -> Shape:
        return (len(self.shape), *self.shape)

    @property
    def out_shape(self) -> Shape:
        n = len(self.shape)
        return (n * (n + 1) // 2, *self.shape)

    @property
    def accurate_entries(self) -> bool:
        return True

    @property
    def _pairs(self) -> list[tuple[int, int]]:
        n = len(self.shape)
        return [(a, b) for a in range(n) for b in range(a + 1, n)]

    def _difference(self, w: Array, own: int, along: int) -> Array:
        """The backward difference along an axis of the component `own`, at the places that both neighbours have."""
        assert self.spacing is not None
        if self.shape[along] - (own == along) < 2:
            return jnp.zeros_like(w)
        d = jnp.diff(_inner(w, own), axis=along) / self.spacing[along]
        return _padded(_padded(d, along, 1, 0), own, 0, 1)

    def _difference_adjoint(self, v: Array, own: int, along: int) -> Array:
        assert self.spacing is not None
        if self.shape[along] - (own == along) < 2:
            return jnp.zeros_like(v)
        valid = _inner(v, own)
        d = lax.slice_in_dim(valid, 1, valid.shape[along], axis=along) / self.spacing[along]
        return _padded(_padded(d, along, 1, 0) - _padded(d, along, 0, 1), own, 0, 1)

    def forward(self, w: Array) -> Array:
        diagonal = [self._difference(w[a], a, a) for a in range(len(self.shape))]
        mixed = [self._difference(w[a], a, b) + self._difference(w[b], b, a) for a, b in self._pairs]
        return jnp.stack(diagonal + [m * math.sqrt(0.5) for m in mixed])

    def adjoint(self, v: Array) -> Array:
        n = len(self.shape)
        parts = [self._difference_adjoint(v[a], a, a) for a in range(n)]
        for k, (a, b) in enumerate(self._pairs, start=n):
            half = v[k] * math.sqrt(0.5)
            parts[a] = parts[a] + self._difference_adjoint(half, a, b)
            parts[b] = parts[b] + self._difference_adjoint(half, b, a)
        return jnp.stack(parts)

    def norm_bound(self) -> Array:
        # |E w|^2 <= sum_ab |d_b w_a|^2, as (s + t)^2 / 2 <= s^2 + t^2; each component has at most the gradient's norm.
        return FiniteDifference(self.shape, self.spacing).norm_bound()


@pytree_dataclass
class GradientLessField(LinearOperator):
    """`K (x, w) = D x - w`: in shape `(1 + ndim, *shape)`, the image and the field; out shape `(ndim, *shape)`.

    Entries that `D` leaves at zero, the last along each axis, are zero.
    """

    shape: Shape = static()
    spacing: tuple[float, ...] | None = static(default=None)

    def __post_init__(self) -> None:
        D = FiniteDifference(self.shape, self.spacing)
        assign(self, shape=D.shape, spacing=D.spacing)

    @property
    def in_shape(self) -> Shape:
        return (1 + len(self.shape), *self.shape)

    @property
    def out_shape(self) -> Shape:
        return (len(self.shape), *self.shape)

    @property
    def accurate_entries(self) -> bool:
        return True

    def _valid(self, w: Array) -> Array:
        return jnp.stack([_padded(_inner(w[a], a), a, 0, 1) for a in range(len(self.shape))])

    def forward(self, z: Array) -> Array:
        return FiniteDifference(self.shape, self.spacing).forward(z[0]) - self._valid(z[1:])

    def adjoint(self, p: Array) -> Array:
        back = FiniteDifference(self.shape, self.spacing).adjoint(p)
        return jnp.concatenate([back[None], -self._valid(p)])

    def norm_bound(self) -> Array:
        square = FiniteDifference(self.shape, self.spacing).norm_bound() ** 2
        return round_up(jnp.sqrt(square + 1))


@pytree_dataclass
class OnImage(LinearOperator):
    """`op` of the image of a stack `(x, w)` with `fields` further components, which it does not see."""

    op: LinearOperator
    fields: int = static()

    @property
    def in_shape(self) -> Shape:
        return (1 + self.fields, *self.op.in_shape)

    @property
    def out_shape(self) -> Shape:
        return self.op.out_shape

    @property
    def in_dtype(self) -> np.dtype:
        return self.op.in_dtype

    @property
    def out_dtype(self) -> np.dtype:
        return self.op.out_dtype

    def forward(self, z: Array) -> Array:
        return self.op.forward(z[0])

    def adjoint(self, y: Array) -> Array:
        return self._stack(self.op.adjoint(y))

    def _stack(self, x: Array) -> Array:
        return _padded(x[None], 0, 0, self.fields)

    def norm_bound(self) -> Array:
        return self.op.norm_bound()

    def gram_diagonal(self) -> Array | None:
        d = self.op.gram_diagonal()
        return None if d is None else self._stack(jnp.broadcast_to(d, self.op.in_shape))

    def row_scale(self) -> Array | None:
        return self.op.row_scale()

    @property
    def weights_stay_diagonal(self) -> bool:
        return self.op.weights_stay_diagonal

    @property
    def accurate_entries(self) -> bool:
        return self.op.accurate_entries

    def measured(self, y: Array) -> Array:
        return self.op.measured(y)

    @property
    def has_resolvent(self) -> bool:
        return self.op.has_resolvent

    def resolvent(self, v: Array, tau: Array) -> Array:
        return jnp.concatenate([self.op.resolvent(v[0], tau)[None], v[1:]])


@pytree_dataclass
class OnField(LinearOperator):
    """`op` of the field of a stack `(x, w)`."""

    op: LinearOperator

    @property
    def in_shape(self) -> Shape:
        n, *shape = self.op.in_shape
        return (1 + n, *shape)

    @property
    def out_shape(self) -> Shape:
        return self.op.out_shape

    @property
    def accurate_entries(self) -> bool:
        return self.op.accurate_entries

    def forward(self, z: Array) -> Array:
        return self.op.forward(z[1:])

    def adjoint(self, y: Array) -> Array:
        return _padded(self.op.adjoint(y), 0, 1, 0)

    def norm_bound(self) -> Array:
        return self.op.norm_bound()
