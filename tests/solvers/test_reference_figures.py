"""Figures of the l1 literature, each recomputed: a Pareto curve, the three forms, state evolution's risk."""

import functools

import jax
import numpy as np
import pytest

from emjax import L1, L1Ball, L2Ball, LeastSquares, Problem, solve
from emjax.operators import Dense
from emjax.reconstructors import AMP, SoftThreshold
from emjax.solvers import FISTA, PDHG, ParetoRoot

x64 = functools.partial(jax.enable_x64, True)


def blocks(n: int) -> np.ndarray:
    """The piecewise constant signal of Donoho and Johnstone (1994)."""
    t = np.arange(1, n + 1) / n
    places = (0.1, 0.13, 0.15, 0.23, 0.25, 0.40, 0.44, 0.65, 0.76, 0.78, 0.81)
    heights = (4, -5, 3, -4, 5, -4.2, 2.1, 4.3, -3.1, 2.1, -4.2)
    return sum((1 + np.sign(t - p)) * h / 2 for p, h in zip(places, heights, strict=True))


CURVE = {3.349281: 18.171052, 11.719984: 10.730045, 20.090687: 7.206112, 28.461390: 4.163475, 36.832093: 1.383963}


def test_the_pareto_curve_of_sparco_9() -> None:
    """Jumps that add up to Blocks (van den Berg and Friedlander 2008, figure of problem 9), from the radius to the
    residual and back."""
    b, A = blocks(128), Dense(np.tril(np.ones((128, 128))))
    assert np.linalg.norm(b) == pytest.approx(27.80755293)
    radii, residuals = np.array(list(CURVE)), np.array(list(CURVE.values()))
    with x64():
        ball = solve(Problem(LeastSquares(A, np.stack([b] * 5)), L1Ball(radii)), FISTA(), gap=1e-7, max_steps=30_000)
        np.testing.assert_allclose(np.sqrt(2 * ball.check().objective), residuals, rtol=1e-6)
        problem = Problem(L2Ball(A, np.stack([b] * 5), residuals), L1(1.0))
        root = solve(problem, ParetoRoot(), gap=2e-5, max_steps=30_000)
        np.testing.assert_allclose(root.check().objective, radii, rtol=1e-4)


@pytest.mark.slow
def test_basis_pursuit_of_sparco_9() -> None:
    with x64():
        A = Dense(np.tril(np.ones((128, 128))))
        root = solve(Problem(L2Ball(A, blocks(128), 0.0), L1(1.0)), ParetoRoot(), gap=0.0, max_steps=60_000)
        assert float(root.objective) == pytest.approx(41.0, rel=1e-5)


def test_the_three_forms() -> None:
    """The example of SPGL1: a ball of radius pi, basis pursuit, and denoising, on orthonormal rows."""
    rng = np.random.RandomState(43273289)
    matrix = np.linalg.qr(rng.randn(128, 50))[0].T
    places = rng.permutation(128)[:14]
    x = np.zeros(128)
    x[places] = rng.randn(14)
    b = matrix @ x
    noisy = b + 0.075 * rng.randn(50)
    with x64():
        A = Dense(matrix, orthonormal=True)
        ball = solve(Problem(LeastSquares(A, b), L1Ball(np.pi)), gap=1e-8).check()
        pursuit = solve(Problem(L2Ball(A, b, 0.0), L1(1.0)), PDHG(), gap=1e-6, max_steps=20_000).check()
        sigma = 0.1 * np.linalg.norm(noisy)
        root = solve(Problem(L2Ball(A, noisy, sigma), L1(1.0)), ParetoRoot(), gap=1e-7, max_steps=20_000).check()
        found = [float(np.sqrt(2 * ball.objective)), float(pursuit.objective), float(root.objective)]
    np.testing.assert_allclose(found, [2.68870735, 17.57008258, 17.23783829], rtol=1e-5)


RISK = {1.0: (0.2576, 0.1130), 1.25: (0.4294, 0.0979), 1.4: (0.5439, 0.09585), 2.0: (1.0464, 0.1061)}


@pytest.mark.slow
def test_the_risk_of_the_lasso() -> None:
    """delta 0.64, sparsity 0.128, noise variance 0.2, entries of +-1 (Bayati and Montanari 2012): by AMP."""
    m, n, trials = 1280, 2000, 8
    rng = np.random.default_rng(9)
    matrix = (rng.standard_normal((m, n)) / m**0.5).astype("f4")
    x = ((rng.random((trials, n)) < 0.128) * rng.choice([-1, 1], (trials, n))).astype("f4")
    y = x @ matrix.T + 0.2**0.5 * rng.standard_normal((trials, m)).astype("f4")
    for alpha, (weight, error) in RISK.items():
        method = AMP(SoftThreshold(alpha), iterations=60)
        found, trace = jax.jit(jax.vmap(lambda one, method=method: method.trace(one, Dense(matrix))))(y)
        assert np.mean((np.asarray(found) - x) ** 2) == pytest.approx(error, rel=0.05)
        ends = alpha * np.asarray(trace.sigma)[:, -1] * (1 - np.mean(np.asarray(found) != 0, 1) / 0.64)
        assert ends.mean() == pytest.approx(weight, rel=0.05)
