"""Greedy methods and message passing: exact recovery, least squares on the support, state evolution, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax import Noise
from emjax.operators import DCT, Dense, Identity, SubsampledDCT, gaussian
from emjax.operators.scrambled import Scramble
from emjax.reconstructors import AMP, HTP, IHT, OMP, VAMP, BernoulliGauss, CoSaMP, SoftThreshold
from emjax.reconstructors.message_passing import donoho_tanner

M, N, K = 50, 100, 6
GREEDY = [OMP(K), CoSaMP(K), IHT(K), HTP(K)]
greedy = pytest.mark.parametrize("method", GREEDY, ids=lambda m: type(m).__name__)


def instances(count: int, seed: int = 0, m: int = M, n: int = N, k: int = K) -> tuple[np.ndarray, ...]:
    """Matrices `(count, m, n)`, k-sparse signals, and their measurements, float64."""
    rng = np.random.default_rng(seed)
    matrices = rng.standard_normal((count, m, n)) / m**0.5
    x = np.zeros((count, n))
    for row in x:
        row[rng.permutation(n)[:k]] = rng.choice([-1, 1], k) * (0.5 + rng.random(k))
    return matrices, x, np.einsum("bij,bj->bi", matrices, x)


def orthogonal_matching_pursuit(matrix: np.ndarray, y: np.ndarray, k: int) -> np.ndarray:
    support: list[int] = []
    r = y
    for _ in range(k):
        fit = np.abs(matrix.T @ r) / np.linalg.norm(matrix, axis=0)
        fit[support] = -1
        support.append(int(np.argmax(fit)))
        c = np.linalg.lstsq(matrix[:, support], y, rcond=None)[0]
        r = y - matrix[:, support] @ c
    x = np.zeros(matrix.shape[1])
    x[support] = c
    return x


@greedy
def test_sparse_signals_are_recovered(method: object) -> None:
    """Twenty problems, an operator each, in one call: the support exactly, the values to rounding."""
    with jax.enable_x64(True):
        matrices, x, y = instances(20)
        found = np.asarray(method(y, Dense(matrices)))
        solved = np.abs(found - x).max(1) < 1e-9
        assert solved.mean() >= 0.9
        np.testing.assert_array_equal((found != 0)[solved], (x != 0)[solved])
        np.testing.assert_allclose(method(y[3], Dense(matrices[3])), found[3], atol=1e-9)


def test_omp_is_the_textbook_method() -> None:
    with jax.enable_x64(True):
        matrices, _, y = instances(20, 1, k=16)
        y = y + 0.05 * np.random.default_rng(1).standard_normal(y.shape)
        found = OMP(10)(y, Dense(matrices))
        for matrix, one, c in zip(matrices, y, found, strict=True):
            np.testing.assert_allclose(c, orthogonal_matching_pursuit(matrix, one, 10), atol=1e-8)
        # A tolerance stops early.
        few = OMP(10, tolerance=0.5 * np.linalg.norm(y[0]))(y[0], Dense(matrices[0]))
        assert 0 < int((few != 0).sum()) < 10


@greedy
def test_the_answer_is_least_squares_on_its_support(method: object) -> None:
    with jax.enable_x64(True):
        matrices, _, y = instances(20, 2, k=20)
        for matrix, one, c in zip(matrices, y, np.asarray(method(y, Dense(matrices))), strict=True):
            support = np.flatnonzero(c)
            assert support.size <= K
            want = np.linalg.lstsq(matrix[:, support], one, rcond=None)[0]
            np.testing.assert_allclose(c[support], want, atol=1e-7)


@greedy
def test_in_a_transform_and_matrix_free(method: object) -> None:
    rng = np.random.default_rng(3)
    shape = (8, 16)
    W = DCT(shape)
    c = np.zeros(128)
    c[rng.permutation(128)[:K]] = rng.choice([-1, 1], K) * 2.0
    x = W.adjoint(jnp.asarray(c.reshape(shape), jnp.float32))
    A = SubsampledDCT(
        (rng.random(shape) < 0.6).astype("f4"),
        Scramble(shape, rng.choice([-1.0, 1.0], shape), rng.permutation(128).reshape(shape)),
    )
    found = type(method)(K, transform=W)(A(x), A)
    np.testing.assert_allclose(found, x, atol=1e-4)


@greedy
def test_degenerate_systems(method: object) -> None:
    A = Dense(np.zeros((M, N), "f4"))
    assert bool((method(np.ones(M), A) == 0).all())
    assert bool((method(np.zeros(M), Dense(instances(1)[0][0].astype("f4"))) == 0).all())
    twins = np.repeat(instances(1)[0][0][:, : N // 2], 2, axis=1).astype("f4")  # every column twice
    x = method(twins[:, 0] * 2, Dense(twins))
    np.testing.assert_allclose(twins @ np.asarray(x), twins[:, 0] * 2, atol=1e-4)
    spoilt = method(np.full(M, np.nan), Dense(twins))
    assert bool(jnp.isnan(spoilt).all())
    with pytest.raises(ValueError, match="more than the 50 measurements"):
        type(method)(M + 1)(np.ones(M), A)
    with pytest.raises(ValueError, match="whole number"):
        type(method)(0)


def test_donoho_tanner_against_tabulated_values() -> None:
    rhos = (0.1894, 0.2433, 0.2674, 0.2908, 0.3373, 0.3857, 0.4384, 0.4988, 0.5733, 0.6782)
    for delta, rho in zip((0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9), rhos, strict=True):
        assert abs(donoho_tanner(delta)[0] - rho) < 2e-4


def test_amp_recovers_below_the_curve_and_not_above() -> None:
    rates = []
    for k in (40, 110):  # k / m of 0.16 and 0.44; the curve is at 0.3857
        matrices, x, y = (v.astype("f4") for v in instances(10, 4, 250, 500, k))
        found = AMP(iterations=150)(y, Dense(matrices))
        rates.append((np.linalg.norm(found - x, axis=1) < 1e-2 * np.linalg.norm(x, axis=1)).mean())
    assert rates == [1.0, 0.0]


def test_amp_follows_state_evolution() -> None:
    """`sigma^2 <- s^2 + E |eta(x + sigma z) - x|^2 / delta`, the expectation over a million numbers."""
    m, n, rho, noise, trials = 2000, 4000, 0.1, 0.2, 30
    rng = np.random.default_rng(5)
    matrix = (rng.standard_normal((m, n)) / m**0.5).astype("f4")
    x = ((rng.random((trials, n)) < rho) * rng.standard_normal((trials, n))).astype("f4")
    y = x @ matrix.T + noise * rng.standard_normal((trials, m)).astype("f4")
    method = AMP(SoftThreshold(1.4), iterations=10)
    _, trace = jax.jit(jax.vmap(lambda one: method.trace(one, Dense(matrix))))(y)
    errors = np.mean((np.asarray(trace.x) - x[:, None]) ** 2, (0, 2))
    z = rng.standard_normal(10**6)
    signal = (rng.random(10**6) < rho) * rng.standard_normal(10**6)
    sigma2 = noise**2 + rho * n / m
    for error in errors:
        v = signal + sigma2**0.5 * z
        predicted = np.mean((np.sign(v) * np.maximum(np.abs(v) - 1.4 * sigma2**0.5, 0) - signal) ** 2)
        assert abs(error / predicted - 1) < 0.05
        sigma2 = noise**2 + predicted * n / m


def test_vamp_takes_ill_conditioned_matrices() -> None:
    rng = np.random.default_rng(6)
    m, n = 128, 256
    u, v = (np.linalg.qr(rng.standard_normal((k, k)))[0] for k in (m, n))
    matrix = ((u * np.geomspace(1, 0.02, m)) @ v[:m]).astype("f4")
    x = ((rng.random((5, n)) < 0.1) * rng.standard_normal((5, n))).astype("f4")
    y = x @ matrix.T + 1e-4 * rng.standard_normal((5, m)).astype("f4")
    eta = BernoulliGauss(0.1, 1.0)
    found = VAMP(eta, iterations=40, damping=0.9)(y, Dense(matrix), Noise(read_sigma=1e-4))
    error = np.linalg.norm(found - x, axis=1) / np.linalg.norm(x, axis=1)
    assert np.median(error) < 0.02
    rows = np.linalg.qr(rng.standard_normal((n, m)))[0].T.astype("f4")
    exact = VAMP(eta, noise_sigma=1e-4)(x @ rows.T, Dense(rows, orthonormal=True))
    general = VAMP(eta, noise_sigma=1e-4)(x @ rows.T, Dense(rows))
    np.testing.assert_allclose(exact, general, atol=1e-3)
    with pytest.raises(ValueError, match="orthogonal rows"):
        VAMP(eta)(np.ones((4, 4)), DCT((4, 4)) + Identity((4, 4)))


def textbook_amp(matrix: np.ndarray, y: np.ndarray, alpha: float, probes: np.ndarray | None, steps: int) -> np.ndarray:
    """Donoho, Maleki, Montanari 2009; with probes the divergence of D-AMP (Metzler, Maleki, Baraniuk 2016)."""
    m = len(y)
    norms = np.linalg.norm(matrix, axis=0) if probes is None else np.sqrt(np.mean(np.sum(matrix**2, 0)))
    a = matrix / norms

    def eta(v: np.ndarray, sigma: float) -> np.ndarray:
        return np.sign(v) * np.maximum(np.abs(v) - alpha * sigma, 0)

    x, z = np.zeros(matrix.shape[1]), y
    for i in range(steps):
        v, sigma = x + a.T @ z, np.linalg.norm(z) / m**0.5
        x = eta(v, sigma)
        kept = np.sum(x != 0)
        if probes is not None:
            h = 1e-3 * np.abs(v).max()
            kept = probes[i] @ (eta(v + h * probes[i], sigma) - x) / h
        z = y - a @ x + z * kept / m
    return x / norms


@pytest.mark.parametrize("plain", [False, True])
def test_amp_and_damp_are_the_textbook_iterations(plain: bool) -> None:
    """Twenty problems, with noise; the probes of the measured divergence are those of the package."""
    steps = 12
    with jax.enable_x64(True):
        matrices, _, y = instances(20, 8, 120, 240, 12)
        y = y + 0.02 * np.random.default_rng(0).standard_normal(y.shape)
        probes = None
        if plain:
            keys = jax.random.split(jax.random.key(0), steps)
            probes = np.stack([jax.random.rademacher(k, (240,), np.float64) for k in keys])
        denoiser = SoftThreshold(1.6) if not plain else lambda v, s: jnp.sign(v) * jnp.maximum(jnp.abs(v) - 1.6 * s, 0)
        found = np.asarray(AMP(denoiser, iterations=steps)(y, Dense(matrices)))
    for matrix, one, x in zip(matrices, y, found, strict=True):
        want = textbook_amp(matrix, one, 1.6, probes, steps)
        np.testing.assert_allclose(x, want, atol=1e-6 * np.abs(want).max())


def test_any_denoiser() -> None:
    """A plain function, whose divergence is measured with a random probe, does what the class does."""
    matrices, x, y = (v.astype("f4") for v in instances(4, 7, 250, 500, 20))
    A = Dense(matrices[0])
    y = x @ matrices[0].T

    def soft(v: jax.Array, sigma: jax.Array) -> jax.Array:
        return jnp.sign(v) * jnp.maximum(jnp.abs(v) - 1.5 * sigma, 0)

    for denoiser in (soft, SoftThreshold(1.5)):
        found = AMP(denoiser, iterations=60)(y, A)
        assert (np.linalg.norm(found - x, axis=1) < 2e-2 * np.linalg.norm(x, axis=1)).all()
    with pytest.raises(TypeError, match="callable"):
        AMP(3.0)
    with pytest.raises(ValueError, match="whole number"):
        AMP(iterations=0)


def test_gaussian_matrices_of_the_package_are_scaled() -> None:
    A = gaussian(jax.random.key(0), (100,), rows=60)
    x = np.zeros(100, "f4")
    x[[3, 50, 77]] = [1, -2, 1.5]
    np.testing.assert_allclose(AMP(iterations=80)(A(x), A), x, atol=2e-2)
