"""Variance stabilisation: counts with read-out noise become values of unit variance, whatever the dose.

For `y = gain Poisson(x / gain) + read_sigma n` and s = read_sigma / gain, in electrons z = y / gain,

    f(z) = 2 sqrt(max(z + 3/8 + s^2, 0)) - 2 s

is the generalised Anscombe transform (Anscombe 1948; Starck, Murtagh, Bijaoui 1998), shifted so that it becomes
`y / read_sigma` for gain -> 0. Its algebraic inverse of a mean is biased, by far for a few electrons; the exact
unbiased one maps `E[f(z) | x]` to x (Mäkitalo and Foi 2011, 2013). Here that mean is integrated for the noise at hand:

    E[f(z) | x] = sum_k Poisson(k; x / gain) E_n[f(k + s n)],    tabulated over x,

and beyond `LARGEST` electrons the asymptotic inverse takes over. Within 2e-4 electrons everywhere.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax.acquisition.noise import Noise
from emjax.operators.base import as_float

# The table: means up to this many electrons, evenly in their square root, where the mean of f is nearly a line; and as
# many counts as these means make likely.
LARGEST, POINTS, COUNTS = 150.0, 640, 280
_NODES = np.linspace(-8.0, 8.0, 129)
_DENSITY = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()


@jax.jit
def stabilise(y: Array, noise: Noise) -> Array:
    """`f` of measured values `y`, `(*batch, ...)`: Gaussian of variance close to 1 from some three electrons up.

    Levels with batch axes go with the leading axes of `y`. A noise of zero has nothing to be stabilised: NaN.
    """
    y = as_float(y)
    gain, sigma = _levels(noise, y)
    counting = gain > 0
    g = jnp.where(counting, gain, 1)
    # (2 / g) (sqrt(r) - sigma) without its cancellation; where r < 0 it stays at -2 sigma / g.
    y = jnp.where(counting, jnp.maximum(y, -(0.375 * g + sigma**2 / g)), y)
    r = jnp.maximum(gain * y + 0.375 * gain**2 + sigma**2, 0)
    bottom = jnp.sqrt(r) + sigma  # zero for counts below zero where nothing is read out
    return 2 * (y + 0.375 * gain) / jnp.where(bottom == 0, 1, bottom)


def asymptotic_inverse(d: Array, noise: Noise) -> Array:
    """`D^2 / 4 - 1/8 - s^2` with `D = d + 2 s`, times the gain: unbiased for many electrons only; `d` as above."""
    d = as_float(d)
    gain, sigma = _levels(noise, d)
    return jnp.where(gain > 0, gain * (0.25 * d * d - 0.125) + sigma * d, sigma * d)


@jax.jit
def unbiased_inverse(d: Array, noise: Noise) -> Array:
    """The grey value x with `E[f(y) | x] = d`, 0 where `d` is below all means; `(*batch, ...)` as for `stabilise`."""
    d = as_float(d)
    levels = jnp.broadcast_arrays(jnp.asarray(noise.gain, d.dtype), jnp.asarray(noise.read_sigma, d.dtype))
    fn = jnp.vectorize(_inverse, signature="(n),(),()->(n)")
    batch = jnp.broadcast_shapes(levels[0].shape, d.shape[: levels[0].ndim])
    d = jnp.broadcast_to(d, (*batch, *d.shape[levels[0].ndim :]))
    return fn(d.reshape(*batch, -1), *levels).reshape(d.shape)


def _inverse(d: Array, gain: Array, sigma: Array) -> Array:
    counting = gain > 0
    g = jnp.where(counting, gain, 1)
    s = sigma / g
    means, tabulated = _mean_table(s)
    root = jnp.interp(d, tabulated, jnp.asarray(means**0.5, d.dtype))
    many = 0.25 * d * d + d * s - 0.125  # D^2 / 4 - s^2 = d^2 / 4 + d s, without its cancellation
    few = jnp.where(d < tabulated[0], 0, root**2)
    x = jnp.where(counting, g * jnp.where(d > tabulated[-1], many, few), sigma * d)
    sound = (gain >= 0) & (sigma >= 0) & (gain + sigma > 0) & (gain + sigma < jnp.inf)
    return jnp.where(sound & ~jnp.isnan(d), x, jnp.nan)


@functools.cache
def _poisson() -> tuple[np.ndarray, np.ndarray]:
    """The tabulated means, and the probability of each count for each of them."""
    means = np.linspace(0, LARGEST**0.5, POINTS) ** 2
    k = np.arange(COUNTS)
    logarithms = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, COUNTS)))])
    with np.errstate(divide="ignore", invalid="ignore"):
        table = np.exp(np.where(k > 0, k * np.log(means[:, None]), 0) - means[:, None] - logarithms)
    return means, table


def _mean_table(s: Array) -> tuple[np.ndarray, Array]:
    """The means in electrons, and `E[f(z)]` for each, with read-out noise of `s` electrons."""
    means, table = _poisson()
    return means, jnp.matmul(jnp.asarray(table, s.dtype), _mean_of_counts(s), precision="highest")


def _mean_of_counts(s: Array) -> Array:
    """`E_n[f(k + s n)]` for k = 0, 1, ...: sums over the Gaussian n.

    Where zero is within reach of n, the root has its kink there, and sums converge slowly; with `q = sqrt(a + n)` and
    `a = (k + 3/8 + s^2) / s` for a variable the integrand `2 q^2 exp(-(q^2 - a)^2 / 2)` is even and smooth.
    """
    k = jnp.arange(COUNTS, dtype=s.dtype)[:, None]
    n, density = jnp.asarray(_NODES, s.dtype), jnp.asarray(_DENSITY, s.dtype)
    top = k + 0.375 + s * n
    r = jnp.maximum(top + s * s, 0)
    bottom = jnp.sqrt(r) + s
    far = jnp.sum(density * 2 * top / jnp.where(bottom > 0, bottom, 1), axis=1)
    a = (k + 0.375 + s * s) / jnp.where(s > 0, s, 1)
    a = jnp.where((s > 0) & (a < 12), a, 12)
    q = jnp.linspace(0, 1, 129, dtype=s.dtype) * jnp.sqrt(a + 8)
    integrand = 2 * q * q * jnp.exp(-0.5 * (q * q - a) ** 2) / (2 * np.pi) ** 0.5
    near = 2 * jnp.sqrt(s) * jnp.sum(integrand, axis=1) * q[:, 1] - 2 * s
    return jnp.where(a[:, 0] < 12, near, far)


def _levels(noise: Noise, like: Array) -> tuple[Array, Array]:
    gain, sigma = (
        jnp.asarray(v, like.dtype).reshape(*v.shape, *[1] * max(0, like.ndim - v.ndim))
        for v in (noise.gain, noise.read_sigma)
    )
    sound = (gain >= 0) & (sigma >= 0) & (gain + sigma > 0) & (gain + sigma < jnp.inf)
    return jnp.where(sound, gain, jnp.nan), jnp.where(sound, sigma, jnp.nan)
