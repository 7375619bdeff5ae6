"""The noise of a scan: Poisson counting of electrons plus Gaussian read-out.

y = Poisson(dose x) / dose + read_sigma n,    var(y | x) = gain x + read_sigma^2,    gain = 1 / dose
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from emjax._pytree import assign, leaf, pytree_dataclass
from emjax.operators import LinearOperator
from emjax.operators.base import as_float


@pytree_dataclass
class Noise:
    """`gain` (grey value of one electron, 1 / dose) and `read_sigma` (standard deviation of the read-out).

    The dose is the expected number of electrons a pixel at grey value 1.
    """

    gain: Any = leaf("_scalar", default=0.0)
    read_sigma: Any = leaf("_scalar", default=0.0)

    def __post_init__(self) -> None:
        assign(self, gain=as_float(self.gain), read_sigma=as_float(self.read_sigma))

    @property
    def _scalar(self) -> int:
        return 0

    @staticmethod
    def from_dose(dose: Any, read_sigma: Any = 0.0) -> "Noise":
        """The noise of `dose` expected electrons a pixel at grey value 1; infinite for no counting noise."""
        return Noise(1 / jnp.asarray(dose, float), read_sigma)

    def variance(self, mean: Array) -> Array:
        """`gain mean + read_sigma^2`, never below zero."""
        return jnp.maximum(self.gain * mean, 0) + self.read_sigma**2


def measure(key: Array, x: Array, A: LinearOperator, noise: Noise | None = None) -> Array:
    """The noisy measurements of images `x`, shape `(*batch, *in_shape)`; zero where nothing is measured.

    The counting noise is that of the signal before soft weights: a weight scales the recorded value. Pure in `key`.
    """
    y = A(x)
    if noise is None:
        return y
    counting, reading = jax.random.split(key)
    gain = jnp.broadcast_to(noise.gain, y.shape).astype(y.dtype)
    rate = jnp.maximum(y, 0) / jnp.where(gain > 0, gain, 1)
    counted = jax.random.poisson(counting, rate, dtype=jnp.int32).astype(y.dtype) * gain
    y = jnp.where(gain > 0, counted, y) + noise.read_sigma * jax.random.normal(reading, y.shape, y.dtype)
    return A.measured(y)


def estimate_noise(y: Array, mask: Array, *, lags: int = 6) -> Noise:
    """The read-out noise of one sparse or full scan `(h, w)` from its variogram; counting noise is counted into it.

    Half the mean squared difference of measured pixels at distance h grows like `sigma^2 + c h^a`: the value
    extrapolated to distance zero is the noise ("nugget", Cressie 1993). Fitted by least squares over a grid of `a`,
    weighted by the number of pairs. Works from a few thousand samples; needs pairs closer than `lags` pixels.
    Pure; NaN is returned where there are no two measured pixels that close.
    """
    m = (mask != 0).astype(y.dtype)
    centre = jnp.sum(m * y) / jnp.maximum(jnp.sum(m), 1)
    v = jnp.where(m > 0, y - centre, 0)
    distances, values, pairs = [], [], []
    for dy in range(lags + 1):
        for dx in range(-lags, lags + 1):
            if (dy, dx) <= (0, 0) or dy * dy + dx * dx > lags * lags or dy >= y.shape[0] or abs(dx) >= y.shape[1]:
                continue
            both = _shifted(m, dy, dx)
            a, b = _shifted(v, dy, dx)
            weight = both[0] * both[1]
            distances.append((dy * dy + dx * dx) ** 0.5)
            pairs.append(jnp.sum(weight))
            values.append(0.5 * jnp.sum(weight * (a - b) ** 2))
    if not distances:
        return Noise(0.0, jnp.full((), jnp.nan, y.dtype))
    h, n = jnp.asarray(distances, y.dtype), jnp.stack(pairs)
    gamma = jnp.stack(values) / jnp.maximum(n, 1)
    # Squared differences vary with the square of their mean: weigh by pairs, and near distances more.
    w = n / (h * h)
    exponents = jnp.linspace(0.4, 2.0, 17).astype(y.dtype)

    def fit(a: Array) -> tuple[Array, Array]:
        g = h**a
        sw, sg, sgg = jnp.sum(w), jnp.sum(w * g), jnp.sum(w * g * g)
        sy, sgy = jnp.sum(w * gamma), jnp.sum(w * g * gamma)
        det = sw * sgg - sg * sg
        nugget = (sgg * sy - sg * sgy) / jnp.where(det > 0, det, 1)
        nugget = jnp.maximum(nugget, 0)
        slope = jnp.maximum((sgy - nugget * sg) / jnp.where(sgg > 0, sgg, 1), 0)
        return nugget, jnp.sum(w * (gamma - nugget - slope * g) ** 2)

    nuggets, errors = jax.vmap(fit)(exponents)
    variance = jnp.where(jnp.sum(n) > 0, nuggets[jnp.argmin(errors)], jnp.nan)
    return Noise(0.0, jnp.sqrt(variance))


def _shifted(v: Array, dy: int, dx: int) -> tuple[Array, Array]:
    """Two views whose entries lie `(dy, dx)` apart, `dy >= 0`."""
    h, w = v.shape
    if dx >= 0:
        return v[dy:, dx:], v[: h - dy, : w - dx]
    return v[dy:, : w + dx], v[: h - dy, -dx:]
