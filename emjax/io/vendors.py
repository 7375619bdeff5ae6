"""Metadata readers, one for each family of tags that keeps a pixel size or a dwell time.

A reader takes an open `tifffile.TiffFile` and returns a `Metadata`, empty where its tags are absent. Metadata
must never stand between a user and the pixels: a reader that fails on a broken tag counts as one that found
nothing.
"""

import contextlib
import dataclasses
import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from typing import Any

import tifffile

from emjax.io.metadata import Metadata, nanometres, number, read_info, seconds, unescape

# Coarser than this is a printer or a screen (72, 96, 300, even 2400 dpi), not a microscope.
_COARSEST_PLAIN_NM = 5000.0


def read_metadata(tif: tifffile.TiffFile) -> Metadata:
    """Return what the tag families say, the vendors' own before the general ones, field by field."""
    found = Metadata()
    for reader in _READERS:
        # everything: tifffile and the XML parser raise many kinds on broken tags, and none of them matters
        # here
        with contextlib.suppress(Exception):
            found = _fill(found, reader(tif))
    return found


def _fill(found: Metadata, more: Metadata) -> Metadata:
    changes = {
        field.name: getattr(more, field.name)
        for field in dataclasses.fields(Metadata)
        if field.name != "source" and getattr(found, field.name) is None
    }
    # `source` names the family of the pixel size; until one is known, of whatever was found first
    if found.source is None or (found.pixel_size_nm is None and more.pixel_size_nm is not None):
        changes["source"] = more.source
    return dataclasses.replace(found, **changes)


def _make(
    source: str, size: tuple[float | None, ...], dwell: float | None = None, instrument: str | None = None
) -> Metadata:
    known = tuple(length for length in size if length is not None)
    pixel_size = known if len(known) == len(size) else None
    if pixel_size is None and dwell is None and instrument is None:
        return Metadata()
    return Metadata(pixel_size, dwell, instrument, source)


def _fei_ini(tif: tifffile.TiffFile) -> Metadata:
    """Thermo Fisher / FEI, tags 34680 and 34682: sections of an INI file, in metres and seconds.

    `[Scan]` describes the image; `[EScan]` or `[IScan]`, named in `[Beam]`, the scan of one column.
    """
    sections = tif.fei_metadata
    if not sections:
        return Metadata()

    def entry(section: Any, key: str) -> Any:
        values = sections.get(section)
        return values.get(key) if isinstance(values, dict) else None

    column = entry("Beam", "Scan") or "EScan"
    size = []
    for width, field, pixels in (
        ("PixelHeight", "VerFieldsize", "ResolutionY"),
        ("PixelWidth", "HorFieldsize", "ResolutionX"),
    ):
        length = nanometres(entry("Scan", width), "m")
        extent, count = number(entry("Scan", field)), number(entry("Image", pixels))
        if length is None and extent is not None and count:
            length = nanometres(extent / count, "m")
        size.append(length)
    dwell = seconds(entry("Scan", "Dwelltime")) or seconds(entry(column, "Dwell"))
    model = entry("System", "SystemType") or entry("System", "Type")
    return _make("FEI", tuple(size), dwell, f"Thermo Fisher/FEI {model}" if model else None)


def _fei_xml(tif: tifffile.TiffFile) -> Metadata:
    """Thermo Fisher / FEI, tag 34683: XML, `BinaryResult/PixelSize/X` in m, `ScanSettings/DwellTime` in s."""
    value = tif.pages.first.tags.valueof(34683)
    if value is None:
        return Metadata()
    text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
    root = ElementTree.fromstring(text.strip("\0\ufeff \r\n"))
    size: list[float | None] = []
    for names in (("Y", "Height"), ("X", "Width")):
        node = next((found for name in names for found in _nodes(root, "PixelSize", name)), None)
        size.append(None if node is None else nanometres(node.text, node.get("unit", "m")))
    dwell = next((seconds(node.text, node.get("unit", "s")) for node in _nodes(root, "DwellTime")), None)
    model = next((node.text for node in _nodes(root, "InstrumentClass") if node.text), None)
    return _make("FEI", tuple(size), dwell, f"Thermo Fisher/FEI {model.strip()}" if model else None)


def _zeiss(tif: tifffile.TiffFile) -> Metadata:
    """Zeiss SmartSEM, tag 34118: entries `(name, value, unit)`.

    `ap_image_pixel_size` is the size of a pixel of the stored image. `ap_pixel_size` is that of a screen 1024
    pixels wide, whatever the stored width. The dwell time is `dp_dwell_time`; line and frame times are no
    substitute, since they contain fly-back and averaging.
    """
    entries = tif.sem_metadata
    if not entries:
        return Metadata()

    def value_and_unit(key: str) -> tuple[Any, Any]:
        entry = entries.get(key)
        return (entry[1], entry[2]) if isinstance(entry, tuple) and len(entry) > 2 else (None, None)

    length = nanometres(*value_and_unit("ap_image_pixel_size"))
    if length is None:
        value, unit = value_and_unit("ap_pixel_size")
        screen = number(value)
        if screen is not None:
            length = nanometres(screen * 1024 / tif.pages.first.imagewidth, unit)
    serial = entries.get("sv_serial_number")
    name = str(serial[1]).strip() if isinstance(serial, tuple) and len(serial) > 1 else ""
    dwell = seconds(*value_and_unit("dp_dwell_time"))
    return _make("Zeiss", (length, length), dwell, f"Zeiss {name}".strip())


def _ome(tif: tifffile.TiffFile) -> Metadata:
    """OME-XML: `PhysicalSizeX/Y/Z` (in micrometres by default) and the first plane's `ExposureTime`."""
    if not tif.is_ome or not tif.ome_metadata:
        return Metadata()
    root = ElementTree.fromstring(tif.ome_metadata)
    pixels = next(_nodes(root, "Pixels"), None)
    if pixels is None:
        return Metadata()

    def length(axis: str) -> float | None:
        return nanometres(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "\u00b5m"))

    across, along, depth = length("X"), length("Y"), length("Z")
    size: tuple[float | None, ...] = (along or across, across)
    if depth is not None and (number(pixels.get("SizeZ")) or 1) > 1:
        size = (depth, *size)
    plane = next(_nodes(pixels, "Plane"), None)
    dwell = None
    if plane is not None:
        dwell = seconds(plane.get("ExposureTime"), plane.get("ExposureTimeUnit", "s"))
    scope = next(_nodes(root, "Microscope"), None)
    words = [] if scope is None else [scope.get(key, "").strip() for key in ("Manufacturer", "Model")]
    return _make("OME", size, dwell, " ".join(word for word in words if word) or None)


def _imagej(tif: tifffile.TiffFile) -> Metadata:
    """ImageJ: `unit` and `spacing` in the description, resolution tags in pixels a unit, and our `Info`."""
    meta = tif.imagej_metadata
    if not meta:
        return Metadata()
    units = [unescape(str(meta.get(key, meta.get("unit", "")))) for key in ("zunit", "yunit", "unit")]
    along, across = _pixels_a_unit(tif)
    size: tuple[float | None, ...] = (
        None if along is None else nanometres(1 / along, units[1]),
        None if across is None else nanometres(1 / across, units[2]),
    )
    spacing = number(meta.get("spacing"))
    if spacing is not None and (number(meta.get("slices")) or 1) > 1:
        # ImageJ allows a negative spacing: the stack runs the other way
        depth = nanometres(abs(spacing), units[0])
        size = size if depth is None else (depth, *size)
    ours = read_info(meta.get("Info"))
    exact = ours.pixel_size_nm
    if exact is None and any(length is None for length in size):
        return ours
    # The tags hold the size as a fraction of 32-bit integers, our Info holds it exactly. But ImageJ keeps the
    # Info when somebody rescales the image: the exact numbers count only as long as the tags agree with them.
    if exact is not None and len(exact) >= len(size):
        pairs = zip(size[::-1], exact[::-1], strict=False)
        if all(tag is not None and math.isclose(tag, own, rel_tol=1e-5) for tag, own in pairs):
            return ours
    return _make("ImageJ", size, ours.dwell_time_s, ours.instrument)


def _plain(tif: tifffile.TiffFile) -> Metadata:
    """The resolution tags of every TIFF, if in cm or inch and finer than a printer or a screen."""
    unit = {2: "inch", 3: "cm"}.get(int(tif.pages.first.tags.valueof(296, default=1)))
    along, across = _pixels_a_unit(tif)
    if unit is None or tif.is_imagej or along is None or across is None:
        return Metadata()
    size = (nanometres(1 / along, unit), nanometres(1 / across, unit))
    if any(length is None or length > _COARSEST_PLAIN_NM for length in size):
        return Metadata()
    return _make("TIFF resolution", size)


def _pixels_a_unit(tif: tifffile.TiffFile) -> tuple[float | None, float | None]:
    """Return the resolution (y, x), each None where it is absent or not positive."""
    result: list[float | None] = []
    for code in (283, 282):
        value = tif.pages.first.tags.valueof(code)
        ratio = value[0] / value[1] if isinstance(value, tuple) and len(value) == 2 and value[1] else None
        result.append(ratio if ratio is not None and math.isfinite(ratio) and ratio > 0 else None)
    return result[0], result[1]


def _nodes(root: ElementTree.Element, *path: str) -> Iterator[ElementTree.Element]:
    """Yield the elements at the end of a path of local names, whatever their namespace and depth."""
    for node in root.iter():
        if node is not root and node.tag.rpartition("}")[2] == path[0]:
            if len(path) == 1:
                yield node
            else:
                yield from _nodes(node, *path[1:])


_READERS: tuple[Callable[[tifffile.TiffFile], Metadata], ...] = (
    _fei_ini,
    _fei_xml,
    _zeiss,
    _ome,
    _imagej,
    _plain,
)
