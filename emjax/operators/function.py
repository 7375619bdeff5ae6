"""Reshaping, and any linear JAX function as an operator."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, pytree_dataclass, static
from emjax.operators.base import LinearOperator, Shape, as_float, check_shape, default_float, unit


@pytree_dataclass
class Reshape(LinearOperator):
    """The same numbers in another shape, row-major."""

    shape: Shape = static()
    new_shape: Shape = static()

    def __post_init__(self) -> None:
        assign(self, shape=check_shape(self.shape), new_shape=check_shape(self.new_shape))
        if math.prod(self.shape) != math.prod(self.new_shape):
            raise ValueError(f"cannot reshape {self.shape} to {self.new_shape}: different numbers of elements")

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return self.new_shape

    def forward(self, x: Array) -> Array:
        return x.reshape(self.new_shape)

    def adjoint(self, y: Array) -> Array:
        return y.reshape(self.shape)

    def norm_bound(self) -> Array:
        return unit()

    def gram_scale(self) -> Array:
        return unit()

    def row_scale(self) -> Array:
        return unit()

    def absolute_sums(self) -> tuple[Array, Array]:
        return unit(), unit()


@pytree_dataclass
class Function(LinearOperator):
    """Any linear JAX function as an operator; its adjoint comes from `jax.linear_transpose`.

    `fn(x)` must be linear in `x` and pure. `norm` is an upper bound of its spectral norm; solvers that need one raise
    when it was not given, because a power iteration would underestimate it.
    """

    norm: Array | None
    fn: Callable[[Array], Array] = static()
    shape: Shape = static()
    dtype: Any = static()

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return jax.eval_shape(self.fn, self._struct()).shape

    @property
    def in_dtype(self) -> np.dtype:
        return self.dtype

    @property
    def out_dtype(self) -> np.dtype:
        return jax.eval_shape(self.fn, self._struct()).dtype

    def _struct(self, dtype: Any = None) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(self.shape, dtype or self.dtype)

    def forward(self, x: Array) -> Array:
        return self.fn(x)

    def adjoint(self, y: Array) -> Array:
        real = jnp.finfo(y.dtype).dtype
        dtype = jnp.result_type(real, jnp.complex64) if jnp.issubdtype(self.dtype, jnp.complexfloating) else real
        out = jax.eval_shape(self.fn, self._struct(dtype)).dtype
        (x,) = jax.linear_transpose(self.fn, self._struct(dtype))(jnp.conj(y.astype(out)))
        return jnp.conj(x)

    def norm_bound(self) -> Array:
        if self.norm is None:
            raise ValueError(
                "this operator was made from a function without a norm bound; pass one: "
                "from_function(fn, in_shape, norm=upper_bound)"
            )
        return self.norm


def from_function(
    fn: Callable[[Array], Array], in_shape: Sequence[int], *, norm: Any = None, dtype: Any = None
) -> Function:
    """Wrap a linear JAX function of one item; see `Function`.

    Raises ValueError where `fn` does not trace on `in_shape` or is not linear (checked by transposing it).
    """
    shape = check_shape(in_shape)
    dtype = jnp.dtype(dtype or default_float())
    op = Function(norm if norm is None else as_float(norm), fn, shape, dtype)
    try:
        out = jax.eval_shape(op.forward, jax.ShapeDtypeStruct(shape, dtype))
        jax.eval_shape(op.adjoint, jax.ShapeDtypeStruct(out.shape, out.dtype))
    except Exception as err:
        raise ValueError(f"from_function: not a linear JAX function of an array of shape {shape}: {err}") from err
    return op
