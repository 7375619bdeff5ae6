"""Read and write TIFF images: everything a microscope writes comes in, ImageJ-ready files go out."""

import contextlib
import dataclasses
import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tifffile

from emjax.io.atomic import atomic_path
from emjax.io.errors import ImageError, plain
from emjax.io.grey import bright_is_large, grey_values, pixel_axes
from emjax.io.integrity import check_count, check_directories, check_one_image, check_pixels
from emjax.io.masks import mask_weights
from emjax.io.metadata import Metadata, imagej_description, info_text
from emjax.io.scan import Scan, decode
from emjax.io.vendors import read_metadata

# A classic TIFF addresses 4 GiB; the margin is for directories and for what does not compress.
_CLASSIC_BYTES = 3_900_000_000


def read(
    path: str | os.PathLike[str],
    *,
    mask: np.ndarray | str | os.PathLike[str] | None = None,
    missing: float | None = None,
    rgb: Literal["error", "mean"] = "error",
) -> Scan:
    """Read a grey image or a stack from a TIFF file.

    Grey values are scaled to [0, 1]: integers of 8 and 16 bits by the range of their type (or by the bits the
    file declares, e.g. 12), signed ones from their smallest value; floats within [0, 1] that span at least
    1e-3 not at all; other floats and integers of 32 and 64 bits by the smallest and largest measured value.
    NaN pixels were not measured: mask 0, value 0. Infinite pixels are an error: they are saturation or a
    broken division as often as gaps, so whoever made them must say (as NaN) if they were not measured.

    Of an image at several resolutions (marked as reduced, or an OME pyramid) the full one is read; images of
    unlike size or type in one file are an error, as nobody can tell which one is meant. Colour images whose
    channels are all equal are grey; for others see `rgb`. Axes of length 1 are dropped.

    Args:
        path: the file.
        mask: which pixels were measured: an array or a mask file (see `read_mask`), of the image's shape or
            2-D for every slice. What lies outside it does not influence the scale. See `Scan.with_mask`.
        missing: a grey value that means "not measured", e.g. 0. Some pixel must have it; NaN needs no mention.
        rgb: what to do with channels that differ: "error", or "mean" for their average (alpha is ignored).

    Returns:
        A `Scan`: image (h, w) or (z, h, w).

    Raises:
        ImageError: whatever keeps the file from being an image: absent, unreadable, no TIFF, cut off, empty,
            several images, complex, coloured, more than three axes, infinite, nothing measured, no pixel of
            the missing value, a mask that does not fit.
    """
    values, bits, metadata = _load(path, rgb, as_shown=True)
    if isinstance(mask, str | os.PathLike):
        mask = read_mask(mask)
    return Scan.from_array(values, mask=mask, missing=missing, metadata=metadata, bits=bits, name=str(path))


def read_mask(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a mask from a TIFF file: float32 weights in [0, 1], shape (h, w) or (z, h, w).

    An integer or 1-bit mask is binary, non-zero where the beam measured; a floating-point mask holds weights
    in [0, 1]. The stored number counts, not how a viewer shows it: many programs mark masks as "white is
    zero" without meaning it.

    Raises:
        ImageError: as `read`; also floats outside [0, 1] or NaN, and a mask that is 0 everywhere.
    """
    values, _, _ = _load(path, "error", as_shown=False)
    return mask_weights(values, str(path))


def write(
    path: str | os.PathLike[str],
    image: np.ndarray,
    like: Scan | Metadata | None = None,
    dtype: Any = None,
    *,
    compression: Literal["deflate", "none"] = "deflate",
) -> None:
    """Write an image or a stack as an ImageJ-compatible TIFF; the file appears whole or not at all.

    A float image counts as being in [0, 1]. With `like=scan` it is mapped back to the grey values and the
    type of that scan (rounded and clipped for integers, unclipped for floats); with another integer `dtype`
    it fills that type's range; without `like` it is written as float32. Integer and bool images (masks,
    labels) are written as they are, bool as 0 and 255, since few programs open 1-bit files.

    Compression is deflate without a predictor: a predictor would save another 5 to 30 %, but many versions of
    ImageJ show such files as noise (they undo the predictor of LZW only). Nor do they open compressed images
    of 64 bits, which are therefore not compressed.

    Args:
        path: an existing file is replaced.
        image: (h, w) or (z, h, w).
        like: where type, scale, pixel size and dwell time come from; a `Metadata` gives the last two only.
            For another pixel size, e.g. after super-resolution, use `dataclasses.replace` on the metadata.
        dtype: type in the file.
        compression: "deflate" or "none".

    Raises:
        ImageError: a path that cannot be written, a full disk, complex values, other dimensions than 2 or 3,
            no pixels, or NaN pixels for an integer type. An older file at `path` stays as it was.
    """
    image = np.asarray(image)
    if image.ndim not in (2, 3) or image.size == 0:
        raise ImageError(f"{path}: cannot write shape {image.shape}; expected (h, w) or (z, h, w)")
    if image.dtype.kind not in "buif":
        raise ImageError(f"{path}: cannot write {image.dtype} values; take the real part or the magnitude")
    metadata = like.metadata if isinstance(like, Scan) else like or Metadata()
    pixels = _pixels(image, like if isinstance(like, Scan) else None, dtype, str(path))
    size = metadata.pixel_size_nm
    if size is not None and len(size) > pixels.ndim:
        metadata = dataclasses.replace(metadata, pixel_size_nm=size[-pixels.ndim :])
    with atomic_path(path) as temporary:
        _write(temporary, pixels, metadata, compress=compression == "deflate" and pixels.itemsize <= 4)


def _pixels(image: np.ndarray, scan: Scan | None, dtype: Any, name: str) -> np.ndarray:
    """Return the array to be stored."""
    try:
        if image.dtype.kind == "f":
            target = np.dtype(dtype if dtype is not None else scan.dtype if scan is not None else np.float32)
            if target.kind == "b":
                target = np.dtype(np.uint8)
            return decode(image, target, scan)
        if image.dtype.kind == "b":
            return image.astype(np.uint8) * np.uint8(255) if dtype is None else image.astype(dtype)
        if dtype is None or np.dtype(dtype) == image.dtype:
            return image
        with np.errstate(over="ignore", invalid="ignore"):  # compared below
            result = image.astype(dtype)
    except (ImageError, TypeError) as error:
        raise ImageError(f"{name}: {error}") from error
    if not np.array_equal(result, image):
        raise ImageError(f"{name}: {result.dtype} cannot hold the values {image.min()} to {image.max()}")
    return result


def _write(path: Path, pixels: np.ndarray, metadata: Metadata, compress: bool) -> None:
    size = metadata.pixel_size_nm
    with tifffile.TiffWriter(path, byteorder="<", bigtiff=pixels.nbytes > _CLASSIC_BYTES, ome=False) as writer:
        writer.write(
            pixels,
            photometric="minisblack",
            compression="zlib" if compress else None,
            compressionargs={"level": 6} if compress else None,
            description=imagej_description(pixels.shape, metadata),
            metadata=None,
            software="emjax",
            resolution=None if size is None else (1 / size[-1], 1 / size[-2]),
            resolutionunit="NONE",
            extratags=tifffile.imagej_metadata_tag({"Info": info_text(metadata)}, "<"),
        )


def _load(path: str | os.PathLike[str], rgb: str, as_shown: bool) -> tuple[np.ndarray, int | None, Metadata]:
    """Return the grey values (h, w) or (z, h, w), the bits used of their type, and the metadata of a file."""
    name = str(path)
    if rgb not in ("error", "mean"):
        raise ImageError(f'rgb={rgb!r} is not known; give "error" or "mean"')
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            if size == 0:
                raise ImageError(f"{name}: the file is empty (0 bytes); copy it again from the microscope")
            check_directories(file, size, name)
        with _hushed(), tifffile.TiffFile(path) as tif:
            if not tif.series:
                raise ImageError(f"{name}: the file holds no image; save it again")
            # some programs mark their only image as a reduced one
            full = [s for s in tif.series if s.keyframe is None or not s.keyframe.subfiletype & 0b101]
            check_one_image([f"{' x '.join(map(str, s.shape))} {s.dtype}" for s in full], name)
            series = full[0] if full else tif.series[0]
            if 0 in series.shape:
                raise ImageError(f"{name}: the image has no pixels (shape {series.shape}); scan again")
            check_pixels(series, name)
            check_count(tif, series, name)
            if series.dtype is None or series.dtype.kind not in "buif":
                raise ImageError(f"{name}: the image is {series.dtype}; save real numbers (of complex: the magnitude)")
            axes = pixel_axes(series, name)
            values = grey_values(series, axes, rgb, name)
            if as_shown:
                values = bright_is_large(values, series.keyframe)
            bits = series.keyframe.bitspersample
            metadata = read_metadata(tif)
    except ImageError:
        raise
    except OSError as error:
        raise ImageError(f"{name}: cannot be read: {plain(error)}") from error
    except MemoryError as error:
        raise ImageError(f"{name}: the image does not fit into memory; crop it") from error
    except Exception as error:
        # tifffile and the codecs raise ValueError, RuntimeError, struct.error, ... for damaged, exotic files
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(
            f"{name}: the file is damaged or of an unsupported kind ({reason}); open and save it with ImageJ"
        ) from error
    if metadata.pixel_size_nm is not None and len(metadata.pixel_size_nm) > values.ndim:
        metadata = dataclasses.replace(metadata, pixel_size_nm=metadata.pixel_size_nm[-values.ndim :])
    return values, bits if isinstance(bits, int) else None, metadata


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Keep tifffile's log quiet in this thread: what matters in it is checked here and raised."""
    logger, thread = logging.getLogger("tifffile"), threading.get_ident()

    def elsewhere(record: logging.LogRecord) -> bool:
        return record.thread != thread

    logger.addFilter(elsewhere)
    try:
        yield
    finally:
        logger.removeFilter(elsewhere)
