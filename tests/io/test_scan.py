"""Scans: masks added later, scale taken anew, errors."""

import dataclasses

import numpy as np
import pytest

from emjax.io import ImageError, Metadata, Scan


def test_with_mask_zeroes_and_multiplies() -> None:
    scan = Scan.from_array(np.array([[10, 20, 30], [40, 50, 60]], np.uint8), missing=60)
    soft = scan.with_mask(np.array([[0, 1, 0.5], [1, 1, 1]]))
    assert soft.mask is not None and soft.mask.dtype == np.float32
    assert np.array_equal(soft.mask, [[0, 1, 0.5], [1, 1, 0]])
    assert np.array_equal(soft.image * 255, [[0, 20, 30], [40, 50, 0]])
    assert (soft.scale, soft.offset) == (255, 0)
    assert scan.image[0, 0] > 0  # the first scan is as it was


def test_with_mask_of_ones_is_no_mask() -> None:
    scan = Scan.from_array(np.zeros((3, 4), np.uint8))
    assert scan.with_mask(np.ones((3, 4))).mask is None
    assert Scan.from_array(np.zeros((3, 4), np.uint8), mask=np.ones((3, 4), bool)).mask is None


def test_with_mask_takes_the_scale_of_floats_anew() -> None:
    values = np.array([[-50.0, 2.0, 3.0], [4.0, 6.0, 90.0]])
    mask = np.array([[0, 1, 1], [1, 1, 0]])
    later, at_once = Scan.from_array(values).with_mask(mask), Scan.from_array(values, mask=mask)
    assert np.allclose(later.image, at_once.image, atol=1e-5)
    assert later.scale == pytest.approx(4, rel=1e-5) and later.offset == pytest.approx(2, rel=1e-5)
    assert at_once.scale == 4 and at_once.offset == 2
    unit = Scan.from_array(np.array([[-5.0, 0.25, 0.5]])).with_mask(np.array([[0, 1, 1]]))
    assert (unit.scale, unit.offset) == (1, 0)
    assert np.allclose(unit.image, [[0, 0.25, 0.5]])


def test_with_mask_refuses_what_float32_has_lost() -> None:
    scan = Scan.from_array(np.array([[-1e30, 2.0, 3.0]]))
    with pytest.raises(ImageError, match=r"read\(path, mask=...\)"):
        scan.with_mask(np.array([[0, 1, 1]]))


def test_a_flat_mask_serves_every_slice() -> None:
    scan = Scan.from_array(np.full((4, 2, 3), 9, np.uint8))
    mask = np.array([[1, 0, 1], [0, 1, 1]])
    masked = scan.with_mask(mask)
    assert masked.mask is not None and masked.mask.shape == (4, 2, 3)
    assert all(np.array_equal(part, mask) for part in masked.mask)


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.ones((3, 2)), r"shape \(3, 2\), but the image needs \(2, 3\)"),
        (np.ones((4, 2, 3)), "the image needs"),
        (np.zeros((2, 3)), "0 everywhere"),
        (np.zeros((2, 3), bool), "0 everywhere"),
        (np.full((2, 3), np.nan), "NaN"),
        (np.linspace(0, 1.5, 6).reshape(2, 3), "from 0 to 1.5; floats are weights"),
        (np.ones((2, 3), complex), "complex128"),
        (np.array([["a"] * 3] * 2), "<U1"),
    ],
)
def test_masks_that_do_not_fit(mask: np.ndarray, words: str) -> None:
    scan = Scan.from_array(np.ones((2, 3), np.uint8))
    with pytest.raises(ImageError, match=words):
        scan.with_mask(mask)
    with pytest.raises(ImageError, match=words):
        Scan.from_array(np.ones((2, 3), np.uint8), mask=mask)


def test_masks_that_leave_nothing() -> None:
    scan = Scan.from_array(np.array([[0, 1], [1, 0]], np.uint8), missing=0)
    with pytest.raises(ImageError, match="no pixel is left"):
        scan.with_mask(np.array([[1, 0], [0, 1]]))


@pytest.mark.parametrize("factor", [1e-300, 1e-30, 1e-12, 1e-4, 1e12, 1e30, 1e300])
def test_tiny_and_huge_floats_are_stretched_and_come_back(factor: float) -> None:
    values = factor * np.array([[0.25, 1.5, 0.5, np.nan]])
    scan = Scan.from_array(values)
    assert (scan.scale, scan.offset) == pytest.approx((1.25 * factor, 0.25 * factor))
    np.testing.assert_allclose(scan.image, [[0, 1, 0.2, 0]], rtol=1e-6)
    np.testing.assert_allclose(scan.original(scan.image)[0, :3], values[0, :3], rtol=1e-6)
    # near one grey level, and all of one level
    scan = Scan.from_array(np.array([[0.5, 0.5 + 1e-9]]))
    assert scan.image.tolist() == [[0, 1]]
    assert Scan.from_array(np.full((2, 3), factor)).image.max() == 0


@pytest.mark.parametrize(
    ("values", "missing", "words"),
    [
        (
            np.arange(6, dtype=np.uint8),
            999,
            "no pixel has the value 999, given as missing; the uint8 pixels go from 0 to",
        ),
        (np.arange(6, dtype=np.uint8), np.nan, "NaN pixels are found by themselves"),
        (np.arange(6, dtype=np.float32), np.inf, "value inf"),
        (np.array([np.nan, 2, 3, 4, 5, 6], np.float16), 1e9, r"value 1e\+09.* from 2 to 6"),
        (np.array([np.inf, 2, 3, 4, 5, 6], np.float16), 1e9, "value 1e"),
    ],
)
def test_a_missing_value_that_no_pixel_has(values: np.ndarray, missing: float, words: str) -> None:
    with pytest.raises(ImageError, match=words):
        Scan.from_array(values.reshape(2, 3), missing=missing)


def test_a_missing_value_that_pixels_have() -> None:
    for values, missing in [([0.1, 2], 0.1), ([np.inf, 2], np.inf), ([np.nan, 2], np.nan)]:
        scan = Scan.from_array(np.array([values], np.float32), missing=missing)
        assert scan.mask is not None and scan.mask.tolist() == [[0, 1]]


@pytest.mark.parametrize("values", [np.zeros(3), np.zeros((1, 1, 1, 1)), np.zeros((0, 2)), np.array([["a"]])])
def test_arrays_that_are_no_images(values: np.ndarray) -> None:
    with pytest.raises(ImageError):
        Scan.from_array(values)


def test_original_and_metadata() -> None:
    scan = Scan.from_array(np.array([[3.0, 7.0]]), metadata=Metadata((5.0, 5.0)))
    assert scan.metadata.pixel_size_nm == (5, 5)
    assert np.array_equal(scan.original(np.array([[[0.5, 1.5]]])), [[[5.0, 9.0]]])  # floats are not clipped
    finer = dataclasses.replace(scan, metadata=dataclasses.replace(scan.metadata, pixel_size_nm=(2.5, 2.5)))
    assert finer.metadata.pixel_size_nm == (2.5, 2.5)
