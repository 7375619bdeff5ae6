"""What emjax keeps of a microscope's metadata, its units, and its text form inside our own files.

Files are written as ImageJ hyperstacks: ImageJ and Fiji show the scale at once. ImageJ's tags hold the pixel
size as rounded fractions and have no place for a dwell time, so the exact numbers go, one `key = value` a
line, into the `Info` text that ImageJ shows under *Image > Show Info* and keeps when it saves the image.
"""

import dataclasses
import math
import re
from typing import Any

_NANOMETRES = {
    "pm": 1e-3,
    "a": 0.1,
    "å": 0.1,
    "ang": 0.1,
    "angstrom": 0.1,
    "nm": 1.0,
    "nanometer": 1.0,
    "nanometre": 1.0,
    "um": 1e3,
    "\u00b5m": 1e3,  # micro sign
    "\u03bcm": 1e3,  # Greek mu
    "\ufffdm": 1e3,  # a micro sign that did not survive a change of encoding ...
    "?m": 1e3,  # ... as Zeiss files often show it; no other length unit begins with a non-ASCII letter
    "\u00c2\u00b5m": 1e3,
    "micron": 1e3,
    "micrometer": 1e3,
    "micrometre": 1e3,
    "mm": 1e6,
    "millimeter": 1e6,
    "cm": 1e7,
    "centimeter": 1e7,
    "m": 1e9,
    "meter": 1e9,
    "metre": 1e9,
    "in": 2.54e7,
    "inch": 2.54e7,
}
_SECONDS = {
    "ps": 1e-12,
    "ns": 1e-9,
    "us": 1e-6,
    "\u00b5s": 1e-6,
    "\u03bcs": 1e-6,
    "\ufffds": 1e-6,
    "?s": 1e-6,
    "\u00c2\u00b5s": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "sec": 1.0,
    "second": 1.0,
    "min": 60.0,
}
# Generous bounds: 0.01 pm to 1 m, and 1 ps to a day. What lies outside is a broken tag.
_PIXEL_BOUNDS_NM = (1e-5, 1e9)
_DWELL_BOUNDS_S = (1e-12, 86400.0)


@dataclasses.dataclass(frozen=True)
class Metadata:
    """How an image was taken; every field is None where the file does not say, or says nonsense.

    Attributes:
        pixel_size_nm: (y, x), or (z, y, x) for a stack whose slice distance is known; nanometres.
        dwell_time_s: time the beam rests on a pixel, in seconds.
        instrument: vendor and model or serial number, as the file names it.
        source: the tag family the pixel size (else the dwell time) came from: "FEI", "Zeiss", "OME",
            "ImageJ", "TIFF resolution". Kept in our own files, so that it always names the original.
    """

    pixel_size_nm: tuple[float, ...] | None = None
    dwell_time_s: float | None = None
    instrument: str | None = None
    source: str | None = None


def nanometres(value: Any, unit: Any) -> float | None:
    """Return a length as nanometres, or None if it is no length a microscope could mean."""
    return _quantity(value, unit, _NANOMETRES, _PIXEL_BOUNDS_NM)


def seconds(value: Any, unit: Any = "s") -> float | None:
    """Return a time as seconds, or None if it is no dwell time."""
    return _quantity(value, unit, _SECONDS, _DWELL_BOUNDS_S)


def number(value: Any) -> float | None:
    """Return a finite float, or None for everything else (text, empty, NaN, booleans)."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        result = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return result if math.isfinite(result) else None


def _quantity(value: Any, unit: Any, factors: dict[str, float], bounds: tuple[float, float]) -> float | None:
    amount, name = number(value), str(unit).strip().strip('"').lower()
    factor = factors.get(name) or factors.get(name.rstrip("s"))
    if amount is None or factor is None:
        return None
    if factor != 1:
        # twelve digits: more than any microscope knows, and 3.37e-9 m becomes 3.37 nm, not 3.3700000000000003
        amount = float(f"{amount * factor:.12g}")
    return amount if bounds[0] <= amount <= bounds[1] else None


def unescape(text: str) -> str:
    r"""Undo the Java escapes in which ImageJ writes units: `\u00B5m` is micrometres."""
    return re.sub(r"\\u([0-9a-fA-F]{4})", lambda match: chr(int(match[1], 16)), text)


def info_text(metadata: Metadata) -> str:
    """Return the `Info` text of our own files; `read_info` is its inverse."""
    lines = ["emjax"]
    if metadata.pixel_size_nm is not None:
        lines.append("pixel_size_nm = " + ", ".join(repr(float(size)) for size in metadata.pixel_size_nm))
    if metadata.dwell_time_s is not None:
        lines.append(f"dwell_time_s = {float(metadata.dwell_time_s)!r}")
    for key in ("instrument", "source"):
        text = getattr(metadata, key)
        if text is not None:
            lines.append(f"{key} = " + " ".join(str(text).split()))
    return "\n".join(lines) + "\n"


def read_info(text: Any) -> Metadata:
    """Return the metadata in an `Info` text that emjax wrote; an empty `Metadata` for any other text."""
    if not isinstance(text, str) or text.split("\n", 1)[0].strip() != "emjax":
        return Metadata()
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    entries = {key.strip(): value.strip() for key, value in pairs}
    sizes = [nanometres(size, "nm") for size in entries.get("pixel_size_nm", "").split(",")]
    known = [size for size in sizes if size is not None]
    return Metadata(
        pixel_size_nm=tuple(known) if len(known) == len(sizes) and len(known) in (2, 3) else None,
        dwell_time_s=seconds(entries.get("dwell_time_s")),
        instrument=entries.get("instrument") or None,
        source=entries.get("source") or None,
    )


def imagej_description(shape: tuple[int, ...], metadata: Metadata) -> str:
    """Return the ImageDescription that makes ImageJ open an image of shape (h, w) or (z, h, w) to scale."""
    slices = shape[0] if len(shape) == 3 else 1
    lines = ["ImageJ=1.54f", f"images={slices}"]
    if slices > 1:
        lines.append(f"slices={slices}")
    size = metadata.pixel_size_nm
    if size is not None:
        lines.append("unit=nm")
        if len(size) == 3 and slices > 1:
            lines.append(f"spacing={float(size[0])!r}")
    lines.append("loop=false")
    return "\n".join(lines) + "\n"
