"""A first guess for total variation from the same problem at half the resolution, for images and for duals.

An image that is constant in blocks of `2^d` pixels has `2^(d-1)` times the total variation of the block image, and its
data term is that of the blocks' weighted means: so the coarse problem is one of the same kind, and its optimum and
duals, interpolated, have the long waves right, which small steps settle last.
"""

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax.functionals import L1, GroupL1, LeastSquares
from emjax.operators import FiniteDifference, Identity
from emjax.solvers.problem import Problem, Term

SMALLEST = 64  # sides from here on are halved


def can_coarsen(problem: Problem) -> bool:
    """Whether the problem is a diagonal data term of a real image and one total variation, and the image large."""
    data = problem.data
    return (
        isinstance(data, LeastSquares)
        and data.A.is_diagonal
        and not jnp.issubdtype(data.A.in_dtype, jnp.complexfloating)
        and data.gram_diagonal() is not None
        and len(problem.terms) == 1
        and problem.terms[0].lowered_by_clipping
        and not problem.fields
        and min(problem.in_shape) >= SMALLEST
    )


def coarser(problem: Problem) -> Problem:
    """The problem of the means of blocks of two pixels a side; bounds of the user's are left to the fine one."""
    data, (term,) = problem.least_squares, problem.terms
    diagonal, shape = data.gram_diagonal(), problem.in_shape
    assert diagonal is not None and isinstance(term.K, FiniteDifference)
    weight = _blocks(jnp.broadcast_to(diagonal, shape))
    y = _blocks(data.backprojection()) / jnp.where(weight > 0, weight, 1)
    half = y.shape
    g = term.functional
    assert isinstance(g, L1 | GroupL1)
    w = g.weight
    if w.ndim:
        lead = w.shape[0] if w.ndim == len(shape) + 1 else 1
        w = jax.vmap(_blocks)(jnp.broadcast_to(w, (lead, *shape))) / 2 ** len(shape)
    w = (w * 2 ** (len(shape) - 1)).astype(y.dtype)
    fine = Term(type(g)(w, ndim=g.ndim), FiniteDifference(half, term.K.spacing))
    return Problem(LeastSquares(Identity(half), y, weight), fine)


def finer(problem: Problem, x: Array, p: Array) -> tuple[Array, Array]:
    """Image and dual of the coarse problem as those of `problem`: interpolated, the dual within its ball."""
    shape = problem.in_shape

    def interpolate(v: Array) -> Array:
        for axis in range(v.ndim):
            v = _doubled(v, axis)
        return v[tuple(slice(n) for n in shape)]

    p = jax.vmap(interpolate)(p) / 2 ** (len(shape) - 1)
    return interpolate(x), problem.terms[0].functional.project(p)


def _doubled(v: Array, axis: int) -> Array:
    """Linear interpolation to twice the size; `jax.image.resize` does the same by dense matrices, ten times slower."""
    n = v.shape[axis]

    def part(start: int, stop: int) -> Array:
        return lax.slice_in_dim(v, start, stop, axis=axis)

    before = lax.concatenate([part(0, 1), part(0, n - 1)], axis)
    after = lax.concatenate([part(1, n), part(n - 1, n)], axis)
    pairs = jnp.stack([0.75 * v + 0.25 * before, 0.75 * v + 0.25 * after], axis + 1)
    return pairs.reshape(*v.shape[:axis], 2 * n, *v.shape[axis + 1 :])


def _blocks(v: Array) -> Array:
    """Sums over blocks of two a side, the last ones filled up with zeros."""
    v = jnp.pad(v, [(0, n % 2) for n in v.shape])
    for axis in range(v.ndim):
        v = lax.slice_in_dim(v, 0, None, 2, axis) + lax.slice_in_dim(v, 1, None, 2, axis)
    return v
