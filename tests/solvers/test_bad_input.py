"""What every solver does with input that cannot be meant: the right answer, a status for that item, or an error."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax import L1, TV, Box, L1Ball, L2Ball, LeastSquares, PoissonLikelihood, Problem, Quadratic, Status, solve
from emjax.operators import DCT, Dense, Identity, PixelSampling
from emjax.solvers import ADMM, FISTA, HQS, PCG, PDHG, RED, CondatVu, DouglasRachford, ParetoRoot, PnPADMM, PnPPGD

M, N = 12, 20
RNG = np.random.default_rng(0)
MATRIX = (RNG.standard_normal((M, N)) / M**0.5).astype("f4")
X = np.zeros(N, "f4")
X[[3, 11]] = 1.5, -2
Y, A = MATRIX @ X, Dense(MATRIX)
D = np.linspace(0.5, 2, N).astype("f4")


def shrink(v: jax.Array, sigma: jax.Array) -> jax.Array:
    return v / (1 + 0.1 * sigma)


def l1(y: Any = Y, w: Any = 0.05, A: Any = A) -> Problem:
    return Problem(LeastSquares(A, y), L1(w))


def tv(y: Any = Y, w: Any = 0.05, A: Any = A) -> Problem:
    return Problem(LeastSquares(A, y), TV(w), Box(-5.0, 5.0))


def inside(y: Any = Y, w: Any = 1.0, A: Any = A) -> Problem:
    return Problem(LeastSquares(A, y), L1Ball(3.0, w))


def near(y: Any = Y, w: Any = 1.0, A: Any = A) -> Problem:
    return Problem(L2Ball(A, y, 0.1), L1(w))


def field(y: Any = Y, w: Any = 1.0, A: Any = A) -> Problem:
    return Problem(LeastSquares(A, y), Quadratic(DCT((N,)), w * D))


def alone(y: Any = Y, w: Any = 1.0, A: Any = A) -> Problem:
    return Problem(LeastSquares(A, y))


CASES: dict[str, tuple[Any, Any]] = {
    "FISTA": (l1, FISTA()),
    "FISTA, ball": (inside, FISTA()),
    "DouglasRachford": (l1, DouglasRachford()),
    "ParetoRoot": (near, ParetoRoot()),
    "PDHG": (tv, PDHG()),
    "PDHG, ball": (near, PDHG()),
    "PCG": (field, PCG()),
    "ADMM": (tv, ADMM()),
    "CondatVu": (tv, CondatVu()),
    "PnPPGD": (alone, PnPPGD(shrink)),
    "PnPADMM": (alone, PnPADMM(shrink)),
    "HQS": (alone, HQS(shrink)),
    "RED": (alone, RED(shrink)),
}
every = pytest.mark.parametrize(("make", "solver"), CASES.values(), ids=CASES)


@every
def test_items_that_tell_nothing(make: Any, solver: Any) -> None:
    """One batch: NaN, infinity, a matrix of zeros, one that is not finite, one without full rank, a good one."""
    broken, twice = MATRIX.copy(), np.concatenate([MATRIX[:6], MATRIX[:6]])
    broken[2, 5] = np.nan
    infinite = np.where(np.arange(M) == 2, np.inf, Y).astype("f4")
    matrices = np.stack([MATRIX, MATRIX, 0 * MATRIX, broken, twice, MATRIX])
    ys = np.stack([np.full(M, np.nan, "f4"), infinite, Y, Y, twice @ X, Y])
    s = solve(make(ys, A=Dense(matrices)), solver, gap=1e-2, max_steps=300)
    bad = [int(v) == Status.NON_FINITE for v in s.status]
    assert bad == [True, True, False, True, False, False]
    assert bool(jnp.isfinite(s.value[jnp.array([2, 4, 5])]).all())
    assert bool((jnp.abs(s.value[2]) < 1e-6).all())  # of nothing, nothing
    assert make is not near or (s.status[2] == Status.STEP_LIMIT and s.gap[2] > 0.5)  # nothing meets the constraint


@every
def test_batches_of_nothing_and_numbers_of_any_kind(make: Any, solver: Any) -> None:
    empty = solve(make(np.zeros((2, 0, M), "f4")), solver)
    assert empty.value.shape == (2, 0, N) and empty.status.shape == (2, 0)
    assert solve(make(Y.astype("f2")), solver, max_steps=20).value.dtype == jnp.float32
    assert solve(make(np.arange(M)), solver, max_steps=20).value.dtype == jnp.float32


@every
def test_what_is_refused(make: Any, solver: Any) -> None:
    for y, error, words in ((Y[1:], ValueError, "have shape"), (None, TypeError, "None"), ("y", TypeError, "'y'")):
        with pytest.raises(error, match=words):
            solve(make(y), solver)
    with pytest.raises(TypeError, match="start is complex"):
        solve(make(), solver, start=np.zeros(N, "c8"))
    with pytest.raises(TypeError, match="expected, got 'x'"):
        solve(make(), solver, start="x")
    with pytest.raises(ValueError, match="start has shape"):
        solve(make(), solver, start=np.zeros(3))
    kind = type(solver)
    settings = {"denoiser": shrink} if hasattr(solver, "denoiser") else {}
    for value, error in ((0, ValueError), (-1, ValueError), (True, ValueError), (2.5, TypeError), (None, TypeError)):
        with pytest.raises(error, match="check_every"):
            solve(make(), kind(check_every=value, **settings))
        if hasattr(solver, "inner_steps"):
            with pytest.raises(error, match="inner_steps"):
                solve(make(), kind(inner_steps=value, **settings))
    for name, values in (
        ("relaxation", (0, -1.5, 2.0, np.nan, 2 - 1e-12, None, "1.5", True, 1j, np.ones(2))),
        ("rho", (0.0, -1.0, np.inf, np.nan, 1e39, "1", np.ones(1))),
    ):
        for value in values if hasattr(solver, name) else ():
            with pytest.raises(ValueError, match=f"{name} of {kind.__name__} is "):
                solve(make(), kind(**{name: value}, **settings))


@pytest.mark.parametrize(
    "name", ["FISTA", "FISTA, ball", "DouglasRachford", "ParetoRoot", "PDHG", "PDHG, ball", "ADMM", "CondatVu"]
)
def test_weights_of_a_trace_below_zero_or_nan_have_a_status(name: str) -> None:
    make, solver = CASES[name]
    run = jax.jit(lambda w: solve(make(w=w), solver, gap=1e-2, max_steps=300))
    for w in (-0.1, np.nan):
        assert run(w).status == Status.NON_FINITE
    assert bool(jnp.isfinite(run(0.1).value).all()) and run(0.1).status != Status.NON_FINITE


@pytest.mark.parametrize("name", ["FISTA", "FISTA, ball", "DouglasRachford", "PDHG", "PCG", "ADMM", "CondatVu"])
def test_weights_of_zero_and_infinity(name: str) -> None:
    """Without a weight the measurements are met; an infinite one leaves nothing, or is no number to work with."""
    make, solver = CASES[name]
    run = jax.jit(lambda w: solve(make(w=w), solver, gap=1e-2, max_steps=1000))
    free, endless = run(0.0), run(np.inf)
    np.testing.assert_allclose(MATRIX @ np.asarray(free.value), Y, atol=0.03)
    assert float(jnp.linalg.norm(free.value)) < 2 * np.linalg.norm(X)
    if make in (l1, inside):
        assert endless.status == Status.CONVERGED and bool((endless.value == 0).all())
    else:
        assert endless.status == Status.NON_FINITE
        with pytest.raises(RuntimeError, match="weights that are NaN, infinite"):
            endless.check()


@pytest.mark.parametrize(("C", "solver"), [(Identity((4, 6)), PCG()), (DCT((4, 6)), PCG()), (DCT((4, 6)), PDHG())])
def test_quadratic_priors_of_no_weight(C: Any, solver: Any) -> None:
    """Pixels that nothing says anything about stay finite, and the measured ones are met."""
    mask = (np.arange(24).reshape(4, 6) % 3 > 0).astype("f4")
    y = mask * np.random.default_rng(0).random((4, 6)).astype("f4")
    s = solve(
        Problem(LeastSquares(PixelSampling(mask), y), Quadratic(C, np.zeros((4, 6), "f4"))), solver, max_steps=300
    )
    assert s.status != Status.NON_FINITE and bool(jnp.isfinite(s.value).all())
    np.testing.assert_allclose(mask * s.value, y, atol=1e-5)


def test_complex_items() -> None:
    """Complex measurements of a real matrix are both its parts; a box has no order for them."""
    both = (Y + 1j * Y).astype("c8")
    s = solve(near(both), ParetoRoot(), gap=1e-3).check()
    np.testing.assert_allclose(s.value, X + 1j * X, atol=0.2)  # less by what the ball allows
    assert solve(near(Y, A=Dense(MATRIX.astype("c8"))), ParetoRoot(), gap=1e-3).check().value.dtype == jnp.complex64
    for make in (lambda: tv(both), lambda: tv(A=Dense(MATRIX.astype("c8")))):
        with pytest.raises(TypeError, match="Box bounds real items"):
            make()


def test_counts() -> None:
    """Gains and backgrounds that are none, and counts below zero, which count as zero."""
    A = Dense(np.abs(MATRIX))
    y = A(jnp.abs(X))

    def run(y: Any, gain: Any) -> Any:
        return solve(Problem(PoissonLikelihood(A, y, gain), L1(0.1), Box(0.0, 3.0)), PDHG(), gap=1e-2, max_steps=500)

    program = jax.jit(run)
    for gain in (-1.0, np.nan, 0.0, np.inf):
        assert program(y, gain).status != Status.CONVERGED
    np.testing.assert_allclose(program(-y, 0.1).value, 0, atol=1e-4)
    assert program(y * np.nan, 0.1).status == Status.NON_FINITE
    with pytest.raises(ValueError, match="0 or more"):
        run(y, -1.0)
