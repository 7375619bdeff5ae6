"""Linear operators: how a microscope measures, and how an image becomes sparse."""

from emjax.operators.algebra import Adjoint, Compose, Identity, Scale, Stack, Sum, Transpose, stack
from emjax.operators.base import LinearOperator
from emjax.operators.blur import Blur, gaussian_kernel
from emjax.operators.dct import DCT
from emjax.operators.differences import FiniteDifference
from emjax.operators.fourier import Fourier, SubsampledFourier
from emjax.operators.function import Function, Matrix, Reshape, from_function
from emjax.operators.hadamard import Hadamard
from emjax.operators.pixels import PixelSampling
from emjax.operators.scrambled import Scramble, SubsampledDCT, SubsampledHadamard
from emjax.operators.wavelets import Band, Wavelet

__all__ = [
    "DCT",
    "Adjoint",
    "Band",
    "Blur",
    "Compose",
    "FiniteDifference",
    "Fourier",
    "Function",
    "Hadamard",
    "Identity",
    "LinearOperator",
    "Matrix",
    "PixelSampling",
    "Reshape",
    "Scale",
    "Scramble",
    "Stack",
    "SubsampledDCT",
    "SubsampledFourier",
    "SubsampledHadamard",
    "Sum",
    "Transpose",
    "Wavelet",
    "from_function",
    "gaussian_kernel",
    "stack",
]
