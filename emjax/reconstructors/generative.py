"""Recovery with a generative prior (CSGM): the image that a decoder can make and that explains the measurements.

    z = argmin  1/2 |A G(z) - y|^2 + weight / 2 |z|^2,        x = G(z)

by Adam from several starts, all of them and all items of a batch in one compiled loop; of an item's restarts the one
with the smallest measurement error |A G(z) - y| wins. With few measurements the prior stands for what is missing; with
many, the error stays at the decoder's floor, `Generative(network, weight=0)(x, Identity(x.shape))` of the truth x, and
a sparse recovery goes below it.

The weight is the variance of a measurement given z: that of the noise, and sigma^2 times the mean squared norm of A's
rows for what the decoder leaves out, with the sigma that it was trained with.

A network that knows the whole covariance D of what it leaves out (`VAE(spectrum=True)`) has no such floor. Then

    z = argmin  1/2 |A G(z) - y|^2_(V^-1) + 1/2 |z|^2,   V = A D A.H + noise,      x = G(z) + D A.H V^-1 (y - A G(z))

the image and its deviation together: with few measurements the decoder's, with many a linear estimate.

Sources: Bora, Jalal, Price, Dimakis 2017; with deviations (sparse ones): Dhar, Grover, Ermon 2018.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.acquisition.noise import Noise
from emjax.operators import LinearOperator
from emjax.operators.base import as_float
from emjax.reconstructors.base import Reconstructor

if TYPE_CHECKING:
    from emjax.networks import VAE

_PROBES = 16
_FINAL = 0.01  # the last step size over the first
_ROUNDING = 1e-6  # of the mean variance of a measurement


@pytree_dataclass
class Generative(Reconstructor):
    """`Generative(network)` for images of the size that the network makes; see the module.

    network: with `decode(z)`, the dimension `latent`, the noise level `sigma`, and `supports(A)`; a `VAE`. weight: of
    the prior, 0 for none, and then no deviation from the decoder's images; None: see the module. restarts: how many
    starts, of which the first is z = 0 and the others are drawn from the prior by the key; more of them keep the first
    ones. steps: of Adam, each start. learning_rate: of the first step, in units of the prior's standard deviation; it
    falls to a hundredth. starts: your own, `(*batch, restarts, latent)`; `fit` gives those that are used.
    Raises TypeError for a network that does not generate, ValueError for settings out of range, and for an operator
    whose images are not of the network's size.
    """

    network: "VAE | Any"
    weight: Any = leaf("_scalar", default=None)
    restarts: int = static(default=10)
    steps: int = static(default=500)
    learning_rate: Any = leaf("_scalar", default=0.1)
    starts: Any = leaf("_table", default=None)

    # Many small matrix products: on a CPU, too, all items at once.
    _vectorised: ClassVar[bool] = True

    @property
    def _table(self) -> int:
        """The axes of the starts of one item."""
        return 2

    def __post_init__(self) -> None:
        if isinstance(self.network, type) or not all(hasattr(self.network, n) for n in ("decode", "latent", "sigma")):
            raise TypeError(
                f"Generative takes a network that generates, such as a VAE, got a {type(self.network).__name__}"
            )
        for name in ("restarts", "steps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is a whole number above 0, got {value!r}")
        for name, low in (("weight", "0 or more"), ("learning_rate", "above 0")):
            value = getattr(self, name)
            if value is None:
                continue
            value = as_float(value)
            if not isinstance(value, jax.core.Tracer):
                numbers = np.asarray(value)
                if not bool(np.all(np.isfinite(numbers) & (numbers >= 0 if name == "weight" else numbers > 0))):
                    raise ValueError(f"the {name} of Generative is {low}, got {value}")
            assign(self, **{name: value})
        if self.starts is not None:
            starts = as_float(self.starts)
            if starts.ndim < 2 or starts.shape[-1] != self.network.latent:
                raise ValueError(f"starts have shape (restarts, {self.network.latent}), got {starts.shape}")
            assign(self, starts=starts, restarts=starts.shape[-2])

    def _fit(self, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Self:
        self._check(A)
        dtype = y.real.dtype
        starts = self.starts
        if starts is None:
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(self.restarts))
            starts = jax.vmap(lambda k: jax.random.normal(k, (self.network.latent,), dtype))(keys)
            starts = starts.at[0].set(0)
        weight = self.weight
        if weight is None and not self._deviates:
            power, seen = row_power(A, dtype)
            weight = self.network.sigma**2 * power
            if noise is not None:
                variance = jnp.broadcast_to(noise.variance(jnp.abs(y)), y.shape)
                weight += jnp.sum(variance * seen) / jnp.maximum(jnp.sum(seen), 1)
        return dataclasses.replace(self, starts=starts, weight=None if weight is None else jnp.asarray(weight, dtype))

    @property
    def _deviates(self) -> bool:
        return self.weight is None and getattr(self.network, "spectrum", False)

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        if not self._deviates:
            x, errors, _ = self._descend(y, A.forward, self.weight)
            return x[jnp.argmin(jnp.where(jnp.isfinite(errors), errors, jnp.inf))]
        rows, seen, gain = whitened(A, y, noise, self.network.deviation().astype(y.real.dtype))
        x, errors, _ = self._descend(seen, lambda x: _product(rows, x.reshape(-1)), 1.0)
        best = x[jnp.argmin(jnp.where(jnp.isfinite(errors), errors, jnp.inf))]
        return best + _product(gain, seen - _product(rows, best.reshape(-1))).reshape(best.shape)

    def _check(self, A: LinearOperator) -> None:
        if reason := self.network.supports(A):
            raise ValueError(reason)

    def _descend(
        self, y: Array, forward: Callable[[Array], Array], weight: Array | float
    ) -> tuple[Array, Array, Array]:
        """Images, squared measurement errors and latents of every restart of one item."""
        import optax

        assert self.starts is not None
        adam = optax.scale_by_adam()

        def error(z: Array) -> tuple[Array, Array]:
            x = self.network.decode(z).astype(y.real.dtype)
            return jnp.sum(jnp.abs(forward(x) - y) ** 2), x

        def objective(z: Array) -> Array:
            return error(z)[0] / 2 + weight / 2 * jnp.sum(z**2)

        def one(z: Array) -> tuple[Array, Array, Array]:
            def step(i: Array, state: tuple[Array, Any]) -> tuple[Array, Any]:
                z, moments = state
                update, moments = adam.update(jax.grad(objective)(z), moments)
                rate = _FINAL + (1 - _FINAL) * (1 + jnp.cos(jnp.pi * i / self.steps)) / 2
                return (z - self.learning_rate * rate * update).astype(z.dtype), moments

            z, _ = lax.fori_loop(0, self.steps, step, (z, adam.init(z)))
            found, x = error(z)
            return x, found, z

        return jax.vmap(one)(self.starts.astype(y.real.dtype))


def whitened(A: LinearOperator, y: Array, noise: Noise | None, covariance: Array) -> tuple[Array, Array, Array]:
    """`L^-1 A` as a matrix `(k, n)`, `L^-1 y` `(k,)` and the gain `D A.H L^-H` `(n, k)`; `L L.H = A D A.H + noise`.

    `D` is the covariance `(n, n)` of an image's deviation; a complex measurement counts as two real ones. Of a
    measurement that the deviation does not reach, its rounding is taken for the noise.
    """
    n = len(covariance)
    units = jnp.eye(n, dtype=covariance.dtype).reshape(n, *A.in_shape)
    rows = jax.vmap(A.forward)(units).reshape(n, -1).T
    flat = y.reshape(-1)
    variance = jnp.zeros(flat.shape, covariance.dtype)
    if noise is not None:
        variance = jnp.broadcast_to(noise.variance(jnp.abs(y)), y.shape).reshape(-1).astype(variance.dtype)
    if jnp.iscomplexobj(rows) or jnp.iscomplexobj(flat):
        rows, flat = (jnp.concatenate([jnp.real(v), jnp.imag(v)]) for v in (rows, flat))
        variance = jnp.concatenate([variance, variance]) / 2
    reach = _product(rows, covariance)
    gram = _product(reach, rows.T)
    power = jnp.diagonal(gram)
    floor = _ROUNDING * jnp.maximum(jnp.mean(power), jnp.finfo(power.dtype).tiny)
    root = jnp.linalg.cholesky(gram + jnp.diag(variance + floor + jnp.where(power > 0, 0, 1)))
    # The measurements by themselves: what depends on the operator alone is the same for all items of a batch.
    solve = functools.partial(jax.scipy.linalg.solve_triangular, root, lower=True)
    white = solve(jnp.concatenate([rows, reach], 1))
    return white[:, :n], solve(flat), white[:, n:].T


def _product(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision="highest")


def row_power(A: LinearOperator, dtype: Any) -> tuple[Array, Array]:
    """The mean squared norm of the rows of `A` that measure anything, from random signs, and which those are."""
    signs = jax.random.rademacher(jax.random.key(0), (_PROBES, *A.in_shape), dtype)
    power = jnp.mean(jnp.abs(jax.vmap(A.forward)(signs)) ** 2, 0)
    seen = (power > 0).astype(dtype)
    return jnp.sum(power) / jnp.maximum(jnp.sum(seen), 1), seen
