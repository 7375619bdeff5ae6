"""Rules that estimate the error of every point of a path: held-out pixels, Stein's estimate, and its generalisation.

With `y = A x + n`, `E n n.H = V` diagonal, and a random probe `b` of independent entries with `E b b.H = I` (signs, or
signs in both parts of complex measurements), `d = (x(y + h b) - x(y)) / h`:

    SURE:   |A (x^ - x)|^2   ~   |A x^ - y|^2 - tr V + 2 Re<V b, A d>
    GSURE:  |P (x^ - x)|^2   ~   |P x^ - A^+ y|^2 - |A^+ V^(1/2) b|^2 + 2 Re<A^+ V b, d>,     P = A^+ A

the projection to what `A` sees at all. Sources: Stein 1981; Ramani, Blu, Unser 2008 (the probe); Eldar 2009 and Giryes,
Elad, Eldar 2011 (the projection).
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax.functionals import LeastSquares
from emjax.operators import LinearOperator, PixelSampling
from emjax.solvers import PCG, Problem
from emjax.solvers.transforms import each
from emjax.weights.path import Path, path
from emjax.weights.rules import Choice, parabola

BuildFrom = Callable[[LeastSquares, Array], Problem]


def held_out(
    build: BuildFrom, data: LeastSquares, thetas: Array, *, key: Array, share: float = 0.1, **settings: Any
) -> Choice:
    """The weight that predicts best a `share` of the pixels which it did not see. Needs no noise level.

    `build(data, theta)` gives the problem of other measurements. The curve is the mean squared error at the held-out
    pixels, noise included; soft weights `w` count for `w^2`. settings: of `path`. Raises TypeError unless `A` samples
    pixels: of other measurements none stands for a part of the image.
    """
    A = data.A
    if not isinstance(A, PixelSampling):
        raise TypeError(f"pixels can be held out of a PixelSampling, not of {A}; use gsure, discrepancy or l_curve")
    held = (jax.random.uniform(key, A.in_shape) < share) & (A.mask != 0)
    kept = PixelSampling(jnp.where(held, 0, A.mask), A.ndim)
    p = path(lambda theta: build(LeastSquares(kept, data.y, data.weight), theta), thetas, **settings)
    hidden = jnp.where(held, A.mask, 0)
    count = jnp.maximum(jnp.sum(held), 1)
    curve = lax.map(lambda x: jnp.sum(jnp.where(held, hidden * x - data.y, 0) ** 2) / count, p.values)
    return _lowest(p, curve)


def sure(build: BuildFrom, data: LeastSquares, thetas: Array, variance: Any, *, key: Array, **settings: Any) -> Choice:
    """The weight with the smallest estimated risk `|A (x^ - x)|^2`, the curve, of the measured values.

    `build(data, theta)` gives the problem of other measurements. variance: of the noise, `E |n|^2` of a measurement,
    one number or one each. settings: of `path`. Where `A` mixes or drops much of `x`, this says little of it:
    see `gsure`.
    """
    probe, variance = _probe(data, variance, key)
    p, moves = _pair(build, data, thetas, probe, variance, settings)

    def risk(x: Array, move: Array) -> Array:
        return _power(data.residual(x)) - jnp.sum(variance) + 2 * _dot(variance * probe, data.A.forward(move))

    return _lowest(p, lax.map(lambda v: risk(*v), (p.values, moves)), jnp.sum(variance))


def gsure(build: BuildFrom, data: LeastSquares, thetas: Array, variance: Any, *, key: Array, **settings: Any) -> Choice:
    """The weight with the smallest estimated risk `|P (x^ - x)|^2`, the curve, of the part of `x` that `A` sees.

    As `sure`, in the image itself. The pseudo-inverse amplifies the noise of what `A` nearly loses (a blur): then the
    estimate is as unsure as that, and `discrepancy` the safer rule.
    """
    A, (probe, variance) = data.A, _probe(data, variance, key)
    p, moves = _pair(build, data, thetas, probe, variance, settings)
    back = pseudo_inverse(A, data.y)
    along, spread = pseudo_inverse(A, variance * probe), _power(pseudo_inverse(A, jnp.sqrt(variance) * probe))

    def risk(x: Array, move: Array) -> Array:
        seen = pseudo_inverse(A, A.forward(x))
        return _power(seen - back) - spread + 2 * _dot(along, move)

    return _lowest(p, lax.map(lambda v: risk(*v), (p.values, moves)), spread)


def pseudo_inverse(A: LinearOperator, y: Array, steps: int = 100) -> Array:
    """`A^+ y = A.H (A A.H)^-1 y`, in closed form for orthogonal rows and pixels, else by conjugate gradients."""
    if (c := A.row_scale()) is not None:
        return A.adjoint(y) / c
    if isinstance(A, PixelSampling):
        return jnp.where(A.mask != 0, y / jnp.where(A.mask != 0, A.mask, 1), 0)
    # From zero on the iterates stay in the row space; what is nearly lost there is not worth its noise.
    solver = PCG()
    plan = solver.prepare(Problem(LeastSquares(A, y)))
    first = solver.init(plan, jnp.zeros(A.in_shape, plan.rhs.dtype))
    least = (10 * float(jnp.finfo(plan.rhs.dtype).eps)) ** 2 * first.rz

    def step(carry: tuple[Array, Any]) -> tuple[Array, Any]:
        return carry[0] + 1, solver.step(plan, carry[1])

    begin = (jnp.zeros((), jnp.int32), first)
    return solver.value(plan, lax.while_loop(lambda c: (c[0] < steps) & (c[1].rz > least), step, begin)[1])


def _probe(data: LeastSquares, variance: Any, key: Array) -> tuple[Array, Array]:
    """The random probe, and the variance of every measurement; both zero where nothing is measured."""
    y, A = data.y, data.A
    if jnp.iscomplexobj(y):
        real, imaginary = jax.random.rademacher(key, (2, *A.out_shape), y.real.dtype) / 2**0.5
        probe = lax.complex(real, imaginary)
    else:
        probe = jax.random.rademacher(key, A.out_shape, y.dtype)
    return A.measured(probe), A.measured(jnp.broadcast_to(jnp.asarray(variance, y.real.dtype), A.out_shape))


def _pair(
    build: BuildFrom, data: LeastSquares, thetas: Array, probe: Array, variance: Array, settings: dict[str, Any]
) -> tuple[Path, Array]:
    """The path of the measurements, and how its values move along the probe."""
    # Large enough that what the gap leaves open does not drown the difference; the probe's random signs average it out.
    size = jnp.max(jnp.abs(data.y))
    h = 0.1 * jnp.sqrt(jnp.max(variance)) + 1e-3 * jnp.where(size > 0, size, 1)

    def along(y: Array) -> Path:
        moved = LeastSquares(data.A, y, data.weight)
        return path(lambda theta: build(moved, theta), thetas, **settings)

    pair = each(along, jnp.stack([data.y, data.y + h * probe]))
    return jax.tree.map(lambda v: v[0], pair), (pair.values[1] - pair.values[0]) / h


def _lowest(p: Path, curve: Array, noise: Array | None = None) -> Choice:
    """The refined minimum. An estimate may dip below zero: its logarithm is taken above a thousandth of the noise."""
    floor = jnp.finfo(curve.dtype).tiny if noise is None else 1e-3 * noise + jnp.finfo(curve.dtype).tiny
    return Choice(parabola(jnp.log(p.thetas), jnp.maximum(curve, floor))[0], p.thetas, curve)


def _dot(a: Array, b: Array) -> Array:
    return jnp.sum(jnp.real(jnp.conj(a) * b))


def _power(v: Array) -> Array:
    return _dot(v, v)
