"""Pixel sampling: the beam visits some pixels, or weighs them softly. `y = w * x`, full-size and zero off the mask."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.operators.base import LinearOperator, Shape, as_float


@pytree_dataclass
class PixelSampling(LinearOperator):
    """`y = mask * x` with a mask of 0/1 or soft weights, shape `(*batch, *in_shape)`.

    `ndim` is the number of axes of one item: 2 for images, 3 for volumes, 1 for signals. The measurements keep the
    shape of the image (one trace for all masks); `pack` and `unpack` go to and from the list of samples.
    """

    mask: Any = leaf("in_shape")
    ndim: int = static(default=2)

    def __post_init__(self) -> None:
        if self.mask is None or isinstance(self.mask, tuple):
            raise TypeError(
                f"a sampling mask is an array of 0/1 or weights, got {self.mask!r}; "
                "where every pixel was measured use np.ones(shape)"
            )
        assign(self, mask=as_float(self.mask))
        if jnp.iscomplexobj(self.mask):
            raise ValueError("a sampling mask is real, got a complex one")
        if self.ndim < 1 or self.mask.ndim < self.ndim:
            raise ValueError(
                f"a mask of items with {self.ndim} axes has at least {self.ndim} axes, got shape {self.mask.shape}; "
                "say how many axes one item has: PixelSampling(mask, ndim=...)"
            )

    @property
    def in_shape(self) -> Shape:
        return self.mask.shape[self.mask.ndim - self.ndim :]

    @property
    def out_shape(self) -> Shape:
        return self.in_shape

    @property
    def in_dtype(self) -> np.dtype:
        return self.mask.dtype

    def forward(self, x: Array) -> Array:
        return self.mask * x

    def adjoint(self, y: Array) -> Array:
        return self.mask * y

    def norm_bound(self) -> Array:
        return jnp.max(jnp.abs(self.mask))

    def gram_diagonal(self) -> Array:
        return self.mask * self.mask

    def row_diagonal(self) -> Array:
        return self.mask * self.mask

    def absolute_sums(self) -> tuple[Array, Array]:
        return jnp.abs(self.mask), jnp.abs(self.mask)

    @property
    def is_diagonal(self) -> bool:
        return True

    def measured(self, y: Array) -> Array:
        return jnp.where(self.mask != 0, y, 0)

    def pack(self, y: Array) -> np.ndarray:
        """The measured samples of one item, `(n,)` in row-major order. On the host: n depends on the mask."""
        return np.asarray(y)[np.asarray(self.mask) != 0]

    def unpack(self, samples: np.ndarray) -> Array:
        """The full-size measurements, zero off the mask, of a list of samples as `pack` gives it. On the host."""
        where = np.asarray(self.mask) != 0
        samples = np.asarray(samples)
        if samples.shape != (int(where.sum()),):
            raise ValueError(f"the mask has {int(where.sum())} measured pixels, got samples of shape {samples.shape}")
        y = np.zeros(where.shape, samples.dtype)
        y[where] = samples
        return jnp.asarray(y)
