"""The gap that a solver reports against the true one, on random problems of every kind, in both precisions."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from solver_figures import cast, dense_rows, figure

from emjax import L1, TV, Box, LeastSquares, Problem, Quadratic, Term, solve
from emjax.operators import DCT, Blur, PixelSampling, SubsampledFourier, Wavelet, gaussian_kernel
from emjax.solvers import FISTA, PCG, PDHG

# What rounding leaves uncertain of the truth itself.
TRUTH = float(100 * np.finfo(np.longdouble).eps)


def random_problems(count: int) -> dict[str, tuple[list[Problem], Any]]:
    """About `count` problems in families of one shape, with the solver that takes them."""
    rng = np.random.default_rng(4)
    part = max(2, count // 20)

    def image(shape: tuple[int, ...]) -> np.ndarray:
        x = rng.random([-(-s // 4) for s in shape])
        for axis in range(len(shape)):
            x = np.repeat(x, 4, axis)
        x = x[tuple(slice(0, s) for s in shape)] + rng.choice([0, 0.1]) * rng.standard_normal(shape)
        return x * rng.choice([1, 1000.0]) + rng.choice([0, 100.0])

    def weight(x: np.ndarray) -> np.ndarray:
        return np.full((1,) * x.ndim, x.std() * 10 ** rng.uniform(-2.5, 0))

    def pixels(x: np.ndarray, soft: bool = False) -> PixelSampling:
        mask = (rng.random(x.shape) < rng.choice([1, 0.6, 0.25, 0.1])).astype(float)
        return PixelSampling(mask * 10 ** rng.uniform(-2, 0.5, x.shape) if soft else mask, x.ndim)

    def frequencies(x: np.ndarray) -> SubsampledFourier:
        mask = (rng.random(x.shape) < 0.5).astype(float)
        mask[:3, :3] = 1
        return SubsampledFourier(mask)

    def tv(shape: tuple[int, ...], isotropic: bool) -> Problem:
        x = image(shape)
        A, spacing = pixels(x), (2.0, 1.0, 1.0) if len(shape) == 3 else None
        return Problem(LeastSquares(A, A(x)), TV(weight(x), isotropic, spacing))

    def soft() -> Problem:
        x = image((16, 13))
        A = pixels(x, soft=True)
        return Problem(LeastSquares(A, A(x), rng.random(x.shape)), TV(weight(x)))

    def box(x: np.ndarray) -> Box:
        return Box(*(np.full((1, 1), np.quantile(x, q)) for q in (0.05, 0.95)))

    def boxed() -> Problem:
        x = image((16, 13))
        A = frequencies(x)
        return Problem(LeastSquares(A, A(x)), TV(weight(x)), box(x))

    def wavelet(measure: Callable[[np.ndarray], Any]) -> Problem:
        x = image((16, 16))
        A = measure(x)
        return Problem(LeastSquares(A, A(x)), Term(L1(weight(x)), Wavelet((16, 16), "db2")))

    def field() -> Problem:
        x, f = image((16, 16)), np.hypot(np.arange(16)[:, None] / 32, np.arange(16) / 32).clip(1 / 64)
        A, d = pixels(x), f ** rng.choice([2, 3, 4]) * 10 ** rng.uniform(-1, 2)
        return Problem(LeastSquares(A, A(x)), Quadratic(DCT((16, 16)), d, np.full(x.shape, x.mean())))

    def deblur() -> Problem:
        x = image((16, 16))
        A = Blur(gaussian_kernel((1.0, 1.0), radius=3), (16, 16))
        return Problem(LeastSquares(A, A(x) + 0.1 * x.std() * rng.standard_normal(x.shape)), box(x))

    recipes: dict[str, tuple[int, Callable[[], Problem], Any]] = {
        "TV, isotropic 2-D": (5, lambda: tv((16, 13), True), PDHG()),
        "TV, anisotropic 2-D": (2, lambda: tv((16, 13), False), PDHG()),
        "TV, isotropic 3-D": (2, lambda: tv((5, 6, 7), True), PDHG()),
        "TV, anisotropic 3-D": (1, lambda: tv((5, 6, 7), False), PDHG()),
        "TV, soft masks, weighted": (2, soft, PDHG()),
        "TV, Fourier samples, box": (2, boxed, PDHG()),
        "wavelet-l1, pixels, FISTA": (1, lambda: wavelet(pixels), FISTA()),
        "wavelet-l1, Fourier samples, FISTA": (1, lambda: wavelet(frequencies), FISTA()),
        "wavelet-l1, pixels, PDHG": (1, lambda: wavelet(pixels), PDHG()),
        "wavelet-l1, Fourier samples, PDHG": (1, lambda: wavelet(frequencies), PDHG()),
        "quadratic prior, PCG": (2, field, PCG()),
        "box only, FISTA": (1, deblur, FISTA()),
    }
    return {name: ([make() for _ in range(n * part)], solver) for name, (n, make, solver) in recipes.items()}


class Exact:
    """The objective of one problem by matrix products in NumPy, of the numbers that the problem holds.

    In extended precision where the machine has it: a gap of float64 may be smaller than a float64 sum is exact.
    """

    def __init__(self, problem: Problem, matrix: Callable[[Any], np.ndarray]) -> None:
        self.A, y = matrix(problem.data.A).astype(np.longdouble), np.asarray(problem.data.y).ravel()
        self.y = np.concatenate([y.real, y.imag]) if np.iscomplexobj(y) else y
        self.weight = 1.0 if problem.data.weight is None else np.asarray(problem.data.weight).ravel()
        self.term = problem.terms[0] if problem.terms else None
        if self.term is not None:
            g = self.g = self.term.functional
            self.K = matrix(g.C if isinstance(g, Quadratic) else self.term.K).astype(np.longdouble)

    def __call__(self, x: np.ndarray) -> np.longdouble:
        value = 0.5 * np.sum(self.weight * (self.A @ x.ravel() - self.y) ** 2)
        if self.term is None:
            return value
        if isinstance(self.g, Quadratic):
            c = self.K @ (x - np.asarray(self.g.mean)).ravel()
            return value + 0.5 * np.sum(np.asarray(self.g.d).ravel() * c**2)
        z = (self.K @ x.ravel()).reshape(self.term.K.out_shape)
        size = np.abs(z) if isinstance(self.g, L1) else np.linalg.norm(z, axis=0, keepdims=True)
        return value + np.sum(np.asarray(self.g.weight) * size)


def honest_gaps(quick: bool) -> None:
    """Stopped early and as late as possible; the truth is the objective in NumPy less a float64 optimum."""
    matrix = jax.jit(dense_rows)
    for name, (problems, solver) in random_problems(40 if quick else 200).items():
        for dtype in ("float64", "float32"):
            with jax.enable_x64(dtype == "float64"):
                batch = cast(jax.tree.map(lambda *v: np.stack(v), *problems), dtype)
                stops = [(0.0, 0), (0.0, 3), (0.0, 11), (0.0, 57), (1e-7, 20_000 if dtype == "float64" else 1500)]
                runs = [solve(batch, solver, gap=gap, max_steps=limit) for gap, limit in stops]
                runs = [(np.asarray(s.value, float), np.asarray(s.gap, float)) for s in runs]
            with jax.enable_x64(True):
                # The optimum of the very numbers that the solver saw.
                same = cast(batch, "float64")
                best = solve(same, solver, gap=1e-11, max_steps=20_000 if quick else 60_000)
                items = [jax.tree.map(lambda v, i=i: v[i], same) for i in range(len(problems))]
                exact = [Exact(p, lambda op: np.concatenate([np.asarray(v) for v in matrix(op)])) for p in items]
            optima = np.array([f(v) for f, v in zip(exact, np.asarray(best.value), strict=True)])
            known = np.asarray(best.gap)
            late = []
            excess = -np.inf
            for value, gap in runs:
                objective = np.array([f(v) for f, v in zip(exact, value, strict=True)])
                true = np.where(objective > optima, (objective - optima) / np.maximum(objective, 1e-300), 0)
                excess = max(excess, float(np.max(true - gap)))
                late = [float(np.median(gap)), float(np.median(true)), float(np.max(gap))]
            figure(
                f"true gap less reported gap, {name}, {dtype}",
                excess,
                TRUTH,
                instances=len(problems),
                stops=len(stops),
                reported_at_last_stop=late[0],
                true_at_last_stop=late[1],
                worst_reported=late[2],
                optimum_known_to=float(known.max()),
            )
