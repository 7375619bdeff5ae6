"""Learned primal-dual: the two updates of PDHG are small networks that see the operator only through A x and A.T u.

    u <- u + D_k(u, A x_2, y),      x <- x + P_k(x, A.T u_1),      the image is x_1

u and x hold `memory` channels each, of measurements and of images; D_k and P_k are three convolutions with parametric
relus between them, others in every iteration. Images are less their mean grey value (of `field`), and A is scaled by
its norm. Untrained, all updates are zero and the network returns its start; the paper starts at zero.
Source: J. Adler, O. Öktem, Learned primal-dual reconstruction, IEEE Trans. Med. Imaging 37 (2018) 1322-1332.
"""

import math

import jax.numpy as jnp
from flax import nnx
from jax import Array

from emjax.acquisition.noise import Noise
from emjax.networks.base import Network, convolve, norm_bounds
from emjax.networks.starts import FIELD, check_start, linear_start, supports_start
from emjax.operators import LinearOperator

DUALS = ("image", "pointwise")


class _Update(nnx.Module):
    """Three convolutions of images `(*batch, h, w, inputs)`; the last one begins at zero."""

    def __init__(self, inputs: int, outputs: int, width: int, side: int, rngs: nnx.Rngs) -> None:
        he, zero = nnx.initializers.he_normal(), nnx.initializers.zeros_init()
        sizes = [inputs, width, width, outputs]
        self.layers = nnx.List(
            [
                nnx.Conv(sizes[i], sizes[i + 1], (side, side), kernel_init=zero if i == 2 else he, rngs=rngs)
                for i in range(3)
            ]
        )
        self.slopes = nnx.Param(jnp.zeros((2,)))

    def __call__(self, v: Array) -> Array:
        for layer, slope in zip(self.layers[:2], self.slopes[...], strict=True):
            v = convolve(layer, v)
            v = jnp.where(v > 0, v, slope.astype(v.dtype) * v)
        return convolve(self.layers[2], v)


class LearnedPrimalDual(Network):
    """The network of this module, for images of any size: 251,980 parameters by default.

    iterations, width, memory: 10, 32 and 5 are the published ones. dual: "image" convolves the measurements, which have
    to be images (h, w) then; "pointwise" takes every measurement by itself (1 x 1 convolutions), whatever their shape.
    start, field: see `starts`.
    """

    kind = "learned-primal-dual"

    def __init__(
        self,
        iterations: int = 10,
        width: int = 32,
        memory: int = 5,
        dual: str = "image",
        start: str = "backprojection",
        field: tuple[float, ...] = FIELD,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if min(iterations, width, memory) < 1:
            raise ValueError(f"iterations, width and memory are 1 or more, got {iterations}, {width} and {memory}")
        if dual not in DUALS:
            raise ValueError(f"unknown dual {dual!r}; there are {', '.join(DUALS)}")
        check_start(start, field)
        self.iterations, self.width, self.memory = iterations, width, memory
        self.dual, self.start, self.field = dual, start, field
        side = 3 if dual == "image" else 1
        self.duals = nnx.List([_Update(memory + 2, memory, width, side, rngs) for _ in range(iterations)])
        self.primals = nnx.List([_Update(memory + 1, memory, width, 3, rngs) for _ in range(iterations)])

    def supports(self, A: LinearOperator) -> str | None:
        if reason := super().supports(A) or supports_start(self.start, A):
            return reason
        if jnp.issubdtype(A.out_dtype, jnp.complexfloating):
            return f"learned primal-dual takes real measurements, not the {A.out_dtype} ones of {A}"
        if self.dual == "image" and len(A.out_shape) != 2:
            return (
                f"learned primal-dual convolves measurements that are images (h, w), not of shape {A.out_shape} as "
                f"those of {A}; for these build the network with dual='pointwise'"
            )
        return None

    def __call__(self, y: Array, A: LinearOperator, noise: Noise | None = None) -> Array:
        """Recover `x`, shape `(*batch, h, w)`, from `y`, shape `(*batch, *A.out_shape)`."""
        y = self.measurements(y, A)
        start, mean = linear_start(self.start, self.field, y, A, noise), self.field[0]
        bound = norm_bounds(A).astype(y.dtype)
        scale = 1 / jnp.where(bound > 0, bound, 1)
        at_y = scale.reshape(*scale.shape[:-2], *[1] * len(A.out_shape))
        # An image of rows and columns for the dual networks, of one column where each measurement stands by itself.
        shape = A.out_shape if self.dual == "image" else (math.prod(A.out_shape), 1)
        batch = start.shape[:-2]

        def image(v: Array) -> Array:
            return jnp.broadcast_to(v, (*batch, *A.out_shape)).reshape(*batch, *shape, 1)

        data = image(at_y * (y - A(jnp.full(A.in_shape, mean, y.dtype))))
        x = jnp.broadcast_to((start - mean)[..., None], (*start.shape, self.memory))
        u = jnp.zeros((*batch, *shape, self.memory), y.dtype)
        for dual, primal in zip(self.duals, self.primals, strict=True):
            seen = image(at_y * A(x[..., min(1, self.memory - 1)]))
            u = u + dual(jnp.concatenate([u, seen, data], -1))
            back = scale * A.T(u[..., 0].reshape(*batch, *A.out_shape))
            x = x + primal(jnp.concatenate([x, back[..., None]], -1))
        return mean + x[..., 0]
