"""ADMM, the alternating direction method of multipliers, over-relaxed, with a balanced penalty for every block.

    minimise f(x) + sum_i g_i(z_i)   such that z_i = K_i x,     f = 0, or the least squares 1/2 |A x - y|_w^2

    x'   = x + (A.H w A + sum_i c_i K_i.H K_i)^-1 (A.H w (y - A x) + sum_i K_i.H (c_i (z_i - K_i x) - p_i))
    h_i  = rho K_i x' + (1 - rho) z_i,                                  1 <= rho < 2
    z_i' = prox_{g_i / c_i}(h_i + p_i / c_i)
    p_i' = p_i + c_i (h_i - z_i')

Where one fast transform diagonalises the normal operator, `x'` is exact (the DCT does so for total variation and for
symmetric blurs with mirrored edges); elsewhere it is a few warm conjugate gradient steps, preconditioned by what the
transform does diagonalise. `p_i'` is a subgradient of `g_i` at `z_i'`, so it is feasible for the dual problem.
Sources: Eckstein and Bertsekas 1992; Boyd et al. 2011; several penalties, balanced: Wohlberg 2017.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import Array, lax

from emjax._pytree import pytree_dataclass, static
from emjax.functionals import Box, Fidelity, Functional, LeastSquares, SquaredDistance
from emjax.operators import DCT, Identity, LinearOperator
from emjax.solvers import pdhg
from emjax.solvers.certificate import Certificate, from_dual, from_primal, norm, primal_dual
from emjax.solvers.loop import balancing
from emjax.solvers.problem import Problem, Term


@pytree_dataclass
class Pixels(Functional):
    """A data term as a function of `x` itself, with the box."""

    data: LeastSquares | Fidelity
    box: Box | None

    @property
    def ndim(self) -> int:  # type: ignore[override]
        return len(self.data.A.in_shape)

    def prox(self, x: Array, step: Array) -> Array:
        x = self.data.prox(x, step)
        return x if self.box is None else self.box.prox(x)


@pytree_dataclass
class Plan:
    """Where the data is: among the blocks as `pixels` (of x) or `measured` (of A x), or `normal`, in the x-update."""

    base: pdhg.Plan
    blocks: tuple[Term, ...]  # the data first if it is among them, the box, then the terms
    spectra: tuple[Array | None, ...]  # of the data in the x-update, then of each block, in the basis
    start: tuple[Array, ...]  # the penalties to begin with
    data: str = static()
    basis: str | None = static()  # that diagonalises all

    @property
    def problem(self) -> Problem:
        return self.base.problem


class State(NamedTuple):
    x: Array
    seen: tuple[Array, ...]  # K x
    images: tuple[Array, ...]  # z
    duals: tuple[Array, ...]
    balance: tuple[Array, ...]  # the penalties over their first guess
    anchor: tuple[tuple[Array, ...], tuple[Array, ...]]  # images and duals at the last balancing
    checks: Array


@pytree_dataclass
class ADMM:
    """Settings: `rho`, the penalty c of every block at the start (None: from the problem's scale), `relaxation`,
    `balance` (adapt the penalties), `inner_steps` of conjugate gradients, `check_every` steps a certificate."""

    rho: Array | float | None = None
    relaxation: Array | float = 1.7
    balance: bool = static(default=True)
    inner_steps: int = static(default=5)
    check_every: int = static(default=10)

    def supports(self, problem: Problem) -> str | None:
        return "ADMM does not know the field of a TGV; use PDHG" if problem.fields else None

    def prepare(self, problem: Problem) -> Plan:
        data, base = problem.data, pdhg.PDHG().prepare(problem)
        role, basis = _role(problem)
        terms = [*problem.terms]
        # A data term of single pixels takes the box with it.
        if problem.box is not None and role != "pixels":
            terms = [Term(problem.box, Identity(problem.in_shape)), *terms]
        if role == "pixels":
            box = base.box if _entrywise(data) else None
            terms = [Term(Pixels(data, box), Identity(problem.in_shape)), *terms]
            if box is None and problem.box is not None:
                terms.insert(1, Term(problem.box, Identity(problem.in_shape)))
        elif role == "measured":
            terms = [Term(_functional(data), data.A), *terms]
        spectrum = basis or "dct"
        of_data = data.A.gram_spectrum(spectrum) if role == "normal" and problem.least_squares.weight is None else None
        spectra = [of_data, *(t.K.gram_spectrum(spectrum) for t in terms)]
        dtype = base.rhs.real.dtype
        return Plan(
            base,
            tuple(terms),
            tuple(None if s is None else s.astype(dtype) for s in spectra),
            tuple(jnp.asarray(c, dtype) for c in self._penalties(base, role, terms)),
            role,
            basis,
        )

    def _penalties(self, base: pdhg.Plan, role: str, terms: Sequence[Term]) -> list[Any]:
        if self.rho is not None:
            return [self.rho] * len(terms)
        data = base.problem.data
        curvature = data.lipschitz()
        curvature = jnp.where(curvature > 0, curvature, 1)
        penalties = []
        for i, term in enumerate(terms):
            if i == 0 and role == "pixels":
                penalties.append(0.3 * curvature)
            elif i == 0 and role == "measured":
                square = data.A.norm_bound() ** 2
                penalties.append(curvature / jnp.where(square > 0, square, 1))
            elif isinstance(term.functional, Box):
                penalties.append(0.1 * curvature)
            else:
                size = term.K.norm_bound()
                penalties.append(30 / (base.scale * jnp.where(size > 0, size, 1)))
        return penalties

    def init(self, plan: Plan, x0: Array | None) -> State:
        base = plan.base
        x0 = pdhg.starting_point(base) if x0 is None else x0
        x = x0 if base.box is None else base.box.prox(x0)
        images = tuple(t.K.forward(x) for t in plan.blocks)
        duals = tuple(jnp.zeros_like(z) for z in images)
        one = jnp.ones((), base.scale.dtype)
        return State(x, images, images, duals, (one,) * len(images), (images, duals), jnp.zeros((), jnp.int32))

    def resume(self, plan: Plan, state: State) -> State:
        """The iterates stay, the duals projected to this problem's weights; the penalties follow its scale."""
        duals = tuple(t.functional.project(p) for t, p in zip(plan.blocks, state.duals, strict=True))
        return state._replace(duals=duals, anchor=(state.images, duals))

    def _c(self, plan: Plan, state: State) -> list[Array]:
        return [b * c for b, c in zip(state.balance, plan.start, strict=True)]

    def step(self, plan: Plan, state: State, last: Any = False) -> State:
        penalties, blocks = self._c(plan, state), plan.blocks
        # x' - x solves the normal equations of a residual, in which large numbers have cancelled: solving for x' itself
        # would leave the rounding of a transform in the duals, and in the gap.
        rest = jnp.zeros_like(state.x)
        if plan.data == "normal":
            rest = -plan.problem.least_squares.gradient(state.x).astype(rest.dtype)
        for term, c, z, p, v in zip(blocks, penalties, state.images, state.duals, state.seen, strict=True):
            rest = rest + term.K.adjoint(c * (z - v) - p)
        x = state.x + self._solve(plan, penalties, rest)
        rho = jnp.asarray(self.relaxation, plan.base.scale.dtype)
        seen = tuple(t.K.forward(x) for t in blocks)
        images, duals = [], []
        for term, c, z, p, v in zip(blocks, penalties, state.images, state.duals, seen, strict=True):
            v = p + c * (z + rho * (v - z))
            z, p = _split(term.functional, v, c)
            images.append(z)
            duals.append(p)
        return state._replace(x=x, seen=seen, images=tuple(images), duals=tuple(duals))

    def _solve(self, plan: Plan, penalties: Sequence[Array], rhs: Array) -> Array:
        """`(A.H w A + sum_i c_i K_i.H K_i)^-1 rhs`, nearly so without a basis."""
        known = _spectrum(plan, penalties)
        if plan.basis is not None:
            return _divide(plan.basis, rhs, known)
        # What the transform does not diagonalise stands in the preconditioner as a multiple of the identity.
        problem, (of_data, *others) = plan.problem, plan.spectra
        if plan.data == "normal" and of_data is None:
            known = known + _mean_gram(problem)
        for term, c, s in zip(plan.blocks, penalties, others, strict=True):
            known = known if s is not None else known + 0.5 * c * term.K.norm_bound().astype(c.dtype) ** 2

        def apply(v: Array) -> Array:
            out = jnp.zeros_like(v)
            for t, c in zip(plan.blocks, penalties, strict=True):
                out = out + t.K.adjoint(c * t.K.forward(v))
            if plan.data == "normal":
                data = problem.least_squares
                out = out + data.A.adjoint(data.weighted(data.A.forward(v)))
            return out

        return conjugate_gradients(apply, lambda r: _divide("dct", r, known), rhs, self.inner_steps)

    def value(self, plan: Plan, state: State) -> Array:
        # The likelihood of counts is infinite at a pixel without electrons: z = x is never there.
        x = state.images[0] if plan.data == "pixels" else state.x
        x = x if plan.base.box is None else plan.base.box.prox(x)
        return pdhg.restored(plan.base, x)

    def inexact(self, problem: Problem) -> str | None:
        """Why a step has no derivative: conjugate gradients have none where their right-hand side is zero."""
        if exact_basis(problem) is not None:
            return None
        return (
            "ADMM differentiates where one transform solves for x exactly, which none does for this problem; "
            "use PDHG or CondatVu, or gradient=Unrolled(steps)"
        )

    def point(self, state: State) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
        return state.x, state.images, state.duals

    def plain(self, plan: Plan, point: Any, state: State) -> Any:
        spectra, start = lax.stop_gradient((plan.spectra, plan.start))
        blocks = list(plan.blocks)
        if blocks and isinstance(blocks[0].functional, Pixels) and plan.base.box is not None:
            # The box of a certificate moves no optimum.
            pixels = dataclasses.replace(blocks[0].functional, box=plan.problem.box)
            blocks[0] = dataclasses.replace(blocks[0], functional=pixels)
        plan = dataclasses.replace(plan, blocks=tuple(blocks), spectra=spectra, start=start)
        x, images, duals = point
        state = lax.stop_gradient(state)._replace(
            x=x, images=images, duals=duals, seen=tuple(t.K.forward(x) for t in blocks)
        )
        return self.point(dataclasses.replace(self, relaxation=1.0).step(plan, state))

    def answer(self, plan: Plan, point: Any, state: State) -> Array:
        x, images, _ = self.plain(plan, point, state)
        return images[0] if plan.data == "pixels" else x

    def certificate(self, plan: Plan, state: State) -> tuple[Certificate, Array, State]:
        x = self.value(plan, state)
        certificate = self._certify(plan, x, state)
        if self.balance and plan.blocks:
            state = self._balance(plan, state)
        return certificate, x, state._replace(checks=state.checks + 1)

    def _certify(self, plan: Plan, x: Array, state: State) -> Certificate:
        problem, data = plan.problem, plan.problem.data
        duals = state.duals[len(plan.blocks) - len(problem.terms) :]
        q = state.duals[0] if plan.data == "measured" else None
        if plan.base.box is None:
            if not isinstance(data, Fidelity):
                return from_primal(problem, x)
            if q is None:
                q = data.functional.gradient(data.A.forward(x))  # type: ignore[attr-defined]
            return from_dual(problem, x, q)
        if q is None and isinstance(data, LeastSquares) and plan.base.diagonal is None:
            # Of z = x the data's dual is A.H q.
            q = data.weighted(data.residual(state.images[0] if plan.data == "pixels" else x))
        return primal_dual(problem, plan.base.box, x, q, duals)

    def _balance(self, plan: Plan, state: State) -> State:
        """Move each `c` towards (movement of p) / (movement of z); see `balancing` for when"""

        def rebalance() -> tuple[Any, Any]:
            balance = []
            for b, c, z, p, z0, p0 in zip(
                state.balance, plan.start, state.images, state.duals, *state.anchor, strict=True
            ):
                dz, dp = norm(z - z0), norm(p - p0)
                moved = (dz > 0) & (dp > 0)
                ratio = jnp.where(moved, dp, 1) / jnp.where(moved, dz, 1) / (b * c)
                balance.append((b * jnp.where(moved, jnp.sqrt(ratio), 1)).astype(b.dtype))
            return tuple(balance), (state.images, state.duals)

        balance, anchor = lax.cond(balancing(state.checks), rebalance, lambda: (state.balance, state.anchor))
        return state._replace(balance=balance, anchor=anchor)


def _split(g: Functional, v: Array, c: Array) -> tuple[Array, Array]:
    """`v = c z + p` with `p` a subgradient of `g` at `z`; whichever is constrained is met exactly."""
    if isinstance(g, Pixels | Box):
        z = g.prox(v / c, 1 / c)
        return z, v - c * z
    p = g.conjugate_prox(v, c)
    return (v - p) / c, p


def exact_basis(problem: Problem) -> str | None:
    """The transform in which ADMM solves for x exactly, None if there is none."""
    return _role(problem)[1]


def _role(problem: Problem) -> tuple[str, str | None]:
    """Where the data goes, and the basis that makes the x-update exact: the data in the x-update where that works."""
    data = problem.data
    terms = [t.K for t in problem.terms]
    with_data, without = _basis([data.A, *terms]), _basis(terms)
    if isinstance(data, Fidelity):
        return ("pixels", without) if data.separable else ("measured", with_data)
    if data.gram_diagonal() is not None:
        return "pixels", without
    if with_data is not None:
        return ("normal" if data.weight is None else "measured"), with_data
    if data.has_prox and without is not None:
        return "pixels", without
    return "normal", None


def _basis(operators: Sequence[LinearOperator]) -> str | None:
    for basis in ("dct", "fft"):
        if all(K.gram_spectrum(basis) is not None for K in operators):
            return basis
    return None


def _entrywise(data: LeastSquares | Fidelity) -> bool:
    return isinstance(data, Fidelity) or data.gram_diagonal() is not None


def _functional(data: LeastSquares | Fidelity) -> Functional:
    return data.functional if isinstance(data, Fidelity) else SquaredDistance(data.y, data.weight, len(data.out_shape))


def _spectrum(plan: Plan, penalties: Sequence[Array]) -> Array:
    of_data, *others = plan.spectra
    parts = [c * s for c, s in zip(penalties, others, strict=True) if s is not None]
    parts += [] if of_data is None else [of_data]
    return sum(parts, jnp.zeros((), plan.base.scale.dtype))


def _mean_gram(problem: Problem) -> Array:
    """The mean of the diagonal of `A.H w A`, roughly."""
    data = problem.least_squares
    weight = 1 if data.weight is None else jnp.mean(data.weight)
    probe = data.A.forward(jnp.ones(data.A.in_shape, data.y.real.dtype))
    return weight * jnp.sum(jnp.abs(probe) ** 2) / math.prod(data.A.in_shape)


def _divide(basis: str, v: Array, spectrum: Array) -> Array:
    """`U.H (U v / spectrum)`; zero where the spectrum is."""
    inverse = jnp.where(spectrum > 0, 1 / jnp.where(spectrum > 0, spectrum, 1), 0)
    if spectrum.ndim == 0:
        return inverse * v
    if basis == "dct":
        C = DCT(v.shape)
        return C.adjoint(inverse * C.forward(v))
    if jnp.iscomplexobj(v):
        return jnp.fft.ifftn(inverse * jnp.fft.fftn(v))
    half = inverse[..., : v.shape[-1] // 2 + 1]
    return jnp.fft.irfftn(half * jnp.fft.rfftn(v), s=v.shape)


def conjugate_gradients(apply: Any, precondition: Any, rhs: Array, steps: int) -> Array:
    """A few steps for `apply(x) = rhs` from zero; none once the residual has vanished."""

    def dot(a: Array, b: Array) -> Array:
        return jnp.sum(jnp.real(jnp.conj(a) * b))

    x, residual = jnp.zeros_like(rhs), rhs
    direction = precondition(residual)
    rz = dot(residual, direction)
    for i in range(steps):
        applied = apply(direction)
        curvature = dot(direction, applied)
        alive = (curvature > 0) & (rz > 0)
        alpha = jnp.where(alive, rz / jnp.where(alive, curvature, 1), 0)
        x = x + alpha * direction
        if i + 1 < steps:
            residual = residual - alpha * applied
            z = precondition(residual)
            before, rz = rz, dot(residual, z)
            direction = z + jnp.where(alive, rz / jnp.where(alive, before, 1), 0) * direction
    return x
