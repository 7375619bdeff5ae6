"""PSNR, SSIM and Fourier ring correlation: against scikit-image, and the properties that define them."""

import functools

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from jax import export
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from emjax.metrics import FRC, fourier_ring_correlation, mae, mse, psnr, resolution, ssim

# Few shapes, so that few programs are compiled.
BATCH = (3, 24, 31)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=8, deadline=None)
x64 = functools.partial(jax.enable_x64, True)


def pair(seed, shape=BATCH, noise=0.1, dtype=np.float32):
    """A smooth random picture in [0, 1] and a noisy copy of it, which leaves [0, 1] here and there."""
    rng = np.random.default_rng(seed)
    axes = tuple(range(-min(3, len(shape)), 0))
    spectrum = np.fft.fftn(rng.standard_normal(shape), axes=axes)
    radius = np.sqrt(sum(f**2 for f in np.ix_(*[np.fft.fftfreq(shape[a]) for a in axes])))
    truth = np.fft.ifftn(spectrum / (0.05 + radius) ** 2, axes=axes).real
    truth = (truth - truth.min()) / (truth.max() - truth.min())
    return (truth + noise * rng.standard_normal(shape)).astype(dtype), truth.astype(dtype)


def sk_ssim(image, truth, data_range=1.0):
    return structural_similarity(
        image.astype(float),
        truth.astype(float),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=data_range,
    )


def frc_array(a, b, ndim=2):
    return fourier_ring_correlation(a, b, ndim=ndim).correlation


PAIRED = {
    "mse": mse,
    "mae": mae,
    "psnr": psnr,
    "ssim": ssim,
    "frc": frc_array,
}
MAPPED = {name: jax.jit(jax.vmap(metric)) for name, metric in PAIRED.items()}


# --- agreement with scikit-image ---------------------------------------------------------------------------------


@given(seed=seeds)
@few
def test_psnr_agrees_with_scikit_image(seed):
    image, truth = (2.5 * x for x in pair(seed))
    expected = [
        peak_signal_noise_ratio(t, np.clip(x, 0, 2.5), data_range=2.5) for x, t in zip(image, truth, strict=True)
    ]
    np.testing.assert_allclose(psnr(image, truth, data_range=2.5), expected, rtol=1e-5)
    expected = [peak_signal_noise_ratio(t, x, data_range=2.5) for x, t in zip(image, truth, strict=True)]
    np.testing.assert_allclose(psnr(image, truth, data_range=2.5, clip=False), expected, rtol=1e-5)


# 11 pixels hold one window; 150 and 300 take several blocks of the banded product.
@pytest.mark.parametrize("shape", [(24, 31), (150, 300), (16, 11, 21)])
def test_ssim_agrees_with_scikit_image(shape):
    for scale in (1.0, 4.0):
        image, truth = (scale * x for x in pair(0, shape, dtype=np.float64))
        expected = sk_ssim(image, truth, scale)
        small = ssim(image.astype(np.float32), truth.astype(np.float32), data_range=scale, ndim=len(shape))
        assert small.dtype == jnp.float32
        np.testing.assert_allclose(small, expected, atol=1e-5)
    with x64():
        exact = ssim(image, truth, data_range=4.0, ndim=len(shape))
        assert exact.dtype == jnp.float64
        np.testing.assert_allclose(exact, expected, atol=1e-10)


def test_ssim_of_a_flat_bright_image_keeps_its_digits():
    # var = E[x^2] - E[x]^2 loses everything here in float32 unless it is taken about the mean.
    image, truth = (1000 + 0.01 * x for x in pair(1, (24, 31), dtype=np.float64))
    measured = ssim(image.astype(np.float32), truth.astype(np.float32), data_range=0.01)
    rounded = sk_ssim(image.astype(np.float32), truth.astype(np.float32), 0.01)
    np.testing.assert_allclose(measured, rounded, atol=1e-4)


# --- properties --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRED)
@given(seed=seeds)
@few
def test_a_batch_is_a_loop_and_a_vmap_of_singles(name, seed):
    metric = PAIRED[name]
    image, truth = pair(seed)
    batch = metric(image, truth)
    assert batch.shape[0] == BATCH[0] and batch.dtype == jnp.float32
    loop = [metric(x, t) for x, t in zip(image, truth, strict=True)]
    np.testing.assert_allclose(batch, loop, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(MAPPED[name](image, truth), loop, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PAIRED)
def test_volumes(name):
    metric = functools.partial(PAIRED[name], ndim=3)
    image, truth = pair(2, (2, 12, 13, 16))
    loop = [metric(x, t) for x, t in zip(image, truth, strict=True)]
    np.testing.assert_allclose(metric(image[None], truth[None])[0], loop, rtol=1e-5, atol=1e-6)
    if name in ("mse", "mae"):
        np.testing.assert_allclose(loop, PAIRED[name](image, truth).mean(axis=-1), rtol=1e-5)


@pytest.mark.parametrize("name", PAIRED)
@given(seed=seeds)
@few
def test_symmetric_and_blind_to_flips(name, seed):
    metric = functools.partial(psnr, clip=False) if name == "psnr" else PAIRED[name]
    image, truth = pair(seed)
    value = metric(image, truth)
    np.testing.assert_allclose(metric(truth, image), value, rtol=1e-5, atol=1e-6)
    flipped = metric(image[:, ::-1, ::-1].copy(), truth[:, ::-1, ::-1].copy())
    np.testing.assert_allclose(flipped, value, rtol=1e-4, atol=1e-5)


@given(seed=seeds, scale=st.floats(1e-3, 1e3))
@few
def test_scaling_both_images_and_the_range_changes_nothing(seed, scale):
    image, truth = pair(seed)
    image_scaled, truth_scaled = np.float32(scale) * image, np.float32(scale) * truth
    for metric in (psnr, ssim):
        value = metric(image, truth)
        np.testing.assert_allclose(metric(image_scaled, truth_scaled, data_range=scale), value, rtol=1e-4)


def test_identical_images():
    image, _ = pair(3)
    truth = np.clip(image, 0, 1)
    assert np.all(np.asarray(psnr(truth, truth)) == np.inf)
    assert np.all(np.asarray(ssim(image, image)) == 1)
    np.testing.assert_allclose(frc_array(image, image), 1, atol=1e-5)
    np.testing.assert_allclose(frc_array(image, -image), -1, atol=1e-5)


def test_psnr_contract_by_hand():
    truth = np.zeros((1, 24, 31), np.float32)
    np.testing.assert_allclose(psnr(truth + 0.1, truth), 20, rtol=1e-5)
    np.testing.assert_allclose(psnr(truth + 0.1, truth, data_range=10.0), 60 - 20, rtol=1e-5)
    # Only the reconstruction is clipped: 3 -> 1 against 0, while a truth of 3 stays 3.
    np.testing.assert_allclose(psnr(truth + 3, truth), 0, atol=1e-5)
    np.testing.assert_allclose(psnr(truth, truth + 3), -20 * np.log10(3), rtol=1e-5)
    # An error in the border alone disappears with the border.
    framed = truth.copy()
    framed[:, :2] = framed[:, -2:] = framed[..., :2] = framed[..., -2:] = 1
    assert psnr(framed, truth, crop=1) < 20 and psnr(framed, truth, crop=2) == np.inf
    np.testing.assert_allclose(mse(truth + 0.5, truth), 0.25)
    np.testing.assert_allclose(mae(truth - 0.5, truth), 0.5)


@given(seed=seeds, gain=st.floats(0.01, 100), offset=st.floats(-1, 1))
@few
def test_frc_is_blind_to_gain_and_offset_and_stays_within_one(seed, gain, offset):
    image, truth = pair(seed)
    curve = np.asarray(frc_array(image, truth))
    np.testing.assert_allclose(frc_array(np.float32(gain) * (image + np.float32(offset)), truth), curve, atol=1e-4)
    assert np.all(np.abs(curve) <= 1 + 1e-5)


# --- Fourier rings -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 2), (7, 7), (24, 31), (9, 64), (12, 13, 16)])
def test_ring_geometry_against_the_full_spectrum(shape):
    """Frequencies, sample counts and correlation against a direct sum over the whole complex FFT."""
    a, b = pair(4, shape)
    frc = fourier_ring_correlation(a, b, ndim=len(shape))
    short = min(shape)
    np.testing.assert_allclose(frc.frequency, np.arange(1, short // 2 + 1) / short, rtol=1e-6)

    edges = [(np.minimum(np.arange(n), n - 1 - np.arange(n)) + 0.5) / n for n in shape]
    flanks = [np.where(e < 1 / 8, np.sin(4 * np.pi * e) ** 2, 1) for e in edges]
    window = functools.reduce(np.multiply, np.ix_(*flanks))
    fa, fb = (np.fft.fftn(window * (x - np.average(x, weights=window))) for x in (a, b))
    radius = np.sqrt(sum(f**2 for f in np.ix_(*[np.fft.fftfreq(n) for n in shape]))) * short
    for k in range(1, short // 2 + 1):
        ring = np.round(radius) == k
        expected = np.sum((fa * fb.conj())[ring]).real
        expected /= np.sqrt(np.sum(np.abs(fa[ring]) ** 2) * np.sum(np.abs(fb[ring]) ** 2))
        np.testing.assert_allclose(frc.correlation[k - 1], expected, atol=1e-4)
        independent = ring.sum() * np.mean(window**2) ** 2 / np.mean(window**4)
        np.testing.assert_allclose(frc.n[k - 1], independent, rtol=1e-5)


@pytest.mark.parametrize("shape", [(40, 48, 48), (200, 31, 40)])
def test_white_noise_pairs_scatter_round_zero_by_one_over_root_n(shape):
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, *shape)).astype(np.float32)
    frc = fourier_ring_correlation(a, b)
    scatter = np.asarray(frc.correlation) * np.sqrt(frc.n)
    assert np.abs(scatter.mean()) < 0.1
    # Single rings are narrower than the window's spectrum, which shows in the innermost ones.
    np.testing.assert_allclose(np.std(scatter[:, 3:]), 1, atol=0.15)


def band_limited(seed, shape, cutoff, pixels=None):
    """Two images that share all frequencies below `cutoff` (cycles per unit) and none above it."""
    rng = np.random.default_rng(seed)
    pixels = pixels or (1,) * len(shape)
    frequencies = np.ix_(*[np.fft.fftfreq(n, p) for n, p in zip(shape, pixels, strict=True)])
    shared = np.sqrt(sum(f**2 for f in frequencies)) < cutoff
    common, one, two = (np.fft.fftn(rng.standard_normal(shape)) for _ in range(3))
    return tuple(np.fft.ifftn(np.where(shared, common, x)).real.astype(np.float32) for x in (one, two))


@pytest.mark.parametrize(
    ("shape", "cutoff"), [((256, 256), 0.1), ((256, 256), 0.3), ((95, 141), 0.2), ((33, 40, 41), 0.25)]
)
def test_resolution_of_a_known_band_limit(shape, cutoff):
    frc = fourier_ring_correlation(*band_limited(6, shape, cutoff), ndim=len(shape))
    for criterion in ("1/7", "half-bit", "0.5"):
        # The limit is met to one and a half rings, which is a few per cent here.
        np.testing.assert_allclose(resolution(frc, 4.0, criterion), 4.0 / cutoff, rtol=1.5 / (min(shape) * cutoff))


def test_resolution_with_coarse_slices():
    # Slices three times as thick as the pixels; the answer is in units of the smaller pixel.
    pixels = (30.0, 10.0, 10.0)
    a, b = band_limited(7, (24, 64, 70), 0.02, pixels)
    frc = fourier_ring_correlation(a, b, pixel_size=pixels, ndim=3)
    assert frc.frequency[-1] == 0.5
    np.testing.assert_allclose(resolution(frc, 10.0, "0.5"), 50.0, rtol=0.06)
    square = fourier_ring_correlation(a, b, pixel_size=(7, 7, 7), ndim=3)
    np.testing.assert_array_equal(square.correlation, fourier_ring_correlation(a, b, ndim=3).correlation)


def curve(correlation, n=1e9):
    rings = np.shape(correlation)[-1]
    return FRC(
        frequency=jnp.arange(1, rings + 1) / (2 * rings),
        correlation=jnp.asarray(correlation, jnp.float32),
        n=jnp.full(rings, n, jnp.float32),
    )


def test_resolution_by_hand():
    # A straight line, which smoothing leaves alone inside: 1 - 0.1 k meets 0.5 at ring 5 of 10, frequency 0.25.
    line = 1 - 0.1 * np.arange(1, 11)
    np.testing.assert_allclose(resolution(curve(line), 3.0, "0.5"), 12.0, rtol=1e-5)
    # 1/7 is met at ring 8.571; one pixel size per curve; leading axes stay.
    batch = curve(np.stack([line, np.ones(10), np.zeros(10), np.full(10, np.nan)])[None])
    nm = resolution(batch, np.array([1.0, 2.0, 1.0, 1.0]), "1/7")
    np.testing.assert_allclose(nm, [[20 / 8.571428, 4.0, np.nan, np.nan]], rtol=1e-5)
    # Half a bit: log2(1 + 2 snr) = 1/2, and the correlation expected of n samples at that snr, cross terms included.
    snr = (np.sqrt(2) - 1) / 2
    for n in (50, 1e9):
        cross = 2 * np.sqrt(snr / n)
        threshold = (snr + cross + 1 / np.sqrt(n)) / (snr + cross + 1)
        np.testing.assert_allclose(resolution(curve(line, n), 1.0, "half-bit"), 2 / (1 - threshold), rtol=1e-3)
    assert resolution(curve([1.0]), 1.0) == 2 and np.isnan(resolution(curve([0.0]), 1.0))
    # A dip of one ring is smoothed over.
    assert resolution(curve([1, 1, 1, 0.1, 1, 1, 1, 1, 1, 1]), 1.0) == 2


def test_one_seventh_between_halves_is_one_half_against_the_truth():
    # The equivalence that the module docstring states, with SNR = 1/3 in the mean of two halves, everywhere.
    rng = np.random.default_rng(8)
    truth, one, two = rng.standard_normal((3, 40, 48, 48)).astype(np.float32)
    halves = truth + np.sqrt(6) * one, truth + np.sqrt(6) * two
    np.testing.assert_allclose(frc_array(*halves)[:, 5:].mean(), 1 / 7, atol=0.01)
    np.testing.assert_allclose(frc_array((halves[0] + halves[1]) / 2, truth)[:, 5:].mean(), 0.5, atol=0.01)


def test_rings_without_power_do_not_correlate_and_have_finite_gradients():
    _, truth = pair(9, (24, 31))
    flat = jnp.full_like(truth, 0.0)
    np.testing.assert_array_equal(frc_array(flat, truth), 0)
    assert np.all(np.isfinite(jax.jit(jax.grad(lambda x: frc_array(x, truth).sum()))(flat)))


# --- transformations ---------------------------------------------------------------------------------------------


SCALARS = {
    "mae": mae,
    "psnr": psnr,
    "psnr cropped": functools.partial(psnr, crop=3, clip=False),
    "ssim": ssim,
    "resolution": lambda x, t: resolution(fourier_ring_correlation(x, t), 2.0, "0.5"),
}


@pytest.mark.parametrize("name", SCALARS)
def test_gradients_against_finite_differences(name):
    metric = SCALARS[name]
    with x64():
        image, truth = pair(10, (24, 31), noise=0.3 if name == "resolution" else 0.1, dtype=np.float64)
        if name == "psnr":
            image = 0.5 + 0.4 * np.tanh(image)  # away from the kinks of the clipping
        direction = np.random.default_rng(11).standard_normal((2, *image.shape))

        @jax.jit
        def slopes(image, truth):
            def along(step):
                return metric(image + step * direction[0], truth + step * direction[1])

            gradients = jax.grad(metric, argnums=(0, 1))(image, truth)
            _, tangent = jax.jvp(along, (0.0,), (1.0,))
            return gradients, tangent, jax.lax.map(along, jnp.array([1e-6, -1e-6]))

        gradients, tangent, (above, below) = slopes(image, truth)
        assert gradients[0].dtype == jnp.float64
        difference = (above - below) / 2e-6
        assert abs(difference) > 1e-5
        np.testing.assert_allclose(np.vdot(gradients, direction), difference, rtol=1e-5)
        np.testing.assert_allclose(tangent, difference, rtol=1e-5)


def test_ssim_is_greatest_for_the_truth_with_a_zero_gradient():
    _, truth = pair(12, (24, 31))
    np.testing.assert_array_equal(jax.jit(jax.grad(ssim))(truth, truth), 0)


def test_one_trace_for_all_images_and_ranges_in_jit_and_scan():
    traces = []

    @jax.jit
    def judge(image, truth, data_range, nm):
        traces.append(1)
        frc = fourier_ring_correlation(image, truth)
        return (
            psnr(image, truth, data_range=data_range),
            ssim(image, truth, data_range=data_range),
            resolution(frc, nm),
        )

    for seed, data_range in ((13, 1.0), (14, 2.0)):
        image, truth = pair(seed)
        answer = judge(image, truth, data_range, 4.0)
        np.testing.assert_allclose(answer[0], psnr(image, truth, data_range=data_range), rtol=1e-5)
        np.testing.assert_allclose(answer[1], ssim(image, truth, data_range=data_range), rtol=1e-5)
    assert len(traces) == 1
    _, scanned = jax.lax.scan(lambda _, pair: (None, judge(*pair, 2.0, 4.0)), None, (image, truth))
    for one, other in zip(scanned, answer, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_vmapped_curves_are_pytrees_and_keep_their_resolution():
    image, truth = pair(15)
    mapped = jax.vmap(fourier_ring_correlation)(image, truth)
    assert isinstance(mapped, FRC) and mapped.n.shape == mapped.correlation.shape
    expected = resolution(fourier_ring_correlation(image, truth), 4.0, "0.5")
    np.testing.assert_allclose(resolution(mapped, 4.0, "0.5"), expected, rtol=1e-5)
    np.testing.assert_allclose(jax.vmap(lambda f: resolution(f, 4.0, "0.5"))(mapped), expected, rtol=1e-5)


def test_exports_for_all_backends():
    def judge(image, truth):
        frc = fourier_ring_correlation(image, truth)
        return psnr(image, truth), jax.grad(lambda x: ssim(x, truth).sum())(image), resolution(frc, 1.0)

    shape = jax.ShapeDtypeStruct(BATCH, jnp.float32)
    export.export(jax.jit(judge), platforms=["cpu", "cuda", "tpu"])(shape, shape)


# --- errors ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PAIRED)
def test_error_texts_for_all_metrics(name):
    metric, image = PAIRED[name], np.zeros((24, 31), np.float32)
    with pytest.raises(ValueError, match=r"shapes \(24, 31\) and \(1, 24, 31\).*broadcast_to"):
        metric(image, image[None])
    with pytest.raises(ValueError, match=r"ndim=3 needs .* got shape \(24, 31\).*ndim=2 for images"):
        metric(image, image, ndim=3)
    with pytest.raises(ValueError, match="ndim=1 was given"):
        metric(image, image, ndim=1)
    for dtype in (np.uint8, np.complex64, np.float16):
        with pytest.raises(ValueError, match=f"got dtype {np.dtype(dtype)}; convert first"):
            metric(image.astype(dtype), image)
    with pytest.raises(ValueError, match="shapes"):
        jax.jit(metric)(image, image[1:])


def test_error_texts_of_single_metrics():
    image = np.zeros((24, 31), np.float32)
    for crop in (12, -1):
        with pytest.raises(ValueError, match=rf"crop={crop} .* between 0 and 11"):
            psnr(image, image, crop=crop)
    for metric in (psnr, ssim):
        for data_range in (0, -1.0, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="must be positive"):
                metric(image, image, data_range=data_range)
        with pytest.raises(ValueError, match=r"one number .* shape \(2,\)"):
            metric(image, image, data_range=np.ones(2))
    with pytest.raises(ValueError, match=r"size \(10, 31\).*11-pixel window"):
        ssim(image[:10], image[:10])
    with pytest.raises(ValueError, match="ndim=2 to judge the slices"):
        ssim(image[None], image[None], ndim=3)
    with pytest.raises(ValueError, match="at least 2 pixels"):
        fourier_ring_correlation(image[:1], image[:1])
    for pixel_size in (4.0, (1.0, 2.0, 3.0), (1.0, 0.0)):
        with pytest.raises(ValueError, match=r"expected 2 positive sizes.*`resolution`"):
            fourier_ring_correlation(image, image, pixel_size=pixel_size)
    with pytest.raises(ValueError, match=r"criterion='0.143' was given; choose '1/7'"):
        resolution(fourier_ring_correlation(image, image), 4.0, "0.143")
