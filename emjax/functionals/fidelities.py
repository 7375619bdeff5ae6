"""Data terms `g(A x)` beside least squares: Poisson counts, Huber's loss, a ball of known noise.

Each is `A`, the measurements `y`, and a functional of `A x` (see `likelihoods.py`). What was not measured is set to
zero, whatever it holds.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax._pytree import assign, leaf, pytree_dataclass
from emjax.functionals.base import Functional, weights
from emjax.functionals.likelihoods import Ball, Huber, KullbackLeibler
from emjax.operators.base import LinearOperator, Shape, check_measured, map_batch


class Fidelity:
    """Base class of data terms: subclasses have fields `A` and `y` and give `functional`, a functional of `A x`."""

    A: LinearOperator
    y: Any

    @property
    def functional(self) -> Functional:
        raise NotImplementedError

    def _take(self) -> None:
        """Check and store the measurements (in `__post_init__`)."""
        assign(self, y=check_measured(self.A, self.y, f"{type(self).__name__}(A, y)"))

    @property
    def out_shape(self) -> Shape:
        return self.A.out_shape

    @property
    def _scalar(self) -> int:
        return 0

    def __call__(self, x: Array) -> Array:
        return map_batch(lambda data, v: data.functional(data.A.forward(v)), self, x, self.A.in_shape)

    def backprojection(self) -> Array:
        """`A.H y`."""
        return self.A.adjoint(self.y)

    def lipschitz(self) -> Array:
        """A typical curvature of the data term, for first step sizes."""
        return self.A.norm_bound() ** 2

    @property
    def separable(self) -> bool:
        """Whether it is a sum over pixels of x, each with a derivative: prox and conjugate are closed forms then."""
        return self.A.is_diagonal and hasattr(self.functional, "gradient")

    def centre(self) -> Array:
        """The `A x` that explains the measurements best."""
        return self.y

    def multipliers(self) -> Array:
        """`m` with `A x = m x` for a diagonal operator."""
        return self.A.forward(jnp.ones(self.A.in_shape, jnp.real(self.y).dtype))

    def prox(self, x: Array, step: Array) -> Array:
        """The prox with respect to x of a separable term."""

        def one(data: Fidelity, x: Array) -> Array:
            # min over x of g(m x) + |x - v|^2 / (2 step) is, in z = m x, a prox of g with the step `step m^2`.
            m = data.multipliers()
            seen = m != 0
            safe = jnp.where(seen, m, 1)
            z = data.functional.prox(safe * x, step * safe**2)
            return jnp.where(seen, z / safe, x)

        return map_batch(one, self, x, self.A.in_shape)


@pytree_dataclass
class PoissonLikelihood(Fidelity):
    """`sum (A x + b - y log(A x + b)) / gain`: counts of electrons without read-out noise.

    `y`, shape `(*batch, *A.out_shape)`, in grey values, `gain` the grey value of one electron (`Noise.gain`),
    `background` b the mean grey value that the detector adds. Values of `y` below zero, which counts cannot have, count
    as zero. Take it with a `Box` from zero up.
    """

    A: LinearOperator
    y: Any = leaf("out_shape")
    gain: Any = leaf("_scalar", default=1.0)
    background: Any = leaf("_scalar", default=0.0)

    def __post_init__(self) -> None:
        self._take()
        if jnp.iscomplexobj(self.y):
            raise ValueError("electrons are counted as real numbers, got complex measurements")
        y = jnp.where(self.y < 0, 0, self.y)  # NaN stays, and ends in a status
        assign(self, y=y, gain=weights("the gain", self.gain), background=weights("the background", self.background))

    @property
    def functional(self) -> KullbackLeibler:
        # What was not measured holds no background either: it would be a constant of the objective, and dilute the gap.
        background = self.A.measured(jnp.broadcast_to(self.background, self.y.shape).astype(self.y.dtype))
        return KullbackLeibler(self.y, self.gain, background, len(self.out_shape))

    def centre(self) -> Array:
        return self.A.measured(self.y - self.background)

    def lipschitz(self) -> Array:
        mean = jnp.sum(self.y) / jnp.maximum(jnp.sum(self.A.measured(jnp.ones_like(self.y))), 1)
        return self.A.norm_bound() ** 2 / jnp.where(mean > 0, mean * self.gain, 1)


@pytree_dataclass
class HuberLoss(Fidelity):
    """`sum_i h(A x - y)_i`: a square up to `delta`, linear beyond. Shapes as for `LeastSquares`."""

    A: LinearOperator
    y: Any = leaf("out_shape")
    delta: Any = leaf("_scalar", default=0.1)

    def __post_init__(self) -> None:
        self._take()
        if jnp.iscomplexobj(self.y):
            raise ValueError("Huber's loss is for real measurements, got complex ones")
        assign(self, delta=weights("delta", self.delta))

    @property
    def functional(self) -> Huber:
        return Huber(self.delta, self.y, len(self.out_shape))


@pytree_dataclass
class L2Ball(Fidelity):
    """The constraint `|A x - y|_2 <= radius`: all that is known of the noise is its size.

    Source: Candès, Romberg, Tao 2006.
    """

    A: LinearOperator
    y: Any = leaf("out_shape")
    radius: Any = leaf("_scalar", default=0.0)

    def __post_init__(self) -> None:
        self._take()
        assign(self, radius=weights("the radius of a ball", self.radius))

    @property
    def functional(self) -> Ball:
        return Ball(self.radius, self.y, len(self.out_shape))

    def restore(self, x: Array) -> Array:
        """A feasible point near `x`, for one item, where `A A.H` is diagonal; `x` itself elsewhere."""
        z = self.A.forward(x)
        move = self.functional.prox(z) - z
        if self.A.is_diagonal:
            m = self.multipliers()
            return x + jnp.where(m != 0, move / jnp.where(m != 0, m, 1), 0)
        scale = self.A.row_scale()
        return (
            x if scale is None else x + jnp.real(self.A.adjoint(move) / jnp.where(scale > 0, scale, 1)).astype(x.dtype)
        )
