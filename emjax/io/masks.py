"""What a mask image means: 1 where the beam measured, 0 where it did not, soft weights between.

Programs save masks in many ways (1 bit, 0/1, 0/255, float); here they all become float32 in [0, 1].
"""

import numpy as np

from emjax.io.errors import ImageError


def mask_weights(values: np.ndarray, name: str = "the mask") -> np.ndarray:
    """Return the weights in [0, 1], float32, of a mask in any of the usual forms.

    - bool: False 0, True 1.
    - numbers with two values (0/1, 0/255, -1/7, float 0/255): the smaller is 0, the larger 1; except floats
      that lie within [0, 1] already, which are weights.
    - numbers with one value: all 1, unless that value is 0 (see below); floats within [0, 1] are weights.
    - floats within [0, 1] with more values: soft weights, kept.
    - integers with more values: soft weights on an 8- or 16-bit scale if the largest is 255 or 65535
      (then divided by it); otherwise an error, since a label image or a grey image is no mask.

    Raises:
        ImageError: complex or non-numeric data, NaN or infinite values, more values than a mask has, or no
            measured pixel at all.
    """
    if values.size == 0:
        raise ImageError(f"{name} has no pixels (shape {values.shape}); give one of the image's shape")
    if values.dtype.kind not in "buif":
        raise ImageError(f"{name} holds {values.dtype} values; give bool, integers, or floats in [0, 1]")
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ImageError(f"{name} has NaN or infinite values; mark pixels that were not measured with 0")
    low, high = values.min(), values.max()
    if high == 0 and low == 0:
        raise ImageError(f"{name} is 0 everywhere, so no pixel was measured; non-zero must mean measured")
    if values.dtype.kind == "b":
        return values.astype(np.float32)
    if values.dtype.kind == "f" and low >= 0 and high <= 1:
        weights = values.astype(np.float32)
        if not weights.any():  # float64 weights below the smallest float32
            raise ImageError(f"{name} is practically 0 everywhere (largest weight {high:.3g}); rescale it")
        return weights
    if low == high:
        return np.ones(values.shape, np.float32)
    top = values == high
    if np.all(top | (values == low)):
        return np.asarray(top, np.float32)
    if values.dtype.kind in "ui" and low >= 0 and high in (255, 65535):
        scaled: np.ndarray = values.astype(np.float32)
        scaled /= np.float32(high)
        return scaled
    raise ImageError(
        f"{name} has more than two values, from {low} to {high}; a mask has two values (0 and 1, 0 and 255) "
        "or soft weights (floats in [0, 1], integers up to 255 or 65535): threshold or rescale it"
    )


def fit_mask(mask: np.ndarray, shape: tuple[int, ...], name: str = "the mask") -> np.ndarray:
    """Return the weights of `mask` for an image of `shape`; a 2-D mask serves every slice of a stack.

    The result may be a read-only broadcast view. Raises `ImageError` as `mask_weights` does, or if the shape
    does not fit.
    """
    mask = np.asarray(mask)
    if mask.shape not in (shape, shape[-2:]):
        also = f" or {shape[-2:]} for all slices" if len(shape) == 3 else ""
        raise ImageError(f"{name} has shape {mask.shape}, but the image needs {shape}{also}; choose another")
    return np.broadcast_to(mask_weights(mask, name), shape)
