"""Greedy and hard-thresholding recovery of k-sparse signals: OMP, CoSaMP, (normalised) IHT, HTP.

    minimise |A W.H c - y|   subject to   at most k entries of c are not zero,   x = W.H c

`W` is an orthonormal transform in which the item is sparse (None: the item itself). Batches over measurements and over
operators run as one vectorised program.
"""

import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax._pytree import assign, leaf, pytree_dataclass, static
from emjax.acquisition.noise import Noise
from emjax.functionals.base import weights
from emjax.operators import Dense, LinearOperator
from emjax.operators.base import complex_items
from emjax.reconstructors.base import Reconstructor, check_steps, check_transform
from emjax.solvers.gradients import count


class Atoms(NamedTuple):
    """The map from coefficients to measurements, as vectors; its columns are those of `op` over `unit`."""

    op: LinearOperator
    y: Array
    unit: Any = 1.0

    def forward(self, c: Array) -> Array:
        return self.op.forward(c.reshape(self.op.in_shape) / self.unit)

    def adjoint(self, r: Array) -> Array:
        back = self.op.adjoint(r) / self.unit
        # Real coefficients of complex measurements: the real part is the adjoint.
        return (back if complex_items(self.op, self.y) else jnp.real(back)).ravel()

    def vector(self, r: Array) -> Array:
        """Measurements as a vector whose inner product is the one of the items: for real items that of real numbers."""
        r = r.ravel()
        return jnp.concatenate([r.real, r.imag]) if self._split else r

    def measured(self, v: Array) -> Array:
        """Back from `vector`."""
        if self._split:
            real, imag = jnp.split(v, 2)
            v = lax.complex(real, imag)
        return v.reshape(self.y.shape)

    @property
    def _split(self) -> bool:
        return jnp.iscomplexobj(self.y) and not complex_items(self.op, self.y)

    @property
    def size(self) -> int:
        n = 1
        for s in self.op.in_shape:
            n *= s
        return n

    def norms(self) -> Array:
        """The norms of the columns where a closed form is known, else ones: columns are then taken as alike."""
        if isinstance(self.op, Dense):
            return jnp.sqrt(jnp.sum(jnp.abs(self.op.matrix) ** 2, axis=-2))
        d = self.op.gram_diagonal()
        return jnp.ones(self.size) if d is None else jnp.sqrt(jnp.broadcast_to(d, self.op.in_shape).ravel())


def known(y: Array, A: LinearOperator) -> Array:
    """False where measurements or operator are not finite: nothing is known of such an item."""
    unit = jnp.max(jnp.abs(y))
    y = y / jnp.where(unit > 0, unit, 1)
    return jnp.all(jnp.isfinite(y)) & jnp.all(jnp.isfinite(A.adjoint(y)))


def column_norms(A: Dense) -> Array:
    return jnp.sqrt(jnp.sum(jnp.abs(A.matrix) ** 2, axis=-2)).reshape(A.in_shape)


def column_norm(A: LinearOperator) -> Array:
    """The root mean square norm of the columns: exact for matrices and orthonormal rows, else by random probes."""
    if isinstance(A, Dense) and not A.orthonormal:
        return jnp.sqrt(jnp.mean(column_norms(A) ** 2))
    if (c := A.row_scale()) is not None:
        return jnp.sqrt(c * math.prod(A.out_shape) / math.prod(A.in_shape))
    probes = jax.random.rademacher(jax.random.key(1), (8, *A.in_shape), jnp.finfo(A.in_dtype).dtype)
    return jnp.sqrt(jnp.mean(jax.vmap(lambda p: square(A.forward(p)))(probes)) / math.prod(A.in_shape))


def square(r: Array) -> Array:
    return jnp.sum(jnp.real(r * jnp.conj(r)))


def largest(c: Array, k: int) -> Array:
    """A mask of the k largest entries of `c` in size."""
    places = lax.top_k(jnp.abs(c), k)[1]
    return jnp.zeros(c.shape, bool).at[places].set(True)


def least_squares(atoms: Atoms, support: Array, start: Array, steps: int) -> Array:
    """`argmin |A c - y|` over `c` on a support, by conjugate gradients on the normal equations, to rounding."""
    eps = jnp.finfo(jnp.real(start).dtype).eps
    c = jnp.where(support, start, 0)
    r = atoms.y - atoms.forward(c)
    s = jnp.where(support, atoms.adjoint(r), 0)
    goal = (4 * eps) ** 2 * jnp.maximum(square(jnp.where(support, atoms.adjoint(atoms.y), 0)), square(s))

    def running(state: tuple) -> Array:
        i, _, _, _, _, gamma = state
        return (i < steps) & (gamma > goal)

    def step(state: tuple) -> tuple:
        i, c, r, p, s, gamma = state
        q = atoms.forward(p)
        curvature = square(q)
        alpha = gamma / jnp.where(curvature > 0, curvature, 1)
        alpha = jnp.where(curvature > 0, alpha, 0)
        c, r = c + alpha * p, r - alpha * q
        s = jnp.where(support, atoms.adjoint(r), 0)
        new = square(s)
        new = jnp.where(curvature > 0, new, 0)  # no way on: a column of zeros
        return i + 1, c, r, s + new / jnp.where(gamma > 0, gamma, 1) * p, s, new

    return lax.while_loop(running, step, (jnp.int32(0), c, r, s, s, square(s)))[1]


@pytree_dataclass
class Greedy(Reconstructor):
    """What the greedy methods share. sparsity: k. transform: `W`. tolerance: stop at `|A x - y| <= tolerance`.

    Raises ValueError where k is larger than the number of measurements or of coefficients, or `W` does not fit.
    """

    _vectorised: ClassVar[bool] = True

    sparsity: int = static()
    tolerance: Any = leaf("_scalar", default=0.0)
    transform: LinearOperator | None = None

    def __post_init__(self) -> None:
        check_transform(self.transform)
        assign(self, sparsity=count("sparsity", self.sparsity, 1), tolerance=weights("the tolerance", self.tolerance))

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        W = self.transform
        if W is not None and (W.gram_scale() is None or W.row_scale() is None):
            raise ValueError(f"{type(self).__name__} takes an orthonormal transform, {W} is not known to be one")
        op = A if W is None else A @ W.H
        atoms = Atoms(op, y)
        if self.sparsity > min(atoms.size, y.size):
            raise ValueError(
                f"{type(self).__name__}: {self.sparsity} coefficients are more than the {y.size} measurements or the "
                f"{atoms.size} unknowns determine"
            )
        # Squares of very small and very large numbers leave the range of float32.
        unit = jnp.max(jnp.abs(y))
        unit = jnp.where((unit > 0) & jnp.isfinite(unit), unit, 1)
        method = dataclasses.replace(self, tolerance=self.tolerance / unit)
        c = unit * method._coefficients(Atoms(op, y / unit))
        c = jnp.where(known(y, op) & ~jnp.isnan(self.tolerance), c, jnp.nan).reshape(op.in_shape)
        return c if W is None else W.adjoint(c)

    def _coefficients(self, atoms: Atoms) -> Array:
        raise NotImplementedError


def _zeros(atoms: Atoms) -> Array:
    return jnp.zeros(atoms.size, atoms.adjoint(atoms.y).dtype)


@pytree_dataclass
class OMP(Greedy):
    """Orthogonal matching pursuit: one more column at a time, the one that fits the residual best.

    Source: Pati, Rezaiifar, Krishnaprasad 1993; Tropp, Gilbert 2007.
    """

    def _coefficients(self, atoms: Atoms) -> Array:
        norms = atoms.norms()
        scale = jnp.where(norms > 0, norms, jnp.inf)
        y = atoms.y

        def add(i: Array, state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            basis, support, r = state
            fit = jnp.where(support, -1, jnp.abs(atoms.adjoint(atoms.measured(r))) / scale)
            j = jnp.argmax(fit)
            go_on = (square(r) > self.tolerance**2) & (fit[j] > 0)
            unit = jnp.zeros(atoms.size, atoms.op.in_dtype).at[j].set(1)
            q = atoms.vector(atoms.forward(unit).astype(y.dtype))
            for _ in range(2):  # twice is enough (Kahan, Parlett)
                q = q - basis.T @ (jnp.conj(basis) @ q)
            size = jnp.sqrt(square(q))
            q = jnp.where(go_on & (size > 0), q / jnp.where(size > 0, size, 1), 0)
            r = r - q * jnp.sum(jnp.conj(q) * r)
            return basis.at[i].set(q), support.at[j].set(support[j] | go_on), r

        r = atoms.vector(y)
        basis = jnp.zeros((self.sparsity, r.size), r.dtype)
        support = jnp.zeros(atoms.size, bool)
        _, support, _ = lax.fori_loop(0, self.sparsity, add, (basis, support, r))
        return least_squares(atoms, support, _zeros(atoms), 4 * self.sparsity + 10)


class _Best(NamedTuple):
    c: Array
    best: Array
    error: Array
    i: Array
    moved: Array


@pytree_dataclass
class Thresholding(Greedy):
    """Methods that go from one k-sparse guess to the next until the support stays; the best guess is returned."""

    max_steps: Any = leaf("_scalar", default=100)

    def __post_init__(self) -> None:
        Greedy.__post_init__(self)
        assign(self, max_steps=check_steps(self.max_steps))

    def _coefficients(self, atoms: Atoms) -> Array:
        def running(s: _Best) -> Array:
            return (s.i < self.max_steps) & s.moved & (s.error > self.tolerance**2)

        def step(s: _Best) -> _Best:
            c = self._next(atoms, s.c)
            error = square(atoms.y - atoms.forward(c))
            better = error < s.error
            return _Best(
                c, jnp.where(better, c, s.best), jnp.minimum(error, s.error), s.i + 1, self._moves(s.c, c, better)
            )

        c = _zeros(atoms)
        begin = _Best(c, c, square(atoms.y), jnp.int32(0), jnp.bool_(True))
        best = lax.while_loop(running, step, begin).best
        return least_squares(atoms, best != 0, best, 4 * self.sparsity + 10)

    def _next(self, atoms: Atoms, c: Array) -> Array:
        raise NotImplementedError

    def _moves(self, before: Array, after: Array, better: Array) -> Array:
        return jnp.any((before != 0) != (after != 0))

    def _on_best(self, atoms: Atoms, c: Array, start: Array) -> Array:
        support = largest(c, self.sparsity)
        return least_squares(atoms, support, start, 2 * self.sparsity + 10)


@pytree_dataclass
class CoSaMP(Thresholding):
    """Compressive sampling matching pursuit: 2k candidates join the support, the best k stay.

    Source: Needell, Tropp 2009.
    """

    def _next(self, atoms: Atoms, c: Array) -> Array:
        proxy = atoms.adjoint(atoms.y - atoms.forward(c))
        wide = largest(proxy, min(2 * self.sparsity, atoms.size)) | (c != 0)
        b = least_squares(atoms, wide, c, 6 * self.sparsity + 10)
        return jnp.where(largest(b, self.sparsity), b, 0)

    def _moves(self, before: Array, after: Array, better: Array) -> Array:
        return better


def _step_size(atoms: Atoms, g: Array, support: Array) -> Array:
    """`|g_S|^2 / |A g_S|^2`: the best step along the gradient on a support."""
    g = jnp.where(support, g, 0)
    curvature = square(atoms.forward(g))
    return jnp.where(curvature > 0, square(g) / jnp.where(curvature > 0, curvature, 1), 0)


@pytree_dataclass
class IHT(Thresholding):
    """Normalised iterative hard thresholding: `c <- H_k(c + mu A.H (y - A c))`, the step found on the support.

    Source: Blumensath, Davies 2010.
    """

    max_steps: Any = leaf("_scalar", default=1000)

    def _next(self, atoms: Atoms, c: Array) -> Array:
        g = atoms.adjoint(atoms.y - atoms.forward(c))
        support = jnp.where(jnp.any(c != 0), c != 0, largest(g, self.sparsity))

        def move(mu: Array) -> Array:
            v = c + mu * g
            return jnp.where(largest(v, self.sparsity), v, 0)

        def too_far(state: tuple[Array, Array, Array]) -> Array:
            i, mu, new = state
            changed = jnp.any((new != 0) != support)
            d = new - c
            curvature = square(atoms.forward(d))
            bound = 0.99 * square(d) / jnp.where(curvature > 0, curvature, 1)
            return changed & (curvature > 0) & (mu > bound) & (i < 60)

        def shorten(state: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
            i, mu, _ = state
            return i + 1, 0.6 * mu, move(0.6 * mu)

        mu = _step_size(atoms, g, support)
        return lax.while_loop(too_far, shorten, (jnp.int32(0), mu, move(mu)))[2]

    def _moves(self, before: Array, after: Array, better: Array) -> Array:
        eps = jnp.finfo(jnp.real(after).dtype).eps
        return square(after - before) > (2 * eps) ** 2 * square(after)


@pytree_dataclass
class HTP(Thresholding):
    """Hard thresholding pursuit: the support of a gradient step, then least squares on it.

    The step is 1 for columns of norm 1 on average, which they are scaled to. (IHT's step, the best one on the support,
    does not exist here: after least squares nothing is left of the gradient there but rounding.)
    Source: Foucart 2011.
    """

    def _coefficients(self, atoms: Atoms) -> Array:
        unit = column_norm(atoms.op)
        unit = jnp.where(unit > 0, unit, 1).astype(jnp.real(atoms.y).dtype)
        return Thresholding._coefficients(self, atoms._replace(unit=unit)) / unit

    def _next(self, atoms: Atoms, c: Array) -> Array:
        return self._on_best(atoms, c + atoms.adjoint(atoms.y - atoms.forward(c)), c)
