"""Metadata of each tag family, as the vendors' files hold it, and the way through our own files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from emjax.io import Metadata, read, write

IMAGE = np.arange(48, dtype=np.uint8).reshape(6, 8)
STACK = np.arange(144, dtype=np.uint8).reshape(3, 6, 8)

FEI = """[User]
Date=06/10/2026
[System]
Type=SEM
SystemType=Helios G4 CX
[Beam]
HV=5000
Beam=EBeam
Scan=EScan
[EScan]
Dwell=3e-006
[Scan]
InternalScan=true
Dwelltime={dwell}
PixelWidth={width}
PixelHeight={height}
HorFieldsize=3.2e-006
VerFieldsize=2.4e-006
[Image]
ResolutionX=1536
ResolutionY=1024
"""
FEI_XML = """<?xml version="1.0"?><Metadata xmlns:nil="http://www.w3.org/2001/XMLSchema-instance">
<Instrument><InstrumentClass>Apreo</InstrumentClass></Instrument>
<ScanSettings><DwellTime>2E-07</DwellTime></ScanSettings>
<BinaryResult><PixelSize><X unit="m">1.5E-09</X><Y unit="m">2.5E-09</Y></PixelSize></BinaryResult>
</Metadata>"""


def zeiss(*entries: str) -> bytes:
    numbers = "0\r\n3.593750e-008\r\n1.000507e+004\r\n"
    return (numbers + "\r\n".join(entries) + "\r\n").encode("cp1252")


def load(path: Path, values: np.ndarray = IMAGE, **options: Any) -> Metadata:
    tifffile.imwrite(path, values, photometric="minisblack", **options)
    return read(path).metadata


def tag(code: int, text: str | bytes) -> dict[str, Any]:
    data = text if isinstance(text, bytes) else text.encode()
    return {"extratags": [(code, 2, len(data) + 1, data + b"\0", True)]}


@pytest.mark.parametrize("code", [34680, 34682])
def test_fei(tmp_path: Path, code: int) -> None:
    text = FEI.format(dwell="1.0E-006", width="3.37256e-009", height="3.4e-009").replace("\n", "\r\n")
    metadata = load(tmp_path / "a.tif", **tag(code, text))
    assert metadata == Metadata((3.4, 3.37256), 1e-6, "Thermo Fisher/FEI Helios G4 CX", "FEI")


def test_fei_falls_back_within_its_sections(tmp_path: Path) -> None:
    metadata = load(tmp_path / "a.tif", **tag(34682, FEI.format(dwell="", width="", height="nan")))
    assert metadata.pixel_size_nm == pytest.approx((2400 / 1024, 3200 / 1536))
    assert metadata.dwell_time_s == 3e-6


def test_fei_xml(tmp_path: Path) -> None:
    metadata = load(tmp_path / "a.tif", **tag(34683, FEI_XML))
    assert metadata == Metadata((2.5, 1.5), 2e-7, "Thermo Fisher/FEI Apreo", "FEI")


def test_zeiss(tmp_path: Path) -> None:
    entries = ["AP_PIXEL_SIZE", "Pixel Size = 35.94 nm", "AP_IMAGE_PIXEL_SIZE", "Image Pixel Size = 17.97 nm"]
    entries += ["DP_DWELL_TIME", "Dwell time = 100 ns", "DP_SCANRATE", "Scan Speed = 10"]
    entries += ["SV_SERIAL_NUMBER", "Serial No. = MERLIN-61-28", "AP_DATE", "Date :22 Jan 2026"]
    metadata = load(tmp_path / "a.tif", **tag(34118, zeiss(*entries)))
    assert metadata == Metadata((17.97, 17.97), 1e-7, "Zeiss MERLIN-61-28", "Zeiss")


@pytest.mark.parametrize(
    ("text", "size"), [("558.2 pm", 0.5582), ("1.2 \u00b5m", 1200), ("1.2 ?m", 1200), ("2 mm", 2e6)]
)
def test_zeiss_units(tmp_path: Path, text: str, size: float) -> None:
    entries = zeiss("AP_IMAGE_PIXEL_SIZE", f"Image Pixel Size = {text}")
    metadata = load(tmp_path / "a.tif", **tag(34118, entries))
    assert metadata.pixel_size_nm == pytest.approx((size, size)) and metadata.dwell_time_s is None


def test_zeiss_screen_pixel_is_converted_to_the_stored_width(tmp_path: Path) -> None:
    metadata = load(tmp_path / "a.tif", **tag(34118, zeiss("AP_PIXEL_SIZE", "Pixel Size = 2.5 nm")))
    assert metadata.pixel_size_nm == pytest.approx((2.5 * 1024 / 8,) * 2)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("nm", 1),
        ("um", 1e3),
        ("micron", 1e3),
        ("\\u00B5m", 1e3),
        ("mm", 1e6),
        ("Angstrom", 0.1),
        ("microns", 1e3),
    ],
)
def test_imagej(tmp_path: Path, unit: str, factor: float) -> None:
    options = {
        "imagej": True,
        "resolution": (4.0, 2.0),
        "metadata": {"unit": unit, "spacing": -3.0, "axes": "ZYX"},
    }
    metadata = load(tmp_path / "a.tif", STACK, **options)
    assert metadata.pixel_size_nm == pytest.approx((3 * factor, factor / 2, factor / 4))
    assert metadata.source == "ImageJ"
    assert load(tmp_path / "b.tif", IMAGE, **{**options, "metadata": {"unit": unit}}).pixel_size_nm == pytest.approx(
        (factor / 2, factor / 4)
    )


@pytest.mark.parametrize("unit", ["pixel", "", "furlong", "5"])
def test_imagej_without_a_length(tmp_path: Path, unit: str) -> None:
    assert load(tmp_path / "a.tif", imagej=True, resolution=(4, 4), metadata={"unit": unit}) == Metadata()


def test_ome(tmp_path: Path) -> None:
    values = {"PhysicalSizeX": 4.0, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.005, "PhysicalSizeZ": 0.05}
    plane = {"Plane": {"ExposureTime": [2.0] * 3, "ExposureTimeUnit": ["\u00b5s"] * 3}}
    metadata = load(tmp_path / "a.ome.tif", STACK, metadata={"axes": "ZYX", **values, **plane})
    assert metadata == Metadata((50.0, 5.0, 4.0), 2e-6, None, "OME")


@pytest.mark.parametrize(
    ("resolution", "unit", "size"),
    [
        ((2e6, 1e6), "CENTIMETER", (10.0, 5.0)),
        ((2.54e6, 2.54e6), "INCH", (10.0, 10.0)),
        ((72, 72), "INCH", None),
        ((96, 96), "INCH", None),
        ((300, 300), "INCH", None),
        ((2400, 2400), "INCH", None),
        ((28.35, 28.35), "CENTIMETER", None),
        ((2e6, 2e6), "NONE", None),
    ],
)
def test_plain_resolution(tmp_path: Path, resolution: tuple[float, float], unit: str, size: object) -> None:
    metadata = load(tmp_path / "a.tif", resolution=resolution, resolutionunit=unit)
    assert metadata.pixel_size_nm == size
    assert metadata.source == (None if size is None else "TIFF resolution")


def test_a_vendor_goes_before_the_resolution_tags(tmp_path: Path) -> None:
    text = FEI.format(dwell="1e-6", width="2e-9", height="2e-9")
    metadata = load(tmp_path / "a.tif", resolution=(1e6, 1e6), resolutionunit="CENTIMETER", **tag(34682, text))
    assert metadata.pixel_size_nm == (2, 2) and metadata.source == "FEI"
    only_dwell = text.replace("PixelWidth", "No").replace("PixelHeight", "No").replace("Fieldsize", "No")
    metadata = load(tmp_path / "a.tif", resolution=(1e6, 1e6), resolutionunit="CENTIMETER", **tag(34682, only_dwell))
    assert metadata.pixel_size_nm == (10, 10) and metadata.dwell_time_s == 1e-6
    assert metadata.source == "TIFF resolution"


BROKEN = [
    tag(34682, b"\xff\xfe\x00 garbage = ="),
    tag(34682, "[Scan\nPixelWidth\n[]\n=\nPixelHeight=-1e-9\nDwelltime=inf\n"),
    tag(34682, "[Scan]\nPixelWidth=0\nPixelHeight=0\nDwelltime=0\n"),
    tag(34683, "<Metadata><PixelSize><X>1e-9</X>"),
    tag(34683, "<M><PixelSize><X>one</X><Y/></PixelSize><DwellTime unit='h'>1</DwellTime></M>"),
    tag(34118, b"AP_IMAGE_PIXEL_SIZE\r\nImage Pixel Size = nm nm nm\r\nDP_DWELL_TIME\r\n"),
    tag(34118, b"\x00"),
    {"extratags": [(34118, 3, 2, (1, 2), True)]},
    {"extratags": [(34682, 12, 1, 3.5, True)]},
    {"extratags": [(34683, 4, 1, 7, True)]},
    {"extratags": [(50838, 4, 2, (99, 99), True), (50839, 1, 4, b"IJIJ", True)]},
    {"description": "<OME><Image><Pixels PhysicalSizeX='a'", "metadata": None},
    {"description": "<?xml version='1.0'?><OME></OME>", "metadata": None},
    {
        "description": "ImageJ=\nunit=\\u00ZZm\nspacing=x\n",
        "metadata": None,
        "resolution": (3, 3),
    },
    {"resolution": (0, 0), "resolutionunit": "CENTIMETER"},
]


@pytest.mark.parametrize("options", BROKEN)
def test_broken_metadata_never_costs_the_image(tmp_path: Path, options: dict[str, Any]) -> None:
    metadata = load(tmp_path / "a.tif", **options)
    assert np.array_equal(read(tmp_path / "a.tif").image * 255, IMAGE)
    assert metadata.pixel_size_nm is None and metadata.dwell_time_s is None


@pytest.mark.parametrize(
    "metadata",
    [
        Metadata(),
        Metadata((3.37256, 3.4)),
        Metadata((50.1, 1 / 3, 1 / 7), 1.23456789e-6, "Thermo Fisher/FEI Helios", "FEI"),
        Metadata(None, 3e-7, "Zeiss \u00b5-scope", "Zeiss"),
        Metadata((1e-3, 2e-3), None, None, "ImageJ"),
        Metadata((5e6, 5e6), 2.0),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "float32", "float64", "int64"])
def test_our_files_give_back_the_same_numbers(tmp_path: Path, metadata: Metadata, dtype: str) -> None:
    write(tmp_path / "a.tif", STACK.astype(dtype), like=metadata)
    first = read(tmp_path / "a.tif")
    assert first.metadata == metadata
    write(tmp_path / "b.tif", first.image[0], like=first)
    size = metadata.pixel_size_nm
    second = read(tmp_path / "b.tif").metadata
    assert second.pixel_size_nm == (None if size is None else size[-2:])
    assert (second.dwell_time_s, second.instrument) == (metadata.dwell_time_s, metadata.instrument)


def test_a_scale_changed_in_imagej_wins_over_our_note(tmp_path: Path) -> None:
    write(tmp_path / "a.tif", IMAGE, like=Metadata((5.0, 5.0), 1e-6, "Scope", "FEI"))
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tif:
        for code in (282, 283):
            tif.pages.first.tags[code].overwrite((1, 10))
    metadata = read(tmp_path / "a.tif").metadata
    assert metadata == Metadata((10.0, 10.0), 1e-6, "Scope", "ImageJ")
