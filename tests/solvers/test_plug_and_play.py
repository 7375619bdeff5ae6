"""Plug-and-play and RED: the certified optimum if the denoiser is a proximal map, a closed form if it is linear."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_problems import x64

from emjax import L1, TV, Box, HuberLoss, LeastSquares, PoissonLikelihood, Problem, Status, Term, solve
from emjax.denoisers import TVDenoiser
from emjax.functionals import as_denoiser
from emjax.operators import DCT, Blur, Dense, FiniteDifference, Fourier, PixelSampling, gaussian_kernel
from emjax.solvers import HQS, PDHG, RED, PnPADMM, PnPPGD, Unrolled

SHAPE, MANY = (6, 5), 20
RNG = np.random.default_rng(8)
TRUTHS = np.kron(RNG.random((MANY, 2, 1)), np.ones((1, 3, 5)))
YS = TRUTHS + 0.1 * RNG.standard_normal(TRUTHS.shape)
MASKS = (RNG.random(TRUTHS.shape) < 0.7).astype(float)
C = DCT(SHAPE)
# A symmetric smoothing matrix with eigenvalues in (0.2, 1]: its power is the linear denoiser of the closed forms.
_D = np.asarray(FiniteDifference(SHAPE)(np.eye(30).reshape(30, *SHAPE))).reshape(30, -1).T
S = np.linalg.inv(np.eye(30) + 0.5 * _D.T @ _D)


def sparse(v: jax.Array, sigma: jax.Array) -> jax.Array:
    """The proximal map of `0.05 sigma^2 |C x|_1`."""
    return C.adjoint(L1(0.05).prox(C.forward(v), sigma**2))


def smooth(v: jax.Array, sigma: jax.Array) -> jax.Array:
    return (jnp.asarray(S, v.dtype) @ v.ravel()).reshape(SHAPE)


def scans() -> LeastSquares:
    return LeastSquares(PixelSampling(MASKS), YS)


@pytest.mark.parametrize("solver", [PnPPGD(sparse), PnPADMM(sparse, sigma=1.2)], ids=["PGD", "ADMM"])
def test_with_a_proximal_map_the_certified_optimum_is_reached(solver: Any) -> None:
    """Soft thresholds in an orthonormal basis: 20 random problems."""
    with x64():
        problem = Problem(scans(), Term(L1(0.05), C))
        best = solve(problem, gap=1e-9, max_steps=20_000).check()
        found = solve(Problem(scans()), solver, gap=1e-7, max_steps=5000).check()
        assert bool((found.residual <= 1e-7).all()) and bool(jnp.isinf(found.gap).all())
        values = jax.vmap(lambda y, m, x: Problem(LeastSquares(PixelSampling(m), y), Term(L1(0.05), C)).objective(x))(
            YS, MASKS, found.value
        )
        np.testing.assert_allclose(values, best.objective, rtol=1e-5)


@pytest.mark.parametrize("kind", ["ADMM", pytest.param("PGD", marks=pytest.mark.slow)])
def test_with_the_denoiser_of_total_variation_its_optimum_is_reached(kind: str) -> None:
    with x64():
        factor, weight, sigma = 0.2, 0.5, 0.5
        # g = factor sigma TV, t = sigma^2 / weight: f + g / t. Proximal gradients have t = 1.
        solver: Any = PnPADMM(TVDenoiser(factor, gap=1e-8, max_steps=3000), weight, sigma)
        total = factor * sigma / (sigma**2 / weight)
        if kind == "PGD":
            solver, total = PnPPGD(TVDenoiser(factor, gap=1e-8, max_steps=3000), weight), factor * weight**0.5
        best = solve(Problem(scans(), TV(total)), PDHG(), gap=2e-6, max_steps=20_000).check()
        found = solve(Problem(scans()), solver, gap=1e-6, max_steps=1000)
        values = jax.vmap(lambda y, m, x: Problem(LeastSquares(PixelSampling(m), y), TV(total)).objective(x))(
            YS, MASKS, found.value
        )
        assert bool((found.status == Status.CONVERGED).all())
        np.testing.assert_allclose(values, best.objective, rtol=1e-5)


def step(A: np.ndarray) -> float:
    """Of proximal gradients: the fixed point depends on the bound of the norm that they take."""
    return 1 / float(Dense(A, SHAPE).norm_bound()) ** 2


def numpy_iteration(kind: str, A: np.ndarray, y: np.ndarray, weight: float, sigma: float, steps: int) -> np.ndarray:
    """The same methods as plain loops on matrices."""
    gram, back = A.T @ A, A.T @ y
    x = z = np.zeros(30)
    u = np.zeros(30)
    rho = weight / sigma**2
    for _ in range(steps):
        if kind == "HQS":
            z = S @ np.linalg.solve(gram + rho * np.eye(30), back + rho * z)
        elif kind == "ADMM":
            x = np.linalg.solve(gram + rho * np.eye(30), back + rho * (z - u))
            z = S @ (x + u)
            u = u + x - z
        elif kind == "PGD":
            z = S @ (z - (gram @ z - back) * step(A))
        else:
            z = np.linalg.solve(gram + weight * np.eye(30), back + weight * S @ z)
    return z


def closed_form(kind: str, A: np.ndarray, y: np.ndarray, weight: float, sigma: float) -> np.ndarray:
    """The fixed point by one system of equations."""
    gram, back, one = A.T @ A, A.T @ y, np.eye(30)
    rho = weight / sigma**2
    if kind == "HQS":
        inverse = np.linalg.inv(gram + rho * one)
        return np.linalg.solve(one - rho * S @ inverse, S @ inverse @ back)
    if kind == "ADMM":
        return np.linalg.solve(gram + rho * (np.linalg.inv(S) - one), back)
    if kind == "PGD":
        t = step(A)
        return np.linalg.solve(one - S @ (one - t * gram), t * S @ back)
    return np.linalg.solve(gram + weight * (one - S), back)


LINEAR: dict[str, Any] = {
    "HQS": HQS(smooth, 0.4, 0.8, iterations=1),
    "HQS, falling": HQS(smooth, 0.4, 0.8, 3.0, iterations=6),
    "ADMM": PnPADMM(smooth, 0.4, 0.8),
    "PGD": PnPPGD(smooth, 0.4),
    "RED": RED(smooth, 0.4, 0.8),
    "RED, slower": RED(smooth, 0.4, 0.8, 2.0),
    "RED, gradient": RED(smooth, 0.4, 0.8, form="gradient"),
}
SLOW = ("RED, slower", "HQS, falling")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in LINEAR])
def test_a_linear_denoiser_has_its_closed_form(name: str) -> None:
    """Random matrices: the fixed point by one system of equations, and a loop in NumPy that goes there too."""
    kind = name.split(",")[0]
    with x64():
        matrices = RNG.standard_normal((MANY, 20, 30)) / 20**0.5
        ys = RNG.standard_normal((MANY, 20))
        solver = LINEAR[name]

        @jax.jit
        def run(matrix: jax.Array, y: jax.Array) -> Any:
            return solve(Problem(LeastSquares(Dense(matrix, SHAPE), y)), solver, gap=1e-10, max_steps=20_000)

        found = jax.vmap(run)(matrices, ys)
        assert bool((found.status == Status.CONVERGED).all())
        for A, y, x in zip(matrices, ys, found.value, strict=True):
            wanted = closed_form(kind, A, y, 0.4, 0.8)
            np.testing.assert_allclose(np.ravel(x), wanted, atol=1e-6 * np.abs(wanted).max())
        loop = numpy_iteration(kind, matrices[0], ys[0], 0.4, 0.8, 3000)
        np.testing.assert_allclose(loop, closed_form(kind, matrices[0], ys[0], 0.4, 0.8), atol=1e-6)


def test_single_steps_are_those_of_numpy() -> None:
    """The way, not only the end: with a closed prox the iterates after five steps agree."""
    with x64():
        A = np.diag(MASKS[0].ravel())
        y = MASKS[0] * YS[0]
        problem = Problem(LeastSquares(PixelSampling(MASKS[0]), y))
        for name in ("HQS", "ADMM", "PGD", "RED"):
            found = solve(problem, LINEAR[name], gap=0.0, max_steps=5, start=np.zeros(SHAPE))
            np.testing.assert_allclose(
                found.value.ravel(), numpy_iteration(name, A, y.ravel(), 0.4, 0.8, 5), atol=1e-12, err_msg=name
            )
            assert found.status == Status.STEP_LIMIT and found.steps == 5


def test_the_levels_of_half_quadratic_splitting_fall_geometrically() -> None:
    solver = HQS(smooth, 0.1, 0.05, 0.4, iterations=4)
    np.testing.assert_allclose([solver.level(jnp.int32(k)) for k in range(6)], [0.4, 0.2, 0.1, 0.05, 0.05, 0.05], 1e-6)


def test_a_batch_is_its_items_and_has_one_trace() -> None:
    traces = 0

    def counted(v: jax.Array, sigma: jax.Array) -> jax.Array:
        nonlocal traces
        traces += 1
        return sparse(v, sigma)

    @jax.jit
    def run(y: jax.Array, mask: jax.Array, weight: jax.Array) -> Any:
        return solve(Problem(LeastSquares(PixelSampling(mask), y)), PnPADMM(counted, weight), max_steps=50)

    y, mask = YS[:3].astype("f4"), MASKS[:3].astype("f4")
    run(y, mask, jnp.float32(0.5))
    before = traces
    batch = run(y, mask, jnp.float32(0.1))
    assert traces == before
    assert batch.value.dtype == jnp.float32
    for i in range(3):
        one = run(y[i : i + 1], mask[i : i + 1], jnp.float32(0.1))
        np.testing.assert_allclose(one.value[0], batch.value[i], atol=1e-6)
        assert one.steps[0] == batch.steps[i]


def test_a_run_goes_on_from_where_it_stood() -> None:
    problem = Problem(LeastSquares(PixelSampling(MASKS[0].astype("f4")), YS[0].astype("f4")))
    whole = solve(problem, PnPADMM(sparse), gap=0.0, max_steps=20)
    half = solve(problem, PnPADMM(sparse), gap=0.0, max_steps=10)
    again = solve(problem, PnPADMM(sparse), gap=0.0, max_steps=10, start=half)
    np.testing.assert_allclose(again.value, whole.value, atol=1e-6)
    calls: list[int] = []
    solve(problem, PnPADMM(sparse), gap=0.0, max_steps=20, progress=lambda steps, _: calls.append(steps))
    assert calls[-1] == 20


def test_unrolled_gradients_are_finite_differences() -> None:
    with x64():

        def loss(weight: jax.Array) -> jax.Array:
            data = LeastSquares(PixelSampling(MASKS[0]), YS[0])
            s = solve(Problem(data), PnPADMM(smooth, weight, 0.8), gradient=Unrolled(12))
            return jnp.sum((s.value - TRUTHS[0]) ** 2)

        h = 1e-5
        slope = jax.jit(jax.grad(loss))(jnp.asarray(0.3))
        np.testing.assert_allclose(
            slope, (loss(jnp.asarray(0.3 + h)) - loss(jnp.asarray(0.3 - h))) / (2 * h), rtol=1e-5
        )


def test_counts_outliers_boxes_and_complex_measurements() -> None:
    with x64():
        y = np.abs(YS[0])
        for data in (
            HuberLoss(PixelSampling(MASKS[0]), y, 0.1),
            PoissonLikelihood(PixelSampling(MASKS[0]), y, 0.05),
        ):
            g = 0.05 * (0.05 if isinstance(data, HuberLoss) else 1)

            def eta(v: jax.Array, sigma: jax.Array, g: float = g) -> jax.Array:
                return C.adjoint(L1(g).prox(C.forward(v), sigma**2))

            box = () if isinstance(data, HuberLoss) else (Box(0.0, 3.0),)
            best = solve(Problem(data, Term(L1(g), C), *box), PDHG(), gap=1e-8, max_steps=30_000)
            found = solve(Problem(data), PnPADMM(eta, 1.0, 0.5), gap=1e-9, max_steps=5000).check()
            value = Problem(data, Term(L1(g), C)).objective(found.value)
            np.testing.assert_allclose(value, best.objective, rtol=1e-5)
        F = Fourier(SHAPE)
        found = solve(Problem(LeastSquares(F, F(YS[0])), Box(0.2, 0.6)), PnPADMM(smooth, 0.1, 0.8))
        assert found.value.dtype == jnp.float64 and found.value.min() >= 0.2 and found.value.max() <= 0.6


DATA = LeastSquares(PixelSampling(MASKS[0].astype("f4")), YS[0].astype("f4"))


@pytest.mark.parametrize("y", [np.nan, np.inf])
@pytest.mark.parametrize("solver", [PnPADMM(sparse), RED(sparse), PnPPGD(sparse), HQS(sparse)])
def test_bad_values_end_in_a_status(y: float, solver: Any) -> None:
    ys = np.stack([YS[0], np.where(MASKS[0] > 0, y, 0)]).astype("f4")
    found = solve(Problem(LeastSquares(DATA.A, ys)), solver, max_steps=60)
    assert found.status[1] == Status.NON_FINITE and bool(jnp.isfinite(found.value[0]).all())


def test_weights_of_zero_and_infinity() -> None:
    """Nothing measured: the denoiser alone. No prior: the data alone. What is no number of the kind is refused."""
    zero = LeastSquares(PixelSampling(np.zeros(SHAPE, "f4")), YS[0].astype("f4"))
    for solver in (PnPADMM(smooth), HQS(smooth), RED(smooth), PnPPGD(smooth)):
        start = np.full(SHAPE, 0.3, "f4")  # a constant, which the smoothing keeps
        found = solve(Problem(zero), solver, start=start).check()
        np.testing.assert_allclose(found.value, 0.3, atol=1e-5)
    whole = LeastSquares(PixelSampling(np.ones(SHAPE, "f4")), YS[0].astype("f4"))
    found = solve(Problem(whole), RED(smooth, 0.0)).check()
    np.testing.assert_allclose(found.value, YS[0], atol=1e-5)
    for make in (
        lambda v: PnPADMM(smooth, v),
        lambda v: RED(smooth, v),
        lambda v: PnPADMM(smooth, 1.0, v),
        lambda v: HQS(smooth, 1.0, 0.1, v),
        lambda v: PnPPGD(smooth, 1.0, v),
    ):
        for value in (-1.0, np.inf, np.nan):
            with pytest.raises(ValueError, match=r"0 or more|finite number above 0"):
                make(value)
    with pytest.raises(ValueError, match="sigma is a finite number above 0"):
        PnPADMM(smooth, 1.0, 0.0)
    # Inside of a trace values are not known: there they end in a status.
    run = jax.jit(lambda weight, sigma: solve(Problem(whole), PnPADMM(smooth, weight, sigma), max_steps=20).status)
    for weight, sigma in ((np.inf, 0.1), (1.0, 0.0), (np.nan, 0.1), (1.0, np.nan)):
        assert run(weight, sigma) == Status.NON_FINITE


BLUR = Blur(gaussian_kernel(1.0, radius=1), SHAPE)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: PnPADMM(None), TypeError, "takes a denoiser"),
        (lambda: PnPADMM(0.3), TypeError, "callable"),
        (lambda: PnPADMM(TVDenoiser), TypeError, "callable"),
        (lambda: PnPADMM(sparse, np.ones(3)), ValueError, "jax.vmap"),
        (lambda: RED(sparse, form="newton"), ValueError, "fixed-point and gradient"),
        (lambda: HQS(sparse, iterations=0), ValueError, "iterations is a whole number"),
        (lambda: solve(Problem(DATA, TV(0.1)), PnPADMM(sparse)), ValueError, "use ADMM or PDHG"),
        (lambda: solve(Problem(PoissonLikelihood(BLUR, YS[0], 0.1)), HQS(sparse)), ValueError, "single pixels"),
        (lambda: solve(Problem(HuberLoss(BLUR, YS[0])), PnPPGD(sparse)), ValueError, "use PnPADMM"),
        (lambda: solve(Problem(DATA), PnPADMM(lambda v, s: v[:2])), ValueError, "returned shape"),
        (lambda: solve(Problem(DATA), PnPADMM(sparse), start=np.zeros((3, 3))), ValueError, "start has shape"),
    ],
)
def test_bad_parts_are_refused(call: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_denoisers_are_pytrees() -> None:
    tv = TVDenoiser(0.3)
    assert as_denoiser(tv) is tv and as_denoiser(None) is None
    assert jax.tree.leaves(as_denoiser(sparse)) == []
    part = functools.partial(lambda v, sigma, k: v * k, k=2.0)
    assert float(as_denoiser(part)(jnp.ones(()), jnp.ones(()))) == 2
