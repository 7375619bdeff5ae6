"""Judging a reconstruction: PSNR, SSIM and Fourier ring correlation.

All are pure functions of arrays: the last `ndim` axes (2 or 3, static) are space, every axis before them is a
batch axis and appears in the answer. Images and truths have the same shape and are float32 or float64, as
the answer then is. All can be jitted, mapped and differentiated.
"""

from .frc import FRC, fourier_ring_correlation, resolution
from .psnr import mae, mse, psnr
from .ssim import ssim

__all__ = ["FRC", "fourier_ring_correlation", "mae", "mse", "psnr", "resolution", "ssim"]
