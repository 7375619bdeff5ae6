"""Paths of weights are separate solves; every rule estimates what it says, on cases with a known answer."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import emjax
from emjax import TV, LeastSquares, Noise, Problem, Quadratic, solve, weights
from emjax.operators import DCT, Blur, Dense, Identity, LinearOperator, PixelSampling, SubsampledFourier
from emjax.solvers import PCG
from emjax.weights.path import Path, schedule

SHAPE, SIGMA, KEY = (24, 24), 0.1, jax.random.key(3)
TRUTH = np.zeros(SHAPE, np.float32)
TRUTH[6:18, 8:20] = 1
THETAS = jnp.geomspace(1.0, 0.01, 8)


def tv(data: LeastSquares, theta: jax.Array) -> Problem:
    box = () if data.gram_diagonal() is not None else (emjax.Box(-1.0, 2.0),)
    return Problem(data, TV(theta), *box)


def ridge(data: LeastSquares, theta: jax.Array) -> Problem:
    """Linear shrinkage: of the identity `x = y / (1 + theta)`."""
    return Problem(data, Quadratic(Identity(data.A.in_shape), theta * jnp.ones(data.A.in_shape)))


@jax.jit
def tv_path(data: LeastSquares, gaps: jax.Array) -> Path:
    return weights.path(lambda theta: tv(data, theta), THETAS, gap=gaps)


def scan(ratio: float = 0.5) -> LeastSquares:
    rng = np.random.default_rng(0)
    mask = rng.random(SHAPE) < ratio
    return LeastSquares(PixelSampling(mask), np.float32(mask * (TRUTH + SIGMA * rng.standard_normal(SHAPE))))


@pytest.mark.parametrize("solver", ["pdhg", pytest.param("fista", marks=pytest.mark.slow), "pcg"])
def test_points_of_a_path_are_separate_solves(solver: str) -> None:
    data = scan()
    wavelet, smooth = emjax.load("wavelet"), emjax.load("spectral")

    def build(theta: jax.Array) -> Problem:
        if solver == "pdhg":
            return tv(data, theta)
        return wavelet.problem(data, theta) if solver == "fista" else smooth.problem(data, 10 * theta, jnp.float32(2))

    p = tv_path(data, jnp.full(8, 1e-4)) if solver == "pdhg" else weights.path(build, THETAS, gap=1e-4)
    assert p.values.shape == (8, *SHAPE)
    assert bool(jnp.all(p.statuses == 0)) and float(p.gaps.max()) <= 1e-4
    for i, theta in enumerate(THETAS):
        one = build(theta)
        np.testing.assert_allclose(one.objective(p.values[i]), p.objectives[i], rtol=1e-5)
        np.testing.assert_allclose(p.objectives[i], solve(one, gap=1e-4).objective, rtol=2e-4)
        np.testing.assert_allclose(0.5 * p.residuals[i], data(p.values[i]), rtol=1e-5)
    if solver == "pdhg":
        total = jnp.stack([Problem(data, TV(1.0)).objective(x) - data(x) for x in p.values])
        np.testing.assert_allclose(p.priors, total, rtol=1e-3)
        assert bool(jnp.all(jnp.diff(p.priors) > -1e-3)) and bool(jnp.all(jnp.diff(p.residuals) < 1e-3))


@pytest.mark.parametrize("n", [1, 2, 3, 20])
def test_every_weight_is_visited_once_and_after_its_neighbours(n: int) -> None:
    visits = schedule(n)
    assert sorted(visits[:, 0]) == list(range(n))
    seen = {int(visits[0, 0])}
    for i, low, high in visits:
        assert {int(low), int(high)} <= seen
        seen.add(int(i))


def test_a_gap_for_each_weight() -> None:
    gaps = jnp.where(jnp.arange(8) == 4, 1e-4, 1e-1)
    p = tv_path(scan(), gaps)
    assert bool(jnp.all(p.gaps <= gaps)) and bool(jnp.any(p.gaps > 1e-3))


def test_sure_is_the_risk_of_linear_shrinkage() -> None:
    n = 64 * 64
    truth = jax.random.normal(jax.random.key(1), (64, 64))
    data = LeastSquares(Identity((64, 64)), truth + 0.5 * jax.random.normal(KEY, (64, 64)))
    thetas = jnp.geomspace(4.0, 0.02, 9)
    choice = weights.sure(ridge, data, thetas, 0.25, key=KEY, solver=PCG(), gap=1e-6)
    risk = jnp.stack([jnp.sum((data.y / (1 + t) - truth) ** 2) for t in thetas])
    # The standard error of 2 sigma <n, .> and of |n|^2 over n pixels, and twice that of the probe.
    np.testing.assert_allclose(choice.curve / n, risk / n, atol=4 * 0.25 * (2 / n) ** 0.5 + 2 * 0.5 / n**0.5)
    # The best shrinkage of signals of variance 1 is 1 / (1 + 0.25).
    np.testing.assert_allclose(choice.weight, 0.25, rtol=0.25)


SMALL = (10, 10)


def operator(kind: str) -> tuple[LinearOperator, np.ndarray]:
    """An operator, and its matrix in float64; complex measurements as real parts above imaginary ones."""
    rng = np.random.default_rng(2)
    A: LinearOperator = SubsampledFourier(rng.random(SMALL) < 0.5)
    if kind == "dense":
        A = Dense(np.float32(rng.standard_normal((40, 100)) / 10), SMALL)
    columns = np.asarray(A(jnp.eye(100).reshape(100, *SMALL)), complex).reshape(100, -1).T
    return A, np.concatenate([columns.real, columns.imag]) if kind == "fourier" else columns.real


def as_vectors(y: np.ndarray) -> np.ndarray:
    flat = np.asarray(y).reshape(len(y), -1)
    return np.concatenate([flat.real, flat.imag], 1) if np.iscomplexobj(flat) else flat


@pytest.mark.parametrize("kind", [pytest.param("fourier", marks=pytest.mark.slow), "dense"])
def test_gsure_is_the_risk_of_what_is_seen(kind: str) -> None:
    """Without bias: over 40 draws of the noise the mean error of the estimate is within its standard error.

    The reference: ridge solutions and the projection by NumPy's `solve` and `pinv`.
    """
    draws, thetas = 40, np.geomspace(1.0, 0.01, 5)
    truth = TRUTH[2:22:2, 2:22:2]
    A, matrix = operator(kind)
    rng = np.random.default_rng(5)
    noise = rng.standard_normal((2, draws, *A.out_shape)) * SIGMA
    noise = (noise[0] + 1j * noise[1]) / 2**0.5 if kind == "fourier" else noise[0]
    ys = A.measured(A(jnp.asarray(truth)) + jnp.asarray(noise, A.out_dtype))

    @jax.jit
    def estimate(A: LinearOperator, ys: jax.Array, keys: jax.Array) -> jax.Array:
        def one(y: jax.Array, key: jax.Array) -> jax.Array:
            settings: Any = {"solver": PCG(), "gap": 1e-6}
            return weights.gsure(ridge, LeastSquares(A, y), jnp.asarray(thetas), SIGMA**2, key=key, **settings).curve

        return jax.vmap(one)(ys, keys)

    curves = np.asarray(estimate(A, ys, jax.random.split(KEY, draws)))
    pseudo = np.linalg.pinv(matrix, rcond=1e-5)
    right = matrix.T @ as_vectors(ys).T
    values = [np.linalg.solve(matrix.T @ matrix + theta * np.eye(100), right) for theta in thetas]
    risks = np.stack([np.sum((pseudo @ matrix @ (x - truth.reshape(100, 1))) ** 2, 0) for x in values], 1)
    error = curves - risks
    assert np.all(np.abs(error.mean(0)) < 3.5 * error.std(0) / draws**0.5), (error.mean(0), error.std(0))
    # And it tells good weights from bad ones.
    assert np.ptp(risks.mean(0)) > 5 * error.std(0).mean() / draws**0.5


@pytest.mark.parametrize("kind", ["fourier", "dense"])
def test_the_pseudo_inverse_is_that_of_the_matrix(kind: str) -> None:
    A, matrix = operator(kind)
    y = A.measured(jax.random.normal(KEY, A.out_shape, A.out_dtype))
    found = weights.pseudo_inverse(A, y)
    wanted = np.linalg.pinv(matrix, rcond=1e-5) @ as_vectors(y[None])[0]
    np.testing.assert_allclose(found.ravel(), wanted, atol=1e-4 * np.abs(wanted).max())


def turned(p: Path) -> Path:
    """The same path from the roughest to the smoothest."""
    return Path(*(v[::-1] for v in p))


@pytest.mark.parametrize("rule", [lambda p: weights.discrepancy(p, 0.4), weights.l_curve])
def test_rules_take_rising_paths_and_say_nan(rule: Any) -> None:
    thetas, i = jnp.geomspace(1.0, 0.01, 9), jnp.arange(9.0)
    nothing = jnp.zeros(9)
    p = Path(thetas, nothing, nothing, nothing, nothing, nothing, jnp.exp(-0.6 * i), 1 + jnp.exp(i - 5))
    falling, rising = rule(p), rule(turned(p))
    assert float(falling.weight) == pytest.approx(float(rising.weight), rel=1e-5)
    np.testing.assert_allclose(rising.curve, falling.curve[::-1], rtol=1e-5)
    assert jnp.isnan(rule(p._replace(residuals=p.residuals * jnp.nan)).weight)


def test_discrepancy_hits_the_noise() -> None:
    data = scan()
    power = float(SIGMA**2 * jnp.sum(data.A.mask))
    p = tv_path(data, jnp.full(8, 1e-4))
    choice = weights.discrepancy(p, power)
    found = solve(tv(data, choice.weight), gap=1e-4).value
    np.testing.assert_allclose(2 * data(found), power, rtol=0.1)
    # Where no residual is that small, the roughest; where all are, the smoothest.
    assert float(weights.discrepancy(p, 1e-9).weight) == pytest.approx(0.01)
    assert float(weights.discrepancy(p, 1e9).weight) == pytest.approx(1.0)


def test_the_corner_of_a_constructed_l() -> None:
    log_theta = jnp.linspace(4.0, -4.0, 33)
    # The residual falls until log theta = 1, the prior rises from there on.
    residual, prior = jax.nn.softplus(4 * (log_theta - 1)) / 4, jax.nn.softplus(4 * (1 - log_theta)) / 4
    nothing = jnp.zeros(33)
    p = Path(jnp.exp(log_theta), nothing, nothing, nothing, nothing, nothing, jnp.exp(residual), jnp.exp(prior))
    choice = weights.l_curve(p)
    assert float(jnp.log(choice.weight)) == pytest.approx(1.0, abs=0.1)
    assert choice.curve.shape == (33,)
    with pytest.raises(ValueError, match="five weights"):
        weights.l_curve(Path(*(v[:4] for v in p)))


def test_held_out_under_jit_and_vmap() -> None:
    data, smooth = scan(), emjax.load("spectral")

    def build(data: LeastSquares, theta: jax.Array) -> Problem:
        return smooth.problem(data, 1e3 * theta, jnp.float32(2))

    def choose(y: jax.Array) -> weights.Choice:
        return weights.held_out(build, LeastSquares(data.A, y), THETAS, key=KEY, gap=1e-6)

    batch = jax.jit(jax.vmap(choose))(jnp.stack([data.y, 2 * data.y]))
    assert batch.weight.shape == (2,) and batch.curve.shape == (2, 8)
    np.testing.assert_allclose(batch.curve[1], 4 * batch.curve[0], rtol=0.01)
    np.testing.assert_allclose(*batch.weight, rtol=0.05)
    # Too smooth is worse than the choice by far.
    assert float(batch.curve[0, 0]) > 2 * float(batch.curve[0].min())


RULES = [("spectral", "discrepancy"), ("spectral", "sure")]
SLOW = [(name, rule) for name in ("spectral", "tv") for rule in ("held_out", "gsure")]
SLOW += [("tv", "sure"), ("tv", "discrepancy"), ("tv", "l_curve"), ("wavelet", "discrepancy")]


@pytest.mark.parametrize(("name", "rule"), [*RULES, *[pytest.param(*pair, marks=pytest.mark.slow) for pair in SLOW]])
def test_rules_of_reconstructors(name: str, rule: str) -> None:
    data = scan()
    fitted = emjax.load(name, rule=rule).fit(data.y, data.A, Noise(read_sigma=SIGMA))
    assert float(fitted.weight) > 0 and fitted.rule == rule
    error = float(jnp.mean((emjax.load(name, weight=fitted.weight, **_exponent(fitted))(data.y, data.A) - TRUTH) ** 2))
    # Wavelets of so few pixels fill gaps badly, whatever the weight: 0.10 at best.
    assert error < (0.15 if name == "wavelet" else 0.04)


def _exponent(fitted: Any) -> dict[str, Any]:
    return {"exponent": fitted.exponent} if hasattr(fitted, "exponent") else {}


def test_a_rule_without_noise_for_a_blur() -> None:
    A = Blur(jnp.ones((3, 3)) / 9, SHAPE, "periodic")
    y = A(jnp.asarray(TRUTH)) + 0.01 * jax.random.normal(KEY, SHAPE)
    assert float(emjax.load("spectral", rule="l_curve").fit(y, A).weight) > 0
    for rule in ("auto", "gsure", "discrepancy"):
        with pytest.raises(ValueError, match="l_curve"):
            emjax.load("tv", rule=rule).fit(y, A)
    for rule in ("held_out", "sure"):
        with pytest.raises(ValueError, match=rule):
            emjax.load("tv", rule=rule).fit(y, A, Noise(read_sigma=0.01))


def test_errors() -> None:
    data = scan()
    for bad in ([0.1, 0.2, 0.1], [0.1, 0.0], [[0.1]], []):
        with pytest.raises(ValueError, match="weights of a path"):
            weights.path(lambda theta: tv(data, theta), jnp.asarray(bad))
    with pytest.raises(ValueError, match="use PDHG"):
        weights.path(lambda theta: tv(data, theta), THETAS, solver=PCG())
    with pytest.raises(TypeError, match="gives a Problem"):
        weights.path(lambda theta: TV(theta), THETAS)
    with pytest.raises(TypeError, match="PixelSampling"):
        weights.held_out(ridge, LeastSquares(DCT(SHAPE), TRUTH), THETAS, key=KEY)
    for name in ("tv", "wavelet", "spectral"):
        with pytest.raises(ValueError, match="discrepancy, l_curve"):
            emjax.load(name, rule="gcv")
