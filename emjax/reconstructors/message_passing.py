"""Approximate message passing with any denoiser: AMP for random matrices, VAMP for rotationally invariant ones.

A denoiser is a callable `eta(v, sigma) -> x` for one item `v = x + sigma n` of the operator's `in_shape`: a class
below, a TV denoiser, non-local means, a network. Its divergence is its own (`eta.divergence(v, sigma)`, the mean
derivative) where it has one, else it is measured with one random probe (Ramani, Blu, Unser 2008), as D-AMP does.
"""

import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.acquisition.noise import Noise
from emjax.functionals.base import weights
from emjax.functionals.denoisers import as_denoiser
from emjax.operators import Dense, LinearOperator
from emjax.operators.base import as_float, complex_items
from emjax.reconstructors.base import Reconstructor
from emjax.reconstructors.greedy import column_norm, column_norms, known, square
from emjax.solvers.gradients import count


@pytree_dataclass
class SoftThreshold:
    """`sign(v) max(|v| - alpha sigma, 0)`: the denoiser of the l1 norm. alpha: the threshold in standard deviations.

    `SoftThreshold.minimax(delta)` gives the alpha with which AMP succeeds up to the Donoho-Tanner curve.
    """

    scale_free: ClassVar[bool] = True  # each entry may be in a unit of its own

    alpha: Any = 1.5

    def __post_init__(self) -> None:
        assign(self, alpha=weights("alpha", self.alpha))

    @classmethod
    def minimax(cls, delta: Any) -> Self:
        """For the under-sampling ratio `delta = m / n` (Donoho, Maleki, Montanari 2009); an array of them, to 1e-4."""
        return cls(_threshold(delta) if isinstance(delta, jax.Array) else donoho_tanner(delta)[1])

    def __call__(self, v: Array, sigma: Array) -> Array:
        size = jnp.abs(v)
        return v * (jnp.maximum(size - self.alpha * sigma, 0) / jnp.where(size > 0, size, 1))

    def divergence(self, v: Array, sigma: Array) -> Array:
        size, threshold = jnp.abs(v), self.alpha * sigma
        kept = size > threshold
        # Of complex numbers along both axes: across the phase the threshold shrinks, too.
        slope = 1 - 0.5 * threshold / jnp.where(kept, size, 1) if jnp.iscomplexobj(v) else jnp.ones_like(size)
        return jnp.mean(jnp.where(kept, slope, 0))


@pytree_dataclass
class BernoulliGauss:
    """The mean of `x` given `v` when a share `rho` of the entries is `N(0, variance)` and the rest zero.

    For complex entries the normal distribution is the circular one, `variance` that of both parts together.
    """

    rho: Any = 0.1
    variance: Any = 1.0

    def __post_init__(self) -> None:
        rho, variance = as_float(self.rho), as_float(self.variance)
        for name, value, highest in (("rho", rho, 1.0), ("variance", variance, math.inf)):
            known = not isinstance(value, jax.core.Tracer)
            if known and not bool(np.all((np.asarray(value) >= 0) & (np.asarray(value) <= highest))):
                raise ValueError(f"{name} of BernoulliGauss lies between 0 and {highest:g}, got {value}")
        assign(self, rho=rho, variance=variance)

    def _factor(self, square: Array, sigma: Array, half: float) -> Array:
        """The answer over `v`, a function of `|v|^2`."""
        s2 = sigma**2
        gain = self.variance / (self.variance + s2)
        # log of the odds that the entry is not zero
        odds = jnp.log(self.rho / (1 - self.rho)) + half * (jnp.log(s2 / (self.variance + s2)) + square * gain / s2)
        return gain * jax.nn.sigmoid(odds)

    def __call__(self, v: Array, sigma: Array) -> Array:
        half = 1.0 if jnp.iscomplexobj(v) else 0.5
        return v * self._factor(jnp.abs(v) ** 2, sigma, half)

    def divergence(self, v: Array, sigma: Array) -> Array:
        half, square = 1.0 if jnp.iscomplexobj(v) else 0.5, jnp.abs(v) ** 2
        factor, slope = jax.jvp(lambda w: self._factor(w, sigma, half), (square,), (jnp.ones_like(square),))
        return jnp.mean(factor + square / half * slope)


def donoho_tanner(delta: float) -> tuple[float, float]:
    """The sparsity `rho = k / m` up to which l1 recovers almost surely at `delta = m / n`, and the minimax threshold.

    The maximum over z of `(1 - 2 t / delta) / (1 + z^2 - 2 t)` with `t = (1 + z^2) Phi(-z) - z phi(z)`.
    Source: Donoho, Maleki, Montanari 2009, equation 5.
    """
    if not 0 < delta <= 1:
        raise ValueError(f"the under-sampling ratio lies in (0, 1], got {delta}")

    from scipy.optimize import minimize_scalar  # a fifth of a second that only this needs

    def rho(z: float) -> float:
        below, density = 0.5 * math.erfc(z / math.sqrt(2)), math.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        tail = (1 + z * z) * below - z * density
        return (1 - 2 * tail / delta) / (1 + z * z - 2 * tail)

    found = minimize_scalar(lambda z: -rho(z), bounds=(0, 10), method="bounded", options={"xatol": 1e-10})
    return float(rho(found.x)), float(found.x)


def _threshold(delta: Array) -> Array:
    """The minimax threshold of `donoho_tanner`, where the ratio is known only when it runs.

    At the maximum `delta = 2 phi(z) / (z + 2 (phi(z) - z Phi(-z)))`, which falls as z grows.
    """
    z = np.linspace(6, 0, 2049)
    density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
    below = np.array([0.5 * math.erfc(v / math.sqrt(2)) for v in z])
    deltas = 2 * density / (z + 2 * (density - z * below))
    return jnp.interp(delta, jnp.asarray(deltas, delta.dtype), jnp.asarray(z, delta.dtype))


def divergence(eta: "InUnits", v: Array, sigma: Array, x: Array, key: Array) -> Array:
    """The mean of `d eta_i / d v_i`: the denoiser's own, or from one random probe."""
    if hasattr(eta.eta, "divergence"):
        return eta.eta.divergence(eta.unit * v, eta.unit * sigma)
    real = jnp.real(v).dtype
    probe = jax.random.rademacher(key, v.shape, real)
    if jnp.iscomplexobj(v):
        imag = jax.random.rademacher(jax.random.fold_in(key, 1), v.shape, real)
        probe = lax.complex(probe, imag) / 2**0.5
    h = 1e-3 * jnp.max(jnp.abs(v)) + jnp.finfo(real).tiny
    return jnp.mean(jnp.real(jnp.conj(probe) * (eta(v + h * probe, sigma) - x))) / h


class Trace(NamedTuple):
    """What a run passed through: the noise level that each iteration saw, and its iterates where asked for."""

    sigma: Array
    x: Array | None


@pytree_dataclass
class AMP(Reconstructor):
    """`x <- eta(x + A.H z, sigma)`, `z <- y - A x + z <eta'> / delta`, `sigma = |z| / sqrt(m)`, `delta = m / n`

    with m the numbers that were measured (`A.count_measured()`: pixels off a mask are none). For matrices with
    independent entries, scaled here so that their columns have norm 1 (on average, where the denoiser looks at more
    than one entry or the columns are not at hand); others may diverge (then the guess with the smallest residual is
    returned: take `VAMP`). denoiser: see the module; with an image denoiser this is D-AMP (Metzler, Maleki, Baraniuk
    2016). None: `SoftThreshold.minimax(m / n)`. damping: 1 is none.
    Source: Donoho, Maleki, Montanari 2009.
    """

    _vectorised: ClassVar[bool] = True

    denoiser: Any = None
    iterations: int = static(default=30)
    damping: Any = leaf("_scalar", default=1.0)

    def __post_init__(self) -> None:
        assign(self, iterations=count("iterations", self.iterations, 1))
        assign(self, denoiser=as_denoiser(self.denoiser), damping=_check_damping(self.damping))

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        return self._run(y, A, False)[0]

    def trace(self, y: Array, A: LinearOperator) -> tuple[Array, Trace]:
        """The answer for one item, and the way to it: for state evolution. Map it over a batch with `jax.vmap`."""
        return self._run(A.measured(as_float(y)), A, True)

    def _run(self, y: Array, A: LinearOperator, keep: bool) -> tuple[Array, Trace]:
        real, n = not complex_items(A, y), math.prod(A.in_shape)
        # Known beforehand of a matrix, elsewhere only once the mask is.
        m: Any = y.size if isinstance(A, Dense) else jnp.maximum(A.count_measured(), 1).astype(jnp.real(y).dtype)
        if isinstance(A, Dense) and real and jnp.iscomplexobj(y):
            m = 2 * m
        ratio = min(1.0, m / n) if isinstance(A, Dense) else jnp.minimum(1.0, m / n)
        eta = SoftThreshold.minimax(ratio) if self.denoiser is None else self.denoiser
        each = getattr(eta, "scale_free", False) and isinstance(A, Dense)
        y, unit = scaled(y)
        eta = InUnits(eta, unit)
        norms = column_norms(A) if each else column_norm(A)  # type: ignore[arg-type]
        scale = 1 / jnp.where(norms > 0, norms, 1)

        def step(carry: tuple, key: Array) -> tuple[tuple, Any]:
            x, z, best, least, _ = carry
            back = scale * A.adjoint(z)
            v = x + (jnp.real(back) if real else back)
            sigma = jnp.sqrt(square(z) / m)
            new = eta(v, sigma)
            memory = divergence(eta, v, sigma, new, key) * (n / m)
            new = x + self.damping * (new - x)
            r = y - A.forward(scale * new)
            # Both are damped, the memory whole: the fixed point stays that without damping.
            z = z + self.damping * (r + memory * z - z)
            error = square(r)
            better = error < least
            moved = square(new - x)
            carry = new, z, jnp.where(better, new, best), jnp.where(better, error, least), moved
            return carry, (sigma, error, new if keep else None)

        x = jnp.zeros(A.in_shape, jnp.real(y).dtype if real else y.dtype)
        keys = jax.random.split(jax.random.key(0), self.iterations)
        begin = (x, y, x, square(y), jnp.zeros((), jnp.real(y).dtype))
        (x, _, best, least, moved), (sigma, errors, xs) = lax.scan(step, begin, keys)
        final = square(y - A.forward(scale * x))
        x = unit * scale * jnp.where(_settled(final, least, moved, x, self.damping), x, best)
        xs = unit * scale * xs if keep else None
        # Numbers that are none from the start are no divergence: a broken denoiser, or settings of a trace.
        sound = known(y, A) & jnp.isfinite(errors[0]) & _sound_damping(self.damping)
        return jnp.where(sound, x, jnp.nan), Trace(unit * sigma, xs)


@pytree_dataclass
class VAMP(Reconstructor):
    """Vector AMP: for matrices with any singular values and random right singular vectors.

    Alternates the denoiser with linear estimation, `(A.H A / s^2 + g I)^-1`, exact through one singular value
    decomposition (or in closed form for orthonormal rows; ValueError for other operators). noise_sigma: the standard
    deviation of the noise, where a call does not name it. Where the iteration diverges, as it may for other matrices,
    the guess with the smallest residual is returned.
    Source: Rangan, Schniter, Fletcher 2019, algorithm 3.
    """

    _vectorised: ClassVar[bool] = True

    denoiser: Any = None
    iterations: int = static(default=30)
    noise_sigma: Any = leaf("_scalar", default=1e-4)
    damping: Any = leaf("_scalar", default=1.0)

    def __post_init__(self) -> None:
        assign(
            self,
            iterations=count("iterations", self.iterations, 1),
            denoiser=as_denoiser(self.denoiser),
            noise_sigma=weights("noise_sigma", self.noise_sigma),
            damping=_check_damping(self.damping),
        )

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        n = math.prod(A.in_shape)
        eta = SoftThreshold.minimax(min(1.0, y.size / n)) if self.denoiser is None else self.denoiser
        dtype = jnp.real(y).dtype
        y, unit = scaled(y)
        eta = InUnits(eta, unit)
        real = not complex_items(A, y)
        if real and jnp.iscomplexobj(y):
            raise ValueError(f"VAMP does not take complex measurements of real items, which {A} gives; take AMP")
        sigma = jnp.asarray(self.noise_sigma if noise is None else noise.read_sigma, dtype) / unit
        s, rows, coefficients = spectrum(A, y)  # A.H A = rows.H s^2 rows
        tiny = jnp.finfo(dtype).eps ** 2 * jnp.max(s) ** 2
        precision = 1 / jnp.maximum(sigma**2, tiny)
        shape = A.in_shape

        def lmmse(r: Array, g: Array) -> tuple[Array, Array]:
            """The mean given `y` and `r = x + N(0, 1 / g)`, and the share of `r`'s error that is left."""
            c = rows(r)
            d = precision * s**2 + g
            x = r + rows(precision * s * (coefficients - s * c) / d, back=True)
            return x, (n - s.size + jnp.sum(g / d)) / n

        def step(carry: tuple, key: Array) -> tuple[tuple, Array]:
            r1, g1, before, best, least, _ = carry
            level = 1 / jnp.sqrt(g1)
            x1 = eta(r1, level)
            a1 = jnp.clip(divergence(eta, r1, level, x1, key), 1e-6, 1 - 1e-6)
            g2 = g1 * (1 - a1) / a1
            r2 = (x1 - a1 * r1) / (1 - a1)
            x2, a2 = lmmse(r2, g2)
            a2 = jnp.clip(a2, 1e-6, 1 - 1e-6)
            # What goes back to the denoiser is damped, the precision by its logarithm: no fixed point moves.
            new = jnp.clip(g2 * (1 - a2) / a2, 1e-12, 1 / tiny)
            g1 = g1 * (new / g1) ** self.damping
            r1 = r1 + self.damping * ((x2 - a2 * r2) / (1 - a2) - r1)
            error = square(y - A.forward(x1))
            better = error < least
            best, least = jnp.where(better, x1, best), jnp.where(better, error, least)
            return (r1, g1, x1, best, least, square(x1 - before)), error

        power = square(y) / jnp.maximum(jnp.sum(s**2), jnp.finfo(dtype).tiny)
        g = 1 / jnp.maximum(power, jnp.finfo(dtype).tiny)
        x = jnp.zeros(shape, dtype if real else y.dtype)
        r, _ = lmmse(x, g)
        keys = jax.random.split(jax.random.key(0), self.iterations)
        # The first r is the linear estimate, taken to be as wrong as x is large.
        begin = (r, g, x, x, square(y), jnp.zeros((), dtype))
        (_, _, x, best, least, moved), errors = lax.scan(step, begin, keys)
        x = jnp.where(_settled(errors[-1], least, moved, x, self.damping), x, best)
        x = jnp.where(jnp.any(y != 0) & (jnp.max(s) > 0), x, 0)  # nothing measured, or nothing measurable
        sound = (
            known(y, A) & (jnp.isfinite(errors[0]) | jnp.all(y == 0) | (jnp.max(s) == 0)) & _sound_damping(self.damping)
        )
        return jnp.where(sound & ~jnp.isnan(sigma), unit * x, jnp.nan)


def _settled(final: Array, least: Array, moved: Array, x: Array, damping: Array) -> Array:
    """Whether the last iterate is the answer: on the way there, residuals may be smaller than noise allows.

    Where the method diverges, the guess with the smallest residual is less wrong.
    """
    return (final <= 2 * least) | (moved < (0.05 * damping) ** 2 * square(x))


def scaled(y: Array) -> tuple[Array, Array]:
    """The measurements over the power of two below their largest, and that: squares stay in the range of float32."""
    largest = jnp.max(jnp.abs(lax.stop_gradient(y)))
    largest = jnp.where((largest > 0) & jnp.isfinite(largest), largest, 1)
    unit = jnp.ldexp(jnp.ones_like(largest), jnp.frexp(largest)[1] - 1)
    return y / unit, unit


class InUnits(NamedTuple):
    """A denoiser for items in multiples of `unit`."""

    eta: Any
    unit: Array

    def __call__(self, v: Array, sigma: Array) -> Array:
        x = self.eta(self.unit * v, self.unit * sigma)
        if jnp.shape(x) != v.shape:
            raise ValueError(f"the denoiser {self.eta} returned shape {jnp.shape(x)} for an item of shape {v.shape}")
        return x / self.unit


def spectrum(A: LinearOperator, y: Array) -> tuple[Array, Callable[..., Array], Array]:
    """The singular values `s` (r,), the map to and from the right singular vectors, and `U.H y`."""
    shape = A.in_shape
    if (c := A.row_scale()) is not None:
        root = jnp.sqrt(jnp.asarray(c, jnp.real(y).dtype))

        def apply(v: Array, back: bool = False) -> Array:
            return A.adjoint(v.reshape(A.out_shape)) / root if back else (A.forward(v) / root).ravel()

        return jnp.full(y.size, root), apply, y.ravel()
    if not isinstance(A, Dense):
        raise ValueError(
            f"VAMP takes a Dense matrix, or an operator with orthogonal rows of equal norm; {A} is not known to be one"
        )
    u, s, vh = jnp.linalg.svd(A.matrix, full_matrices=False)

    def rotate(v: Array, back: bool = False) -> Array:
        return (jnp.conj(vh.T) @ v).reshape(shape) if back else vh @ v.ravel()

    return s, rotate, jnp.conj(u.T) @ y


def _check_damping(damping: Any) -> Array:
    """From above 0 to 1, which is none; ValueError for others. Inside of a trace they give NaN."""
    damping = as_float(damping)
    if not isinstance(damping, jax.core.Tracer) and not bool(np.all(_sound_damping(np.asarray(damping)))):
        raise ValueError(f"damping lies above 0 and is 1 at most, got {damping}")
    return damping


def _sound_damping(damping: Any) -> Any:
    return (damping > 0) & (damping <= 1)
