"""A scan: an image in [0, 1] with the scale back to its grey values, its mask and its metadata.

`original = image * scale + offset`. Integers of 8 and 16 bits are scaled by the range of their type, so that
two scans of one session stay comparable. Floats within [0, 1] that span a thousandth of it are kept. Everything
else (other floats, integers of 32 and 64 bits) goes by the smallest and largest measured value: no detector fills
32 bits, and counts up to 1000 in an int32 file would otherwise become 5 float32 grey levels around 0.5; currents of
1e-12 would lose their squares, and all of a solver's accuracy, below the smallest float32.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from emjax.io.errors import ImageError
from emjax.io.masks import fit_mask
from emjax.io.metadata import Metadata

_BLOCK_PIXELS = 1 << 20
# Floats within [0, 1] of a smaller span than this are stretched.
_SMALL_SPAN = 1e-3


@dataclasses.dataclass(frozen=True, eq=False)
class Scan:
    """An image ready for recovery.

    Attributes:
        image: float32, (h, w) or (z, h, w), in [0, 1]; 0 where `mask` is 0.
        mask: float32 weights in [0, 1] of the same shape (0: not measured), or None if all were measured.
        scale, offset: `original = image * scale + offset`.
        dtype: type of the grey values in the file.
        metadata: pixel size, dwell time, instrument.
    """

    image: np.ndarray
    mask: np.ndarray | None
    scale: float
    offset: float
    dtype: np.dtype[Any]
    metadata: Metadata

    @classmethod
    def from_array(
        cls,
        values: np.ndarray,
        *,
        mask: np.ndarray | None = None,
        missing: float | None = None,
        metadata: Metadata | None = None,
        bits: int | None = None,
        name: str = "the image",
    ) -> "Scan":
        """Scale an array of grey values to [0, 1] by the rule at the top of this file.

        NaN pixels become mask 0 and value 0.

        Args:
            values: bool, integers or floats, shape (h, w) or (z, h, w).
            mask: which pixels were measured, in any form `emjax.io.mask_weights` takes; 2-D serves every
                slice. What lies outside it has no influence on the scale.
            missing: a grey value that means "not measured", e.g. 0; some pixel must have it.
            metadata: as in the file.
            bits: how many bits of an unsigned 8- or 16-bit type are used, e.g. 12; None for all.
            name: how error messages call the image.

        Raises:
            ImageError: complex values, another number of dimensions, no pixels, infinite pixels, nothing
                measured, no pixel of the missing value, or a mask that does not fit.
        """
        values = np.asarray(values)
        if values.dtype.kind not in "buif":
            raise ImageError(f"{name} holds {values.dtype} values; give real numbers (of complex: the magnitude)")
        if values.ndim not in (2, 3):
            raise ImageError(f"{name} has shape {values.shape}; expected (h, w) or (z, h, w): take one channel")
        if values.size == 0:
            raise ImageError(f"{name} has no pixels (shape {values.shape}); take the scan again")
        weights = None if mask is None else fit_mask(mask, values.shape, f"the mask for {name}")
        measured = _measured(values, weights, missing, name)
        low, high = _extent(values, measured)
        scale, offset = _scaling(values.dtype, low, high, bits)
        if not math.isfinite(scale):
            raise ImageError(f"{name} has values from {low:.3g} to {high:.3g}, too far apart; mark broken ones as NaN")
        if weights is not None and measured is not None:
            weights = np.where(measured, weights, np.float32(0))
        elif measured is not None:
            weights = measured.astype(np.float32)
        elif weights is not None and weights.min() == 1:
            weights = None
        return cls(
            image=_encode(values, measured, scale, offset),
            mask=weights,
            scale=scale,
            offset=offset,
            dtype=np.dtype(values.dtype),
            metadata=metadata or Metadata(),
        )

    def with_mask(self, mask: np.ndarray) -> "Scan":
        """Return the scan with fewer pixels measured: `mask` times the mask it had.

        Pixels where `mask` is 0 become 0. Where the scale depends on the measured values, it is taken anew
        from what is left. If pixels outside the mask hold wild values (-1e30), `read(path, mask=mask)` is
        exact and this is not; it raises then.

        Args:
            mask: shape of the image, or (h, w) for every slice of a stack; any form `mask_weights` takes.

        Raises:
            ImageError: a mask of another shape, with other values than a mask has, or with nothing measured.
        """
        weights = fit_mask(mask, self.image.shape)
        if self.mask is not None:
            weights = weights * self.mask
        measured = weights > 0
        if not measured.any():
            raise ImageError("the mask is 0 wherever the scan was measured, so no pixel is left; invert the mask?")
        low, high = _extent(self.image, measured)
        scale, offset = self.scale, self.offset
        if not _fixed_range(self.dtype) and (scale, offset) != (1.0, 0.0):
            scale, offset = _scaling(self.dtype, low * scale + offset, high * scale + offset, None)
        if (scale, offset) != (self.scale, self.offset) and high - low < 1e-4:
            raise ImageError(
                "the pixels inside the mask span less than 1/10000 of the image's grey range, too little for "
                "float32; give the mask when reading: read(path, mask=...)"
            )
        image = np.where(measured, self.image, np.float32(0))
        if (scale, offset) != (self.scale, self.offset):
            image = _encode(image, measured, scale / self.scale, (offset - self.offset) / self.scale)
        return dataclasses.replace(
            self, image=image, mask=None if weights.min() == 1 else weights, scale=scale, offset=offset
        )

    def original(self, image: np.ndarray, dtype: Any = None) -> np.ndarray:
        """Map an image in [0, 1] (any shape) back to the grey values of the file.

        Integers are rounded and clipped to the type, floats are not. `dtype` defaults to the file's. Another
        integer type than the file's takes its own full range instead of `scale` and `offset`.
        """
        return decode(image, dtype or self.dtype, self)

    def check_dtype(self, dtype: Any) -> None:
        """Raise `ImageError` if `dtype` cannot hold the scan's grey values: meant to be called before long work."""
        ends = np.array(_extent(self.image, None if self.mask is None else self.mask > 0))
        low, high = self.original(ends, dtype)
        if low == high and ends[0] != ends[1]:
            given = ends * self.scale + self.offset
            raise ImageError(
                f"{np.dtype(dtype)} cannot tell the scan's grey values {given[0]:.6g} and {given[1]:.6g} apart; "
                "use float32"
            )


def decode(image: np.ndarray, dtype: Any, like: Scan | None) -> np.ndarray:
    """Return grey values of `dtype` for an image in [0, 1], as `Scan.original` describes.

    Raises:
        ImageError: a type that is no real number, NaN or infinite pixels for an integer type, or grey values
            beyond the range of a float type.
    """
    dtype = np.dtype(dtype)
    if dtype.kind not in "buif":
        raise ImageError(f"cannot write {dtype} images; choose an integer or a float type")
    scale, offset = (1.0, 0.0) if like is None else (like.scale, like.offset)
    if dtype.kind in "bui" and (like is None or dtype != like.dtype):
        scale, offset = _full_range(dtype)
    result = np.empty(image.shape, dtype)
    for index in _blocks(image.shape):
        block = image[index].astype(np.float64)
        block *= scale
        block += offset
        if dtype.kind != "f":
            if not np.isfinite(block).all():
                raise ImageError(f"{dtype} cannot hold the NaN or infinite pixels of the image; use float32")
            np.rint(block, out=block)
            np.clip(block, *_limits(dtype), out=block)
        with np.errstate(over="ignore"):  # looked for below
            result[index] = block
        if dtype.kind == "f" and (lost := np.isinf(result[index]) & np.isfinite(block)).any():
            limit, wider = float(np.finfo(dtype).max), "float32" if dtype.itemsize == 2 else "float64"
            raise ImageError(
                f"{dtype} holds numbers from {-limit:.6g} to {limit:.6g}, but the image has {block[lost][0]:.6g}; "
                f"use {wider}"
            )
    return result


def _measured(values: np.ndarray, weights: np.ndarray | None, missing: float | None, name: str) -> np.ndarray | None:
    """Return where the image was measured as bool, or None for everywhere; check that the rest is finite."""
    measured = None if weights is None else weights > 0
    if missing is not None:
        # In the type of floats: 0.1 in a float32 file is not 0.1. What overflows there, no pixel has.
        with np.errstate(over="ignore"):
            wanted = values.dtype.type(missing) if values.dtype.kind == "f" else missing
        known = ~np.isnan(values) if math.isnan(missing) else values != wanted
        if known.all() or (math.isinf(wanted) and not math.isinf(missing)):
            low, high = (f.reduce(values, axis=None) for f in (np.fmin, np.fmax))  # past NaN, without a warning
            raise ImageError(
                f"{name}: no pixel has the value {missing:.6g}, given as missing; the {values.dtype} pixels go from "
                f"{low:.6g} to {high:.6g}: give another or leave it out (NaN pixels are found by themselves)"
            )
        measured = known if measured is None else measured & known
    if values.dtype.kind == "f":
        infinite = np.isinf(values)
        if measured is not None:
            infinite &= measured
        if infinite.any():
            infinities = np.count_nonzero(infinite)
            raise ImageError(f"{name} has {infinities} infinite pixels; mark them as NaN if they were not measured")
        known = ~np.isnan(values)
        measured = known if measured is None else measured & known
    if measured is None or measured.all():
        return None
    if not measured.any():
        raise ImageError(f"{name} has no measured pixel (all NaN, masked, or of the missing value); check the mask")
    return measured


def _extent(values: np.ndarray, measured: np.ndarray | None) -> tuple[Any, Any]:
    """Return the smallest and largest measured value, as Python numbers (integers exactly)."""
    if measured is None:
        return values.min().item(), values.max().item()
    if values.dtype.kind == "b":
        return False, True
    # the initial values of `where` reductions: any measured value does
    first = values.flat[int(np.argmax(measured))]
    low = np.min(values, where=measured, initial=first)
    return low.item(), np.max(values, where=measured, initial=first).item()


def _fixed_range(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "b" or (dtype.kind in "ui" and dtype.itemsize <= 2)


def _full_range(dtype: np.dtype[Any]) -> tuple[float, float]:
    if dtype.kind == "b":
        return 1.0, 0.0
    info = np.iinfo(dtype)
    return float(info.max - info.min), float(info.min)


def _scaling(dtype: np.dtype[Any], low: Any, high: Any, bits: int | None) -> tuple[float, float]:
    """Return (scale, offset) by the rule at the top of this file."""
    if _fixed_range(dtype):
        if dtype.kind == "u" and bits is not None and bits < 8 * dtype.itemsize:
            return float(2**bits - 1), 0.0
        return _full_range(dtype)
    if dtype.kind == "f" and low >= 0 and high <= 1 and (high - low >= _SMALL_SPAN or high == low >= _SMALL_SPAN):
        return 1.0, 0.0
    if high == low:  # a constant image: 0 in [0, 1], and no division by 0
        return 1.0, float(low)
    return float(high - low), float(low)


def _limits(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the float64 numbers between which a cast to the integer type cannot overflow."""
    if dtype.kind == "b":
        return 0.0, 1.0
    info = np.iinfo(dtype)
    top = float(info.max)
    return float(info.min), top if int(top) <= info.max else float(np.nextafter(top, 0))


def _encode(values: np.ndarray, measured: np.ndarray | None, scale: float, offset: float) -> np.ndarray:
    """Return `(values - offset) / scale` as float32, 0 where not measured; float64 inside, block by block."""
    image = np.empty(values.shape, np.float32)
    for index in _blocks(values.shape):
        block = values[index].astype(np.float64)
        if measured is not None:
            block[~measured[index]] = offset
        block -= offset
        block /= scale
        image[index] = block
    return image


def _blocks(shape: tuple[int, ...]) -> Iterator[tuple[Any, ...]]:
    """Yield indices that cut an array of any shape into pieces of about a million pixels."""
    if len(shape) < 2 or math.prod(shape) <= _BLOCK_PIXELS:
        yield (...,)
        return
    rows = max(1, _BLOCK_PIXELS // max(1, shape[-1]))
    for outer in np.ndindex(*shape[:-2]):
        for start in range(0, shape[-2], rows):
            yield (*outer, slice(start, start + rows))
