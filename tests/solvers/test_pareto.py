"""Basis pursuit denoising by root finding, the l1 ball, and l1 problems at their limits."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax import L1, TV, Box, L1Ball, L2Ball, LeastSquares, Problem, Status, Term, solve
from emjax.operators import DCT, Dense, FiniteDifference
from emjax.solvers import FISTA, PDHG, ParetoRoot, Unrolled

x64 = functools.partial(jax.enable_x64, True)
M, N, K, COUNT = 24, 48, 4, 5
RNG = np.random.default_rng(11)
MATRIX = RNG.standard_normal((M, N)) / M**0.5
X = np.zeros((COUNT, N))
for row in X:
    row[RNG.permutation(N)[:K]] = RNG.choice([-1, 1], K) * (1 + RNG.random(K))
NOISE = 0.05 * RNG.standard_normal((COUNT, M))
Y = X @ MATRIX.T + NOISE
EPS = np.linalg.norm(NOISE, axis=1)


def denoising(y: Any = Y, eps: Any = EPS, weight: Any = 1.0, matrix: Any = MATRIX) -> Problem:
    return Problem(L2Ball(Dense(matrix), y, eps), L1(weight))


def optimal(x: Any, y: np.ndarray, matrix: np.ndarray = MATRIX, w: Any = 1.0, atol: float = 1e-4) -> float:
    """The multiplier at which `x` meets the optimality conditions of all three forms, in NumPy."""
    x, w = np.asarray(x), np.broadcast_to(w, x.shape)
    gradient = matrix.conj().T @ (matrix @ x - y)
    normal = (w > 0) & np.isfinite(w)
    multiplier = float(np.max(np.abs(gradient[normal]) / w[normal]))
    assert (x[np.isinf(w)] == 0).all()
    np.testing.assert_allclose(gradient[w == 0], 0, atol=atol * multiplier)
    on = normal & (np.abs(x) > 1e-3)
    np.testing.assert_allclose(gradient[on], -multiplier * w[on] * x[on] / np.abs(x[on]), atol=atol * multiplier)
    return multiplier


def test_projection_onto_the_l1_ball_by_sorting() -> None:
    """The threshold from sorted entries (Duchi et al. 2008), ties and zeros among them; inside, nothing moves."""
    rng = np.random.default_rng(0)
    with x64():
        x = np.round(3 * rng.standard_normal((20, 12)), 1)
        radius = rng.uniform(0.1, 1.2, 20) * np.abs(x).sum(1)
        project = jax.jit(lambda v, r, w: L1Ball(r, w, 1).prox(v))
        for v, r, got in zip(x, radius, project(x, radius, np.ones(12)), strict=True):
            size = np.sort(np.abs(v))[::-1]
            thresholds = (np.cumsum(size) - r) / np.arange(1, 13)
            theta = max(0.0, thresholds[size > thresholds][-1])
            np.testing.assert_allclose(got, np.sign(v) * np.maximum(np.abs(v) - theta, 0), atol=1e-12)
        w = np.where(np.arange(12) == 1, 0, np.where(np.arange(12) == 2, np.inf, 1.0))
        p = project(x, np.where(np.arange(20) == 0, 0, 1.0), w)
        assert bool((p[:, 1] == x[:, 1]).all() & (p[:, 2] == 0).all())
        np.testing.assert_allclose(np.abs(np.delete(p, [1, 2], 1)).sum(1), [0, *[1] * 19], atol=1e-12)
        assert bool(jnp.isnan(project(np.full_like(x, np.nan), radius, w)).any(1).all())


def test_derivatives_of_the_projection() -> None:
    x, wave, h = np.array([1.3, -0.7, 0.2, 2.0]), np.sin(np.arange(4.0)), 1e-6
    with x64():
        value = jax.jit(lambda v, r: jnp.sum(wave * L1Ball(r, ndim=1).prox(v)))
        slopes = jax.jit(jax.grad(value, argnums=(0, 1)))(x, 1.0)
        for slope, e in zip(slopes[0], np.eye(4), strict=True):
            np.testing.assert_allclose(slope, (value(x + h * e, 1.0) - value(x - h * e, 1.0)) / 2 / h, atol=1e-6)
        np.testing.assert_allclose(slopes[1], (value(x, 1.0 + h) - value(x, 1.0 - h)) / 2 / h, atol=1e-6)


def test_the_three_forms_are_one_problem() -> None:
    """The root's l1 norm as the radius of a ball gives its eps as the residual, and its multiplier the weight."""
    with x64():
        root = solve(denoising(), ParetoRoot(), gap=1e-8, max_steps=50_000).check()
        weight = np.array([optimal(x, y) for x, y in zip(root.value, Y, strict=True)])
        data = LeastSquares(Dense(MATRIX), Y)
        ball = solve(Problem(data, L1Ball(root.objective)), FISTA(), gap=1e-9, max_steps=50_000).check()
        np.testing.assert_allclose(np.linalg.norm(ball.value @ MATRIX.T - Y, axis=1), EPS, rtol=1e-6)
        lasso = solve(Problem(data, L1(weight[:, None])), FISTA(), gap=1e-9, max_steps=50_000).check()
        np.testing.assert_allclose(lasso.value, root.value, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_gaps_are_never_below_the_truth(dtype: str) -> None:
    with x64():
        best = np.asarray(solve(denoising(), ParetoRoot(), gap=1e-9, max_steps=50_000).objective)
        tau = 0.8 * best
        data = LeastSquares(Dense(MATRIX), Y)
        ball = np.asarray(solve(Problem(data, L1Ball(tau)), FISTA(), gap=1e-12, max_steps=50_000).objective)
    with jax.enable_x64(dtype == "float64"):
        y, matrix, eps = Y.astype(dtype), MATRIX.astype(dtype), EPS.astype(dtype)
        data, room = LeastSquares(Dense(matrix), y), 1e-6 if dtype == "float32" else 1e-8
        for steps in (0, 7, 60, 700):
            s = solve(denoising(y, eps, 1.0, matrix), ParetoRoot(), gap=0.0, max_steps=steps)
            value, gap = np.asarray(s.value, float), np.asarray(s.gap, float)
            error = np.abs(value).sum(1) / best - 1
            # Too small an objective is a violation of the constraint; a gap is not more than all.
            outside = np.linalg.norm(value @ MATRIX.T - Y, axis=1) / EPS - 1
            assert (error <= gap + room).all() and (np.minimum(outside, 1) <= gap + 10 * room).all()
            f = solve(Problem(data, L1Ball(tau.astype(dtype))), FISTA(), gap=0.0, max_steps=steps)
            objective = 0.5 * np.sum((np.asarray(f.value, float) @ MATRIX.T - Y) ** 2, 1)
            assert (objective - ball <= (np.asarray(f.gap, float) + room) * objective).all()
        assert float(s.gap.max()) < 1e-4 and (np.abs(error) < 1e-4).all() and float(f.gap.max()) < 1e-4


def test_behind_a_transform_with_weights() -> None:
    W, w = DCT((N,)), np.random.default_rng(5).uniform(0.5, 2, N)
    with x64():
        basis = np.asarray(W(np.eye(N))).T
        y = MATRIX @ basis.T @ X[0] + NOISE[0]
        problem = Problem(L2Ball(Dense(MATRIX), y, EPS[0]), Term(L1(w), W))
        root = solve(problem, ParetoRoot(), gap=1e-7, max_steps=50_000).check()
        optimal(W(root.value), y, MATRIX @ basis.T, w, 1e-3)


def test_complex_items() -> None:
    rng = np.random.default_rng(5)
    matrix = (rng.standard_normal((M, N)) + 1j * rng.standard_normal((M, N))) / (2 * M) ** 0.5
    x = X[1] * np.exp(2j * np.pi * rng.random(N))
    y = matrix @ x + NOISE[1]
    with x64():
        root = solve(Problem(L2Ball(Dense(matrix), y, EPS[1]), L1(1.0)), ParetoRoot(), gap=1e-7, max_steps=50_000)
        optimal(root.check().value, y, matrix, atol=1e-3)
    assert np.linalg.norm(np.asarray(root.value) - x) < 0.3 * np.linalg.norm(x)


def test_a_batch_is_its_items() -> None:
    """Items of one matrix are vectorised; those with a matrix each run one by one on a CPU."""
    matrices = np.stack([MATRIX, MATRIX[::-1], 2 * MATRIX, MATRIX[:, ::-1], MATRIX]).astype("f4")
    y, eps, settings = Y.astype("f4"), EPS.astype("f4"), {"gap": 1e-3, "max_steps": 5000}
    for matrix in (MATRIX.astype("f4"), matrices):
        s = solve(denoising(y, eps, 1.0, matrix), ParetoRoot(), **settings).check()
        for i in (0, 3):
            one = solve(
                denoising(y[i], eps[i], 1.0, matrix if matrix.ndim == 2 else matrix[i]), ParetoRoot(), **settings
            )
            np.testing.assert_allclose(one.value, s.value[i], atol=2e-4)
            assert abs(int(one.steps) - int(s.steps[i])) <= 60


def test_one_trace() -> None:
    traces = []

    @jax.jit
    def run(y: Any, eps: Any, weight: Any, matrix: Any, gap: Any) -> Any:
        traces.append(1)
        return solve(denoising(y, eps, weight, matrix), ParetoRoot(), gap=gap).value

    run.trace(Y, EPS, np.ones(N), MATRIX, 1e-3)
    run.trace(2 * Y, 3 * EPS, np.full(N, 2.0), -MATRIX, 1e-2)
    assert len(traces) == 1


@pytest.mark.slow
def test_a_start_is_taken() -> None:
    y, eps, matrix = Y.astype("f4"), EPS.astype("f4"), MATRIX.astype("f4")
    whole = solve(denoising(y, eps, 1.0, matrix), ParetoRoot(), gap=1e-3).check()
    again = solve(denoising(y, eps, 1.0, matrix), ParetoRoot(), gap=1e-3, start=whole.value).check()
    np.testing.assert_allclose(again.objective, whole.objective, rtol=2e-3)
    assert int(again.steps.sum()) < int(whole.steps.sum())


@pytest.mark.slow
def test_unrolled() -> None:
    with x64():

        @jax.jit
        def loss(eps: jax.Array) -> jax.Array:
            problem = Problem(L2Ball(Dense(MATRIX), Y[0], eps), L1(1.0))
            return jnp.sum(jnp.abs(solve(problem, ParetoRoot(), gradient=Unrolled(400)).value))

        h = 1e-4
        slope = jax.jit(jax.grad(loss))(EPS[0])
        np.testing.assert_allclose(slope, (loss(EPS[0] + h) - loss(EPS[0] - h)) / (2 * h), rtol=1e-2)


@pytest.mark.parametrize("solver", [ParetoRoot(), pytest.param(PDHG(), marks=pytest.mark.slow)])
def test_limits(solver: Any) -> None:
    """eps above |y| (zero, at once), nothing measured, NaN, no solution at all, NaN in the matrix."""
    y = np.stack([Y[0], 0 * Y[0], np.full(M, np.nan), Y[0], Y[0]]).astype("f4")
    eps = np.array([2 * np.linalg.norm(Y[0]), 0, 0.1, 0.1, 0.1], "f4")
    matrices = np.stack([MATRIX] * 5).astype("f4")
    matrices[3], matrices[4, 0, 0] = 0, np.nan
    s = solve(denoising(y, eps, 1.0, matrices), solver, gap=1e-3, max_steps=500)
    assert s.status[1] == 0 and s.status[2] == s.status[4] == Status.NON_FINITE
    assert s.status[3] == Status.STEP_LIMIT  # nothing meets this constraint, which the gap below tells
    assert s.status[0] == 0 and s.gap[0] == s.steps[0] == 0
    np.testing.assert_allclose(s.value[:2], 0, atol=1e-6)
    assert s.gap[3] > 0.5


def test_a_ball_that_holds_zero_has_it_for_its_answer() -> None:
    """With total variation, and a box: unless the box keeps x away from zero, or the ball does."""
    A, y = Dense(MATRIX.astype("f4"), (6, 8)), Y[0].astype("f4")
    wide = 2 * np.linalg.norm(y)
    s = solve(Problem(L2Ball(A, y, wide), TV(1.0), Box(-1.0, 2.0)), PDHG(), history=3)
    assert s.status == Status.CONVERGED and s.gap == s.objective == s.steps == s.history.gap[0] == 0
    assert bool((s.value == 0).all())
    for problem in (
        Problem(L2Ball(A, y, wide), TV(1.0), Box(0.5, 1.0)),
        Problem(L2Ball(A, y, 0.5 * wide / 2), TV(1.0)),
    ):
        assert solve(problem, PDHG(), max_steps=40).steps > 0


def test_weights_of_zero_and_infinity_and_rows_twice() -> None:
    w = np.where(np.arange(N) < 3, np.inf, np.where(np.arange(N) < 5, 0.0, 1.0))
    forbidden = np.where(w == 0, 1, w)
    with x64():
        root = solve(denoising(Y[0], EPS[0], forbidden), ParetoRoot(), gap=1e-7, max_steps=20_000).check()
        optimal(root.value, Y[0], w=forbidden, atol=1e-3)
        twice = np.concatenate([MATRIX, MATRIX])
        s = solve(denoising(np.concatenate([Y[0], Y[0]]), 2**0.5 * EPS[0], forbidden, twice), ParetoRoot(), gap=1e-7)
        np.testing.assert_allclose(s.check().objective, root.objective, rtol=1e-5)
        # Free entries, which have no certificate.
        data = LeastSquares(Dense(MATRIX), Y[0])
        for g in (L1(0.1 * w), L1Ball(1.0, w)):
            s = solve(Problem(data, g), FISTA(), gap=1e-9, max_steps=3000)
            optimal(s.value, Y[0], w=w)
            assert s.status != Status.NON_FINITE and s.gap > 1e-3
    with pytest.raises(ValueError, match="weights above zero"):
        solve(denoising(Y[0], EPS[0], w), ParetoRoot())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Problem(LeastSquares(Dense(MATRIX), Y), L1(1.0)), "takes L2Ball"),
        (lambda: Problem(L2Ball(Dense(MATRIX), Y, 1.0), L1(1.0), Box(0, 1)), "use PDHG for boxes"),
        (lambda: Problem(L2Ball(Dense(MATRIX), Y, 1.0), L1(1.0), TV(1.0)), "use PDHG for boxes"),
        (lambda: Problem(L2Ball(Dense(MATRIX), Y, 1.0), TV(1.0, isotropic=True)), "an l1 norm, got GroupL1"),
        (lambda: Problem(L2Ball(Dense(MATRIX), Y, 1.0), Term(L1(1.0), FiniteDifference((N,)))), "orthonormal"),
        (lambda: Problem(L2Ball(Dense(MATRIX), Y[:, 1:], 1.0), L1(1.0)), "measurements have shape"),
    ],
)
def test_what_it_does_not_take(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        solve(make(), ParetoRoot())
