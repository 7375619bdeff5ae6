"""Derivatives through a solve: implicit, one-step, unrolled.

A solver's plain step `T`, without relaxation or momentum, leaves its optimum `s` where it is, so that for any change
`dp` of the problem (measurements, weights, masks, kernels, matrices)

    s = T(s, p),      ds = J ds + b,      J = dT/ds,   b = (dT/dp) dp

`Implicit` solves this linear equation, and its transpose in reverse, by the iteration that found `s`: over-relaxed as
the solver is, `v' = v + rho (b + J v - v)`, with momentum and restarts for FISTA, by conjugate gradients for PCG. `J`
is not symmetric, and `I - J` is singular where duals are not unique; the iteration converges all the same where `x` is
unique, because `T` is an averaged map, and it keeps a few vectors however long the solve was. What the fixed point does
not depend on is held: step sizes, penalties, and the range of the measurements that a certificate needs.
Sources: Bolte, Le, Pauwels, Silveti-Falls 2021 (implicit derivatives of nonsmooth problems), Bolte, Pauwels, Vaiter
2023 (one-step), Griewank 1992 (checkpoints).
"""

import functools
import operator
from collections.abc import Callable
from typing import Any, Protocol

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg

from emjax._pytree import assign, pytree_dataclass, static
from emjax.solvers.loop import Solver
from emjax.solvers.problem import Problem
from emjax.solvers.transforms import by_backend


def count(what: str, value: Any, least: int = 0) -> int:
    """A whole number, or an error that says so."""
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what}: a whole number of {least} or more, got {value!r}") from None
    if isinstance(value, bool) or not least <= number < 2**31:
        raise ValueError(f"{what}: a whole number from {least} to 2^31 - 1, got {value!r}")
    return number


@pytree_dataclass
class Unrolled:
    """Differentiate by running exactly `steps` steps and going back through them, with checkpoints."""

    steps: int = static()

    def __post_init__(self) -> None:
        assign(self, steps=count("Unrolled takes a number of steps", self.steps))


@pytree_dataclass
class Implicit:
    """Differentiate the optimum itself, of which the solve is taken to be near: ask `solve` for a small `gap`.

    tolerance: solve the linear equation until its residual is this small relative to its right-hand side, or rounding
    is reached; the derivative is less accurate by a factor as large as the solve is slow. max_steps: or for this many
    steps, after which it is that of a solve of as many steps. Nothing tells that this happened, unless `strict`: then
    the derivative of that item is NaN (`jax.debug_nans` says where). Try a program once with it, before a long run.

    It exists where the optimum is unique and strictly complementary (no dual just on the rim of its ball), which holds
    for almost all measurements of a problem with a unique optimum. Where pixels are neither measured nor determined by
    the prior it does not, and the result is only a direction that lowers a loss.
    """

    tolerance: Any = 1e-6
    max_steps: Any = 2000
    strict: bool = static(default=False)

    def __post_init__(self) -> None:
        if not isinstance(self.tolerance, jax.core.Tracer) and not 0 <= float(self.tolerance) < 1:
            raise ValueError(f"Implicit takes a relative tolerance from 0 to below 1, got {self.tolerance!r}")
        steps = self.max_steps
        if not isinstance(steps, jax.core.Tracer):
            steps = count("the max_steps of Implicit", steps)
        if not isinstance(self.strict, bool):
            raise TypeError(f"strict is True or False, got {self.strict!r}")
        assign(self, tolerance=jnp.asarray(self.tolerance, float), max_steps=jnp.asarray(steps, jnp.int32))

    def point(self, problem: Problem, solver: "FixedPoint", state: Any) -> Any:
        flat, unravel = _real(lax.stop_gradient(solver.point(state)))
        return unravel(_fixed_point(self, problem, solver, state, flat))


@pytree_dataclass
class OneStep:
    """Differentiate the last `steps` plain steps alone, the point before them held.

    Cheap, and close to the derivative of the optimum where a solver contracts fast. With PDHG it is no more than a
    direction, by measurements and weights mostly one that lowers a loss; by what a step sees only through its dual (the
    radius of a ball of total variation) even its sign may be wrong: take `Implicit`, or more `steps`, and compare once.
    The derivative exists everywhere.
    """

    steps: int = static(default=1)

    def __post_init__(self) -> None:
        assign(self, steps=count("OneStep takes a number of steps", self.steps, 1))

    def point(self, problem: Problem, solver: "FixedPoint", state: Any) -> Any:
        plan, point = solver.prepare(problem), lax.stop_gradient(solver.point(state))
        if self.steps == 1:
            return solver.plain(plan, point, state)
        return lax.scan(lambda p, _: (solver.plain(plan, p, state), None), point, None, length=self.steps)[0]


class FixedPoint(Solver, Protocol):
    """What differentiating asks of a solver besides, for one item."""

    def point(self, state: Any) -> Any:
        """The part of a state that a plain step leaves alone at the optimum."""

    def plain(self, plan: Any, point: Any, state: Any) -> Any:
        """One step without relaxation or momentum, with the step sizes of `state`, held."""

    def answer(self, plan: Any, point: Any, state: Any) -> Array:
        """The recovered item at such a point, as a function of all of it."""


def no_derivative(solver: Any, problem: Problem) -> str | None:
    """None if `Implicit` and `OneStep` can differentiate this solve, else the reason why not."""
    if not hasattr(solver, "plain"):
        return f"{type(solver).__name__} has no plain step to differentiate (see emjax.solvers.gradients); use Unrolled"
    return solver.inexact(problem) if hasattr(solver, "inexact") else None


@jax.custom_jvp
def attached(way: Implicit | OneStep, problem: Problem, solver: Any, state: Any, value: Array) -> Array:
    """`value`, the answer of a solve that ended with `state`, with a derivative by `problem`."""
    return value


@attached.defjvp
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    way, problem, solver, state, _ = primals

    def answer(problem: Problem) -> Array:
        return solver.answer(solver.prepare(problem), way.point(problem, solver, state), state)

    _, tangent = jax.jvp(answer, (problem,), (tangents[1],))
    return attached(*primals), tangent


# The linear equation, in the real numbers that a point consists of.


def _real(point: Any) -> tuple[Array, Callable[[Array], Any]]:
    """A point as one real vector, and the way back: a step may be linear in real and imaginary parts only."""
    leaves, treedef = jax.tree.flatten(point)
    flat, unravel = ravel_pytree([(v.real, v.imag) if jnp.iscomplexobj(v) else (v,) for v in leaves])

    def back(flat: Array) -> Any:
        return jax.tree.unflatten(treedef, [p[0] if len(p) == 1 else lax.complex(*p) for p in unravel(flat)])

    return flat, back


def _step(problem: Problem, solver: Any, state: Any, flat: Array) -> Array:
    """`T` of a real vector."""
    point = _real(solver.point(state))[1](flat)
    return _real(solver.plain(solver.prepare(problem), point, state))[0]


@jax.custom_jvp
def _fixed_point(way: Implicit, problem: Problem, solver: Any, state: Any, flat: Array) -> Array:
    """The point `flat`, which `T` leaves alone, with its derivative by `problem`."""
    return flat


@_fixed_point.defjvp
def _(primals: Any, tangents: Any) -> tuple[Array, Array]:
    way, problem, solver, state, _ = primals
    flat = _fixed_point(*primals)  # which has a derivative in its turn
    _, b = jax.jvp(lambda p: _step(p, solver, state, flat), (problem,), (tangents[1],))

    def defect(v: Array) -> Array:
        return v - jax.jvp(lambda u: _step(problem, solver, state, u), (flat,), (v,))[1]

    def solved(transposed: bool, _: Any, b: Array) -> Array:
        return _linear_solve(transposed)(way, problem, solver, state, flat, b)

    solves = (functools.partial(solved, transposed) for transposed in (False, True))
    return flat, lax.custom_linear_solve(defect, b, *solves)


@functools.cache
def _linear_solve(transposed: bool) -> Callable[..., Array]:
    """`(I - J)^-1 b`, or that of the transpose, for one item; a batch runs as a batch of solves does."""

    def run(way: Implicit, problem: Problem, solver: Any, state: Any, flat: Array, b: Array) -> Array:
        _, J = jax.linearize(lambda v: _step(problem, solver, state, v), flat)
        if transposed:
            transpose = jax.linear_transpose(J, flat)
            J = lambda v: transpose(v)[0]  # noqa: E731
        if hasattr(solver, "precondition"):  # I - J is symmetric and positive
            plan, unravel = solver.prepare(problem), _real(solver.point(state))[1]

            def precondition(r: Array) -> Array:
                return _real(solver.precondition(plan, unravel(r)))[0]

            v = cg(lambda v: v - J(v), b, tol=way.tolerance, maxiter=way.max_steps, M=precondition)[0]
            return _checked(way, v, b, jnp.linalg.norm(b + J(v) - v)) if way.strict else v
        v, residual = _iterate(J, b, getattr(solver, "relaxation", None), way)
        return _checked(way, v, b, residual) if way.strict else v

    return by_backend(run)


def _checked(way: Implicit, v: Array, b: Array, residual: Array) -> Array:
    """`v`, or NaN where its equation missed the tolerance, and rounding as well."""
    bar = jnp.maximum(2 * way.tolerance.astype(b.dtype), float(jnp.finfo(b.dtype).eps) ** 0.5)
    return jnp.where(residual <= bar * jnp.linalg.norm(b), v, jnp.nan)


def _iterate(J: Callable[[Array], Array], b: Array, relaxation: Any, way: Implicit) -> tuple[Array, Array]:
    """`v = J v + b` by over-relaxation, without a `relaxation` by Nesterov's momentum with restarts; the residual."""
    size = jnp.linalg.norm(b)
    goal, near = way.tolerance.astype(b.dtype) * size, float(jnp.finfo(b.dtype).eps) ** 0.5 * size

    def running(carry: Any) -> Array:
        *_, size, best, since, steps = carry
        # Rounding: a small residual that has not fallen while the number of steps has doubled.
        stalled = (best < near) & (steps > 2 * since + 50)
        return (size > goal) & (steps < way.max_steps) & ~stalled

    def body(carry: Any) -> Any:
        v, z, t, residual, _, best, since, steps = carry
        if relaxation is not None:
            v = z = v + jnp.asarray(relaxation, b.dtype) * residual
        else:
            new = z + residual
            uphill = jnp.vdot(z - new, new - v) > 0
            longer = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
            momentum = jnp.where(uphill, 0, (t - 1) / longer)
            v, z, t = new, new + momentum * (new - v), jnp.where(uphill, 1, longer)
        residual = b + J(z) - z
        size, steps = jnp.linalg.norm(residual), steps + 1
        fell = size < 0.9 * best
        return v, z, t, residual, size, jnp.minimum(best, size), jnp.where(fell, steps, since), steps

    zero, none = jnp.zeros_like(b), jnp.zeros((), jnp.int32)
    end = lax.while_loop(running, body, (zero, zero, jnp.ones((), b.dtype), b, size, size, none, none))
    return end[1], end[4]
