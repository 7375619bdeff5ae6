"""Closed-form proximal functions and data terms."""

from emjax.functionals.base import Functional
from emjax.functionals.norms import L1, Box, GroupL1
from emjax.functionals.quadratics import LeastSquares, Quadratic, SquaredDistance

__all__ = ["L1", "Box", "Functional", "GroupL1", "LeastSquares", "Quadratic", "SquaredDistance"]
