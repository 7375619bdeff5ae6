"""Problems in the coefficients of their transform: the same problem, and the same answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_problems import x64

from emjax import LeastSquares, Problem, Term, solve
from emjax.functionals import L1, Box
from emjax.operators import DCT, Blockwise, Dense, Fourier, Identity, LinearOperator, SubsampledDCT, Wavelet
from emjax.solvers import FISTA, DouglasRachford, Implicit
from emjax.solvers.coefficients import in_coefficients

SHAPE = (16, 8)


def _problem(kind: str, weight: object = 0.05) -> Problem:
    rng = np.random.default_rng(1)
    if kind == "blocks":
        A: LinearOperator = Blockwise(Dense(rng.standard_normal((10, 32)) / 3, (8, 4)), SHAPE)
        W: LinearOperator = Blockwise(3.0 * DCT((8, 4)), SHAPE)
    elif kind == "complex":
        matrix = rng.standard_normal((50, 128)) + 1j * rng.standard_normal((50, 128))
        A, W = Dense(matrix / 9, SHAPE), Fourier(SHAPE, real=False)
    else:
        A, W = Dense(rng.standard_normal((50, 128)) / 7, SHAPE), 0.5 * Wavelet(SHAPE, "db2", 2)
    y = A(jnp.asarray(np.kron(rng.random((4, 4)), np.ones((4, 2))), A.in_dtype))
    return Problem(LeastSquares(A, y), Term(L1(jnp.asarray(weight)), W))


@pytest.mark.parametrize("kind", ["blocks", "one", "complex"])
def test_same_objective_at_every_point_and_same_optimum(kind: str) -> None:
    rng = np.random.default_rng(2)
    with x64():
        problem = _problem(kind)
        inside = in_coefficients(problem)
        assert inside is not None
        for _ in range(3):
            x = jnp.asarray(rng.standard_normal(SHAPE), problem.data.A.in_dtype)
            z = inside.analyse(x)
            np.testing.assert_allclose(inside.synthesise(z), x, atol=1e-12)
            np.testing.assert_allclose(inside.problem.objective(z), problem.objective(x), rtol=1e-12)
        bound, norm = inside.problem.data.A.norm_bound(), np.linalg.norm(inside.matrix, 2)
        assert norm <= bound <= 1.2 * norm
        s = solve(problem, DouglasRachford(), gap=1e-9, max_steps=5000).check()
        f = solve(problem, FISTA(), gap=1e-9, max_steps=20_000).check()
        np.testing.assert_allclose(s.objective, f.objective, rtol=2e-9)


def test_weights_of_coefficients_among_them_zero_and_infinity() -> None:
    weight, forbidden = np.full((2, 2, 8, 4), 0.05), np.zeros((2, 2, 8, 4), bool)
    forbidden[1, :, 4:] = True
    with x64():
        problem = _problem("blocks", np.where(forbidden, np.inf, weight))
        s = solve(problem, DouglasRachford(), gap=1e-8, max_steps=5000).check()
        f = solve(_problem("blocks", np.where(forbidden, 1e3, weight)), FISTA(), gap=1e-8, max_steps=20_000)
        np.testing.assert_allclose(s.objective, f.objective, rtol=2e-8)
        assert np.max(np.abs(problem.terms[0].K.forward(s.value)[forbidden])) < 1e-12
        # Without a weight: nothing certifies, but the answer is that of hardly any weight.
        weight[..., 0, 0] = 0
        s = solve(_problem("blocks", weight), DouglasRachford(), max_steps=1000)
        weight[..., 0, 0] = 1e-7
        f = solve(_problem("blocks", weight), DouglasRachford(), gap=1e-8, max_steps=5000).check()
        np.testing.assert_allclose(s.value, f.value, atol=1e-5)
        for constant in (0.0, np.inf):
            s = solve(_problem("blocks", np.full((2, 2, 8, 4), constant)), DouglasRachford())
            assert np.isfinite(s.value).all() and np.isfinite(s.objective)


def test_certificate_covers_the_rounding_of_the_image() -> None:
    with x64():
        exact = _problem("blocks")
        optimum = float(solve(exact, FISTA(), gap=1e-10, max_steps=20_000).check().objective)
    problem = jax.tree.map(lambda v: jnp.asarray(v, "f4"), exact)
    for gap in (1e-2, 1e-3, 1e-4):
        s = solve(problem, DouglasRachford(), gap=gap).check()
        with x64():
            true = float(exact.objective(jnp.asarray(np.asarray(s.value), "f8"))) / optimum - 1
        assert -1e-12 <= true <= float(s.gap) <= gap


def test_starts_batches_and_gradients() -> None:
    problem = jax.tree.map(lambda v: jnp.asarray(v, "f4"), _problem("blocks"))
    A, term = problem.data.A, problem.terms[0]
    one = solve(problem, DouglasRachford(), gap=1e-4)
    assert int(solve(problem, DouglasRachford(), gap=1e-4, start=one).steps) == 0
    near = solve(problem, DouglasRachford(), gap=1e-3, start=one.value)
    assert int(near.steps) < int(solve(problem, DouglasRachford(), gap=1e-3).steps)
    y = jnp.stack([problem.data.y, 0 * problem.data.y])
    many = solve(Problem(LeastSquares(A, y), term), DouglasRachford(), gap=1e-4)
    np.testing.assert_allclose(many.value[0], one.value, atol=1e-4)
    assert not np.any(many.value[1])

    def loss(matrix: jax.Array) -> jax.Array:
        A = Blockwise(Dense(matrix, (8, 4)), SHAPE)
        p = Problem(LeastSquares(A, y[0].astype(matrix.dtype)), term)
        return jnp.sum(solve(p, DouglasRachford(), gap=1e-14, max_steps=5000, gradient=Implicit()).value ** 3)

    with x64():
        term = _problem("blocks").terms[0]
        matrix = jnp.asarray(np.asarray(A.op.matrix), "f8")
        direction = jnp.asarray(np.random.default_rng(3).standard_normal(matrix.shape))
        slope = float(jnp.vdot(jax.grad(loss)(matrix), direction))
        difference = float(loss(matrix + 1e-5 * direction) - loss(matrix - 1e-5 * direction)) / 2e-5
        np.testing.assert_allclose(slope, difference, rtol=1e-4)


@pytest.mark.parametrize("kind", ["singular values over three decades", "rows twice"])
def test_in_float32_the_rounding_of_the_inverse_does_no_harm(kind: str) -> None:
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((50, 128)) / 7
    if kind == "rows twice":
        matrix[25:] = matrix[:25]
    else:
        u, _, v = np.linalg.svd(matrix, full_matrices=False)
        matrix = (u * np.logspace(0, -3, 50)) @ v
    A = Dense(matrix.astype("f4"), SHAPE)
    y = A(jnp.asarray(np.kron(rng.random((4, 4)), np.ones((4, 2))), "f4"))
    W = Wavelet(SHAPE, "haar")
    weight = 3e-4 * jnp.max(jnp.abs(W(A.adjoint(y))))
    s = solve(Problem(LeastSquares(A, y), Term(L1(weight), W)), DouglasRachford(), gap=1e-3).check()
    assert int(s.steps) < 1000  # by x' = v - A.H M (A v - y) / c it comes to rest beside the optimum


def test_the_penalties_are_set_anew_for_another_weight() -> None:
    problem = jax.tree.map(lambda v: jnp.asarray(v, "f4"), _problem("blocks"))
    solver = DouglasRachford(check_every=1)
    one = solve(problem, solver, gap=0, max_steps=200)
    assert int(one.state.checks) > 8
    near = Problem(problem.data, Term(L1(jnp.asarray(0.01, "f4")), problem.terms[0].K))
    s = solve(near, solver, gap=1e-5, start=one)
    assert np.ptp(s.state.c) > 0
    for rho in (1e-4, 1e4):  # a start far off does not stay
        solve(problem, DouglasRachford(rho), gap=1e-4).check()


def test_a_transform_that_is_zero_certifies_nothing() -> None:
    A = _problem("one").data.A
    problem = Problem(LeastSquares(A, jnp.ones(50)), Term(L1(0.1), 0.0 * DCT(SHAPE)))
    s = solve(problem, DouglasRachford(), max_steps=20)
    assert np.isinf(s.gap) and np.isfinite(s.value).all()


def test_the_norm_bound_is_not_below_the_norm_of_tiny_entries() -> None:
    matrix = 1e-21 * np.random.default_rng(0).standard_normal((20, 128)).astype("f4")
    inside = in_coefficients(Problem(LeastSquares(Dense(matrix, SHAPE), jnp.zeros(20)), L1(0.1)))
    assert inside is not None
    assert float(inside.problem.data.A.norm_bound()) >= np.linalg.norm(matrix.astype(float), 2)


def test_where_it_is_no_matrix_the_problem_stays() -> None:
    blocks, one = _problem("blocks"), _problem("one")
    A, y, g = blocks.data.A, blocks.data.y, L1(0.1)
    mask = np.ones(SHAPE)
    for other in (
        Problem(LeastSquares(A, y), Term(g, Wavelet(SHAPE, "db2", 1))),  # goes over the blocks
        Problem(LeastSquares(A, y), Term(g, Blockwise(DCT((4, 4)), SHAPE))),
        Problem(LeastSquares(A, y), *blocks.terms, Box(0, 1)),
        Problem(LeastSquares(A, y, jnp.ones_like(y)), *blocks.terms),
        Problem(LeastSquares(SubsampledDCT(mask), jnp.zeros(SHAPE)), g),
        Problem(one.data),
    ):
        assert in_coefficients(other) is None
    assert in_coefficients(Problem(one.data, Term(g, Identity(SHAPE)))) is not None
