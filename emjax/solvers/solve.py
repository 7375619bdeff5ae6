"""`solve(problem, solver) -> Solution`: one verb for every iterative method, batched, compiled once.

Every item of a batch stops on its own, and none changes another's result (see `transforms.py` for how a batch runs).
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import batch_axes, pytree_dataclass, static
from emjax.functionals import L2Ball, PoissonLikelihood
from emjax.operators import Blockwise, Dense
from emjax.operators.base import as_float, complex_items
from emjax.solvers import loop
from emjax.solvers.admm import ADMM, exact_basis
from emjax.solvers.cores import spread, threads
from emjax.solvers.douglas_rachford import DouglasRachford
from emjax.solvers.fista import FISTA
from emjax.solvers.gradients import Implicit, OneStep, Unrolled, attached, count, no_derivative
from emjax.solvers.loop import Carry, History, Solver, Status
from emjax.solvers.pcg import PCG
from emjax.solvers.pdhg import PDHG
from emjax.solvers.problem import Problem
from emjax.solvers.sharding import placement, split
from emjax.solvers.transforms import by_backend, undifferentiable


@pytree_dataclass
class Solution:
    """What `solve` returns; every field has the batch's leading axes.

    value: the recovered item, `(*batch, *in_shape)`. status: a `Status`. steps: taken. objective: at `value`.
    gap: a bound of `objective - optimum` relative to the larger of the primal and dual objective, rounding included
    (inf where the problem admits no certificate: bound it with a `Box`). residual: where the gap is
    inf, how far the steps between the last two certificates moved `value`, relative to its norm; of plug-and-play, how
    far one step moves its iterate. It bounds no error. nan elsewhere, and after an unrolled solve. state: to continue
    from (`start=solution`).
    history: the certificates along the way where asked for.
    """

    value: Array
    status: Array
    steps: Array
    objective: Array
    gap: Array
    residual: Array
    state: Any
    history: History | None
    solver: str = static()

    def check(self) -> "Solution":
        """The same solution, or RuntimeError when an item did not converge (on the host)."""
        status = np.asarray(self.status)
        bad = np.unique(status[status != Status.CONVERGED])
        if bad.size:
            count = int((status != Status.CONVERGED).sum())
            reasons = "; ".join(f"{Status(int(b)).name.lower()}: {Status(int(b)).message}" for b in bad)
            raise RuntimeError(f"{count} of {status.size} items did not converge ({self.solver}): {reasons}")
        return self

    def __repr__(self) -> str:
        return f"Solution({self.solver}, shape={jnp.shape(self.value)})"


def choose(problem: Problem) -> Solver:
    """The solver that `solve` takes when none is given: the most special one that fits.

    PCG and FISTA where they apply, but Douglas-Rachford for an l1-type term where the least squares have a prox in
    closed form that is no division of pixels: subsampled DCT, Fourier and Hadamard transforms, periodic blurs, and one
    matrix for all blocks of an image. For a single matrix it stays FISTA, whose batches share it: the inverse would be
    another for each item. ADMM for counts behind an operator that one transform diagonalises together with
    every term, such as a symmetric blur with mirrored edges and total variation: at 64^2 and 128^2 it takes a quarter
    of PDHG's steps there, and 0.2 to 0.6 of its time. PDHG for all else.
    """
    if PCG().supports(problem) is None:
        return PCG()
    data = problem.data
    if DouglasRachford().supports(problem) is None:
        A = problem.least_squares.A
        if problem.least_squares.gram_diagonal() is None and (A.has_resolvent or isinstance(A, Blockwise)):
            return DouglasRachford()
    if FISTA().supports(problem) is None:
        return FISTA()
    if isinstance(data, PoissonLikelihood) and not data.separable and exact_basis(problem) is not None:
        return ADMM()
    return PDHG()


def solve(
    problem: Problem,
    solver: Solver | None = None,
    *,
    gap: Any = 1e-4,
    max_steps: Any = 2000,
    start: "Solution | Array | None" = None,
    history: int = 0,
    gradient: Implicit | OneStep | Unrolled | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> Solution:
    """Minimise a problem, or a batch of them.

    gap: stop where the certified gap is at most this, relative to the objective; plug-and-play, which minimises nothing
    that is known, where its residual is. max_steps: or at this many steps.
    start: a first guess `(*batch, *in_shape)`, or an earlier `Solution` of the same solver to continue from.
    history: how many certificates to keep (0: none). gradient: how to differentiate; without it a derivative raises.
    progress: called on the host as `progress(steps, worst gap)` between compiled chunks; not under `jit`.

    With `gradient=Implicit()`, or `OneStep()`, the solve is the same, and `value` has a derivative by the arrays of the
    problem: measurements, weights, masks, kernels, matrices. `jvp`, `vjp`, `jit`, `vmap` and `scan` work, and the
    memory does not grow with the steps. `Unrolled(steps)` runs so many steps, without a tolerance, and differentiates
    all of them. Nothing else of a solution has a derivative, nor have `start`, `gap` and the solver's settings one with
    `Implicit` and `OneStep`: it is zero.

    A batch whose leading axis is split over devices (`jax.device_put(y, NamedSharding(mesh, PartitionSpec("items")))`)
    is solved where its items are, and its results lie there. Inside of `jit` this needs a mesh of explicit axes, the
    default of `jax.make_mesh`, or a `jax.shard_map(..., check_vma=False)` around the solve.

    Raises ValueError or TypeError for parts that do not fit. Bad values (NaN) end in a status, item by item.
    """
    if not isinstance(problem, Problem):
        raise TypeError(f"solve takes a Problem, got {type(problem).__name__}")
    solver = choose(problem) if solver is None else solver
    if not hasattr(solver, "prepare"):
        raise TypeError(f"solver is one of emjax.solvers, such as PDHG(), got {solver!r}")
    if gradient is not None and not isinstance(gradient, Implicit | OneStep | Unrolled):
        raise TypeError(
            f"gradient says how to differentiate, as in Implicit() or Unrolled(steps=200); got {gradient!r}"
        )
    if not isinstance(max_steps, jax.core.Tracer):
        max_steps = count("max_steps", max_steps)
    history = count("history counts certificates", history)
    for name in ("check_every", "inner_steps"):  # of 0 or less, the loop would never end, or do nothing
        if hasattr(solver, name):
            count(f"{name} of {type(solver).__name__}", getattr(solver, name), 1)
    _check_steps(solver, jnp.real(problem.data.y).dtype)
    if jnp.ndim(gap) != 0:
        raise ValueError(f"gap is one number for all items, got shape {jnp.shape(gap)}")
    if not isinstance(gap, jax.core.Tracer) and not float(gap) >= 0:
        raise ValueError(f"gap is the relative duality gap to reach, 0 or more, got {gap}")
    if (reason := solver.supports(problem)) is not None:
        raise ValueError(reason)
    if isinstance(gradient, Implicit | OneStep) and (reason := no_derivative(solver, problem)) is not None:
        raise ValueError(reason)
    batch, flat = _flatten(problem)
    size = math.prod(batch) if batch else None
    state, x0 = _flatten_start(problem, start, batch, type(solver).__name__)
    if state is not None:
        _check_state(flat, solver, state, bool(batch))
    dtype = jnp.real(problem.data.y).dtype
    tolerance, limit = jnp.asarray(gap, dtype), jnp.asarray(max_steps, jnp.int32)
    args: tuple[Any, Solver, Any, Array] = (flat, solver, (state, x0), tolerance)
    if isinstance(gradient, Implicit | OneStep):
        args = lax.stop_gradient(args)
    if isinstance(gradient, Unrolled):
        if batch and (place := placement(flat)) is not None:
            carry = split(_local_unrolled, *place, flat, solver, (state, x0), rows=gradient.steps)
        else:
            carry = _unrolled(flat, solver, (state, x0), steps=gradient.steps, batched=bool(batch))
    elif progress is None:
        carry = _batch(*args, limit, rows=history, size=size)
    else:
        if isinstance(limit, jax.core.Tracer):
            raise TypeError("progress is called on the host, between compiled parts: leave it out under jit")
        carry = _chunks(*args, int(limit), history, size, progress)
    if isinstance(gradient, Implicit | OneStep):
        carry = carry._replace(value=_differentiable(gradient, flat, solver, carry, batched=bool(batch)))

    def shape(v: Array) -> Array:
        return v.reshape(*batch, *v.shape[1:]) if batch else v

    c = jax.tree.map(shape, carry)
    return Solution(
        c.value, c.status, c.steps, c.objective, c.gap, c.residual, c.state, c.history, type(solver).__name__
    )


def _check_steps(solver: Solver, dtype: Any) -> None:
    """ValueError for a relaxation or a penalty that is no number with which a solve converges, in its precision."""
    for name, bound in (("relaxation", 2.0), ("rho", math.inf)):
        value = getattr(solver, name, None)
        if isinstance(value, jax.core.Tracer) or not hasattr(solver, name) or (value is None and name == "rho"):
            continue
        number = np.asarray(value)
        if number.shape == () and number.dtype.kind in "iuf":
            with np.errstate(over="ignore"):
                number = number.astype(dtype)
            if 0 < number < bound:
                continue
        interval = f"a number above 0 and below {bound:g}" if bound < math.inf else "a number above 0, and finite"
        raise ValueError(f"{name} of {type(solver).__name__} is {interval}, got {value!r}")


# One item, and many.


def _run(rows: int, problem: Problem, solver: Solver, start: Any, tolerance: Array, limit: Array) -> Carry:
    plan = solver.prepare(problem)
    state, x0 = start
    fresh = state is None and x0 is None
    state = solver.init(plan, x0) if state is None else solver.resume(plan, state)
    if fresh and hasattr(solver, "guess"):
        state = solver.guess(plan, state)
    fresh = fresh and rows == 0 and getattr(solver, "looks_late", False)  # a history begins with the start
    if fresh:  # what is adapted at certain certificates is so at the same steps as from another start
        state = state._replace(checks=state.checks + (limit > 0))
    carry = loop.start(solver, plan, state, rows)
    if isinstance(problem.data, L2Ball):
        carry = _nothing(problem, carry)
    return loop.finish(loop.advance(solver, plan, carry, tolerance, limit, fresh))


def _nothing(problem: Problem, carry: Carry) -> Carry:
    """Done at once where x = 0 meets the constraint and costs nothing.

    No duality gap says so: relative to an objective that falls towards zero it stays large.
    """
    assert isinstance(problem.data, L2Ball)
    nothing, ball = jnp.zeros_like(carry.value), problem.data.functional
    objective = problem.objective(problem.variable(nothing)).astype(carry.objective.dtype)
    if problem.box is not None:
        objective = objective + problem.box(nothing).astype(objective.dtype)
    # Numbers that are none meet no constraint.
    done = (objective == 0) & (ball.violation(problem.data.A.forward(problem.variable(nothing))) <= 0)
    zero = jnp.zeros_like(objective)
    history = carry.history
    if history is not None:
        first = History(jnp.zeros((), jnp.int32), zero, zero)
        history = History(*(h.at[0].set(jnp.where(done, v, h[0])) for h, v in zip(history, first, strict=True)))
    return carry._replace(
        status=jnp.where(done, int(Status.CONVERGED), carry.status).astype(carry.status.dtype),
        checks=carry.checks + done,
        objective=jnp.where(done, 0, carry.objective),
        gap=jnp.where(done, 0, carry.gap),
        history=history,
    )


def _advance(problem: Problem, solver: Solver, carry: Carry, tolerance: Array, limit: Array) -> Carry:
    return loop.advance(solver, solver.prepare(problem), carry, tolerance, limit)


def _one_matrix(args: tuple[Any, ...], in_batched: Any) -> bool:
    """Whether the items share a matrix."""
    A = args[0].data.A
    return isinstance(A, Dense) and not in_batched[0].data.A.matrix


@functools.cache
def _single(rows: int) -> Callable[..., Any]:
    return undifferentiable(by_backend(functools.partial(_run, rows), _one_matrix))


@functools.cache
def _continued() -> Callable[..., Any]:
    return undifferentiable(by_backend(_advance, _one_matrix))


@functools.partial(jax.jit, static_argnames=("rows", "batched", "count"))
def _compiled(
    flat: Any,
    solver: Solver,
    start: Any,
    tolerance: Array,
    limit: Array,
    first: Array | None = None,
    *,
    rows: int | None,
    batched: bool,
    count: int = 0,
) -> Any:
    """Every item, or `count` of them from item `first` on; without `rows`, `start` is a carry to go on from."""
    problem, axes = flat
    run = _continued() if rows is None else _single(rows)
    if not batched:
        return run(problem, solver, start, tolerance, limit)
    if first is not None:

        def share(x: Any, batched: bool = True) -> Any:
            return lax.dynamic_slice_in_dim(x, first, count) if batched else x

        leaves, treedef = jax.tree.flatten(problem)
        problem = jax.tree.unflatten(treedef, map(share, leaves, axes.flags))
        start = jax.tree.map(share, start)
    return jax.vmap(run, in_axes=(axes.value, None, 0, None, None))(problem, solver, start, tolerance, limit)


def _batch(
    flat: Any, solver: Solver, start: Any, tolerance: Array, limit: Array, *, rows: int | None, size: int | None
) -> Any:
    """The same for all `size` items (None: no batch), small ones spread over the cores of a CPU."""
    args = (flat, solver, start, tolerance, limit)
    if size is not None and (place := placement(flat)) is not None:
        return split(_local, *place, flat, (solver, tolerance, limit), start, rows=rows)
    if size is not None and not _one_matrix(args[0], [jax.tree.map(lambda axis: axis == 0, flat[1].value)]):
        pixels = max(math.prod(flat[0].in_shape), flat[0].data.y.size // max(size, 1))
        if (workers := threads(args, size, pixels)) > 1:
            return spread(_compiled, args, size, workers, rows=rows, batched=True)
    return _compiled(*args, rows=rows, batched=size is not None)


def _local(flat: Any, shared: Any, start: Any, rows: int | None) -> Any:
    """The items of one device."""
    solver, tolerance, limit = shared
    return _compiled(flat, solver, start, tolerance, limit, rows=rows, batched=True)


def _chunks(
    flat: Any,
    solver: Solver,
    start: Any,
    tolerance: Array,
    limit: int,
    rows: int,
    size: int | None,
    progress: Callable[[int, float], None],
) -> Any:
    """The same solve in chunks, the host called in between."""
    carry = _batch(flat, solver, start, tolerance, jnp.int32(0), rows=rows, size=size)
    done = 0
    while done < limit:
        limited = carry.status == Status.STEP_LIMIT
        if not bool(jnp.any(limited)):
            break
        carry = carry._replace(status=jnp.where(limited, -1, carry.status))
        done = min(done + max(10 * solver.check_every, done // 2), limit)
        carry = loop.finish(_batch(flat, solver, carry, tolerance, jnp.int32(done), rows=None, size=size))
        progress(int(jnp.max(carry.steps)), float(jnp.max(carry.gap)))
    return carry


@functools.partial(jax.jit, static_argnames=("steps", "batched"))
def _unrolled(flat: Any, solver: Solver, start: Any, *, steps: int, batched: bool) -> Carry:
    problem, axes = flat

    def one(problem: Problem, solver: Solver, start: Any) -> Any:
        plan = solver.prepare(problem)
        state, x0 = start
        state = solver.init(plan, x0) if state is None else solver.resume(plan, state)
        state = loop.unroll(solver, plan, state, steps)
        value = solver.value(plan, state)
        # The certificate describes the answer; it is no part of the derivative.
        frozen_plan, frozen = jax.tree.map(lax.stop_gradient, (plan, state))
        zero = jnp.zeros((), jnp.real(value).dtype)
        carry = loop.start(solver, frozen_plan, frozen, 0)
        certificate, _, _ = solver.certificate(frozen_plan, frozen)
        size = loop.energy(problem)
        carry = loop.judge(carry, certificate, value, frozen, jnp.int32(steps), zero, size)
        return loop.finish(carry._replace(residual=jnp.full_like(carry.residual, jnp.nan)))

    if not batched:
        return one(problem, solver, start)
    return jax.vmap(one, in_axes=(axes.value, None, 0))(problem, solver, start)


def _local_unrolled(flat: Any, solver: Any, start: Any, rows: int) -> Carry:
    return _unrolled(flat, solver, start, steps=rows, batched=True)


def _differentiable(way: Any, flat: Any, solver: Solver, carry: Carry, *, batched: bool) -> Array:
    """The value with its derivative by the problem, each device differentiating its own items."""
    if batched and (place := placement(flat)) is not None:
        return split(_local_derivative, *place, flat, (way, solver), (carry.state, carry.value))
    return _attached(way, flat, solver, carry.state, carry.value, batched=batched)


def _local_derivative(flat: Any, shared: Any, items: Any) -> Array:
    return _attached(shared[0], flat, shared[1], *items, batched=True)


@functools.partial(jax.jit, static_argnames="batched")
def _attached(way: Any, flat: Any, solver: Solver, state: Any, value: Array, *, batched: bool) -> Array:
    problem, axes = flat
    if not batched:
        return attached(way, problem, solver, state, value)
    return jax.vmap(attached, in_axes=(None, axes.value, None, 0, 0))(way, problem, solver, state, value)


# Batches.


@jax.tree_util.register_static
class _Axes:
    """Which leaves of a flattened problem carry the batch axis: part of the program, so compared by value."""

    def __init__(self, treedef: Any, flags: tuple[bool, ...]) -> None:
        self.flags, self._key = flags, (treedef, flags)
        self.value = jax.tree.unflatten(treedef, [0 if f else None for f in flags])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Axes) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)


def _flatten(problem: Problem) -> tuple[tuple[int, ...], tuple[Problem, _Axes]]:
    """The batch shape, and the problem with every batched leaf broadcast to one leading axis."""
    leaves, treedef = jax.tree.flatten(problem)
    # Numbers follow the measurements, in their precision too: 0.1 and numpy.float32(0.1) are one program, and so is
    # numpy.float64(0.1) under x64.
    dtype = problem.data.y.real.dtype
    leaves = [_in_precision(v, dtype) for v in leaves]
    counts = jax.tree.leaves(batch_axes(problem))
    shapes = [jnp.shape(x)[:c] for x, c in zip(leaves, counts, strict=True)]
    try:
        batch = np.broadcast_shapes(*shapes)
    except ValueError as err:
        axes = ", ".join(str(s) for s in dict.fromkeys(shapes) if s)
        raise ValueError(
            f"the batch axes of the measurements, masks and weights do not fit each other: {axes}"
        ) from err
    size = int(np.prod(batch))

    def flat(x: Array, count: int) -> Array:
        if count == 0:
            return x
        core = jnp.shape(x)[count:]
        return jnp.broadcast_to(x, (*batch, *core)).reshape(size, *core)

    out = jax.tree.unflatten(treedef, [flat(x, c) for x, c in zip(leaves, counts, strict=True)])
    return batch, (out, _Axes(treedef, tuple(c > 0 for c in counts)))


def _in_precision(v: Array, dtype: Any) -> Array:
    """A leaf in the precision of the measurements: numbers without one, and what is of float64 where they are not."""
    if jax.typeof(v).weak_type:
        return v.astype(dtype)
    if dtype != jnp.float64 and v.dtype in (jnp.float64, jnp.complex128):
        return v.astype(jnp.float32 if v.dtype == jnp.float64 else jnp.complex64)
    return v


def _flatten_start(problem: Problem, start: Any, batch: tuple[int, ...], name: str) -> tuple[Any, Array | None]:
    size, core = int(np.prod(batch)), problem.in_shape
    if start is None:
        return None, None
    if isinstance(start, Solution):
        if start.solver != name:
            raise ValueError(f"a solution of {start.solver} cannot be continued by {name}; pass start=solution.value")
        if jnp.shape(start.value) != (*batch, *core):
            raise ValueError(f"the start has shape {jnp.shape(start.value)}, the problem {(*batch, *core)}")
        state = jax.tree.map(lambda v: v.reshape(size, *v.shape[len(batch) :]) if batch else v, start.state)
        return state, None
    x0 = as_float(start)
    of_complex = complex_items(problem.data.A, problem.data.y)
    if jnp.iscomplexobj(x0) and not of_complex:
        raise TypeError("the start is complex, but x is real: pass start.real")
    x0 = x0.astype(jnp.result_type(problem.data.y.real.dtype, jnp.complex64 if of_complex else jnp.float32))
    if x0.ndim < len(core) or x0.shape[x0.ndim - len(core) :] != core:
        raise ValueError(f"the start has shape {x0.shape}, but x has shape {core} (batch axes in front)")
    x0 = jnp.broadcast_to(x0, (*batch, *core))
    return None, x0.reshape(size, *core) if batch else x0


def _check_state(flat: tuple[Problem, _Axes], solver: Solver, state: Any, batched: bool) -> None:
    """ValueError unless the state of an earlier solution is one of this solver on this problem."""

    def item(v: Any, moved: bool) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(jnp.shape(v)[1:] if moved else jnp.shape(v), jnp.result_type(v))

    leaves, treedef = jax.tree.flatten(flat[0])
    problem = tuple(map(item, leaves, flat[1].flags))
    settings, kind = jax.tree.flatten(solver)
    expected = _state_of(treedef, problem, kind, tuple(item(v, False) for v in settings))
    given = jax.tree.map(lambda v: item(v, batched), state)
    leaves, treedef = jax.tree.flatten(given)
    if (leaves, treedef) != jax.tree.flatten(expected):
        raise ValueError(
            "the start is the solution of another kind of problem or with other settings of the solver; "
            "pass its image: start=solution.value"
        )


@functools.lru_cache
def _state_of(treedef: Any, problem: tuple, kind: Any, settings: tuple) -> Any:
    """The shapes of one item's state; kept, for a loop of warm starts asks every time."""

    def init(problem: Any, settings: Any) -> Any:
        solver = jax.tree.unflatten(kind, settings)
        return solver.init(solver.prepare(jax.tree.unflatten(treedef, problem)), None)

    return jax.eval_shape(init, problem, settings)
