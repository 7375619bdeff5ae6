"""Reading and writing: every type, compression, byte order and layout; scale; colour; error texts."""

import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile

from emjax.io import ImageError, Metadata, Scan, read, read_mask, write

INTEGERS = ["uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64"]
FLOATS = ["float16", "float32", "float64"]


def grey(dtype: str, shape: tuple[int, ...] = (37, 51), seed: int = 0) -> np.ndarray:
    """Return values over the whole range of a small type, over 20 bits of a wide one."""
    rng = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return (rng.random(shape) * 900 - 300).astype(kind)
    info = np.iinfo(kind)
    low, high = (int(info.min), int(info.max)) if kind.itemsize <= 2 else (max(int(info.min), -99), 2**20)
    return rng.integers(low, high, shape, dtype=kind, endpoint=True)


LAYOUTS = [
    {},
    {"compression": "lzw", "predictor": 2},
    {"compression": "zlib"},
    {"compression": "packbits"},
    {"compression": "zstd", "predictor": True},
    {"tile": (16, 32)},
    {"tile": (16, 32), "compression": "zlib"},
    {"rowsperstrip": 5},
    {"rowsperstrip": 5, "compression": "lzw"},
    {"bigtiff": True},
    {"bigtiff": True, "compression": "zlib"},
]


@pytest.mark.parametrize("dtype", INTEGERS + FLOATS)
def test_every_layout_reads_alike_and_comes_back(tmp_path: Path, dtype: str) -> None:
    values = grey(dtype)
    tolerance = 0 if np.dtype(dtype).kind in "ui" else 900 * 2.0**-22 + 300 * 2.0 ** -np.finfo(dtype).nmant
    for layout, order in itertools.product(LAYOUTS, "<>"):
        options = dict(layout)
        if options.get("predictor") == 2 and np.dtype(dtype).kind == "f":
            options["predictor"] = True
        if options.get("predictor") is True and np.dtype(dtype).kind != "f":
            options["predictor"] = 2
        tifffile.imwrite(tmp_path / "in.tif", values, byteorder=order, **options)
        scan = read(tmp_path / "in.tif")
        assert scan.dtype == values.dtype and scan.dtype.isnative
        assert scan.image.dtype == np.float32 and scan.image.flags.c_contiguous
        assert scan.mask is None
        assert scan.image.min() >= 0 and scan.image.max() <= 1
        assert np.allclose(scan.image * np.float64(scan.scale) + scan.offset, values, rtol=0, atol=scan.scale * 2**-23)
        assert np.abs(scan.original(scan.image).astype(float) - values).max() <= tolerance
    write(tmp_path / "out.tif", scan.image, like=scan)
    written = tifffile.imread(tmp_path / "out.tif")
    assert written.dtype == values.dtype
    assert np.abs(written.astype(float) - values).max() <= tolerance
    again = read(tmp_path / "out.tif")
    assert np.allclose(again.image, scan.image, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (3, 5, 6), (2, 1, 9), (2, 9, 1), (3, 1, 1)])
def test_odd_shapes_and_stacks(tmp_path: Path, shape: tuple[int, ...]) -> None:
    values = grey("uint16", shape)
    for compression in ("deflate", "none"):
        write(tmp_path / "a.tif", values, compression=compression)
        scan = read(tmp_path / "a.tif")
        assert np.array_equal(scan.original(scan.image), values)
        assert scan.image.shape == (shape if shape[0] > 1 or len(shape) == 2 else shape[1:])
    if shape[-1] > 1 or len(shape) == 2:  # tifffile itself takes a third axis of length 1 for samples
        for layout in ({}, {"compression": "zlib"}, {"imagej": True}):
            tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", **layout)
            assert read(tmp_path / "a.tif").image.shape == shape


def test_small_integers_are_scaled_by_the_range_of_their_type(tmp_path: Path) -> None:
    for dtype, scale, offset in [
        ("uint8", 255, 0),
        ("int8", 255, -128),
        ("uint16", 65535, 0),
        ("int16", 65535, -32768),
    ]:
        tifffile.imwrite(tmp_path / "a.tif", np.full((4, 5), 7, dtype))
        scan = read(tmp_path / "a.tif")
        assert (scan.scale, scan.offset) == (scale, offset)
        assert np.allclose(scan.image, (7 - offset) / scale)


def test_wide_integers_keep_their_grey_levels(tmp_path: Path) -> None:
    counts = np.arange(1000, dtype=np.int32).reshape(20, 50)
    tifffile.imwrite(tmp_path / "a.tif", counts)
    scan = read(tmp_path / "a.tif")
    assert (scan.scale, scan.offset) == (999, 0)
    assert len(np.unique(scan.image)) == 1000


def test_floats_in_the_unit_interval_are_kept(tmp_path: Path) -> None:
    values = np.linspace(0.2, 0.7, 30, dtype=np.float32).reshape(5, 6)
    tifffile.imwrite(tmp_path / "a.tif", values)
    scan = read(tmp_path / "a.tif")
    assert (scan.scale, scan.offset) == (1, 0)
    assert np.array_equal(scan.image, values)


@pytest.mark.parametrize("value", [0, 7, -3.5, 0.25, 1e30])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_constant_images_do_not_divide_by_zero(tmp_path: Path, value: float, dtype: str) -> None:
    tifffile.imwrite(tmp_path / "a.tif", np.full((4, 5), value, dtype))
    scan = read(tmp_path / "a.tif")
    assert np.isfinite(scan.image).all() and 0 <= scan.image.min() <= scan.image.max() <= 1
    assert np.allclose(scan.original(scan.image), np.full((4, 5), value, dtype))


def test_declared_bits_set_the_range(tmp_path: Path) -> None:
    values = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    tifffile.imwrite(tmp_path / "a.tif", values, bitspersample=12)
    scan = read(tmp_path / "a.tif")
    assert scan.scale == 4095 and scan.image.max() == 1
    assert np.array_equal(scan.original(scan.image), values)


def test_one_bit_images(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((9, 13)) > 0.5
    for photometric in ("minisblack", "miniswhite"):
        tifffile.imwrite(tmp_path / "a.tif", values, photometric=photometric)
        scan = read(tmp_path / "a.tif")
        assert np.array_equal(scan.image, values.astype(np.float32))
    write(tmp_path / "b.tif", scan.image * 0.5, like=scan)
    assert tifffile.imread(tmp_path / "b.tif").dtype == np.uint8


def test_white_is_zero_is_turned_round_except_for_imagej(tmp_path: Path) -> None:
    values = grey("uint8")
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite")
    assert np.array_equal(read(tmp_path / "a.tif").image, (255 - values).astype(np.float32) / np.float32(255))
    description = "ImageJ=1.53t\nimages=1\n"
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite", description=description, metadata=None)
    assert np.array_equal(read(tmp_path / "a.tif").image, values.astype(np.float32) / np.float32(255))


def test_nan_pixels_were_not_measured(tmp_path: Path) -> None:
    values = np.array([[1, np.nan, 3], [5, 2, np.nan]], np.float32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    scan = read(tmp_path / "a.tif")
    assert scan.mask is not None and scan.mask.dtype == np.float32
    assert np.array_equal(scan.mask, [[1, 0, 1], [1, 1, 0]])
    assert np.array_equal(scan.image, np.array([[0, 0, 0.5], [1, 0.25, 0]], np.float32))


def test_missing_value_has_no_influence_on_the_scale(tmp_path: Path) -> None:
    values = np.array([[-9999, 2, 3], [4, 6, -9999]], np.float64)
    tifffile.imwrite(tmp_path / "a.tif", values)
    scan = read(tmp_path / "a.tif", missing=-9999)
    assert (scan.scale, scan.offset) == (4, 2)
    assert scan.mask is not None and np.array_equal(scan.mask, [[0, 1, 1], [1, 1, 0]])
    assert scan.image[0, 0] == 0 and scan.image.max() == 1
    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 9], [8, 0]], np.uint8))
    scan = read(tmp_path / "a.tif", missing=0)
    assert scan.mask is not None and np.array_equal(scan.mask, [[0, 1], [1, 0]])
    with pytest.raises(ImageError, match=r"a\.tif: no pixel has the value 77"):
        read(tmp_path / "a.tif", missing=77)


def test_mask_given_when_reading(tmp_path: Path) -> None:
    values = np.array([[-1e30, 2, np.inf], [4, np.nan, 6]], np.float32)
    mask = np.array([[0, 255, 0], [255, 255, 255]], np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", values)
    tifffile.imwrite(tmp_path / "mask.tif", mask)
    for given in (mask, mask > 0, tmp_path / "mask.tif", str(tmp_path / "mask.tif")):
        scan = read(tmp_path / "a.tif", mask=given)
        assert scan.mask is not None and np.array_equal(scan.mask, [[0, 1, 0], [1, 0, 1]])
        assert np.array_equal(scan.image, np.array([[0, 0, 0], [0.5, 0, 1]], np.float32))


def test_grey_saved_as_colour(tmp_path: Path) -> None:
    values = grey("uint8")
    rgb = np.repeat(values[..., None], 3, axis=-1)
    opaque = np.concatenate([rgb, np.full_like(rgb[..., :1], 255)], axis=-1)
    for colour, layout in [
        (rgb, {}),
        (rgb, {"compression": "lzw"}),
        (opaque, {"extrasamples": ["unassalpha"]}),
    ]:
        tifffile.imwrite(tmp_path / "a.tif", colour, photometric="rgb", **layout)
        assert np.array_equal(read(tmp_path / "a.tif").original(read(tmp_path / "a.tif").image), values)
        planes = np.ascontiguousarray(np.moveaxis(colour, -1, 0))
        tifffile.imwrite(tmp_path / "a.tif", planes, photometric="rgb", planarconfig="separate", **layout)
        scan = read(tmp_path / "a.tif")
        assert np.array_equal(scan.original(scan.image), values)


def test_true_colour_is_an_error_or_averaged(tmp_path: Path) -> None:
    rgb = grey("uint8", (6, 7, 3))
    tifffile.imwrite(tmp_path / "a.tif", rgb, photometric="rgb")
    with pytest.raises(ImageError, match=r'3 channels that differ.*ImageJ.*--rgb mean.*rgb="mean".*3 slices'):
        read(tmp_path / "a.tif")
    scan = read(tmp_path / "a.tif", rgb="mean")
    assert np.array_equal(scan.original(scan.image), np.rint(rgb.mean(axis=-1)))
    with pytest.raises(ImageError, match="rgb="):
        read(tmp_path / "a.tif", rgb="luma")  # type: ignore[arg-type]


def test_varying_transparency_is_an_error(tmp_path: Path) -> None:
    rgba = np.repeat(grey("uint8", (6, 7, 1)), 4, axis=-1)
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="rgb", extrasamples=["unassalpha"])
    with pytest.raises(ImageError, match="transparency"):
        read(tmp_path / "a.tif")


def test_palettes(tmp_path: Path) -> None:
    values = grey("uint8")
    ramp = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 3, axis=0)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="palette", colormap=ramp)
    scan = read(tmp_path / "a.tif")
    assert np.array_equal(scan.original(scan.image), values)
    fire = ramp.copy()
    fire[2] = 0
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="palette", colormap=fire)
    with pytest.raises(ImageError, match="palette"):
        read(tmp_path / "a.tif")
    tifffile.imwrite(tmp_path / "a.tif", values, colormap=fire, imagej=True)
    scan = read(tmp_path / "a.tif")
    assert np.array_equal(scan.original(scan.image), values)


def test_full_resolution_is_read(tmp_path: Path) -> None:
    large, small = grey("uint8", (64, 48)), grey("uint8", (32, 24))
    with tifffile.TiffWriter(tmp_path / "pyramid.ome.tif") as writer:
        writer.write(large, subifds=1, tile=(16, 16))
        writer.write(small, subfiletype=1, tile=(16, 16))
    with tifffile.TiffWriter(tmp_path / "thumbnail.tif") as writer:
        writer.write(small, subfiletype=1, metadata=None)
        writer.write(large, metadata=None)
    for name in ("pyramid.ome.tif", "thumbnail.tif"):
        scan = read(tmp_path / name)
        assert np.array_equal(scan.original(scan.image), large), name


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("big", [False, True])
def test_images_that_are_no_stack_are_an_error(tmp_path: Path, order: str, big: bool) -> None:
    path, page = tmp_path / "a.tif", grey("uint8", (64, 48))

    def put(*pages: np.ndarray, metadata: dict[str, str] | None = None) -> None:
        with tifffile.TiffWriter(path, byteorder=order, bigtiff=big) as writer:
            for values in pages:
                writer.write(values, metadata=metadata, contiguous=False)

    put(page, page[:32])
    with pytest.raises(ImageError, match=r"2 images.*: 64 x 48, 8 bits; 32 x 48, 8 bits; .*key=0"):
        read(path)
    # tifffile compares only a few pages of a stack with the first: it returns ten of 64 x 48 here
    put(*[page] * 3, page[:32], *[page] * 6)
    with pytest.raises(ImageError, match=r"10 images.*: 64 x 48, 8 bits \(9 of them\); 32 x 48, 8 bits"):
        read(path)
    put(page, page.astype(np.uint16))
    with pytest.raises(ImageError, match="64 x 48, 8 bits; 64 x 48, 16 bits"):
        read(path)
    put(page, page.view(np.int8))
    with pytest.raises(ImageError, match="64 x 48 uint8; 64 x 48 int8"):
        read(path)
    put(page, page, metadata={})  # two series by their descriptions
    with pytest.raises(ImageError, match=r"64 x 48 uint8 \(2 of them\)"):
        read(path)
    put(*[page] * 10)
    assert read(path).image.shape == (10, 64, 48)


def test_an_only_image_marked_as_reduced_is_read(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", grey("uint8"), subfiletype=1)
    assert read(tmp_path / "a.tif").image.shape == (37, 51)


def test_axes_of_length_one_go_and_more_than_three_are_named(tmp_path: Path) -> None:
    values = grey("uint8", (3, 1, 4, 5))
    tifffile.imwrite(tmp_path / "a.tif", values, metadata={"axes": "TCYX"}, photometric="minisblack")
    assert read(tmp_path / "a.tif").image.shape == (3, 4, 5)
    values = grey("uint8", (3, 2, 4, 5))
    for options in (
        {"imagej": True, "metadata": {"axes": "TZYX"}},
        {"ome": True, "metadata": {"axes": "TZYX"}},
    ):
        tifffile.imwrite(tmp_path / "a.tif", values, photometric="minisblack", **options)
        with pytest.raises(ImageError, match=r"4 dimensions: T \(time\) = 3, Z \(slices\) = 2"):
            read(tmp_path / "a.tif")


def test_written_files_are_what_imagej_opens(tmp_path: Path) -> None:
    metadata = Metadata((20.0, 4.0, 5.0), 1e-6)
    write(tmp_path / "a.tif", np.random.default_rng(0).random((3, 64, 64)).astype(np.float32), like=metadata)
    with tifffile.TiffFile(tmp_path / "a.tif") as tif:
        page = tif.pages.first
        assert tif.is_imagej and tif.series[0].axes == "ZYX" and len(tif.pages) == 3
        assert page.compression == 8 and page.predictor == 1 and not page.is_tiled
        meta = tif.imagej_metadata
        assert meta is not None and meta["unit"] == "nm" and meta["spacing"] == 20 and meta["slices"] == 3
        assert "dwell_time_s = 1e-06" in meta["Info"]
    for dtype in (np.float64, np.float32):
        write(tmp_path / "a.tif", np.zeros((3, 8, 8)), dtype=dtype, compression="none")
        with tifffile.TiffFile(tmp_path / "a.tif") as tif:
            assert tif.series[0].dataoffset is not None  # contiguous, as ImageJ reads uncompressed stacks


def test_types_on_writing(tmp_path: Path) -> None:
    out = tmp_path / "out.tif"
    image = np.array([[-0.5, 0.0, 0.5, 1.0, 2.0]], np.float32)

    def written(*args: object, **options: object) -> np.ndarray:
        write(out, *args, **options)  # type: ignore[arg-type]
        return tifffile.imread(out)

    tifffile.imwrite(tmp_path / "a.tif", np.array([[0, 40000]], np.uint16))
    scan = read(tmp_path / "a.tif")
    assert written(image).dtype == np.float32 and np.array_equal(written(image), image)
    assert written(image, like=scan).tolist() == [[0, 0, 32768, 65535, 65535]]
    assert written(image, like=scan, dtype=np.uint8).tolist() == [[0, 0, 128, 255, 255]]
    assert np.allclose(written(image, like=scan, dtype=np.float32), image * 65535)
    assert written(image, dtype="int64").tolist()[0][-1] == 2**63 - 1024  # the largest float64 below 2^63
    assert written(image > 0.2).tolist() == [[0, 0, 255, 255, 255]]
    labels = np.array([[0, 70000]], np.int32)
    assert np.array_equal(written(labels, like=scan), labels)
    with pytest.raises(ImageError, match="uint16 cannot hold"):
        write(out, labels, dtype=np.uint16)
    with pytest.raises(ImageError, match=r"uint16 cannot hold the NaN"):
        write(out, np.array([[np.nan]]), like=scan)
    assert np.isnan(written(np.array([[np.nan]]))).all()
    assert np.isinf(written(np.array([[np.inf]]), dtype=np.float16)).all()  # what was infinite stays so
    for dtype, value, limit, wider in [
        (np.float16, 70000, "65504", "float32"),
        (np.float32, 1e39, "3.40282e", "float64"),
    ]:
        with pytest.raises(ImageError, match=rf"holds numbers from -{limit}.*; use {wider}"):
            write(out, np.array([[value, 0.0]]), dtype=dtype)
    with pytest.raises(ImageError, match="float16 cannot hold"):
        write(out, labels, dtype=np.float16)
    for bad in (np.zeros((2, 2), complex), np.zeros((2,)), np.zeros((2, 2, 2, 2)), np.zeros((0, 3))):
        with pytest.raises(ImageError, match="cannot write"):
            write(out, bad)
    with pytest.raises(ImageError, match="complex64"):
        write(out, image, dtype=np.complex64)


def bad_files(folder: Path) -> dict[str, tuple[Path, str]]:
    """Return path and expected words of files that are no images."""

    def put(name: str, data: bytes) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    def tiff(name: str, values: np.ndarray, **options: object) -> Path:
        tifffile.imwrite(folder / name, values, **options)  # type: ignore[arg-type]
        return folder / name

    return {
        "missing": (folder / "absent.tif", "no such file"),
        "folder": (folder, "folder"),
        "empty": (put("empty.tif", b""), "empty"),
        "text": (put("text.tif", b"hello, I am a text file\n" * 9), "no TIFF"),
        "short": (put("short.tif", b"II"), "no TIFF"),
        "header": (put("header.tif", b"II*\0"), "cut off"),
        "interrupted": (put("zero.tif", b"II*\0" + bytes(60)), "interrupted"),
        "circle": (put("circle.tif", b"II*\0\x08\0\0\0" + bytes(2) + b"\x08\0\0\0" + bytes(60)), "circle"),
        "png": (put("png.tif", b"\x89PNG\r\n\x1a\n" + bytes(60)), "a PNG image"),
        "nan": (tiff("nan.tif", np.full((3, 4), np.nan, np.float32)), "no measured pixel"),
        "inf": (
            tiff("inf.tif", np.array([[1, np.inf, -np.inf]], np.float32)),
            "2 infinite pixels; mark them as NaN",
        ),
        "complex": (tiff("complex.tif", np.zeros((3, 4), np.complex64)), "complex64"),
        "far": (tiff("far.tif", np.array([[-1.7e308, 1.7e308]])), "too far apart"),
        "blank": (tiff("blank.tif", np.zeros((0, 4), np.uint8)), "has no pixels"),
    }


@pytest.mark.filterwarnings("ignore:.*zero-size array")
def test_what_is_no_image_is_one_clear_line(tmp_path: Path) -> None:
    for name, (path, words) in bad_files(tmp_path).items():
        for reader in (read, read_mask) if name not in ("nan", "inf", "far") else (read,):
            with pytest.raises(ImageError, match=words) as caught:
                reader(path)
            assert "\n" not in str(caught.value), name
            assert str(caught.value).startswith(str(path)), name


def test_a_file_without_rights_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tifffile.imwrite(tmp_path / "a.tif", grey("uint8"))

    def refuse(*_args: object, **_options: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ImageError, match="cannot be read: permission denied; check the rights"):
        read(tmp_path / "a.tif")


def test_a_corrupt_stream_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, grey("uint8", (64, 64)), compression="zlib")
    data = bytearray(path.read_bytes())
    with tifffile.TiffFile(path) as tif:
        start = tif.pages.first.dataoffsets[0]
    data[start + 20 : start + 60] = bytes(40)
    path.write_bytes(bytes(data))
    with pytest.raises(ImageError, match="damaged"):
        read(path)


def test_memory_of_a_large_image() -> None:
    tracemalloc = pytest.importorskip("tracemalloc")
    values = np.zeros((2048, 2048), np.uint16)
    tracemalloc.start()
    scan = Scan.from_array(values)
    encoding = tracemalloc.get_traced_memory()[1]
    tracemalloc.reset_peak()
    back = scan.original(scan.image)
    decoding = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # the result, plus blocks of a million float64 pixels: no full-size temporaries
    assert encoding < scan.image.nbytes + 20e6
    assert decoding < scan.image.nbytes + back.nbytes + 30e6


def test_real_images_come_back_exactly(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parents[2]
    folder = Path(os.environ.get("EMJAX_DATA", root.parent / "shared" / "data"))
    files = sorted(folder.rglob("*.tif")) if folder.is_dir() else []
    if not files:
        pytest.skip("no real images: set EMJAX_DATA to a folder of TIFF files")
    for path in files[:: max(1, len(files) // 8)]:
        values = tifffile.imread(path)
        scan = read(path)
        write(tmp_path / "a.tif", scan.image, like=scan)
        assert np.array_equal(tifffile.imread(tmp_path / "a.tif"), values), path
