"""Images from TIFFs and phantoms, on the device as they are in the files."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tifffile

from emjax.training import Images, read_images
from emjax.training.data import scanned
from emjax.training.recipe import Data, Scanned, Source

RNG = np.random.default_rng(0)
STACK = RNG.integers(0, 256, (4, 24, 30), np.uint8)
DEEP = RNG.integers(0, 65536, (20, 25), np.uint16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    tifffile.imwrite(tmp_path / "set" / "stack.tif", STACK, photometric="minisblack")
    tifffile.imwrite(tmp_path / "deep.tif", DEEP)
    tifffile.imwrite(tmp_path / "sparse.tif", np.tile(np.float32([[0.1, 0.5], [np.nan, 0.9]]), (10, 10)))
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
        (Source(""), r"data.train\[0\]: files = '' is no name or glob relative to the data folder"),
        (Source("/none/*.tif"), "files = '/none/\\*.tif' is no name or glob"),
        (Source("deep.tif", slices="a:b"), "slices = 'a:b'; expected"),
        (Source("deep.tif", slices="4:"), "leave nothing"),
        (Source("deep.tif", rows=":5"), r"\(deep.tif\) has an image of 5 x 25 pixels, smaller than the crop of 8"),
        (Source("sparse.tif"), r"sparse.tif: 25.0% of the pixels are NaN, which is not measured"),
        (Source(phantom={"count": 0}), r"data.train\[0\]: phantom.count is a whole number above 0, got 0"),
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


def test_sets_become_scans_of_random_pixels_and_the_truth_stays_behind(folder: Path) -> None:
    large = RNG.integers(0, 65536, (2, 200, 300), np.uint16)
    tifffile.imwrite(folder / "large.tif", large, photometric="minisblack")
    scan = Scanned(0.3, 0.1, seed=4)
    data = table(Source("large.tif", scan=scan), Source("set/stack.tif", scan=Scanned(1.0)))
    train, validation = read_images(data, folder)
    assert train.pixels.dtype == np.float16 and train.white == 1 and validation.pixels.dtype == np.uint8
    first, second, *rest = unpacked(train)
    for number, got in enumerate((first, second)):
        image = large[number]
        seen = np.isfinite(got)
        assert abs(seen.mean() - 0.3) < 0.01
        noise = got[seen] - image[seen] / 65535
        assert abs(noise.mean()) < 0.005 and abs(noise.std() - 0.1) < 0.005
        assert np.nanmin(got) < 0 and np.nanmax(got) > 1  # nothing is clipped
        np.testing.assert_array_equal(got, scanned(np.where(seen, image, 7), scan, number))
    assert np.any(np.isfinite(first) != np.isfinite(second))
    np.testing.assert_allclose(np.stack(rest), STACK / 255, atol=1e-3)
    again, _ = read_images(data, folder)
    np.testing.assert_array_equal(again.pixels, train.pixels)
    other = dataclasses.replace(data.train[0], scan=Scanned(0.3, 0.1, seed=5))
    assert np.any(np.isfinite(unpacked(read_images(table(other), folder)[0])[0]) != np.isfinite(first))


def test_one_cache_serves_images_and_scans(folder: Path) -> None:
    whole, cache = table(Source("set/stack.tif")), folder / "cache.npz"
    read_images(whole, folder, cache)
    blind = table(Source("set/stack.tif", scan=Scanned(0.5, 0.1)))
    from_cache, from_files = (read_images(blind, *where)[0] for where in ((None, cache), (folder,)))
    np.testing.assert_array_equal(from_cache.pixels, from_files.pixels)
    second = folder / "second.npz"
    read_images(blind, folder, second)
    np.testing.assert_array_equal(read_images(whole, None, second)[0].pixels, STACK.ravel())
