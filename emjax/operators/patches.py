"""Patches of a stack of slices, side by side: what a low-rank prior looks at."""

import jax.numpy as jnp
from jax import Array

from emjax._pytree import assign, pytree_dataclass, static
from emjax.operators.base import LinearOperator, Shape, check_shape, unit


@pytree_dataclass
class Patches(LinearOperator):
    """Non-overlapping `side x side` patches of a stack `(slices, h, w)`, as `(patches, slices, side^2)`.

    Patches go row by row; where `side` does not divide `h` or `w`, the last ones are filled up with zeros. Only the
    order changes, so that `A.H A = I`; without filling up it is orthogonal.
    """

    shape: Shape = static()
    side: int = static(default=8)

    def __post_init__(self) -> None:
        assign(self, shape=check_shape(self.shape), side=int(self.side))
        if len(self.shape) != 3 or self.side < 1:
            raise ValueError(
                f"patches are cut from a stack (slices, h, w), a side being 1 or more, got {self.shape} and {self.side}"
            )

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def _counts(self) -> tuple[int, int]:
        return -(-self.shape[1] // self.side), -(-self.shape[2] // self.side)

    @property
    def out_shape(self) -> Shape:
        rows, columns = self._counts
        return (rows * columns, self.shape[0], self.side**2)

    def forward(self, x: Array) -> Array:
        (rows, columns), b, (n, h, w) = self._counts, self.side, self.shape
        x = jnp.pad(x, [(0, 0), (0, rows * b - h), (0, columns * b - w)])
        return x.reshape(n, rows, b, columns, b).transpose(1, 3, 0, 2, 4).reshape(self.out_shape)

    def adjoint(self, y: Array) -> Array:
        (rows, columns), b, (n, h, w) = self._counts, self.side, self.shape
        x = y.reshape(rows, columns, n, b, b).transpose(2, 0, 3, 1, 4).reshape(n, rows * b, columns * b)
        return x[:, :h, :w]

    def norm_bound(self) -> Array:
        return unit()

    @property
    def accurate_entries(self) -> bool:
        return True

    def gram_diagonal(self) -> Array:
        return unit()

    def gram_scale(self) -> Array:
        return unit()

    def row_scale(self) -> Array | None:
        whole = self.shape[1] % self.side == 0 and self.shape[2] % self.side == 0
        return unit() if whole else None
