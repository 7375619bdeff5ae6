"""Which rule takes the weight from the data, and the quick one: held-out pixels with Stein's estimate on crops.

- "auto" for 2-D pixel scans: the smallest estimated error over the image, from a tenth of the measured pixels that is
  held out (for what was not measured) and Stein's estimate (for what was). The noise is estimated where it is not
  given. Large images are represented by up to four crops. The candidates are one `lax.scan` from the smoothest to the
  roughest; each solve starts from the last one's state.
- "auto" for any other operator: the discrepancy principle, which needs the noise.
- any rule of `emjax.weights` by its name, on the whole image.
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
from emjax.weights import Choice, Path, discrepancy, gsure, held_out, l_curve, parabola, path, sure

CROP = 256
HELD_OUT = 0.1
RULES = ("auto", "held_out", "sure", "gsure", "discrepancy", "l_curve")

# Where a path serves to choose a weight, and where its curvature does.
GAP, FINE_GAP = 1e-2, 1e-3

Build = Callable[[LeastSquares, Array], Problem]


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


def scan_variance(y: Array, A: PixelSampling, noise: Noise | None) -> Array:
    """The mean noise variance of a measured pixel of a 2-D scan: at the given levels, or estimated."""
    mask = jnp.broadcast_to(A.mask, y.shape).astype(y.dtype)
    if noise is not None:
        count = jnp.maximum(jnp.sum(mask != 0), 1)
        return noise.variance(jnp.sum(mask * y) / count).astype(y.dtype)
    # Of y over its weights, and so larger than that of y by the mean of 1 / w^2.
    known = trusted(mask)
    safe = jnp.where(known, mask, 1)
    variance = estimate_noise(jnp.where(known, y / safe, 0), known).read_sigma ** 2
    variance = variance * jnp.sum(known) / jnp.maximum(jnp.sum(jnp.where(known, safe**-2, 0)), 1e-30)
    return jnp.where(jnp.isfinite(variance), variance, 0).astype(y.dtype)


def samples(y: Array, A: PixelSampling, noise: Noise | None, key: Array) -> Samples:
    """Split a pixel scan into training and held-out pixels."""
    seen = A.mask != 0
    split, sign = jax.random.split(key)
    held = (jax.random.uniform(split, y.shape) < HELD_OUT) & seen
    probe = jax.random.rademacher(sign, y.shape, y.dtype) * (seen & ~held)
    mask = jnp.broadcast_to(A.mask, y.shape).astype(y.dtype)
    variance = scan_variance(y, A, noise)
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


def by_risk(build: Build, solver: Solver, s: Samples, thetas: Array, steps: int) -> Array:
    """The candidate (refined) with the smallest estimated error."""
    errors = explore(build, solver, s, lambda i, _: Visit(thetas[i], jnp.bool_(False)), thetas.shape[0], steps)
    return parabola(jnp.log(thetas), errors)[0]


def by_rule(
    name: str,
    rule: str,
    build: Build,
    solver: Solver,
    y: Array,
    A: LinearOperator,
    noise: Noise | None,
    thetas: Array,
    steps: int,
    key: Array,
) -> Array:
    """The weight that `rule` chooses for the method `name`; `steps` for each candidate of the quick rule."""
    if rule == "auto" and isinstance(A, PixelSampling) and A.ndim == 2:
        return by_risk(build, solver, samples(y, A, noise, key), thetas, steps)
    return textbook(name, "discrepancy" if rule == "auto" else rule, build, solver, y, A, noise, thetas, key).weight


def textbook(
    name: str,
    rule: str,
    build: Build,
    solver: Solver,
    y: Array,
    A: LinearOperator,
    noise: Noise | None,
    thetas: Array,
    key: Array,
) -> Choice:
    """What a rule of `emjax.weights` says. Raises ValueError where it does not fit the operator or lacks the noise."""
    data = LeastSquares(A, y)
    if rule == "held_out":
        if not isinstance(A, PixelSampling):
            raise ValueError(f"{name}: held_out holds pixels out of a PixelSampling, not of {A}; take {_others(rule)}")
        return held_out(build, data, thetas, key=key, solver=solver, gap=GAP)
    if rule == "l_curve":
        return l_curve(path(lambda theta: build(data, theta), thetas, solver=solver, gap=FINE_GAP))
    if rule == "sure" and not A.is_diagonal:
        raise ValueError(f"{name}: sure judges measured pixels, which {A} has not; take gsure, or {_others(rule)}")
    if noise is None and not (isinstance(A, PixelSampling) and A.ndim == 2):
        raise needs_noise(name)
    if rule == "discrepancy":
        p = path(lambda theta: build(data, theta), thetas, solver=solver, gap=GAP)
        return discrepancy(p, _noise_power(p, y, A, noise))
    estimate = gsure if rule == "gsure" else sure
    return estimate(build, data, thetas, _variances(y, A, noise), key=key, solver=solver, gap=FINE_GAP)


def _variances(y: Array, A: LinearOperator, noise: Noise | None) -> Array:
    """The noise variance of every measurement, at its own value; of a scan at the mean one."""
    if isinstance(A, PixelSampling) and A.ndim == 2:
        return scan_variance(y, A, noise)
    assert noise is not None
    return noise.variance(jnp.abs(y))


def _noise_power(p: Path, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
    """The expected `|n|^2` at every point of a path, which is what counting noise depends on."""
    measured = A.measured(jnp.ones(A.out_shape, y.real.dtype))
    if noise is None:
        assert isinstance(A, PixelSampling)
        return jnp.sum(measured) * scan_variance(y, A, noise)
    return lax.map(lambda x: jnp.sum(measured * noise.variance(jnp.abs(A.forward(x)))), p.values)


def check_rule(rule: str) -> None:
    """ValueError for a name that is none of `RULES`."""
    if rule not in RULES:
        raise ValueError(f"a rule is one of {', '.join(RULES)}; got {rule!r}")


def _others(rule: str) -> str:
    return "discrepancy or l_curve" if rule == "sure" else "gsure, discrepancy or l_curve"


def needs_noise(name: str) -> ValueError:
    """The error of an automatic weight without anything to take it from."""
    return ValueError(
        f"{name}: held-out pixels can set the weight only of 2-D pixel scans; for this operator give the noise "
        '(recon(y, A, noise=Noise(read_sigma=...))), the weight, or a rule that needs neither (rule="l_curve")'
    )
