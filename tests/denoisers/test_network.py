"""Networks as denoisers: the contract of denoisers, grey values of any range, and a place in plug-and-play."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import emjax
from emjax import LeastSquares, Problem, solve, zoo
from emjax.denoisers import NetworkDenoiser
from emjax.networks import Network, build
from emjax.operators import PixelSampling
from emjax.solvers import HQS, PnPADMM

RNG = np.random.default_rng(5)
V = RNG.random((3, 9, 8)).astype("f4")


class Shrink(nnx.Module):
    """The prox of `1/2 |x - mean|^2` with the step `strength sigma^2`: what ADMM with it minimises is known."""

    def __init__(self) -> None:
        self.strength = nnx.Param(jnp.ones(()))

    def __call__(self, v: Any, sigma: Any) -> Any:
        t = self.strength[...] * jnp.asarray(sigma)[..., None, None] ** 2
        return (v + 0.5 * t) / (1 + t)


@pytest.fixture(scope="module")
def network() -> Network:
    made = build("dncnn", {"width": 4, "depth": 2})
    last = made.layers[-1].kernel
    last[...] = 0.2 * jax.random.normal(jax.random.key(0), last.shape)
    return made


def test_it_is_the_network_for_items_and_batches(network: Network) -> None:
    eta, sigma = NetworkDenoiser(network), np.array([0.0, 0.1, 0.3], "f4")
    x = np.asarray(eta(V, sigma))
    np.testing.assert_allclose(x[1:], network(V[1:], sigma[1:]), atol=1e-6)
    np.testing.assert_array_equal(x[0], V[0])
    np.testing.assert_allclose(eta(V[2], 0.3), x[2], atol=1e-6)
    with pytest.raises(ValueError, match="one for each item"):
        eta(V, np.ones(2))


def test_grey_values_and_levels_of_any_range(network: Network) -> None:
    eta = NetworkDenoiser(network)
    scaled = NetworkDenoiser(network, black=-300.0, white=700.0, highest=0.2)
    np.testing.assert_allclose(scaled(1000 * V - 300, 100.0), 1000 * eta(V, 0.1) - 300, atol=0.01)
    np.testing.assert_array_equal(scaled(V, 5000.0), scaled(V, 200.0))
    assert np.any(eta(V, 5.0) != eta(V, 0.2))


def test_what_is_no_denoising_network(network: Network) -> None:
    for wrong in (build("scan", {"widths": [4], "encoder": [0], "decoder": []}), Shrink, 3, None):
        with pytest.raises(TypeError, match=r"called \(v, sigma\), such as emjax.networks.build\('dncnn'\)"):
            NetworkDenoiser(wrong)
    with pytest.raises(ValueError, match="white is a larger grey value"):
        NetworkDenoiser(network, white=0.0)
    with pytest.raises(ValueError, match="highest is a noise level above 0"):
        NetworkDenoiser(network, highest=0.0)


def test_plug_and_play_with_a_network_reaches_what_it_should() -> None:
    """`1/2 |w x - y|^2 + weight / 2 |x - 1/2|^2`, whatever the level that the denoiser is told."""
    w = (RNG.random((9, 8)) < 0.6).astype("f4")
    y, weight = w * V[0], 0.3
    expected = (y + weight * 0.5) / (w + weight)
    problem = Problem(LeastSquares(PixelSampling(w), y))
    solution = solve(problem, PnPADMM(NetworkDenoiser(Shrink()), weight, 0.7), gap=1e-6, max_steps=500)
    np.testing.assert_allclose(solution.value, expected, atol=1e-4)


def test_gradients_reach_the_network_through_plug_and_play(network: Network) -> None:
    w = (RNG.random((9, 8)) < 0.6).astype("f4")
    graph, parameters = nnx.split(network)

    def error(parameters: Any) -> jax.Array:
        eta = NetworkDenoiser(nnx.merge(graph, parameters))
        problem = Problem(LeastSquares(PixelSampling(w), w * V[0]))
        solver = HQS(eta, 0.01, 0.1, iterations=2)
        return jnp.mean(jnp.square(solve(problem, solver, gradient=emjax.solvers.Unrolled(2)).value - V[0]))

    found = jax.tree.leaves(jax.jit(jax.grad(error))(parameters))
    assert all(np.isfinite(g).all() and np.any(g != 0) for g in found)


def test_a_network_of_the_zoo_says_where_it_goes(network: Network, tmp_path: Any) -> None:
    zoo.save(tmp_path / "mine", network, card="# mine\n")
    assert zoo.entry(tmp_path / "mine").reconstructor is None
    with pytest.raises(ValueError, match=r"recovers nothing by itself.*NetworkDenoiser"):
        emjax.load(tmp_path / "mine")
    eta = NetworkDenoiser(zoo.network(str(tmp_path / "mine")))
    np.testing.assert_allclose(eta(V, 0.1), NetworkDenoiser(network)(V, 0.1), atol=1e-3)
