"""What is solved: a data term plus a sum of convex terms,

    minimise over x in the box   data(x) + sum_i g_i(K_i x).

`TV(w)` is a factory: it becomes terms once the shape of `x` is known, because its own prox would be a solve.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array

from emjax._pytree import assign, pytree_dataclass, static
from emjax.functionals import L1, Box, Fidelity, Functional, GroupL1, LeastSquares, NuclearNorm
from emjax.functionals.base import check_broadcast, weights
from emjax.operators import FiniteDifference, Identity, LinearOperator
from emjax.operators.base import Shape


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
        ndim, weight = len(in_shape), self.weight
        check_broadcast("the weight of total variation", weight, in_shape)
        if weight.ndim >= ndim > 0 and weight.ndim:
            weight = jnp.expand_dims(weight, weight.ndim - ndim)  # room for the axis of directions
        norm = GroupL1 if self.isotropic else L1
        return (Term(norm(weight, ndim=ndim + 1), FiniteDifference(in_shape, self.spacing)),)


@pytree_dataclass
class Problem:
    """`Problem(data, *terms)`: each term a `Term`, a functional of `x` itself, a `Box`, or a factory such as `TV`.

    The data term is `LeastSquares` or another `Fidelity`: `PoissonLikelihood`, `HuberLoss`, `L2Ball`.

    Arrays inside may carry leading batch axes (measurements, masks, weights): each item is its own problem.
    Raises TypeError or ValueError where the parts do not fit.
    """

    data: LeastSquares | Fidelity
    terms: tuple[Term, ...]
    box: Box | None

    def __init__(self, data: LeastSquares | Fidelity, *terms: Any) -> None:
        if not isinstance(data, LeastSquares | Fidelity):
            raise TypeError(
                f"the first argument of Problem is a data term such as LeastSquares(A, y), got {type(data)}"
            )
        shape = data.A.in_shape
        flat: list[Term] = []
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
        assign(self, data=data, terms=tuple(flat), box=box)

    @property
    def in_shape(self) -> Shape:
        return self.data.A.in_shape

    @property
    def least_squares(self) -> LeastSquares:
        """The data term of a problem that is known to have this one."""
        assert isinstance(self.data, LeastSquares)
        return self.data

    def objective(self, x: Array) -> Array:
        """The objective of one item (the box aside)."""
        return self.data(x) + total([term(x) for term in self.terms])


def total(parts: Sequence[Array]) -> Array:
    """The sum of scalars, zero for none."""
    return jnp.sum(jnp.stack(list(parts))) if parts else jnp.zeros(())
