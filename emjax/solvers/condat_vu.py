"""The primal-dual method of Condat (2013) and Vu (2013): a smooth data term by its gradient, the rest by proximal maps.

    x' = prox_{tau G}(x - tau (grad f(x) + sum_i K_i.H p_i))
    p_i' = prox_{sigma_i F_i*}(p_i + sigma_i K_i (2 x' - x)),    1 / tau - sum_i sigma_i ||K_i||^2 = m >= L / 2
    (x, p) <- (x, p) + rho ((x', p') - (x, p)),                  rho < 2 - L / (2 m)

with `L` the Lipschitz constant of `grad f`. `G` is the box and the first term of `x` itself that can stand beside it,
such as l1; the other terms are dualised. The data is never dualised, so that a step costs one `A` and one `A.H`, and a
dual of the data is not waited for. `m` is the least that the relaxation allows; the ratio of the remaining step sizes
is balanced as in PDHG.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from emjax._pytree import pytree_dataclass, static
from emjax.functionals import L1, Box, HuberLoss, LeastSquares
from emjax.operators import Identity
from emjax.solvers import pdhg
from emjax.solvers.certificate import Certificate, from_dual, from_primal, norm, primal_dual
from emjax.solvers.loop import balancing
from emjax.solvers.pdhg import Point
from emjax.solvers.problem import Problem, Term, total


class Plan(NamedTuple):
    base: pdhg.Plan  # its box, back-projection and scale
    direct: Term | None  # the term of x itself
    terms: tuple[Term, ...]  # the dualised ones
    lipschitz: Array
    norms: tuple[Array, ...]

    @property
    def problem(self) -> Problem:
        return self.base.problem

    @property
    def box(self) -> Box | None:
        return self.base.box

    @property
    def scale(self) -> Array:
        return self.base.scale


class State(NamedTuple):
    x: Array
    direct: Array | None  # the dual of the direct term, a subgradient at x
    duals: tuple[Array, ...]
    balance: Array
    anchor: tuple[Array, tuple[Array, ...]]
    checks: Array


@pytree_dataclass
class CondatVu:
    """Settings: `relaxation` (rho), `balance` (adapt the step ratio), `check_every` steps a certificate."""

    relaxation: Array | float = 1.5
    balance: bool = static(default=True)
    check_every: int = static(default=20)

    def supports(self, problem: Problem) -> str | None:
        if not isinstance(problem.data, LeastSquares | HuberLoss):
            return "CondatVu takes smooth data terms, least squares or Huber's loss; use PDHG or ADMM for others"
        return "CondatVu does not know the field of a TGV; use PDHG" if problem.fields else None

    def prepare(self, problem: Problem) -> Plan:
        base = pdhg.PDHG().prepare(problem)
        index = next((i for i, term in enumerate(problem.terms) if _is_direct(term, base.box)), None)
        terms = tuple(term for i, term in enumerate(problem.terms) if i != index)
        dtype = base.scale.dtype
        return Plan(
            base,
            None if index is None else problem.terms[index],
            terms,
            problem.data.lipschitz().astype(dtype),
            tuple(t.K.norm_bound().astype(dtype) for t in terms),
        )

    def init(self, plan: Plan, x0: Array | None) -> State:
        x0 = pdhg.starting_point(plan.base) if x0 is None else x0
        x = x0 if plan.box is None else plan.box.prox(x0)
        duals = tuple(jnp.zeros(t.K.out_shape, pdhg.dual_dtype(t, plan.base.rhs.dtype)) for t in plan.terms)
        direct = None if plan.direct is None else jnp.zeros_like(x)
        return State(x, direct, duals, jnp.ones((), plan.scale.dtype), (x, duals), jnp.zeros((), jnp.int32))

    def resume(self, plan: Plan, state: State) -> State:
        """The iterates stay, projected to this problem's box and weights; the step sizes follow its scale."""
        x = state.x if plan.box is None else plan.box.prox(state.x)
        duals = tuple(t.functional.project(p) for t, p in zip(plan.terms, state.duals, strict=True))
        direct = state.direct
        if plan.direct is not None and direct is not None:
            direct = plan.direct.functional.project(direct)
        return state._replace(x=x, direct=direct, duals=duals)

    def _coupling(self, plan: Plan, state: State) -> Array:
        """`s = sum_i sigma_i ||K_i||^2`, whose inverse is the `tau` of PDHG."""
        largest = jnp.max(jnp.stack(plan.norms)) if plan.norms else jnp.ones_like(state.balance)
        return largest / (0.1 * plan.scale * state.balance)

    def _tau(self, plan: Plan, state: State) -> Array:
        margin = 1.01 * plan.lipschitz / (4 - 2 * jnp.asarray(self.relaxation, plan.scale.dtype))
        inverse = margin + (self._coupling(plan, state) if plan.norms else 0)
        return 1 / jnp.where(inverse > 0, inverse, 1)

    def _update(self, plan: Plan, state: State) -> tuple[Array, Array | None, tuple[Array, ...]]:
        """One step without relaxation."""
        x, tau = state.x, self._tau(plan, state)
        data = plan.problem.data
        back = data.A.adjoint(_slope(data, x)).astype(x.dtype)
        for term, p in zip(plan.terms, state.duals, strict=True):
            back = back + term.K.adjoint(p)
        new, direct = x - tau * back, None
        if plan.direct is not None:
            direct = plan.direct.functional.conjugate_prox(new / tau, 1 / tau)
            new = new - tau * direct
        new = new if plan.box is None else plan.box.prox(new)
        ahead, coupling = 2 * new - x, self._coupling(plan, state)
        duals = []
        for term, p, size in zip(plan.terms, state.duals, plan.norms, strict=True):
            sigma = 0.99 * coupling / (len(plan.norms) * jnp.where(size > 0, size * size, jnp.inf))
            duals.append(term.functional.conjugate_prox(p + sigma * term.K.forward(ahead), sigma))
        return new, direct, tuple(duals)

    def step(self, plan: Plan, state: State, last: Any = False) -> State:
        x, direct, duals = self._update(plan, state)
        # The step before a certificate is plain: its x lies in the box and its duals in their balls.
        rho = jnp.where(last, 1, jnp.asarray(self.relaxation, plan.scale.dtype))
        x = state.x + rho * (x - state.x)
        duals = tuple(p + rho * (q - p) for p, q in zip(state.duals, duals, strict=True))
        return state._replace(x=x, direct=direct, duals=duals)

    def point(self, state: State) -> Point:
        return state.x, state.duals

    def plain(
        self, plan: Plan, point: tuple[Array, tuple[Array, ...]], state: State
    ) -> tuple[Array, tuple[Array, ...]]:
        lipschitz, norms = lax.stop_gradient((plan.lipschitz, plan.norms))
        plan = plan._replace(base=pdhg.held(plan.base), lipschitz=lipschitz, norms=norms)
        x, _, duals = self._update(plan, lax.stop_gradient(state)._replace(x=point[0], duals=point[1]))
        return x, duals

    def answer(self, plan: Plan, point: Point, state: State) -> Array:
        return self.plain(plan, point, state)[0]

    def value(self, plan: Plan, state: State) -> Array:
        """The iterate after one more plain step: feasible, and no farther from the optimum."""
        return self._update(plan, state)[0]

    def certificate(self, plan: Plan, state: State) -> tuple[Certificate, Array, State]:
        certificate = self._certify(plan, state)
        if self.balance and plan.terms:
            state = self._balance(plan, state)
        return certificate, state.x, state._replace(checks=state.checks + 1)

    def _certify(self, plan: Plan, state: State) -> Certificate:
        problem, data, x = plan.problem, plan.problem.data, state.x
        if plan.box is None and isinstance(data, LeastSquares):
            return from_primal(problem, x)
        q = _slope(data, x)
        if plan.box is None:
            return from_dual(problem, x, q)
        rest = iter(state.duals)
        duals = tuple(
            state.direct if term is plan.direct and state.direct is not None else next(rest) for term in problem.terms
        )
        return primal_dual(problem, plan.box, x, q, duals)

    def _balance(self, plan: Plan, state: State) -> State:
        """Move the primal step towards (primal movement) / (dual movement); see `balancing` for when"""

        def rebalance() -> tuple[Array, Any]:
            x0, p0 = state.anchor
            dx = norm(state.x - x0)
            dp = jnp.sqrt(total([norm(a - b) ** 2 for a, b in zip(state.duals, p0, strict=True)]))
            moved = (dx > 0) & (dp > 0)
            ratio = jnp.where(moved, dx, 1) / jnp.where(moved, dp, 1) * self._coupling(plan, state) / math.sqrt(8.0)
            factor = jnp.where(moved, jnp.sqrt(ratio), 1)
            return (state.balance * factor).astype(state.balance.dtype), (state.x, state.duals)

        balance, anchor = lax.cond(balancing(state.checks), rebalance, lambda: (state.balance, state.anchor))
        return state._replace(balance=balance, anchor=anchor)


def _is_direct(term: Term, box: Box | None) -> bool:
    # Beside a box the prox of the sum is the prox and then the box, which is true of functions of single pixels.
    return isinstance(term.K, Identity) and (box is None or isinstance(term.functional, L1))


def _slope(data: Any, x: Array) -> Array:
    """The derivative of the data term by `A x`, which is its dual."""
    z = data.A.forward(x)
    return data.weighted(z - data.y) if isinstance(data, LeastSquares) else data.functional.gradient(z)
