"""The one loop of every iterative method.

A solver is a frozen pytree of settings with six methods, all for one item:

    prepare(problem)            -> plan        what stays the same in every step
    init(plan, x0)              -> state       any pytree
    resume(plan, state)         -> state       from the state of this or a neighbouring problem (a path of weights)
    step(plan, state, last)     -> state       `last`: a certificate follows
    certificate(plan, state)    -> (Certificate, x, state)   of that x; may adapt the state (step sizes, restarts)
    value(plan, state)          -> x           the answer after steps without a certificate

One `lax.while_loop` takes a few steps, evaluates the certificate, and stops on the gap (without an objective, on the
residual of the fixed point), on a rounding floor, on non-finite numbers, or at the limit. Tolerance and limit are
arrays: they never cause a new trace.
"""

import enum
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax.solvers.certificate import Certificate, norm
from emjax.solvers.problem import Problem


class Status(enum.IntEnum):
    """How a solve ended."""

    CONVERGED = 0
    STEP_LIMIT = 1
    STALLED = 2
    NON_FINITE = 3

    @property
    def message(self) -> str:
        return _MESSAGES[self]


_MESSAGES = {
    Status.CONVERGED: "the certified gap (of plug-and-play, the fixed-point residual) is below the tolerance",
    Status.STEP_LIMIT: "the step limit came first; allow more steps (max_steps), or accept a larger gap",
    Status.STALLED: "the gap is down to rounding error; accept a larger gap, or compute in float64 (jax_enable_x64)",
    Status.NON_FINITE: "NaN, infinite numbers, or a negative gap appeared: look at the measurements, and for weights "
    "that are NaN, infinite or below zero, and bounds out of order",
}

_RUNNING = -1
AIM = 3  # for those
NEAR = 4  # a gap of so many tolerances is worth a second look, where a solver has one (`polish`)


class Solver(Protocol):
    """See the module's docstring."""

    @property
    def check_every(self) -> int: ...

    def supports(self, problem: Problem) -> str | None:
        """None if the solver takes this problem, else the reason why not."""

    def prepare(self, problem: Problem) -> Any: ...

    def init(self, plan: Any, x0: Array | None) -> Any: ...

    def resume(self, plan: Any, state: Any) -> Any: ...

    def step(self, plan: Any, state: Any, last: Any = False) -> Any: ...

    def certificate(self, plan: Any, state: Any) -> tuple[Certificate, Array, Any]: ...

    def value(self, plan: Any, state: Any) -> Array: ...


class History(NamedTuple):
    """The certificates along the way, one row a check; unused rows hold -1 steps and NaN."""

    steps: Array
    objective: Array
    gap: Array


class Carry(NamedTuple):
    """What the loop carries, and what a warm start may continue from."""

    state: Any
    value: Array  # what the last certificate is about
    steps: Array
    checks: Array
    objective: Array
    gap: Array  # relative, allowance included
    status: Array
    best: Array  # the smallest gap or residual so far, and the steps at which it last fell by a tenth
    since: Array
    rate: Array  # by which power of the steps the gap fell between the last two certificates, 0 where unknown
    # Where the gap is infinite: the solver's own residual, or how far `value` moved since the last certificate, over
    # its norm.
    residual: Array
    history: History | None


def start(solver: Solver, plan: Any, state: Any, rows: int) -> Carry:
    """The carry before the first certificate, which `advance` evaluates: a warm start may already be good enough."""
    shape = jax.eval_shape(solver.value, plan, state)
    value = jnp.zeros(shape.shape, shape.dtype)
    inf = jnp.full((), jnp.inf, jnp.real(value).dtype)
    history = None
    if rows:
        unused = jnp.full((rows,), jnp.nan, inf.dtype)
        history = History(jnp.full((rows,), -1, jnp.int32), unused, unused)
    zero = jnp.zeros((), jnp.int32)
    return Carry(state, value, zero, zero, inf, inf, zero + _RUNNING, inf, zero, jnp.zeros_like(inf), inf, history)


def advance(solver: Solver, plan: Any, carry: Carry, tolerance: Array, limit: Array, fresh: bool = False) -> Carry:
    """Run until the certificate is good enough or `limit` steps were taken in all.

    The first certificate is of where the carry stands; of a `fresh` one, which nobody expects to be good, it comes
    after the first steps.
    """
    size = energy(plan.problem)
    first = jnp.minimum(solver.check_every, limit) if fresh else 0
    aim = AIM if hasattr(solver, "polish") else 1

    def running(c: Carry) -> Array:
        return (c.status == _RUNNING) & ((c.steps < limit) | (c.checks == 0))

    def block(c: Carry) -> Carry:
        # A first look is part of the loop, so that the certificate is compiled once.
        stride = _stride(c, aim * tolerance, solver.check_every)
        count = jnp.where(c.checks == 0, first, jnp.minimum(stride, limit - c.steps))
        state = several(solver, plan, c.state, count)
        certificate, value, after = solver.certificate(plan, state)
        if hasattr(solver, "polish"):
            gap = _relative(certificate.gap + certificate.allowance, _scale(certificate, size))
            near = (gap > tolerance) & (gap <= NEAR * tolerance)
            certificate = solver.polish(plan, state, certificate, near)
        return judge(c, certificate, value, after, c.steps + count, tolerance, size)

    return lax.while_loop(running, block, carry)


def several(solver: Solver, plan: Any, state: Any, count: Array) -> Any:
    """`count` steps, a certificate after the last.

    Solvers with `pairs` take two at a time: a loop writes each array of its state in place, and copies it first where
    a step needs its old value to the end; with two steps, the one in the middle has a place of its own.
    """

    def step(i: Array, s: Any) -> Any:
        return solver.step(plan, s, i == count - 1)

    if not getattr(solver, "pairs", False):
        return lax.fori_loop(0, count, step, state)
    state = lax.fori_loop(0, count % 2, step, state)
    return lax.fori_loop(0, count // 2, lambda i, s: step(2 * i + count % 2 + 1, solver.step(plan, s)), state)


def _stride(c: Carry, goal: Array, least: int) -> Array:
    """Steps to the next certificate: most of the way to where the trend of the gap, a power of the steps, meets `goal`.

    Certificates stay cheap beside the steps. Near the goal, and without a trend, at most a tenth too many are taken;
    far from it no more than those so far, for trends change.
    """
    tenth = jnp.maximum(least, c.steps // 10)
    steps, rate = c.steps.astype(goal.dtype), c.rate
    ahead = steps * ((c.gap / goal) ** (1 / jnp.maximum(rate, 1)) - 1)
    ahead = jnp.where((rate > 0) & jnp.isfinite(ahead), jnp.minimum(0.8 * ahead, steps), 0)
    return jnp.maximum(tenth, ahead.astype(jnp.int32))


def balancing(checks: Array) -> Array:
    """Whether step sizes are balanced at this check: 1, 3, 7, 15, 23, 31, ...

    Late checks are spaced geometrically, so that finitely many changes happen in any run, and convergence is kept.
    """
    return (checks % 8 == 7) | (checks == 1) | (checks == 3)


def unroll(solver: Solver, plan: Any, state: Any, steps: int) -> Any:
    """Exactly `steps` steps, differentiable in reverse: blocks of about sqrt(steps) are recomputed, not stored."""
    inner = max(1, int(steps**0.5))

    def step(s: Any, _: None) -> tuple[Any, None]:
        return solver.step(plan, s), None

    @jax.checkpoint
    def block(s: Any, _: None) -> tuple[Any, None]:
        return lax.scan(step, s, None, length=inner)[0], None

    state, _ = lax.scan(block, state, None, length=steps // inner)
    state, _ = lax.scan(step, state, None, length=steps % inner)
    return state


def finish(carry: Carry) -> Carry:
    """What is still running has met the limit."""
    return carry._replace(status=jnp.where(carry.status == _RUNNING, int(Status.STEP_LIMIT), carry.status))


def energy(problem: Problem) -> Array:
    """`|y|^2 / 2`: what an objective is to be measured by that may vanish."""
    y = problem.data.y
    return 0.5 * jnp.sum(jnp.real(y * jnp.conj(y)))


def judge(
    carry: Carry, certificate: Certificate, value: Array, state: Any, steps: Array, tolerance: Array, size: Array
) -> Carry:
    """The carry after a certificate. `size`: an objective below `eps^2` of it is zero."""
    dtype, eps = carry.objective.dtype, float(jnp.finfo(carry.objective.dtype).eps)
    objective, gap, allowance = (v.astype(dtype) for v in certificate[:3])
    scale, bound = _scale(certificate, size).astype(dtype), gap + allowance
    relative = _relative(bound, scale)
    # Fenchel-Young gaps are not negative: more than rounding below zero is a problem that is not convex.
    broken = ~jnp.isfinite(objective) | jnp.isnan(bound) | (gap < -2 * allowance - 1e3 * eps * scale)
    measure = relative
    # Nothing to gain any more, or too little where the tolerance is out of reach.
    floor = jnp.isfinite(bound) & (gap <= jnp.where(allowance > tolerance * scale, 2, 1) * allowance)
    if certificate.residual is not None:  # the objective is the data's alone, infinite perhaps on the way
        measure = certificate.residual.astype(dtype)
        broken = jnp.isnan(objective) | jnp.isnan(measure)
        floor = measure <= 4 * eps
    good = measure <= tolerance
    # Rounding that no allowance knows of: a small gap that has not fallen while the number of steps has doubled.
    fell = measure < 0.9 * carry.best
    best, since = jnp.minimum(carry.best, measure), jnp.where(fell, steps, carry.since)
    floor = floor | ((best < eps**0.5) & (steps > 2 * since + 50) & ~fell)
    status = jnp.where(good, int(Status.CONVERGED), jnp.where(floor, int(Status.STALLED), _RUNNING))
    status = jnp.where(broken, int(Status.NON_FINITE), status).astype(jnp.int32)
    relative = jnp.where(broken, jnp.inf, relative)
    if certificate.residual is not None:
        residual = measure
    else:
        residual = lax.cond(
            jnp.isfinite(bound), lambda: jnp.full((), jnp.nan, dtype), lambda: _moved(value, carry.value).astype(dtype)
        )
    # From the first certificate on, at step 0, there is no power.
    passed = jnp.log(steps / jnp.maximum(carry.steps, 1)).astype(dtype)
    fall = jnp.log(carry.gap / jnp.where(relative > 0, relative, 1))
    rate = jnp.where((carry.steps > 0) & (passed > 0) & jnp.isfinite(fall), fall / jnp.where(passed > 0, passed, 1), 0)
    history = carry.history
    if history is not None:
        row = jnp.minimum(carry.checks, history.steps.shape[0] - 1)
        history = History(
            history.steps.at[row].set(steps),
            history.objective.at[row].set(objective),
            history.gap.at[row].set(relative),
        )
    residual, checks = residual.astype(dtype), carry.checks + 1
    return Carry(state, value, steps, checks, objective, relative, status, best, since, rate, residual, history)


def _scale(certificate: Certificate, size: Array) -> Array:
    """`max(|P|, |D|)` with `D = P - gap`; the floor is for problems whose optimum is zero."""
    objective, gap = certificate.objective, certificate.gap
    lower = jnp.where(jnp.isfinite(gap), objective - gap, 0)
    floor = float(jnp.finfo(objective.dtype).eps) ** 2 * size.astype(objective.dtype)
    return jnp.maximum(jnp.maximum(jnp.abs(objective), jnp.abs(lower)), floor)


def _relative(bound: Array, scale: Array) -> Array:
    return jnp.where(bound == 0, 0, bound / jnp.where(scale > 0, scale, 1))


def _moved(value: Array, before: Array) -> Array:
    size = norm(value)
    return norm(value - before) / jnp.where(size > 0, size, 1)
