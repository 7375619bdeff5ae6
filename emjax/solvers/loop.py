"""The one loop of every iterative method.

A solver is a frozen pytree of settings with six methods, all for one item:

    prepare(problem)            -> plan        what stays the same in every step
    init(plan, x0)              -> state       any pytree
    resume(plan, state)         -> state       from the state of a neighbouring problem (the next weight of a path)
    step(plan, state)           -> state
    certificate(plan, state)    -> (Certificate, state)   may adapt the state (step sizes, restarts)
    value(plan, state)          -> x

One `lax.while_loop` takes a few steps, evaluates the certificate, and stops on the gap, on a rounding floor, on
non-finite numbers, or at the limit. Tolerance and limit are arrays: they never cause a new trace.
"""

import enum
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax.solvers.certificate import Certificate
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
    Status.CONVERGED: "the certified gap is below the tolerance",
    Status.STEP_LIMIT: "the step limit came first; allow more steps (max_steps), or accept a larger gap",
    Status.STALLED: "the gap is down to rounding error; accept a larger gap, or compute in float64 (jax_enable_x64)",
    Status.NON_FINITE: "NaN or infinite numbers appeared; look at the measurements and the weights",
}

_RUNNING = -1


class Solver(Protocol):
    """See the module's docstring."""

    check_every: int

    def supports(self, problem: Problem) -> str | None:
        """None if the solver takes this problem, else the reason why not."""

    def prepare(self, problem: Problem) -> Any: ...

    def init(self, plan: Any, x0: Array | None) -> Any: ...

    def resume(self, plan: Any, state: Any) -> Any: ...

    def step(self, plan: Any, state: Any) -> Any: ...

    def certificate(self, plan: Any, state: Any) -> tuple[Certificate, Any]: ...

    def value(self, plan: Any, state: Any) -> Array: ...


class History(NamedTuple):
    """The certificates along the way, one row a check; unused rows hold -1 steps and NaN."""

    steps: Array
    objective: Array
    gap: Array


class Carry(NamedTuple):
    """What the loop carries, and what a warm start may continue from."""

    state: Any
    steps: Array
    checks: Array
    objective: Array
    gap: Array  # relative, allowance included
    status: Array
    history: History | None


def start(solver: Solver, plan: Any, state: Any, tolerance: Array, rows: int) -> Carry:
    """The carry before the first step: a warm start may already be good enough."""
    certificate, state = solver.certificate(plan, state)
    dtype = certificate.objective.dtype
    history = None
    if rows:
        history = History(
            jnp.full((rows,), -1, jnp.int32), jnp.full((rows,), jnp.nan, dtype), jnp.full((rows,), jnp.nan, dtype)
        )
    zero = jnp.zeros((), jnp.int32)
    carry = Carry(state, zero, zero, certificate.objective, jnp.asarray(jnp.inf, dtype), zero - 1, history)
    return _judge(carry, certificate, state, zero, tolerance)


def advance(solver: Solver, plan: Any, carry: Carry, tolerance: Array, limit: Array) -> Carry:
    """Run until the certificate is good enough or `limit` steps were taken in all."""

    def running(c: Carry) -> Array:
        return (c.status == _RUNNING) & (c.steps < limit)

    def block(c: Carry) -> Carry:
        count = jnp.minimum(solver.check_every, limit - c.steps)
        state = lax.fori_loop(0, count, lambda _, s: solver.step(plan, s), c.state)
        certificate, state = solver.certificate(plan, state)
        return _judge(c, certificate, state, c.steps + count, tolerance)

    return lax.while_loop(running, block, carry)


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


def _judge(carry: Carry, certificate: Certificate, state: Any, steps: Array, tolerance: Array) -> Carry:
    objective, gap, allowance = certificate
    eps = jnp.finfo(objective.dtype).eps
    # Relative to max(|P|, |D|): D >= P - gap, so |D| never exceeds |P| by more than the gap.
    scale = jnp.maximum(jnp.maximum(jnp.abs(objective), jnp.abs(objective - gap)), eps * eps)
    scale = jnp.where(jnp.isfinite(scale), scale, jnp.maximum(jnp.abs(objective), eps * eps))
    relative = jnp.where(gap + allowance == 0, 0, (gap + allowance) / scale)
    broken = ~jnp.isfinite(objective) | jnp.isnan(gap)
    good = relative <= tolerance
    floor = gap <= allowance
    status = jnp.where(
        broken,
        int(Status.NON_FINITE),
        jnp.where(good, int(Status.CONVERGED), jnp.where(floor, int(Status.STALLED), _RUNNING)),
    ).astype(jnp.int32)
    relative = jnp.where(broken, jnp.inf, relative)
    history = carry.history
    if history is not None:
        row = jnp.minimum(carry.checks, history.steps.shape[0] - 1)
        history = History(
            history.steps.at[row].set(steps),
            history.objective.at[row].set(objective),
            history.gap.at[row].set(relative),
        )
    return Carry(state, steps, carry.checks + 1, objective, relative, status, history)
