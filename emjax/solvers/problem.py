"""What is solved: a data term plus a sum of convex terms,

    minimise over x in the box   data(x) + sum_i g_i(K_i x).

`TV(w)` is a factory: it becomes terms once the shape of `x` is known, because its own prox would be a solve. `TGV(w)`
is one too, and brings a hidden variable: the problem is then one of the stack of the image and a vector field.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, pytree_dataclass, static
from emjax.functionals import L1, Box, Fidelity, Functional, GroupL1, LeastSquares, NuclearNorm
from emjax.functionals.base import check_broadcast, weights
from emjax.operators import (
    FiniteDifference,
    GradientLessField,
    Identity,
    LinearOperator,
    OnField,
    OnImage,
    SymmetricGradient,
)
from emjax.operators.base import Shape, complex_items


@pytree_dataclass
class Term:
    """`g(K x)`: a functional behind a linear map."""

    functional: Functional
    K: LinearOperator

    def __post_init__(self) -> None:
        if not isinstance(self.functional, Functional) or not isinstance(self.K, LinearOperator):
            raise TypeError(
                "Term takes a functional and a linear operator, got "
                f"{type(self.functional).__name__} and {type(self.K).__name__}"
            )
        weight = getattr(self.functional, "weight", None)
        if weight is not None and not isinstance(self.functional, NuclearNorm):
            check_broadcast(f"the weight of {type(self.functional).__name__}", weight, self.K.out_shape)
        assign(self, functional=self.functional.with_ndim(len(self.K.out_shape)))

    def __call__(self, x: Array) -> Array:
        return self.functional(self.K.forward(x))

    @property
    def lowered_by_clipping(self) -> bool:
        """Whether clipping `x` to any interval never raises the term (true of total variation)."""
        return isinstance(self.K, FiniteDifference) and isinstance(self.functional, L1 | GroupL1)


@pytree_dataclass
class TV:
    """Total variation `sum_i w_i |D x|_i` with forward differences and Neumann boundaries.

    `weight` broadcasts to `(*batch, *in_shape)`. `isotropic` takes the Euclidean norm of the differences at a pixel,
    otherwise their absolute values are summed. `spacing` is the voxel size along each axis.
    Source: Rudin, Osher, Fatemi 1992.
    """

    weight: Any
    isotropic: bool = static(default=True)
    spacing: tuple[float, ...] | None = static(default=None)

    def __post_init__(self) -> None:
        spacing = None if self.spacing is None else tuple(float(s) for s in self.spacing)
        assign(self, weight=weights("the weight of total variation", self.weight), spacing=spacing)

    def terms(self, in_shape: Shape) -> tuple[Term, ...]:
        """The terms of an `x` of shape `in_shape`."""
        weight = _per_pixel("the weight of total variation", self.weight, in_shape)
        norm = GroupL1 if self.isotropic else L1
        return (Term(norm(weight, ndim=len(in_shape) + 1), FiniteDifference(in_shape, self.spacing)),)


def _per_pixel(what: str, weight: Array, in_shape: Shape) -> Array:
    """A weight for images with room for the axis of directions."""
    check_broadcast(what, weight, in_shape)
    ndim = len(in_shape)
    return jnp.expand_dims(weight, weight.ndim - ndim) if weight.ndim >= ndim > 0 else weight


@pytree_dataclass
class TGV:
    """Second-order total generalised variation, `min_v weight |D x - v|_1 + ratio weight |E v|_1`.

    `v` is a vector field and `E` its symmetrised gradient: affine images cost nothing, so that slopes do not break into
    steps as they do with TV. `weight` broadcasts to `(*batch, *in_shape)`, and so does its product with `ratio`;
    `spacing` as for `TV`. A ratio of 2 is usual for images of edges; sparse scans of tissue want 0.5 or less, by up to
    3 dB, and are solved sooner. One such term a problem. Unless every pixel is measured, a certificate needs a `Box`;
    and weights above zero everywhere: near one of exactly zero it stays loose.
    Source: Bredies, Kunisch, Pock 2010.
    """

    weight: Any
    ratio: Any = 0.5
    spacing: tuple[float, ...] | None = static(default=None)

    def __post_init__(self) -> None:
        spacing = None if self.spacing is None else tuple(float(s) for s in self.spacing)
        ratio = weights("the ratio of the weights of TGV", self.ratio)
        assign(self, weight=weights("the weight of TGV", self.weight), ratio=ratio, spacing=spacing)

    def terms(self, in_shape: Shape) -> tuple[Term, Term]:
        """The terms of a stack of an image of shape `in_shape` and a field: first and second order."""
        ndim = len(in_shape)
        first = _per_pixel("the weight of TGV", self.weight, in_shape)
        second = _per_pixel("the weights of TGV", self.weight * self.ratio, in_shape)
        return (
            Term(GroupL1(first, ndim=ndim + 1), GradientLessField(in_shape, self.spacing)),
            Term(GroupL1(second, ndim=ndim + 1), OnField(SymmetricGradient(in_shape, self.spacing))),
        )


@pytree_dataclass
class Problem:
    """`Problem(data, *terms)`: each term a `Term`, a functional of `x` itself, a `Box`, or a factory such as `TV`.

    The data term is `LeastSquares` or another `Fidelity`: `PoissonLikelihood`, `HuberLoss`, `L2Ball`.

    Arrays inside may carry leading batch axes (measurements, masks, weights): each item is its own problem.
    `fields` is 0, or with a `TGV` the number of components of its field: data, terms and box are then those of the
    stack `(1 + fields, *in_shape)`, and the last two terms are its own.
    Raises TypeError or ValueError where the parts do not fit.
    """

    data: LeastSquares | Fidelity
    terms: tuple[Term, ...]
    box: Box | None
    fields: int = static(default=0)

    def __init__(self, data: LeastSquares | Fidelity, *terms: Any) -> None:
        if not isinstance(data, LeastSquares | Fidelity):
            raise TypeError(
                f"the first argument of Problem is a data term such as LeastSquares(A, y), got {type(data)}"
            )
        shape = data.A.in_shape
        flat: list[Term] = []
        second: tuple[Term, ...] = ()
        box: Box | None = None
        for term in terms:
            if isinstance(term, Box):
                # The intersection of boxes is a box.
                low, high = (
                    (term.low, term.high)
                    if box is None
                    else (
                        jnp.maximum(box.low, term.low),
                        jnp.minimum(box.high, term.high),
                    )
                )
                box = Box(low, high, len(shape))
            elif isinstance(term, TGV):
                if second:
                    raise ValueError("a problem takes one TGV, got two")
                second = term.terms(shape)
            elif hasattr(term, "terms"):
                flat.extend(term.terms(shape))
            elif isinstance(term, Functional):
                flat.append(Term(term, Identity(shape)))
            elif isinstance(term, Term):
                flat.append(term)
            else:
                raise TypeError(
                    f"a term is a functional, a Term(functional, operator) or a factory like TV, got {type(term)}"
                )
        for one in flat:
            if one.K.in_shape != shape:
                raise ValueError(f"the term {one.functional} acts on shape {one.K.in_shape}, but x has shape {shape}")
        if box is not None and complex_items(data.A, data.y):
            raise TypeError("a Box bounds real items; these are complex, for the operator or the measurements are")
        fields = len(shape) if second else 0
        if fields and jnp.issubdtype(data.A.in_dtype, jnp.complexfloating):
            raise TypeError("TGV takes real images; this operator acts on complex ones (Fourier has real=True)")
        if fields:
            data = dataclasses.replace(data, A=OnImage(data.A, fields))  # type: ignore[type-var]
            flat = [*(Term(one.functional, OnImage(one.K, fields)) for one in flat), *second]
            box = _box_of_stack(box, fields, len(shape))
        assign(self, data=data, terms=tuple(flat), box=box, fields=fields)

    @property
    def in_shape(self) -> Shape:
        shape = self.data.A.in_shape
        return shape[1:] if self.fields else shape

    @property
    def least_squares(self) -> LeastSquares:
        """The data term of a problem that is known to have this one."""
        assert isinstance(self.data, LeastSquares)
        return self.data

    def objective(self, x: Array) -> Array:
        """The objective of one item (the box aside); with a `TGV`, of the stack of an image and a field."""
        return self.data(x) + total([term(x) for term in self.terms])

    def image(self, x: Array) -> Array:
        """The image of one item's variable."""
        return x[0] if self.fields else x

    def variable(self, image: Array) -> Array:
        """One item's variable that holds an image, with a field of zero."""
        if not self.fields:
            return image
        return jnp.concatenate([image[None], jnp.zeros((self.fields, *image.shape), image.dtype)])


def _box_of_stack(box: Box | None, fields: int, ndim: int) -> Box:
    """The box of the image, infinite for the field (and for the image where there is none)."""
    is_image = (np.arange(1 + fields) == 0).reshape(-1, *[1] * ndim)

    def bound(value: Any, infinite: float) -> Any:
        value = jnp.asarray(value)
        value = jnp.expand_dims(value, value.ndim - ndim) if value.ndim >= ndim else value
        return jnp.where(is_image, value, infinite)

    low, high = (-jnp.inf, jnp.inf) if box is None else (box.low, box.high)
    return Box(bound(low, -jnp.inf), bound(high, jnp.inf), ndim + 1)


def total(parts: Sequence[Array]) -> Array:
    """The sum of scalars, zero for none."""
    return jnp.sum(jnp.stack(list(parts))) if parts else jnp.zeros(())
