"""The dual of an l1 problem that is moved towards the ball before it is scaled: tighter, and never below the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax import LeastSquares, Problem, Term, solve
from emjax.functionals import L1
from emjax.operators import DCT, Dense, SubsampledDCT, SubsampledFourier, Wavelet
from emjax.solvers import FISTA
from emjax.solvers.certificate import from_primal


def _problem(kind: str) -> Problem:
    rng = np.random.default_rng(0)
    x = np.kron(rng.random((4, 4)), np.ones((4, 4))).astype("f4")
    if kind == "gaussian":
        A, W = Dense((rng.standard_normal((100, 256)) / 10).astype("f4"), (16, 16)), DCT((16, 16))
    else:
        mask = (rng.random((16, 16)) < 0.4).astype("f4")
        mask[:3, :3] = 1
        A = SubsampledDCT(mask) if kind == "dct" else SubsampledFourier(mask)
        W = Wavelet((16, 16), "db2", 2)
    y = A(jnp.asarray(x))
    weight = jnp.asarray(0.5 + rng.random(y.shape), jnp.float32) if kind == "dct" else None
    return Problem(LeastSquares(A, y, weight), Term(L1(0.02), W))


@pytest.mark.parametrize("kind", ["dct", "fourier", "gaussian"])
def test_gap_holds_and_is_smaller_than_that_of_scaling_alone(kind: str) -> None:
    problem = _problem(kind)
    optimum = float(solve(problem, FISTA(), gap=1e-6, max_steps=3000).objective)
    data, term = problem.least_squares, problem.terms[0]
    ratios = []
    for steps in (60, 150, 400):
        x = solve(problem, FISTA(), gap=0.0, max_steps=steps).value
        certificate = from_primal(problem, x)
        assert float(certificate.objective) - optimum <= float(certificate.gap + certificate.allowance)
        q = data.weighted(data.residual(x))
        p = -term.K.forward(data.A.adjoint(q))
        s = term.functional.shrink(p)
        r = (1 - s) * q
        data_gap = 0.5 * jnp.sum(jnp.abs(r) ** 2 / (1 if data.weight is None else data.weight))
        scaled = float(term.functional.fenchel_gap(term.K.forward(x), s * p) + data_gap)
        ratios.append(float(certificate.gap) / scaled)
    assert max(ratios) <= 1 + 1e-3 and min(ratios) < 0.7


def test_measurements_of_zero_and_weights_that_are_nan() -> None:
    problem = _problem("fourier")
    still = Problem(LeastSquares(problem.data.A, 0 * problem.data.y), *problem.terms)
    assert float(from_primal(still, jnp.zeros((16, 16))).gap) == 0
    broken = jax.tree.map(lambda v: v * jnp.nan, _problem("dct"))
    assert np.isnan(float(from_primal(broken, jnp.ones((16, 16))).gap))
