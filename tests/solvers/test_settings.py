"""Settings that cannot be meant are refused; problems of any scale are one problem; bad values end in a status."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax import L1, TV, Box, HuberLoss, L2Ball, LeastSquares, PoissonLikelihood, Problem, Quadratic, Term, solve
from emjax.operators import DCT, Blur, Identity, PixelSampling, SubsampledFourier, Wavelet, gaussian_kernel, stack
from emjax.solvers import FISTA, PCG, PDHG, Status, Unrolled

SHAPE = (12, 10)
RNG = np.random.default_rng(8)
MASK = (RNG.random(SHAPE) < 0.5).astype("f4")
Y = (MASK * np.add.outer(np.sin(np.arange(12) / 3), np.cos(np.arange(10) / 4))).astype("f4")
A = PixelSampling(MASK)


def tv(scale: float = 1.0, **settings: Any) -> Any:
    data = LeastSquares(A, (scale * Y).astype("f4"))
    return solve(Problem(data, TV(np.float32(0.05 * scale))), PDHG(), **{"gap": 1e-3, **settings})


def test_the_scale_of_the_grey_values_changes_nothing() -> None:
    one = tv()
    for scale in (1e-12, 1e-6, 1e6):
        other = tv(scale)
        assert other.status == Status.CONVERGED and other.steps == one.steps
        np.testing.assert_allclose(other.value / np.float32(scale), one.value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: TV(-0.1),
        lambda: TV(1j),
        lambda: L1(np.array([0.1, -0.1])),
        lambda: LeastSquares(A, Y, -np.ones(SHAPE)),
        lambda: LeastSquares(A, Y, np.ones((12, 9))),
        lambda: LeastSquares(PixelSampling(np.stack([MASK] * 3)), np.stack([Y] * 2)),
        lambda: Problem(LeastSquares(A, Y), TV(np.ones(3))),
        lambda: Problem(LeastSquares(A, Y), Term(L1(np.ones(7)), DCT(SHAPE))),
        lambda: Box(1, 0),
        lambda: Problem(LeastSquares(A, Y), Box(0, 0.2), Box(0.5, 1)),
        lambda: HuberLoss(A, Y, -1.0),
        lambda: L2Ball(A, Y, -1.0),
        lambda: PoissonLikelihood(A, Y, -1.0),
        lambda: tv(gap=-1.0),
        lambda: tv(gap=float("nan")),
        lambda: tv(gap=np.array([0.1, 0.2])),
        lambda: tv(max_steps=-5),
        lambda: Unrolled(-1),
    ],
)
def test_values_that_cannot_be_meant(make: Any) -> None:
    with pytest.raises(ValueError):
        make()


@pytest.mark.parametrize(
    "make",
    [
        lambda: TV("auto"),
        lambda: PixelSampling("mask.tif"),
        lambda: tv(max_steps=2.7),
        lambda: tv(history=2.5),
        lambda: tv(gradient=True),
        lambda: solve(Problem(LeastSquares(A, Y), TV(0.1)), "pdhg"),
        lambda: Unrolled(2.5),
        lambda: jax.jit(lambda y: solve(Problem(LeastSquares(A, y), TV(0.1)), progress=print).value)(Y),
    ],
)
def test_types_that_cannot_be_meant(make: Any) -> None:
    with pytest.raises(TypeError):
        make()


def test_known_values_inside_a_trace() -> None:
    @jax.jit
    def run(y: jax.Array) -> jax.Array:
        problem = Problem(
            LeastSquares(A, y, np.ones(SHAPE, "f4")), TV(np.full(SHAPE, 0.05, "f4")), Box(-2, 2), L1(0.01)
        )
        return solve(problem, PDHG(), gap=1e-3).status

    assert run(Y) == Status.CONVERGED


def test_a_negative_weight_inside_a_trace_has_a_status() -> None:
    status = jax.jit(lambda w: solve(Problem(LeastSquares(A, Y), TV(w), Box(-2, 2)), PDHG()).status)
    assert status(-0.05) == Status.NON_FINITE and status(0.05) == Status.CONVERGED


def test_rounding_that_stays_is_told() -> None:
    d = 30 * np.hypot(np.arange(12)[:, None] / 24, np.arange(10) / 20).clip(1 / 48).astype("f4") ** 4
    s = solve(Problem(LeastSquares(A, Y), Quadratic(DCT(SHAPE), d, 0.3)), PCG(), gap=0.0, max_steps=5000)
    assert s.status in (Status.STALLED, Status.CONVERGED) and s.steps < 2000 and s.gap < 1e-5


def test_least_squares_alone() -> None:
    soft = PixelSampling(MASK + 0.5)
    s = solve(Problem(LeastSquares(soft, soft(Y + 1))), gap=1e-4)
    np.testing.assert_allclose(s.value, Y + 1, rtol=1e-4)


def test_complex_images() -> None:
    s = solve(Problem(LeastSquares(Identity(SHAPE), (Y + 1j * Y).astype("c8")), TV(0.05)), PDHG(), max_steps=200)
    real = solve(Problem(LeastSquares(Identity(SHAPE), Y), TV(0.05 / np.sqrt(2))), PDHG(), gap=1e-5)
    np.testing.assert_allclose(s.value, (1 + 1j) * real.value, atol=2e-3)


def test_what_was_not_measured_is_ignored_behind_the_algebra() -> None:
    F = SubsampledFourier(MASK)
    soft = Blur(gaussian_kernel((1.0, 1.0), radius=2), SHAPE)
    for op in (F, 2.0 * A, A @ soft, stack(A, A)):
        y = op(Y)
        seen = op(jnp.ones(SHAPE)) != 0 if op is not F else F.mask != 0
        broken = jnp.where(seen, y, jnp.nan)
        np.testing.assert_array_equal(LeastSquares(op, broken).y, jnp.where(seen, y, 0))


# Data terms beside least squares.

COUNTS = (MASK * RNG.poisson(20 * (Y + 2)) / 20).astype("f4")
FEW = SubsampledFourier(MASK)
FIDELITIES = {
    "counts": lambda y: Problem(PoissonLikelihood(A, y(COUNTS), 0.05), TV(y(1.0))),
    "counts, soft weights, background": lambda y: Problem(
        PoissonLikelihood(PixelSampling(y(MASK * 0.7)), y(COUNTS), 0.05, 0.1), TV(y(1.0)), Box(0, 5)
    ),
    "counts behind a blur": lambda y: Problem(
        PoissonLikelihood(Blur(gaussian_kernel((1.0, 1.0), radius=2), SHAPE), y(COUNTS + 1), 0.05),
        TV(y(1.0)),
        Box(0, 5),
    ),
    "outliers": lambda y: Problem(HuberLoss(A, y(Y), 0.1), TV(y(0.05))),
    "a ball, pixels": lambda y: Problem(L2Ball(A, y(Y), 0.3), TV(y(1.0))),
    "a ball, wavelets": lambda y: Problem(L2Ball(A, y(Y), 0.3), Term(L1(y(1.0)), Wavelet(SHAPE, "haar"))),
    "a ball, Fourier samples": lambda y: Problem(L2Ball(FEW, FEW(y(Y)), 0.3), Term(L1(y(1.0)), Wavelet(SHAPE, "haar"))),
}


@pytest.mark.parametrize("name", list(FIDELITIES))
def test_other_data_terms_are_certified(name: str) -> None:
    """float32 stops at its gap, which is not below the distance to the optimum of float64."""
    loose = solve(FIDELITIES[name](np.float32), PDHG(), gap=1e-4, max_steps=8000)
    assert loose.status == Status.CONVERGED and loose.value.dtype == jnp.float32
    with jax.enable_x64(True):
        best = solve(FIDELITIES[name](np.float64), PDHG(), gap=1e-7, max_steps=20_000)
        assert best.gap < 1e-5
        excess = (float(loose.objective) - float(best.objective)) / abs(float(best.objective))
        assert excess <= float(loose.gap) + 1e-6 and excess >= -float(best.gap) - 1e-3 * ("ball" in name)


def test_a_ball_is_kept() -> None:
    s = solve(FIDELITIES["a ball, pixels"](np.float32), PDHG(), gap=1e-4, max_steps=8000)
    np.testing.assert_allclose(jnp.linalg.norm(A(s.value) - Y), 0.3, rtol=1e-4)
    nothing = solve(Problem(L2Ball(A, Y, 1e3), TV(1.0)), PDHG(), gap=1e-4)
    assert float(jnp.ptp(nothing.value)) < 1e-4


def test_counts_of_every_pixel_are_their_own_estimate() -> None:
    """Without a prior to speak of the likelihood is largest at the counts themselves."""
    y = (1 + RNG.poisson(20, SHAPE) / 20).astype("f4")
    s = solve(Problem(PoissonLikelihood(PixelSampling(np.ones(SHAPE, "f4")), y, 0.05), TV(1e-5)), PDHG(), gap=1e-5)
    np.testing.assert_allclose(s.value, y, atol=1e-3)


@pytest.mark.parametrize("solver", [FISTA(), PCG()])
def test_solvers_of_least_squares_refuse_other_data(solver: Any) -> None:
    with pytest.raises(ValueError, match="data terms"):
        solve(Problem(HuberLoss(A, Y), TV(0.1)), solver)
