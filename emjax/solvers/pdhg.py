"""PDHG, the primal-dual hybrid gradient method of Chambolle and Pock (2011), over-relaxed, with balanced step sizes.

    x' = prox_{tau G}(x - tau sum_i K_i.H p_i)
    p_i' = prox_{sigma_i F_i*}(p_i + sigma_i K_i (2 x' - x)),     tau sum_i sigma_i ||K_i||^2 < 1
    (x, p) <- (x, p) + rho ((x', p') - (x, p)),                    1 <= rho < 2

`G` holds the data term when its prox has a closed form (pixel masks; together with the box), else the box alone, and
the data joins the terms, whatever its functional. The ratio of the step sizes is balanced by how far primal and dual
have moved, at geometrically spaced checks, so that finitely many changes happen in any run and convergence is kept;
with `restarts`, the run starts again from the average iterate where that has the smaller gap (Applegate et al. 2021).
With `preconditioned`, for operators whose rows and columns are of unlike size, every entry has its own step size,
tau_j = t / sum_i |K_ij| and sigma_i = 1 / (t sum_j |K_ij|) (Pock and Chambolle 2011, alpha = 1).
"""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax._pytree import pytree_dataclass, static
from emjax.functionals import L1, Box, Fidelity, GroupL1, L2Ball, LeastSquares, SquaredDistance
from emjax.functionals.likelihoods import Huber, KullbackLeibler
from emjax.solvers.certificate import Certificate, diagonal_bounds, from_dual, from_primal, norm, primal_dual
from emjax.solvers.coarse import can_coarsen, coarser, finer
from emjax.solvers.loop import balancing
from emjax.solvers.polish import can_polish, polished
from emjax.solvers.problem import Problem, Term, total

# The best `tau` over that of equal movements of primal and dual, for total variation of masks and of all pixels.
BALANCE = 0.25

COARSE = 40  # steps at half the resolution
POLISH = 16  # steps of polishing, each about one of the method's own

Point = tuple[Array, tuple[Array, ...]]  # x and the duals


class Plan(NamedTuple):
    problem: Problem
    terms: tuple[Term, ...]  # the dualised terms, the data first if it is among them
    box: Box | None
    rhs: Array  # A.H w y
    diagonal: Array | None
    norms: tuple[Array, ...]
    scale: Array  # expected size of primal movement over dual movement
    sums: tuple[Array, tuple[Array, ...]] | None = None  # of |K|: over columns, over the rows of each term


class State(NamedTuple):
    x: Array
    duals: tuple[Array, ...]
    balance: Array  # of the step sizes: tau over its first guess
    anchor: tuple[Array, tuple[Array, ...]]  # where the last balancing took place
    checks: Array
    average: tuple[Array, Array, tuple[Array, ...]] | None  # count, sums of the iterates since then
    best: Array  # the gap at the last restart


@pytree_dataclass
class PDHG:
    """Settings: `relaxation` (rho), `balance` (adapt the step ratio), `restarts`, `preconditioned` (by the sums of rows
    and columns), `check_every` steps a certificate."""

    relaxation: Array | float = 1.9
    balance: bool = static(default=True)
    restarts: bool = static(default=False)
    check_every: int = static(default=20)
    preconditioned: bool = static(default=False)

    pairs = True  # see `loop.several`
    looks_late = True  # the first certificate of a fresh start comes after the first steps

    def supports(self, problem: Problem) -> str | None:
        return None

    def prepare(self, problem: Problem) -> Plan:
        data = problem.data
        rhs = data.backprojection()
        terms, box = problem.terms, problem.box
        if isinstance(data, Fidelity):
            diagonal = data.A.gram_diagonal() if data.A.is_diagonal else None
            box = diagonal_bounds(problem)
            if not data.separable:
                terms = (Term(data.functional, data.A), *terms)
        elif (diagonal := data.gram_diagonal()) is not None:
            box = diagonal_bounds(problem)
        elif not data.has_prox or box is not None or self.preconditioned:
            distance = SquaredDistance(data.y, data.weight, len(data.out_shape))
            terms = (Term(distance, data.A), *terms)
        norms = tuple(term.K.norm_bound().astype(jnp.real(rhs).dtype) for term in terms)
        sums = _sums(terms, norms) if self.preconditioned and terms else None
        return Plan(problem, terms, box, rhs, diagonal, norms, _scale(problem, rhs, diagonal), sums)

    def init(self, plan: Plan, x0: Array | None) -> State:
        dtype = plan.rhs.dtype
        x0 = starting_point(plan) if x0 is None else plan.problem.variable(x0)
        x = x0 if plan.box is None else plan.box.prox(x0)
        duals = tuple(jnp.zeros(t.K.out_shape, dual_dtype(t, dtype)) for t in plan.terms)
        zero = jnp.zeros((), jnp.int32)
        average = (zero, jnp.zeros_like(x), _zeros(duals)) if self.restarts else None
        one = jnp.ones((), dtype.type(0).real.dtype)
        return State(x, duals, one, (x, duals), zero, average, one * jnp.inf)

    def guess(self, plan: Plan, state: State) -> State:
        """A better start for total variation, from a few steps at half the resolution."""
        if self.preconditioned or not can_coarsen(plan.problem):
            return state
        coarse = self.prepare(coarser(plan.problem))
        c = self.guess(coarse, self.init(coarse, None))
        for _ in range(2):
            c = lax.fori_loop(0, COARSE // 4, lambda _, s: self._twice(coarse, s), c)
            c = self._ratio(coarse, c, jnp.zeros_like(c.balance)) if self.balance else c
        x, p = finer(plan.problem, c.x, c.duals[0])
        x = x if plan.box is None else plan.box.prox(x)
        state = state._replace(x=x.astype(state.x.dtype), duals=(p.astype(state.duals[0].dtype),))
        return self._ratio(plan, state, jnp.zeros_like(state.balance)) if self.balance else state

    def _twice(self, plan: Plan, state: State) -> State:
        return jax.tree.map(_as, self.step(plan, self.step(plan, state)), state)

    def resume(self, plan: Plan, state: State) -> State:
        """The iterates stay, projected to this problem's box and weights; the step sizes follow its scale."""
        x = state.x if plan.box is None else plan.box.prox(state.x)
        return state._replace(
            x=x, duals=tuple(t.functional.project(p) for t, p in zip(plan.terms, state.duals, strict=True))
        )

    def _tau(self, plan: Plan, state: State) -> Array:
        largest = jnp.max(jnp.stack(plan.norms)) if plan.norms else jnp.ones_like(state.balance)
        return (state.balance * 0.1 * plan.scale / jnp.where(largest > 0, largest, 1)).astype(state.balance.dtype)

    def _sigmas(self, plan: Plan, tau: Array) -> list[Array]:
        # Each dual gets an equal share of the condition, so that operators of unlike norm do not slow each other.
        share = 0.99 / max(1, len(plan.norms))
        # An operator that is zero takes any step size; its dual settles by itself.
        return [share / (tau * jnp.where(n > 0, n * n, 1)) for n in plan.norms]

    def _steps(self, plan: Plan, state: State) -> tuple[Array, list[Array]]:
        tau = self._tau(plan, state)
        if plan.sums is None:
            return tau, self._sigmas(plan, tau)
        columns, rows = plan.sums
        largest = jnp.max(jnp.stack(plan.norms))
        t = tau * jnp.where(largest > 0, largest, 1)
        return t / columns, [0.99 / (t * r) for r in rows]

    def _update(self, plan: Plan, state: State) -> tuple[Array, tuple[Array, ...]]:
        """One step without relaxation."""
        tau, sigmas = self._steps(plan, state)
        new = self._primal(plan, state, tau)
        return new, self._dual(plan, state, 2 * new - state.x, sigmas)

    def _primal(self, plan: Plan, state: State, tau: Array) -> Array:
        x = state.x
        back = sum((t.K.adjoint(p) for t, p in zip(plan.terms, state.duals, strict=True)), jnp.zeros_like(x))
        v = x - tau * back
        data = plan.problem.data
        if isinstance(data, Fidelity):
            v = data.prox(v, tau) if data.separable else v
        elif plan.diagonal is not None:
            v = (v + tau * plan.rhs) / (1 + tau * plan.diagonal)
        elif len(plan.terms) == len(plan.problem.terms):
            v = data.A.resolvent(v + tau * plan.rhs, tau).astype(x.dtype)
        return v if plan.box is None else plan.box.prox(v)

    def _dual(self, plan: Plan, state: State, ahead: Array, sigmas: list[Array]) -> tuple[Array, ...]:
        return tuple(
            t.functional.conjugate_prox(p + sigma * t.K.forward(ahead), sigma)
            for t, p, sigma in zip(plan.terms, state.duals, sigmas, strict=True)
        )

    def step(self, plan: Plan, state: State, last: Any = False) -> State:
        tau, sigmas = self._steps(plan, state)
        # The step before a certificate is plain: its x lies in the box and its duals in their balls.
        rho = jnp.where(last, 1, jnp.asarray(self.relaxation, state.balance.dtype))
        x = state.x + rho * (self._primal(plan, state, tau) - state.x)
        # `2 x' - x`, from the relaxed x: the compiler then needs x' in one place only, and the step takes 0.6 of the
        # time on a CPU.
        ahead = state.x + (2 / rho) * (x - state.x)
        duals = self._dual(plan, state, ahead, sigmas)
        duals = tuple(p + rho * (q - p) for p, q in zip(state.duals, duals, strict=True))
        average = state.average
        if average is not None:
            count, sx, sp = average
            average = (count + 1, sx + x, tuple(a + b for a, b in zip(sp, duals, strict=True)))
        return state._replace(x=x, duals=duals, average=average)

    def value(self, plan: Plan, state: State) -> Array:
        """The iterate after one more plain step: feasible, and no farther from the optimum."""
        return plan.problem.image(restored(plan, self._update(plan, state)[0]))

    def point(self, state: State) -> Point:
        return state.x, state.duals

    def plain(
        self, plan: Plan, point: tuple[Array, tuple[Array, ...]], state: State
    ) -> tuple[Array, tuple[Array, ...]]:
        x, duals = point
        return self._update(held(plan), lax.stop_gradient(state)._replace(x=x, duals=duals))

    def answer(self, plan: Plan, point: Point, state: State) -> Array:
        # After one more step: the weights reach x through the duals.
        return plan.problem.image(self.plain(plan, point, state)[0])

    def certificate(self, plan: Plan, state: State) -> tuple[Certificate, Array, State]:
        certificate = self._certify(plan, state.x, state.duals)
        if self.restarts:
            state, certificate = self._restart(plan, state, certificate)
        x = restored(plan, state.x)
        if self.balance:
            state = self._balance(plan, state, certificate.objective)
        return certificate, plan.problem.image(x), state._replace(checks=state.checks + 1)

    def polish(self, plan: Plan, state: State, certificate: Certificate, near: Array) -> Certificate:
        """The better of the certificate and that of polished duals where the gap is `near` enough to be worth it."""
        if plan.box is None or plan.diagonal is None or not can_polish(plan.problem):
            return certificate
        near = near & ~jnp.all(plan.diagonal > 0)

        def better() -> Certificate:
            count = jnp.where(near, POLISH, 0)  # in a batch this runs for all items if for any, and these steps not
            duals = polished(plan.problem, plan.norms, state.x, state.duals, count)
            other = self._certify(plan, state.x, duals)
            use = other.gap + other.allowance < certificate.gap + certificate.allowance
            return jax.tree.map(lambda a, b: jnp.where(use, a, b), other, certificate)

        return lax.cond(near, better, lambda: certificate)

    def _certify(self, plan: Plan, x: Array, duals: tuple[Array, ...]) -> Certificate:
        problem = plan.problem
        x = restored(plan, x)
        if plan.box is None:
            data = problem.data
            if not isinstance(data, Fidelity):
                return from_primal(problem, x)
            return from_dual(problem, x, data.functional.gradient(data.A.forward(x)) if data.separable else duals[0])  # type: ignore[attr-defined]
        dualised = len(plan.terms) > len(problem.terms)
        q = duals[0] if dualised else None
        return primal_dual(problem, plan.box, x, q, duals[1:] if dualised else duals)

    def _balance(self, plan: Plan, state: State, objective: Array) -> State:
        """Step sizes balanced at some certificates, finitely often in any run: see `balancing`, and `_ratio`."""
        early = state.checks <= 8
        power_of_two = (state.checks > 0) & (state.checks & (state.checks - 1) == 0)
        when = balancing(state.checks)
        if _total_variation(plan):  # certificates are few there, and late ones spaced geometrically
            when = jnp.where(early, power_of_two, state.checks % 4 == 0)
        # Of the condition only the number comes back: the arrays of a state would be copied either way.
        balance = lax.cond(when, lambda: self._ratio(plan, state, objective, early).balance, lambda: state.balance)
        anchor = jax.tree.map(lambda a, b: jnp.where(when, a, b), (state.x, state.duals), state.anchor)
        return state._replace(balance=balance, anchor=anchor)

    def _ratio(self, plan: Plan, state: State, objective: Array, early: Any = True) -> State:
        """Move `tau` towards (primal movement) / (dual movement) since the last balancing.

        With total variation, `early` on, in proportion to that of the whole movement since the start, which settles as
        they do: a hundred steps reach a gap of 1e-4. For gaps far below, what moves last decides.
        """
        tau, (x0, p0) = self._tau(plan, state), state.anchor
        dx, dp = _movements(plan, state.x - x0, [a - b for a, b in zip(state.duals, p0, strict=True)])
        if _total_variation(plan):
            whole = _movements(plan, state.x - starting_point(plan), list(state.duals))
            dx, dp = jnp.where(early, whole[0], dx), jnp.where(early, whole[1], dp)
        moved = (dx > 0) & (dp > 0)
        ratio = jnp.where(moved, dx / jnp.where(moved, dp, 1) / (math.sqrt(8.0) * tau), 1)
        factor = jnp.sqrt(ratio)
        if _total_variation(plan):
            factor = jnp.where(early & moved, BALANCE * ratio, factor)
        least = _least_tau(plan, state.x, objective) / tau * state.balance
        balance = jnp.maximum(state.balance * factor, jnp.minimum(least, 1)).astype(state.balance.dtype)
        return state._replace(balance=balance, anchor=(state.x, state.duals))

    def _restart(self, plan: Plan, state: State, certificate: Certificate) -> tuple[State, Certificate]:
        assert state.average is not None
        count, sx, sp = state.average
        inverse = 1 / jnp.maximum(count, 1).astype(state.balance.dtype)
        mean = state._replace(x=sx * inverse, duals=tuple(s * inverse for s in sp))
        x, duals = self._update(plan, mean)
        averaged = self._certify(plan, x, duals)
        use = (count > 0) & (averaged.gap < certificate.gap)
        gap = jnp.where(use, averaged.gap, certificate.gap)
        again = (gap < 0.3 * state.best) & (count > 0)
        x, duals = _select(use & again, (x, duals), (state.x, state.duals))
        fresh = (jnp.zeros_like(count), jnp.zeros_like(sx), _zeros(sp))
        average = _select(again, fresh, state.average)
        best = jnp.where(again, gap, state.best)
        certificate = _select(use & again, averaged, certificate)
        return state._replace(x=x, duals=duals, average=average, best=best), certificate


def _sums(terms: tuple[Term, ...], norms: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
    """Sums of `|K|` over the columns of all terms, and over the rows of each; its norm where they are not known."""
    columns, rows = [], []
    for term, bound in zip(terms, norms, strict=True):
        r, c = term.K.absolute_sums() or (bound, bound)
        g, dtype = term.functional, bound.dtype
        if isinstance(g, GroupL1):  # one step size for a group
            r = jnp.max(r, 0, keepdims=True) if r.ndim == len(term.K.out_shape) else r
        elif not isinstance(g, L1 | SquaredDistance | KullbackLeibler | Huber):
            r = jnp.max(r)
        rows.append(_lifted(r.astype(dtype)))
        columns.append(c.astype(dtype))
    return _lifted(sum(columns[1:], columns[0])), tuple(rows)


def _lifted(sums: Array) -> Array:
    """Without zeros: an empty row or column takes any step size; a larger sum is a smaller one, and safe."""
    largest = jnp.max(sums)
    return jnp.maximum(sums, jnp.where(largest > 0, 1e-4 * largest, 1))


def _movements(plan: Plan, x: Array, duals: list[Array]) -> tuple[Array, Array]:
    """How far `x` and the duals have moved; with preconditioning in its norms, in the units of `_tau`."""
    if plan.sums is None:
        return norm(x), jnp.sqrt(total([norm(p) ** 2 for p in duals]))
    columns, rows = plan.sums
    weighted = [norm(jnp.sqrt(r) * p) ** 2 for r, p in zip(rows, duals, strict=True)]
    unit = math.sqrt(8.0) / jnp.max(jnp.stack(plan.norms))
    return norm(jnp.sqrt(columns) * x) * unit, jnp.sqrt(total(weighted))


def _scale(problem: Problem, rhs: Array, diagonal: Array | None) -> Array:
    """The expected size of `x` over that of the duals: grey range over weight."""
    if diagonal is not None:
        seen = _seen(diagonal)
        target = rhs / jnp.where(seen, diagonal, 1)
        target = jnp.abs(target) if jnp.iscomplexobj(target) else target
        spread = jnp.max(jnp.where(seen, target, -jnp.inf)) - jnp.min(jnp.where(seen, target, jnp.inf))
    else:
        spread = jnp.max(jnp.abs(rhs)) / jnp.maximum(problem.data.A.norm_bound() ** 2, jnp.finfo(rhs.dtype).tiny)
    weights = [jnp.max(w) for t in problem.terms if (w := getattr(t.functional, "weight", None)) is not None]
    weight = jnp.max(jnp.stack(weights)) if weights else spread
    # A dual collects the residuals of a region: however large the weight, no more than those of half a side. Without
    # a weight there are no duals to wait for.
    if diagonal is None or isinstance(problem.data, Fidelity):
        level = problem.data.lipschitz() * spread
    else:
        level = jnp.max(diagonal) * spread
    weight = jnp.clip(weight, jnp.finfo(rhs.dtype).eps * level, 0.5 * max(problem.in_shape) * level)
    ratio = spread / jnp.where(weight > 0, weight, 1)
    return jnp.where(jnp.isfinite(ratio) & (ratio > 0), ratio, 1).astype(jnp.real(rhs).dtype)


def _total_variation(plan: Plan) -> bool:
    """Whether this is least squares of single pixels with total variation, for which the settings above are."""
    problem = plan.problem
    diagonal = isinstance(problem.data, LeastSquares) and plan.diagonal is not None and plan.sums is None
    return diagonal and bool(problem.terms) and all(t.lowered_by_clipping for t in problem.terms)


def _seen(diagonal: Array) -> Array:
    """Of soft weights the larger ones (half and more): where the beam hardly was, the quotient is noise of any size."""
    return (diagonal > 0) & (diagonal >= 0.25 * jnp.max(diagonal))


def _least_tau(plan: Plan, x: Array, objective: Array) -> Array:
    """Below this `tau`, rounding of `x` shows in the gap.

    Where `x` is not measured the duals must balance, `u = 0`. A step moves `x` by `tau u`, so an error of `x` by
    `0.15 eps |x|`, that of a rounded number, leaves `u` undetermined by that over `tau`, and the gap by the sum of
    `u` times the distance to the bounds. It may come to `0.05 sqrt(eps)` of the objective: 2e-5 in float32.
    """
    if plan.box is None or can_polish(plan.problem):  # polished duals balance to their own rounding
        return jnp.zeros_like(objective)
    reach = plan.box.reach(x)
    free = plan.problem.image(reach if plan.diagonal is None else jnp.where(plan.diagonal > 0, 0, reach))
    error = 3 * math.sqrt(jnp.finfo(x.dtype).eps) * jnp.max(jnp.abs(x)) * jnp.sum(free)
    least = error / jnp.where(objective > 0, objective, jnp.inf)
    return jnp.where(jnp.isfinite(least), least, 0)


def held(plan: Plan) -> Plan:
    """The plan without what moves no optimum: derivatives of step sizes, and a box that only certifies."""
    norms, scale, sums = lax.stop_gradient((plan.norms, plan.scale, plan.sums))
    return plan._replace(box=plan.problem.box, norms=norms, scale=scale, sums=sums)


def restored(plan: Plan, x: Array) -> Array:
    """`x` brought back into the ball of the measurements, and the box, where a closed form does it."""
    if not isinstance(plan.problem.data, L2Ball):
        return x
    x = plan.problem.data.restore(x)
    return x if plan.box is None else plan.box.prox(x)


def starting_point(plan: Plan) -> Array:
    """The mean of the measured pixels, for total variation what was measured; or the scaled back-projection."""
    if plan.diagonal is not None:
        mean = jnp.sum(plan.rhs) / jnp.maximum(jnp.sum(plan.diagonal), jnp.finfo(plan.rhs.dtype).tiny)
        even = plan.problem.variable(jnp.full(plan.problem.in_shape, 1, plan.rhs.dtype) * mean)
        if not _total_variation(plan):
            return even
        seen = _seen(plan.diagonal)
        return jnp.where(seen, plan.rhs / jnp.where(seen, plan.diagonal, 1), even)
    square = plan.problem.data.lipschitz()
    return plan.rhs / jnp.where(square > 0, square, 1).astype(plan.rhs.dtype)


def dual_dtype(term: Term, dtype: Any) -> Any:
    complex_out = jnp.issubdtype(term.K.out_dtype, jnp.complexfloating)
    return jnp.result_type(dtype, jnp.complex64) if complex_out else dtype


def _as(new: Array, old: Array) -> Array:
    return new.astype(old.dtype)


def _zeros(duals: tuple[Array, ...]) -> tuple[Array, ...]:
    return tuple(jnp.zeros_like(p) for p in duals)


def _select(condition: Array, yes: Any, no: Any) -> Any:
    return lax.cond(condition, lambda: yes, lambda: no)
