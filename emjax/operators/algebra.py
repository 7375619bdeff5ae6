"""The algebra of operators: identity, adjoint, composition, scale, sum, stack."""

import functools
import operator
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, pytree_dataclass, static
from emjax.operators.base import LinearOperator, Shape, as_float, check_shape, default_float, round_up, unit


@pytree_dataclass
class Identity(LinearOperator):
    """`I x = x` on items of `shape`."""

    shape: Shape = static()

    def __post_init__(self) -> None:
        assign(self, shape=check_shape(self.shape))

    @property
    def in_shape(self) -> Shape:
        return self.shape

    @property
    def out_shape(self) -> Shape:
        return self.shape

    def forward(self, x: Array) -> Array:
        return x

    def adjoint(self, y: Array) -> Array:
        return y

    def norm_bound(self) -> Array:
        return unit()

    @property
    def is_diagonal(self) -> bool:
        return True

    def gram_diagonal(self) -> Array:
        return unit()

    def gram_scale(self) -> Array:
        return unit()

    def row_scale(self) -> Array:
        return unit()

    def absolute_sums(self) -> tuple[Array, Array]:
        return unit(), unit()


@pytree_dataclass
class Adjoint(LinearOperator):
    """`A.H` of an operator."""

    op: LinearOperator

    @property
    def in_shape(self) -> Shape:
        return self.op.out_shape

    @property
    def out_shape(self) -> Shape:
        return self.op.in_shape

    @property
    def in_dtype(self) -> np.dtype:
        return self.op.out_dtype

    @property
    def out_dtype(self) -> np.dtype:
        return self.op.in_dtype

    def forward(self, x: Array) -> Array:
        return self.op.adjoint(x)

    def adjoint(self, y: Array) -> Array:
        return self.op.forward(y)

    def norm_bound(self) -> Array:
        return self.op.norm_bound()

    def gram_scale(self) -> Array | None:
        return self.op.row_scale()

    def gram_diagonal(self) -> Array | None:
        return self.op.row_scale()

    def row_scale(self) -> Array | None:
        return self.op.gram_scale()

    def absolute_sums(self) -> tuple[Array, Array] | None:
        sums = self.op.absolute_sums()
        return None if sums is None else (sums[1], sums[0])

    @property
    def H(self) -> LinearOperator:
        return self.op


@pytree_dataclass
class Transpose(LinearOperator):
    """`A.T` of a complex operator: `A.T y = conj(A.H conj(y))`."""

    op: LinearOperator

    @property
    def in_shape(self) -> Shape:
        return self.op.out_shape

    @property
    def out_shape(self) -> Shape:
        return self.op.in_shape

    @property
    def in_dtype(self) -> np.dtype:
        return self.op.out_dtype

    @property
    def out_dtype(self) -> np.dtype:
        return self.op.in_dtype

    def forward(self, x: Array) -> Array:
        return jnp.conj(self.op.adjoint(jnp.conj(x)))

    def adjoint(self, y: Array) -> Array:
        return jnp.conj(self.op.forward(jnp.conj(y)))

    def norm_bound(self) -> Array:
        return self.op.norm_bound()

    @property
    def T(self) -> LinearOperator:
        return self.op


@pytree_dataclass
class Compose(LinearOperator):
    """`(A @ B) x = A (B x)`."""

    outer: LinearOperator
    inner: LinearOperator

    def __post_init__(self) -> None:
        check_compose(self.outer, self.inner)

    @property
    def in_shape(self) -> Shape:
        return self.inner.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.outer.out_shape

    @property
    def in_dtype(self) -> np.dtype:
        return self.inner.in_dtype

    @property
    def out_dtype(self) -> np.dtype:
        # A complex intermediate stays complex unless the outer operator takes it back to real.
        outer, inner = self.outer, self.inner
        if jnp.issubdtype(inner.out_dtype, jnp.complexfloating) and outer.in_dtype != inner.out_dtype:
            return jnp.promote_types(outer.out_dtype, inner.out_dtype)
        return outer.out_dtype

    def forward(self, x: Array) -> Array:
        return self.outer.forward(self.inner.forward(x))

    def adjoint(self, y: Array) -> Array:
        return self.inner.adjoint(self.outer.adjoint(y))

    def norm_bound(self) -> Array:
        return round_up(self.outer.norm_bound() * self.inner.norm_bound())

    def gram_diagonal(self) -> Array | None:
        # (AB).H AB = B.H (A.H A) B is diagonal when A.H A = c I and B.H B is, or when B is a multiple of I.
        c, d = self.outer.gram_scale(), self.inner.gram_diagonal()
        return None if c is None or d is None else c * d

    def gram_scale(self) -> Array | None:
        a, b = self.outer.gram_scale(), self.inner.gram_scale()
        return None if a is None or b is None else a * b

    def gram_spectrum(self, basis: str) -> Array | None:
        a, b = self.outer.gram_scale(), self.inner.gram_spectrum(basis)
        return None if a is None or b is None else a * b

    def row_scale(self) -> Array | None:
        a, b = self.outer.row_scale(), self.inner.row_scale()
        return None if a is None or b is None else a * b

    def row_diagonal(self) -> Array | None:
        d, c = self.outer.row_diagonal(), self.inner.row_scale()
        return None if d is None or c is None else c * d

    def measured(self, y: Array) -> Array:
        return self.outer.measured(y)

    def count_measured(self) -> Array:
        return self.outer.count_measured()

    def _inner_scale(self) -> Array | None:
        """`c` with `B.H B = B B.H = c I`: an orthonormal transform up to scale."""
        return self.inner.gram_scale() if self.inner.row_scale() is not None else None

    @property
    def has_resolvent(self) -> bool:
        return super().has_resolvent or (self._inner_scale() is not None and self.outer.has_resolvent)

    def resolvent(self, v: Array, tau: Array) -> Array:
        # B.H A.H A B = B^-1 (c A.H A) B, so that the resolvent is that of A between B and its inverse.
        c = self._inner_scale()
        if super().has_resolvent or c is None:
            return super().resolvent(v, tau)
        return self.inner.adjoint(self.outer.resolvent(self.inner.forward(v), tau * c)) / c


@pytree_dataclass
class Scale(LinearOperator):
    """`(s A) x = s (A x)` for a scalar `s`."""

    op: LinearOperator
    scalar: Array

    def __post_init__(self) -> None:
        scalar = self.scalar if isinstance(self.scalar, float | int | complex) else as_float(self.scalar)
        if jnp.ndim(scalar) != 0:
            raise ValueError(
                f"an operator is scaled by a scalar, got an array of shape {jnp.shape(scalar)}; "
                "for a scale at each pixel use PixelSampling(weights) @ A"
            )
        if jnp.iscomplexobj(scalar):
            raise ValueError("an operator is scaled by a real scalar, got a complex one")
        assign(self, scalar=jnp.asarray(scalar, default_float()) if isinstance(scalar, float | int) else scalar)

    @property
    def in_shape(self) -> Shape:
        return self.op.in_shape

    @property
    def out_shape(self) -> Shape:
        return self.op.out_shape

    @property
    def in_dtype(self) -> np.dtype:
        return self.op.in_dtype

    @property
    def out_dtype(self) -> np.dtype:
        return self.op.out_dtype

    def _scaled(self, v: Array) -> Array:
        return v * self.scalar.astype(jnp.finfo(v.dtype).dtype)

    def forward(self, x: Array) -> Array:
        return self._scaled(self.op.forward(x))

    def adjoint(self, y: Array) -> Array:
        return self.op.adjoint(self._scaled(y))

    def measured(self, y: Array) -> Array:
        return self.op.measured(y)

    def count_measured(self) -> Array:
        return self.op.count_measured()

    def norm_bound(self) -> Array:
        return round_up(jnp.abs(self.scalar) * self.op.norm_bound())

    def gram_diagonal(self) -> Array | None:
        d = self.op.gram_diagonal()
        return None if d is None else self.scalar**2 * d

    def gram_scale(self) -> Array | None:
        c = self.op.gram_scale()
        return None if c is None else self.scalar**2 * c

    def row_scale(self) -> Array | None:
        c = self.op.row_scale()
        return None if c is None else self.scalar**2 * c

    def gram_spectrum(self, basis: str) -> Array | None:
        s = self.op.gram_spectrum(basis)
        return None if s is None else self.scalar**2 * s

    def absolute_sums(self) -> tuple[Array, Array] | None:
        sums, size = self.op.absolute_sums(), jnp.abs(self.scalar)
        return None if sums is None else (size * sums[0], size * sums[1])


@pytree_dataclass
class Sum(LinearOperator):
    """`(A + B) x = A x + B x`."""

    ops: tuple[LinearOperator, ...]

    def __post_init__(self) -> None:
        assign(self, ops=tuple(self.ops))
        first = _check_operators("a sum", self.ops)
        for op in self.ops:
            if (op.in_shape, op.out_shape) != (first.in_shape, first.out_shape):
                raise ValueError(f"a sum needs operators of equal shapes, got {first} and {op}")

    @property
    def in_shape(self) -> Shape:
        return self.ops[0].in_shape

    @property
    def out_shape(self) -> Shape:
        return self.ops[0].out_shape

    @property
    def in_dtype(self) -> np.dtype:
        return jnp.result_type(*(op.in_dtype for op in self.ops))

    @property
    def out_dtype(self) -> np.dtype:
        return jnp.result_type(*(op.out_dtype for op in self.ops))

    def forward(self, x: Array) -> Array:
        return _add([op.forward(x) for op in self.ops])

    def adjoint(self, y: Array) -> Array:
        return _add(_adjoints(self.ops, [y] * len(self.ops)))

    def norm_bound(self) -> Array:
        return round_up(_add([op.norm_bound() for op in self.ops]), 4 + len(self.ops))


@pytree_dataclass
class Stack(LinearOperator):
    """Several measurements of one item: `x -> (A1 x, A2 x, ...)` along a new first axis."""

    ops: tuple[LinearOperator, ...]

    def __post_init__(self) -> None:
        assign(self, ops=tuple(self.ops))
        first = _check_operators("a stack", self.ops)
        for op in self.ops:
            if (op.in_shape, op.out_shape) != (first.in_shape, first.out_shape):
                raise ValueError(
                    f"a stack needs operators of equal shapes, got {first} and {op}; "
                    "bring the outputs to one shape first (Reshape, zero padding)"
                )

    @property
    def in_shape(self) -> Shape:
        return self.ops[0].in_shape

    @property
    def out_shape(self) -> Shape:
        return (len(self.ops), *self.ops[0].out_shape)

    @property
    def in_dtype(self) -> np.dtype:
        return jnp.result_type(*(op.in_dtype for op in self.ops))

    @property
    def out_dtype(self) -> np.dtype:
        return jnp.result_type(*(op.out_dtype for op in self.ops))

    def forward(self, x: Array) -> Array:
        return jnp.stack([op.forward(x) for op in self.ops])

    def adjoint(self, y: Array) -> Array:
        return _add(_adjoints(self.ops, list(y)))

    def measured(self, y: Array) -> Array:
        axis = jnp.ndim(y) - len(self.out_shape)
        parts = [jnp.squeeze(p, axis) for p in jnp.split(y, len(self.ops), axis)]
        return jnp.stack([op.measured(p) for op, p in zip(self.ops, parts, strict=True)], axis)

    def norm_bound(self) -> Array:
        return round_up(jnp.sqrt(_add([op.norm_bound() ** 2 for op in self.ops])), 4 + len(self.ops))

    def gram_diagonal(self) -> Array | None:
        parts = [p for op in self.ops if (p := op.gram_diagonal()) is not None]
        return _add(parts) if len(parts) == len(self.ops) else None

    def gram_scale(self) -> Array | None:
        parts = [p for op in self.ops if (p := op.gram_scale()) is not None]
        return _add(parts) if len(parts) == len(self.ops) else None

    def gram_spectrum(self, basis: str) -> Array | None:
        parts = [p for op in self.ops if (p := op.gram_spectrum(basis)) is not None]
        return _add(parts) if len(parts) == len(self.ops) else None

    def absolute_sums(self) -> tuple[Array, Array] | None:
        parts = [p for op in self.ops if (p := op.absolute_sums()) is not None]
        if len(parts) < len(self.ops):
            return None
        rows = jnp.stack([jnp.broadcast_to(r, self.ops[0].out_shape) for r, _ in parts])
        return rows, _add([columns for _, columns in parts])


def stack(*ops: LinearOperator) -> LinearOperator:
    """`Stack` of operators of equal shapes."""
    return Stack(ops)


def check_compose(outer: LinearOperator, inner: LinearOperator) -> None:
    if outer.in_shape != inner.out_shape:
        raise ValueError(f"cannot compose {outer} @ {inner}: {inner.out_shape} does not fit {outer.in_shape}")


def _check_operators(what: str, ops: tuple) -> LinearOperator:
    for op in ops:
        if not isinstance(op, LinearOperator):
            raise TypeError(f"{what} takes linear operators, got {type(op).__name__}")
    if not ops:
        raise ValueError(f"{what} needs at least one operator")
    return ops[0]


def _adjoints(ops: Sequence[LinearOperator], parts: Sequence[Array]) -> list[Array]:
    """`op.H part` of each; a real operator beside complex ones that take real items sees the real part."""
    # With complex items (a sum of masks behind a Fourier transform) nothing may be dropped.
    complex_in = any(jnp.issubdtype(op.in_dtype, jnp.complexfloating) for op in ops)
    complex_out = [jnp.issubdtype(op.out_dtype, jnp.complexfloating) for op in ops]
    if complex_in or not any(complex_out):
        return [op.adjoint(y) for op, y in zip(ops, parts, strict=True)]
    return [op.adjoint(y if c else jnp.real(y)) for op, y, c in zip(ops, parts, complex_out, strict=True)]


def _add(parts: Sequence[Array]) -> Array:
    return functools.reduce(operator.add, parts)
