"""Linear interpolation: exact on planes, nearest outside the hull, sound on every degenerate mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import LinearNDInterpolator

import emjax
from emjax.operators import Fourier, PixelSampling
from emjax.reconstructors import linear_plan

SHAPE = (24, 30)
RNG = np.random.default_rng(0)


def hull_mask(ratio: float) -> np.ndarray:
    """A random mask with the four corners, so that every pixel lies in the hull."""
    mask = RNG.random(SHAPE) < ratio
    mask[[0, 0, -1, -1], [0, -1, 0, -1]] = True
    return mask


@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.3, 0.9])
def test_planes_are_exact_inside_the_hull(ratio: float) -> None:
    i, j = np.indices(SHAPE)
    plane = (0.3 + 0.02 * i - 0.01 * j).astype(np.float32)
    A = PixelSampling(hull_mask(ratio))
    np.testing.assert_allclose(emjax.load("linear")(A(plane), A), plane, atol=2e-6)


def test_it_is_an_interpolation_between_neighbours() -> None:
    image = RNG.random(SHAPE).astype(np.float32)
    mask = hull_mask(0.15)
    x = np.asarray(emjax.load("linear")(jnp.asarray(image) * mask, PixelSampling(mask)))
    np.testing.assert_allclose(x[mask], image[mask], atol=1e-6)
    assert x.min() >= image[mask].min() - 1e-6
    assert x.max() <= image[mask].max() + 1e-6
    # On a lattice four points may share a circle, and two triangulations are right: most pixels agree with SciPy's.
    peer = LinearNDInterpolator(np.argwhere(mask), image[mask])(np.indices(SHAPE).reshape(2, -1).T).reshape(SHAPE)
    assert np.mean(np.abs(x - peer) < 1e-5) > 0.6


def test_the_nearest_outside() -> None:
    mask = np.zeros(SHAPE, bool)
    mask[10:14, 10:14] = True
    image = RNG.random(SHAPE).astype(np.float32)
    x = emjax.load("linear")(jnp.asarray(image) * mask, PixelSampling(mask))
    assert x[0, 0] == image[10, 10]
    assert x[23, 29] == image[13, 13]
    assert x[0, 12] == image[10, 12]


@pytest.mark.parametrize(
    "points", [[(5, 7)], [(2, 3), (9, 9)], [(0, 0), (1, 1), (2, 2), (3, 3)], [(4, j) for j in range(30)]]
)
def test_points_without_a_triangle_take_the_nearest(points: list[tuple[int, int]]) -> None:
    mask = np.zeros(SHAPE, bool)
    mask[tuple(np.transpose(points))] = True
    image = RNG.random(SHAPE).astype(np.float32)
    x = np.asarray(emjax.load("linear")(jnp.asarray(image) * mask, PixelSampling(mask)))
    distance = np.stack([np.hypot(*(np.indices(SHAPE) - np.reshape(p, (2, 1, 1)))) for p in points])
    values = np.asarray([image[p] for p in points])
    near = np.isclose(distance, distance.min(0))
    assert (near & (x == values[:, None, None])).any(0).all()


@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (2, 2)])
def test_thin_images(shape: tuple[int, int]) -> None:
    image = jnp.asarray(RNG.random(shape), jnp.float32)
    np.testing.assert_allclose(emjax.load("linear")(image, PixelSampling(jnp.ones(shape))), image, atol=1e-6)


def test_a_full_mask_gives_the_image() -> None:
    image = jnp.asarray(RNG.random(SHAPE), jnp.float32)
    np.testing.assert_allclose(emjax.load("linear")(image, PixelSampling(jnp.ones(SHAPE))), image, atol=1e-6)


def test_soft_weights_are_divided_out() -> None:
    image = jnp.asarray(RNG.random(SHAPE), jnp.float32)
    mask = hull_mask(0.3)
    soft = PixelSampling(np.where(mask, 0.25 + RNG.random(SHAPE), 0))
    x = emjax.load("linear")(soft(image), soft)
    np.testing.assert_allclose(x, emjax.load("linear")(image * mask, PixelSampling(mask)), atol=1e-5)


def test_a_plan_is_applied_inside_jit() -> None:
    image = jnp.asarray(RNG.random((3, *SHAPE)), jnp.float32)
    A = PixelSampling(hull_mask(0.2))
    plan = linear_plan(A.mask)
    np.testing.assert_allclose(plan.weights.sum(-1), 1, atol=1e-5)
    y = A(image)
    np.testing.assert_allclose(jax.jit(lambda p, v: p(v))(plan, y), emjax.load("linear")(y, A), atol=1e-6)
    export = jax.export.export(jax.jit(lambda i, w, v: type(plan)(i, w)(v)), platforms=["cpu", "cuda", "tpu"])
    assert export(plan.indices, plan.weights, y).out_avals[0].shape == (3, *SHAPE)


def test_fit_has_nothing_to_do() -> None:
    recon = emjax.load("linear")
    assert recon.fit(jnp.zeros(SHAPE), PixelSampling(jnp.ones(SHAPE))) is recon


def test_errors() -> None:
    with pytest.raises(ValueError, match="no measured pixel"):
        linear_plan(np.zeros(SHAPE))
    with pytest.raises(ValueError, match="one 2-D mask"):
        linear_plan(np.ones((2, *SHAPE)))
    with pytest.raises(TypeError, match="outside of jit"):
        jax.jit(lambda m: linear_plan(m)(jnp.zeros(SHAPE)))(jnp.ones(SHAPE))
    with pytest.raises(TypeError, match="2-D PixelSampling"):
        emjax.load("linear")(jnp.zeros(SHAPE), Fourier(SHAPE))
    with pytest.raises(TypeError, match="2-D PixelSampling"):
        emjax.load("linear")(jnp.zeros((4, *SHAPE)), PixelSampling(jnp.ones((4, *SHAPE)), ndim=3))
