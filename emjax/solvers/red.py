"""RED, regularisation by denoising: the `x` with `grad f(x) + weight (x - eta(x, sigma)) = 0`.

    "fixed-point"   x' = prox_{f / (weight c)}(v),  v' = x' + (eta(x', sigma) - x') / c,        c = `slowness` >= 1
    "gradient"      x' = x - (grad f(x) + weight (x - eta(x, sigma))) / (L + weight)

For a denoiser with a symmetric Jacobian that is homogeneous (eta(a v) = a eta(v)) this is the minimum of
`f(x) + weight/2 <x, x - eta(x)>`; others solve the equation all the same. Sources: Romano, Elad, Milanfar 2017 (the
prior, and both forms for c = 1); Reehorst, Schniter 2018 (what it minimises and what not; proximal gradients, c > 1).
"""

from typing import Any

import jax.numpy as jnp

from emjax._pytree import pytree_dataclass, static
from emjax.functionals import LeastSquares
from emjax.solvers.plug_and_play import Plan, PlugAndPlay, State, data_step, moved
from emjax.solvers.problem import Problem

FORMS = ("fixed-point", "gradient")


@pytree_dataclass
class RED(PlugAndPlay):
    """Regularisation by denoising; see the module. Settings: `denoiser`, `weight` of the prior, `sigma` (the level the
    denoiser is told), `slowness` c, `form`, `inner_steps` of conjugate gradients where f has no closed prox."""

    denoiser: Any
    weight: Any = 1.0
    sigma: Any = 0.1
    slowness: Any = 1.0
    form: str = static(default="fixed-point")
    inner_steps: int = static(default=5)
    check_every: int = static(default=5)

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise ValueError(f"RED has the forms {' and '.join(FORMS)}, got {self.form!r}")
        self._check(sigma=self.sigma, slowness=self.slowness)

    def supports(self, problem: Problem) -> str | None:
        if self.form == "gradient" and not isinstance(problem.data, LeastSquares):
            return 'RED by gradients takes least squares; use form="fixed-point" for other data terms'
        return PlugAndPlay.supports(self, problem)

    def step(self, plan: Plan, state: State, last: Any = False) -> State:
        sigma, weight = jnp.asarray(self.sigma), jnp.asarray(self.weight, plan.lipschitz.dtype)
        if self.form == "gradient":
            prior = weight * (state.z - self._denoised(plan, state.z, sigma))
            slope = plan.problem.least_squares.gradient(state.z) + prior
            x = self._clipped(plan, state.z - slope / (plan.lipschitz + weight))
            return State(x, x, state.u, state.taken + 1, moved(x, state.z))
        # The start is an x, to be denoised first: v = x + (eta(x) - x) / c.
        v = state.z + (self._denoised(plan, state.z, sigma) - state.z) / self.slowness
        x = data_step(plan, v, self._length(plan, 1, self.weight * self.slowness), state.z, self.inner_steps)
        x = self._clipped(plan, x)
        return State(x, v, state.u, state.taken + 1, moved(x, state.z))
