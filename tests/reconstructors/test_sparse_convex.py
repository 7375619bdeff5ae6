"""Lasso, BasisPursuit, ReweightedL1; and what all sparse methods do with complex, tiny, huge and broken numbers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax import L1, LeastSquares, Noise, Problem, solve
from emjax.operators import DCT, Dense, FiniteDifference, SubsampledFourier
from emjax.reconstructors import (
    AMP,
    HTP,
    IHT,
    OMP,
    VAMP,
    BasisPursuit,
    BernoulliGauss,
    CoSaMP,
    Lasso,
    ReweightedL1,
    SoftThreshold,
)
from emjax.solvers import FISTA, Implicit, ParetoRoot

M, N, K = 24, 48, 3
RNG = np.random.default_rng(21)
MATRIX = (RNG.standard_normal((M, N)) / M**0.5).astype("f4")
X = np.zeros((3, N), "f4")
for row in X:
    row[RNG.permutation(N)[:K]] = RNG.choice([-1, 1], K) * (1 + RNG.random(K))
Y = X @ MATRIX.T
A = Dense(MATRIX)

CONVEX = {
    "Lasso": Lasso(2e-3),
    "BasisPursuit": BasisPursuit(),
    "root": BasisPursuit(1e-3, solver=ParetoRoot()),
    "ReweightedL1": ReweightedL1(BasisPursuit(gap=1e-3, max_steps=500), rounds=2),
}
OTHERS = {
    "OMP": OMP(K),
    "CoSaMP": CoSaMP(K),
    "IHT": IHT(K),
    "HTP": HTP(K),
    "AMP": AMP(iterations=60),
    "VAMP": VAMP(SoftThreshold(1.5), iterations=60),
}


def error(found: Any, x: np.ndarray) -> float:
    return float(np.linalg.norm((np.asarray(found) - x).astype(complex)) / np.linalg.norm(x.astype(complex)))


@pytest.mark.parametrize("method", CONVEX.values(), ids=CONVEX)
def test_sparse_signals_are_recovered(method: Any) -> None:
    """In a batch, and where one item is nothing or not a number."""
    y = np.stack([Y[0], Y[1], 0 * Y[2], np.full(M, np.nan, "f4")])
    found = np.asarray(method(y, A))
    assert error(found[:2], X[:2]) < 1e-2
    assert (found[2] == 0).all() and np.isnan(found[3]).all()


@pytest.mark.slow
@pytest.mark.parametrize("method", CONVEX.values(), ids=CONVEX)
def test_an_operator_for_each_item(method: Any) -> None:
    matrices = np.stack([MATRIX, MATRIX[::-1], -MATRIX])
    assert error(method(np.einsum("bij,bj->bi", matrices, X), Dense(matrices)), X) < 1e-2


@pytest.mark.slow
def test_in_a_transform() -> None:
    W = DCT((N,))
    x = np.asarray(W.H(X))
    assert error(BasisPursuit(transform=W)(x @ MATRIX.T, A), x) < 1e-2
    with pytest.raises(ValueError, match="orthonormal transform"):
        Lasso(0.1, transform=FiniteDifference((N,)))(Y, A)


def test_reweighting_needs_fewer_measurements() -> None:
    """Where l1 begins to fail, four rounds recover more signals (Candès, Wakin, Boyd 2008, figure 2)."""
    rng = np.random.default_rng(2)
    x = np.zeros((20, N), "f4")
    for row in x:
        row[rng.permutation(N)[:8]] = rng.standard_normal(8)
    inner = BasisPursuit(gap=1e-3, max_steps=500)
    rates = []
    for method in (ReweightedL1(inner, rounds=0), ReweightedL1(inner, rounds=4)):
        found = np.asarray(method(x @ MATRIX.T, A))
        rates.append(np.mean(np.linalg.norm(found - x, axis=1) < 1e-2 * np.linalg.norm(x, axis=1)))
    assert rates[1] >= rates[0] + 0.15


def test_the_tolerance_comes_from_the_noise() -> None:
    noise = 0.05
    y = Y + noise * RNG.standard_normal(Y.shape).astype("f4")
    found = np.asarray(BasisPursuit(gap=1e-3)(y, A, Noise(read_sigma=noise)))
    want = noise * np.sqrt(M + 2 * np.sqrt(2 * M))
    np.testing.assert_allclose(np.linalg.norm(found @ MATRIX.T - y, axis=1), want, rtol=1e-2)


@pytest.mark.parametrize("method", OTHERS.values(), ids=OTHERS)
def test_size_and_broken_numbers(method: Any) -> None:
    """Very small and very large measurements; a matrix that is not finite marks its item, and no other."""
    broken = MATRIX.copy()
    broken[2, 5] = np.nan
    scale = np.array([1, 1e-10 if not isinstance(method, VAMP) else 1e-2, 1e20, 1], "f4")
    y = scale[:, None] * Y[0]
    found = np.asarray(method(y, Dense(np.stack([MATRIX, MATRIX, MATRIX, broken])))).astype(float)
    assert np.isnan(found[3]).all()
    for got, s in zip(found[:3], scale[:3].astype(float), strict=True):
        assert error(got / s, X[0]) < 2e-2


@pytest.mark.parametrize("method", OTHERS.values(), ids=OTHERS)
def test_complex_matrices(method: Any) -> None:
    rng = np.random.default_rng(4)
    matrix = ((rng.standard_normal((M, N)) + 1j * rng.standard_normal((M, N))) / (2 * M) ** 0.5).astype("c8")
    x = (X * np.exp(2j * np.pi * rng.random(X.shape))).astype("c8")
    assert error(method(x @ matrix.T, Dense(matrix)), x) < 1e-2


def test_complex_measurements_of_real_items() -> None:
    """The inner product of real items is the real part: orthogonal steps are taken in it."""
    mask = np.zeros(N, "f4")
    mask[RNG.permutation(N // 2)[:8]] = 1
    F = SubsampledFourier(mask, 1)
    for x in X:
        np.testing.assert_allclose(OMP(K)(F(x), F), x, atol=1e-4)
    with pytest.raises(ValueError, match="take AMP"):
        VAMP()(F(X), F)


@pytest.mark.parametrize("eta", [SoftThreshold(1.2), BernoulliGauss(0.2, 1.5)])
@pytest.mark.parametrize("complex_", [False, True])
def test_divergences_against_differences(eta: Any, complex_: bool) -> None:
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        v = rng.standard_normal(500) + (1j * rng.standard_normal(500) if complex_ else 0)
        v = v[np.abs(np.abs(v) - 1.2 * 0.5) > 1e-3]
        h = 1e-6
        ways = (1, 1j) if complex_ else (1,)
        slopes = [np.real((eta(v + h * d, 0.5) - eta(v - h * d, 0.5)) / (2 * h) / d) for d in ways]
        np.testing.assert_allclose(eta.divergence(jnp.asarray(v), 0.5), np.mean(slopes), rtol=1e-6)


@pytest.mark.parametrize("method", [AMP, VAMP])
def test_damping_keeps_the_fixed_point(method: Any) -> None:
    y = Y + 0.05 * np.random.default_rng(1).standard_normal(Y.shape)
    settings = {"noise_sigma": 0.1} if method is VAMP else {}
    with jax.enable_x64(True):
        A64 = Dense(MATRIX.astype(float))
        methods = [method(SoftThreshold(2.0), iterations=400, damping=d, **settings) for d in (1.0, 0.6)]
        plain, damped = (np.asarray(one(y, A64)) for one in methods)
    np.testing.assert_allclose(damped, plain, atol=1e-8)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Lasso(-1.0), "0 or more"),
        (lambda: BasisPursuit(-1.0), "0 or more"),
        (lambda: ReweightedL1(rounds=-1), "whole number"),
        (lambda: BasisPursuit(0.1)(Y[:, 1:], A), "measurements have shape"),
    ],
)
def test_bad_settings(make: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_bad_types() -> None:
    with pytest.raises(TypeError, match="PDHG"):
        BasisPursuit(solver="spgl1")
    with pytest.raises(TypeError, match="repeats"):
        ReweightedL1(OMP(3))


def test_derivatives_are_those_of_the_solve() -> None:
    """By measurements, matrix and weight, alone and in a batch; without a way to differentiate they say so."""
    with jax.enable_x64(True):
        settings: dict[str, Any] = {"gap": 1e-12, "max_steps": 20_000, "gradient": Implicit(1e-9, 20_000)}

        def by_method(y: jax.Array, matrix: jax.Array, weight: jax.Array) -> jax.Array:
            return jnp.sum(Lasso(weight, **settings)(y, Dense(matrix)) ** 2)

        def by_solve(y: jax.Array, matrix: jax.Array, weight: jax.Array) -> jax.Array:
            return jnp.sum(solve(Problem(LeastSquares(Dense(matrix), y), L1(weight)), FISTA(), **settings).value ** 2)

        at = (Y.astype(float), MATRIX.astype(float), 0.05)
        found, wanted = (jax.jit(jax.grad(f, argnums=(0, 1, 2)))(*at) for f in (by_method, by_solve))
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6 * np.abs(b).max())
        again = jax.jit(lambda w: ReweightedL1(Lasso(w, **settings), rounds=1)(at[0][0], Dense(at[1])).sum())
        slope = float(again(0.05 + 1e-6) - again(0.05 - 1e-6)) / 2e-6
        assert float(jax.jit(jax.jacfwd(again))(0.05)) == pytest.approx(slope, rel=1e-4)
    with pytest.raises(ValueError, match="has no derivative as it stands"):
        jax.grad(lambda w: Lasso(w)(Y[0], A).sum())(0.1)
