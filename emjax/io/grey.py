"""From the samples in a TIFF to grey values: axes, colour channels, palettes, white-is-zero."""

import numpy as np
import tifffile

from emjax.io.errors import ImageError

_SAVE_GREY = "save it as grey (ImageJ: Image > Type > 8-bit)"
_AXIS_NAMES = {"T": "time", "Z": "slices", "C": "channels", "S": "colour samples", "Q": "pages", "I": "pages"}


def pixel_axes(series: tifffile.TiffPageSeries, name: str) -> dict[str, int]:
    """Return the axes of a series longer than 1 besides Y, X and the colour samples S, as {letter: length}.

    Raises:
        ImageError: more than one such axis: the image has more than three dimensions.
    """
    lengths = list(zip(series.get_axes(False), series.get_shape(False), strict=True))
    others = [(axis, length) for axis, length in lengths if axis not in "YXS" and length > 1]
    if len(others) > 1:
        names = [(axis, _AXIS_NAMES.get(axis, "other"), length) for axis, length in others]
        described = ", ".join(f"{axis} ({meaning}) = {length}" for axis, meaning, length in names)
        raise ImageError(
            f"{name}: the image has {len(others) + 2} dimensions: {described}, and Y, X; "
            "save one stack a file (ImageJ: Image > Hyperstacks > Reduce Dimensionality)"
        )
    return dict(others)


def grey_values(series: tifffile.TiffPageSeries, axes: dict[str, int], rgb: str, name: str) -> np.ndarray:
    """Read a series as grey values, shape (h, w) or (z, h, w), in the byte order of this machine.

    The numbers are the stored ones; see `bright_is_large`.

    Raises:
        ImageError: colour channels or a palette that is not grey, a transparency that varies.
    """
    letters, shape = series.get_axes(False), series.get_shape(False)
    page = series.keyframe
    values = np.asarray(series.asarray()).reshape(shape)
    order = [letters.index(axis) for axis in axes]
    order += [letters.index("Y"), letters.index("X")]
    if "S" in letters:
        order.append(letters.index("S"))
    rest = [axis for axis in range(len(shape)) if axis not in order]  # all of length 1
    values = values.transpose(*rest, *order).reshape([shape[axis] for axis in order])
    if "S" in letters:
        values = _merge(values, page, rgb, name)
    if page.photometric == tifffile.PHOTOMETRIC.PALETTE:
        _check_palette(values, page, name)
    return values


def bright_is_large(values: np.ndarray, page: tifffile.TiffPage) -> np.ndarray:
    """Return grey values in which 0 is black: those of a file that says "white is zero" are turned round.

    Not those of ImageJ, which marks an inverted display in this way and not other values; and not 1-bit
    images, which Python's tifffile marks so by default.
    """
    marked = page.photometric == tifffile.PHOTOMETRIC.MINISWHITE and not page.is_imagej
    if not marked or values.dtype.kind != "u":
        return values
    bits = page.bitspersample if isinstance(page.bitspersample, int) else 8 * values.dtype.itemsize
    return np.asarray(np.subtract(values.dtype.type(2**bits - 1), values))


def _merge(values: np.ndarray, page: tifffile.TiffPage, rgb: str, name: str) -> np.ndarray:
    """Return one channel of samples (..., s): any if they are equal, their mean if `rgb` asks for it."""
    samples = values.shape[-1]
    if page.photometric == tifffile.PHOTOMETRIC.SEPARATED:
        raise ImageError(f"{name}: the image is CMYK, meant for printing; {_SAVE_GREY}")
    alphas = sum(extra in (1, 2) for extra in page.extrasamples)
    if page.photometric == tifffile.PHOTOMETRIC.RGB and samples == 4:
        alphas = 1  # many programs forget to declare it
    colours = max(1, samples - alphas)
    if rgb == "mean" and colours > 1:
        mean = np.asarray(np.mean(values[..., :colours], axis=-1, dtype=np.float64))
        return (mean if values.dtype.kind == "f" else np.rint(mean)).astype(values.dtype)
    for index in range(1, colours):
        if not np.array_equal(values[..., index], values[..., 0], equal_nan=values.dtype.kind == "f"):
            raise ImageError(
                f"{name}: the image has {colours} channels that differ (colour); {_SAVE_GREY}, or average them "
                f'(--rgb mean; in Python rgb="mean"); if these are {samples} slices of a stack, save them as grey pages'
            )
    for index in range(colours, samples):
        alpha = values[..., index]
        if rgb != "mean" and alpha.min() != alpha.max():
            raise ImageError(
                f"{name}: the image has a transparency that varies; {_SAVE_GREY}, or ignore it "
                f'(--rgb mean; in Python rgb="mean"); if these are {samples} slices of a stack, save them as grey pages'
            )
    return np.ascontiguousarray(values[..., 0])


def _check_palette(values: np.ndarray, page: tifffile.TiffPage, name: str) -> None:
    """Raise if the numbers of a palette image are colours by number rather than grey values.

    ImageJ (look-up tables such as "Fire") and Zeiss store grey values; their palette is for display only.
    """
    palette = page.colormap
    if page.is_imagej or page.is_sem or palette is None:
        return
    used = palette[:, np.unique(values).astype(np.int64)].astype(np.int64)
    if not (np.all(used == used[0]) and np.all(np.diff(used[0]) >= 0)):
        raise ImageError(
            f"{name}: the image has a colour palette, so that its numbers are no grey values; "
            "save it as grey (ImageJ: Image > Type > RGB Color, then 8-bit)"
        )
