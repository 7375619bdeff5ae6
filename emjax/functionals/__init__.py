"""Closed-form proximal functions and data terms."""

from emjax.functionals.balls import L1Ball
from emjax.functionals.base import Functional
from emjax.functionals.denoisers import as_denoiser
from emjax.functionals.fidelities import Fidelity, HuberLoss, L2Ball, PoissonLikelihood
from emjax.functionals.likelihoods import Ball, Huber, KullbackLeibler
from emjax.functionals.low_rank import NuclearNorm
from emjax.functionals.norms import L1, Box, GroupL1, nonnegative
from emjax.functionals.quadratics import LeastSquares, Quadratic, SquaredDistance

__all__ = [
    "L1",
    "Ball",
    "Box",
    "Fidelity",
    "Functional",
    "GroupL1",
    "Huber",
    "HuberLoss",
    "KullbackLeibler",
    "L1Ball",
    "L2Ball",
    "LeastSquares",
    "NuclearNorm",
    "PoissonLikelihood",
    "Quadratic",
    "SquaredDistance",
    "as_denoiser",
    "nonnegative",
]
