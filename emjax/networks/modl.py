"""MoDL: one denoiser in turns with the exact agreement of image and measurements; optionally as unrolled ADMM.

    z = D(x + u, s_k)                                               the denoiser, the same in every phase
    u <- u + x - z                                                  ADMM only, else u = 0
    x <- argmin 1/2 |A x - y|^2 / |A|^2 + w/2 |x - (z - u)|^2       its closed form, or conjugate gradients

D is `emjax.networks.DnCNN` on images less their mean grey value (of `field`), and is told phase by phase the level s_k
of what it has to take out; s and w are trained. The minimisation is that of `emjax.solvers.PCG`, batched and so many
steps long; its derivative is that of the minimum, found by as many steps. Untrained, D is the identity.
Sources: H. Aggarwal, M. Mani, M. Jacob, MoDL: model-based deep learning architecture for inverse problems, IEEE Trans.
Med. Imaging 38 (2019) 394-405; Y. Yang et al., Deep ADMM-Net for compressive sensing MRI, NIPS 2016.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax

from emjax.acquisition.noise import Noise
from emjax.functionals import LeastSquares, Quadratic
from emjax.networks.base import Network, norm_bounds
from emjax.networks.dncnn import DnCNN
from emjax.networks.starts import FIELD, check_start, linear_start, supports_start
from emjax.operators import Identity, LinearOperator
from emjax.operators.base import map_batch
from emjax.solvers import PCG, Problem


class MoDL(Network):
    """The network of this module, for images of any size and any operator, complex measurements of real images too.

    phases: 10 as published. steps: of the conjugate gradients, where the operator has no closed form. width, depth: of
    the denoiser. admm: with the scaled multiplier u. start, field: see `starts`.
    """

    kind = "modl"

    def __init__(
        self,
        phases: int = 10,
        steps: int = 10,
        width: int = 64,
        depth: int = 5,
        admm: bool = False,
        start: str = "backprojection",
        field: tuple[float, ...] = FIELD,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if min(phases, steps) < 1:
            raise ValueError(f"there are 1 or more phases and steps, got {phases} and {steps}")
        check_start(start, field)
        self.phases, self.steps, self.admm, self.start, self.field = phases, steps, admm, start, field
        self.width, self.depth = width, depth
        self.denoiser = DnCNN(width, depth, rngs=rngs)
        self.levels = nnx.Param(jnp.geomspace(0.2, 0.02, phases))
        self.log_weight = nnx.Param(jnp.full((), jnp.log(0.05)))

    def supports(self, A: LinearOperator) -> str | None:
        return super().supports(A) or supports_start(self.start, A)

    def __call__(self, y: Array, A: LinearOperator, noise: Noise | None = None) -> Array:
        """Recover `x`, shape `(*batch, h, w)`, from `y`, shape `(*batch, *A.out_shape)`."""
        y = self.measurements(y, A)
        x = linear_start(self.start, self.field, y, A, noise)
        data, mean = LeastSquares(A, y), self.field[0]
        bound = norm_bounds(A).astype(x.dtype)[..., 0, 0] ** 2
        weight = jnp.exp(self.log_weight[...]).astype(x.dtype) * jnp.where(bound > 0, bound, 1)
        u = jnp.zeros_like(x)
        for level in self.levels[...]:
            z = mean + self.denoiser(x + u - mean, level)
            u = u + x - z if self.admm else u
            x = _agree(data, z - u, weight, self.steps)
        return x


def _agree(data: LeastSquares, z: Array, weight: Array, steps: int) -> Array:
    """`argmin 1/2 |A x - y|^2 + weight / 2 |x - z|^2` of a batch."""
    shape = data.A.in_shape
    parts = (data, Quadratic(Identity(shape), weight[..., None, None], z))
    if data.has_prox:
        return map_batch(lambda parts, z: parts[0].prox(z, 1 / parts[1].d[0, 0]), parts, z, shape)
    return map_batch(lambda parts, _: _conjugate_gradients(parts[0], parts[1], steps), parts, z, shape)


def _conjugate_gradients(data: LeastSquares, prior: Quadratic, steps: int) -> Array:
    """The minimum of their sum for one item."""
    solver = PCG()
    plan = solver.prepare(Problem(data, prior))

    def solve(_: object, rhs: Array) -> Array:
        there = plan._replace(rhs=rhs, target=None, rounding=jnp.zeros_like(plan.rounding))  # any right-hand side
        first = solver.init(there, None)
        return solver.point(lax.fori_loop(0, steps, lambda _, state: solver.step(there, state), first))

    # Steps after convergence divide rounding errors by each other: their derivative would be anything.
    c = lax.custom_linear_solve(lambda c: solver.apply(plan, c), plan.rhs, solve, symmetric=True)
    return plan.mean + plan.C.adjoint(c)
