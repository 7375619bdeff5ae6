"""Mask files: what the usual ways to save a mask mean."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from emjax.io import ImageError, read_mask, write

PATTERN = np.random.default_rng(0).random((8, 11)) > 0.6


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0, 1, "bool"),
        (0, 1, "uint8"),
        (0, 255, "uint8"),
        (0, 65535, "uint16"),
        (3, 200, "uint8"),
        (-1, 1, "int16"),
        (0, 255, "float32"),
        (0, 1, "float64"),
    ],
)
def test_two_values_are_a_mask(tmp_path: Path, low: int, high: int, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.where(PATTERN, high, low).astype(dtype))
    mask = read_mask(tmp_path / "m.tif")
    assert mask.dtype == np.float32
    assert np.array_equal(mask, PATTERN)


@pytest.mark.parametrize(
    "layout",
    [
        {"photometric": "minisblack"},
        {"photometric": "miniswhite"},
        {"compression": "packbits"},
        {"imagej": True},
    ],
)
def test_layouts(tmp_path: Path, layout: dict[str, Any]) -> None:
    tifffile.imwrite(tmp_path / "m.tif", PATTERN.astype(np.uint8), **layout)
    assert np.array_equal(read_mask(tmp_path / "m.tif"), PATTERN)


def test_soft_weights(tmp_path: Path) -> None:
    weights = np.linspace(0, 0.625, 30, dtype=np.float32).reshape(5, 6)
    tifffile.imwrite(tmp_path / "m.tif", weights)
    assert np.array_equal(read_mask(tmp_path / "m.tif"), weights)
    tifffile.imwrite(tmp_path / "m.tif", np.array([[0, 51, 255]], np.uint8))
    assert np.allclose(read_mask(tmp_path / "m.tif"), [[0, 0.2, 1]])


def test_one_value(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.full((3, 4), 7, np.uint8))
    assert np.array_equal(read_mask(tmp_path / "m.tif"), np.ones((3, 4)))
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((3, 4), np.uint8))
    with pytest.raises(ImageError, match=r"m\.tif is 0 everywhere"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize(
    "values", [[[0, 1, 2]], [[0.0, 0.5, 2.0]], [[0, 100, 200]], [[-1, 0, 1]], [[1.0, np.nan, 0.0]]]
)
def test_images_that_are_no_masks(tmp_path: Path, values: list[list[float]]) -> None:
    array = np.array(values)
    tifffile.imwrite(tmp_path / "m.tif", array.astype(np.int16 if array.dtype.kind == "i" else np.float32))
    with pytest.raises(ImageError, match=r"threshold|mark pixels"):
        read_mask(tmp_path / "m.tif")


def test_masks_we_write_come_back(tmp_path: Path) -> None:
    write(tmp_path / "m.tif", PATTERN)
    assert np.array_equal(read_mask(tmp_path / "m.tif"), PATTERN)
    soft = np.random.default_rng(0).random((4, 5)).astype(np.float32)
    write(tmp_path / "m.tif", soft)
    assert np.array_equal(read_mask(tmp_path / "m.tif"), soft)
