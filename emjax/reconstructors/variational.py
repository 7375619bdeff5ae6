"""Sparse priors: total variation (Rudin, Osher, Fatemi 1992) and orthogonal wavelets with an l1 norm.

x = argmin 1/2 |A x - y|^2_w + weight * TV(x)         or   + weight * |W x|_1
"""

import dataclasses
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.acquisition.noise import Noise
from emjax.functionals import L1, Box, LeastSquares
from emjax.functionals.base import weights
from emjax.operators import LinearOperator, PixelSampling, Wavelet
from emjax.operators.base import as_float
from emjax.reconstructors.base import (
    Reconstructor,
    check_gap,
    check_steps,
    grey_level,
    noise_weights,
    recovered,
)
from emjax.reconstructors.selection import by_rule, check_rule, level, trusted
from emjax.solvers import FISTA, PDHG, TGV, TV, Problem, Term, solve


def check_weight(weight: Any) -> Array | None:
    """None for "auto", else a non-negative float array."""
    if weight is None or (isinstance(weight, str) and weight == "auto"):
        return None
    if isinstance(weight, str):
        raise ValueError(f'a weight is a number or "auto", got {weight!r}')
    weight = as_float(weight)
    # Values are known here only outside of a trace; inside, a negative weight ends as a non-finite gap.
    if not isinstance(weight, jax.core.Tracer) and not bool(np.all(np.asarray(weight) >= 0)):
        raise ValueError(f"a weight is not negative and not NaN, got {weight}")
    return weight


def measured_range(y: Array, A: LinearOperator) -> tuple[Array, Array]:
    """The smallest and largest measured value of a pixel scan; of the back-projection for other operators.

    Of soft weights only the `trusted` ones count: where the beam hardly was, `y / w` is noise of any size.
    """
    if isinstance(A, PixelSampling):
        seen = trusted(A.mask)
        target = y / jnp.where(seen, A.mask, 1)
        low = jnp.min(jnp.where(seen, target, jnp.inf))
        high = jnp.max(jnp.where(seen, target, -jnp.inf))
        empty = ~jnp.any(seen)
        return jnp.where(empty, 0, low), jnp.where(empty, 0, high)
    back = A.adjoint(y) / jnp.maximum(A.norm_bound() ** 2, jnp.finfo(y.real.dtype).tiny)
    return jnp.min(back), jnp.max(back)


def _curvature(A: LinearOperator) -> Array:
    """What a weight is relative to: the curvature of the data term."""
    return level(A.mask) if isinstance(A, PixelSampling) else A.norm_bound() ** 2


def _widened(data: LeastSquares) -> Box:
    """Twice the range of the measurements around its middle.

    Few mixed measurements hold little of an item: their back-projection is then far too small, and the range no less
    than ten standard deviations that `|y|^2 = |x|^2 trace(A.H A) / n`, as of random rows, gives around the grey level.
    """
    y, A = data.y, data.A
    low, high = measured_range(y, A)
    low, high = low - (high - low) / 2, high + (high - low) / 2
    if not isinstance(A, PixelSampling):
        middle = grey_level(y, A)
        rest = A.measured(y - A.forward(jnp.full(A.in_shape, middle, y.real.dtype)))
        signs = jax.random.rademacher(jax.random.key(0), A.in_shape, y.real.dtype)
        trace = jnp.sum(jnp.abs(A.forward(signs)) ** 2)
        reach = 10 * jnp.sqrt(jnp.sum(jnp.abs(rest) ** 2) / jnp.where(trace > 0, trace, 1))
        low, high = jnp.minimum(low, middle - reach), jnp.maximum(high, middle + reach)
    return Box(low, high)


@pytree_dataclass
class TotalVariation(Reconstructor):
    """TV-regularised least squares, certified by PDHG.

    weight: None or "auto" estimates it. rule: how; "auto" takes held-out pixels for 2-D pixel scans, the discrepancy
    principle (needs `noise`) for other operators; or a rule of `emjax.weights` by its name. gap: the relative duality
    gap to reach. gradient: how to differentiate, as in `solve` (`emjax.solvers.Implicit()`), with a weight that is
    given; what `noise` weighs the measurements by is held. Without it a derivative raises. Where the measurements do
    not bound x (soft weights, or no pixel scan), x is kept within twice their range around its middle, or that of ten
    standard deviations that the energy of mixed measurements gives: features that are brighter and cover less than a
    percent of an item are cut off there (write down the problem with a `Box`).
    """

    _name: ClassVar[str] = "tv"

    weight: Any = leaf("_scalar", default=None)
    gap: Any = leaf("_scalar", default=1e-3)
    max_steps: Any = leaf("_scalar", default=2000)
    isotropic: bool = static(default=True)
    rule: str = static(default="auto")
    gradient: Any = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_rule(self.rule)
        assign(self, weight=check_weight(self.weight), gap=check_gap(self.gap), max_steps=check_steps(self.max_steps))

    def problem(self, data: LeastSquares, weight: Array) -> Problem:
        """The problem that is solved."""
        return Problem(data, TV(weight, isotropic=self.isotropic), *self._bounds(data))

    def _bounds(self, data: LeastSquares) -> tuple[Box, ...]:
        # It changes nothing for a 0/1 mask; the smallest of soft weights bound x by no more than their own noise.
        if data.gram_diagonal() is None or isinstance(data.A, PixelSampling):
            return (_widened(data),)
        return ()

    def _fit(self, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Self:
        if self.weight is not None:
            return self
        low, high = measured_range(y, A)
        spread = jnp.where(high > low, high - low, 1).astype(y.real.dtype)
        spread = spread * _curvature(A).astype(spread.dtype)
        thetas = spread * jnp.asarray(np.geomspace(0.2, 5e-4, 14), spread.dtype)
        solver = PDHG(balance=False)
        weight = by_rule(self._name, self.rule, self.problem, solver, y, A, noise, thetas, 60, key)
        return dataclasses.replace(self, weight=weight)

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        assert self.weight is not None
        weights = None
        if noise is not None and isinstance(A, PixelSampling):
            held, (A0, y0) = lax.stop_gradient(self.weight), lax.stop_gradient((A, y))
            first = solve(self.problem(LeastSquares(A0, y0), held), PDHG(), gap=1e-2, max_steps=200)
            weights = noise_weights(first.value, noise, A.mask)
        problem = self.problem(LeastSquares(A, y, weights), self.weight)
        x = recovered(solve(problem, PDHG(), gap=self.gap, max_steps=self.max_steps, gradient=self.gradient))
        return jnp.where(jnp.any(jnp.isinf(self.weight)), self._flat(y, A), x)

    def _flat(self, y: Array, A: LinearOperator) -> Array:
        """The answer for an infinite weight: the best uniform image."""
        return jnp.asarray(grey_level(y, A))


@pytree_dataclass
class TotalGeneralisedVariation(TotalVariation):
    """Least squares with second-order total generalised variation (`TGV`), certified by PDHG.

    weight: as for `TotalVariation`; it multiplies the first order. ratio: of the second order's weight to it. x is
    kept within twice the range of the measurements around its middle.
    """

    _name: ClassVar[str] = "tgv"

    ratio: Any = leaf("_scalar", default=0.5)

    def __post_init__(self) -> None:
        TotalVariation.__post_init__(self)
        assign(self, ratio=weights("the ratio of the weights of TGV", self.ratio))

    def problem(self, data: LeastSquares, weight: Array) -> Problem:
        return Problem(data, TGV(weight, self.ratio), *self._bounds(data))

    def _bounds(self, data: LeastSquares) -> tuple[Box, ...]:
        return (_widened(data),)

    def _flat(self, y: Array, A: LinearOperator) -> Array:
        return jnp.full((), jnp.nan, y.real.dtype)  # the best plane, which nobody asks for


@pytree_dataclass
class WaveletL1(Reconstructor):
    """Least squares with a Besov norm: l1 of orthogonal wavelet coefficients, weighted by level, by FISTA.

    Coefficients of level j (1 the finest; the coarse band counts as the last) weigh `weight 2^(-decay (j - 1))`:
    coarse ones of real images are larger by about that much (Chambolle, DeVore, Lee, Lucier 1998). Equal weights
    (decay 0) are 4 to 5 dB worse on sparse scans. The mean of the measurements is taken off first.
    weight, rule, gradient: as for `TotalVariation`; the weight is that of the finest level. name: a wavelet of
    `emjax.operators.Wavelet`.
    """

    weight: Any = leaf("_scalar", default=None)
    gap: Any = leaf("_scalar", default=1e-3)
    max_steps: Any = leaf("_scalar", default=1000)
    decay: Any = leaf("_scalar", default=1.5)
    name: str = static(default="sym8")
    rule: str = static(default="auto")
    gradient: Any = dataclasses.field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        check_rule(self.rule)
        assign(self, weight=check_weight(self.weight), gap=check_gap(self.gap), max_steps=check_steps(self.max_steps))
        assign(self, decay=as_float(self.decay))

    def problem(self, data: LeastSquares, weight: Array) -> Problem:
        """The problem that is solved."""
        W = Wavelet(data.A.in_shape, self.name)
        level = W.level_map()
        level = np.where(level == 0, level.max(), level)
        scale = 2.0 ** (-self.decay * jnp.asarray(level - 1, data.y.real.dtype))
        return Problem(data, Term(L1(weight * scale), W))

    def _centred(self, y: Array, A: LinearOperator) -> Array:
        return A.measured(y - A.forward(jnp.full(A.in_shape, grey_level(y, A))))

    def _fit(self, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Self:
        if self.weight is not None:
            return self
        centred = self._centred(y, A)
        low, high = measured_range(centred, A)
        spread = jnp.where(high > low, high - low, 1).astype(y.real.dtype)
        spread = spread * _curvature(A).astype(spread.dtype)
        thetas = spread * jnp.asarray(np.geomspace(2.0, 2e-3, 14), spread.dtype)
        weight = by_rule("wavelet", self.rule, self.problem, FISTA(), centred, A, noise, thetas, 30, key)
        return dataclasses.replace(self, weight=weight)

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        assert self.weight is not None
        offset, centred, weights, start = grey_level(y, A), self._centred(y, A), None, None
        if noise is not None and isinstance(A, PixelSampling):
            held, (A0, y0) = lax.stop_gradient(self.weight), lax.stop_gradient((A, centred))
            first = solve(self.problem(LeastSquares(A0, y0), held), FISTA(), gap=1e-2, max_steps=100)
            start = first.value
            weights = noise_weights(offset + start, noise, A.mask)
        problem = self.problem(LeastSquares(A, centred, weights), self.weight)
        settings = {"gap": self.gap, "max_steps": self.max_steps, "gradient": self.gradient}
        x = recovered(solve(problem, FISTA(), start=start, **settings))
        return offset + jnp.where(jnp.isinf(self.weight), 0, x)
