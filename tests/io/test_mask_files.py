"""Mask files: integers and bool are binary, non-zero where measured; floats are weights in [0, 1]."""

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
        (0, -1, "int16"),
        (0, 1, "float64"),
    ],
)
def test_two_values_with_zero_are_a_mask(tmp_path: Path, low: int, high: int, dtype: str) -> None:
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


@pytest.mark.parametrize("values", [[0, 1, 2], [0, 128, 255], [0, 100, 65535], [-1, 1, 0], [1, 2, 2]])
def test_integers_are_binary(tmp_path: Path, values: list[int]) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.array([values], np.int32))
    assert np.array_equal(read_mask(tmp_path / "m.tif"), [[float(v != 0) for v in values]])


def test_one_value(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.full((3, 4), 7, np.uint8))
    assert np.array_equal(read_mask(tmp_path / "m.tif"), np.ones((3, 4)))
    tifffile.imwrite(tmp_path / "m.tif", np.zeros((3, 4), np.uint8))
    with pytest.raises(ImageError, match=r"m\.tif is 0 everywhere"):
        read_mask(tmp_path / "m.tif")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([0, 0.5, 2], r"from 0 to 2; floats are weights in \[0, 1\]: divide by the largest, or save"),
        ([0, 255, 0], "from 0 to 255; floats are weights"),
        ([-0.5, 0, 1], "from -0.5 to 1; floats are weights"),
        ([np.inf, 0, 1], "from 0 to inf"),
        ([1, np.nan, 0], "NaN values; mark pixels that were not measured with 0"),
    ],
)
def test_floats_that_are_no_weights(tmp_path: Path, values: list[float], words: str) -> None:
    tifffile.imwrite(tmp_path / "m.tif", np.array([values], np.float32))
    with pytest.raises(ImageError, match=words):
        read_mask(tmp_path / "m.tif")


def test_masks_we_write_come_back(tmp_path: Path) -> None:
    write(tmp_path / "m.tif", PATTERN)
    assert np.array_equal(read_mask(tmp_path / "m.tif"), PATTERN)
    soft = np.random.default_rng(0).random((4, 5)).astype(np.float32)
    write(tmp_path / "m.tif", soft)
    assert np.array_equal(read_mask(tmp_path / "m.tif"), soft)
