"""What a problem may be: which solver takes it, what is refused, several terms, boxes, complex measurements."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from solver_problems import MASK, SHAPE, YS, D, field, tv, wavelet, x64

from emjax import L1, TGV, TV, Box, HuberLoss, LeastSquares, Problem, Quadratic, Status, Term, solve
from emjax.functionals import NuclearNorm
from emjax.operators import DCT, Blur, Dense, FiniteDifference, Fourier, Identity, Patches, PixelSampling
from emjax.solvers import FISTA, PCG, PDHG, choose


def tgv(y: Any = None, A: Any = None) -> Problem:
    A = PixelSampling(MASK) if A is None else A
    return Problem(LeastSquares(A, A(jnp.zeros(SHAPE, A.in_dtype)) if y is None else y), TGV(0.1))


@pytest.mark.parametrize("preconditioned", [False, True])
def test_an_operator_that_is_zero(preconditioned: bool) -> None:
    """Nothing was measured: total variation and the box leave any constant image, and the certificate says so."""
    A = Dense(jnp.zeros((5, 12)), (3, 4))
    problem = Problem(LeastSquares(A, jnp.arange(5.0)), TV(0.1), Box(0, 1))
    s = solve(problem, PDHG(preconditioned=preconditioned))
    assert s.status == Status.CONVERGED and float(s.objective) == pytest.approx(15.0)
    assert float(jnp.ptp(s.value)) == 0


def test_choose() -> None:
    data = field().data
    assert isinstance(choose(field()), PCG)
    assert isinstance(choose(wavelet()), FISTA)
    assert isinstance(choose(Problem(data, Box(0, 1))), FISTA)
    for terms in ((TV(0.1),), (TV(0.1), Box(0, 1)), (Quadratic(DCT(SHAPE), D), Box(0, 1)), (TV(0.1), L1(0.1))):
        assert isinstance(choose(Problem(data, *terms)), PDHG)
    assert solve(field()).solver == "PCG" and "PCG" in repr(solve(field()))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: solve(tv().data), TypeError, "solve takes a Problem"),
        (lambda: Problem(TV(0.1), tv().data), TypeError, "first argument"),
        (lambda: Problem(tv().data, 0.1), TypeError, "a term is"),
        (lambda: Term(L1(0.1), MASK), TypeError, "linear operator"),
        (lambda: Problem(tv().data, Term(L1(0.1), Identity((3, 3)))), ValueError, r"x has shape \(12, 10\)"),
        (lambda: LeastSquares(PixelSampling(MASK), YS[0].T), ValueError, "batch axes go in front"),
        (lambda: solve(tv(), FISTA()), ValueError, "use PDHG"),
        (lambda: solve(Problem(wavelet().data, *wavelet().terms, Box(0, 1)), FISTA()), ValueError, "use PDHG"),
        (lambda: solve(tv(), PCG()), ValueError, "use PDHG"),
        (lambda: solve(Problem(field().data, *field().terms, Box(0, 1)), PCG()), ValueError, "without a box"),
        (lambda: solve(tv(YS, np.full((2, 1, 1), 0.1))), ValueError, "do not fit"),
        (lambda: solve(tv(), start=np.zeros((3, 3))), ValueError, r"start has shape \(3, 3\)"),
        (lambda: solve(field(), start=solve(tv(), max_steps=1)), ValueError, "cannot be continued by PCG"),
        (lambda: solve(field(YS), start=solve(field(), max_steps=1)), ValueError, "start has shape"),
        (lambda: solve(tgv(), PDHG(), start=solve(tv(), PDHG(), max_steps=1)), ValueError, "another kind of problem"),
        (lambda: solve(tgv(YS), PDHG(), start=solve(tv(YS), PDHG(), max_steps=1)), ValueError, "another kind of"),
        (lambda: tgv(None, Fourier(SHAPE, real=False)), TypeError, "TGV takes real images"),
    ],
)
def test_bad_parts_are_refused(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_without_a_certificate_the_gap_is_infinite() -> None:
    """Total variation with a blur and no box has no finite dual everywhere; with a box it has."""
    A = Blur(np.full((3, 3), 1 / 9), SHAPE)
    s = solve(Problem(LeastSquares(A, YS[0]), TV(0.1)), max_steps=60)
    assert jnp.isinf(s.gap) and s.status == Status.STEP_LIMIT and bool(jnp.isfinite(s.value).all())
    longer = solve(Problem(LeastSquares(A, YS[0]), TV(0.1)), max_steps=600)
    assert 0 < longer.residual < 0.1 * s.residual < 0.1  # it settles nevertheless
    wide = solve(Problem(LeastSquares(A, YS[0]), TV(0.1), Box(0, np.inf)), max_steps=60)
    assert jnp.isinf(wide.gap) and wide.status == Status.STEP_LIMIT and wide.value.min() >= 0
    dark = solve(Problem(LeastSquares(A, np.zeros(SHAPE)), Box(0, np.inf)), max_steps=60)
    assert dark.status == Status.CONVERGED and bool((dark.value == 0).all())
    boxed = solve(Problem(LeastSquares(A, YS[0]), TV(0.1), Box(0, 0.5), Box(-1, 1)), gap=1e-3, max_steps=5000)
    assert boxed.status == Status.CONVERGED and boxed.value.min() >= 0 and boxed.value.max() <= 0.5


def test_a_robust_loss_without_a_box() -> None:
    """Its dual is its slope at the answer: the gap bounds the distance to the optimum of a long run."""
    with x64():
        data = HuberLoss(PixelSampling(np.ones(SHAPE)), YS[0].astype(float), 0.1)
        problem = Problem(data, Term(L1(0.05), DCT(SHAPE)))
        best = solve(problem, PDHG(), gap=1e-8, max_steps=20_000).check()
        for steps in (20, 100):
            early = solve(problem, PDHG(), gap=0.0, max_steps=steps)
            assert -1e-8 <= early.objective - best.objective <= early.gap * early.objective
            assert jnp.isfinite(early.gap)


def test_matrices_and_stacks_of_low_rank() -> None:
    """Completion of a matrix, against proximal gradients in NumPy; patches of a stack, certified."""
    r = np.random.default_rng(0)
    mask = (r.random(SHAPE) < 0.6).astype(float)
    y = mask * (r.standard_normal((12, 3)) @ r.standard_normal((3, 10)))
    z = np.zeros_like(y)
    for _ in range(1500):
        u, s, v = np.linalg.svd(z - mask * (z - y), full_matrices=False)
        z = (u * np.maximum(s - 0.5, 0)) @ v
    want = 0.5 * np.sum((mask * z - y) ** 2) + 0.5 * np.linalg.svd(z)[1].sum()
    with x64():
        found = solve(Problem(LeastSquares(PixelSampling(mask), y), NuclearNorm(0.5, 2)), PDHG(), gap=1e-6).check()
        np.testing.assert_allclose(found.objective, want, rtol=2e-6)
        stack = r.random((4, 8, 8)).cumsum(0)
        seen = (r.random(stack.shape) < 0.5).astype(float)
        low = Term(NuclearNorm(0.3, 3), Patches(stack.shape, 4))
        solve(Problem(LeastSquares(PixelSampling(seen, 3), seen * stack), low, Box(0, 5)), gap=1e-4).check()


def test_bounds_of_each_pixel() -> None:
    """A box that excludes what was measured: the feasible images are those of the box, and none is better."""
    with x64():
        y, mask = np.array([[0.0, 1.0, 0.0, 0.0]]), np.array([[1.0, 1.0, 0.0, 0.0]])
        low, high = np.array([[0.0, 0.0, 2.0, 2.0]]), np.array([[1.0, 1.0, 3.0, 3.0]])
        s = solve(Problem(LeastSquares(PixelSampling(mask), y), TV(0.1), Box(low, high)), gap=1e-6).check()
        grid = np.linspace(0, 1, 101)
        best = min(0.5 * (a * a + (b - 1) ** 2) + 0.1 * (abs(b - a) + 2 - b) for a in grid for b in grid)
        np.testing.assert_allclose(s.objective, best, atol=1e-3)
        tilted = Box(np.array([[0.5, 0.0, 0.0, -1.0]]), np.array([[3.0, 0.2, 0.1, -0.5]]))
        t = solve(Problem(LeastSquares(PixelSampling(mask), y), TV(0.1), tilted), gap=1e-6).check()
        a, b, c = (
            g.ravel() for g in np.meshgrid(np.linspace(0.5, 1, 51), np.linspace(0, 0.2, 21), np.linspace(0, 0.1, 11))
        )
        values = 0.5 * (a * a + (b - 1) ** 2) + 0.1 * (abs(b - a) + abs(c - b) + c + 0.5)
        assert s.gap >= 0 and float(t.objective) <= values.min() + 1e-6


def test_complex_measurements() -> None:
    F = Fourier(SHAPE)
    y = F(YS[0])
    s = solve(Problem(LeastSquares(F, y), TV(0.1)), gap=1e-4)
    direct = solve(tv(YS[0], 0.1, np.ones(SHAPE)), gap=1e-4)
    assert s.status == Status.CONVERGED and s.value.dtype == jnp.float32
    np.testing.assert_allclose(s.objective, direct.objective, rtol=3e-4)


def test_several_terms() -> None:
    """Directions as separate terms are one anisotropic total variation."""

    class Direction:
        def __init__(self, axis: int) -> None:
            self.axis = axis

        def terms(self, shape: tuple[int, ...]) -> tuple[Term, ...]:
            weight = np.zeros((2, *shape), "f4")
            weight[self.axis] = 0.1
            return (Term(L1(weight), FiniteDifference(shape)),)

    data = tv().data
    split = solve(Problem(data, Direction(0), Direction(1)), gap=1e-3)
    joint = solve(Problem(data, TV(0.1, isotropic=False)), gap=1e-3)
    assert split.status == joint.status == Status.CONVERGED
    np.testing.assert_allclose(split.objective, joint.objective, rtol=2e-3)


def test_restarts_find_the_same_optimum() -> None:
    with x64():
        problem = tv(YS[0].astype(float), 0.1, MASK.astype(float))
        plain = solve(problem, PDHG(), gap=1e-7, max_steps=20_000)
        again = solve(problem, PDHG(restarts=True), gap=1e-7, max_steps=20_000)
        assert plain.status == again.status == Status.CONVERGED
        np.testing.assert_allclose(again.objective, plain.objective, rtol=2e-7)
        for steps in (1, 20, 40, 100):
            early = solve(problem, PDHG(restarts=True), gap=0.0, max_steps=steps)
            np.testing.assert_allclose(early.objective, problem.objective(early.value), rtol=1e-13)
            assert early.objective - plain.objective <= early.gap * early.objective
