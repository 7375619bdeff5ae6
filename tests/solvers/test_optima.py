"""The optimum itself: closed forms, other methods, degenerate problems; and the gap, which is never below the truth."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.fft
import scipy.optimize

from emjax import L1, TV, Box, LeastSquares, Problem, Quadratic, Status, Term, solve
from emjax.operators import DCT, Blur, Dense, PixelSampling, Wavelet
from emjax.solvers import FISTA, PCG, PDHG

x64 = functools.partial(jax.enable_x64, True)


@pytest.mark.parametrize("isotropic", [True, False])
def test_total_variation_against_closed_forms_and_recomputed_optima(isotropic: bool) -> None:
    """A vertical step `lam/24`, `1 - lam/40`; a rectangle (anisotropic only); a noisy square with its optima."""
    step, rectangle, square = np.zeros((3, 64, 64))
    step[:, 24:], rectangle[10:42, 20:40], square[16:48, 20:40] = 1, 1, 1
    noisy = square + 0.1 * np.random.default_rng(0).standard_normal((64, 64))
    weights = np.array([0.5, 20, 0.5, 0.05, 0.1, 0.2])[:, None, None]
    with x64():
        data = LeastSquares(PixelSampling(np.ones((64, 64))), np.stack([step, step, rectangle, noisy, noisy, noisy]))
        s = solve(Problem(data, TV(weights, isotropic)), PDHG(), gap=1e-7, max_steps=20_000)
    assert s.status.tolist() == [Status.CONVERGED] * 6
    np.testing.assert_allclose(s.value[0], np.where(step > 0, 1 - 0.5 / 40, 0.5 / 24), atol=1e-6)
    np.testing.assert_allclose(s.value[1], 0.625, atol=1e-6)
    if not isotropic:
        np.testing.assert_allclose(s.value[2], np.where(rectangle > 0, 0.918750, 0.015046), atol=1e-6)
    values = (22.86812317, 30.00078748, 40.203398) if isotropic else (24.08618154, 30.42952698, 40.65752824)
    np.testing.assert_allclose(s.objective[3:], values, rtol=1e-7)
    if isotropic:
        assert -10 * np.log10(np.mean((np.asarray(s.value[4]) - square) ** 2)) == pytest.approx(34.7643, abs=1e-4)


SHAPE = (8, 7)


def instance(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random(SHAPE), (rng.random(SHAPE) < 0.6).astype(float)


@pytest.mark.parametrize("solver", [FISTA(), PDHG()])
def test_wavelet_l1_of_all_pixels_is_soft_thresholding(solver: Any) -> None:
    y, _ = instance()
    with x64():
        W = Wavelet(SHAPE, "db2")
        s = solve(Problem(LeastSquares(PixelSampling(np.ones(SHAPE)), y), Term(L1(0.2), W)), solver, gap=1e-12)
        c = W(y)
        exact = W.H(jnp.sign(c) * jnp.maximum(jnp.abs(c) - 0.2, 0))
    np.testing.assert_allclose(s.value, exact, atol=1e-6)


def test_quadratic_against_the_normal_equations() -> None:
    y, mask = instance()
    weight = np.random.default_rng(1).uniform(0.5, 2, SHAPE)
    d, mean = np.random.default_rng(2).uniform(0.01, 5, SHAPE), 0.4
    C = np.stack([scipy.fft.dctn(e.reshape(SHAPE), norm="ortho").ravel() for e in np.eye(y.size)], 1)
    prior = C.T * d.ravel() @ C
    exact = np.linalg.solve(
        np.diag((mask * weight).ravel()) + prior, (weight * mask * y).ravel() + prior @ np.full(56, mean)
    )
    with x64():
        problem = Problem(LeastSquares(PixelSampling(mask), y, weight), Quadratic(DCT(SHAPE), d, mean))
        s = solve(problem, PCG(), gap=1e-13)
        # The same by PDHG, which needs a box for its dual; here one that does not touch the solution.
        boxed = solve(
            Problem(problem.data, Quadratic(DCT(SHAPE), d, mean), Box(-5, 5)), PDHG(), gap=1e-10, max_steps=20_000
        )
    assert s.status == boxed.status == Status.CONVERGED
    np.testing.assert_allclose(s.value.ravel(), exact, atol=1e-6)
    np.testing.assert_allclose(boxed.value.ravel(), exact, atol=1e-4)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
def test_without_full_rank_conjugate_gradients_stay_at_the_least_solution(dtype: str) -> None:
    """Fewer measurements than unknowns, rows twice, a poor condition: what NumPy's pseudo-inverse gives."""
    rng = np.random.default_rng(0)
    u, s, v = np.linalg.svd(rng.standard_normal((3, 24, 30)), full_matrices=False)
    s[1], s[2, 6:] = np.geomspace(1, 0.02, 24), 0
    matrices = ((u * s[:, None]) @ v).astype(dtype)
    ys = np.einsum("bij,bj->bi", matrices, rng.standard_normal((3, 30))).astype(dtype)
    with x64():
        found = solve(Problem(LeastSquares(Dense(matrices), ys)), max_steps=500)
        assert found.solver == "PCG" and bool((found.residual == 0).all())
    for matrix, y, x in zip(matrices.astype(float), ys, found.value, strict=True):
        wanted = np.linalg.pinv(matrix, rcond=1e-5) @ y
        np.testing.assert_allclose(x, wanted, atol=(1e-3 if dtype == "f4" else 1e-10) * np.abs(wanted).max())


@pytest.mark.parametrize("solver", [FISTA(), PDHG()])
def test_a_box_against_bounded_least_squares(solver: Any) -> None:
    y, _ = instance()
    with x64():
        A = Blur(np.random.default_rng(3).random((3, 3)), SHAPE)
        s = solve(Problem(LeastSquares(A, 3 * y), Box(0.2, 0.7)), solver, gap=1e-9, max_steps=50_000)
        matrix = np.asarray(A(np.eye(56).reshape(56, *SHAPE))).reshape(56, 56).T
    exact = scipy.optimize.lsq_linear(matrix, 3 * y.ravel(), (0.2, 0.7), tol=1e-14)
    value = np.asarray(s.value)
    assert s.status == Status.CONVERGED and value.min() >= 0.2 and value.max() <= 0.7
    np.testing.assert_allclose(s.objective, exact.cost, rtol=1e-8)


def test_total_variation_stays_between_the_measured_values() -> None:
    y, mask = instance()
    s = solve(Problem(LeastSquares(PixelSampling(mask), y * mask), TV(0.05)), max_steps=30)
    seen = y[mask > 0].astype("f4")
    assert seen.min() <= s.value.min() and s.value.max() <= seen.max()


def test_degenerate_images_masks_and_weights() -> None:
    """Constant, nothing measured, all measured, no weight, a huge weight, NaN off the mask, a single pixel."""
    y, mask = instance()
    zero, full, lone = np.zeros(SHAPE), np.ones(SHAPE), np.zeros(SHAPE)
    lone[2, 3] = 1
    items = {
        "constant": (0.7 * full, mask, 0.1),
        "constant, all measured": (-3 * full, full, 0.1),
        "nothing measured": (y, zero, 0.1),
        "no weight": (y, full, 0.0),
        "no weight, some measured": (y, mask, 0.0),
        "huge weight": (y, mask, 1e6),
        "NaN off the mask": (np.where(mask > 0, y, np.nan), mask, 0.1),
        "the same without": (y, mask, 0.1),
        "one pixel": (y, lone, 0.1),
    }
    ys, masks, weights = (np.stack([np.broadcast_to(v[i], v[0].shape) for v in items.values()]) for i in range(3))
    with x64():
        problem = Problem(LeastSquares(PixelSampling(masks), ys), TV(weights[:, :1, :1]))
        s = solve(problem, PDHG(), gap=1e-7, max_steps=20_000)
    value = dict(zip(items, np.asarray(s.value), strict=True))
    status = {name: Status(int(v)).name for name, v in zip(items, s.status, strict=True)}
    # Without a weight the optimum is zero: it is met exactly, or nothing but rounding is left.
    exact = {name: "CONVERGED" for name in items}
    assert status in (exact, exact | {name: "STALLED" for name in items if name.startswith("no weight")})
    np.testing.assert_allclose(value["constant"], 0.7, atol=1e-7)
    np.testing.assert_allclose(value["constant, all measured"], -3, atol=1e-7)
    np.testing.assert_array_equal(value["nothing measured"], 0)
    np.testing.assert_allclose(value["no weight"], y, atol=1e-7)
    np.testing.assert_allclose(value["no weight, some measured"][mask > 0], y[mask > 0], atol=1e-7)
    np.testing.assert_allclose(value["huge weight"], y[mask > 0].mean(), atol=1e-4)
    np.testing.assert_array_equal(value["NaN off the mask"], value["the same without"])
    np.testing.assert_allclose(value["one pixel"], y[2, 3], atol=1e-7)


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (1, 1)])
def test_one_pixel_wide(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    y = rng.random(shape).astype("f4")
    data = LeastSquares(PixelSampling(np.ones(shape)), y)
    tv = solve(Problem(data, TV(0.1)), gap=1e-4)
    field = solve(Problem(data, Quadratic(DCT(shape), np.ones(shape, "f4"))), gap=1e-4)
    wavelet = solve(Problem(data, Term(L1(0.1), Wavelet(shape, "haar"))), gap=1e-4) if shape == (1, 9) else tv
    for s in (tv, field, wavelet):
        assert s.status == Status.CONVERGED and s.value.shape == shape
    np.testing.assert_allclose(field.value, y / 2, atol=1e-5)


def true_objective(y: np.ndarray, mask: np.ndarray, weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Isotropic total variation, float64, a batch."""
    down, right = np.diff(x, axis=1, append=x[:, -1:]), np.diff(x, axis=2, append=x[:, :, -1:])
    size = np.hypot(down, right)
    return 0.5 * np.sum(mask * (x - y) ** 2, (1, 2)) + np.sum(weight * size, (1, 2))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gap_is_never_below_the_truth(dtype: str) -> None:
    """At every stop, for bright, offset, sparse and noiseless scans; the truth is computed in float64 by NumPy."""
    rng = np.random.default_rng(7)
    n = 24
    y = rng.random((n, 4, 4)).repeat(3, 1).repeat(3, 2) + rng.choice([0, 0.1], (n, 1, 1)) * rng.standard_normal(
        (n, 12, 12)
    )
    y = y * rng.choice([1, 1000.0], (n, 1, 1)) + rng.choice([0, 100.0], (n, 1, 1))
    mask = (rng.random((n, 12, 12)) < rng.choice([1, 0.5, 0.15], (n, 1, 1))).astype(dtype)
    weight = (y.std((1, 2), keepdims=True) * 10 ** rng.uniform(-2, 0, (n, 1, 1))).astype(dtype)
    y = y.astype(dtype)

    def problem(dtype: str) -> Problem:
        return Problem(LeastSquares(PixelSampling(mask.astype(dtype)), y.astype(dtype)), TV(weight.astype(dtype)))

    exact = functools.partial(true_objective, *(v.astype(float) for v in (y, mask, weight)))
    with x64():
        best = solve(problem("float64"), PDHG(), gap=1e-9, max_steps=20_000)
        optimum = exact(np.asarray(best.value))
    with jax.enable_x64(dtype == "float64"):
        tight = []
        for gap, steps in ((0.0, 0), (0.0, 5), (0.0, 33), (0.0, 150), (1e-6, 2000)):
            s = solve(problem(dtype), PDHG(), gap=gap, max_steps=steps)
            objective = exact(np.asarray(s.value, float))
            true = (objective - optimum) / np.maximum(objective, 1e-300)
            assert (true <= np.asarray(s.gap) + 1e-15).all()
            tight.append(float(np.median(s.gap)))
    # And it says something: it falls by orders of magnitude.
    assert tight[0] > 0.1 and tight[-1] < 1e-4
