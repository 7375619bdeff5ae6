"""Weights from the data: held-out pixels with Stein's estimate, or the discrepancy principle, along a warm path.

- 2-D pixel scans: the smallest estimated error over the image, from a tenth of the measured pixels that is held out
  (for what was not measured) and Stein's estimate (for what was). The noise is estimated where it is not given. Large
  images are represented by up to four crops.
- Any other operator: the largest weight whose residual is at most the noise, `|A x - y|^2 <= m sigma^2` (Morozov 1966).

The path is one `lax.scan` from the smoothest candidate to the roughest; each solve starts from the last one's state.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax.acquisition.noise import Noise, estimate_noise
from emjax.functionals import LeastSquares
from emjax.operators import LinearOperator, PixelSampling
from emjax.solvers.loop import Solver
from emjax.solvers.problem import Problem
from emjax.solvers.transforms import each

CROP = 256
HELD_OUT = 0.1

Build = Callable[[LeastSquares, Array], Problem]


def path(build: Build, solver: Solver, data: LeastSquares, thetas: Array, steps: int, x0: Array | None) -> Array:
    """The recovered items `(n, *in_shape)` along `thetas`, each `steps` steps from the last."""

    def begin(theta: Array) -> tuple[Any, Any]:
        plan = solver.prepare(build(data, theta))
        return plan, solver.init(plan, x0)

    def visit(state: Any, theta: Array) -> tuple[Any, Array]:
        plan = solver.prepare(build(data, theta))
        state = lax.fori_loop(0, steps, lambda _, s: solver.step(plan, s), solver.resume(plan, state))
        return state, solver.value(plan, state)

    return lax.scan(visit, begin(thetas[0])[1], thetas)[1]


def crops(v: Array) -> Array:
    """Up to four crops `(n, h, w)` of at most `CROP` a side that stand for an image; all of it up to twice that."""
    h, w = v.shape[-2:]
    heights, widths = _starts(h), _starts(w)
    size = min(h, CROP), min(w, CROP)
    return jnp.stack([lax.dynamic_slice(v, (i, j), size) for i in heights for j in widths])


def _starts(n: int) -> list[int]:
    if n <= CROP:
        return [0]
    if n <= 2 * CROP:
        return [0, n - CROP]
    return [n // 4 - CROP // 2, n - n // 4 - CROP // 2]


class Samples(NamedTuple):
    """What a weight is judged on: crops `(n, h, w)` of a pixel scan, and the noise variance of a measurement."""

    y: Array
    kept: Array  # the training mask: the weights of the pixels that are not held out
    held: Array  # the weights of the held-out pixels
    probe: Array  # random signs on the training mask
    variance: Array


def samples(y: Array, A: PixelSampling, noise: Noise | None, key: Array) -> Samples:
    """Split a pixel scan into training and held-out pixels."""
    seen = A.mask != 0
    count = jnp.maximum(jnp.sum(seen), 1)
    split, sign = jax.random.split(key)
    held = (jax.random.uniform(split, y.shape) < HELD_OUT) & seen
    probe = jax.random.rademacher(sign, y.shape, y.dtype) * (seen & ~held)
    mask = jnp.broadcast_to(A.mask, y.shape).astype(y.dtype)
    if noise is None:
        # Of y over its weights, and so larger than that of y by the mean of 1 / w^2.
        sure = trusted(mask)
        safe = jnp.where(sure, mask, 1)
        variance = estimate_noise(jnp.where(sure, y / safe, 0), sure).read_sigma ** 2
        variance = variance * jnp.sum(sure) / jnp.maximum(jnp.sum(jnp.where(sure, safe**-2, 0)), 1e-30)
        variance = jnp.where(jnp.isfinite(variance), variance, 0)
    else:
        variance = noise.variance(jnp.sum(mask * y) / count)
    kept, hidden = jnp.where(held, 0, mask), jnp.where(held, mask, 0)
    return Samples(crops(y), crops(kept), crops(hidden), crops(probe), variance.astype(y.dtype))


def trusted(mask: Array) -> Array:
    """Where a pixel scan measured with at least half of its largest weight: every measured pixel of a 0/1 mask."""
    size = jnp.abs(mask)
    return (size > 0) & (size >= 0.5 * jnp.max(size))


def level(mask: Array) -> Array:
    """The mean curvature of the data term of a pixel scan where it measures: 1 for a 0/1 mask."""
    return jnp.sum(mask * mask) / jnp.maximum(jnp.sum(mask != 0), 1)


class Visit(NamedTuple):
    """A candidate: its parameters, and whether to go on from the best so far or from the last."""

    theta: Array
    from_best: Array


Propose = Callable[[Array, Array], Visit]


def explore(
    build: Build, solver: Solver, s: Samples, propose: Propose, count: int, steps: int, linear: bool = False
) -> Array:
    """The estimated mean squared error, over all pixels of the crops, of `count` candidates, `steps` steps each.

    `propose(i, errors)` gives candidate `i` from the errors of those before it (inf for those to come). `linear`: one
    crop is enough to measure the divergence of a method that is linear in `y`, the one with the most usual mask.

    Unmeasured pixels: the error at held-out ones, less the noise. Measured pixels, which a rough recovery leaves as
    noisy as they are: Stein's estimate `|A x - y|^2 / n - v + 2 v div / n`, its divergence from one random probe
    (Stein 1981; Ramani, Blu, Unser 2008). Either alone is blind to half of the image. Pixels of soft weights `w` count
    for `w^2`.
    """
    spread = jnp.max(jnp.abs(s.y))
    h = 0.1 * jnp.sqrt(s.variance) + 1e-3 * jnp.where(spread > 0, spread, 1)
    # Every crop is solved for, and those that measure the divergence again with the probe on top.
    n = len(s.y)
    counts = jnp.sum(s.kept != 0, (-2, -1)).astype(s.y.dtype)
    usual = jnp.sum(counts**2) / jnp.maximum(jnp.sum(counts), 1)
    probed = jnp.argmin(jnp.abs(counts - usual))[None] if linear else jnp.arange(n)
    probe, mask = s.probe[probed], s.kept[probed]
    ys = jnp.concatenate([s.y, s.y[probed] + h * probe])
    masks = jnp.concatenate([s.kept, mask])
    n_probed = jnp.maximum(jnp.sum(counts[probed]), 1)
    n_kept, n_held = jnp.sum(counts), jnp.sum(s.held != 0).astype(s.y.dtype)
    share = (n_held + n_kept) / s.y.size

    def begin(y: Array, mask: Array) -> Any:
        theta = propose(jnp.int32(0), errors).theta
        return solver.init(solver.prepare(build(LeastSquares(PixelSampling(mask), y), theta)), None)

    def visit(carry: Any, i: Array) -> tuple[Any, None]:
        errors, states, best = carry
        theta, from_best = propose(i, errors)

        def go_on(y: Array, mask: Array, state: Any) -> tuple[Any, Array]:
            plan = solver.prepare(build(LeastSquares(PixelSampling(mask), y), theta))
            state = lax.fori_loop(0, steps, lambda _, v: solver.step(plan, v), solver.resume(plan, state))
            return state, solver.value(plan, state)

        states = lax.cond(from_best, lambda: best, lambda: states)
        states, xs = each(go_on, ys, masks, states)
        x, moved = xs[:n], xs[n:]
        divergence = jnp.sum(probe * mask * (moved - x[probed])) / (h * n_probed)
        unmeasured = jnp.sum(jnp.where(s.held != 0, (s.held * x - s.y) ** 2, 0)) / jnp.maximum(n_held, 1) - s.variance
        measured = jnp.sum(jnp.where(s.kept != 0, (s.kept * x - s.y) ** 2, 0)) / jnp.maximum(n_kept, 1)
        measured = measured + (2 * divergence - 1) * s.variance
        error = share * measured + (1 - share) * unmeasured
        # An estimate may dip below zero; the refinement takes logarithms of what is above the lowest plausible error.
        error = jnp.maximum(error, 1e-3 * s.variance + jnp.finfo(error.dtype).tiny)
        best = lax.cond(error < jnp.min(errors), lambda: states, lambda: best)
        return (errors.at[i].set(error), states, best), None

    errors = jnp.full(count, jnp.inf, s.y.dtype)
    states = each(begin, ys, masks)
    return lax.scan(visit, (errors, states, states), jnp.arange(count))[0][0]


def parabola(log_theta: Array, errors: Array) -> tuple[Array, Array]:
    """The minimum of `errors` over equally spaced `log_theta`, refined by a parabola through its neighbours."""
    n = errors.shape[0]
    safe = jnp.where(jnp.isfinite(errors), errors, jnp.inf)
    i = jnp.argmin(safe)
    j = jnp.clip(i, 1, max(1, n - 2))
    a, b, c = (jnp.log(jnp.maximum(safe[jnp.clip(j + k, 0, n - 1)], jnp.finfo(safe.dtype).tiny)) for k in (-1, 0, 1))
    bend = a - 2 * b + c
    inside = (i == j) & (bend > 0) & jnp.isfinite(bend)
    shift = jnp.where(inside, 0.5 * (a - c) / jnp.where(inside, bend, 1), 0)
    shift = jnp.clip(shift, -0.5, 0.5)
    spacing = log_theta[1] - log_theta[0] if n > 1 else jnp.zeros(())
    return jnp.exp(log_theta[i] + shift * spacing), i


def by_risk(build: Build, solver: Solver, s: Samples, thetas: Array, steps: int) -> Array:
    """The candidate (refined) with the smallest estimated error."""
    errors = explore(build, solver, s, lambda i, _: Visit(thetas[i], jnp.bool_(False)), thetas.shape[0], steps)
    return parabola(jnp.log(thetas), errors)[0]


def by_discrepancy(
    build: Build, solver: Solver, y: Array, A: LinearOperator, noise: Noise, thetas: Array, steps: int
) -> Array:
    """The first candidate, from the smoothest, whose residual is down to the noise; the roughest if none is."""
    data = LeastSquares(A, y)
    xs = path(build, solver, data, thetas, steps, None)

    def excess(x: Array) -> Array:
        r = data.residual(x)
        mean = jnp.abs(A.forward(x))
        measured = A.measured(jnp.ones(A.out_shape, r.real.dtype))
        return jnp.sum(jnp.abs(r) ** 2) / jnp.maximum(jnp.sum(measured * noise.variance(mean)), 1e-30)

    ratios = lax.map(excess, xs)
    below = ratios <= 1
    i = jnp.where(jnp.any(below), jnp.argmax(below), thetas.shape[0] - 1)
    # Log-linear interpolation between the last candidate above the noise and the first below.
    k = jnp.maximum(i - 1, 0)
    hi, lo = jnp.log(ratios[k]), jnp.log(ratios[i])
    t = jnp.where((hi > 0) & (hi > lo), hi / jnp.where(hi > lo, hi - lo, 1), 1)
    t = jnp.where(jnp.any(below), jnp.clip(t, 0, 1), 1)
    return jnp.exp((1 - t) * jnp.log(thetas[k]) + t * jnp.log(thetas[i]))


def needs_noise(name: str) -> ValueError:
    """The error of an automatic weight without anything to take it from."""
    return ValueError(
        f"{name}: held-out pixels can set the weight only of 2-D pixel scans; for this operator give the noise "
        "(recon(y, A, noise=Noise(read_sigma=...))) or the weight"
    )
