"""Forward differences with Neumann boundaries: the gradient of total variation, in any number of dimensions."""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, pytree_dataclass, static
from emjax.operators.base import LinearOperator, Shape, check_shape, default_float


@pytree_dataclass
class FiniteDifference(LinearOperator):
    """`(D x)[a] = (x[i + e_a] - x[i]) / spacing[a]`, 0 at the last index of axis `a`; out shape `(ndim, *shape)`.

    `spacing` is the distance of neighbours along each axis (any unit; for anisotropic voxels, relative to the finest).
    Its norm is known exactly: `||D||^2 = sum_a (2 cos(pi / (2 n_a)) / spacing_a)^2`.
    """

    shape: Shape = static()
    spacing: tuple[float, ...] | None = static(default=None)

    def __post_init__(self) -> None:
        shape = check_shape(self.shape)
        spacing = (1.0,) * len(shape) if self.spacing is None else tuple(float(s) for s in self.spacing)
        if len(spacing) != len(shape) or not all(math.isfinite(s) and s > 0 for s in spacing):
            raise ValueError(f"spacing needs one positive number for each of the axes {shape}, got {self.spacing}")
        assign(self, shape=shape, spacing=spacing)

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return (len(self.shape), *self.shape)

    @property
    def accurate_entries(self) -> bool:
        return True

    @property
    def _steps(self) -> tuple[float, ...]:
        assert self.spacing is not None
        return self.spacing

    def forward(self, x: Array) -> Array:
        parts = []
        for axis, step in enumerate(self._steps):
            d = jnp.diff(x, axis=axis)
            d = d if step == 1 else d / step
            parts.append(jnp.pad(d, [(0, int(a == axis)) for a in range(x.ndim)]))
        return jnp.stack(parts)

    def adjoint(self, y: Array) -> Array:
        # -div: the last entry along each axis never counts, so drop it and take backward differences of the rest.
        out = None
        for axis, step in enumerate(self._steps):
            inner = lax.slice_in_dim(y[axis], 0, self.shape[axis] - 1, axis=axis)
            part = _backward(inner, axis)
            part = part if step == 1 else part / step
            out = part if out is None else out + part
        assert out is not None
        return out

    def gram_spectrum(self, basis: str) -> Array | None:
        # Half-sample symmetric extension makes the Neumann Laplacian diagonal in the DCT: Strang 1999.
        if basis != "dct":
            return None
        parts = [
            (2 / step * np.sin(np.pi * np.arange(n) / (2 * n))) ** 2
            for n, step in zip(self.shape, self._steps, strict=True)
        ]
        return jnp.asarray(functools.reduce(np.add.outer, parts), default_float())

    def absolute_sums(self) -> tuple[Array, Array]:
        rows = np.zeros(self.out_shape)
        for axis, (n, step) in enumerate(zip(self.shape, self._steps, strict=True)):
            rows[axis] = 2 / step
            rows[(axis, *(slice(n - 1, None) if a == axis else slice(None) for a in range(len(self.shape))))] = 0
        columns = sum(
            0.5 * (r + np.roll(r, 1, axis)) for axis, r in enumerate(rows)
        )  # half of a row's sum goes to either neighbour
        return jnp.asarray(rows, default_float()), jnp.asarray(columns, default_float())

    def norm_bound(self) -> Array:
        square = sum((2 * math.cos(math.pi / (2 * n)) / s) ** 2 for n, s in zip(self.shape, self._steps, strict=True))
        dtype = default_float()
        return jnp.asarray(math.sqrt(square), dtype) * (1 + 4 * jnp.finfo(dtype).eps)


def _backward(v: Array, axis: int) -> Array:
    """`v[i - 1] - v[i]`, zero outside: one entry more than `v`."""
    n = v.shape[axis]
    if n == 0:
        return jnp.zeros(tuple(m + int(a == axis) for a, m in enumerate(v.shape)), v.dtype)
    first, last = lax.slice_in_dim(v, 0, 1, axis=axis), lax.slice_in_dim(v, n - 1, n, axis=axis)
    inner = lax.slice_in_dim(v, 0, n - 1, axis=axis) - lax.slice_in_dim(v, 1, n, axis=axis)
    return lax.concatenate([-first, inner, last], axis)
