"""What a mask means. Integers and bool: non-zero where the beam measured. Floats: weights in [0, 1], 0 not measured.

Programs save binary masks with any two numbers (1 bit, 0/1, 0/255, 1/2), so the numbers of integers carry no weights;
only a floating-point mask can hold soft ones, strictly between 0 and 1. Here all become float32 in [0, 1].
"""

import numpy as np

from emjax.io.errors import ImageError


def mask_weights(values: np.ndarray, name: str = "the mask") -> np.ndarray:
    """Return the weights in [0, 1], float32, of a mask by the rule at the top of this file.

    Raises:
        ImageError: complex or non-numeric data, floats outside [0, 1] or NaN, or no measured pixel at all.
    """
    if values.size == 0:
        raise ImageError(f"{name} has no pixels (shape {values.shape}); give one of the image's shape")
    if values.dtype.kind not in "buif":
        raise ImageError(f"{name} holds {values.dtype} values; give bool, integers, or floats in [0, 1]")
    if values.dtype.kind == "f":
        if np.isnan(values).any():
            raise ImageError(f"{name} has NaN values; mark pixels that were not measured with 0")
        low, high = values.min(), values.max()
        if low < 0 or high > 1:
            raise ImageError(
                f"{name} is floating point with values from {low:.6g} to {high:.6g}; floats are weights in [0, 1]: "
                "divide by the largest, or save a binary mask as 8-bit integers"
            )
        weights = values.astype(np.float32)
        if high > 0 and not weights.any():  # float64 weights below the smallest float32
            raise ImageError(f"{name} is practically 0 everywhere (largest weight {high:.3g}); rescale it")
    else:
        weights = (values != 0).astype(np.float32)
    if not weights.any():
        raise ImageError(f"{name} is 0 everywhere, so no pixel was measured; non-zero must mean measured")
    return weights


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
