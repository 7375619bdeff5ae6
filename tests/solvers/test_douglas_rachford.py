"""Douglas-Rachford for l1 behind an orthonormal transform: the optimum, what it certifies, and where it is taken."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_problems import x64

from emjax import LeastSquares, Problem, Term, solve
from emjax.functionals import L1, Box, L1Ball
from emjax.operators import DCT, Blockwise, Dense, Identity, SubsampledDCT, SubsampledFourier, Wavelet
from emjax.solvers import FISTA, DouglasRachford, Implicit, choose

SHAPE = (16, 16)


def _problem(kind: str, dtype: str = "f4", weight: object = 0.02) -> Problem:
    rng = np.random.default_rng(0)
    x = np.kron(rng.random((4, 4)), np.ones((4, 4))).astype(dtype)
    if kind == "blocks":
        phi = (rng.standard_normal((24, 64)) / 5).astype(dtype)
        A, W = Blockwise(Dense(phi, (8, 8)), SHAPE), Blockwise(DCT((8, 8)), SHAPE)
    else:
        mask = (rng.random(SHAPE) < 0.4).astype(dtype)
        mask[:3, :3] = 1
        A = SubsampledDCT(mask) if kind == "dct" else SubsampledFourier(mask)
        W = 2.0 * Wavelet(SHAPE, "db2", 2)  # the isometry need not be 1
    y = A(jnp.asarray(x)) + jnp.asarray(0.01 * rng.standard_normal(A.out_shape), dtype)
    return Problem(LeastSquares(A, y), Term(L1(jnp.asarray(weight, dtype)), W))


kinds = pytest.mark.parametrize("kind", ["dct", "fourier", "blocks"])


@kinds
def test_the_certificate_is_never_below_the_true_gap_and_close_to_it(kind: str) -> None:
    problem = _problem(kind)
    with x64():
        exact = jax.tree.map(lambda v: jnp.asarray(np.asarray(v), jnp.result_type(v, "f8")), problem)
        optimum = float(solve(exact, FISTA(), gap=1e-9, max_steps=20_000).check().objective)
        precise = float(solve(exact, DouglasRachford(), gap=1e-9, max_steps=20_000).check().objective)
        assert abs(precise - optimum) <= 2e-9 * optimum
    solver = choose(problem)
    assert isinstance(solver, DouglasRachford)
    for gap in (1e-2, 1e-3, 1e-4):
        s = solve(problem, solver, gap=gap).check()
        with x64():
            true = float(exact.objective(jnp.asarray(np.asarray(s.value), "f8"))) / optimum - 1
        assert -1e-7 <= true <= float(s.gap) <= gap
    fista = solve(problem, FISTA(), gap=1e-4, max_steps=5000).check()
    assert solve(problem, solver, gap=1e-4).steps <= fista.steps


def test_weights_of_zero_and_infinity_and_one_for_each_coefficient() -> None:
    weight = np.full(SHAPE, 0.02, "f4")
    weight[:2, :2], weight[8:, 8:] = 0, np.inf
    data = _problem("dct").data
    problem = Problem(data, L1(weight))
    s, f = (solve(problem, solver, gap=1e-3, max_steps=5000) for solver in (DouglasRachford(), FISTA()))
    assert np.isfinite(s.objective) and not np.any(s.value[8:, 8:])
    np.testing.assert_allclose(s.objective, f.objective, rtol=2e-3)
    again = solve(problem, gap=1e-3, start=solve(Problem(data, L1(np.full(SHAPE, 0.02, "f4"))), gap=1e-3))
    assert np.isfinite(again.objective) and not np.any(again.value[8:, 8:])
    for constant in (0.0, np.inf):
        s = solve(Problem(data, L1(np.full(SHAPE, constant, "f4"))), DouglasRachford(), gap=1e-4)
        assert np.isfinite(s.value).all() and np.isfinite(s.objective)


def test_a_batch_is_its_items_and_a_solution_a_start() -> None:
    problem = _problem("fourier")
    y = jnp.stack([problem.data.y, 0.5 * problem.data.y, 0 * problem.data.y])
    batch = solve(Problem(LeastSquares(problem.data.A, y), *problem.terms), gap=1e-4)
    one = solve(problem, gap=1e-4)
    assert int(batch.steps[0]) == int(one.steps) and not np.any(batch.value[2])
    np.testing.assert_allclose(batch.value[0], one.value, atol=1e-5)
    assert solve(problem, start=one, gap=1e-4).steps == 0
    broken = solve(Problem(LeastSquares(problem.data.A, y * jnp.nan), *problem.terms))
    assert (np.asarray(broken.status) == 3).all()


@pytest.mark.parametrize("kind", ["fourier", "blocks"])
def test_the_implicit_derivative_is_that_of_differences(kind: str) -> None:
    with x64():
        problem = _problem(kind, "f8")
        A, term = problem.data.A, problem.terms[0]
        direction = jnp.asarray(np.random.default_rng(1).standard_normal(SHAPE))

        def value(weight: jax.Array) -> jax.Array:
            p = Problem(LeastSquares(A, problem.data.y), Term(L1(weight), term.K))
            s = solve(p, gap=1e-12, max_steps=20_000, gradient=Implicit(tolerance=1e-9, max_steps=20_000))
            return jnp.sum(direction * s.value)

        w, h = jnp.asarray(0.02), 1e-6
        differences = (value(w + h) - value(w - h)) / (2 * h)
        np.testing.assert_allclose(jax.grad(value)(w), differences, rtol=1e-4)


def test_choose_leaves_the_rest_alone() -> None:
    data = _problem("dct").data
    assert isinstance(choose(Problem(data, L1Ball(1.0))), FISTA)
    assert not isinstance(choose(Problem(data, L1(0.1), Box(0, 1))), DouglasRachford)
    dense = LeastSquares(Dense(np.ones((3, 5), "f4")), np.ones(3, "f4"))
    assert isinstance(choose(Problem(dense, L1(0.1))), FISTA)
    assert isinstance(choose(Problem(LeastSquares(Identity(SHAPE), np.ones(SHAPE, "f4")), L1(0.1))), FISTA)
    weighted = LeastSquares(data.A, data.y, np.full(SHAPE, 2.0, "f4"))
    assert isinstance(choose(Problem(weighted, L1(0.1))), FISTA)
    with pytest.raises(ValueError, match="use PDHG"):
        solve(Problem(data, L1(0.1), Box(0, 1)), DouglasRachford())
