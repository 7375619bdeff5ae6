"""DnCNN: its size, what it does untrained, and any image size, batch and noise level."""

import jax
import numpy as np
import pytest
from flax import nnx

from emjax.networks import Network, build

RNG = np.random.default_rng(0)


@pytest.fixture(scope="module")
def network() -> Network:
    """One whose last layer is not zero."""
    made = build("dncnn", {"width": 4, "depth": 3})
    last = made.layers[-1].kernel
    last[...] = 0.1 * jax.random.normal(jax.random.key(0), last.shape)
    return made


@pytest.mark.parametrize(("width", "depth"), [(4, 2), (3, 5), (64, 17)])
def test_the_number_of_parameters(width: int, depth: int) -> None:
    network = nnx.eval_shape(lambda: build("dncnn", {"width": width, "depth": depth}))
    first, middle, last = 18 * width + width, 9 * width**2 + width, 9 * width + 1
    assert network.parameter_count() == first + (depth - 2) * middle + last
    assert network.settings == {"width": width, "depth": depth}


def test_untrained_it_returns_its_input() -> None:
    v = RNG.random((2, 9, 7)).astype(np.float32)
    np.testing.assert_array_equal(build("dncnn", {"width": 3, "depth": 2})(v, 0.1), v)


def test_items_of_a_batch_are_denoised_alone_each_at_its_level(network: Network) -> None:
    v, sigma = RNG.random((2, 3, 9, 7)).astype(np.float32), RNG.random((2, 3)).astype(np.float32)
    denoise = jax.jit(network)
    x = denoise(v, sigma)
    assert x.shape == v.shape
    np.testing.assert_allclose(x[1, 2], denoise(v[1, 2], sigma[1, 2]), atol=1e-5)
    assert np.abs(x[1, 2] - denoise(v[1, 2], 2 * sigma[1, 2])).max() > 1e-4
    np.testing.assert_allclose(denoise(v, np.float32(0.3))[0, 1], denoise(v[0, 1], np.float32(0.3)), atol=1e-5)


def test_sizes_that_make_no_network() -> None:
    for settings in ({"width": 0}, {"depth": 1}):
        with pytest.raises(ValueError, match="width >= 1 and depth >= 2"):
            build("dncnn", settings)
