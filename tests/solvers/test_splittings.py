"""ADMM, Condat and Vu's method and preconditioned PDHG: other ways to the optimum that PDHG certifies."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_problems import x64

from emjax import L1, TV, Box, HuberLoss, L2Ball, LeastSquares, PoissonLikelihood, Problem, Status, Term, solve
from emjax.operators import (
    Blur,
    Dense,
    FiniteDifference,
    LinearOperator,
    PixelSampling,
    SubsampledFourier,
    SubsampledHadamard,
    Wavelet,
    gaussian_kernel,
)
from emjax.solvers import ADMM, PDHG, CondatVu, choose
from emjax.solvers.admm import exact_basis

SHAPE = (8, 8)
RNG = np.random.default_rng(4)
TRUTH = np.kron(RNG.random((2, 2)), np.ones((4, 4)))
NOISE = 0.05 * RNG.standard_normal(SHAPE)
MASK = (RNG.random(SHAPE) < 0.6).astype(float)
COUNTS = RNG.poisson(20 * TRUTH + 1) / 20
VOLUME = np.kron(RNG.random((2, 2, 2)), np.ones((2, 3, 2))) + 0.05 * RNG.standard_normal((4, 6, 4))
BOX = (0.0, 1.0)


def blur(boundary: str, sigma: float = 1.0) -> Blur:
    return Blur(gaussian_kernel(sigma, radius=2), SHAPE, boundary, symmetric=boundary == "reflect")


def seen(A: LinearOperator, *terms: Any, weight: Any = None) -> Problem:
    return Problem(LeastSquares(A, A(TRUTH + 0.5 * NOISE), weight), *terms)


PROBLEMS: dict[str, Callable[[], Problem]] = {
    "inpainting": lambda: seen(PixelSampling(MASK), TV(0.05)),
    "inpainting, anisotropic, 3-D": lambda: Problem(
        LeastSquares(PixelSampling(np.ones(VOLUME.shape), ndim=3), VOLUME), TV(0.05, isotropic=False)
    ),
    "deblurring, reflect": lambda: seen(blur("reflect"), TV(0.01), Box(*BOX)),
    "deblurring, periodic": lambda: seen(blur("periodic"), TV(0.01), Box(*BOX)),
    "deblurring, zero": lambda: seen(blur("zero"), TV(0.01), Box(*BOX)),
    "deblurring, weights": lambda: seen(blur("reflect"), TV(0.01), Box(*BOX), weight=0.1 + MASK),
    "Fourier samples": lambda: seen(SubsampledFourier(MASK), TV(0.02), Box(*BOX)),
    "Hadamard samples": lambda: seen(SubsampledHadamard(MASK), TV(0.02), Box(*BOX)),
    "wavelets and total variation": lambda: seen(
        PixelSampling(MASK), TV(0.03), Term(L1(0.02), Wavelet(SHAPE, "db2")), Box(*BOX)
    ),
    "l1 and box": lambda: seen(blur("reflect", 0.5), L1(0.02), Box(*BOX)),
    "outliers": lambda: Problem(HuberLoss(PixelSampling(MASK), MASK * (TRUTH + NOISE), 0.1), TV(0.05)),
    "counts": lambda: Problem(PoissonLikelihood(PixelSampling(MASK), MASK * COUNTS, 0.05), TV(1.0), Box(0.0, 2.0)),
    "counts behind a blur": lambda: Problem(PoissonLikelihood(blur("reflect"), COUNTS, 0.05), TV(1.0), Box(0.0, 2.0)),
    "a ball": lambda: Problem(L2Ball(PixelSampling(MASK), MASK * (TRUTH + NOISE), 0.3), TV(1.0)),
}


@functools.cache
def optimum(name: str) -> Any:
    return solve(PROBLEMS[name](), PDHG(), gap=1e-8, max_steps=30_000)


SOLVERS = {"ADMM": ADMM(), "CondatVu": CondatVu(), "preconditioned": PDHG(preconditioned=True)}
# Every pair is a program to be compiled: those that say least new are slow tests.
QUICK = {
    "ADMM": {"inpainting", "counts behind a blur"},
    "CondatVu": {"l1 and box"},
    "preconditioned": {"deblurring, zero"},
}
PAIRS = [
    pytest.param(name, solver, marks=() if name in QUICK[solver] else pytest.mark.slow)
    for solver in QUICK
    for name in PROBLEMS
]


@pytest.mark.parametrize(("name", "solver"), PAIRS)
def test_the_optimum_is_that_of_pdhg(name: str, solver: str) -> None:
    with x64():
        problem = PROBLEMS[name]()
        if (reason := SOLVERS[solver].supports(problem)) is not None:
            assert solver == "CondatVu" and ("counts" in name or "ball" in name) and "smooth" in reason
            return
        s, best = solve(problem, SOLVERS[solver], gap=5e-7, max_steps=30_000), optimum(name)
        assert s.status == Status.CONVERGED and s.gap <= 1e-6 and best.gap <= 1e-6
        np.testing.assert_allclose(s.objective, best.objective, rtol=1e-6)


@pytest.mark.parametrize(("name", "basis"), [("deblurring, reflect", "dct"), ("Hadamard samples", "dct")])
def test_the_x_update_is_exact(name: str, basis: str) -> None:
    with x64():
        problem, solver = PROBLEMS[name](), ADMM()
        assert exact_basis(problem) == basis
        plan = solver.prepare(problem)
        penalties, rhs = [jnp.asarray(c) for c in (0.7, 2.0, 1.3)[: len(plan.blocks)]], RNG.standard_normal(SHAPE)

        def matrix(A: LinearOperator) -> np.ndarray:
            return np.asarray(A(np.eye(64).reshape(64, *SHAPE))).reshape(64, -1).T

        normal = sum(c * matrix(t.K).T @ matrix(t.K) for t, c in zip(plan.blocks, penalties, strict=True))
        if plan.data == "normal":
            normal = normal + matrix(problem.data.A).T @ matrix(problem.data.A)
        x = solver._solve(plan, penalties, jnp.asarray(rhs))
    np.testing.assert_allclose(np.ravel(x), np.linalg.solve(normal, rhs.ravel()), atol=1e-10)


@pytest.mark.slow
def test_the_fft_is_exact_between_periodic_operators() -> None:
    with x64():
        K = Blur(np.array([[1.0, -1.0, 0.0]]), SHAPE)  # periodic differences along the rows
        problem = Problem(LeastSquares(blur("periodic"), TRUTH), Term(L1(0.01), K), Box(*BOX))
        assert exact_basis(problem) == "fft"
        a, b = (solve(problem, s, gap=1e-7, max_steps=20_000) for s in (ADMM(), PDHG()))
        assert a.status == Status.CONVERGED
        np.testing.assert_allclose(a.objective, b.objective, rtol=1e-6)


@pytest.mark.parametrize("solver", [ADMM(), CondatVu(), PDHG(preconditioned=True)])
def test_no_weight_and_a_given_penalty(solver: Any) -> None:
    problem = seen(PixelSampling(MASK), TV(np.float32(0.0)), Box(*BOX))
    s = solve(problem, solver, gap=1e-4)
    assert s.status in (Status.CONVERGED, Status.STALLED) and s.objective < 1e-4
    if isinstance(solver, ADMM):
        given = solve(seen(PixelSampling(MASK), TV(0.05)), ADMM(rho=1.0, balance=False), gap=1e-4)
        assert given.status == Status.CONVERGED


def test_sums_of_rows_and_columns_mend_an_unbalanced_matrix() -> None:
    """Rows of one and a half decades with their inverse variances, columns with their boxes and weights."""
    rng = np.random.default_rng(0)
    gauss, rows, columns = (
        rng.standard_normal((40, 64)) / 8,
        10 ** rng.uniform(-1.5, 0, 40),
        10 ** rng.uniform(-1.5, 0, SHAPE),
    )
    y = rows * (gauss @ TRUTH.ravel() + 0.02 * rng.standard_normal(40))
    with x64():
        A = Dense(rows[:, None] * gauss * columns.ravel(), SHAPE)
        problem = Problem(LeastSquares(A, y, 1 / rows**2), L1(0.02 * columns), Box(0.0, 1 / columns))
        mended = solve(problem, PDHG(preconditioned=True), gap=1e-4, max_steps=20_000)
        assert mended.status == Status.CONVERGED
        assert solve(problem, PDHG(), gap=1e-4, max_steps=3 * mended.steps).status == Status.STEP_LIMIT


def test_differences_share_a_step_over_a_group() -> None:
    plan = PDHG(preconditioned=True).prepare(seen(PixelSampling(MASK), TV(0.1)))
    assert plan.sums is not None and plan.sums[1][0].shape == (1, *SHAPE)
    columns = FiniteDifference(SHAPE).absolute_sums()[1]
    np.testing.assert_allclose(plan.sums[0], columns)


def test_choose() -> None:
    with jax.enable_x64(True):
        assert isinstance(choose(PROBLEMS["counts behind a blur"]()), ADMM)
        assert isinstance(choose(PROBLEMS["inpainting"]()), PDHG)
