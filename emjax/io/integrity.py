"""Is a TIFF file whole? A cut copy must never become an image with silent zeros or with slices missing.

TIFF readers forgive: they end a broken chain of image directories early and leave absent strips empty. Here
the chain is walked and every strip compared with the length of the file. They also take a file of unlike images
for its first one, or a stack for the shape of its first page: here that is an error. The layout is that of the
TIFF 6.0 specification and of BigTIFF.
"""

import collections
import json
import math
import struct
from typing import Any, BinaryIO

import numpy as np
import tifffile

from emjax.io.errors import ImageError

_AGAIN = "copy it again from the microscope"
# bytes of one value of each TIFF field type
_TYPE_SIZES = dict(zip((*range(1, 14), 16, 17, 18), (1, 1, 2, 4, 8, 1, 1, 2, 4, 8, 4, 8, 4, 8, 8, 8), strict=True))
# Tags from here on are private: a vendor's notes. Without them the pixels are still right.
_PRIVATE = 32768
_KNOWN = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x89HDF": "an HDF5 file (EMD, Velox, ...)",
    b"GIF8": "a GIF image",
    b"PK\x03\x04": "a zip archive",
    b"BM": "a BMP image",
}


def check_directories(file: BinaryIO, size: int, name: str) -> None:
    """Walk the chain of image directories of an open file of `size` bytes.

    Raises:
        ImageError: not a TIFF, a directory or a value of a standard tag lies beyond the end of the file, or the
            images (other than reduced ones and masks, marked as such) differ in size or bits.
    """
    header = file.read(16)
    order = {b"II": "<", b"MM": ">"}.get(header[:2], "")
    version = struct.unpack(order + "H", header[2:4])[0] if order and len(header) >= 4 else 0
    if version not in (42, 43):
        kind = next((kind for start, kind in _KNOWN.items() if header.startswith(start)), None)
        what = kind or f"no TIFF (it begins with {header[:8]!r})"
        raise ImageError(f"{name}: this is {what}; save the image as TIFF, e.g. with ImageJ")
    big = version == 43
    pointer, counter, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    entry = np.dtype(
        [
            ("code", f"{order}u2"),
            ("type", f"{order}u2"),
            ("n", f"{order}u{inline}"),
            ("at", f"{order}u{inline}"),
        ]
    )

    def unpack(layout: str, position: int, what: str) -> int:
        length = struct.calcsize(order + layout)
        file.seek(position)
        data = file.read(length)
        if len(data) < length:
            raise ImageError(f"{name}: the file is cut off at {size} bytes, before {what} at byte {position}; {_AGAIN}")
        return int(struct.unpack(order + layout, data)[0])

    offset = unpack(pointer, 8 if big else 4, "the first image directory's address")
    if offset == 0:
        raise ImageError(f"{name}: the file has no image directory, so its writing was interrupted; save it again")
    seen: set[int] = set()
    images: list[str] = []
    while offset:
        if offset in seen:
            raise ImageError(f"{name}: the file is damaged (its chain of image directories is a circle); {_AGAIN}")
        seen.add(offset)
        count = unpack(counter, offset, "an image directory")
        start = offset + struct.calcsize(order + counter)
        length = count * entry.itemsize
        offset = unpack(pointer, start + length, "the end of an image directory")
        file.seek(start)
        entries = np.frombuffer(file.read(length), entry)
        for code, kind, values, position in entries.tolist():
            extent = _TYPE_SIZES.get(kind, 1) * values
            if code < _PRIVATE and extent > inline and position + extent > size:
                raise ImageError(
                    f"{name}: the file is cut off at {size} bytes, before the values of tag {code} "
                    f"at byte {position}; {_AGAIN}"
                )
        # Values of 2 and 4 bytes stand at the left of their field.
        left = {3: 8 * inline - 16, 4: 8 * inline - 32, 16: 0} if order == ">" else {3: 0, 4: 0, 16: 0}
        masks = {3: 0xFFFF, 4: 0xFFFFFFFF, 16: -1}
        tags = {c: at >> left[k] & masks[k] for c, k, n, at in entries.tolist() if n == 1 and k in left}
        if not (tags.get(254, 0) & 0b101 or tags.get(255) == 2):
            bits = f", {tags[258]} bits" if 258 in tags else ""
            images.append(f"{tags.get(257, 0)} x {tags.get(256, 0)}{bits}")
    check_one_image(images, name, alike=True)


def check_one_image(images: list[str], name: str, alike: bool = False) -> None:
    """Raise `ImageError` if the described images are more than one; with `alike`, if they differ."""
    kinds = collections.Counter(images)
    if len(kinds if alike else images) <= 1:
        return
    shown = "; ".join(f"{kind} ({count} of them)" if count > 1 else kind for kind, count in kinds.most_common(4))
    more = "; ..." if len(kinds) > 4 else ""
    raise ImageError(
        f"{name}: the file holds {len(images)} images that are not one stack: {shown}{more}; "
        "save the one you mean as a file of its own (Python: tifffile.imread(path, key=0) picks page 0)"
    )


def check_pixels(series: tifffile.TiffPageSeries, name: str) -> None:
    """Compare the strips or tiles of every page of a series with the length of the file they lie in.

    Raises:
        ImageError: a page, a strip or a tile is absent or lies beyond the end of the file.
    """
    if len(series) == 0 or series.keyframe is None:
        raise ImageError(f"{name}: the file holds no image; save it again")
    for index, page in enumerate(series):
        if page is None or len(page.dataoffsets) == 0:
            raise ImageError(f"{name}: page {index} of {len(series)} has no pixels; {_AGAIN}, with all its files")
        size = page.parent.filehandle.size
        if page.is_contiguous:
            expected, length = 1, page.nbytes
            if len(series) == 1:  # ImageJ keeps a whole stack behind the directory of its first slice
                length = max(length, series.nbytes)
            ends = np.array([page.dataoffsets[0] + length])
            absent = page.dataoffsets[0] == 0
        else:
            expected = math.prod(series.keyframe.chunked)
            given = min(len(page.dataoffsets), len(page.databytecounts))
            offsets = np.array(page.dataoffsets[: min(expected, given)], np.uint64).astype(np.int64)
            counts = np.array(page.databytecounts[: min(expected, given)], np.uint64).astype(np.int64)
            ends = offsets + counts
            absent = given < expected or bool(np.any((offsets <= 0) | (counts <= 0)))
        if absent:
            raise ImageError(f"{name}: page {index} lacks some of its {expected} strips or tiles; {_AGAIN}")
        if ends.max() > size:
            raise ImageError(
                f"{name}: the file is cut off at {size} bytes, but the pixels of page {index} "
                f"of {len(series)} need {ends.max()}; {_AGAIN}"
            )


def check_count(tif: tifffile.TiffFile, series: tifffile.TiffPageSeries, name: str) -> None:
    """Compare the number of pixels with what ImageJ's or tifffile's description promises.

    tifffile falls back to the pages it finds when a description asks for more.
    """
    first = tif.pages.first
    promised: Any = None
    shaped = first.shaped_description or ""
    if shaped.startswith("{"):
        promised = math.prod(json.loads(shaped)["shape"])
    elif first.is_imagej:
        meta = tif.imagej_metadata or {}
        counts = [meta.get(key, 1) for key in ("frames", "slices", "channels")]
        if counts == [1, 1, 1]:  # as early versions wrote it
            counts[0] = meta.get("images", 1)
        if counts[2] == first.samplesperpixel:  # colour samples are sometimes counted as channels
            counts[2] = 1
        promised = math.prod(counts) * first.size
    if isinstance(promised, int) and promised > series.size:
        raise ImageError(
            f"{name}: its description promises {promised // first.size} images of {first.shape}, but the "
            f"file holds {series.size // first.size}; {_AGAIN}, or save it with ImageJ if it is whole"
        )
