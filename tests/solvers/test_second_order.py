"""Second-order total generalised variation: certified, exact for affine images, with every data term, batched."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from jax import export
from solver_problems import MASK, SHAPE, YS, x64

from emjax import TGV, TV, Box, LeastSquares, Noise, PoissonLikelihood, Problem, Solution, Status, Term, load, solve
from emjax.functionals import NuclearNorm
from emjax.operators import Blur, FiniteDifference, Identity, Patches, PixelSampling, SymmetricGradient
from emjax.solvers import ADMM, PDHG, CondatVu, Unrolled

RAMP = np.add.outer(np.arange(12) / 12, np.arange(10) / 20)


def tgv(y: object = YS[0], weight: object = 0.05, mask: object = MASK, ratio: object = 1.0) -> Problem:
    return Problem(LeastSquares(PixelSampling(mask), y), TGV(weight, ratio), Box(-1, 2))


def test_the_certificate_holds() -> None:
    """In float64 to 1e-6; the objective at any earlier stop is no farther from there than its gap says."""
    with x64():
        y = YS[0].astype(float)
        for mask in (MASK, np.ones(SHAPE)):
            best = solve(tgv(y, mask=mask), gap=1e-6, max_steps=40_000).check()
            for steps in (1, 20, 100, 400, 1000):
                early = solve(tgv(y, mask=mask), gap=0.0, max_steps=steps)
                assert early.objective - best.objective <= early.gap * early.objective
                assert early.objective >= best.objective * (1 - 1e-6)
            stack = best.state.x
            np.testing.assert_allclose(tgv(y, mask=mask).objective(stack), best.objective, rtol=1e-12)
    quick = solve(tgv(), gap=1e-3, max_steps=5000).check()
    assert quick.value.shape == SHAPE and quick.value.dtype == jnp.float32


def test_against_an_independent_solver() -> None:
    """One row of pixels is a quadratic program with bounds, once |.| is split into its positive and negative part."""
    n, weight, ratio = 12, 0.1, 0.7
    y = np.linspace(0, 1, n) ** 2 + 0.05 * np.random.default_rng(3).standard_normal(n)
    with x64():
        ours = solve(
            Problem(LeastSquares(Identity((n,)), y), TGV(weight, ratio)), PDHG(), gap=1e-9, max_steps=100_000
        ).check()
        K = np.asarray(
            jax.vmap(Problem(LeastSquares(Identity((n,)), y), TGV(1.0)).terms[0].K)(np.eye(2 * n).reshape(-1, 2, n))
        )
        E = np.asarray(jax.vmap(SymmetricGradient((n,)))(np.eye(n)[:, None])).reshape(n, n).T
    K = K.reshape(2 * n, n).T
    E = np.hstack([np.zeros((n, n)), E])
    # The dual: maximise <y, s> - |s|^2 / 2, s = K_x.T p, |p| <= weight, |q| <= ratio weight, K_w.T p + E_w.T q = 0.
    x_part = np.hstack([K[:, :n].T, np.zeros((n, n))])
    w_part = np.hstack([K[:, n:].T, E[:, n:].T])[:-1]  # the last entry of the field does not count
    bounds = [(-weight, weight)] * n + [(-ratio * weight, ratio * weight)] * n
    dual = scipy.optimize.minimize(
        lambda v: 0.5 * np.sum((x_part @ v - y) ** 2),
        np.zeros(2 * n),
        jac=lambda v: x_part.T @ (x_part @ v - y),
        bounds=bounds,
        constraints={"type": "eq", "fun": lambda v: w_part @ v, "jac": lambda v: w_part},
        method="SLSQP",
        options={"ftol": 1e-15, "maxiter": 1000},
    )
    np.testing.assert_allclose(ours.objective, 0.5 * np.sum(y**2) - dual.fun, rtol=1e-6)
    np.testing.assert_allclose(ours.value, y - x_part @ dual.x, atol=1e-4)


def test_affine_images_cost_nothing() -> None:
    y = RAMP.astype("f4")
    s = solve(tgv(MASK * y, 0.1), gap=1e-6, max_steps=4000)
    assert s.objective < 1e-4
    np.testing.assert_allclose(s.value, y, atol=2e-2)
    stepped = solve(Problem(LeastSquares(PixelSampling(MASK), MASK * y), TV(0.1)))
    assert stepped.objective > 0.5
    D, E = FiniteDifference(SHAPE), SymmetricGradient(SHAPE)
    np.testing.assert_allclose(E(D(y)), 0, atol=1e-6)


def test_a_large_ratio_is_total_variation() -> None:
    """The field then has no variation, and a constant field is paid for everywhere."""
    y = YS[0] - YS[0].mean()
    with x64():
        both = [
            solve(
                Problem(LeastSquares(PixelSampling(np.ones(SHAPE)), y.astype(float)), prior), gap=1e-6, max_steps=40_000
            )
            for prior in (TGV(0.1, 50.0), TV(0.1))
        ]
    np.testing.assert_allclose(both[0].objective, both[1].objective, rtol=2e-2)
    assert both[0].objective <= both[1].objective


@pytest.mark.parametrize("name", ["weighted", "blur", "poisson", "with l1 total variation"])
def test_other_data_and_terms(name: str) -> None:
    y = np.clip(YS[0], 0, None) + 0.1
    box = Box(0.0, 2.0)
    problem = {
        "weighted": lambda: Problem(LeastSquares(PixelSampling(MASK), y, 0.5 + y), TGV(0.05), box),
        "blur": lambda: Problem(LeastSquares(Blur(np.full((3, 3), 1 / 9), SHAPE), y), TGV(0.05), box),
        "poisson": lambda: Problem(PoissonLikelihood(PixelSampling(MASK), y, 0.1), TGV(0.5), box),
        "with l1 total variation": lambda: Problem(
            LeastSquares(PixelSampling(MASK), y), TGV(0.05), TV(0.01, isotropic=False), box
        ),
    }[name]
    with x64():
        y = y.astype(float)
        s = solve(problem(), gap=1e-3, max_steps=40_000).check()
        assert s.value.shape == SHAPE and bool((s.value >= 0).all())


def test_batches_and_warm_starts() -> None:
    weights = np.array([0.02, 0.05, 0.1], "f4")[:, None, None]
    together = solve(tgv(YS, weights), gap=1e-2)
    alone = solve(tgv(YS[1], 0.05), gap=1e-2)
    np.testing.assert_allclose(together.value[1], alone.value, atol=1e-6)
    assert together.value.shape == (3, *SHAPE) and (together.status == Status.CONVERGED).all()
    again = solve(tgv(YS, weights), start=together, gap=1e-2, max_steps=0)
    assert (again.status == Status.CONVERGED).all()
    from_image = solve(tgv(YS[1], 0.05), start=alone.value, gap=1e-2)
    assert from_image.status == Status.CONVERGED


@pytest.mark.slow
def test_gradients() -> None:
    @functools.partial(jax.jit, static_argnums=1)
    def loss(weight: jax.Array, steps: int = 30) -> jax.Array:
        return jnp.sum(solve(tgv(YS[0].astype(float), weight), gradient=Unrolled(steps)).value ** 2)

    with x64():
        slope = jax.grad(loss)(0.05)
        np.testing.assert_allclose(slope, (loss(0.05 + 1e-6) - loss(0.05 - 1e-6)) / 2e-6, rtol=1e-4)


def test_export() -> None:
    def recover(y: jax.Array, weight: jax.Array) -> Solution:
        return solve(tgv(y, weight))

    shapes = jax.ShapeDtypeStruct(SHAPE, "f4"), jax.ShapeDtypeStruct((), "f4")
    assert export.export(jax.jit(recover), platforms=("cpu", "cuda", "tpu"))(*shapes).platforms[0] == "cpu"


def test_bad_parts() -> None:
    data = LeastSquares(PixelSampling(MASK), YS[0])
    with pytest.raises(ValueError, match="one TGV"):
        Problem(data, TGV(0.1), TGV(0.2))
    with pytest.raises(ValueError, match="0 or more"):
        TGV(-0.1)
    with pytest.raises(ValueError, match="0 or more"):
        TGV(0.1, -1.0)
    with pytest.raises(ValueError, match="broadcast"):
        Problem(data, TGV(np.ones((3, 3))))
    for solver in (ADMM(), CondatVu()):
        with pytest.raises(ValueError, match="use PDHG"):
            solve(tgv(), solver)
    open_ended = solve(Problem(data, TGV(0.05)), max_steps=50)
    assert jnp.isinf(open_ended.gap) and bool(jnp.isfinite(open_ended.value).all())


@pytest.mark.slow
def test_the_reconstructor() -> None:
    """Weight from the data, within the widened range of the scan, with the noise or without."""
    rng = np.random.default_rng(0)
    image = np.sin(np.add.outer(np.arange(32) / 5, np.arange(40) / 9)).astype("f4")
    mask = (rng.random(image.shape) < 0.4).astype("f4")
    y, A = mask * (image + 0.1 * rng.standard_normal(image.shape).astype("f4")), PixelSampling(mask)
    recon = load("tgv").fit(y, A)
    x = recon(y, A)
    assert float(recon.weight) > 0 and float(jnp.mean((x - image) ** 2)) < 0.5 * 0.1**2
    weighed = load("tgv", weight=0.05)(y, A, Noise(read_sigma=0.1))
    assert weighed.shape == image.shape and bool(jnp.isfinite(weighed).all())


def test_two_nuclear_norms_do_not_wait_for_each_other() -> None:
    """Decompositions of many matrices at once have hung where two of them met on the same threads."""
    x = jnp.asarray(np.random.default_rng(3).standard_normal((4, 16, 16)), jnp.float32)
    terms = [Term(NuclearNorm(w), Patches((4, 16, 16), side)) for w, side in ((0.2, 4), (0.4, 8))]
    s = solve(Problem(LeastSquares(PixelSampling(jnp.ones(x.shape), 3), x), *terms), gap=1e-3, max_steps=300)
    assert bool(jnp.isfinite(s.value).all()) and float(s.objective) < float(sum(t(x) for t in terms))
