"""The linear operator and its algebra.

A `LinearOperator` maps one item of shape `in_shape` to one of shape `out_shape`; calling it maps over any extra leading
axes. `A.H` is the adjoint with respect to `Re<a, b>`, so that `Re<A x, y> == <x, A.H y>` also where `x` is real and
`A x` complex. Operators are pytrees: their arrays (masks, kernels, matrices) can be differentiated, batched and saved.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import batch_axes

Shape = tuple[int, ...]


def default_float() -> np.dtype:
    """float64 under x64, float32 otherwise."""
    return jnp.zeros(()).dtype


def unit() -> Array:
    """One, in the precision of what it meets: problems in float32 stay so under x64."""
    return jnp.asarray(1.0)


def as_float(x: Any) -> Array:
    """An array with a floating or complex dtype: masks given as booleans or integers are stored as floats.

    A Python number stays weakly typed: it takes on the precision of what it meets.
    """
    try:
        x = jnp.asarray(float(x) if isinstance(x, int) else x)
    except (TypeError, ValueError) as err:  # None is a ValueError there
        raise TypeError(f"a number or an array of numbers is expected, got {x!r}") from err
    if x.dtype == bool:
        return x.astype(jnp.float32)  # exact, and it widens to what it meets
    return x if jnp.issubdtype(x.dtype, jnp.inexact) else x.astype(default_float())


def map_batch(fn: Callable[..., Any], tree: Any, x: Array, core_shape: Shape) -> Any:
    """`fn(tree, x)` over the leading axes of `x` and of those leaves of `tree` that are declared with `leaf`."""
    n = len(core_shape)
    extra = batch_axes(tree)
    counts = jax.tree.leaves(extra)
    depth = max([x.ndim - n, *counts])
    for level in range(1, depth + 1):
        # Axes are mapped from the inside out; a leaf with fewer batch axes is shared by the outer ones (broadcasting).
        treedef = jax.tree.structure(tree)
        in_axes = jax.tree.unflatten(treedef, [0 if c >= level else None for c in counts])
        fn = jax.vmap(fn, in_axes=(in_axes, 0 if x.ndim - n >= level else None))
    return fn(tree, x)


def check_measured(A: "LinearOperator", y: Any, owner: str) -> Array:
    """`y` as floats, what `A` never measures set to zero; or an error that names what does not fit."""
    if not isinstance(A, LinearOperator):
        raise TypeError(
            f"{owner} takes an operator, such as PixelSampling(mask), and measurements; got {type(A).__name__}"
        )
    y, shape = as_float(y), A.out_shape
    if jnp.finfo(y.dtype).bits < 32:  # half precision is computed in what the operator computes in
        y = y.astype(jnp.promote_types(y.dtype, A.out_dtype))
    if y.ndim < len(shape) or y.shape[y.ndim - len(shape) :] != shape:
        raise ValueError(f"the measurements have shape {y.shape}, but {A} gives {shape}; extra batch axes go in front")
    try:
        return A.measured(y)
    except (TypeError, ValueError) as err:
        masks = ", ".join(str(v.shape) for v in jax.tree.leaves(A) if jnp.ndim(v) >= len(shape))
        raise ValueError(f"the batch axes of the measurements {y.shape} and of {A}, {masks}, do not fit") from err


def complex_items(A: "LinearOperator", y: Array) -> bool:
    """Whether `x` is complex: items of `A` are, or a real `A` measured complex `y`, its both parts alike."""
    measured = jnp.iscomplexobj(y) and not jnp.issubdtype(A.out_dtype, jnp.complexfloating)
    return measured or bool(jnp.issubdtype(A.in_dtype, jnp.complexfloating))


class LinearOperator:
    """Base class: subclasses give `in_shape`, `out_shape`, `forward`, `adjoint` and `norm_bound`."""

    @property
    def in_shape(self) -> Shape:
        raise NotImplementedError

    @property
    def out_shape(self) -> Shape:
        raise NotImplementedError

    @property
    def in_dtype(self) -> np.dtype:
        """The dtype of the items it expects; others are accepted and promoted."""
        return default_float()

    @property
    def out_dtype(self) -> np.dtype:
        return self.in_dtype

    def forward(self, x: Array) -> Array:
        """`A x` for one item, shape `in_shape` to `out_shape`."""
        raise NotImplementedError

    def adjoint(self, y: Array) -> Array:
        """`A.H y` for one item, shape `out_shape` to `in_shape`."""
        raise NotImplementedError

    def norm_bound(self) -> Array:
        """An upper bound of the spectral norm (never below it)."""
        raise NotImplementedError

    # What solvers may ask for. `None` means that no closed form is known.

    def gram_diagonal(self) -> Array | None:
        """`d` with `A.H A x = d * x`, or None."""
        return None

    def gram_scale(self) -> Array | None:
        """`c` with `A.H A = c I` (an isometry up to scale), or None."""
        return None

    def row_scale(self) -> Array | None:
        """`c` with `A A.H = c I` (orthogonal rows of equal norm), or None."""
        return None

    def row_diagonal(self) -> Array | None:
        """`d` with `A A.H y = d * y` for what `A` gives, or None."""
        return self.row_scale()

    def gram_spectrum(self, basis: str) -> Array | None:
        """`s` with `A.H A x = U.H (s * U x)`, or None.

        `U` is the orthonormal transform of the items named by `basis`, "dct" (`DCT`) or "fft" (`numpy.fft.fftn`).
        """
        return self.gram_scale()

    def absolute_sums(self) -> tuple[Array, Array] | None:
        """The sums of `|A_ij|` over each row and each column (never below them), or None.

        They broadcast to `out_shape` and `in_shape`. With `s_i` and `t_j` their inverses `|s^(1/2) A t^(1/2)| <= 1`.
        """
        return None

    @property
    def is_diagonal(self) -> bool:
        """Whether the operator multiplies each entry by a number (so that weights on its output stay diagonal)."""
        return False

    @property
    def weights_stay_diagonal(self) -> bool:
        """Whether `A.H w A` is diagonal for every weight of the measurements."""
        return self.is_diagonal

    @property
    def accurate_entries(self) -> bool:
        """Whether each entry of `A x` is computed to a few rounding errors of itself (no long sums)."""
        return self.is_diagonal

    def measured(self, y: Array) -> Array:
        """`y` with what the operator never measures set to zero, whatever it holds (NaN included)."""
        return y

    def count_measured(self) -> Array:
        """How many numbers (real ones of real items) the measurements of one item tell; off a mask there are none."""
        count = jnp.sum(self.measured(jnp.ones(self.out_shape)))
        real = not jnp.issubdtype(self.in_dtype, jnp.complexfloating)
        return count * (2 if real and jnp.issubdtype(self.out_dtype, jnp.complexfloating) else 1)

    @property
    def has_resolvent(self) -> bool:
        """Whether `resolvent` has a closed form."""
        return self.gram_diagonal() is not None or self.row_scale() is not None

    def resolvent(self, v: Array, tau: Array) -> Array:
        """`(I + tau A.H A)^-1 v` for one item."""
        if (d := self.gram_diagonal()) is not None:
            return v / (1 + tau * d)
        if (c := self.row_scale()) is not None:
            return v - self.adjoint(self.forward(v)) * (tau / (1 + tau * c))
        raise NotImplementedError(f"{type(self).__name__} has no closed-form resolvent; use an iterative solver")

    @property
    def has_row_gram(self) -> bool:
        """Whether `row_gram` is known, and of a size of which one inverse may be kept."""
        return False

    def row_gram(self) -> Array:
        """The m x m matrix `G` with `A A.H y = G y` along the last axis of `y`, the same for all leading ones."""
        raise NotImplementedError(f"{type(self).__name__} knows no matrix A A.H; use an iterative solver")

    # The algebra.

    def __call__(self, x: Array) -> Array:
        """`A x`, shape `(*batch, *in_shape)` to `(*batch, *out_shape)`.

        Raises ValueError when the trailing axes of `x` are not `in_shape`.
        """
        x = as_float(x)
        n = len(self.in_shape)
        if x.ndim < n or x.shape[x.ndim - n :] != self.in_shape:
            raise ValueError(
                f"{type(self).__name__} takes arrays whose trailing axes are {self.in_shape}, got {x.shape}; "
                f"extra batch axes go in front"
            )
        return map_batch(lambda op, v: op.forward(v), self, x, self.in_shape)

    @property
    def H(self) -> "LinearOperator":
        """The adjoint (conjugate transpose)."""
        return algebra.Adjoint(self)

    @property
    def T(self) -> "LinearOperator":
        """The transpose: `A.T y = conj(A.H conj(y))`; the adjoint itself for a real operator."""
        if jnp.issubdtype(self.in_dtype, jnp.complexfloating) or jnp.issubdtype(self.out_dtype, jnp.complexfloating):
            return algebra.Transpose(self)
        return algebra.Adjoint(self)

    @property
    def gram(self) -> "LinearOperator":
        """`A.H A`."""
        return self.H @ self

    def __matmul__(self, other: "LinearOperator") -> "LinearOperator":
        if not isinstance(other, LinearOperator):
            raise TypeError(f"A @ B composes two operators; to apply one to an array, call it: A(x). Got {type(other)}")
        if isinstance(self, algebra.Identity):
            algebra.check_compose(self, other)
            return other
        if isinstance(other, algebra.Identity):
            algebra.check_compose(self, other)
            return self
        return algebra.Compose(self, other)

    def __add__(self, other: "LinearOperator") -> "LinearOperator":
        return algebra.Sum((self, other))

    def __sub__(self, other: "LinearOperator") -> "LinearOperator":
        return algebra.Sum((self, -1.0 * other))

    def __neg__(self) -> "LinearOperator":
        return self * -1.0

    def __mul__(self, scalar: Any) -> "LinearOperator":
        return algebra.Scale(self, scalar)

    __rmul__ = __mul__

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.in_shape} -> {self.out_shape})"


def round_up(bound: Array, ulps: float = 4) -> Array:
    """A norm bound with an allowance for its own rounding, so that it is not below the truth."""
    return bound * (1 + ulps * float(jnp.finfo(bound.dtype).eps))


def check_shape(shape: Sequence[int]) -> Shape:
    """A shape as a tuple of positive Python integers, or a ValueError."""
    out = tuple(int(n) for n in shape)
    if not out or min(out) < 1:
        raise ValueError(f"a shape has one or more axes of length 1 or more, got {tuple(shape)}")
    return out


# At the end: the algebra's classes are operators themselves.
from emjax.operators import algebra  # noqa: E402
