"""How far from the optimum: duality gaps as sums of Fenchel-Young gaps.

For `P(x) = data(x) + box(x) + sum_i g_i(K_i x)` and dual points `q` (of the data) and `p_i`, with
`u = -(A.H q + sum_i K_i.H p_i)`,

    P(x) - D(q, p) = gap_data(Ax, q) + sum_i gap_gi(K_i x, p_i) + gap_box(x, u),   each piece >= 0.

Summing the pieces avoids the cancellation of `P - D`, so that float32 still resolves relative gaps of 1e-6. What rounding
may hide is bounded by `allowance`, which is added to every reported gap.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from emjax.functionals import L1, Box, GroupL1, LeastSquares, Quadratic
from emjax.solvers.problem import Problem, total


class Certificate(NamedTuple):
    """`objective - optimum <= gap + allowance`, all absolute; `gap` is inf where no dual point can be built."""

    objective: Array
    gap: Array
    allowance: Array


def norm(x: Array) -> Array:
    """The Euclidean norm of one item."""
    return jnp.sqrt(jnp.sum(jnp.real(x * jnp.conj(x))))


def diagonal_bounds(problem: Problem) -> Box | None:
    """A box that holds the optimum of a diagonal data term with total variation terms.

    Clipping `x` to the range of `y / a` never raises such an objective. Other priors need a box from the user.
    """
    diagonal = problem.data.gram_diagonal()
    if diagonal is None or not all(term.lowered_by_clipping for term in problem.terms):
        return problem.box
    backprojection = problem.data.backprojection()
    seen = diagonal > 0
    target = backprojection / jnp.where(seen, diagonal, 1)
    low = jnp.min(jnp.where(seen, target, jnp.inf))
    high = jnp.max(jnp.where(seen, target, -jnp.inf))
    empty = ~jnp.any(seen)
    low, high = jnp.where(empty, 0, low), jnp.where(empty, 0, high)
    if problem.box is None:
        return Box(low, high, len(problem.in_shape))
    # Inside a user's box the clipped optimum lies in the box's projection of that range.
    return Box(
        jnp.clip(low, problem.box.low, problem.box.high),
        jnp.clip(high, problem.box.low, problem.box.high),
        len(problem.in_shape),
    )


def diagonal_gap(data: LeastSquares, diagonal: Array, rhs: Array, box: Box, x: Array, u: Array) -> tuple[Array, Array]:
    """The Fenchel-Young gap of `G(x) = 1/2 sum a x^2 - b x + box(x)` at `(x, u)`, its conjugate being a clip; also
    how far `x` lies from that clip, by which any error of `u` is multiplied."""
    seen = diagonal > 0
    inside = (rhs + u) / jnp.where(seen, diagonal, 1)
    best = jnp.where(seen, jnp.clip(inside, box.low, box.high), jnp.where(u == 0, x, box.farthest(u)))
    step = x - best
    # At a step of zero with infinite bounds the product below would be 0 * inf.
    piece = step * (0.5 * diagonal * (x + best) - rhs - u)
    return jnp.sum(jnp.where(step == 0, 0, piece)), step


def rounding(x: Array, magnitude: Array) -> Array:
    """The allowance for sums whose terms add up to `magnitude` in absolute value."""
    return 8 * jnp.finfo(x.dtype).eps * magnitude


def primal_dual(problem: Problem, box: Box | None, x: Array, q: Array | None, duals: tuple[Array, ...]) -> Certificate:
    """The certificate at `x` (feasible) with the duals of the terms; `q` is the data's dual, None if diagonal.

    Needs a box unless the terms allow to build a dual point from `x` alone (see `from_primal`).
    """
    data = problem.data
    images = [term.K.forward(x) for term in problem.terms]
    objective = data(x) + total([t.functional(z) for t, z in zip(problem.terms, images, strict=True)])
    pieces = [t.functional.fenchel_gap(z, p) for t, z, p in zip(problem.terms, images, duals, strict=True)]
    u = -sum((t.K.adjoint(p) for t, p in zip(problem.terms, duals, strict=True)), jnp.zeros_like(x))
    sizes = [t.K.norm_bound() * norm(p) for t, p in zip(problem.terms, duals, strict=True)]
    # A long sum (a transform) carries an error of the size of x into <K x, p>; a difference of two pixels does not.
    coarse = total([size for t, size in zip(problem.terms, sizes, strict=True) if not t.K.accurate_entries])
    assert box is not None
    diagonal = data.gram_diagonal()
    if diagonal is not None:
        rhs = data.backprojection()
        piece, step = diagonal_gap(data, diagonal, rhs, box, x, u)
        finite = jnp.where(jnp.isfinite(step), step, 0)
        local = jnp.sum(jnp.abs(finite) * (jnp.abs(rhs) + jnp.abs(diagonal * x)))
        size = total(sizes)
    else:
        w = data.weighted(data.residual(x))
        q = w if q is None else q
        pieces.append(0.5 * jnp.sum(_over(w - q, data.weight)))
        u = u - data.A.adjoint(q)
        piece, finite, local = box.fenchel_gap(x, u), x, jnp.zeros((), x.dtype)
        size = total(sizes) + data.A.norm_bound() * norm(q)
    magnitude = objective + local + norm(x) * coarse + norm(finite) * size
    return Certificate(objective, total([*pieces, piece]), rounding(x, magnitude))


def from_primal(problem: Problem, x: Array) -> Certificate:
    """The certificate from `x` alone: the data's dual is its weighted residual, scaled or mapped to be feasible.

    - one l1-type term behind an isometry `W`, no box: `p = -s W A.H q`, the largest `s <= 1` inside the dual ball;
    - one quadratic prior: its conjugate is finite everywhere;
    - a box alone: likewise.
    """
    data, terms = problem.data, problem.terms
    r = data.residual(x)
    q = data.weighted(r)
    back = data.A.adjoint(q)
    objective = data(x) + total([t(x) for t in terms])
    magnitude = objective + norm(x) * data.A.norm_bound() * norm(q)
    inf = jnp.full((), jnp.inf, x.dtype)
    if len(terms) > 1 or (terms and problem.box is not None):
        return Certificate(objective, inf, rounding(x, magnitude))
    if not terms:
        if problem.box is not None:
            return Certificate(objective, problem.box.fenchel_gap(x, -back), rounding(x, magnitude))
        return Certificate(objective, inf, rounding(x, magnitude))
    g, K = terms[0].functional, terms[0].K
    if isinstance(g, Quadratic):
        scale = jnp.finfo(x.dtype).eps * 4 * (data.A.norm_bound() * norm(q) + norm(g.apply(x - g.mean)))
        hidden = jnp.sqrt(jnp.sum(1 / jnp.broadcast_to(g.d, g.out_shape)) / max(1, x.size)) * scale
        gap = g.fenchel_gap(x, -back)
        extra = hidden * (jnp.sqrt(2 * gap) + 0.5 * hidden)
        return Certificate(objective, gap, rounding(x, objective) + extra)
    isometry = K.gram_scale()
    if isinstance(g, L1 | GroupL1) and isometry is not None:
        # K.H K = c I: u = -back = K.H p with p = -(1/c) K back.
        p = -K.forward(back) / isometry
        s = g.shrink(p)
        gap = g.fenchel_gap(K.forward(x), s * p) + 0.5 * jnp.sum(_over((1 - s) * q, data.weight))
        return Certificate(objective, gap, rounding(x, magnitude))
    return Certificate(objective, inf, rounding(x, magnitude))


def _over(r: Array, weight: Array | None) -> Array:
    """`|r|^2 / w`, zero where both are zero."""
    square = jnp.real(r * jnp.conj(r))
    return square if weight is None else jnp.where(square == 0, 0, square / weight)
