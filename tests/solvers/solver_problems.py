"""Small problems of one shape that the tests of the solvers share, so that few programs are compiled."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from emjax import L1, TV, LeastSquares, Problem, Quadratic, Term
from emjax.operators import DCT, PixelSampling, Wavelet
from emjax.solvers import ADMM, FISTA, PCG, PDHG, CondatVu

SHAPE = (12, 10)
x64 = functools.partial(jax.enable_x64, True)
rng = np.random.default_rng(0)
MASK = (rng.random(SHAPE) < 0.6).astype("f4")
YS = (MASK * (np.linspace(0, 1, 10) > 0.4) + 0.1 * MASK * rng.standard_normal((3, *SHAPE))).astype("f4")
D = np.linspace(0.1, 3, 120, dtype="f4").reshape(SHAPE)


def tv(y: Any = YS[0], weight: Any = 0.1, mask: Any = MASK) -> Problem:
    return Problem(LeastSquares(PixelSampling(mask), y), TV(weight))


def wavelet(y: Any = YS[0], weight: Any = 0.1, mask: Any = MASK) -> Problem:
    return Problem(LeastSquares(PixelSampling(mask), y), Term(L1(weight), Wavelet(SHAPE, "db2")))


def field(y: Any = YS[0], weight: Any = 1.0, mask: Any = MASK) -> Problem:
    return Problem(LeastSquares(PixelSampling(mask), y), Quadratic(DCT(SHAPE), weight * D))


METHODS = {
    "PDHG": (tv, PDHG()),
    "FISTA": (wavelet, FISTA()),
    "PCG": (field, PCG()),
    "ADMM": (tv, ADMM()),
    "CondatVu": (tv, CondatVu()),
}
every_solver = pytest.mark.parametrize(("make", "solver"), METHODS.values(), ids=METHODS)
# The splitting methods are looked at in test_splittings.py besides: what is the loop's own is a slow test for them.
every = pytest.mark.parametrize(
    ("make", "solver"),
    [pytest.param(*m, id=k, marks=pytest.mark.slow if k in ("ADMM", "CondatVu") else ()) for k, m in METHODS.items()],
)
