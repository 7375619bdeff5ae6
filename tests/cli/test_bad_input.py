"""Whatever is wrong, the command says so in one line, exits with a code, and leaves no half-written file."""

import errno
import inspect
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

import emjax as package
from emjax import io
from emjax.cli.commands import recover
from emjax.operators import PixelSampling

METHODS = ("linear", "spectral", "pnp", "tgv", "tv", "wavelet")
SHAPES = ((64, 64), (1, 50), (50, 1), (1, 1), (3, 64, 64))


def one_line(result: Any, code: int, *words: str) -> None:
    assert result.code == code, result.err
    assert result.out == ""
    assert result.err.count("\n") == 1 and result.err.startswith("emjax: "), result.err
    assert len(result.err) < 400
    for word in words:
        assert word in result.err


def files(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def bad_files(folder: Path) -> dict[str, str]:
    """Files that are no image to recover: the name, and a word of what the message must say."""
    image = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    tifffile.imwrite(folder / "whole.tif", image)
    data = (folder / "whole.tif").read_bytes()
    (folder / "truncated.tif").write_bytes(data[: len(data) // 2])
    (folder / "text.tif").write_text("time;current\n0;1\n")
    (folder / "empty.tif").write_bytes(b"")
    infinite = image.astype(np.float32)
    infinite[3, 4] = np.inf
    tifffile.imwrite(folder / "infinite.tif", infinite)
    tifffile.imwrite(folder / "nothing.tif", np.full((64, 64), np.nan, np.float32))
    tifffile.imwrite(folder / "colour.tif", np.stack([image, image // 2, image], -1), photometric="rgb")
    tifffile.imwrite(folder / "complex.tif", (image + 1j).astype(np.complex64))
    tifffile.imwrite(folder / "huge.tif", np.where(image > 99, 1.7e308, -1.7e308))
    return {
        "truncated.tif": "cut off",
        "text.tif": "no TIFF",
        "empty.tif": "empty",
        "infinite.tif": "infinite",
        "nothing.tif": "no measured pixel",
        "colour.tif": "--rgb mean",
        "complex.tif": "complex",
        "huge.tif": "too far apart",
        "no such.tif": "no such file",
        "": "folder",
    }


def test_files_that_are_no_scan(emjax: Any, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for name, word in bad_files(source).items():
        one_line(emjax("recover", source / name, "-o", "out.tif"), 1, word)
        one_line(emjax("recover", source / name, "--json", "-o", "out.tif"), 1, word)
        one_line(emjax("info", source / name), 1, word)
        one_line(emjax("sample", source / name, "-o", "out.tif"), 1, word)
        with pytest.raises(io.ImageError, match=word):
            io.read(source / name)
    assert files(tmp_path) == ["in"]


def test_masks_that_do_not_fit(emjax: Any, scan: Path, tmp_path: Path) -> None:
    shapes = {"shape": np.ones((64, 63), np.uint8), "empty": np.zeros((64, 64), np.uint8), "grey": np.arange(4096.0)}
    shapes["grey"] = shapes["grey"].reshape(64, 64).astype(np.float32)
    before = files(tmp_path)
    for name, values in shapes.items():
        tifffile.imwrite(tmp_path / "mask.tif", values)
        word = {"shape": "(64, 63)", "empty": "0 everywhere", "grey": "weights in [0, 1]"}[name]
        one_line(emjax("recover", scan, "--mask", "mask.tif"), 1, word)
    assert files(tmp_path) == sorted([*before, "mask.tif"])
    one_line(emjax("recover", scan, "--mask", "no mask.tif"), 1, "no mask.tif")


def test_missing_values_that_no_pixel_has(emjax: Any, scan: Path) -> None:
    for value in ("999", "nan", "inf"):
        one_line(
            emjax("recover", scan, "--missing", value), 1, f"no pixel has the value {value}", "NaN pixels are found"
        )
    assert files(scan.parent) == ["scan.tif"]


def test_types_that_are_too_small(emjax: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(package.cli.recover, "recover_scan", None)  # said before the work
    values = np.linspace(1, 70000, 4096, dtype=np.float32).reshape(64, 64)
    for factor, word in ((1, "-65504 to 65504, but the image has 70000; use float32"), (1e-30, "cannot tell")):
        io.write(tmp_path / "scan.tif", values * np.float32(factor))
        one_line(emjax("recover", "scan.tif", "--dtype", "float16"), 1, "float16", word, "use float32")
    assert files(tmp_path) == ["scan.tif"]


def test_pages_of_unlike_size(emjax: Any, tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "pages.tif") as writer:
        for rows in (64, 32):
            writer.write(np.zeros((rows, 64), np.uint8), metadata=None)
    one_line(emjax("recover", "pages.tif"), 1, "64 x 64", "32 x 64", "key=0")


def test_a_slice_without_measurement_is_named(emjax: Any, tmp_path: Path) -> None:
    stack = np.ones((3, 64, 64), np.float32)
    stack[1] = np.nan
    io.write(tmp_path / "stack.tif", stack)
    one_line(emjax("recover", "stack.tif"), 1, "slice 1")
    assert files(tmp_path) == ["stack.tif"]


# Each pair is a program of its own to compile.
@pytest.mark.parametrize(
    "method, shape",
    [
        *[("linear", shape) for shape in SHAPES],
        *[("spectral", shape) for shape in ((64, 64), (1, 50), (1, 1))],
        *[pytest.param("spectral", shape, marks=pytest.mark.slow) for shape in ((50, 1), (3, 64, 64))],
        *[pytest.param(method, shape, marks=pytest.mark.slow) for method in ("tv", "wavelet") for shape in SHAPES],
    ],
)
def test_constant_and_tiny_images_come_back(emjax: Any, tmp_path: Path, method: str, shape: tuple[int, ...]) -> None:
    values = np.full(shape, 77, np.uint8)
    values[..., ::3, ::2] = 78  # nearly constant; in the 1 x 1 image: constant
    io.write(tmp_path / "flat.tif", values)
    result = emjax("recover", "flat.tif", "--method", method, "--json")
    assert result.code == 0, result.err
    assert result.report["shape"] == list(shape)
    recovered = tifffile.imread(tmp_path / "flat_recovered.tif").reshape(shape)
    assert recovered.dtype == np.uint8
    assert np.all(np.abs(recovered.astype(int) - 77) <= 1)


@pytest.mark.parametrize("method", [*METHODS[:2], *[pytest.param(m, marks=pytest.mark.slow) for m in METHODS[2:]]])
def test_one_measured_pixel_is_enough(emjax: Any, tmp_path: Path, method: str) -> None:
    values = np.full((64, 64), np.nan, np.float32)
    values[20, 30] = 0.25
    io.write(tmp_path / "one.tif", values)
    assert emjax("recover", "one.tif", "--method", method).code == 0
    np.testing.assert_allclose(tifffile.imread(tmp_path / "one_recovered.tif"), 0.25, atol=1e-3)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--method", "magic"], ["magic", *METHODS]),
        (["--weight", "much"], ["--weight", "much"]),
        (["--weight", "-1"], ["--weight"]),
        (["--weight", "0"], ["--weight"]),
        (["--weight", "nan"], ["--weight"]),
        (["--weight", "1e99"], ["--weight"]),
        (["--method", "linear", "--weight", "1"], ["linear", "no weight"]),
        (["--noise", "much"], ["--noise", "grey values of the file", "'much'"]),
        (["--noise", "-1"], ["--noise", "'-1'"]),
        (["--noise", "nan"], ["--noise", "'nan'"]),
        (["--noise", "inf"], ["--noise", "'inf'"]),
        (["--method", "linear", "--noise", "3"], ["linear", "no use of the noise"]),
        (["--method", "ista-net-plus", "--noise", "3"], ["ista-net-plus is no scan network", "leave --noise out"]),
        (["--weight", "1", "--noise", "3"], ["--weight that is given", "leave --noise out"]),
        (["--tile", "10"], ["--tile", "64", "got '10'"]),
        (["--tile", "64", "--halo", "32"], ["--tile 64", "--halo 32"]),
        (["--dtype", "complex64"], ["--dtype", "uint16"]),
        (["--missing", "black"], ["--missing", "number", "got 'black'"]),
        (["--rgb", "luma"], ["--rgb", "luma", "mean"]),
        (["-o", ""], ["-o: the name is empty", "out.tif"]),
        (["-o", "."], ["-o: the name is empty or that of a folder (.)"]),
        (["-o", "../"], ["folder (..)", "../out.tif"]),
        (["-o", "out.png"], [".tif"]),
        (["-o", "scan.tif"], ["replace"]),
        (["--what"], ["--what"]),
    ],
)
def test_wrong_usage(emjax: Any, scan: Path, arguments: list[str], words: list[str]) -> None:
    before = scan.read_bytes()
    one_line(emjax("recover", scan, *arguments), 2, *words, "emjax recover --help")
    assert scan.read_bytes() == before and files(scan.parent) == ["scan.tif"]


@pytest.mark.parametrize(
    "arguments, word",
    [
        (["--ratio", "0"], "--ratio"),
        (["--ratio", "1.5"], "--ratio"),
        (["--ratio", "nan"], "--ratio"),
        (["--dose", "-3"], "--dose"),
        (["--dose", "inf"], "--dose"),
        (["--read-noise", "-1"], "--read-noise"),
        (["--seed", "-1"], "--seed"),
        (["--pattern", "zigzag"], "line-hop"),
        (["--mask", "out.tif"], "--mask out.tif: this would replace out.tif; give --mask another name"),
        (["--mask", "."], "--mask: the name is empty or that of a folder"),
        (["--mask", "mask.png"], "--mask mask.png"),
    ],
)
def test_wrong_usage_of_sample(emjax: Any, scan: Path, arguments: list[str], word: str) -> None:
    one_line(emjax("sample", scan, "-o", "out.tif", *arguments), 2, word)
    assert files(scan.parent) == ["scan.tif"]


def test_unwritable_outputs(emjax: Any, scan: Path) -> None:
    for output, word in (("no/such/out.tif", "missing"), ("scan.tif/out.tif", "missing"), (f"{'x' * 300}.tif", "long")):
        one_line(emjax("recover", scan, "-o", output), 1, "cannot be written", word)
        one_line(emjax("sample", scan, "-o", output), 1, "cannot be written")
    one_line(emjax("demo", "-o", "no/such/demo.png"), 1, "cannot be written")
    one_line(emjax("demo", "-o", "demo.jpg"), 2, ".png")
    assert files(scan.parent) == ["scan.tif"]


def test_full_disk(emjax: Any, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (scan.parent / "out.tif").write_bytes(b"older")

    def full(self: Any, *args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tifffile.TiffWriter, "write", full)
    one_line(emjax("recover", scan, "--method", "linear", "-o", "out.tif"), 1, "disk is full")
    one_line(emjax("sample", scan, "-o", "out.tif"), 1, "disk is full")
    assert (scan.parent / "out.tif").read_bytes() == b"older"
    assert files(scan.parent) == ["out.tif", "scan.tif"]


def test_a_fault_of_ours_is_one_line_too(emjax: Any, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fault(*args: Any, **kwargs: Any) -> None:
        raise KeyError("gone")

    monkeypatch.setattr(io, "read", fault)
    one_line(emjax("recover", scan), 1, "KeyError", "report")
    monkeypatch.setattr(io, "read", lambda *args, **kwargs: (_ for _ in ()).throw(MemoryError()))
    one_line(emjax("recover", scan), 1, "memory")


def test_odd_names(emjax: Any, scan: Path, tmp_path: Path) -> None:
    for name in ("spaces and ünïcode 像.TIFF", "-dash.tif", "two.dots.tif", "new\nline.tif"):
        odd = tmp_path / name
        odd.write_bytes(scan.read_bytes())
        result = emjax("recover", odd, "--missing", "0", "--method", "linear", "--json")
        assert result.code == 0, result.err
        assert Path(result.report["output"]) == odd.with_name(f"{odd.stem}_recovered.tif")
        assert tifffile.imread(result.report["output"]).shape == (64, 64)
    one_line(emjax("recover", "new\nlines\nnot there.tif"), 1)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "tgv"])
def test_bad_values_through_python(method: str, mask: np.ndarray, truth: np.ndarray) -> None:
    recon = package.load(method, **({} if method == "linear" else {"weight": 0.1}))
    spoilt = np.where(mask, truth, np.nan)
    np.testing.assert_array_equal(recon(spoilt, PixelSampling(mask)), recon(truth * mask, PixelSampling(mask)))
    with pytest.raises(ValueError, match="64, 63"):
        recon(truth[:, :63], PixelSampling(mask))
    with pytest.raises(ValueError, match="magic"):
        package.load("magic")


def test_a_reader_that_goes_away(emjax: Any, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(report: Any, as_json: bool) -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(inspect.getmodule(recover), "show", gone)
    result = emjax("info", scan)
    assert (result.code, result.out, result.err) == (1, "", "")
