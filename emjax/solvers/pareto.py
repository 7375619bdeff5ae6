"""Basis pursuit denoising by root finding on the Pareto curve (van den Berg and Friedlander 2008, 2011).

    minimise sum_i w_i |W x|_i   subject to   |A x - y| <= eps,        W orthonormal (or the identity)

The curve `phi(tau) = min |A x - y|` over the ball `sum w |W x| <= tau` is convex and falls to `eps` at the optimum.
Every residual `r = A v - y`, that of the best `x` or not, gives a line below it:

    phi(tau) >= a - tau b,    a = -<y, r> / |r|,    b = max_i |W A.H r|_i / (w_i |r|),

and `(a - eps) / b`, where the line meets `eps`, is a lower bound of the optimum: the dual objective. At the best `x` it
is the step of Newton. So `tau` climbs from line to line and never beyond the optimum (Aravkin, Burke, Drusvyatskiy,
Friedlander, Roy 2019), in every accelerated projected gradient step (`fista.py`) whose line passes near its residual:

    tau <- max(tau, (a - eps) / b)        if  a - tau b - eps >= 0.9 (|r| - eps)
    x' = P_tau(v - A.H r / L),     t' = (1 + sqrt(1 + 4 t^2)) / 2
    v' = x' + (t - 1) / t' (x' - x);                t' = 1, v' = x'  where <v - x', x' - x> > 0
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import pytree_dataclass, static
from emjax.functionals import L1, L1Ball, L2Ball
from emjax.operators.base import complex_items
from emjax.solvers.certificate import Certificate, from_dual, norm
from emjax.solvers.problem import Problem


class Plan(NamedTuple):
    problem: Problem
    step: Array  # 1 / L
    isometry: Array  # c with W.H W = W W.H = c I


class State(NamedTuple):
    x: Array
    v: Array
    t: Array
    tau: Array
    q: Array  # r / (b |r|) of the best line


@pytree_dataclass
class ParetoRoot:
    """Settings: `check_every` steps a certificate.

    The answer lies outside of the ball of measurements by a part of its radius that is no larger than the gap. Where no
    `x` meets the constraint, `tau` grows until the step limit, or until rounding stalls it; the gap stays large. With
    `eps = 0` the residual is the dual and gets lost in rounding where it is about `sqrt(machine eps) |y|`: `x` is then
    right to about 3e-4 in float32 (4e-8 in float64), the certified gap stays at 0.1 or more (4e-5), and the run ends at
    the step limit. PDHG reaches 1e-6 (1e-15): take it for basis pursuit.
    """

    check_every: int = static(default=20)

    def supports(self, problem: Problem) -> str | None:
        terms = problem.terms
        if not isinstance(problem.data, L2Ball) or problem.box is not None or len(terms) != 1:
            return (
                "ParetoRoot takes L2Ball(A, y, radius) plus one l1 norm; use PDHG for boxes, sums and other data terms"
            )
        if not isinstance(terms[0].functional, L1):
            return f"ParetoRoot takes an l1 norm, got {type(terms[0].functional).__name__}; use PDHG"
        if terms[0].K.gram_scale() is None or terms[0].K.row_scale() is None:
            return f"ParetoRoot needs an orthonormal transform, which {terms[0].K} is not known to be; use PDHG"
        weight = terms[0].functional.weight
        if not isinstance(weight, jax.core.Tracer) and not bool(np.all(np.asarray(weight) != 0)):
            return "ParetoRoot needs weights above zero: no dual point is known for free entries; use PDHG"
        return None

    def prepare(self, problem: Problem) -> Plan:
        dtype = problem.data.y.real.dtype
        square = problem.data.A.norm_bound() ** 2
        isometry = problem.terms[0].K.gram_scale()
        assert isometry is not None
        return Plan(problem, (1 / jnp.where(square > 0, square, 1)).astype(dtype), isometry.astype(dtype))

    def init(self, plan: Plan, x0: Array | None) -> State:
        A, y, back = plan.problem.data.A, plan.problem.data.y, plan.problem.data.backprojection()
        x = jnp.zeros_like(back if complex_items(A, y) else jnp.real(back)) if x0 is None else x0
        zero = jnp.zeros((), jnp.real(y).dtype)
        return State(x, x, zero + 1, zero, jnp.zeros_like(A.forward(x) - y))

    def resume(self, plan: Plan, state: State) -> State:
        """The item of a neighbouring problem as a start."""
        return self.init(plan, state.x)

    def step(self, plan: Plan, state: State, last: Any = False) -> State:
        data, term, c = plan.problem.data, plan.problem.terms[0], plan.isometry
        assert isinstance(data, L2Ball) and isinstance(term.functional, L1)
        r = data.A.forward(state.v) - data.y
        gradient = data.A.adjoint(r)
        gradient = (gradient if jnp.iscomplexobj(state.v) else jnp.real(gradient)).astype(state.v.dtype)
        size = norm(r)
        e = r / jnp.where(size > 0, size, 1)
        ball = L1Ball(state.tau, term.functional.weight, term.functional.ndim)
        # The gradient is as long as the residual: A.H e by division.
        b = ball.slopes(term.K.forward(gradient)) / jnp.where(size > 0, size, 1) / c
        a = -jnp.sum(jnp.real(jnp.conj(data.y) * e))
        bound = (a - data.radius) / jnp.where(b > 0, b, jnp.inf)
        # A line far below this residual says that its ball is not used up yet: climbing on it only costs steps.
        near = a - state.tau * b - data.radius >= 0.9 * (size - data.radius)
        higher = near & (bound > state.tau) & jnp.isfinite(bound) & (b > 0)
        tau = jnp.where(higher, bound, state.tau).astype(state.tau.dtype)
        q = jnp.where(higher, e / jnp.where(b > 0, b, 1), state.q)

        ball = L1Ball(tau, term.functional.weight, term.functional.ndim)
        x = state.v - plan.step * gradient
        coefficients = term.K.forward(x)
        x = x + term.K.adjoint(ball.prox(coefficients) - coefficients) / c
        t = (1 + jnp.sqrt(1 + 4 * state.t**2)) / 2
        uphill = jnp.sum(jnp.real(jnp.conj(state.v - x) * (x - state.x))) > 0
        momentum = jnp.where(uphill, 0, (state.t - 1) / t)
        return State(x, x + momentum * (x - state.x), jnp.where(uphill, 1, t), tau, q)

    def certificate(self, plan: Plan, state: State) -> tuple[Certificate, Array, State]:
        return from_dual(plan.problem, state.x, state.q), state.x, state

    def value(self, plan: Plan, state: State) -> Array:
        return state.x
