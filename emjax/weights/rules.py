"""Rules that read a weight off a path: the discrepancy principle and the L-curve; and how minima are refined."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from emjax.weights.path import Path


class Choice(NamedTuple):
    """A chosen weight, and the curve `(n,)` over `thetas` `(n,)` that it was read off: see the rule for its meaning."""

    weight: Array
    thetas: Array
    curve: Array


def parabola(log_theta: Array, errors: Array) -> tuple[Array, Array]:
    """The minimum of `errors`, refined by a parabola of their logarithms through its neighbours; and its index.

    `log_theta` is equally spaced around the minimum.
    """
    safe = jnp.where(jnp.isfinite(errors), errors, jnp.inf)
    return _vertex(log_theta, jnp.log(jnp.maximum(safe, jnp.finfo(safe.dtype).tiny)))


def _vertex(log_theta: Array, scores: Array) -> tuple[Array, Array]:
    n = scores.shape[0]
    i = jnp.argmin(scores)
    j = jnp.clip(i, 1, max(1, n - 2))
    a, b, c = (scores[jnp.clip(j + k, 0, n - 1)] for k in (-1, 0, 1))
    bend = a - 2 * b + c
    inside = (i == j) & (bend > 0) & jnp.isfinite(bend)
    shift = jnp.where(inside, 0.5 * (a - c) / jnp.where(inside, bend, 1), 0)
    return _at(log_theta, i, jnp.clip(shift, -0.5, 0.5)), i


def _at(log_theta: Array, i: Array, shift: Array) -> Array:
    """The weight at index `i + shift`, interpolated in its logarithm."""
    n = log_theta.shape[0]
    other = jnp.clip(i + jnp.sign(shift).astype(jnp.int32), 0, n - 1)
    return jnp.exp(log_theta[i] + jnp.abs(shift) * (log_theta[other] - log_theta[i]))


def discrepancy(path: Path, power: Array) -> Choice:
    """The smoothest weight whose residual is down to the noise, `|A x - y|^2_w = power` (Morozov 1966).

    power: the expected `|n|^2_w`, `m sigma^2` without weights; one number, or one a point. The curve is the residual
    over it; between two points the crossing of one is log-linear. If no residual is that small, the roughest weight;
    NaN where no residual is a number. The path may fall or rise.
    """
    thetas, residuals = _from_the_smoothest(path.thetas, path.residuals)
    dtype = residuals.dtype
    tiny = jnp.finfo(dtype).tiny
    (powers,) = _from_the_smoothest(path.thetas, jnp.broadcast_to(jnp.asarray(power, dtype), residuals.shape))[1:]
    ratios = residuals / jnp.maximum(powers, tiny)
    below = ratios <= 1
    i = jnp.where(jnp.any(below), jnp.argmax(below), ratios.shape[0] - 1)
    k = jnp.maximum(i - 1, 0)
    high, low = jnp.log(jnp.maximum(ratios[k], tiny)), jnp.log(jnp.maximum(ratios[i], tiny))
    between = (high > 0) & (high > low) & jnp.isfinite(high)
    t = jnp.where(between, high / jnp.where(between, high - low, 1), 1)
    t = jnp.where(jnp.any(below), jnp.clip(t, 0, 1), 1)
    log_theta = jnp.log(thetas)
    weight = jnp.exp((1 - t) * log_theta[k] + t * log_theta[i])
    weight = jnp.where(jnp.any(jnp.isfinite(ratios)), weight, jnp.nan)
    return Choice(weight, path.thetas, _from_the_smoothest(path.thetas, ratios)[1])


def l_curve(path: Path) -> Choice:
    """The corner of `log prior` against `log residual`: the largest curvature (Hansen 1992). Needs no noise level.

    Curvature by central differences between neighbours; the curve is its negative, infinite at the ends. Needs a path
    certified to about 1e-3, or the solver's own errors bend it. The path may fall or rise; NaN where no point of it
    is a number. Raises ValueError for fewer than five points.
    """
    n = path.thetas.shape[0]
    if n < 5:
        raise ValueError(f"the corner of an L-curve takes a path of five weights or more, got {n}")
    thetas, residuals, priors = _from_the_smoothest(path.thetas, path.residuals, path.priors)
    tiny = jnp.finfo(residuals.dtype).tiny
    x, y = (jnp.log(jnp.maximum(v, tiny)) for v in (residuals, priors))
    dx, dy, ddx, ddy = *(_slope(v) for v in (x, y)), *(_bend(v) for v in (x, y))
    # From the smoothest on, the curve runs to the left and then up: it turns clockwise at the corner.
    length = jnp.sqrt(dx**2 + dy**2)
    turn = (dx * ddy - dy * ddx) / jnp.maximum(length, jnp.finfo(x.dtype).eps) ** 3
    turn = jnp.where(jnp.isfinite(turn), turn, jnp.inf)  # no corner beside a point that is no number
    inf = jnp.full(1, jnp.inf, turn.dtype)
    curve = jnp.concatenate([inf, turn, inf])
    known = jnp.any(jnp.isfinite(x) & jnp.isfinite(y))
    weight = jnp.where(known, _vertex(jnp.log(thetas), curve)[0], jnp.nan)
    return Choice(weight, path.thetas, _from_the_smoothest(path.thetas, curve)[1])


def _from_the_smoothest(thetas: Array, *values: Array) -> tuple[Array, ...]:
    """Both turned round if the weights rise (and turned back by a second call)."""
    rising = thetas[0] < thetas[-1]
    return tuple(jnp.where(rising, v[::-1], v) for v in (thetas, *values))


def _slope(v: Array) -> Array:
    return 0.5 * (v[2:] - v[:-2])


def _bend(v: Array) -> Array:
    return v[2:] - 2 * v[1:-1] + v[:-2]
