"""Sparse signals by convex programs: LASSO, basis pursuit, and their reweighted form.

    Lasso         argmin  1/2 |A x - y|^2 + weight |W x|_1
    BasisPursuit  argmin  |W x|_1   subject to   |A x - y| <= tolerance
    ReweightedL1  either of them again and again, with the weights w_i = d / (|W x|_i + d) of the last answer

`W` is an orthonormal transform in which the item is sparse (None: the item itself). Greedy methods with a given number
of coefficients are in `greedy.py`; the form `|W x|_1 <= radius` is `Problem(LeastSquares(A, y), L1Ball(radius))`.
"""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass
from emjax.acquisition.noise import Noise
from emjax.functionals import L1, L2Ball, LeastSquares
from emjax.functionals.base import weights
from emjax.operators import Identity, LinearOperator
from emjax.operators.base import as_float
from emjax.reconstructors.base import Reconstructor
from emjax.reconstructors.greedy import known
from emjax.solvers import FISTA, PDHG, ParetoRoot, Problem, Solver, Term, solve


@pytree_dataclass
class SparseMethod(Reconstructor):
    """What the methods share. gap: the relative duality gap to reach. transform: `W`.

    Raises ValueError where `W` is not known to be orthonormal.
    """

    # The solves within choose how their batch runs.
    _vectorised: ClassVar[bool] = True

    gap: Any = leaf("_scalar", default=1e-4, kw_only=True)
    max_steps: Any = leaf("_scalar", default=5000, kw_only=True)
    transform: LinearOperator | None = dataclasses.field(default=None, kw_only=True)

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        return jnp.where(known(y, A), self._solve(y, A, noise, jnp.ones((), y.real.dtype)), jnp.nan)

    def _transform(self, A: LinearOperator) -> LinearOperator:
        W = Identity(A.in_shape) if self.transform is None else self.transform
        if W.gram_scale() is None or W.row_scale() is None:
            raise ValueError(f"{type(self).__name__} takes an orthonormal transform, {W} is not known to be one")
        return W

    def _solve(
        self, y: Array, A: LinearOperator, noise: Noise | None, factors: Array, start: Array | None = None
    ) -> Array:
        """The answer for one item, its coefficients weighted by `factors`."""
        raise NotImplementedError


@pytree_dataclass
class Lasso(SparseMethod):
    """Least squares with an l1 norm, certified by FISTA.

    weight: of the norm; from `max |W A.H y|` on the answer is zero. (scikit-learn's `alpha` is the weight over the
    number of measurements.)
    Source: Tibshirani 1996.
    """

    weight: Any = leaf("_scalar")

    def __post_init__(self) -> None:
        assign(self, weight=weights("the weight of the l1 norm", self.weight))

    def _solve(
        self, y: Array, A: LinearOperator, noise: Noise | None, factors: Array, start: Array | None = None
    ) -> Array:
        problem = Problem(LeastSquares(A, y), Term(L1(self.weight * factors), self._transform(A)))
        return solve(problem, FISTA(), gap=self.gap, max_steps=self.max_steps, start=start).value


@pytree_dataclass
class BasisPursuit(SparseMethod):
    """The least l1 norm that explains the measurements up to `tolerance`: basis pursuit, and denoising.

    tolerance: None takes it from the noise level, `sigma sqrt(m + 2 sqrt(2 m))` for m measurements, which noise exceeds
    in one of forty scans; 0 without one. solver: `PDHG()` (None), or `ParetoRoot()`, which is faster on ill-conditioned
    matrices. A tolerance above `|y|` gives zero.
    Source: Chen, Donoho, Saunders 1998; Candès, Romberg, Tao 2006.
    """

    tolerance: Any = leaf("_scalar", default=None)
    solver: PDHG | ParetoRoot | None = None

    def __post_init__(self) -> None:
        if self.tolerance is not None:
            assign(self, tolerance=weights("the tolerance", self.tolerance))
        if self.solver is not None and not isinstance(self.solver, PDHG | ParetoRoot):
            raise TypeError(f"BasisPursuit is solved by PDHG() or ParetoRoot(), got {self.solver!r}")

    def _radius(self, y: Array, noise: Noise | None) -> Array:
        if self.tolerance is not None:
            return self.tolerance
        if noise is None:
            return jnp.zeros((), y.real.dtype)
        parts = y.size * (2 if jnp.iscomplexobj(y) else 1)
        return noise.read_sigma * (parts + 2 * (2 * parts) ** 0.5) ** 0.5

    def _solve(
        self, y: Array, A: LinearOperator, noise: Noise | None, factors: Array, start: Array | None = None
    ) -> Array:
        problem = Problem(L2Ball(A, y, self._radius(y, noise)), Term(L1(factors), self._transform(A)))
        solver: Solver = PDHG() if self.solver is None else self.solver
        return solve(problem, solver, gap=self.gap, max_steps=self.max_steps, start=start).value


@pytree_dataclass
class ReweightedL1(Reconstructor):
    """Iteratively reweighted l1: large coefficients are punished less and less, so that fewer measurements do.

    method: `BasisPursuit` or `Lasso`, for the first round and `rounds` more. offset: `d` over the largest coefficient
    of the first round; somewhat less than the smallest that is to be found.
    Source: Candès, Wakin, Boyd 2008.
    """

    _vectorised: ClassVar[bool] = True

    method: BasisPursuit | Lasso = dataclasses.field(default_factory=BasisPursuit)
    rounds: Any = leaf("_scalar", default=4)
    offset: Any = leaf("_scalar", default=0.1)

    def __post_init__(self) -> None:
        if not isinstance(self.method, SparseMethod):
            raise TypeError(f"ReweightedL1 repeats BasisPursuit() or Lasso(weight), got {self.method!r}")
        traced = isinstance(self.rounds, jax.core.Tracer)
        if not traced and (isinstance(self.rounds, bool) or int(self.rounds) != self.rounds or self.rounds < 0):
            raise ValueError(f"rounds is a whole number of 0 or more, got {self.rounds!r}")
        assign(self, rounds=jnp.asarray(self.rounds, jnp.int32), offset=as_float(self.offset))

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        W, dtype = self.method._transform(A), y.real.dtype

        def again(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            x, factors, d = state
            x = self.method._solve(y, A, noise, factors, x)
            size = jnp.abs(W.forward(x)).astype(dtype)
            d = jnp.where(i == 0, (self.offset * jnp.max(size)).astype(dtype), d)
            return x, jnp.where(d > 0, d / jnp.where(d > 0, size + d, 1), 1), d

        x = jnp.zeros(A.in_shape, A.in_dtype if jnp.issubdtype(A.in_dtype, jnp.complexfloating) else dtype)
        begin = (x, jnp.ones(W.out_shape, dtype), jnp.zeros((), dtype))
        return jnp.where(known(y, A), lax.fori_loop(0, self.rounds + 1, again, begin)[0], jnp.nan)
