"""Polished duals, the start from half the resolution, and the spacing of certificates: valid bounds, fewer steps."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from solver_problems import x64

from emjax import TV, Box, LeastSquares, Problem, Status, solve
from emjax.operators import PixelSampling
from emjax.solvers import PDHG
from emjax.solvers.coarse import coarser, finer

rng = np.random.default_rng(3)
SHAPE = (65, 66)
TRUTH = (np.add.outer(np.arange(65), np.arange(66)) % 40 > 18).astype(float)
SEEN = (rng.random(SHAPE) < 0.3).astype(float)
Y = TRUTH + 0.05 * rng.standard_normal(SHAPE)


def problem(dtype: Any, mask: Any = SEEN, isotropic: bool = True, *more: Any) -> Problem:
    mask = np.asarray(mask, dtype)
    return Problem(LeastSquares(PixelSampling(mask), mask * np.asarray(Y, dtype)), TV(dtype(0.05), isotropic), *more)


@pytest.mark.parametrize(
    ("mask", "isotropic", "more"),
    [(SEEN, True, ()), (SEEN * (0.3 + 0.7 * rng.random(SHAPE)), False, (Box(0.2, 0.7),))],
    ids=["mask", "soft mask, anisotropic, active box"],
)
def test_the_gap_is_never_below_the_truth(mask: Any, isotropic: bool, more: Any) -> None:
    """In float32, against an optimum in float64; and not far above it once it is small."""
    with x64():
        exact = problem(np.float64, np.asarray(mask, np.float32), isotropic, *more)
        best = solve(exact, PDHG(), gap=1e-6, max_steps=6000)
        optimum, certain = float(best.objective), float(best.gap)
        assert certain < 1e-5
    single = problem(np.float32, mask, isotropic, *more)
    for gap in (1e-2, 1e-3, 1e-4):
        s = solve(single, PDHG(), gap=gap)
        assert s.status == Status.CONVERGED
        with x64():
            true = float(exact.objective(jnp.asarray(s.value, float))) / optimum - 1
        assert -certain - 1e-6 <= true <= float(s.gap)
    assert int(s.steps) <= 850  # 998 with the duals as they are


def test_an_image_of_blocks_costs_the_same_at_half_the_resolution() -> None:
    with x64():
        fine = problem(np.float64, np.ones(SHAPE))
        half = coarser(fine)
        x = rng.random(half.in_shape)
        blocks = np.repeat(np.repeat(x, 2, 0), 2, 1)[:65, :66]
        # Anisotropic and away from the cut edge both are exact: look at even sides.
        even = Problem(LeastSquares(PixelSampling(np.ones((64, 66))), Y[:64]), TV(0.05, False))
        offset = even.objective(blocks[:64]) - coarser(even).objective(x[:32])
        flat = even.objective(jnp.zeros((64, 66))) - coarser(even).objective(jnp.zeros((32, 33)))
        np.testing.assert_allclose(offset, flat, rtol=1e-12)
        _, p = finer(fine, jnp.asarray(x), jnp.asarray(rng.standard_normal((2, *x.shape))))
        assert p.shape == (2, *SHAPE) and float(jnp.max(jnp.linalg.norm(p, axis=0))) <= 0.05 * (1 + 1e-12)
