"""DCT, wavelets, frames, Fourier and blur agree with SciPy, NumPy and PyWavelets; all in float64."""

import warnings

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import pywt
import scipy.fft
import scipy.ndimage
from hypothesis import given, settings
from operator_registry import enable_x64, quick_jit

from emjax import operators as ops

few = settings(max_examples=10, deadline=None, derandomize=True)
sides = st.integers(1, 20)
NAMES = ["haar", *(f"db{n}" for n in range(1, 11)), *(f"sym{n}" for n in range(2, 11))]


def normal(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape)


@few
@given(st.lists(sides, min_size=1, max_size=3))
def test_dct_agrees_with_scipy(shape: list[int]) -> None:
    with enable_x64():
        x, op = normal(*shape), ops.DCT(shape)
        y, back = quick_jit(lambda x: (op(x), op.H(x)))(x)
    np.testing.assert_allclose(y, scipy.fft.dctn(x, norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(back, scipy.fft.idctn(x, norm="ortho"), atol=1e-12)


@pytest.mark.parametrize("shape", [(100, 65), (65, 100), (3, 70, 4), (1, 129), (4096,), (66, 2, 1)])
def test_dct_of_long_axes(shape: tuple[int, ...]) -> None:
    with enable_x64():
        x, op = normal(*shape), ops.DCT(shape)
        y, back = quick_jit(lambda x: (op(x), op.H(x)))(x)
    np.testing.assert_allclose(y, scipy.fft.dctn(x, norm="ortho"), atol=1e-12)
    np.testing.assert_allclose(back, scipy.fft.idctn(x, norm="ortho"), atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_filters(name: str) -> None:
    with enable_x64():
        # An impulse brings the filters out: coarse coefficients are h, finest ones g.
        n = 64
        lo, hi = np.split(np.asarray(quick_jit(ops.Wavelet((n,), name, 1).H)(np.eye(n))), 2)
        h, g = lo[n // 4], hi[n // 4]
    for shift in range(0, n, 2):
        for a, b, want in ((h, h, shift == 0), (g, g, shift == 0), (h, g, False)):
            assert abs(a @ np.roll(b, shift) - want) < 1e-14
    moments = len(pywt.Wavelet(name).rec_lo) // 2
    t = (np.arange(n) - n // 2) / n
    for p in range(moments):
        assert abs(g @ t**p) < 1e-13
    # PyWavelets' own symlets 4 to 8 are wrong from the 12th digit on (their rows are not orthonormal beyond
    # it).
    tolerance = 1e-13 if name.startswith(("haar", "db")) else 5e-12
    reference = np.asarray(pywt.Wavelet(name).rec_lo)
    np.testing.assert_allclose(np.trim_zeros(np.where(np.abs(h) > 0, h, 0)), reference, atol=tolerance)


EVEN = [
    ((64, 32), "db4", 3),
    ((16, 8), "db10", 2),
    ((32,), "db2", 4),
    ((8, 16, 4), "db3", 2),
    ((2, 4), "db4", 1),
]
EVEN += [((48, 80), name, 3) for name in ("haar", "sym4", "sym7", "db7")]


@pytest.mark.parametrize(("shape", "name", "levels"), EVEN)
def test_wavelet_agrees_with_pywavelets(shape: tuple[int, ...], name: str, levels: int) -> None:
    x = normal(*shape)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parts = pywt.wavedecn(x, name, "periodization", levels)
    with enable_x64():
        op = ops.Wavelet(shape, name, levels)
        y = np.asarray(quick_jit(op)(x))
    tolerance = 2e-11 if name.startswith("sym") else 1e-12
    np.testing.assert_allclose(y, pywt.coeffs_to_array(parts)[0], atol=tolerance)
    coarse, *rest = op.bands()
    assert coarse.level == levels and parts[0].shape == op.coarse_shape
    np.testing.assert_allclose(y[coarse.slices], parts[0], atol=tolerance)
    assert len(rest) == levels * (2 ** len(shape) - 1)
    for band in rest:
        np.testing.assert_allclose(y[band.slices], parts[1 + levels - band.level][band.kind], atol=tolerance)


@few
@given(st.lists(sides, min_size=1, max_size=3), st.sampled_from(NAMES))
def test_wavelet_is_orthogonal_and_its_bands_are_a_partition(shape: list[int], name: str) -> None:
    op = ops.Wavelet(shape, name)
    count = np.zeros(shape, int)
    for band in op.bands():
        assert count[band.slices].size > 0
        count[band.slices] += 1
    assert (count == 1).all()
    assert op.coarse_mask().sum() == np.prod(op.coarse_shape)
    assert op.level_map().max() == op.levels
    with enable_x64():
        x = normal(*shape)
        for back in quick_jit(lambda x: (op.H(op(x)), op(op.H(x))))(x):
            np.testing.assert_allclose(back, x, atol=1e-12)


def test_wavelet_levels() -> None:
    levels = {
        (512, 512): 6,
        (64, 64): 3,
        (16, 16): 1,
        (9, 9): 1,
        (2, 2): 1,
        (1, 1): 0,
        (1, 64): 3,
        (8, 512): 1,
    }
    assert {shape: ops.Wavelet(shape, "db4").levels for shape in levels} == levels
    assert ops.Wavelet((7, 12), "haar", 0).coarse_shape == (7, 12)
    assert ops.Wavelet((7, 12), "haar", 2).coarse_shape == (2, 3)


UNDECIMATED = [
    ((16, 8), "haar", 3),
    ((16, 8), "db4", 2),
    ((8, 24), "sym5", 2),
    ((4, 8, 4), "db2", 2),
    ((32,), "db10", 4),
]


@pytest.mark.parametrize(("shape", "name", "levels"), UNDECIMATED)
def test_undecimated_wavelet_agrees_with_pywavelets(shape: tuple[int, ...], name: str, levels: int) -> None:
    x, op = normal(*shape), ops.UndecimatedWavelet(shape, name, levels)
    with enable_x64():
        y, back = quick_jit(lambda x: (op(x), op.H(op(x))))(x)
    np.testing.assert_allclose(back, x, atol=1e-13)
    coarse, *details = pywt.swtn(x, name, levels, norm=True, trim_approx=True)
    tolerance = 2e-11 if name.startswith("sym") else 1e-12
    bands = op.bands()
    assert len(bands) == len(y) == op.out_shape[0]
    for band in bands:
        want = details[levels - band.level][band.kind] if "d" in band.kind else coarse
        np.testing.assert_allclose(y[band.slices][0], want, atol=tolerance)
    if len(shape) == 2:
        np.testing.assert_allclose(y[0], pywt.swt2(x, name, levels, norm=True)[0][0], atol=tolerance)


@pytest.mark.parametrize("name", ["haar", "db3"])
def test_the_wavelet_transform_is_every_second_coefficient_of_the_undecimated_one(name: str) -> None:
    x, levels = normal(16, 24), 2
    every, second = ops.UndecimatedWavelet(x.shape, name, levels), ops.Wavelet(x.shape, name, levels)
    with enable_x64():
        y, z = map(np.asarray, quick_jit(lambda x: (every(x), second(x)))(x))
    for thick, thin in zip(every.bands(), second.bands(), strict=True):
        assert (thick.level, thick.kind) == (thin.level, thin.kind)
        step = 2**thick.level
        np.testing.assert_allclose(step * y[thick.slices][0, ::step, ::step], z[thin.slices], atol=1e-12)
        assert (every.level_map()[thick.slices] == second.level_map()[thin.slices].flat[0]).all()


@settings(few, max_examples=5)
@given(st.lists(sides, min_size=1, max_size=2), st.sampled_from(NAMES), st.integers(0, 3))
def test_undecimated_wavelet_of_any_size_commutes_with_shifts(shape: list[int], name: str, by: int) -> None:
    op = ops.UndecimatedWavelet(shape, name)
    with enable_x64():
        x = normal(*shape)
        y, z, back = quick_jit(lambda x, s: (op(x), op(s), op.H(op(x))))(x, np.roll(x, by, -1))
    np.testing.assert_allclose(np.roll(y, by, -1), z, atol=1e-12)
    np.testing.assert_allclose(back, x, atol=1e-12)


@few
@given(st.lists(sides, min_size=1, max_size=3), st.booleans())
def test_fourier_agrees_with_numpy(shape: list[int], real: bool) -> None:
    with enable_x64():
        x = normal(*shape) if real else normal(*shape) + 1j * normal(2, *shape)[1]
        y = normal(*shape) + 1j * normal(2, *shape)[1]
        op = ops.Fourier(shape, real)
        spectrum, back = quick_jit(lambda x, y: (op(x), op.H(y)))(x, y)
    np.testing.assert_allclose(spectrum, np.fft.fftn(x, norm="ortho"), atol=1e-13)
    inverse = np.fft.ifftn(y, norm="ortho")
    np.testing.assert_allclose(back, inverse.real if real else inverse, atol=1e-13)


def test_centred_masks() -> None:
    rng = np.random.default_rng(0)
    mask, x = rng.random((3, 5, 8)) < 0.3, normal(5, 8)
    with enable_x64():
        spectrum = np.fft.fftshift(np.fft.fft2(x, norm="ortho"))
        y = np.fft.ifftshift(mask * spectrum, axes=(1, 2))
        np.testing.assert_allclose(ops.SubsampledFourier.centred(mask)(x), y, atol=1e-13)


MODES = {"periodic": "wrap", "reflect": "reflect", "zero": "constant"}
KERNELS = [
    ((6, 7), (3, 3)),
    ((9, 8), (4, 2)),
    ((1, 5), (5, 6)),
    ((2, 2), (7, 9)),
    ((3, 4, 5), (2, 3, 4)),
    ((9,), (4,)),
]


@pytest.mark.parametrize("boundary", MODES)
@pytest.mark.parametrize(("shape", "size"), KERNELS)
def test_blur_agrees_with_scipy(boundary: str, shape: tuple[int, ...], size: tuple[int, ...]) -> None:
    x, kernel = normal(*shape), np.random.default_rng(1).standard_normal(size)
    with enable_x64():
        y = quick_jit(lambda k, x: ops.Blur(k, shape, boundary)(x))(kernel, x)
    np.testing.assert_allclose(y, scipy.ndimage.convolve(x, kernel, mode=MODES[boundary]), atol=1e-12)


def test_gaussian_kernel_agrees_with_scipy() -> None:
    x = normal(30, 20)
    with enable_x64():
        kernel = ops.gaussian_kernel((1.5, 0.6))
        assert kernel.shape == (13, 5)
        y = quick_jit(ops.Blur(kernel, x.shape, "reflect"))(x)
        np.testing.assert_allclose(y, scipy.ndimage.gaussian_filter(x, (1.5, 0.6), mode="reflect"), atol=1e-13)
        np.testing.assert_array_equal(ops.gaussian_kernel((0.0, 0.0), radius=1), np.outer([0, 1, 0], [0, 1, 0]))
        slope = quick_jit(jax.grad(lambda s: ops.gaussian_kernel(s, radius=3)[3, 3]))(1.0)
        assert np.isfinite(slope) and slope < 0


def test_a_mirrored_shift_is_longer_than_its_spectrum() -> None:
    # The border pixel is counted twice: sum |k| = 1 is no bound.
    with enable_x64():
        shift = ops.Blur(jnp.asarray([0.0, 0.0, 1.0]), (8,), "reflect")
        dense = np.asarray(quick_jit(shift)(np.eye(8)))
        assert np.isclose(np.linalg.norm(dense, 2), np.sqrt(2))
        assert np.sqrt(2) * (1 - 1e-14) <= quick_jit(shift.norm_bound)() <= 1.42
