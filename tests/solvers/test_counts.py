"""Counts: the optimum of the Poisson likelihood with a background, as SciPy finds it; nothing of unmeasured pixels."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import LinearConstraint, minimize
from solver_problems import x64

from emjax import L1, TV, Box, PoissonLikelihood, Problem, Status, solve
from emjax.operators import Blur, FiniteDifference, LinearOperator, PixelSampling, gaussian_kernel
from emjax.solvers import ADMM, PDHG

SHAPE, MANY, GAIN, BACKGROUND, TOP = (4, 5), 20, 0.1, 0.2, 3.0
RNG = np.random.default_rng(11)
TRUTHS = np.kron(RNG.random((MANY, 2, 1)), np.ones((1, 2, 5))) + 0.3 * RNG.random((MANY, *SHAPE))
MASKS = (RNG.random((MANY, *SHAPE)) < 0.7).astype(float)


def matrix(A: LinearOperator) -> np.ndarray:
    return np.asarray(A(np.eye(20).reshape(20, *SHAPE))).reshape(20, -1).T


def counts(mean: np.ndarray) -> np.ndarray:
    return RNG.poisson((mean + BACKGROUND) / GAIN) * GAIN


def likelihood(x: np.ndarray, y: np.ndarray, rows: np.ndarray) -> tuple[float, np.ndarray]:
    """`sum (z - y + y log(y / z)) / gain` with `z = rows x + b`, and its gradient."""
    z = rows @ x + BACKGROUND
    logarithm = np.where(y > 0, y * np.log(np.where(y > 0, y, 1) / z), 0)
    return float(np.sum(z - y + logarithm)) / GAIN, rows.T @ (1 - y / z) / GAIN


def smooth_optimum(y: np.ndarray, rows: np.ndarray, weight: float) -> float:
    """With the l1 norm of non-negative x, which is linear there."""

    def f(x: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = likelihood(x, y, rows)
        return value + weight * x.sum(), slope + weight

    options = {"ftol": 1e-15, "gtol": 1e-10, "maxiter": 5000, "maxfun": 50_000}
    return minimize(f, np.full(20, 0.5), jac=True, bounds=[(0, TOP)] * 20, method="L-BFGS-B", options=options).fun


def variation_optimum(y: np.ndarray, rows: np.ndarray, weight: float) -> float:
    """With anisotropic total variation, by slack variables `-t <= D x <= t`."""
    D = matrix(FiniteDifference(SHAPE))
    D = D[np.abs(D).sum(1) > 0]
    n, m = 20, len(D)

    def f(v: np.ndarray) -> tuple[float, np.ndarray]:
        value, slope = likelihood(v[:n], y, rows)
        return value + weight * v[n:].sum(), np.concatenate([slope, np.full(m, weight)])

    between = LinearConstraint(np.block([[-D, np.eye(m)], [D, np.eye(m)]]), 0, np.inf)
    start = np.concatenate([np.full(n, 0.5), np.full(m, 0.1)])
    bounds = [(0, TOP)] * n + [(0, None)] * m
    options = {"ftol": 1e-12, "maxiter": 500}
    return minimize(f, start, jac=True, bounds=bounds, constraints=[between], method="SLSQP", options=options).fun


@pytest.mark.parametrize("solver", [PDHG(), ADMM()], ids=["PDHG", "ADMM"])
@pytest.mark.parametrize("kind", ["mask, total variation", "blur, l1"])
def test_the_optimum_is_that_of_scipy(kind: str, solver: Any) -> None:
    with x64():
        A: LinearOperator
        box, A, term = Box(0.0, TOP), Blur(gaussian_kernel(0.7, radius=1), SHAPE), L1(0.5)
        ys = counts(np.asarray(A(TRUTHS)))
        if kind == "mask, total variation":
            A, term = PixelSampling(MASKS), TV(0.7, isotropic=False)  # type: ignore[assignment]
            ys = MASKS * counts(TRUTHS)
        found = solve(
            Problem(PoissonLikelihood(A, ys, GAIN, BACKGROUND), term, box), solver, gap=1e-6, max_steps=20_000
        )
        assert bool((found.status == Status.CONVERGED).all())
        if kind == "blur, l1":
            rows = [matrix(A)] * MANY
            wanted = [smooth_optimum(y.ravel(), M, 0.5) for y, M in zip(ys, rows, strict=True)]
        else:
            seen = [m.ravel() > 0 for m in MASKS]
            wanted = [variation_optimum(y.ravel()[s], np.eye(20)[s], 0.7) for y, s in zip(ys, seen, strict=True)]
        np.testing.assert_allclose(found.objective, wanted, rtol=1e-5)


def test_what_was_not_measured_has_no_background() -> None:
    """The likelihood of a scan is that of its measured pixels alone, and so is its gap."""
    with x64():
        y, mask, x = counts(TRUTHS[0]), MASKS[0], TRUTHS[1]
        data = PoissonLikelihood(PixelSampling(mask), y, GAIN, BACKGROUND)
        seen = mask.ravel() > 0
        wanted, _ = likelihood(x.ravel(), y.ravel()[seen], np.eye(20)[seen])
        np.testing.assert_allclose(data(x), wanted, rtol=1e-12)
        assert float(PoissonLikelihood(PixelSampling(0 * mask), y, GAIN, BACKGROUND)(x)) == 0
        empty = solve(Problem(PoissonLikelihood(PixelSampling(0 * mask), y, GAIN, BACKGROUND), TV(1.0), Box(0.0, TOP)))
        assert empty.status == Status.CONVERGED and float(empty.objective) == 0
        for background in (jnp.inf, jnp.nan):
            bad = PoissonLikelihood(PixelSampling(mask), y, GAIN, background)
            assert solve(Problem(bad, TV(1.0), Box(0.0, TOP)), max_steps=20).status == Status.NON_FINITE
