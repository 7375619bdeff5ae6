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
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass
from emjax.acquisition.noise import Noise
from emjax.functionals import L1, L2Ball, LeastSquares
from emjax.functionals.base import weights
from emjax.operators import Identity, LinearOperator
from emjax.operators.base import complex_items
from emjax.reconstructors.base import Reconstructor, check_gap, check_steps, check_transform, recovered
from emjax.reconstructors.greedy import known
from emjax.reconstructors.message_passing import scaled
from emjax.solvers import FISTA, PDHG, Implicit, OneStep, ParetoRoot, Problem, Solver, Term, Unrolled, solve
from emjax.solvers.certificate import norm
from emjax.solvers.gradients import count


@pytree_dataclass
class SparseMethod(Reconstructor):
    """What the methods share. gap: the relative duality gap to reach. transform: `W`. gradient: how to differentiate,
    as in `solve`: `emjax.solvers.Implicit()`; without it a derivative raises.

    Raises ValueError where `W` is not known to be orthonormal.
    """

    # The solves within choose how their batch runs.
    _vectorised: ClassVar[bool] = True

    gap: Any = leaf("_scalar", default=1e-4, kw_only=True)
    max_steps: Any = leaf("_scalar", default=5000, kw_only=True)
    transform: LinearOperator | None = dataclasses.field(default=None, kw_only=True)
    gradient: Implicit | OneStep | Unrolled | None = dataclasses.field(default=None, kw_only=True)

    def _check(self) -> None:
        """Validate the settings (in `__post_init__`)."""
        check_transform(self.transform)
        assign(self, gap=check_gap(self.gap), max_steps=check_steps(self.max_steps))

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

    def _run(self, problem: Problem, solver: Solver, unit: Array, zero: Array, start: Array | None) -> Array:
        """The answer of a problem in multiples of `unit`, whose measurements are zero where the answer is `zero`."""
        if start is not None:
            start = jnp.where(zero, 0, start / unit)
        settings = {"gap": self.gap, "max_steps": self.max_steps, "gradient": self.gradient}
        return unit * recovered(solve(problem, solver, start=start, **settings))


@pytree_dataclass
class Lasso(SparseMethod):
    """Least squares with an l1 norm, certified by FISTA.

    weight: of the norm; from `max |W A.H y|` on the answer is zero. (scikit-learn's `alpha` is the weight over the
    number of measurements.)
    Source: Tibshirani 1996.
    """

    weight: Any = leaf("_scalar")

    def __post_init__(self) -> None:
        self._check()
        assign(self, weight=weights("the weight of the l1 norm", self.weight))

    def _solve(
        self, y: Array, A: LinearOperator, noise: Noise | None, factors: Array, start: Array | None = None
    ) -> Array:
        W, (y, unit) = self._transform(A), scaled(y)
        weight = self.weight * factors / unit
        # Known at once, and weights of any size with it: their squares leave the range of float32.
        zero = jnp.all(jnp.abs(W.forward(A.adjoint(y))) <= weight)
        problem = Problem(LeastSquares(A, jnp.where(zero, 0, y)), Term(L1(jnp.where(zero, 1, weight)), W))
        return self._run(problem, FISTA(), unit, zero, start)


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
        self._check()
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
        radius, (y, unit) = self._radius(y, noise), scaled(y)
        radius = radius / unit
        zero = norm(y) <= radius
        ball = L2Ball(A, jnp.where(zero, 0, y), jnp.where(zero, 0, radius))
        solver: Solver = PDHG() if self.solver is None else self.solver
        return self._run(Problem(ball, Term(L1(factors), self._transform(A))), solver, unit, zero, start)


@pytree_dataclass
class ReweightedL1(Reconstructor):
    """Iteratively reweighted l1: large coefficients are punished less and less, so that fewer measurements do.

    method: `BasisPursuit` or `Lasso`, for the first round and `rounds` more; with its `gradient` the answer has forward
    derivatives (`jax.jvp`, `jax.jacfwd`), no reverse ones, for the number of rounds is a value. offset: `d` over the
    largest coefficient of the first round; somewhat less than the smallest that is to be found.
    Source: Candès, Wakin, Boyd 2008.
    """

    _vectorised: ClassVar[bool] = True

    method: BasisPursuit | Lasso = dataclasses.field(default_factory=BasisPursuit)
    rounds: Any = leaf("_scalar", default=4)
    offset: Any = leaf("_scalar", default=0.1)

    def __post_init__(self) -> None:
        if not isinstance(self.method, SparseMethod):
            raise TypeError(f"ReweightedL1 repeats BasisPursuit() or Lasso(weight), got {self.method!r}")
        if not isinstance(self.rounds, jax.core.Tracer):
            count("rounds", self.rounds)
        offset = weights("offset", self.offset)
        if not isinstance(offset, jax.core.Tracer) and not bool(np.all((np.asarray(offset) > 0) & np.isfinite(offset))):
            raise ValueError(f"offset is a finite number above 0, got {offset}")
        assign(self, rounds=jnp.asarray(self.rounds, jnp.int32), offset=offset)

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        W, dtype = self.method._transform(A), y.real.dtype

        def again(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            x, factors, d = state
            x = self.method._solve(y, A, noise, factors, x)
            size = jnp.abs(W.forward(x)).astype(dtype)
            d = jnp.where(i == 0, (self.offset * jnp.max(size)).astype(dtype), d)
            return x, jnp.where(d > 0, d / jnp.where(d > 0, size + d, 1), 1), d

        x = jnp.zeros(A.in_shape, jnp.result_type(dtype, jnp.complex64) if complex_items(A, y) else dtype)
        begin = (x, jnp.ones(W.out_shape, dtype), jnp.zeros((), dtype))
        return jnp.where(known(y, A), lax.fori_loop(0, self.rounds + 1, again, begin)[0], jnp.nan)
