"""Images from TIFFs and phantoms, on the device as they are in the files."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile

from emjax.training import Images, read_images
from emjax.training.recipe import Data, Source

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 256, (4, 24, 30), np.uint8)
DEEP = RNG.integers(0, 65536, (20, 25), np.uint16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    tifffile.imwrite(tmp_path / "set" / "stack.tif", STACK, photometric="minisblack")
    tifffile.imwrite(tmp_path / "deep.tif", DEEP)
    return tmp_path


def table(*train: Source, crop: int = 8) -> Data:
    return Data(train, (Source(phantom={"size": 16, "count": 2}),), crop, 2)


def unpacked(images: Images) -> list[np.ndarray]:
    ends = np.cumsum(np.asarray(images.height) * np.asarray(images.width))
    assert np.asarray(images.offset).tolist() == [0, *ends[:-1]]
    shapes = zip(np.asarray(images.height), np.asarray(images.width))
    return [p.reshape(s) for p, s in zip(np.split(np.asarray(images.pixels), ends[:-1]), shapes)]


def test_files_are_read_as_they_are(folder: Path) -> None:
    data = table(Source("set/*.tif", slices="1:4:2"), Source("set/stack.tif", "0:1", ":10", "2:", weight=3.0))
    train, validation = read_images(data, folder)
    first, second, third = unpacked(train)
    np.testing.assert_array_equal(first, STACK[1])
    np.testing.assert_array_equal(second, STACK[3])
    np.testing.assert_array_equal(third, STACK[0, :10, 2:])
    assert train.pixels.dtype == np.uint8 and train.white == 255
    shares = np.array([24 * 30, 24 * 30, 3 * 10 * 28])
    np.testing.assert_allclose(train.cumulative, np.cumsum(shares) / shares.sum(), rtol=1e-6)
    assert len(unpacked(validation)) == 2


def test_one_deep_file_makes_all_of_them_deep(folder: Path) -> None:
    train, _ = read_images(table(Source("deep.tif"), Source("set/stack.tif", "0:1")), folder)
    deep, shallow = unpacked(train)
    np.testing.assert_array_equal(deep, DEEP)
    np.testing.assert_allclose(shallow / 65535, STACK[0] / 255, atol=1e-7)


def test_the_cache_stands_for_the_files(folder: Path) -> None:
    data, cache = table(Source("set/stack.tif"), Source("deep.tif")), folder / "cache.npz"
    first = read_images(data, folder, cache)
    for part, again in zip(first, read_images(data, None, cache)):  # no folder: nothing else is read
        for a, b in zip(unpacked(part), unpacked(again), strict=True):
            np.testing.assert_array_equal(a, b)
    heavier = dataclasses.replace(data, train=(dataclasses.replace(data.train[0], weight=5.0), data.train[1]))
    assert read_images(heavier, None, cache)[0].cumulative[0] > first[0].cumulative[0]
    with pytest.raises(ValueError, match="made for other"):
        read_images(table(Source("deep.tif")), folder, cache)
    cache.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="no cache of training images"):
        read_images(data, folder, cache)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        (Source("none*.tif"), r"data.train\[0\]: files = 'none\*.tif': no such file in"),
        (Source("deep.tif", slices="a:b"), "slices = 'a:b'; expected"),
        (Source("deep.tif", slices="4:"), "leave nothing"),
        (Source("deep.tif", rows=":5"), r"\(deep.tif\) has an image of 5 x 25 pixels, smaller than the crop of 8"),
        (Source(phantom={"size": 16, "sort": 1}), r"data.train\[0\]: .*sort"),
    ],
)
def test_what_is_wrong_with_a_set_is_said(folder: Path, source: Source, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_images(table(source), folder)


def test_files_need_a_folder_and_images_a_common_type() -> None:
    with pytest.raises(ValueError, match="--data"):
        read_images(table(Source("a.tif")), None)
    with pytest.raises(ValueError, match="all uint8, all uint16 or all float16"):
        Images.pack([DEEP, STACK[0]])
    with pytest.raises(ValueError, match="got none"):
        Images.pack([])
