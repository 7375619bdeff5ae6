"""Scrambled sub-sampled transforms: `y = mask * T S x` with a fast orthonormal transform T and a random scramble S.

Signs flipped at random, or pixels permuted, spread every image evenly over the coefficients of T, so that any of them
may be left out: a fast substitute for a dense random matrix. T. T. Do, L. Gan, N. H. Nguyen, T. D. Tran, Fast and
efficient compressive sensing using structurally random matrices, IEEE Trans. Signal Processing 60 (2012) 139-154.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.operators.base import LinearOperator, Shape, as_float, check_shape, default_float, unit
from emjax.operators.dct import DCT
from emjax.operators.hadamard import Hadamard
from emjax.operators.pixels import PixelSampling


@pytree_dataclass
class Scramble(LinearOperator):
    """`(S x)[i] = (s * x)[p[i]]` with signs `s` and a permutation `p` of the pixels: orthogonal.

    `signs` holds +1 and -1, `permutation` row-major indices into the item, each once; both have shape
    `(*batch, *shape)`, and None leaves the signs or the places as they are. `Scramble.random` draws both.

    Raises ValueError for other values where they are known (under `jit` they are not, and are taken on trust).
    """

    shape: Shape = static()
    signs: Any = leaf("in_shape", default=None)
    permutation: Any = leaf("in_shape", default=None)
    inverse: Any = leaf("in_shape", default=None, init=False)

    def __post_init__(self) -> None:
        shape = check_shape(self.shape)
        assign(self, shape=shape)
        for name, value in (("signs", self.signs), ("permutation", self.permutation)):
            if value is not None and jnp.shape(value)[-len(shape) :] != shape:
                raise ValueError(
                    f"{name} of items of shape {shape} have that shape, batch axes in front, got {jnp.shape(value)}"
                )
        if self.signs is not None:
            signs = as_float(self.signs)
            if not isinstance(signs, jax.core.Tracer) and (np.abs(signs) != 1).any():
                raise ValueError("signs are +1 or -1, got other numbers; for weights use PixelSampling(weights)")
            assign(self, signs=signs)
        if self.permutation is not None:
            permutation = jnp.asarray(self.permutation)
            if not jnp.issubdtype(permutation.dtype, jnp.integer):
                raise ValueError(f"a permutation holds integers, got {permutation.dtype}")
            flat = permutation.reshape(-1, math.prod(shape))
            if not isinstance(flat, jax.core.Tracer) and (np.sort(flat, -1) != np.arange(flat.shape[-1])).any():
                raise ValueError(f"a permutation holds every index from 0 to {flat.shape[-1] - 1} once, got another")
            inverse = jnp.argsort(flat, -1).reshape(permutation.shape)
            assign(self, permutation=permutation, inverse=inverse.astype(permutation.dtype))

    @classmethod
    def random(cls, key: Array, shape: Sequence[int], *, flip: bool = True, permute: bool = True) -> "Scramble":
        """Signs and a permutation drawn uniformly; `flip=False` or `permute=False` leaves one of them out."""
        shape = check_shape(shape)
        for_signs, for_places = jax.random.split(key)
        signs = jax.random.rademacher(for_signs, shape, default_float()) if flip else None
        places = jax.random.permutation(for_places, math.prod(shape)).reshape(shape) if permute else None
        return cls(shape, signs, places)

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return self.shape

    def _flip(self, x: Array) -> Array:
        return x if self.signs is None else self.signs.astype(jnp.finfo(x.dtype).dtype) * x

    def forward(self, x: Array) -> Array:
        x = self._flip(x)
        return x if self.permutation is None else _permute(x, self.permutation, self.inverse)

    def adjoint(self, y: Array) -> Array:
        return self._flip(y if self.permutation is None else _permute(y, self.inverse, self.permutation))

    def norm_bound(self) -> Array:
        return unit()

    @property
    def accurate_entries(self) -> bool:
        return True

    def gram_diagonal(self) -> Array:
        return unit()

    def gram_scale(self) -> Array:
        return unit()

    def row_scale(self) -> Array:
        return unit()


def SubsampledHadamard(
    mask: Any, scramble: Scramble | None = None, *, ndim: int = 2, order: str = "natural"
) -> LinearOperator:
    """`y = mask * H S x`: 0/1 or soft weights, shape `(*batch, *in_shape)`, on the Walsh-Hadamard coefficients.

    The measurements keep the shape of the image, zero off the mask, which lies in the order of `Hadamard`. Without a
    scramble, `order="sequency"` puts the smooth coefficients in the low corner. `(I + tau A.H A)^-1` has a closed
    form for every mask.
    """
    sampling = PixelSampling(mask, ndim)
    transform = Hadamard(sampling.in_shape, order)
    return sampling @ (transform if scramble is None else transform @ scramble)


def SubsampledDCT(mask: Any, scramble: Scramble | None = None, *, ndim: int = 2) -> LinearOperator:
    """`y = mask * C S x`: the same on the coefficients of the orthonormal DCT, for items of any shape."""
    sampling = PixelSampling(mask, ndim)
    transform = DCT(sampling.in_shape)
    return sampling @ (transform if scramble is None else transform @ scramble)


def _permute(x: Array, index: Array, inverse: Array) -> Array:
    """`x[index]` over row-major indices."""

    # The transpose of a gather is a scatter, a loop over single numbers on a CPU. Written as the solution z of
    # z[inverse] = x, it is known to be the gather by the inverse, in both modes of differentiation.
    def take(v: Array, i: Array) -> Array:
        return jnp.take(v.ravel(), i, mode="clip")

    return lax.custom_linear_solve(
        lambda z: take(z, inverse), x, lambda _, b: take(b, index), transpose_solve=lambda _, b: take(b, inverse)
    )
