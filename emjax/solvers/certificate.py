"""How far from the optimum: duality gaps as sums of Fenchel-Young gaps.

For `P(x) = data(x) + box(x) + sum_i g_i(K_i x)` and dual points `q` (of the data) and `p_i`, with
`u = -(A.H q + sum_i K_i.H p_i)`,

    P(x) - D(q, p) = gap_data(Ax, q) + sum_i gap_gi(K_i x, p_i) + gap_box(x, u),   each piece >= 0.

Summing the pieces avoids the cancellation of `P - D`, so that float32 still resolves relative gaps of 1e-6. What
rounding may hide is bounded by `allowance`, which is added to every reported gap. Where it comes from:

- duals lie in their balls only to a few units: as many units of the objective;
- `u` is a rounded sum, off by `eps sum_i |K_i| |p_i|`, and the gap moves with it by the distance from `x` to the
  maximiser of the conjugate: for an unmeasured pixel up to the farther bound of the box, whatever the sign of `u`;
- `x` is rounded itself, so that no residual is known better than to `eps |x|`: what is left where the optimum is zero;
- `K_i x` is exact to a unit an entry for differences, but off by `eps |K_i| |x|` for a transform.

A constraint (a `Ball` of the measurements, an `L1Ball`) that `x` violates adds nothing to the objective; the gap is
then no less than the relative violation.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax.functionals import L1, Ball, Box, Fidelity, Functional, L1Ball, LeastSquares, Quadratic
from emjax.functionals.quadratics import over
from emjax.operators import Blockwise, Identity, LinearOperator, OnImage
from emjax.solvers.problem import Problem, Term, total

# A relative gap that no moved dual brings near to any tolerance worth asking for.
FAR = 0.05


class Certificate(NamedTuple):
    """`objective - optimum <= gap + allowance`, all absolute; `gap` is inf where no dual point can be built.

    A method without an objective gives the relative `residual` of its fixed point instead, on which it then stops.
    """

    objective: Array
    gap: Array
    allowance: Array
    residual: Array | None = None


def norm(x: Array) -> Array:
    """The Euclidean norm of one item."""
    return jnp.sqrt(jnp.sum(jnp.real(x * jnp.conj(x))))


def units(x: Array, count: int = 8) -> float:
    """`count` eps; 8 of them, that is 16 roundings, are granted to any sum of one sign and to transforms."""
    return count * float(jnp.finfo(x.dtype).eps)


def diagonal_bounds(problem: Problem) -> Box | None:
    """A box that holds the optimum of a diagonal data term with total variation terms.

    Clipping `x` to the range of `y / a` never raises such an objective. Other priors need a box from the user.
    """
    if not all(term.lowered_by_clipping for term in problem.terms):
        return problem.box
    if isinstance(problem.data, Fidelity):
        if not problem.data.A.is_diagonal:
            return problem.box
        m = problem.data.multipliers()
        seen = m != 0
        target = jnp.where(seen, problem.data.centre() / jnp.where(seen, m, 1), 0)
        error = 4 * jnp.finfo(target.dtype).eps * jnp.abs(target)
    else:
        diagonal = problem.data.gram_diagonal()
        if diagonal is None:
            return problem.box
        target, error = problem.data.target()
        seen = diagonal > 0
    if jnp.iscomplexobj(target):  # complex images have no order
        return problem.box
    low = jnp.min(jnp.where(seen, target - error, jnp.inf))
    high = jnp.max(jnp.where(seen, target + error, -jnp.inf))
    empty = ~jnp.any(seen)
    low, high = jnp.where(empty, 0, low), jnp.where(empty, 0, high)
    if problem.box is not None:
        # A range that meets every pixel's own bounds: the clipped optimum then lies in the box's projection of it.
        low = jnp.minimum(low, jnp.min(problem.box.high))
        high = jnp.maximum(high, jnp.max(problem.box.low))
        low = jnp.clip(low, problem.box.low, problem.box.high)
        high = jnp.clip(high, problem.box.low, problem.box.high)
    return Box(low, high, len(problem.in_shape))


def diagonal_gap(
    data: LeastSquares, diagonal: Array, box: Box, x: Array, u: Array, error_u: Array
) -> tuple[Array, Array, Array]:
    """The Fenchel-Young gap of `G(x) = 1/2 sum a (x - t)^2 + box(x)` at `(x, u)`, its conjugate being a clip.

    Also its own rounding, and the allowance for an error of `u` by `error_u` in norm. All is written in distances to
    `t`, so that an offset common to `x` and `t` costs no precision.
    """
    target, error = data.target()
    seen = diagonal > 0
    a = jnp.where(seen, diagonal, 1)
    r = x - target
    best = jnp.clip(u / a, box.low - target, box.high - target)
    step = jnp.where(seen, r - best, jnp.where(u == 0, 0, x - box.farthest(u)))
    piece = step * (jnp.where(seen, 0.5 * diagonal * (r + best), 0) - u)
    # At a step of zero with infinite bounds the product would be 0 * inf.
    gap = jnp.sum(jnp.where(step == 0, 0, piece))
    distance = jnp.where(seen, jnp.abs(step), 0)
    local = jnp.sum(distance * (units(x) * (diagonal * jnp.abs(r) + jnp.abs(u)) + diagonal * error))
    # The maximiser itself moves by (error of u) / a, yet never out of the box.
    reach = jnp.minimum(jnp.where(seen, distance + error_u / a, jnp.inf), box.reach(x))
    return gap, local, _times(norm(reach), error_u)


def primal_dual(problem: Problem, box: Box, x: Array, q: Array | None, duals: tuple[Array, ...]) -> Certificate:
    """The certificate at `x` (in the box) with the duals of the terms and the data's dual `q`, None if diagonal."""
    data, terms = problem.data, problem.terms
    if problem.fields:
        duals, error_p = balanced(problem, duals)
    images = [term.K.forward(x) for term in terms]
    parts = [_value(t.functional, z) for t, z in zip(terms, images, strict=True)]
    if isinstance(data, Fidelity):
        z = data.A.forward(x)
        objective = _value(data.functional, z) + total(parts)
    else:
        objective = data(x) + total(parts)
    gaps = [t.functional.fenchel_gap(z, p) for t, z, p in zip(terms, images, duals, strict=True)]
    u = -sum((t.K.adjoint(p) for t, p in zip(terms, duals, strict=True)), jnp.zeros_like(x))
    # A divergence of three directions takes five roundings and a division.
    size = total(
        [
            units(x, 3 if t.K.accurate_entries else 8) * t.K.norm_bound() * norm(p)
            for t, p in zip(terms, duals, strict=True)
        ]
    ).astype(objective.dtype)
    coarse = _coarse(problem, x, images, duals)
    hidden = units(x) * (objective + coarse)
    if problem.fields:
        size = size + terms[-2].K.norm_bound() * error_p
        hidden = hidden + error_p * norm(images[-2])
        data, box, x, u = of_image(data), Box(box.low[0], box.high[0], x.ndim - 1), x[0], u[0]
    if isinstance(data, Fidelity):
        gap, q, rest = _fidelity_gap(data, box, x, z, u, q)
        bound = data.A.norm_bound()
        hidden = hidden + units(x) * data.functional.slope(z, q) * (norm(z) if data.A.is_diagonal else bound * norm(x))
        error_u = size + (0 if data.separable else units(x) * bound * norm(q))
        allowance = hidden + _times(norm(box.reach(x)), error_u)
        certificate = Certificate(objective, total([*gaps, gap, box.fenchel_gap(x, rest)]), allowance)
        return _violated(problem, [z, *images], certificate)
    diagonal = data.gram_diagonal()
    if diagonal is not None:
        gap, local, moved = diagonal_gap(data, diagonal, box, x, u, size)
        certificate = _rounded(data, x, Certificate(objective, total([*gaps, gap]), hidden + local + moved))
        return _violated(problem, [None, *images], certificate)
    assert q is not None
    r = data.residual(x)
    w = data.weighted(r)
    gaps += [0.5 * jnp.sum(over(w - q, data.weight)), box.fenchel_gap(x, u - data.A.adjoint(q))]
    bound = data.A.norm_bound()
    error_u = size + units(x) * bound * norm(q)
    hidden = hidden + units(x) * norm(w - q) * (bound * norm(x) + norm(r))
    certificate = Certificate(objective, total(gaps), hidden + _times(norm(box.reach(x)), error_u))
    return _violated(problem, [None, *images], _rounded(data, x, certificate))


def balanced(problem: Problem, duals: tuple[Array, ...]) -> tuple[tuple[Array, ...], Array]:
    """The duals of a TGV, feasible: the field is free, so that `p = E.H q`, scaled into both balls; and the error of p.

    What is given up: the dual of the first order is replaced by one that the other determines.
    """
    *others, _, q = duals
    first, second = problem.terms[-2:]
    p = second.K.adjoint(q)[1:]
    s = first.functional.shrink(p)  # type: ignore[attr-defined]
    error = units(q, 3) * second.K.norm_bound() * norm(q)
    return (*others, s * p, s * q), error.astype(jnp.real(q).dtype)


def of_image(data: LeastSquares | Fidelity) -> LeastSquares | Fidelity:
    """The data term of the image alone."""
    assert isinstance(data.A, OnImage)
    return dataclasses.replace(data, A=data.A.op)  # type: ignore[type-var]


def _value(g: Functional, z: Array) -> Array:
    return jnp.zeros((), jnp.real(z).dtype) if isinstance(g, Ball | L1Ball) else g(z)


def _violated(problem: Problem, images: list[Array | None], c: Certificate) -> Certificate:
    """The same with the gap no less than the largest relative violation of a ball."""
    data = problem.data.functional if isinstance(problem.data, Fidelity) else None
    # What `judge` takes an objective of zero for.
    y = problem.data.y
    floor = (0.5 * jnp.finfo(c.objective.dtype).eps ** 2 * jnp.sum(jnp.real(y * jnp.conj(y)))).astype(c.objective.dtype)
    least = jnp.maximum(jnp.maximum(c.objective, floor), 1e-30)
    functionals = [data, *[t.functional for t in problem.terms]]
    for g, z in zip(functionals, images, strict=True):
        if isinstance(g, Ball | L1Ball):
            assert z is not None
            # Rounding of a measurement is no violation.
            violation = jnp.maximum(g.violation(z) - units(z), 0)
            c = c._replace(gap=jnp.maximum(c.gap, violation * least))
    return c


def _fidelity_gap(
    data: Fidelity, box: Box, x: Array, z: Array, u: Array, q: Array | None
) -> tuple[Array, Array, Array]:
    """The Fenchel-Young gap of `g(A x)` at `z = A x` with the dual `q`, and what is left of `u` for the box.

    Where `A` multiplies pixels by `m`, the best dual of a pixel is `u / m`, but no more than the slope at a bound.
    """
    g = data.functional
    if q is not None:
        return g.fenchel_gap(z, q), q, u - data.A.adjoint(q)
    m = data.multipliers()
    seen = m != 0
    safe = jnp.where(seen, m, 1)
    ends = [g.gradient(jnp.broadcast_to(safe * end, z.shape)) for end in (box.low, box.high)]  # type: ignore[attr-defined]
    low, high = jnp.minimum(*ends), jnp.maximum(*ends)
    best = u / safe
    free = seen & (best >= low) & (best <= high)
    q = jnp.where(seen, g.project(jnp.clip(best, low, high)), g.gradient(z))  # type: ignore[attr-defined]
    return g.fenchel_gap(z, q), q, jnp.where(free & (q == best), 0, u - m * q)


def from_dual(problem: Problem, x: Array, q: Array) -> Certificate:
    """The certificate of a `Fidelity` with one l1-type term behind an isometry `W`, no box, from the data's dual `q`.

    `p = -W A.H q` is the term's dual; both are scaled by the largest `s <= 1` that brings `p` into the dual ball. The
    gap of other problems is infinite.
    """
    data, terms = problem.data, problem.terms
    assert isinstance(data, Fidelity)
    z, back = data.A.forward(x), data.A.adjoint(q)
    back = (back if jnp.iscomplexobj(x) else jnp.real(back)).astype(x.dtype)
    images = [t.K.forward(x) for t in terms]
    objective = _value(data.functional, z) + total(
        [_value(t.functional, v) for t, v in zip(terms, images, strict=True)]
    )
    gap = jnp.full_like(objective, jnp.inf)
    bound = data.A.norm_bound()
    hidden = objective
    if len(terms) == 1 and (isometry := terms[0].K.gram_scale()) is not None and hasattr(terms[0].functional, "shrink"):
        g, K = terms[0].functional, terms[0].K
        p = -_unscaled(K.forward(back), isometry)
        s = g.shrink(p)
        gap = _isometric(isometry, g.fenchel_gap(images[0], s * p) + data.functional.fenchel_gap(z, s * q))
        slopes = K.norm_bound() * g.slope(images[0], s * p) + bound * (data.functional.slope(z, s * q) + norm(q))
        hidden = 2 * objective + norm(x) * slopes
    return _violated(problem, [z, *images], Certificate(objective, gap, units(x) * hidden))


def _unscaled(z: Array, isometry: Array) -> Array:
    """`z / c` for `K.H K = c I`; zero for an operator that is zero."""
    return z / jnp.where(isometry > 0, isometry, 1).astype(jnp.real(z).dtype)


def _isometric(isometry: Array, gap: Array) -> Array:
    """The gap where there is an isometry; behind an operator that is zero no dual of the term balances the data's."""
    return jnp.where(isometry > 0, gap, jnp.inf)


def _times(reach: Array, error: Array) -> Array:
    """Their product; zero without an error, also where a box is infinite."""
    return jnp.where(error == 0, 0, reach * error)


def _rounded(data: LeastSquares, x: Array, c: Certificate) -> Certificate:
    """The same with the data term of a residual that is all rounding of `x`, unless the optimum is met exactly."""
    hidden = 0.5 * (data.lipschitz() * (jnp.finfo(x.dtype).eps * norm(x)) ** 2).astype(c.objective.dtype)
    return c._replace(allowance=c.allowance + jnp.where(c.gap == 0, 0, hidden))


def _coarse(problem: Problem, x: Array, images: list[Array], duals: tuple[Array, ...]) -> Array:
    """What the error of long sums `K x` (transforms) may change; a difference of two pixels has none."""
    parts = zip(problem.terms, images, duals, strict=True)
    slopes = [t.K.norm_bound() * t.functional.slope(z, p) for t, z, p in parts if not t.K.accurate_entries]
    return norm(x) * total(slopes) if slopes else jnp.zeros(())


def from_primal(problem: Problem, x: Array, dual: Array | None = None) -> Certificate:
    """The certificate from `x` alone: the data's dual is its weighted residual, scaled or mapped to be feasible.

    With `dual`, another iterate of the same problem, it is the residual of that one (for an l1-type term).

    - one l1-type term behind an isometry `W`, no box: `p = -s W A.H q`, the largest `s <= 1` inside the dual ball,
      after `q` has been moved towards it;
    - an `L1Ball` behind an isometry, no box: the residual times the best `s <= 1`;
    - one quadratic prior: its conjugate is finite everywhere;
    - a box alone: likewise;
    - no term and a diagonal `A.H A`: its minimum in closed form.

    Other problems have no certificate here: the gap is infinite. Blocks that share nothing have one each, and their
    sum is the image's: one scale for all would be that of the worst block.
    """
    if (split := _blocks(problem)) is None:
        return _rounded(problem.least_squares, x, _from_primal(problem, x, dual))
    one, parts, axes = split
    A = problem.data.A
    assert isinstance(A, Blockwise)
    points = A.split(x), None if dual is None else A.split(dual)

    def certify(parts: Any, x: Array, dual: Array | None) -> Certificate:
        return from_primal(one(*parts), x, dual)

    each = jax.vmap(certify, in_axes=(axes, 0, None if dual is None else 0))(parts, *points)
    return Certificate(*(jnp.sum(v) for v in each[:3]))


def _blocks(problem: Problem) -> tuple[Callable[..., Problem], Any, Any] | None:
    """Where an image falls into blocks that share no term: the problem of a block from its arrays, those of all blocks,
    and which of them have an axis of blocks. None elsewhere."""
    data, A = problem.data, problem.data.A
    if not isinstance(data, LeastSquares) or len(problem.terms) != 1 or problem.box is not None:
        return None
    g, K = problem.terms[0].functional, problem.terms[0].K
    if not isinstance(A, Blockwise) or not isinstance(K, Blockwise) or not isinstance(g, L1):
        return None
    if K.op.in_shape != A.op.in_shape or any(n % b for n, b in zip(A.shape, A.op.in_shape, strict=True)):
        return None
    ndim = len(K.op.out_shape)

    def blocks(v: Array | None, op: LinearOperator) -> Array | None:
        if v is None or v.ndim == 0:
            return v
        return jnp.broadcast_to(v, (*A.grid, *op.out_shape)).reshape(-1, *op.out_shape)

    def one(y: Array, weight: Array | None, w: Array) -> Problem:
        return Problem(LeastSquares(A.op, y, weight), Term(L1(w, ndim), K.op))

    parts = (blocks(data.y, A.op), blocks(data.weight, A.op), blocks(g.weight, K.op))
    return one, parts, tuple(None if v is None or v.ndim == 0 else 0 for v in parts)


def _from_primal(problem: Problem, x: Array, dual: Array | None) -> Certificate:
    data, terms = problem.least_squares, problem.terms
    w = data.weighted(data.residual(x))
    q = w if dual is None else data.weighted(data.residual(dual))
    back = data.A.adjoint(q)
    size = data.A.norm_bound() * norm(q)
    images = [t.K.forward(x) for t in terms]
    objective = data(x) + total([_value(t.functional, z) for t, z in zip(terms, images, strict=True)])
    if not terms and problem.box is None and (diagonal := data.gram_diagonal()) is not None:
        gap = 0.5 * jnp.sum(over(back, jnp.broadcast_to(diagonal, back.shape)))
        return Certificate(
            objective, jnp.where(jnp.isnan(objective), jnp.nan, gap), units(x) * (objective + norm(x) * size)
        )
    if not terms and problem.box is not None:
        hidden = _times(norm(problem.box.reach(x)), size)
        return Certificate(objective, problem.box.fenchel_gap(x, -back), units(x) * (objective + hidden))
    if len(terms) == 1 and problem.box is None:
        g, K = terms[0].functional, terms[0].K
        if isinstance(g, Quadratic) and K.is_diagonal and K.gram_scale() is not None:
            return _quadratic(g, x, back, size, objective)
        isometry = K.gram_scale()
        if isinstance(g, L1Ball) and isometry is not None:
            z, p = images[0], -_unscaled(K.forward(back), isometry)
            # gap(s) = s a + (1 - s)^2 b: at s = 1 the gap of Frank and Wolfe.
            a, b = g.fenchel_gap(z, p), objective
            s = jnp.clip(1 - a / jnp.where(b > 0, 2 * b, 1), 0, 1)
            gap = jnp.where(s > 0, s * a, 0) + (1 - s) ** 2 * b
            gap = _isometric(isometry, jnp.where(jnp.isnan(a), jnp.nan, gap))
            reach = jnp.where(s > 0, s * g.conjugate(p), 0)
            hidden = 2 * objective + 2 * reach + norm(x) * size
            return _violated(problem, [None, z], Certificate(objective, gap, units(x) * hidden))
        if hasattr(g, "shrink") and isometry is not None:
            z, c = images[0], jnp.where(isometry > 0, isometry, 1).astype(objective.dtype)
            plain = _scaled(data, g, K, c, x, z, w, q, back, objective)
            better, back = _nearer(data, g, K, c, q, back, plain.gap < FAR * objective)
            moved = _scaled(data, g, K, c, x, z, w, better, back, objective)
            # Both hold; the comparison is false where the moved one is not a number.
            use = moved.gap + moved.allowance < plain.gap + plain.allowance
            objective, gap, allowance = (jnp.where(use, a, b) for a, b in zip(moved[:3], plain[:3], strict=True))
            return Certificate(objective, _isometric(isometry, gap), allowance)
    return Certificate(objective, jnp.full_like(objective, jnp.inf), units(x) * objective)


def _scaled(
    data: LeastSquares,
    g: Any,
    K: LinearOperator,
    c: Array,
    x: Array,
    z: Array,
    w: Array,
    q: Array,
    back: Array,
    objective: Array,
) -> Certificate:
    """With the data's dual `q`, `back = A.H q`, scaled; `w` is the weighted residual, `z = K x` and `K.H K = c I`."""
    p = -K.forward(back) / c  # so that -back = K.H p
    s = g.shrink(p)
    apart = w - s * q
    gap = g.fenchel_gap(z, s * p) + 0.5 * jnp.sum(over(apart, data.weight))
    bound = data.A.norm_bound()
    # p itself is only rounded, and its scale with it: twice the objective. What is no sum has no other error.
    transform = 0 if isinstance(K, Identity) else K.norm_bound() * g.slope(z, s * p)
    hidden = 2 * objective + norm(x) * (bound * norm(q) + transform)
    hidden = hidden + norm(apart) * bound * norm(x)
    return Certificate(objective, gap, units(x) * hidden)


def _nearer(
    data: LeastSquares, g: Any, K: LinearOperator, c: Array, q: Array, back: Array, wanted: Array
) -> tuple[Array, Array]:
    """A dual of the data nearer to the feasible ones than `q`, and `A.H` of it: three steps, where they are wanted, of

        d = proj(p) - p,  p = -K A.H q / c,     q' = q - t w A K.H d,     t = |d|^2 / (|A K.H d|_w^2 / c)

    towards the dual ball, along the few entries that stick out: most of them then lie in it. Scaling `q` alone costs
    the largest excess times the whole prior, which a few entries that settle late decide, or the rounding of a residual
    in which large numbers have cancelled; for DCT, Fourier and Gaussian measurements of wavelet-sparse images it takes
    2 to 5 times the steps.
    """
    bound = data.A.norm_bound() ** 2

    def sweep(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        q, back = state
        p = -K.forward(back) / c
        d = g.project(p) - p
        v = data.A.forward(K.adjoint(d).astype(back.dtype))
        move = data.weighted(v)
        length, effect = jnp.sum(jnp.abs(d) ** 2), jnp.sum(jnp.real(jnp.conj(v) * move)) / c
        # Where the measurements hardly see what sticks out, a step as long would leave them.
        t = jnp.minimum(length / jnp.where(effect > 0, effect, 1), 10 / jnp.where(bound > 0, bound, 1))
        q = q - jnp.where(effect > 0, t, 0).astype(jnp.real(q).dtype) * move
        return q, data.A.adjoint(q)

    return lax.fori_loop(0, jnp.where(wanted, 3, 0), sweep, (q, back))


def _quadratic(g: Quadratic, x: Array, back: Array, size: Array, objective: Array) -> Certificate:
    """`1/2 |e|^2` with `e = d^(1/2) C (x - mean) + d^(-1/2) C back`: a rounding error of `e` by `h` in norm may hide
    `h |e| + h^2 / 2`. Transforms spread their errors evenly over the coefficients, hence means over `d`."""
    d = jnp.broadcast_to(g.d, g.out_shape)
    centred = norm(x - g.mean)
    inner = (
        jnp.sqrt(jnp.mean(jnp.where(d > 0, 1 / d, 0))) * (size + norm(g.apply(x - g.mean)))
        + jnp.sqrt(jnp.mean(d)) * centred
    )
    hidden = 0.5 * units(x) * inner
    # A sum of squares that vanishes at the optimum: the objective's own rounding has no part in it.
    gap = g.fenchel_gap(x, -back)
    known = jnp.where(jnp.isfinite(gap), gap, 0)  # no bound where a coefficient has no weight and the data pulls at it
    return Certificate(objective, gap, units(x) * known + hidden * (jnp.sqrt(2 * known) + 0.5 * hidden))
