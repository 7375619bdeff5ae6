"""Linear operators: how a microscope measures, and how an image becomes sparse.

One's own: a subclass of `LinearOperator` made a pytree by `pytree_dataclass`, or a function given to `from_function`.
"""

from emjax._pytree import leaf, pytree_dataclass, static
from emjax.operators.algebra import Adjoint, Compose, Identity, Scale, Stack, Sum, Transpose, stack
from emjax.operators.base import LinearOperator
from emjax.operators.blur import Blur, gaussian_kernel
from emjax.operators.dct import DCT
from emjax.operators.dense import BlockSampling, Blockwise, Dense, bernoulli, gaussian
from emjax.operators.differences import FiniteDifference
from emjax.operators.downsampling import Downsampling
from emjax.operators.fields import GradientLessField, OnField, OnImage, SymmetricGradient
from emjax.operators.fourier import Fourier, SubsampledFourier
from emjax.operators.frames import UndecimatedWavelet, parseval_frame
from emjax.operators.function import Function, Reshape, from_function
from emjax.operators.hadamard import Hadamard
from emjax.operators.patches import Patches
from emjax.operators.pixels import PixelSampling
from emjax.operators.scrambled import Scramble, SubsampledDCT, SubsampledHadamard
from emjax.operators.wavelets import Band, Wavelet

__all__ = [
    "DCT",
    "Adjoint",
    "Band",
    "BlockSampling",
    "Blockwise",
    "Blur",
    "Compose",
    "Dense",
    "Downsampling",
    "FiniteDifference",
    "Fourier",
    "Function",
    "GradientLessField",
    "Hadamard",
    "Identity",
    "LinearOperator",
    "OnField",
    "OnImage",
    "Patches",
    "PixelSampling",
    "Reshape",
    "Scale",
    "Scramble",
    "Stack",
    "SubsampledDCT",
    "SubsampledFourier",
    "SubsampledHadamard",
    "Sum",
    "SymmetricGradient",
    "Transpose",
    "UndecimatedWavelet",
    "Wavelet",
    "bernoulli",
    "from_function",
    "gaussian",
    "gaussian_kernel",
    "leaf",
    "parseval_frame",
    "pytree_dataclass",
    "stack",
    "static",
]
