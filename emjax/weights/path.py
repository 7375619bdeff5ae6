"""The solutions of one family of problems along its weight: one `lax.scan`, every point certified.

The middle weight is solved for first, then the ends, then the middle of every interval left. Each solve starts from its
two neighbours' states, interpolated linearly in the weight:

    s(theta) = (1 - t) s(a) + t s(b),    theta = (1 - t) a + t b.

Solutions and duals of l1-type priors are piecewise linear in the weight (Osborne, Presnell, Turlach 2000; Efron et al.
2004), so that where no kink lies between the neighbours the interpolated pair has their own gap: many points are only
looked at. A walk from one end to the other takes up to half as many steps again.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax.solvers import Problem, choose, loop
from emjax.solvers.loop import Solver
from emjax.solvers.problem import total

Build = Callable[[Array], Problem]


class Path(NamedTuple):
    """The points of a path, in the order of `thetas` `(n,)`.

    values: `(n, *in_shape)`. objectives, gaps (relative), steps, statuses: as of a `Solution`. residuals: twice the
    data term, `|A x - y|^2_w` for least squares. priors: the terms at the first weight over it, `TV(x)` for `TV(w)`.
    """

    thetas: Array
    values: Array
    objectives: Array
    gaps: Array
    steps: Array
    statuses: Array
    residuals: Array
    priors: Array


def schedule(n: int) -> np.ndarray:
    """The visits `(n, 3)`: a point and the two visited ones around it; the first three start from the first."""
    middle = (n - 1) // 2
    visits = [(middle, middle, middle)]
    visits += [(end, middle, middle) for end in dict.fromkeys((n - 1, 0)) if end != middle]
    intervals = [(0, middle), (middle, n - 1)]
    for low, high in intervals:  # grows while it is read
        if high - low > 1:
            between = (low + high) // 2
            visits.append((between, low, high))
            intervals += [(low, between), (between, high)]
    return np.asarray(visits, np.int32)


def path(
    build: Build,
    thetas: Array,
    *,
    solver: Solver | None = None,
    gap: Any = 1e-3,
    max_steps: Any = 2000,
    start: Array | None = None,
) -> Path:
    """Solve `build(theta)` for every weight of `thetas` `(n,)`, from the smoothest to the roughest.

    solver: of all points; default as for `solve`. gap: the relative gap to certify, one number or one a weight; to
    choose a weight 1e-2 will do, and takes a third of the steps. max_steps: of a point. start: a guess, `in_shape`.
    Raises ValueError for weights that are not one falling or rising sequence, or a solver that does not fit.
    """
    thetas = jnp.asarray(thetas)
    check_thetas(thetas)
    first = build(thetas[0])
    if not isinstance(first, Problem):
        raise TypeError(f"build(theta) gives a Problem, got {type(first).__name__}")
    chosen = choose(first) if solver is None else solver
    if (reason := chosen.supports(first)) is not None:
        raise ValueError(reason)
    n = thetas.shape[0]
    visits = schedule(n)
    dtype = first.data.y.real.dtype
    tolerances = jnp.broadcast_to(jnp.asarray(gap, dtype), (n,))
    limit = jnp.asarray(max_steps, jnp.int32)

    def visit(states: Any, places: Array) -> tuple[Any, tuple[Array, ...]]:
        i, low, high = places
        a, b, theta = thetas[low], thetas[high], thetas[i]
        share = jnp.where(low == high, 0, (theta - a) / jnp.where(low == high, 1, b - a)).astype(dtype)
        problem = build(theta)
        plan = chosen.prepare(problem)
        guess = jax.tree.map(lambda v: _between(v[low], v[high], share), states)
        carry = loop.start(chosen, plan, chosen.resume(plan, guess), 0)
        carry = loop.finish(loop.advance(chosen, plan, carry, tolerances[i], limit))
        x = carry.value
        whole = carry.state.x if problem.fields else x  # with a TGV the variable is the stack of image and field
        states = jax.tree.map(lambda all_, v: all_.at[i].set(v), states, carry.state)
        prior = total([term(whole) for term in first.terms]) / thetas[0]
        return states, (x, carry.objective, carry.gap, carry.steps, carry.status, 2 * problem.data(whole), prior)

    x0 = None if start is None else jnp.asarray(start, dtype)
    state = chosen.init(chosen.prepare(build(thetas[visits[0, 0]])), x0)
    states = jax.tree.map(lambda v: jnp.broadcast_to(v, (n, *v.shape)), state)
    _, found = lax.scan(visit, states, jnp.asarray(visits))
    back = np.argsort(visits[:, 0])
    return Path(thetas, *(v[back] for v in found))


def check_thetas(thetas: Array) -> None:
    """ValueError for weights that are not one strictly monotone sequence of positive numbers (values: where known)."""
    if thetas.ndim != 1 or thetas.shape[0] == 0:
        raise ValueError(f"the weights of a path have shape (n,), got {thetas.shape}")
    if isinstance(thetas, jax.core.Tracer):
        return
    known = np.asarray(thetas)
    steps = np.diff(known)
    if not (np.all(known > 0) and (np.all(steps < 0) or np.all(steps > 0))):
        raise ValueError(f"the weights of a path are positive and go from the smoothest to the roughest, got {known}")


def _between(a: Array, b: Array, share: Array) -> Array:
    """Counters are not interpolated; equal numbers, infinite ones too, stay what they are."""
    if not jnp.issubdtype(a.dtype, jnp.inexact):
        return a
    return jnp.where(a == b, a, (1 - share) * a + share * b)
