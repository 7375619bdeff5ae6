"""FISTA (Beck and Teboulle 2009) with adaptive restart (O'Donoghue and Candès 2015).

    x' = prox_{g/L}(z - (A.H w (A z - y)) / L),     t' = (1 + sqrt(1 + 4 t^2)) / 2
    z' = x' + (t - 1) / t' (x' - x);                t' = 1, z' = x'  where <z - x', x' - x> > 0

for least squares plus one term `g(W x)` with `W` orthonormal (or the identity), or plus a box. `g` may be a constraint
(`L1Ball`): then it is the accelerated projected gradient.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array

from emjax._pytree import pytree_dataclass, static
from emjax.functionals import L1, Functional, L1Ball, LeastSquares
from emjax.solvers.certificate import Certificate, from_primal
from emjax.solvers.problem import Problem


class Plan(NamedTuple):
    problem: Problem
    step: Array  # 1 / L
    isometry: Array | None  # c with W.H W = W W.H = c I


class State(NamedTuple):
    x: Array
    z: Array
    t: Array


@pytree_dataclass
class FISTA:
    """Settings: `restart` (the gradient test above), `check_every` steps a certificate."""

    restart: bool = static(default=True)
    check_every: int = static(default=10)

    def supports(self, problem: Problem) -> str | None:
        if not isinstance(problem.data, LeastSquares):
            return "FISTA takes least squares plus one term, or plus a box; use PDHG for other data terms"
        if len(problem.terms) > 1 or (problem.terms and problem.box is not None):
            return "FISTA takes least squares plus one term, or plus a box; use PDHG for sums of terms"
        for term in problem.terms:
            if term.K.gram_scale() is None or term.K.row_scale() is None:
                return f"FISTA needs a prox in closed form, which a term behind {term.K} has not; use PDHG"
        return None

    def prepare(self, problem: Problem) -> Plan:
        dtype = problem.data.y.real.dtype
        lipschitz = problem.data.lipschitz()
        step = 1 / jnp.where(lipschitz > 0, lipschitz, 1)
        isometry = problem.terms[0].K.gram_scale() if problem.terms else None
        return Plan(problem, step.astype(dtype), None if isometry is None else isometry.astype(dtype))

    def init(self, plan: Plan, x0: Array | None) -> State:
        if x0 is None:
            x0 = plan.step * plan.problem.data.backprojection()
        # Constraints hold from the first certificate on, infinite weights among them.
        terms = plan.problem.terms
        if plan.problem.box is not None or any(isinstance(t.functional, L1Ball) for t in terms):
            x0 = self._prox(plan, x0)
        elif terms and isinstance(terms[0].functional, L1):
            w = terms[0].functional.weight
            x0 = self._prox(plan, x0, L1(jnp.where(jnp.isinf(w), w, 0), terms[0].functional.ndim))
        return State(x0, x0, jnp.ones((), jnp.real(x0).dtype))

    def resume(self, plan: Plan, state: State) -> State:
        """The state of a neighbouring problem as a start, its momentum dropped."""
        return self.init(plan, state.x)

    def _prox(self, plan: Plan, v: Array, g: Functional | None = None) -> Array:
        problem = plan.problem
        if problem.box is not None:
            return problem.box.prox(v)
        if not problem.terms:
            return v
        term, c = problem.terms[0], plan.isometry
        assert c is not None
        g = term.functional if g is None else g
        coefficients = term.K.forward(v)
        # g(W x) with W.H W = c I: prox = v + W.H (prox_{c step g}(W v) - W v) / c.
        return v + term.K.adjoint(g.prox(coefficients, plan.step * c) - coefficients) / c

    def step(self, plan: Plan, state: State, last: Any = False) -> State:
        x = self._prox(plan, state.z - plan.step * plan.problem.least_squares.gradient(state.z))
        t = (1 + jnp.sqrt(1 + 4 * state.t**2)) / 2
        momentum = (state.t - 1) / t
        if self.restart:
            uphill = jnp.sum(jnp.real(jnp.conj(state.z - x) * (x - state.x))) > 0
            t, momentum = jnp.where(uphill, 1, t), jnp.where(uphill, 0, momentum)
        return State(x, x + momentum * (x - state.x), t)

    def certificate(self, plan: Plan, state: State) -> tuple[Certificate, Array, State]:
        return from_primal(plan.problem, state.x), state.x, state

    def value(self, plan: Plan, state: State) -> Array:
        return state.x
