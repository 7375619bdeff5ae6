"""`solve` as a function: statuses, warm starts, history, progress, batches, transformations, one trace, errors."""

import importlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax
from solver_problems import MASK, SHAPE, YS, every, every_solver, tv, wavelet, x64

from emjax import L1, TV, LeastSquares, Problem, Solution, Term, solve
from emjax.operators import Dense, Identity, PixelSampling, SubsampledDCT, Wavelet
from emjax.solvers import ADMM, FISTA, PDHG, CondatVu, Solver, Status, Unrolled


@every
def test_statuses(make: Any, solver: Solver) -> None:
    done = solve(make(), solver, gap=1e-3)
    assert done.status == Status.CONVERGED and 0 < done.gap <= 1e-3 and done.check() is done
    short = solve(make(), solver, gap=1e-6, max_steps=3)
    assert short.status == Status.STEP_LIMIT and short.steps == 3 and short.gap > 1e-6
    exact = solve(make(), solver, gap=0.0, max_steps=20_000)
    assert exact.status == Status.STALLED and exact.steps < 20_000 and 0 < exact.gap < 1e-4
    nan = solve(make(np.where(MASK == 1, np.nan, YS[0])), solver)
    late = solver.check_every if getattr(solver, "looks_late", False) else 0
    assert nan.status == Status.NON_FINITE and jnp.isinf(nan.gap) and nan.steps == late
    for bad, words in ((short, "max_steps"), (exact, "float64"), (nan, "measurements")):
        with pytest.raises(RuntimeError, match=f"1 of 1 items did not converge.*{words}"):
            bad.check()


@every
def test_the_objective_belongs_to_the_value(make: Any, solver: Solver) -> None:
    """At every stop, also where the step sizes are about to change, the certificate is of what is returned."""
    with x64():
        problem = make(YS[0].astype(float), 0.1, MASK.astype(float))
        for steps in (0, 1, 20, 60, 140, 300):
            s = solve(problem, solver, gap=0.0, max_steps=steps)
            np.testing.assert_allclose(s.objective, problem.objective(s.value), rtol=1e-13)


@every
def test_a_solution_continues_where_it_ended(make: Any, solver: Solver) -> None:
    problem = make()
    first = solve(problem, solver, gap=1e-3)
    again = solve(problem, solver, gap=1e-3, start=first)
    assert again.steps == 0 and again.status == Status.CONVERGED
    np.testing.assert_allclose(again.value, first.value, atol=1e-6)
    cold = solve(problem, solver, gap=1e-5, max_steps=5000)
    warm = solve(problem, solver, gap=1e-5, max_steps=0, start=cold.value)
    np.testing.assert_allclose(warm.value, cold.value, atol=1e-6)
    if not isinstance(solver, PDHG | ADMM | CondatVu):  # whose duals an image does not tell
        assert solve(problem, solver, gap=1e-5, max_steps=5000, start=cold.value).steps < cold.steps


@every
def test_a_solution_starts_a_neighbouring_problem(make: Any, solver: Solver) -> None:
    """Its duals, residuals and momentum belong to another problem: the gap has to be true of this one all the same."""
    with x64():
        y, mask = YS.astype(float), MASK.astype(float)
        other = solve(make(y[0], 0.3, mask), solver, gap=1e-6)
        problem = make(y[1], 0.05, mask)
        best = solve(problem, solver, gap=1e-9, max_steps=20_000)
        for steps in (0, 1, 7, 20_000):
            s = solve(problem, solver, gap=1e-7, max_steps=steps, start=other)
            assert s.objective - best.objective <= s.gap * s.objective
        assert s.status == Status.CONVERGED


@every
def test_history(make: Any, solver: Solver) -> None:
    s = solve(make(), solver, gap=1e-2, history=12)
    rows = int((s.history.steps >= 0).sum())
    assert 1 < rows < 12 and s.history.steps[0] == 0 and s.history.steps[rows - 1] == s.steps
    if getattr(solver, "looks_late", False):  # for the first time without a history, and walks the same way
        plain = solve(make(), solver, gap=1e-2)
        assert plain.steps == s.steps
        np.testing.assert_allclose(plain.value, s.value, atol=1e-6)
    assert bool((s.history.steps[rows:] == -1).all()) and bool(jnp.isnan(s.history.gap[rows:]).all())
    assert s.history.gap[rows - 1] == s.gap and s.history.objective[rows - 1] == s.objective
    assert bool((s.history.gap[: rows - 1] > 1e-2).all())
    long = solve(make(), solver, gap=0.0, max_steps=400, history=12)
    if long.status == Status.STEP_LIMIT:  # more checks than rows: the last row holds the last
        assert long.history.steps[-1] == 400 and bool((long.history.steps[:rows] == s.history.steps[:rows]).all())


def test_progress_is_reported_between_chunks() -> None:
    calls: list[tuple[int, float]] = []
    often = FISTA(check_every=1)
    s = solve(wavelet(YS), often, gap=1e-5, progress=lambda steps, gap: calls.append((steps, gap)))
    silent = solve(wavelet(YS), often, gap=1e-5)
    assert len(calls) > 1 and [c[0] for c in calls] == sorted(c[0] for c in calls)
    assert calls[-1] == (int(s.steps.max()), pytest.approx(float(s.gap.max())))
    np.testing.assert_allclose(s.objective, silent.objective, rtol=1e-5)


@every_solver
def test_batches(make: Any, solver: Solver) -> None:
    """Items of a batch are what they are alone, beside a neighbour 1000 times as bright and one that is NaN."""
    y = YS * np.array([1, 1000, 1], "f4")[:, None, None]
    weight = np.array([0.1, 100, 0.2], "f4")[:, None, None]
    together = solve(make(y, weight), solver)
    for i in range(3):
        alone = solve(make(y[i], weight[i]), solver)
        np.testing.assert_allclose(together.value[i], alone.value, atol=1e-6 * np.abs(alone.value).max())
        assert together.steps[i] == alone.steps and together.status[i] == Status.CONVERGED
    y[1, MASK == 1] = np.nan
    broken = solve(make(y, weight), solver)
    assert broken.status.tolist() == [Status.CONVERGED, Status.NON_FINITE, Status.CONVERGED]
    for name in ("value", "steps", "gap", "objective"):
        a, b = getattr(together, name), getattr(broken, name)
        assert bool((a[::2] == b[::2]).all()), name
    with pytest.raises(RuntimeError, match="1 of 3"):
        broken.check()


def test_masks_weights_and_measurements_broadcast() -> None:
    masks = np.stack([MASK, 1 - MASK])[:, None]  # (2, 1, h, w)
    weights = np.full((3, 1, 1), 0.1, "f4")
    s = solve(wavelet(YS, weights, masks), max_steps=40)
    assert s.value.shape == (2, 3, *SHAPE) and s.gap.shape == s.status.shape == (2, 3)
    alone = solve(wavelet(YS[2], 0.1, 1 - MASK), max_steps=40)
    np.testing.assert_allclose(s.value[1, 2], alone.value, atol=1e-6)
    again = solve(wavelet(YS, weights, masks), start=s, max_steps=0)
    np.testing.assert_allclose(again.value, s.value, atol=1e-6)


def test_a_batch_over_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shares of the threads join to the same batch, also where they do not divide it, and in another precision."""
    ys = np.concatenate([YS, YS[:2] + 0.1]).astype("f4")
    cores = importlib.import_module("emjax.solvers.cores")
    monkeypatch.setattr(cores, "_available", lambda: 1)
    one = solve(tv(ys), gap=1e-2, history=4)
    monkeypatch.setattr(cores, "_available", lambda: 3)
    several = solve(tv(ys), gap=1e-2, history=4)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(several), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    with x64():
        assert solve(tv(ys.astype("f8")), gap=1e-2).check().value.dtype == jnp.float64


def test_inside_jit_vmap_and_scan() -> None:
    def recover(y: jax.Array, weight: jax.Array) -> jax.Array:
        return solve(tv(y, weight), PDHG(), max_steps=40).value

    weights = jnp.array([0.05, 0.2])
    expected = np.stack([[recover(y, w) for w in weights] for y in YS])

    @jax.jit
    def program(ys: jax.Array) -> tuple[jax.Array, jax.Array]:
        nested = jax.vmap(jax.vmap(recover, (None, 0)), (0, None))(ys, weights)
        return nested, lax.scan(lambda c, y: (c, recover(y, weights[0])), 0, ys)[1]

    nested, scanned = program(YS)
    np.testing.assert_allclose(nested, expected, atol=1e-6)
    np.testing.assert_allclose(scanned, expected[:, 0], atol=1e-6)


@every_solver
def test_export(make: Any, solver: Solver) -> None:
    def recover(y: jax.Array, weight: jax.Array) -> Solution:
        return solve(make(y, weight), solver)

    shapes = jax.ShapeDtypeStruct(YS.shape, "f4"), jax.ShapeDtypeStruct((3, 1, 1), "f4")
    assert export.export(jax.jit(recover), platforms=("cpu", "cuda", "tpu"))(*shapes).platforms == (
        "cpu",
        "cuda",
        "tpu",
    )


@every_solver
def test_one_trace(make: Any, solver: Solver) -> None:
    compiled = importlib.import_module("emjax.solvers.solve")._compiled
    solve(make(YS[0], 0.1, MASK), solver, gap=1e-3, max_steps=10)
    before = compiled._cache_size()
    solve(make(YS[1], 0.3, 1 - MASK), solver, gap=1e-2, max_steps=17)
    solve(make(YS[2], np.float32(0.2), MASK.astype(bool)), solver, gap=jnp.float32(0.5), max_steps=jnp.int32(3))
    assert compiled._cache_size() == before


@every
def test_float32_stays_float32_under_x64(make: Any, solver: Solver) -> None:
    with x64():
        s = solve(make(YS[0], np.float32(0.1), MASK), solver, gap=1e-3)
        assert s.value.dtype == s.gap.dtype == s.objective.dtype == jnp.float32 and s.status == Status.CONVERGED


def test_a_derivative_without_a_way_is_refused_with_advice() -> None:
    with pytest.raises(ValueError, match=r"gradient=emjax\.solvers\.Implicit\(\)"):
        jax.grad(lambda y: solve(tv(y), max_steps=20).value.sum())(YS[0])
    stopped = jax.grad(lambda y: solve(tv(lax.stop_gradient(y)), max_steps=20).value.sum() + y.sum())(YS[0])
    assert bool((stopped == 1).all())


@every
def test_unrolled_gradients(make: Any, solver: Solver) -> None:
    """Against central differences in float64: measurements, weight, mask; and over a batch."""
    with x64():
        target = np.linspace(0, 1, 120).reshape(SHAPE)

        @jax.jit
        def losses(*parts: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
            """The losses of a batch, and the gradient of their sum."""

            def loss(*parts: jax.Array) -> tuple[jax.Array, jax.Array]:
                s = solve(make(*parts), solver, gradient=Unrolled(steps=11))
                each = jnp.sum((s.value - target) ** 2, (1, 2))
                return each.sum(), each

            gradients, each = jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(*parts)
            return each, gradients

        r, h = np.random.default_rng(3), 1e-6
        at = (YS[0] + 0.05 * r.random(SHAPE), np.array([[0.11]]), np.where(MASK > 0, r.uniform(0.5, 1.5, SHAPE), 0.0))
        directions = [r.standard_normal(v.shape) * (v != 0) for v in at]
        # Every part is moved in its turn, forward and back; the last two items stay, one of them twice as bright.
        moves = [tuple(s * h * d * (i == j) for j, d in enumerate(directions)) for i in range(3) for s in (1, -1)]
        items = [tuple(v + m for v, m in zip(at, move, strict=True)) for move in moves] + [(2 * at[0], *at[1:]), at]
        each, gradients = losses(*(np.stack(v) for v in zip(*items, strict=True)))
        for i, (g, direction) in enumerate(zip(gradients, directions, strict=True)):
            slope = float(each[2 * i] - each[2 * i + 1]) / (2 * h)
            assert float(jnp.vdot(g[-1], direction)) == pytest.approx(slope, rel=1e-5) and slope != 0


def test_unrolled_reports_its_certificate() -> None:
    s = solve(tv(), PDHG(), gradient=Unrolled(steps=200))
    reference = solve(tv(), PDHG(balance=False), gap=0.0, max_steps=200)
    assert s.steps == 200 and 0 < s.gap < 1e-2
    np.testing.assert_allclose(s.objective, reference.objective, rtol=1e-3)


@pytest.mark.parametrize("prior", ["tv", "wavelets"])
@pytest.mark.parametrize("kind", ["all", "pixels", "dct", "matrix"])
def test_float32_stays_so_under_x64_whatever_the_weights(kind: str, prior: str) -> None:
    rng = np.random.default_rng(0)
    shape = (16, 16)
    mask, x = (rng.random(shape) < 0.5).astype("f4"), rng.random(shape).astype("f4")
    with x64():
        operators = {"all": Identity(shape), "pixels": PixelSampling(mask), "dct": SubsampledDCT(mask)}
        A = operators.get(kind, Dense(rng.standard_normal((60, 256)).astype("f4"), shape))
        weight = np.float64(0.05)
        term = TV(weight) if prior == "tv" else Term(L1(weight), Wavelet(shape, "haar"))
        s = solve(Problem(LeastSquares(A, A(jnp.asarray(x))), term), max_steps=20)
        assert s.value.dtype == s.gap.dtype == jnp.float32


def test_a_real_start_of_a_complex_problem() -> None:
    rng = np.random.default_rng(0)
    matrix = (rng.standard_normal((6, 12)) + 1j * rng.standard_normal((6, 12))).astype("c8")
    problem = Problem(LeastSquares(Dense(matrix), matrix @ np.ones(12, "c8")), L1(0.1))
    s = solve(problem, start=np.ones(12), gap=1e-3)
    assert s.status == Status.CONVERGED and jnp.iscomplexobj(s.value)
