"""Every reconstructor: shapes, batches, one trace, weights given or from the data, and a quality floor on a phantom."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import emjax
from emjax import Noise
from emjax.acquisition import phantom, uniform
from emjax.metrics import psnr
from emjax.operators import Blur, Fourier, PixelSampling
from emjax.reconstructors import METHODS, LinearInterpolation, Spectral, TotalVariation, WaveletL1

KEY = jax.random.key(1)
SHAPE = (64, 64)
SIGMA = 0.03
WEIGHTS = {"pnp": 1e-3, "spectral": 0.5, "tgv": 0.02, "tv": 0.02, "wavelet": 0.02}


def _slow(names: Any) -> list[Any]:
    """tgv takes tv's way with another problem, which tests/solvers/test_second_order.py looks at."""
    return [pytest.param(name, marks=pytest.mark.slow) if name == "tgv" else name for name in names]


# The weight of plug-and-play is the noise variance, whatever is held out or left over.
by_data = pytest.mark.parametrize("name", _slow([n for n in WEIGHTS if n != "pnp"]))
every = pytest.mark.parametrize("name", _slow(METHODS))
weighted = pytest.mark.parametrize("name", _slow(WEIGHTS))


@functools.cache
def truth() -> jax.Array:
    return jnp.asarray(phantom(SHAPE, 5).image)


@functools.cache
def scan(seed: int = 0, ratio: float = 0.3) -> tuple[jax.Array, PixelSampling]:
    """A scan of the phantom with noise; NaN where nothing was measured."""
    mask_key, noise_key = jax.random.split(jax.random.key(seed))
    mask = uniform(mask_key, SHAPE, ratio)
    y = truth() + SIGMA * jax.random.normal(noise_key, SHAPE)
    return jnp.where(mask, y, jnp.nan), PixelSampling(mask)


@functools.cache
def automatic(name: str) -> jax.Array:
    y, A = scan()
    return emjax.load(name)(y, A)


def fixed(name: str, **settings: Any) -> Any:
    """The reconstructor with a weight, so that only the recovery runs."""
    given = {"weight": WEIGHTS[name], **settings} if name in WEIGHTS else settings
    # Plug-and-play has a start with weights of its own.
    return emjax.load(name, **given, **({"start": Spectral(0.5, 3.0)} if name == "pnp" else {}))


@every
def test_a_scan_is_recovered(name: str) -> None:
    x = automatic(name)
    assert x.shape == SHAPE
    assert x.dtype == jnp.float32
    assert bool(jnp.isfinite(x).all())


def test_quality_floor() -> None:
    y, _ = scan()
    mean = jnp.full(SHAPE, jnp.nanmean(y))
    found = {name: float(psnr(automatic(name), truth())) for name in METHODS if name != "tgv"}
    nothing = float(psnr(mean, truth()))
    assert all(value > nothing + 3 for value in found.values()), (found, nothing)
    assert found["spectral"] > found["linear"] + 0.5, found


@every
def test_what_was_not_measured_is_ignored(name: str) -> None:
    y, A = scan()
    again = fixed(name)(jnp.where(A.mask > 0, y, 1e6), A)
    np.testing.assert_array_equal(again, fixed(name)(y, A))


@every
def test_a_batch_is_its_items(name: str) -> None:
    y, A = scan()
    ys = jnp.stack([y, 2 * y + 5, y[::-1]])
    recon = fixed(name)
    batch = recon(ys[:, None], A)
    assert batch.shape == (3, 1, *SHAPE)
    for item, x in zip(ys, batch[:, 0], strict=True):
        np.testing.assert_allclose(x, recon(item, A), rtol=1e-5, atol=1e-5)


@every
def test_masks_of_a_batch(name: str) -> None:
    scans = [scan(seed) for seed in (0, 1)]
    ys = jnp.stack([y for y, _ in scans])
    recon = fixed(name)
    batch = recon(ys, PixelSampling(jnp.stack([A.mask for _, A in scans])))
    for (y, A), x in zip(scans, batch, strict=True):
        np.testing.assert_allclose(x, recon(y, A), rtol=1e-5, atol=1e-5)


@weighted
def test_weights_of_a_batch(name: str) -> None:
    y, A = scan()
    weights = jnp.asarray([0.5, 2.0]) * WEIGHTS[name]
    batch = fixed(name, weight=weights)(y, A)
    assert batch.shape == (2, *SHAPE)
    for weight, x in zip(weights, batch, strict=True):
        np.testing.assert_allclose(x, fixed(name, weight=weight)(y, A), rtol=1e-5, atol=1e-5)


@weighted
def test_automatic_weights_of_a_batch_do_not_meet(name: str) -> None:
    y, A = scan()
    pair = emjax.load(name).fit(jnp.stack([y, 1000 * y]), A)
    assert pair.weight.shape == (2,)
    # Spectral weights have no unit, those of plug-and-play are variances; the others are grey values.
    scale = {"spectral": 1, "pnp": 1000**2}.get(name, 1000)
    np.testing.assert_allclose(pair.weight[1], scale * pair.weight[0], rtol=0.5)


@weighted
def test_fit_then_call_is_call(name: str) -> None:
    y, A = scan()
    fitted = emjax.load(name).fit(y, A)
    assert fitted.weight.shape == ()
    assert float(fitted.weight) > 0
    np.testing.assert_allclose(fitted(y, A), automatic(name), rtol=1e-4, atol=1e-4)


@by_data
def test_the_key_decides_what_is_held_out(name: str) -> None:
    y, A = scan()
    recon = emjax.load(name)
    first, again, other = (float(recon.fit(y, A, key=jax.random.key(k)).weight) for k in (0, 0, 7))
    assert first == again
    assert first != other
    np.testing.assert_array_equal(recon(y, A), automatic(name))


@weighted
def test_jit_and_vmap(name: str) -> None:
    y, A = scan()
    recon = fixed(name)
    x = recon(y, A)
    np.testing.assert_allclose(jax.jit(lambda r, y, A: r(y, A))(recon, y, A), x, rtol=1e-5, atol=1e-5)
    mapped = jax.vmap(lambda y, m: recon(y, PixelSampling(m)))(y[None], A.mask[None])
    np.testing.assert_allclose(mapped[0], x, rtol=1e-5, atol=1e-5)


@weighted
def test_one_trace_for_all_numbers(name: str) -> None:
    count = 0

    @jax.jit
    def run(recon: Any, y: jax.Array, A: PixelSampling, noise: Noise) -> jax.Array:
        nonlocal count
        count += 1
        return recon(y, A, noise)

    for seed, factor in ((0, 1.0), (1, 3.0)):
        y, A = scan(seed)
        settings = {"gap": jnp.float32(1e-2 * factor), "max_steps": jnp.int32(5 * factor)}
        recon = emjax.load(name, weight=jnp.float32(factor * WEIGHTS[name]), **settings)
        run(recon, y, A, Noise(jnp.float32(0.0), jnp.float32(0.01 * factor)))
    assert count == 1


@weighted
def test_known_noise(name: str) -> None:
    y, A = scan()
    for noise in (Noise(read_sigma=SIGMA), Noise(gain=2 * SIGMA**2)):
        found = float(psnr(emjax.load(name)(y, A, noise), truth()))
        assert found > float(psnr(automatic(name), truth())) - 0.5


@weighted
def test_a_louder_scan_gets_a_larger_weight(name: str) -> None:
    y, A = scan(ratio=0.5)
    louder = y + 0.15 * jax.random.normal(KEY, SHAPE)
    quiet, loud = (float(emjax.load(name).fit(v, A).weight) for v in (y, louder))
    assert loud > 1.5 * quiet


@weighted
def test_soft_weights_of_one_size_change_nothing(name: str) -> None:
    """`c y = c m x` holds the same information for every c, and the weight goes with c^2."""
    y, A = scan()
    soft = PixelSampling(0.25 * A.mask)
    fitted, again = emjax.load(name).fit(y, A), emjax.load(name).fit(0.25 * y, soft)
    np.testing.assert_allclose(again.weight, fitted.weight / 16, rtol=1e-2)
    np.testing.assert_allclose(again(0.25 * y, soft), fitted(y, A), atol=2e-3)


def test_a_part_without_samples_does_not_decide_the_weight() -> None:
    image = jnp.asarray(phantom((264, 264), 3).image)
    mask = uniform(jax.random.key(2), image.shape, 0.3).astype(jnp.float32)
    y = image + 0.1 * jax.random.normal(KEY, image.shape)
    recon = emjax.load("spectral")
    whole = recon.fit(y, PixelSampling(mask))
    for gone, kept in ((np.s_[:, :134], np.s_[:, 140:]), (np.s_[134:], np.s_[:128])):
        half = PixelSampling(mask.at[gone].set(0))
        found = [float(psnr(r(y, half)[kept], image[kept])) for r in (recon.fit(y, half), whole)]
        assert found[0] > found[1] - 0.3, found


def test_automatic_weights_come_close_to_the_best() -> None:
    y, A = scan()
    grid = {
        "tv": jnp.geomspace(0.2, 1e-3, 10),
        "wavelet": jnp.geomspace(1.0, 1e-3, 12),
        "spectral": jnp.geomspace(1e-2, 1e3, 12),
    }
    for name, weights in grid.items():
        best = float(
            jnp.max(psnr(emjax.load(name, weight=weights)(y, A), jnp.broadcast_to(truth(), (*weights.shape, *SHAPE))))
        )
        assert float(psnr(automatic(name), truth())) > best - 0.5, name


@by_data
@pytest.mark.parametrize("kind", ["blur", "fourier"])
def test_the_discrepancy_principle_elsewhere(name: str, kind: str) -> None:
    x = truth()
    A = Blur(jnp.ones((3, 3)) / 9, SHAPE, "periodic") if kind == "blur" else Fourier(SHAPE)
    exact = A(x)
    parts = jax.random.normal(KEY, (2, *exact.shape)) * SIGMA
    y = exact + (jax.lax.complex(*parts) / 2**0.5 if jnp.iscomplexobj(exact) else parts[0])
    with pytest.raises(ValueError, match="noise"):
        emjax.load(name)(y, A)
    noise = Noise(read_sigma=SIGMA)
    recon = emjax.load(name).fit(y, A, noise)
    found = recon(y, A, noise)
    residual = float(jnp.mean(jnp.abs(A(found) - y) ** 2)) / SIGMA**2
    assert 0.6 < residual < 1.4
    np.testing.assert_array_equal(emjax.load(name, weight=recon.weight, **_exponent(recon))(y, A), recon(y, A))


def _exponent(recon: Any) -> dict[str, Any]:
    return {"exponent": recon.exponent} if isinstance(recon, Spectral) else {}


@weighted
def test_exports_for_every_platform(name: str) -> None:
    y, A = scan()
    for recon in (fixed(name), emjax.load(name)):
        # The arguments of an exported program are plain arrays.
        leaves, tree = jax.tree.flatten(recon)
        f = jax.jit(functools.partial(_call, tree))
        export = jax.export.export(f, platforms=["cpu", "cuda", "tpu"])(leaves, y, A.mask)
        assert export.out_avals[0].shape == SHAPE


def _call(tree: Any, leaves: list[jax.Array], y: jax.Array, mask: jax.Array) -> jax.Array:
    return jax.tree.unflatten(tree, leaves)(y, PixelSampling(mask))


def test_load() -> None:
    assert isinstance(emjax.load("tv", weight=0.1), TotalVariation)
    assert emjax.load("wavelet", weight="auto").weight is None
    assert isinstance(emjax.load("linear"), LinearInterpolation)
    assert isinstance(emjax.load("wavelet", name="haar"), WaveletL1)
    with pytest.raises(ValueError, match="linear, pnp, spectral, tgv, tv, wavelet"):
        emjax.load("bicubic")
    with pytest.raises(ValueError, match='a number or "auto"'):
        emjax.load("tv", weight="strong")


@every
def test_shapes_that_do_not_fit_are_refused(name: str) -> None:
    _, A = scan()
    for shape in ((64,), (64, 63), (3, 63, 64)):
        with pytest.raises(ValueError, match="measurements have shape"):
            emjax.load(name)(jnp.zeros(shape), A)


@pytest.mark.parametrize("name", _slow(["tv", "tgv"]))
def test_a_beam_that_hardly_touched_some_pixels_does_no_harm(name: str) -> None:
    # Where w is 1e-4 the quotient y / w is noise of hundreds of grey levels: it must set no scale, weight or bound.
    faint = jax.random.uniform(KEY, SHAPE) < 0.1
    noise = SIGMA * jax.random.normal(KEY, SHAPE)
    found = []
    for least in (0.0, 1e-4):
        A = PixelSampling(jnp.where(faint, least, 0.5 * uniform(KEY, SHAPE, 0.5)))
        y = jnp.where(A.mask > 0, A(truth()) + noise, 0)
        recon = emjax.load(name).fit(y, A)
        found.append((float(recon.weight), float(psnr(recon(y, A), truth()))))
    (weight, score), (again, faintly) = found
    assert 0.5 < again / weight < 2
    assert faintly > score - 0.3
