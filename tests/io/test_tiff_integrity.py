"""A file that was cut off is an error, or (if only notes are lost) the right image: never a wrong one."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from emjax.io import ImageError, Metadata, read, write

RNG = np.random.default_rng(0)
IMAGE = RNG.integers(1, 255, (24, 31), dtype=np.uint8)
STACK = RNG.integers(1, 60000, (4, 12, 13), dtype=np.uint16)


def write_directory_last(path: Path, values: np.ndarray) -> None:
    """Write a TIFF as libtiff does: pixels first, the directory at the end."""
    height, width = values.shape
    data = values.tobytes()
    entries = [
        (256, 4, width),
        (257, 4, height),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
    ]
    entries += [(278, 4, height), (279, 4, len(data))]
    directory = struct.pack("<H", len(entries))
    for code, kind, value in entries:
        directory += struct.pack("<HHII", code, kind, 1, value)
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory + struct.pack("<I", 0))


WRITERS: dict[str, tuple[np.ndarray, dict[str, Any]]] = {
    "plain": (IMAGE, {}),
    "strips": (IMAGE, {"rowsperstrip": 5}),
    "tiles": (IMAGE, {"tile": (16, 16), "compression": "zlib"}),
    "lzw": (IMAGE, {"rowsperstrip": 5, "compression": "lzw", "predictor": 2}),
    "packbits": (IMAGE, {"compression": "packbits"}),
    "big": (IMAGE, {"bigtiff": True, "byteorder": ">"}),
    "stack": (STACK, {"photometric": "minisblack"}),
    "stack-zlib": (STACK, {"photometric": "minisblack", "compression": "zlib"}),
    "pages": (STACK, {"photometric": "minisblack", "metadata": None}),
    "imagej": (STACK, {"imagej": True}),
    "imagej-virtual": (STACK, {"imagej": True, "truncate": True}),
    "shaped-virtual": (STACK, {"photometric": "minisblack", "truncate": True}),
    "ome": (STACK, {"ome": True, "photometric": "minisblack", "metadata": {"axes": "ZYX"}}),
    "fei": (IMAGE, {"extratags": [(34682, 2, 0, "[Scan]\nPixelWidth=1e-9\nPixelHeight=1e-9\n" * 9, True)]}),
}


@pytest.mark.parametrize("kind", [*WRITERS, "directory-last", "ours", "ours-stack"])
def test_no_cut_gives_a_wrong_image(tmp_path: Path, kind: str) -> None:
    whole, cut = tmp_path / "whole.tif", tmp_path / "cut.tif"
    values = WRITERS[kind][0] if kind in WRITERS else STACK if kind == "ours-stack" else IMAGE
    if kind == "directory-last":
        write_directory_last(whole, values)
    elif kind.startswith("ours"):
        write(whole, values, like=Metadata((30.0, 4.0, 5.0), 2e-6))
    else:
        tifffile.imwrite(whole, values, **WRITERS[kind][1])
    data = whole.read_bytes()
    scan = read(whole)
    assert np.array_equal(scan.original(scan.image), values)
    lengths = np.unique(np.linspace(0, len(data) - 1, 50).astype(int)).tolist()
    with tifffile.TiffFile(whole) as tif:  # where directories and pages end
        for page in tif.pages:
            ends = [page.offset, *page.dataoffsets]
            ends += [a + b for a, b in zip(page.dataoffsets, page.databytecounts, strict=False)]
            ends += [page.dataoffsets[0] + k * page.nbytes for k in range(4)]
            lengths += [end + shift for end in ends for shift in (-1, 0, 1) if 0 <= end + shift < len(data)]
    errors = 0
    for length in lengths:
        cut.write_bytes(data[:length])
        try:
            scan = read(cut)
        except ImageError as error:
            errors += 1
            assert "\n" not in str(error)
            continue
        assert np.array_equal(scan.original(scan.image), values), (kind, length, len(data))
    assert errors > 0.6 * len(lengths)


def test_strips_that_were_never_written(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, IMAGE, rowsperstrip=5, compression="zlib")
    for code in (273, 279):
        with tifffile.TiffFile(path) as tif:
            tag = tif.pages.first.tags[code]
            place, kind = tag.valueoffset, "<HI"[tag.dtype - 2] if tag.dtype == 3 else "I"
        data = bytearray(path.read_bytes())
        size = 2 if kind == "H" else 4
        data[place + size : place + 2 * size] = bytes(size)
        (tmp_path / "b.tif").write_bytes(bytes(data))
        with pytest.raises(ImageError, match=r"lacks some of its 5 strips|cut off|damaged"):
            read(tmp_path / "b.tif")


def test_a_description_that_promises_more_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    for text in (
        "ImageJ=1.53t\nimages=21\nslices=21\n",
        "ImageJ=1.53t\nimages=21\n",
        '{"shape": [21, 24, 31]}',
    ):
        tifffile.imwrite(path, IMAGE, description=text, metadata=None)
        with pytest.raises(ImageError, match=r"promises 21 images of \(24, 31\), but the file holds 1|cut off"):
            read(path)


def test_random_damage_never_ends_in_another_exception(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    write(path, IMAGE, like=Metadata((4.0, 5.0), 2e-6, "Scope", "FEI"))
    data = path.read_bytes()
    for seed in range(100):
        rng = np.random.default_rng(seed)
        broken = bytearray(data)
        places = rng.integers(0, 600 if seed % 2 else len(data), 3)
        for place in places.tolist():
            broken[place] = int(rng.integers(0, 256))
        (tmp_path / "b.tif").write_bytes(bytes(broken))
        try:
            read(tmp_path / "b.tif")
        except ImageError as error:
            assert "\n" not in str(error)
