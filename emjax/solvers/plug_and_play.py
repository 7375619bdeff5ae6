"""Plug-and-play: a denoiser `eta(v, sigma)` in the place of a prior's proximal map.

    PnPPGD    z' = eta(z - t grad f(z), sigma),                                      t = step_size / L
    PnPADMM   x' = prox_{t f}(z - u),  z' = eta(x' + u, sigma),  u' = u + x' - z'
    HQS       x' = prox_{t_k f}(z),    z' = eta(x', sigma_k),    sigma_k falling from `first` to `sigma`

with the data term f, its Lipschitz constant L, and `t = sigma^2 / weight` throughout: for least squares, `weight` is
the noise variance of the measurements (1 where they are weighted by its inverse). Where the denoiser is a proximal map,
`eta(., sigma) = prox_g`, the first two minimise `f + g / t`. Other denoisers minimise nothing known: there is no
certificate, and a run ends where its iterate has come to rest, which denoisers that expand distances need not do.
Sources: Venkatakrishnan, Bouman, Wohlberg 2013 (ADMM); Kamilov, Mansour, Wohlberg 2017 (proximal gradients); Zhang
et al. 2021 (half-quadratic splitting with a falling noise level).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, pytree_dataclass, static
from emjax.functionals import Fidelity, LeastSquares
from emjax.functionals.base import weights
from emjax.functionals.denoisers import as_denoiser
from emjax.solvers.admm import conjugate_gradients
from emjax.solvers.certificate import Certificate, norm
from emjax.solvers.problem import Problem


class Plan(NamedTuple):
    problem: Problem
    lipschitz: Array  # of the gradient of f; 1 for a zero operator


class State(NamedTuple):
    z: Array  # what the denoiser returned
    x: Array  # what the data returned
    u: Array  # the scaled dual of ADMM
    taken: Array  # steps
    residual: Array  # how far the last step moved, over the norm of the iterate


class PlugAndPlay:
    """What these solvers share; subclasses give `step`."""

    denoiser: Any
    weight: Any

    def _check(self, **positive: Any) -> None:
        """Validate the settings (in `__post_init__`)."""
        if self.denoiser is None:
            raise TypeError(f"{type(self).__name__} takes a denoiser eta(v, sigma), such as NonLocalMeans(); got None")
        assign(self, denoiser=as_denoiser(self.denoiser))
        for name, value in {"weight": self.weight, **positive}.items():
            number = weights(f"{name} of {type(self).__name__}", value)
            if number.ndim:
                raise ValueError(f"{name} is one number for all items, got shape {number.shape}; map over it: jax.vmap")
            if not isinstance(number, jax.core.Tracer):
                known = float(np.asarray(number))
                if not np.isfinite(known) or (name != "weight" and known == 0):
                    raise ValueError(f"{name} is a finite number above 0, got {known:g}")
            assign(self, **{name: number})

    def supports(self, problem: Problem) -> str | None:
        name = type(self).__name__
        if problem.terms:
            return f"{name} has its denoiser for a prior and takes no other term; use ADMM or PDHG for sums of terms"
        if isinstance(problem.data, Fidelity) and not problem.data.separable:
            return f"{name} takes least squares, or counts and outliers of single pixels; stabilise the counts instead"
        return None

    def prepare(self, problem: Problem) -> Plan:
        lipschitz = problem.data.lipschitz()
        return Plan(problem, jnp.where(lipschitz > 0, lipschitz, 1).astype(jnp.real(problem.data.y).dtype))

    def init(self, plan: Plan, x0: Array | None) -> State:
        data = plan.problem.data
        if x0 is None:
            x0 = data.backprojection() / plan.lipschitz
            diagonal = data.gram_diagonal() if isinstance(data, LeastSquares) else data.A.gram_diagonal()
            if diagonal is not None:  # the mean of what was measured
                total = jnp.sum(jnp.broadcast_to(diagonal, x0.shape))
                mean = jnp.sum(data.backprojection()) / jnp.where(total > 0, total, 1)
                x0 = jnp.broadcast_to(mean, x0.shape)
        x0 = self._clipped(plan, x0)
        inf = jnp.full((), jnp.inf, jnp.real(x0).dtype)
        return State(x0, x0, jnp.zeros_like(x0), jnp.zeros((), jnp.int32), inf)

    def resume(self, plan: Plan, state: State) -> State:
        """The iterates go on; how far they are from rest is to be seen anew."""
        return state._replace(residual=jnp.full_like(state.residual, jnp.inf))

    def _clipped(self, plan: Plan, x: Array) -> Array:
        box = plan.problem.box
        return x if box is None else box.prox(x)

    def _denoised(self, plan: Plan, v: Array, sigma: Array) -> Array:
        x = self.denoiser(v, sigma.astype(jnp.real(v).dtype))
        if x.shape != v.shape:
            raise ValueError(f"the denoiser {self.denoiser} returned shape {x.shape} for an item of shape {v.shape}")
        return self._clipped(plan, x.astype(v.dtype))

    def _length(self, plan: Plan, sigma: Any, weight: Any) -> Array:
        """`t = sigma^2 / weight`, as long as rounding lets the data be met; NaN, a status, for a level that is none."""
        dtype = plan.lipschitz.dtype
        sigma, weight = jnp.asarray(sigma, dtype), jnp.asarray(weight, dtype)
        longest = 1 / (float(jnp.finfo(dtype).eps) * plan.lipschitz)
        t = jnp.minimum(sigma**2, jnp.finfo(dtype).max) / jnp.maximum(weight, jnp.finfo(dtype).tiny)
        sound = (sigma > 0) & (weight >= 0) & (weight < jnp.inf)
        return jnp.where(sound, jnp.minimum(t, longest), jnp.nan)

    def certificate(self, plan: Plan, state: State) -> tuple[Certificate, Array, State]:
        x = self.value(plan, state)
        objective = plan.problem.data(x)
        inf = jnp.full_like(objective, jnp.inf)
        return Certificate(objective, inf, jnp.zeros_like(objective), state.residual), x, state

    def value(self, plan: Plan, state: State) -> Array:
        return state.z


def data_step(plan: Plan, v: Array, t: Array, near: Array, inner_steps: int) -> Array:
    """`prox_{t f}(v)`; without a closed form, a few conjugate gradient steps from `near`."""
    data = plan.problem.data
    if isinstance(data, Fidelity) or data.has_prox:
        return data.prox(v, t)
    # Started at the last answer, the steps have the exact fixed point, however few they are.
    rho = 1 / t
    rhs = rho * (v - near) - data.gradient(near).astype(v.dtype)

    def apply(d: Array) -> Array:
        return rho * d + data.A.adjoint(data.weighted(data.A.forward(d))).astype(d.dtype)

    return near + conjugate_gradients(apply, lambda r: r, rhs, inner_steps)


def moved(new: Array, *others: Array) -> Array:
    """The largest distance of the others from `new`, over its norm."""
    size = norm(new)
    return jnp.max(jnp.stack([norm(new - v) for v in others])) / jnp.where(size > 0, size, 1)


@pytree_dataclass
class PnPPGD(PlugAndPlay):
    """Plug-and-play proximal gradients; see the module. Settings: `denoiser`, `weight`, `step_size` in
    units of 1 / L (below 2)."""

    denoiser: Any
    weight: Any = 1.0
    step_size: Any = 1.0
    check_every: int = static(default=5)

    def __post_init__(self) -> None:
        self._check(step_size=self.step_size)

    def supports(self, problem: Problem) -> str | None:
        if not isinstance(problem.data, LeastSquares):
            return "PnPPGD takes least squares, whose gradient is Lipschitz; use PnPADMM for other data terms"
        return PlugAndPlay.supports(self, problem)

    def step(self, plan: Plan, state: State, last: Any = False) -> State:
        t = self.step_size / plan.lipschitz
        v = state.z - t * plan.problem.least_squares.gradient(state.z)
        z = self._denoised(plan, v, jnp.sqrt(t * self.weight))
        return State(z, v, state.u, state.taken + 1, moved(z, state.z))


@pytree_dataclass
class PnPADMM(PlugAndPlay):
    """Plug-and-play ADMM; see the module. Settings: `denoiser`, `weight`, `sigma` (the level the denoiser is told),
    `inner_steps` of conjugate gradients where the data term has no closed prox."""

    denoiser: Any
    weight: Any = 1.0
    sigma: Any = 0.1
    inner_steps: int = static(default=5)
    check_every: int = static(default=5)

    def __post_init__(self) -> None:
        self._check(sigma=self.sigma)

    def step(self, plan: Plan, state: State, last: Any = False) -> State:
        x = data_step(plan, state.z - state.u, self._length(plan, self.sigma, self.weight), state.x, self.inner_steps)
        z = self._denoised(plan, x + state.u, jnp.asarray(self.sigma))
        return State(z, x, state.u + x - z, state.taken + 1, moved(z, state.z, x))


@pytree_dataclass
class HQS(PlugAndPlay):
    """Half-quadratic splitting with a falling noise level; see the module.

    Settings: `denoiser`, `weight`, `sigma` (the last level), `first` (None: `sigma`), `iterations` from one to the
    other, geometrically. Further steps stay at `sigma`, and only they can come to rest: `max_steps=iterations` ends
    the run at the end of the schedule, as is usual, at the step limit.
    """

    denoiser: Any
    weight: Any = 1.0
    sigma: Any = 0.1
    first: Any = None
    iterations: int = static(default=8)
    inner_steps: int = static(default=5)
    check_every: int = static(default=4)

    def __post_init__(self) -> None:
        if isinstance(self.iterations, bool) or not isinstance(self.iterations, int) or self.iterations < 1:
            raise ValueError(f"iterations is a whole number of 1 or more, got {self.iterations!r}")
        first = self.sigma if self.first is None else self.first
        self._check(sigma=self.sigma, first=first)

    def level(self, count: Array) -> Array:
        """`sigma_k` of step k, counted from 0."""
        share = jnp.clip(count / max(1, self.iterations - 1), 0, 1)
        return self.first * (self.sigma / self.first) ** share if self.iterations > 1 else jnp.asarray(self.sigma)

    def step(self, plan: Plan, state: State, last: Any = False) -> State:
        sigma = self.level(state.taken)
        x = data_step(plan, state.z, self._length(plan, sigma, self.weight), state.x, self.inner_steps)
        z = self._denoised(plan, x, sigma)
        residual = jnp.where(state.taken < self.iterations, jnp.inf, moved(z, state.z))
        return State(z, x, state.u, state.taken + 1, residual)
