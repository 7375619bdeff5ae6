"""Douglas-Rachford splitting (Lions and Mercier 1979; as ADMM: Eckstein and Bertsekas 1992), over-relaxed, balanced.

    minimise 1/2 |A x - y|^2 + g(z)   such that z = W x,    W.H W = W W.H = k I

    x' = argmin_x 1/2 |A x - y|^2 + c/2 |W x - z + p/c|^2
    h  = rho W x' + (1 - rho) z,                                  1 <= rho < 2
    p' = the projection of p + c h to the dual ball of g,         z' = h + (p - p') / c

for operators whose least squares have a prox in closed form: subsampled DCT, Fourier and Hadamard transforms, and a
matrix of which one inverse is kept, for all blocks of an image. A step costs as many transforms as one of FISTA. The
residual of `x'` is the dual point of a certificate: it settles sooner than that of an image whose coefficients were
shrunk, and takes a third to a half of the steps.

A matrix is multiplied by the transform once (`in_coefficients`), and each coefficient then has a penalty of its own,

    c_i = c w_i / (w_i + c r_i),    r_i the root mean square of the coefficient over all blocks,

set at certificates 2, 6 and 12: the low frequencies of an image are a hundred times as large as most others. To 1e-4
that takes 0.8 times the steps of one balanced penalty (the mean of 60 problems; 1.6 times at most).
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.scipy.linalg import solve_triangular

from emjax._pytree import pytree_dataclass, static
from emjax.functionals import L1, Functional, LeastSquares
from emjax.solvers.certificate import Certificate, from_primal, norm
from emjax.solvers.coefficients import Coefficients, in_coefficients, penalised_gram
from emjax.solvers.loop import balancing
from emjax.solvers.problem import Problem


class Plan(NamedTuple):
    problem: Problem  # in coefficients where `inside` says so
    inside: Coefficients | None
    isometry: Array  # k
    back: Array  # A.H y
    gram: Array | None  # A A.H, where the prox needs an inverse
    start: Array  # the penalty c to begin with
    scale: Array  # that of the problem's scale, which coefficients are weighed by


class State(NamedTuple):
    x: Array
    z: Array
    p: Array
    c: Array  # a number, or one for each coefficient of a block
    factor: Array | None  # of the x-update at this c
    dual: tuple[Array, Array] | None  # u, the residual A x - y, and A.H u, where the x-update keeps a factor
    anchor: tuple[Array, Array]  # z and p at the last balancing
    checks: Array


@pytree_dataclass
class DouglasRachford:
    """Settings: `rho`, the penalty c at the start (None: from the problem's scale), `relaxation`, `balance` (adapt the
    penalty), `check_every` steps a certificate."""

    rho: Array | float | None = None
    relaxation: Array | float = 1.7
    balance: bool = static(default=True)
    check_every: int = static(default=10)

    looks_late = True  # the first certificate of a fresh start comes after the first steps

    def supports(self, problem: Problem) -> str | None:
        data = problem.data
        if not isinstance(data, LeastSquares) or problem.box is not None or len(problem.terms) != 1:
            return "DouglasRachford takes least squares plus one term without a box; use PDHG"
        if not (data.has_prox or (data.weight is None and data.A.has_row_gram)):
            return (
                f"DouglasRachford needs the prox of the least squares, which has no closed form for {data.A}; use FISTA"
            )
        term = problem.terms[0]
        if not hasattr(term.functional, "shrink") or not hasattr(term.functional, "project"):
            return f"DouglasRachford takes an l1-type term, got {type(term.functional).__name__}; use FISTA"
        if term.K.gram_scale() is None or term.K.row_scale() is None:
            return f"DouglasRachford needs a term behind an orthonormal transform, which {term.K} is not; use PDHG"
        return None

    def prepare(self, problem: Problem) -> Plan:
        inside = None if problem.least_squares.has_prox else in_coefficients(problem)
        problem = problem if inside is None else inside.problem
        data, term = problem.least_squares, problem.terms[0]
        dtype = data.y.real.dtype
        k = term.K.gram_scale()
        assert k is not None
        k = jnp.where(k > 0, k, 1).astype(dtype)
        back = data.backprojection()
        scale = _penalty(problem, k, back).astype(dtype)
        c = scale if self.rho is None else jnp.asarray(self.rho, dtype)
        if inside is not None:
            c = jnp.broadcast_to(c, inside.matrix.shape[-1:])
        gram = None if data.has_prox else data.A.row_gram().astype(data.y.dtype)
        return Plan(problem, inside, k, back, gram, lax.stop_gradient(c), lax.stop_gradient(scale))

    def init(self, plan: Plan, x0: Array | None) -> State:
        term = plan.problem.terms[0]
        c = plan.start
        factor, dual = self._factor(plan, _first(c)), None
        if factor is not None:
            u = jax.eval_shape(plan.problem.least_squares.residual, plan.back)
            dual = jnp.zeros(u.shape, u.dtype), jnp.zeros_like(plan.back)
        if x0 is None:
            x0, dual = self._x(plan, jnp.zeros_like(plan.back), c, factor, dual)
        elif plan.inside is not None:
            x0 = plan.inside.analyse(x0)
        z = _allowed(term.functional, term.K.forward(x0))
        p = jnp.zeros_like(z)
        return State(x0, z, p, c, factor, dual, (z, p), jnp.zeros((), jnp.int32))

    def resume(self, plan: Plan, state: State) -> State:
        """The iterates stay, the dual projected to this problem's weights; the penalty is this problem's."""
        g = plan.problem.terms[0].functional
        p, z = g.project(state.p), _allowed(g, state.z)  # type: ignore[attr-defined]
        factor, dual = self._factor(plan, _first(plan.start)), self._dual(plan, state)
        checks = state.checks if plan.inside is None else jnp.zeros_like(state.checks)  # weighed anew
        return state._replace(z=z, p=p, c=plan.start, factor=factor, dual=dual, anchor=(z, p), checks=checks)

    def _dual(self, plan: Plan, state: State) -> tuple[Array, Array] | None:
        """That of a state by the matrix of this problem."""
        return None if state.dual is None else (state.dual[0], plan.problem.data.A.adjoint(state.dual[0]))

    def _x(
        self, plan: Plan, v: Array, c: Array, factor: Array | None, dual: tuple[Array, Array] | None
    ) -> tuple[Array, tuple[Array, Array] | None]:
        """`argmin_x 1/2 |A x - y|^2 + k c / 2 |x - v|^2`, and what the next one begins with.

        By a matrix `x = v - (k C)^-1 A.H u` with `u = M (A v - y)`, `M = (I + A (k C)^-1 A.H)^-1`. Where the penalty is
        small, `M` is off by a hundredth in float32. So `u` is corrected by `M` times what the last `u` leaves, for the
        same two products: where the iteration comes to rest, that is zero, and the error of `M` without effect.
        """
        data, scale = plan.problem.least_squares, _full(plan, c) * plan.isometry
        if not data.has_prox:
            assert factor is not None and dual is not None
            u, back = dual
            r = data.residual(v - back / scale) - u
            u = u + jnp.matmul(r, jnp.conj(factor), precision="highest")  # M is Hermitian: M r = r conj(M)
            back = data.A.adjoint(u)
            return v - back / scale, (u, back)
        if (rows := data.A.row_diagonal()) is not None and data.weight is None:
            # Nothing but what is measured moves, not even by the rounding of large numbers that cancel.
            return v - data.A.adjoint(data.residual(v) / (scale + rows)), None
        tau = 1 / scale
        d, v = data.gram_diagonal(), v + tau * plan.back
        return (v / (1 + tau * d) if d is not None else data.A.resolvent(v, tau)), None

    def _factor(self, plan: Plan, c: Array) -> Array | None:
        """The inverse of `I + A (k C)^-1 A.H` where the x-update takes one."""
        if plan.gram is None:
            return None
        inside, k = plan.inside, plan.isometry
        gram = plan.gram / (c * k) if inside is None or c.ndim == 0 else penalised_gram(inside.matrix, c)
        root = _inverse(jnp.linalg.cholesky(gram + jnp.eye(len(gram), dtype=gram.dtype)))
        return jnp.matmul(jnp.conj(root.T), root, precision="highest")

    def step(self, plan: Plan, state: State, last: Any = False) -> State:
        term = plan.problem.terms[0]
        z, p, c = state.z, state.p, state.c
        rho = jnp.asarray(self.relaxation, c.dtype)
        x, dual = self._x(plan, term.K.adjoint(z - p / c) / plan.isometry, c, state.factor, state.dual)
        u = p + c * (z + rho * (term.K.forward(x) - z))
        p = term.functional.project(u)  # type: ignore[attr-defined]
        return state._replace(x=x, z=(u - p) / c, p=p, dual=dual)

    def value(self, plan: Plan, state: State) -> Array:
        return self._image(plan, self._primal(plan, state.z))

    def _primal(self, plan: Plan, z: Array) -> Array:
        """The variable of the plan's problem."""
        return plan.problem.terms[0].K.adjoint(z) / plan.isometry

    def _image(self, plan: Plan, x: Array) -> Array:
        return x if plan.inside is None else plan.inside.synthesise(x)

    def certificate(self, plan: Plan, state: State) -> tuple[Certificate, Array, State]:
        x = self._primal(plan, state.z)
        certificate = from_primal(plan.problem, x, state.x)
        if plan.inside is not None:
            certificate = plan.inside.of_image(certificate, x)
        if self.balance:
            state = self._balance(plan, state) if plan.inside is None else self._weigh(plan, state)
        return certificate, self._image(plan, x), state._replace(checks=state.checks + 1)

    def _balance(self, plan: Plan, state: State) -> State:
        """Move c towards (movement of p) / (movement of z); see `balancing` for when."""

        def rebalance() -> tuple[Any, ...]:
            # Between the Euclidean norm, which a few large coefficients decide that settle at once, and the sum.
            dz, dp = (
                jnp.sqrt(norm(v) * jnp.sum(jnp.abs(v))) for v in (state.z - state.anchor[0], state.p - state.anchor[1])
            )
            moved = (dz > 0) & (dp > 0)
            ratio = jnp.where(moved, dp, 1) / jnp.where(moved, dz, 1)
            c = jnp.where(moved, jnp.sqrt(state.c * ratio), state.c).astype(state.c.dtype)
            return c, self._factor(plan, c), (state.z, state.p)

        c, factor, anchor = lax.cond(balancing(state.checks), rebalance, lambda: (state.c, state.factor, state.anchor))
        return state._replace(c=c, factor=factor, anchor=anchor)

    def _weigh(self, plan: Plan, state: State) -> State:
        """A penalty for each coefficient of a block, by its size in all of them."""
        inside = plan.inside
        assert inside is not None

        def reweigh() -> tuple[Any, ...]:
            c, weight = plan.scale, inside.weight
            finite = jnp.isfinite(weight)
            w = jnp.sum(jnp.where(finite, weight, 0), 0) / jnp.maximum(jnp.sum(finite, 0), 1)
            r = jnp.sqrt(jnp.mean(jnp.abs(state.z) ** 2, 0))
            share = w / jnp.where(r > 0, w + c * r, 1)
            c = (c * jnp.where(r > 0, jnp.maximum(share, 0.1), 1)).astype(c.dtype)
            return c, self._factor(plan, c)

        now = (state.checks == 2) | (state.checks == 6) | (state.checks == 12)
        c, factor = lax.cond(now, reweigh, lambda: (state.c, state.factor))
        return state._replace(c=c, factor=factor)

    def point(self, state: State) -> tuple[Array, Array]:
        return state.z, state.p

    def plain(self, plan: Plan, point: Any, state: State) -> Any:
        state = lax.stop_gradient(state)
        state = state._replace(z=point[0], p=point[1], factor=self._factor(plan, state.c), dual=self._dual(plan, state))
        return self.point(DouglasRachford(relaxation=1.0).step(plan, state))

    def answer(self, plan: Plan, point: Any, state: State) -> Array:
        return self._image(plan, self._primal(plan, self.plain(plan, point, state)[0]))


def _inverse(lower: Array) -> Array:
    """The inverse of a triangular matrix by halves: products, which take a fifth of a substitution's time on a CPU."""
    n = len(lower)
    if n <= 128:
        return solve_triangular(lower, jnp.eye(n, dtype=lower.dtype), lower=True)
    h = n // 2
    a, b = _inverse(lower[:h, :h]), _inverse(lower[h:, h:])
    corner = jnp.matmul(b, jnp.matmul(lower[h:, :h], a, precision="highest"), precision="highest")
    return jnp.block([[a, jnp.zeros((h, n - h), lower.dtype)], [-corner, b]])


def _first(c: Array) -> Array:
    """The one penalty of a start."""
    return c if c.ndim == 0 else c[0]


def _full(plan: Plan, c: Array) -> Array:
    """The penalty of each entry of the plan's variable."""
    return c if plan.inside is None else jnp.tile(c, plan.inside.blocks)


def _allowed(g: Functional, z: Array) -> Array:
    """Zero where a weight is infinite: constraints hold from the first certificate on."""
    return jnp.where(jnp.isinf(g.weight), 0, z) if isinstance(g, L1) else z


def _penalty(problem: Problem, k: Array, back: Array) -> Array:
    """The mean weight over the mean size of the back-projected coefficients, within reason of the curvature."""
    data, term = problem.least_squares, problem.terms[0]
    w = term.functional.weight  # type: ignore[attr-defined]
    L = data.lipschitz()
    L = jnp.where(L > 0, L, 1)
    finite = jnp.isfinite(w) & (w > 0)
    lam = jnp.sum(jnp.where(finite, w, 0)) / jnp.maximum(jnp.sum(finite), 1)
    z = term.K.forward(back) / L
    size = jnp.mean(jnp.abs(z))
    c = lam / jnp.where(size > 0, size, 1)
    return jnp.clip(jnp.where(c > 0, c, L / k), 1e-4 * L / k, 1e4 * L / k)
