"""Recovery with a generative prior."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.fft import dctn, idctn

import emjax
from emjax import Noise, zoo
from emjax.networks import VAE, build
from emjax.operators import Dense, Identity, PixelSampling, SubsampledFourier
from emjax.reconstructors import Generative

N, K, M = 8, 3, 20


@pytest.fixture(scope="module")
def vae() -> Any:
    network = build("vae", {"side": N, "latent": K, "width": 6, "encoder": 5}, 0)
    assert isinstance(network, VAE)
    network.linear.kernel[...] = 0.3 * jax.random.normal(jax.random.key(1), (K, N * N))
    network.correction.kernel[...] = 0.1 * jax.random.normal(jax.random.key(2), (6, N * N))
    return network


@pytest.fixture(scope="module")
def linear(vae: Any) -> Any:
    network = build("vae", vae.settings, 0)
    network.linear.kernel[...] = vae.linear.kernel[...]
    network.correction.kernel[...] = jnp.zeros((6, N * N))
    return network


@pytest.fixture(scope="module")
def A() -> Dense:
    return Dense(jax.random.normal(jax.random.key(3), (M, N * N)) / M**0.5, (N, N))


def error(A: Any, x: jax.Array, y: jax.Array) -> np.ndarray:
    return np.asarray(jnp.sum((A(x) - y) ** 2, -1))


def test_a_linear_decoder_has_its_closed_form(linear: Any, A: Dense) -> None:
    """`z = (B.T B + w)^-1 B.T (y - A c)` for `B = A W`: ridge regression, with the weight given and the automatic."""
    W, c = np.asarray(linear.decode(jnp.eye(K)) - 0.5, np.float64).reshape(K, -1).T, np.full(N * N, 0.5)
    H = np.asarray(A.matrix, np.float64)
    y = H @ (c + W @ [1.0, -0.5, 0.2]) + 0.1 * np.random.default_rng(0).standard_normal(M)
    recon = Generative(linear, weight=0.3, restarts=2)
    automatic = Generative(linear, restarts=2).fit(jnp.asarray(y, jnp.float32), A, Noise(read_sigma=0.1))
    rows = float(np.mean(np.sum(H**2, 1))) * float(linear.sigma) ** 2
    assert float(automatic.weight) == pytest.approx(rows + 0.01, rel=0.3)  # of 16 random signs
    for model in (recon, automatic):
        B = H @ W
        z = np.linalg.solve(B.T @ B + float(model.weight) * np.eye(K), B.T @ (y - H @ c))
        x = model(jnp.asarray(y, jnp.float32), A)
        np.testing.assert_allclose(x, (c + W @ z).reshape(N, N), atol=2e-3)


def test_with_deviations_a_linear_decoder_is_a_gaussian(linear: Any, A: Dense) -> None:
    """The mean of `N(c, W W.T + D)` given noisy measurements: also of pixels with holes, and complex ones."""
    network = build("vae", {**linear.settings, "spectrum": True}, 0)
    network.linear.kernel[...], network.correction.kernel[...] = linear.linear.kernel[...], jnp.zeros((6, N * N))
    network.log_sigma[...] = -2 - 0.1 * jnp.arange(N)[:, None] - 0.2 * jnp.arange(N)
    W, D = np.asarray(network.decode(jnp.eye(K)) - 0.5, np.float64).reshape(K, -1).T, network.deviation()
    impulse = dctn(np.eye(N * N)[5].reshape(N, N), norm="ortho") * np.exp(2 * np.asarray(network.log_sigma[...]))
    np.testing.assert_allclose(D[5].reshape(N, N), idctn(impulse, norm="ortho"), atol=1e-6)
    prior = W @ W.T + np.asarray(D, np.float64)
    rng = np.random.default_rng(0)
    mask = jnp.asarray(rng.random((N, N)) < 0.4, jnp.float32)
    for op in (A, PixelSampling(mask), SubsampledFourier(mask)):
        y = op(jnp.asarray(rng.random((N, N)), jnp.float32))
        rows = np.asarray(jax.vmap(op)(jnp.eye(N * N).reshape(-1, N, N))).reshape(N * N, -1).T
        flat, noise = np.asarray(y).reshape(-1), 0.05
        if np.iscomplexobj(rows):
            rows, flat, noise = (
                np.concatenate([rows.real, rows.imag]),
                np.concatenate([flat.real, flat.imag]),
                0.05 / 2**0.5,
            )
        gram = rows @ prior @ rows.T + noise**2 * np.eye(len(rows))
        x = 0.5 + prior @ rows.T @ np.linalg.solve(gram, flat - 0.5 * rows.sum(1))
        found = Generative(network, restarts=2)(y, op, noise=Noise(read_sigma=0.05))
        np.testing.assert_allclose(found.reshape(-1), x, atol=2e-3)
    recon = Generative(network, restarts=2, steps=10)
    y = A(jnp.full((3, N, N), 0.4))
    assert recon.fit(y, A).weight is None
    exported = jax.export.export(jax.jit(lambda y: recon(y, A)), platforms=("cpu", "cuda", "tpu"))(y)
    np.testing.assert_allclose(exported.call(y), recon(y, A), atol=1e-4)


def test_more_restarts_are_never_worse(vae: Any, A: Dense) -> None:
    y = jax.random.normal(jax.random.key(4), (5, M))
    errors = [error(A, Generative(vae, weight=0.01, restarts=r, steps=30)(y, A), y) for r in (1, 2, 4)]
    assert np.all(errors[1] <= errors[0] + 1e-5) and np.all(errors[2] <= errors[1] + 1e-5)
    assert np.any(errors[2] < errors[0] - 1e-3)


def test_what_the_decoder_makes_comes_back(vae: Any, A: Dense) -> None:
    truth = vae.decode(jax.random.normal(jax.random.key(5), (4, K)))
    mask = jnp.asarray(np.random.default_rng(1).random((N, N)) < 0.4, jnp.float32)
    for op in (A, PixelSampling(mask)):
        x = Generative(vae, weight=0.0, restarts=6)(op(truth), op)
        np.testing.assert_allclose(x, truth, atol=0.02)
    holes = jnp.where(mask > 0, truth, jnp.nan)
    np.testing.assert_allclose(Generative(vae, weight=0.0, restarts=6)(holes, PixelSampling(mask)), x, atol=1e-3)


def test_a_batch_is_its_items_in_one_call(vae: Any, A: Dense) -> None:
    y = jax.random.normal(jax.random.key(6), (3, 2, M))
    recon = Generative(vae, restarts=3, steps=20)
    traces = []

    @jax.jit
    def run(recon: Generative, y: jax.Array, key: jax.Array) -> jax.Array:
        traces.append(y.shape)
        return recon(y, A, key=key)

    fitted = recon.fit(y, A)
    assert fitted.starts.shape == (3, 2, 3, K) and fitted.weight.shape == (3, 2)
    x = run(recon, y, jax.random.key(0))
    assert x.shape == (3, 2, N, N)
    np.testing.assert_allclose(fitted(y, A), x, atol=1e-5)
    alone = Generative(vae, weight=fitted.weight[1, 0], steps=20, starts=fitted.starts[1, 0])
    np.testing.assert_allclose(alone(y[1, 0], A), x[1, 0], atol=1e-4)
    other = build("vae", vae.settings, 7)  # weights are data: no new trace
    assert not np.allclose(run(Generative(other, restarts=3, steps=20), y, jax.random.key(1)), x)
    assert len(traces) == 1


def test_it_is_differentiable_and_exports(vae: Any, A: Dense) -> None:
    y = jax.random.normal(jax.random.key(8), (M,))
    recon = Generative(vae, weight=0.1, restarts=2, steps=10)

    def value(y: jax.Array) -> jax.Array:
        return jnp.sum(recon(y, A) ** 2)

    gradient = jax.jit(jax.grad(value))(y)
    direction = jnp.ones(M)
    slope = (value(y + 1e-2 * direction) - value(y - 1e-2 * direction)) / 2e-2
    assert float(gradient @ direction) == pytest.approx(float(slope), rel=0.05, abs=1e-2)
    exported = jax.export.export(jax.jit(lambda y: recon(y, A)), platforms=("cpu", "cuda", "tpu"))(y)
    np.testing.assert_allclose(exported.call(y), recon(y, A), atol=1e-4)


def test_bad_settings_are_named(vae: Any, A: Dense) -> None:
    with pytest.raises(TypeError, match="takes a network that generates"):
        Generative(build("dncnn"))
    for settings, word in (
        ({"restarts": 0}, "restarts"),
        ({"steps": 1.5}, "steps"),
        ({"weight": -1.0}, "weight"),
        ({"learning_rate": 0.0}, "learning_rate"),
        ({"starts": jnp.zeros((2, K + 1))}, "starts"),
    ):
        with pytest.raises(ValueError, match=word):
            Generative(vae, **settings)
    with pytest.raises(ValueError, match="8 x 8 pixels"):
        Generative(vae)(jnp.zeros((9, 9)), Identity((9, 9)))


def test_by_name(vae: Any, A: Dense, tmp_path: Any) -> None:
    zoo.save(tmp_path / "patches", vae, card="# patches\n\nFor tests.\n")
    recon = emjax.load(str(tmp_path / "patches"), restarts=2, steps=20)
    assert isinstance(recon, Generative) and recon.restarts == 2
    with pytest.raises(TypeError, match="no setting strength; it has weight, restarts"):
        emjax.load(str(tmp_path / "patches"), strength=1)
