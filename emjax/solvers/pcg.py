"""Preconditioned conjugate gradients for least squares plus quadratic priors diagonal in a fast transform.

    (A.H w A + C.H d C) x = A.H w y + C.H d C mean

The unknowns are the coefficients `c = C (x - mean)`: there the prior is diagonal, an iteration costs one transform and
one inverse, and `1 / (mean(A.H w A) + d)` is the preconditioner. An item whose residual is down to rounding takes zero
steps from then on: others of its batch go on without it becoming NaN. Where the system is not diagonal in pixels, the
residual is `A.H w` of what is left unexplained (CGLS, Hestenes and Stiefel 1952): carried along by itself it would
leave the range of `A.H` by rounding, and without full rank `c` would grow along that without end.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from emjax._pytree import pytree_dataclass, static
from emjax.functionals import LeastSquares, Quadratic
from emjax.operators import Identity, LinearOperator
from emjax.solvers.certificate import Certificate, from_primal
from emjax.solvers.problem import Problem

ROUNDING = 4  # of the recursion of the residual, in units of the machine's, relative to the right-hand side


class Plan(NamedTuple):
    problem: Problem
    C: LinearOperator
    d: Array  # zero without a prior
    mean: Array
    rhs: Array  # in the domain of the coefficients
    inverse: Array  # the preconditioner
    rounding: Array  # <r, inverse r> of a residual that is none
    target: Array | None  # y - A mean, where A.H w A is not diagonal; without it `rhs` may be any


class State(NamedTuple):
    c: Array
    residual: Array
    direction: Array
    rz: Array
    unexplained: Array | None  # y - A x, where the plan has a target


@pytree_dataclass
class PCG:
    """Setting: `check_every` steps a certificate."""

    check_every: int = static(default=10)

    def supports(self, problem: Problem) -> str | None:
        if not isinstance(problem.data, LeastSquares):
            return "PCG takes least squares plus at most one Quadratic prior; use PDHG for other data terms"
        if problem.box is not None:
            return "PCG solves problems without a box; use FISTA or PDHG"
        if len(problem.terms) > 1 or any(not _is_quadratic(t.functional, t.K) for t in problem.terms):
            return "PCG takes least squares plus at most one Quadratic prior of x itself; use PDHG"
        return None

    def prepare(self, problem: Problem) -> Plan:
        data = problem.least_squares
        rhs = data.backprojection()
        if problem.terms:
            prior = problem.terms[0].functional
            assert isinstance(prior, Quadratic)
            C, d, mean = prior.C, prior.d, jnp.broadcast_to(prior.mean, problem.in_shape).astype(rhs.dtype)
        else:
            C, d, mean = Identity(problem.in_shape), jnp.zeros((), rhs.dtype), jnp.zeros(problem.in_shape, rhs.dtype)
        # rhs - H mean without the rounding of the prior's share, which cancels.
        target = data.y - data.A.forward(mean)
        rhs = C.forward(data.A.adjoint(data.weighted(target)))
        diagonal = data.gram_diagonal()
        level = data.lipschitz() if diagonal is None else jnp.mean(jnp.broadcast_to(diagonal, problem.in_shape))
        scale = level + d
        inverse = (1 / jnp.where(scale > 0, scale, 1)).astype(rhs.dtype)
        rounding = (ROUNDING * float(jnp.finfo(rhs.dtype).eps)) ** 2 * _dot(rhs, inverse * rhs)
        kept = None if diagonal is not None else target
        return Plan(problem, C, d.astype(rhs.dtype), mean, rhs, inverse, lax.stop_gradient(rounding), kept)

    def apply(self, plan: Plan, c: Array) -> Array:
        """The symmetric system, of coefficients."""
        data = plan.problem.least_squares
        x = plan.C.adjoint(c)
        diagonal = data.gram_diagonal()
        ax = data.A.adjoint(data.weighted(data.A.forward(x))) if diagonal is None else diagonal * x
        return plan.C.forward(ax) + plan.d * c

    def init(self, plan: Plan, x0: Array | None) -> State:
        c = plan.inverse * plan.rhs if x0 is None else plan.C.forward(x0 - plan.mean)
        return self._from(plan, c)

    def _from(self, plan: Plan, c: Array) -> State:
        left = None
        if plan.target is not None:
            left = plan.target - plan.problem.data.A.forward(plan.C.adjoint(c))
        residual = plan.rhs - self.apply(plan, c) if left is None else self._back(plan, left, c)
        direction = plan.inverse * residual
        return State(c, residual, direction, _dot(residual, direction), left)

    def _back(self, plan: Plan, left: Array, c: Array) -> Array:
        """The residual from what is left unexplained: in the range of `A.H` but for its own rounding, and so is `c`."""
        data = plan.problem.least_squares
        return (plan.C.forward(data.A.adjoint(data.weighted(left))) - plan.d * c).astype(plan.rhs.dtype)

    def resume(self, plan: Plan, state: State) -> State:
        """The state of a neighbouring problem as a start: the residual belongs to the new one."""
        return self._from(plan, state.c)

    def step(self, plan: Plan, state: State, last: Any = False) -> State:
        data, left = plan.problem.least_squares, state.unexplained
        if left is None:
            applied = self.apply(plan, state.direction)
            curvature = _dot(state.direction, applied)
        else:
            seen = data.A.forward(plan.C.adjoint(state.direction))
            curvature = _dot(seen, data.weighted(seen)) + _dot(state.direction, plan.d * state.direction)
        alive = (curvature > 0) & (state.rz > plan.rounding)
        alpha = jnp.where(alive, state.rz / jnp.where(alive, curvature, 1), 0)
        c = state.c + alpha * state.direction
        if left is None:
            residual = state.residual - alpha * applied
        else:
            left = left - alpha * seen
            residual = self._back(plan, left, c)
        z = plan.inverse * residual
        rz = _dot(residual, z)
        beta = jnp.where(alive, rz / jnp.where(alive, state.rz, 1), 0)
        return State(c, residual, z + beta * state.direction, rz, left)

    def point(self, state: State) -> Array:
        return state.c

    def plain(self, plan: Plan, point: Array, state: State) -> Array:
        """Adds the residual: one minus its derivative is the symmetric system."""
        return point + plan.rhs - self.apply(plan, point)

    def precondition(self, plan: Plan, residual: Array) -> Array:
        return plan.inverse * residual

    def answer(self, plan: Plan, point: Array, state: State) -> Array:
        return plan.mean + plan.C.adjoint(point)

    def certificate(self, plan: Plan, state: State) -> tuple[Certificate, Array, State]:
        x = self.value(plan, state)
        return from_primal(plan.problem, x), x, state

    def value(self, plan: Plan, state: State) -> Array:
        return plan.mean + plan.C.adjoint(state.c)


def _is_quadratic(functional: object, K: LinearOperator) -> bool:
    return isinstance(functional, Quadratic) and isinstance(K, Identity)


def _dot(a: Array, b: Array) -> Array:
    return jnp.sum(jnp.real(jnp.conj(a) * b))
