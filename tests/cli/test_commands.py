"""What the commands make of good input."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import tifffile

import emjax as package
from emjax import acquisition, io, reconstructors, tiling
from emjax.cli import demo, recover
from emjax.cli.commands import METHODS, Pattern
from emjax.operators import PixelSampling

KINDS = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float16", "float32", "float64")


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


def test_the_choices_are_those_there_are() -> None:
    assert set(METHODS) == set(reconstructors.METHODS)
    assert {p.value for p in Pattern} == set(acquisition.PATTERNS)
    assert set(recover.PRECISE) <= set(reconstructors.METHODS)


@pytest.mark.parametrize(
    "method", [pytest.param(m, marks=pytest.mark.slow) if m == "tgv" else m for m in reconstructors.METHODS]
)
def test_recover_keeps_type_shape_and_metadata(emjax: Any, scan: Path, truth: np.ndarray, method: str) -> None:
    result = emjax("recover", scan, "--missing", "0", "--method", method)
    assert result.code == 0, result.err
    assert "output: " in result.out and "pixel size: 4 x 5 nm\ndwell time: 2e-06 s\n" in result.out
    assert "shape: 64 x 64 pixels" in result.out and "of the pixels\n" in result.out and "soft" not in result.out
    recovered = io.read(scan.with_name("scan_recovered.tif"))
    assert recovered.dtype == np.uint8 and recovered.mask is None
    assert recovered.metadata.pixel_size_nm == (4.0, 5.0)
    assert recovered.metadata.dwell_time_s == 2e-6
    assert rms(recovered.image, truth) < 0.04


def test_json_is_one_object(emjax: Any, scan: Path) -> None:
    report = emjax("recover", scan, "--missing", "0", "--weight", "0.5", "--json", "-o", "out.tif").report
    assert report["weights"] == [{"weight": 0.5, "exponent": 3.0}]
    assert report["dtype"] == "uint8" and report["shape"] == [64, 64] and report["output"] == "out.tif"
    assert report["pixel_size_nm"] == [4.0, 5.0] and 0.3 < report["measured"] < 0.5
    assert emjax("info", scan, "--json").report["grey_values"] == [0, 229]
    assert emjax("info", "--json").report["methods"] == [*reconstructors.METHODS, *package.zoo.names()]


def test_mask_from_a_file_equals_missing_value_and_nan(
    emjax: Any, scan: Path, mask: np.ndarray, tmp_path: Path
) -> None:
    tifffile.imwrite(tmp_path / "mask.tif", mask.astype(np.uint8) * 255)
    emjax("recover", scan, "--missing", "0", "-o", "a.tif", "--method", "linear")
    emjax("recover", scan, "--mask", "mask.tif", "-o", "b.tif", "--method", "linear")
    values = np.where(mask, tifffile.imread(scan) / np.float32(255), np.nan).astype(np.float32)
    tifffile.imwrite(tmp_path / "nan.tif", values)
    emjax("recover", "nan.tif", "-o", "c.tif", "--method", "linear")
    a, b, c = (tifffile.imread(tmp_path / f"{n}.tif") for n in "abc")
    np.testing.assert_array_equal(a, b)
    np.testing.assert_allclose(a, 255 * c, atol=0.51)


def test_masks_of_integers_are_binary_and_of_floats_soft(
    emjax: Any, scan: Path, mask: np.ndarray, tmp_path: Path
) -> None:
    soft = np.where(mask, np.where(np.arange(64) < 32, 0.5, 1), 0).astype(np.float32)
    tifffile.imwrite(tmp_path / "labels.tif", np.where(mask, 1 + np.arange(64) % 255, 0).astype(np.uint8))
    tifffile.imwrite(tmp_path / "soft.tif", soft)
    binary = emjax("recover", scan, "--mask", "labels.tif", "--method", "linear", "--json").report
    assert binary["measured"] == round(mask.mean(), 6) and binary["soft_weights"] is None
    report = emjax("recover", scan, "--mask", "soft.tif", "--method", "linear", "--json").report
    assert report["measured"] == binary["measured"] and report["soft_weights"] == np.mean(soft == 0.5)
    assert "\nweights:" not in emjax("recover", scan, "--mask", "soft.tif", "--method", "linear").out
    assert "soft weights: 0.2" in emjax("recover", scan, "--mask", "soft.tif", "--method", "linear").out


@pytest.mark.parametrize("factor", [1e-12, 1e-30])
@pytest.mark.parametrize("method", ["linear", "spectral"])
def test_units_of_the_grey_values_do_not_matter(
    emjax: Any, truth: np.ndarray, mask: np.ndarray, tmp_path: Path, method: str, factor: float
) -> None:
    values = np.where(mask, truth, np.nan).astype(np.float32)
    for name, scale in (("one", 1), ("tiny", factor)):
        io.write(tmp_path / f"{name}.tif", values * np.float32(scale))
        assert emjax("recover", f"{name}.tif", "--method", method).code == 0
    one, tiny = (tifffile.imread(tmp_path / f"{n}_recovered.tif").astype(np.float64) for n in ("one", "tiny"))
    np.testing.assert_allclose(tiny / factor, one, atol=1e-5)


def test_a_dose_without_end_gives_the_image(emjax: Any, truth: np.ndarray, tmp_path: Path) -> None:
    io.write(tmp_path / "truth.tif", truth)
    for dose, atol in (("1e9", 2e-4), ("1e12", 1e-5)):
        assert emjax("sample", "truth.tif", "-o", "scan.tif", "--ratio", "1", "--dose", dose).code == 0
        np.testing.assert_allclose(tifffile.imread(tmp_path / "scan.tif"), truth, atol=atol)
    full, noise = PixelSampling(np.ones(truth.shape)), acquisition.Noise.from_dose(1e6)
    y = acquisition.measure(jax.random.key(0), np.full_like(truth, 0.5), full, noise)
    assert np.var(y) == pytest.approx(0.5e-6, rel=0.1) and np.mean(y) == pytest.approx(0.5, abs=1e-4)


def test_noise_is_told_in_grey_values_of_the_file(emjax: Any, scan: Path, truth: np.ndarray, mask: np.ndarray) -> None:
    y = np.where(mask, truth + 0.04 * np.random.default_rng(1).standard_normal(truth.shape), np.nan)
    values = (1000 + 5000 * y).astype(np.float32)
    tifffile.imwrite("noisy.tif", values)
    read = io.read(Path("noisy.tif"))
    sigma, A = 200 / read.scale, PixelSampling(read.mask)
    results = {}
    for noise in ("auto", "200", "0"):
        result = emjax("recover", "noisy.tif", "--method", "scan-compact", "--noise", noise, "-o", "x.tif", "--json")
        assert result.code == 0, result.err
        results[noise] = (result.report, (tifffile.imread("x.tif") - read.offset) / read.scale)
    assert abs(results["auto"][0]["noise"][0] / 200 - 1) < 0.4
    assert results["200"][0]["noise"] == pytest.approx([200]) and results["0"][0]["noise"] == [0]
    told = package.load("scan-compact", read_sigma=np.float32(sigma))(read.image, A)
    np.testing.assert_allclose(results["200"][1], told, atol=1e-4)
    assert rms(results["0"][1], np.asarray(told)) > 0.01
    # A weight that is found knows the noise, too.
    arguments = ("recover", "noisy.tif", "--method", "tv", "--noise")
    quiet, loud = (emjax(*arguments, noise, "--json").report for noise in ("20", "2000"))
    assert (quiet["noise"], loud["noise"]) == ([20], [2000])
    assert quiet["weights"][0]["weight"] < loud["weights"][0]["weight"]
    one = emjax("recover", scan, "--missing", "0", "--method", "scan-compact", "--noise", "1e300")
    assert one.code == 1 and "beyond all measure" in one.err


def test_colour_channels_are_averaged_when_asked(emjax: Any, scan: Path, tmp_path: Path) -> None:
    grey = tifffile.imread(scan)
    tifffile.imwrite(tmp_path / "rgb.tif", np.stack([grey, grey, grey // 4], -1), photometric="rgb")
    mean = np.rint((2.0 * grey + grey // 4) / 3)
    assert emjax("info", "rgb.tif", "--rgb", "mean", "--json").report["grey_values"] == [0, mean.max()]
    assert emjax("recover", "rgb.tif", "--rgb", "mean", "--missing", "0", "--method", "linear").code == 0
    assert tifffile.imread(tmp_path / "rgb_recovered.tif").max() == mean.max()
    assert emjax("sample", "rgb.tif", "--rgb", "mean", "--ratio", "1", "-o", "out.tif").code == 0
    np.testing.assert_allclose(tifffile.imread(tmp_path / "out.tif"), mean, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_in_and_out(emjax: Any, truth: np.ndarray, mask: np.ndarray, tmp_path: Path, kind: str) -> None:
    dtype = np.dtype(kind)
    low, high = (-3.0, 5.0) if dtype.kind == "f" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    values = (low + truth.astype(np.float64) * (high - low)).astype(dtype)
    tifffile.imwrite(tmp_path / "full.tif", values)
    io.write(tmp_path / "mask.tif", mask)
    arguments = ("recover", "full.tif", "--mask", "mask.tif", "--weight", "0.1")
    assert emjax(*arguments, "-o", "same.tif").code == 0
    same = tifffile.imread(tmp_path / "same.tif")
    assert same.dtype == dtype
    assert rms((same.astype(np.float64) - low) / (high - low), truth) < 0.05
    assert emjax(*arguments, "-o", "other.tif", "--dtype", "float32").code == 0
    other = tifffile.imread(tmp_path / "other.tif")
    assert other.dtype == np.float32
    assert rms((other.astype(np.float64) - low) / (high - low), truth) < 0.05


@pytest.mark.parametrize("pattern", list(acquisition.PATTERNS))
def test_sample_and_recover(emjax: Any, truth: np.ndarray, tmp_path: Path, pattern: str) -> None:
    metadata = io.Metadata(pixel_size_nm=(4.0, 4.0), dwell_time_s=1e-6)
    io.write(tmp_path / "truth.tif", truth, like=metadata, dtype=np.uint16)
    made = ["-o", "scan.tif", "--ratio", "0.4", "--dose", "2000", "--pattern", pattern, "--mask", "mask.tif"]
    report = emjax("sample", "truth.tif", *made, "--json").report
    assert abs(report["measured"] - 0.4) < 0.05
    scanned = io.read(tmp_path / "scan.tif")
    assert scanned.metadata.pixel_size_nm == (4.0, 4.0) and scanned.metadata.dwell_time_s == 1e-6
    np.testing.assert_array_equal(scanned.mask, io.read_mask(tmp_path / "mask.tif"))
    assert emjax("recover", "scan.tif", "-o", "out.tif").code == 0
    recovered = io.read(tmp_path / "out.tif")
    assert recovered.metadata.pixel_size_nm == (4.0, 4.0) and recovered.metadata.dwell_time_s == 1e-6
    full = recovered.image * recovered.scale + recovered.offset
    assert rms(full / 65535, truth) < 0.04
    again = emjax("sample", "truth.tif", *made, "--json").report
    assert again == report  # the same seed, the same scan
    np.testing.assert_array_equal(io.read(tmp_path / "scan.tif").image, scanned.image)


def test_stacks_keep_their_shape(emjax: Any, truth: np.ndarray, tmp_path: Path) -> None:
    io.write(tmp_path / "truth.tif", np.stack([truth, truth.T]), dtype=np.uint8)
    assert emjax("sample", "truth.tif", "-o", "scan.tif", "--ratio", "0.4").code == 0
    report = emjax("recover", "scan.tif", "--json").report
    assert report["shape"] == [2, 64, 64] and len(report["weights"]) == 2
    recovered = tifffile.imread(report["output"])
    assert rms(recovered[1] / 255, truth.T) < 0.04


def test_large_images_go_in_tiles(scan: Path, mask: np.ndarray) -> None:
    y = np.tile(io.read(scan, mask=mask).image, (4, 3))
    big = io.Scan.from_array(np.where(np.tile(mask, (4, 3)), y, np.nan).astype(np.float32))
    recon = reconstructors.load("spectral", weight=0.5, **recover.PRECISE["spectral"])
    tiled, weights = recover.recover_scan(big, recon, tile=80, halo=16)
    whole, same = recover.recover_scan(big, recon)
    assert tiling.count(big.image.shape, 80, 16) > 1 and weights == same
    difference = np.abs(tiled - whole)
    assert np.mean(difference > 1e-3) < 1e-3 and difference.max() < 5e-3


@pytest.mark.parametrize("method", list(reconstructors.METHODS))
def test_methods_bound_to_the_whole_image_are_not_tiled(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    monkeypatch.setattr(recover, "_fit", lambda recon, *_args: recon)
    monkeypatch.setattr(recover, "_apply", lambda _recon, y, _mask: shapes.append(y.shape) or y)
    recover.recover_scan(
        io.Scan.from_array(np.ones((200, 300), np.uint8)), reconstructors.load(method), tile=80, halo=8
    )
    assert (shapes == [(200, 300)]) == (method in ("linear", "pnp", "wavelet"))


def test_a_tile_without_measurements_takes_the_mean(truth: np.ndarray) -> None:
    values = np.tile(truth, (4, 4))
    values[:, 130:] = np.nan
    scan = io.Scan.from_array(values)
    recon = reconstructors.load("spectral", weight=0.5)
    image, _ = recover.recover_scan(scan, recon, tile=80, halo=8)
    np.testing.assert_allclose(image[:, 220:], np.nanmean(values), atol=1e-3)
    np.testing.assert_allclose(image[:, :100], values[:, :100], atol=0.2)


def test_weights_of_large_images_come_from_windows() -> None:
    n, w = 1200, recover.WINDOW
    y = np.arange(n * n, dtype=np.float32).reshape(n, n)
    part, known = recover.representative(y, np.ones_like(y))
    assert part.shape == (2 * w, 2 * w)
    # The crops that weights are judged on lie where they lie in the whole image.
    for axis_start in (n // 4 - 128, n - n // 4 - 128):
        assert y[axis_start, axis_start] in part and known[part == y[axis_start, axis_start]].all()
    assert (known[w - 4 : w + 4] == 0).all() and (known[:, w - 4 : w + 4] == 0).all()
    small = np.ones((64, 1000), np.float32)
    assert recover.representative(small, small)[0].shape == small.shape
    corner = np.zeros_like(y)
    corner[:50, :50] = 1
    assert recover.representative(y, corner)[1] is corner
    with pytest.raises(ValueError, match="no measured pixel"):
        recover.representative(y, np.zeros_like(y))


def test_progress_only_for_eyes(scan: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    image, recon = io.read(scan, missing=0), reconstructors.load("linear")
    recover.recover_scan(image, recon, quiet=False)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    recover.recover_scan(image, recon, quiet=False)
    captured = capsys.readouterr()
    assert captured.out == "" and "recovering" in captured.err


@pytest.mark.slow
def test_demo(emjax: Any, tmp_path: Path) -> None:
    result = emjax("demo", "--size", "64", "--json")
    assert result.err == ""
    assert result.code == 0, result.err
    rows = result.report["results"]
    assert {row["method"] for row in rows} == set(demo.METHODS)
    assert all(row["psnr"] > 10 for row in rows)
    assert (tmp_path / "emjax-demo.png").read_bytes().startswith(b"\x89PNG")


def test_the_title_of_the_demo_is_one_line(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    title = "4096 x 4096, 100% scanned, dose 1.23457e+06"
    demo._print_table([{"method": "tv", "psnr": 30.0, "ssim": 0.9, "seconds": 1.0}], title, Path("demo.png"))
    assert title in capsys.readouterr().out


def test_the_demo_shows_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(demo, "METHODS", ("linear",))
    monkeypatch.setattr(demo, "_picture", lambda *_args: None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    demo.run_demo(tmp_path / "demo.png", size=64, ratio=0.2, dose=400, seed=0, as_json=False)
    captured = capsys.readouterr()
    assert "recovering" in captured.err and "linear" in captured.out


def test_version(emjax: Any) -> None:
    assert emjax("--version").out == f"emjax {package.__version__}\n"


def test_help_is_quick_and_complete(emjax: Any) -> None:
    for command in ((), ("recover",), ("sample",), ("info",), ("demo",)):
        result = emjax(*command, "--help")
        assert result.code == 0 and result.err == "" and "Usage" in result.out
    assert emjax().code == 2
    assert json.loads(emjax("info", "--json").out)["emjax"]


def test_soft_weights_of_grey_values_with_an_offset() -> None:
    """A file holds `w x` whatever its zero is: signed and unsigned grey values are recovered alike."""
    rng = np.random.default_rng(3)
    truth = np.add.outer(np.sin(np.arange(40) / 5), np.cos(np.arange(32) / 6)) / 4 + 0.5
    weights = (rng.random(truth.shape) < 0.5) * rng.uniform(0.5, 1, truth.shape).astype("f4")
    recon = package.load("spectral", weight=1.0, exponent=3.0)
    found = []
    for shift in (0.0, -3.0):
        grey = (truth + shift) * 10  # outside [0, 1]: stretched, with an offset
        scan = io.Scan.from_array((weights * grey).astype("f4"), mask=weights)
        x, _ = recover.recover_scan(scan, recon)
        found.append(scan.original(x, "f4") / 10 - shift)
    np.testing.assert_allclose(found[1], found[0], atol=2e-3)
    assert np.sqrt(np.mean((found[0] - truth) ** 2)) < 0.02
