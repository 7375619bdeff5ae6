"""Polished duals, the start from half the resolution, and the spacing of certificates: valid bounds, fewer steps."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from solver_problems import x64

from emjax import TV, Box, LeastSquares, Problem, Status, solve
from emjax.operators import FiniteDifference, Identity, PixelSampling
from emjax.solvers import PDHG, loop
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


def test_finer_interpolates_linearly() -> None:
    rng = np.random.default_rng(3)
    fine = Problem(LeastSquares(Identity((65, 66)), jnp.zeros((65, 66))), TV(0.1))
    x = jnp.asarray(rng.random((33, 33)), jnp.float32)
    found, _ = finer(fine, x, jnp.zeros((2, 33, 33)))
    expected = jax.image.resize(x, (66, 66), "linear")[:65]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("shape", [(1, 4), (4, 1), (2, 3), (1, 1)])
def test_differences_of_thin_images(shape: tuple[int, int]) -> None:
    D = FiniteDifference(shape)
    eye = jnp.eye(shape[0] * shape[1]).reshape(-1, *shape)
    dense = jax.vmap(D.forward)(eye).reshape(len(eye), -1)
    duals = jnp.eye(dense.shape[1]).reshape(-1, *D.out_shape)
    np.testing.assert_array_equal(jax.vmap(D.adjoint)(duals).reshape(len(duals), -1).T, dense)


def test_several_steps_are_those_steps() -> None:
    """In pairs, odd or even, the last one plain."""
    solver = PDHG(check_every=7)
    mask = jnp.asarray(np.random.default_rng(4).random((16, 12)) < 0.5, jnp.float32)
    problem = Problem(LeastSquares(PixelSampling(mask), mask * jnp.linspace(0, 1, 12)), TV(0.05))
    plan = solver.prepare(problem)
    several = jax.jit(lambda state, count: loop.several(solver, plan, state, count))
    step = jax.jit(lambda state, last: solver.step(plan, state, last))
    start = solver.init(plan, None)
    for count in range(6):
        state = start
        for i in range(count):
            state = step(state, i == count - 1)
        found = several(start, jnp.int32(count))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        assert float(jnp.max(jnp.sqrt(jnp.sum(found.duals[0] ** 2, 0)))) <= 0.05 * (1 + 1e-6)
