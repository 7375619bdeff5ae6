"""A Gaussian random field as prior: the image's power spectrum falls like a power of the frequency.

    x = argmin |A x - y|^2_w + |d^(1/2) C (x - mean)|^2,    d = max(weight f^exponent, FLOOR mean(A.H A)),

with the DCT for C and f in cycles a pixel. In other words kriging or Wiener interpolation: for pixel scans the
posterior mean of a field with spectrum `1 / f^p`. Natural and EM images have p between 2 and 4, and this beats total
variation by decibels on sparse scans. Solved by preconditioned conjugate gradients in the DCT domain. Sources: Cressie
1993 (kriging); Field 1987 (the power law).
"""

from typing import Any, Self

import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.acquisition.noise import Noise
from emjax.functionals import LeastSquares, Quadratic
from emjax.operators import DCT, LinearOperator, PixelSampling
from emjax.operators.base import Shape, as_float
from emjax.reconstructors.base import Reconstructor, grey_level, noise_weights
from emjax.reconstructors.selection import Visit, by_rule, check_rule, explore, level, samples
from emjax.reconstructors.variational import check_weight
from emjax.solvers import PCG, Problem, solve
from emjax.weights import parabola

EXPONENTS = (2.0, 3.0, 3.5, 4.0)

# The power law saturates where the prior weighs a ten-thousandth of the data: grey levels there keep all but that share
# of their distance to the mean, and 1/d stays small enough for the duality gap to say something. (A pure power law
# leaves 1/d near 1e13 at the lowest frequencies of a 1024^2 image: float32 never certified better than 1e-2.)
FLOOR = 1e-4


def frequency(shape: Shape) -> np.ndarray:
    """The radial frequency of each DCT coefficient, cycles a pixel; at zero half the lowest one, never 0."""
    axes = np.meshgrid(*[np.arange(n) / (2 * n) for n in shape], indexing="ij")
    f = np.sqrt(sum(a**2 for a in axes))
    return np.maximum(f, 0.25 / max(shape))


@pytree_dataclass
class Spectral(Reconstructor):
    """The reconstructor of this module; see there.

    weight: noise variance over the prior's spectral density at f = 1 (larger is smoother); None or "auto" estimates it
    with the exponent, by held-out pixels for 2-D pixel scans. Other operators take the exponent 3 and the discrepancy
    principle, which needs `noise`. rule: "auto", or one of `emjax.weights` by its name, with the exponent 3,
    too. gap, max_steps: where the conjugate gradients stop.
    """

    weight: Any = leaf("_scalar", default=None)
    exponent: Any = leaf("_scalar", default=None)
    gap: Any = leaf("_scalar", default=1e-4)
    max_steps: Any = leaf("_scalar", default=300)
    rule: str = static(default="auto")

    def __post_init__(self) -> None:
        check_rule(self.rule)
        weight, exponent = check_weight(self.weight), check_weight(self.exponent)
        assign(self, weight=weight, exponent=exponent, gap=as_float(self.gap), max_steps=jnp.asarray(self.max_steps))

    def problem(self, data: LeastSquares, weight: Array, exponent: Array) -> Problem:
        """The problem that is solved."""
        dtype = data.y.real.dtype
        diagonal = data.A.gram_diagonal()
        curvature = data.A.norm_bound() ** 2 if diagonal is None else jnp.mean(diagonal)
        d = jnp.maximum(weight * jnp.asarray(frequency(data.A.in_shape), dtype) ** exponent, FLOOR * curvature)
        return Problem(data, Quadratic(DCT(data.A.in_shape), d.astype(dtype), grey_level(data.y, data.A)))

    def _fit(self, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Self:
        weight, exponent = self.weight, self.exponent
        if weight is None:
            if self.rule == "auto" and isinstance(A, PixelSampling) and A.ndim == 2:
                weight, exponent = self._by_risk(y, A, noise, key)
            else:
                exponent = jnp.full((), 3.0, y.real.dtype) if exponent is None else exponent
                weight = self._by_rule(exponent, y, A, noise, key)
        exponent = jnp.full((), 3.0, y.real.dtype) if exponent is None else exponent
        return type(self)(weight, exponent, self.gap, self.max_steps, self.rule)

    def _by_rule(self, exponent: Array, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Array:
        """The weight by name, over cut-off frequencies as in `_by_risk`."""
        dtype = y.real.dtype
        if isinstance(A, PixelSampling):
            share = jnp.maximum(jnp.mean(A.mask != 0), 1e-6).astype(dtype)
            curvature = share * level(A.mask).astype(dtype)
            cutoffs = 0.9 * share ** (1 / A.ndim) * jnp.asarray(np.geomspace(0.06, 1.0, 14), dtype)
        else:
            curvature = A.norm_bound() ** 2
            cutoffs = jnp.asarray(np.geomspace(0.02, 0.7, 14), dtype)

        def build(data: LeastSquares, weight: Array) -> Problem:
            return self.problem(data, weight, exponent)

        thetas = (curvature / cutoffs**exponent).astype(dtype)
        return by_rule("spectral", self.rule, build, PCG(), y, A, noise, thetas, 15, key)

    def _by_risk(self, y: Array, A: PixelSampling, noise: Noise | None, key: Array) -> tuple[Array, Array]:
        """First the cut-off frequency, where prior and data weigh the same, at exponent 3; then both around it.

        `weight f_c^p = mean(A.H A)` ties the weight to the cut-off: moving along p at a fixed cut-off
        changes the recovery little, so that a few steps from the last solution do.
        """
        dtype = y.dtype
        parts = samples(y, A, noise, key)
        share = jnp.maximum(jnp.mean(parts.kept != 0), 1e-6)
        curvature = share * level(A.mask).astype(dtype)

        def build(data: LeastSquares, theta: Array) -> Problem:
            return self.problem(data, curvature / theta[0] ** theta[1], theta[1])

        # Beyond about the sampling's own Nyquist frequency there is nothing to gain, and the system turns stiff.
        highest = 0.9 * jnp.sqrt(share)
        cutoffs = highest * jnp.asarray(np.geomspace(0.06, 1.0, 10), dtype)
        factors = jnp.asarray([0.8, 1.0, 1.25], dtype)
        first = jnp.full((), 3.0, dtype) if self.exponent is None else self.exponent
        exponents = jnp.asarray(EXPONENTS, dtype) if self.exponent is None else first[None]
        n = len(cutoffs)

        def near(errors: Array) -> Array:
            return jnp.minimum(parabola(jnp.log(cutoffs), errors[:n])[0], 0.8 * highest) * factors

        def propose(i: Array, errors: Array) -> Visit:
            row, column = jnp.divmod(jnp.maximum(i - n, 0), 3)
            early = jnp.stack([cutoffs[jnp.minimum(i, n - 1)], first])
            late = jnp.stack([near(errors)[column], exponents[row]])
            return Visit(jnp.where(i < n, early, late), i == n)

        errors = explore(build, PCG(), parts, propose, n + 3 * len(exponents), 8, linear=True)
        table = errors[n:].reshape(-1, 3)
        row = jnp.argmin(jnp.min(table, axis=1))
        chosen, _ = parabola(jnp.log(near(errors)), table[row])
        exponent = exponents[row]
        return curvature / chosen**exponent, exponent

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        assert self.weight is not None and self.exponent is not None

        def run(weights: Array | None, start: Array | None) -> Array:
            problem = self.problem(LeastSquares(A, y, weights), self.weight, self.exponent)
            return solve(problem, PCG(), gap=self.gap, max_steps=self.max_steps, start=start).value

        x = run(None, None)
        if noise is not None and isinstance(A, PixelSampling):
            x = run(noise_weights(x, noise, A.mask), x)
        return x
