"""The scan network: tiles, grey scales, soft weights, scans with nothing in them, its price, and its reconstructor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from network_registry import drawn, measured, network, operator, untrained
from numpy_scan import normalised

from emjax import tiling
from emjax.acquisition.noise import Noise
from emjax.networks import Network, ScanNetwork, build
from emjax.networks.scan import divided, statistics
from emjax.operators import Identity, LinearOperator, PixelSampling
from emjax.reconstructors.scan_recovery import ScanRecovery

both = pytest.mark.parametrize("name", ["scan", "scan-field"])


@jax.jit
def call(found: Network, y: jax.Array, A: LinearOperator, noise: Noise | None = None, **known: jax.Array) -> jax.Array:
    return found(y, A, noise, **known)


def scanned(*shape: int) -> tuple[jax.Array, PixelSampling]:
    mask = drawn(*shape, soft=True)
    i, j = np.indices(shape)
    image = 0.5 + 0.2 * np.sin(i / 7) + 0.2 * np.cos((i + j) / 5)
    return jnp.asarray(mask * image, jnp.float32), PixelSampling(mask)


@both
def test_tiles_are_the_whole_image(name: str) -> None:
    found = network(name)
    assert isinstance(found, ScanNetwork)
    halo, multiple = found.halo, found.multiple
    tile = 2 * halo + multiple
    y, A = scanned(tile + multiple, tile)
    noise = Noise(read_sigma=0.05)
    level, contrast = statistics(*divided(y, A.mask), noise)
    whole = call(found, y, A, noise, level=level, contrast=contrast)

    def one(y: np.ndarray, mask: np.ndarray) -> jax.Array:
        return call(found, jnp.asarray(y), PixelSampling(mask), noise, level=level, contrast=contrast)

    assert tiling.count(y.shape, tile, halo, multiple) == 2
    arrays = (np.asarray(y), np.asarray(A.mask))
    tiles = tiling.tiled(one, arrays, tile=tile, halo=halo, dead=halo, multiple=multiple)
    np.testing.assert_allclose(tiles, whole, atol=1e-5)
    assert np.ptp(whole) > 0.1


def test_a_faint_noise_has_finite_derivatives() -> None:
    """By the parameters, where the square of its variance is zero in float32."""
    y, A = scanned(32, 32)
    found = network("scan")
    graph, state = nnx.split(found, nnx.Param)
    slope = jax.jit(jax.grad(lambda state: jnp.sum(nnx.merge(graph, state)(y, A, Noise(0.0, 1e-11)) ** 2)))(state)
    assert all(bool(jnp.isfinite(v).all()) for v in jax.tree.leaves(slope))


def test_pixels_that_the_beam_hardly_saw_do_not_tell_the_grey_scale() -> None:
    mask = np.random.default_rng(0).uniform(0.001, 0.5, (128, 128))  # at 0.001, y / w is noise of 50
    i, j = np.indices(mask.shape)
    image = 0.5 + 0.2 * np.sin(i / 7) + 0.2 * np.cos((i + j) / 5)
    y = mask * image + 0.05 * np.random.default_rng(1).standard_normal(mask.shape)
    z, w = divided(jnp.asarray(y, jnp.float32), jnp.asarray(mask, jnp.float32))
    level, contrast = statistics(z, w, Noise(read_sigma=0.05))
    np.testing.assert_allclose([level, contrast], [image.mean(), image.std()], rtol=0.03)


def test_the_grey_scale_of_the_scan_is_that_of_the_image() -> None:
    found, A, y = network("scan"), operator("scan"), measured("scan")[0]
    x = call(found, y, A, Noise(read_sigma=0.05))
    for a, b in ((2.0, 3.0), (0.5, -1.0), (1000.0, 0.0)):
        again = call(found, a * y + b * A.mask, A, Noise(read_sigma=jnp.float32(abs(a) * 0.05)))
        # Up to the contrast that a constant image is given, a trace of its level.
        np.testing.assert_allclose((again - b) / a, x, atol=1e-3 * np.ptp(x))


def test_soft_weights_without_noise_are_a_mask() -> None:
    found, A, y = network("scan"), operator("scan"), measured("scan")[0]
    seen = A.mask > 0
    x = call(found, y, A)
    sharp = PixelSampling(seen.astype(jnp.float32))
    np.testing.assert_allclose(call(found, jnp.where(seen, y / jnp.where(seen, A.mask, 1), 0), sharp), x, atol=1e-5)
    # What was not measured may be anything.
    np.testing.assert_array_equal(call(found, jnp.where(seen, y, jnp.nan), A), x)


@pytest.mark.parametrize("name, noise", [("scan", None), ("scan-field", Noise(0.01, 0.05))])
def test_scans_with_little_in_them_are_finite(name: str, noise: Noise | None) -> None:
    def inner(found: Network, y: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = found(y, PixelSampling(mask), noise)
        return jnp.mean(x), x

    run = jax.jit(jax.value_and_grad(inner, argnums=(0, 1), has_aux=True))
    mask = np.zeros((30, 43), "f4")
    for pixels in (0, 1, 2):
        mask.ravel()[: 400 * pixels : 400] = 1
        assert all(bool(jnp.isfinite(v).all()) for v in jax.tree.leaves(run(network(name), 0.5 * mask, mask)))


def test_untrained_it_returns_its_start() -> None:
    # Without noise, measured pixels are then put back.
    found, A, y = untrained("scan"), operator("scan"), np.asarray(measured("scan")[0])
    x = call(found, jnp.asarray(y), A)
    mask = np.asarray(A.mask)
    z = np.divide(y, mask, out=np.zeros_like(y), where=mask > 0)
    np.testing.assert_allclose(x[mask > 0], z[mask > 0], atol=1e-5)
    seen = np.pad((mask > 0).astype(float), [(0, -n % 16) for n in mask.shape])
    level = z[mask > 0].mean()
    start = level + normalised(np.pad(z - level, [(0, -n % 16) for n in z.shape]) * seen, seen)[:30, :43]
    np.testing.assert_allclose(x[mask == 0], start[mask == 0], atol=1e-4)


def test_what_it_costs() -> None:
    from emjax.training import load_recipe

    recipe = load_recipe("scan-compact").network
    settings = {key: value for key, value in recipe.items() if key != "kind"}
    compact = nnx.eval_shape(lambda: build("scan", settings))
    assert isinstance(compact, ScanNetwork)
    assert 1000 < compact.operations <= 10_000
    # XLA counts two for a multiplication with its addition, and all the rest besides.
    y, A = scanned(128, 128)
    cost = jax.jit(lambda net, y: net(y, A)).lower(compact, y).cost_analysis()
    assert 0.9 < cost["flops"] / y.size / 2 / compact.operations < 1.3


def test_its_reconstructor_estimates_what_is_not_said() -> None:
    found, A, y = network("scan"), operator("scan"), measured("scan")[0]
    recon = ScanRecovery(found)
    fitted = recon.fit(y, A)
    assert 0 < float(fitted.read_sigma) < 0.2
    np.testing.assert_allclose(fitted(y, A), call(found, y, A, Noise(read_sigma=fitted.read_sigma)), atol=1e-5)
    with pytest.raises(ValueError, match="the scan network takes PixelSampling"):
        recon(jnp.zeros((4, 4)), Identity((4, 4)))
    with pytest.raises(TypeError, match="takes a scan network"):
        ScanRecovery(build("dncnn", {"width": 1, "depth": 2}))


def test_constant_scans_come_back() -> None:
    mask = drawn(30, 43)
    x = call(untrained("scan"), jnp.asarray(0.7 * mask), PixelSampling(mask))
    np.testing.assert_allclose(x, 0.7, atol=1e-4)
