"""Duals polished for a certificate: the same primal point, a better bound.

Where nothing is measured the duals have to balance, `u = -sum_i K_i.H p_i = 0`; what they lack there costs the gap its
first power times the distance to a bound of the box, while the objective's own error is of second order. So a solve
often stands at its optimum long before its duals say so. A few accelerated projected gradient steps (Beck and Teboulle
2009) on their own defect,

    minimise 1/2 sum_j f_j dist(u_j, a_j (x_j - t_j) + N_j)^2   over the dual balls,      f = k / (k + a),

with `a` the diagonal of the data term, `t` what was measured and `N_j` the normal cone of the box at `x_j`, move the
imbalance to measured pixels, where it costs its square. Any point of the balls gives a valid bound: rounding here, or
too few steps, make it loose, never wrong.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax

from emjax.functionals import L1, GroupL1, LeastSquares
from emjax.solvers.problem import Problem


def can_polish(problem: Problem) -> bool:
    """Whether the data term is diagonal and the duals are bounded by balls alone."""
    data = problem.data
    return (
        isinstance(data, LeastSquares)
        and data.gram_diagonal() is not None
        and not problem.fields
        and bool(problem.terms)
        and all(isinstance(term.functional, L1 | GroupL1) for term in problem.terms)
    )


def polished(
    problem: Problem, norms: tuple[Array, ...], x: Array, duals: tuple[Array, ...], steps: Array
) -> tuple[Array, ...]:
    """The duals after `steps` steps (an even number, perhaps traced; none leaves them as they are), at `x` in the box.

    A box that only certifies holds the optimum inside of it, and is not looked at."""
    data, terms = problem.least_squares, problem.terms
    a = data.gram_diagonal()
    assert a is not None
    k = 0.01 * jnp.max(a)
    wanted = a * x - data.backprojection()
    square = sum((n * n for n in norms), jnp.zeros((), x.real.dtype))
    step = 1 / jnp.where(square > 0, square, 1).astype(x.real.dtype)

    def defect(z: tuple[Array, ...], t: Array) -> Array:
        u = -sum((t.K.adjoint(p) for t, p in zip(terms, z, strict=True)), jnp.zeros_like(x))
        d = u - wanted
        if problem.box is not None:  # at a bound it takes what presses against it
            d = jnp.where(((x >= problem.box.high) & (d > 0)) | ((x <= problem.box.low) & (d < 0)), 0, d)
        # Bound to `t`, which changes, the factor is no invariant of the loop, to be kept as an array of its own.
        b, _ = lax.optimization_barrier((a, t))
        f = jnp.where(b > 0, k / jnp.where(b > 0, k + b, 1), 1)
        return f.astype(d.real.dtype) * d

    def sweep(state: Any) -> Any:
        p, z, t = state
        d = lax.optimization_barrier(step * defect(z, t))
        new = tuple(
            term.functional.project(q + term.K.forward(d).astype(q.dtype)) for term, q in zip(terms, z, strict=True)
        )
        longer = (1 + jnp.sqrt(1 + 4 * t * t)) / 2
        momentum = (t - 1) / longer
        return new, tuple(q + momentum * (q - r) for q, r in zip(new, p, strict=True)), longer

    start = (duals, duals, jnp.ones((), x.real.dtype))
    return lax.fori_loop(0, steps // 2, lambda _, s: sweep(sweep(s)), start)[0]  # in pairs: see `loop.several`
