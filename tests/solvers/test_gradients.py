"""Derivatives of the optimum: against central differences and unrolled ones, in all their transformations."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax
from solver_problems import MASK, SHAPE, YS, x64

from emjax import L1, TGV, TV, Box, L2Ball, LeastSquares, Problem, Quadratic, Term, solve
from emjax.operators import DCT, Blur, Dense, PixelSampling, Wavelet
from emjax.solvers import ADMM, FISTA, PCG, PDHG, CondatVu, Implicit, OneStep, Solver, Unrolled

rng = np.random.default_rng(0)
EDGES = np.add.outer(np.arange(12) > 5, np.arange(10) > 3) / 2
NOISY = EDGES + 0.1 * rng.standard_normal(SHAPE)
SOFT = rng.uniform(0.5, 1.5, SHAPE)
MATRIX = rng.standard_normal((70, 120)) / 10
SPIKES = MATRIX @ (rng.standard_normal(120) * (np.arange(120) % 9 == 0)) + 0.02 * rng.standard_normal(70)
KERNEL = np.outer([1.0, 2, 1], [1, 2, 1]) / 16
D = np.linspace(0.1, 3, 120).reshape(SHAPE)
TARGET = np.linspace(0, 1, 120)
EXACT = Implicit(tolerance=1e-9, max_steps=20_000)


def tv(y: Any, weight: Any, mask: Any) -> Problem:
    return Problem(LeastSquares(PixelSampling(mask), y), TV(weight))


def lasso(y: Any, weight: Any, matrix: Any) -> Problem:
    return Problem(LeastSquares(Dense(matrix), y), L1(weight))


def wavelet(y: Any, weight: Any, mask: Any) -> Problem:
    return Problem(LeastSquares(PixelSampling(mask), y), Term(L1(weight), Wavelet(SHAPE, "db2")))


def ball(y: Any, radius: Any, mask: Any) -> Problem:
    return Problem(L2Ball(PixelSampling(mask), y, radius), TV(1.0))


def bpdn(y: Any, radius: Any, matrix: Any) -> Problem:
    return Problem(L2Ball(Dense(matrix), y, radius), L1(1.0))


def blur(y: Any, weight: Any, kernel: Any) -> Problem:
    return Problem(LeastSquares(Blur(kernel, SHAPE), y), TV(weight), Box(-1.0, 3.0))


def field(y: Any, weight: Any, mask: Any) -> Problem:
    return Problem(LeastSquares(PixelSampling(mask), y), Quadratic(DCT(SHAPE), weight * D))


def tgv(y: Any, weight: Any, mask: Any) -> Problem:
    return Problem(LeastSquares(PixelSampling(mask), y), TGV(weight))


IMAGE, LIST = (SOFT * NOISY, np.array(0.1), SOFT), (SPIKES, np.array(0.05), MATRIX)
CASES: dict[str, tuple[Any, Solver, tuple[np.ndarray, ...]]] = {
    "tv": (tv, PDHG(), IMAGE),
    "l1, matrix": (lasso, FISTA(), LIST),
    "l2-ball, matrix": (bpdn, PDHG(), (SPIKES, np.array(0.5), MATRIX)),
    "spectral": (field, PCG(), (SOFT * NOISY, np.array(1.0), SOFT)),
    "l1, wavelets": (wavelet, FISTA(), IMAGE),
    "l2-ball, tv": (ball, PDHG(), (SOFT * NOISY, np.array(1.1), SOFT)),
    "tv, blur": (blur, PDHG(), (NOISY, np.array(0.02), KERNEL)),
    "tgv": (tgv, PDHG(), IMAGE),
    "tv, ADMM": (tv, ADMM(), IMAGE),
    "tv, CondatVu": (tv, CondatVu(), IMAGE),
}
slow = functools.partial(pytest.param, marks=pytest.mark.slow)
SLOW = ("tv, ADMM", "spectral", "l2-ball, tv", "l1, wavelets", "tgv", "tv, blur", "tv, CondatVu")
cases = pytest.mark.parametrize(
    ("make", "solver", "at"),
    [pytest.param(*v, id=k, marks=pytest.mark.slow if k in SLOW else ()) for k, v in CASES.items()],
)


@cases
def test_implicit_derivatives_are_those_of_the_optimum(make: Any, solver: Solver, at: tuple[np.ndarray, ...]) -> None:
    """Forward, reverse and central differences, by measurements, weight, and the operator's own array, as a batch."""
    r, h = np.random.default_rng(3), 1e-6
    with x64():
        moves = [r.standard_normal(v.shape) / np.sqrt(v.size) for v in at]
        each = [tuple(m * (i == j) for j, m in enumerate(moves)) for i in range(3)]

        def loss(*parts: jax.Array) -> jax.Array:
            s = solve(make(*parts), solver, gap=1e-13, max_steps=60_000, gradient=EXACT)
            return jnp.sum((s.value.ravel() - TARGET.astype(s.value.dtype)) ** 2)

        @jax.jit
        def derivatives(move: Any) -> Any:
            slope = jax.vmap(lambda m: jax.jvp(loss, at, m)[1])(move)
            return slope, jax.grad(loss, argnums=(0, 1, 2))(*at)

        forward, reverse = derivatives(tuple(np.stack(m) for m in zip(*each, strict=True)))
        plain = jax.jit(loss)
        for i, move in enumerate(each):
            ends = [plain(*(v + s * h * m for v, m in zip(at, move, strict=True))) for s in (1, -1)]
            slope = float(ends[0] - ends[1]) / (2 * h)
            assert slope != 0
            assert float(forward[i]) == pytest.approx(slope, rel=1e-4)
            assert float(jnp.vdot(reverse[i], moves[i])) == pytest.approx(slope, rel=1e-4)


@functools.partial(jax.jit, static_argnames="name")
def gradients(name: str, way: Any, at: tuple[Any, ...], start: Any = None, gap: Any = 1e-12) -> Any:
    make, solver, _ = CASES[name]

    def loss(parts: tuple[Any, ...]) -> jax.Array:
        s = solve(make(*parts), solver, gap=gap, max_steps=20_000, start=start, gradient=way)
        return jnp.sum((s.value.ravel() - TARGET.astype(s.value.dtype)) ** 2)

    return jax.grad(loss)(at)


@pytest.mark.parametrize("name", [slow("tv"), "l1, matrix", slow("l2-ball, matrix"), slow("l2-ball, tv")])
def test_implicit_derivatives_are_unrolled_ones(name: str) -> None:
    """Of steps from the optimum, with the step sizes found there, by measurements, the weight or radius, and the
    matrix or the weights of a mask; the last step alone has a part of them."""
    make, solver, at = CASES[name]
    steps = 8000 if name in ("tv", "l2-ball, tv") else 1000  # as many as a solve to 1e-12 takes
    with x64():
        optimum = solve(make(*at), solver, gap=1e-12, max_steps=20_000)
        implicit = gradients(name, EXACT, at, optimum)
        unrolled = gradients(name, Unrolled(steps), at, optimum)
        for a, b in zip(implicit, unrolled, strict=True):
            assert float(jnp.linalg.norm(b)) > 0 and float(jnp.linalg.norm(a - b)) <= 1e-4 * float(jnp.linalg.norm(b))
        if name == "l2-ball, tv":  # whose last step alone points the other way by the radius
            return
        last = gradients(name, OneStep(), at, optimum)
        for b, c in zip(unrolled, last, strict=True):
            assert 0 < float(jnp.linalg.norm(c - b)) < float(jnp.linalg.norm(b)) and float(jnp.vdot(c, b)) > 0


@pytest.mark.slow
def test_more_of_the_last_steps_come_nearer() -> None:
    with x64():
        exact = gradients("l1, wavelets", EXACT, IMAGE, gap=1e-10)[0]
        near = gradients("l1, wavelets", OneStep(40), IMAGE, gap=1e-10)[0]
        assert float(jnp.linalg.norm(near - exact)) < 1e-3 * float(jnp.linalg.norm(exact))


def test_batches_differentiate_item_by_item() -> None:
    """A batch, a `vmap` and a `scan`, in float32, beside an item that is NaN; only `value` has a derivative."""
    weight = np.array([0.1, 0.2, 0.1], "f4")[:, None, None]

    def value(y: jax.Array, weight: jax.Array) -> jax.Array:
        s = solve(wavelet(y, weight, MASK), FISTA(), gap=1e-5, gradient=Implicit())
        return jnp.sum(s.value**2) + 0 * (jnp.sum(s.objective) + jnp.sum(s.gap) + jnp.sum(s.state.x))

    @jax.jit
    def program(ys: jax.Array) -> Any:
        each = jax.grad(value, argnums=(0, 1))
        return (
            jax.grad(value, argnums=(0, 1))(ys, weight),
            jax.vmap(each)(ys, weight[:, 0, 0]),
            lax.scan(lambda c, v: (c, each(*v)), 0, (ys, weight[:, 0, 0]))[1],
        )

    together, mapped, scanned = program(YS)
    for a, b, c in zip(together, mapped, scanned, strict=True):
        assert a.dtype == jnp.float32 and float(jnp.abs(b).max()) > 0
        np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(b, c, rtol=1e-4, atol=1e-4)
    broken = YS.copy()
    broken[1, MASK == 1] = np.nan
    np.testing.assert_allclose(program(broken)[0][0][::2], together[0][::2], rtol=1e-5, atol=1e-5)


def test_the_solve_is_the_same_and_start_and_gap_have_no_derivative() -> None:
    plain = solve(wavelet(YS[0], 0.1, MASK))
    ways = [solve(wavelet(YS[0], 0.1, MASK), gradient=way) for way in (Implicit(), OneStep())]
    for a, *others in zip(*map(jax.tree.leaves, (plain, *ways)), strict=True):
        for b in others:
            np.testing.assert_array_equal(a, b)

    def loss(start: jax.Array, gap: jax.Array) -> jax.Array:
        return solve(wavelet(YS[0], 0.1, MASK), start=start, gap=gap, gradient=Implicit()).value.sum()

    zero = jax.grad(loss, argnums=(0, 1))(YS[0], jnp.float32(1e-3))
    assert all(bool((z == 0).all()) for z in zero)


@pytest.mark.parametrize("name", ["l1, wavelets", slow("spectral"), slow("tv")])
def test_a_missed_tolerance_is_told_where_asked_for(name: str) -> None:
    """NaN where the linear equation was left too early, and nowhere else."""
    at = tuple(np.float32(v) for v in CASES[name][2])
    short, enough = (gradients(name, Implicit(1e-3, n, strict=True), at, gap=1e-4) for n in (1, 20_000))
    for few, many in zip(short, enough, strict=True):
        assert bool(jnp.isnan(few).all()) and bool(jnp.isfinite(many).all()) and float(jnp.abs(many).max()) > 0
    with pytest.raises(TypeError, match="strict"):
        Implicit(strict=1)  # type: ignore[arg-type]


def test_weights_of_zero_have_finite_derivatives() -> None:
    for g in gradients("tv", Implicit(), (YS[0], jnp.zeros(SHAPE, "f4"), jnp.ones(SHAPE, "f4")), gap=1e-4):
        assert bool(jnp.isfinite(g).all())


def test_memory_does_not_grow_with_the_steps() -> None:
    def memory(way: Any) -> int:
        compiled = gradients.lower("l1, wavelets", way, (YS[0], jnp.float32(0.1), MASK)).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    # The number of steps of an implicit one is a value, unknown to the program.
    state = 4 * YS[0].nbytes
    assert memory(Implicit()) < 60 * state < memory(Unrolled(20_000))


def test_training_with_optax() -> None:
    """A map of weights, inside of a jitted step of training."""
    optimiser = optax.adam(0.1)
    y, mask, edges = (v.astype("f4") for v in (IMAGE[0], SOFT, EDGES))

    def loss(logs: jax.Array) -> jax.Array:
        s = solve(wavelet(y, jnp.exp(logs), mask), gap=1e-4, gradient=Implicit())
        return jnp.mean((s.value - edges) ** 2)

    @jax.jit
    def step(carry: Any, _: None) -> Any:
        logs, state = carry
        value, gradient = jax.value_and_grad(loss)(logs)
        change, state = optimiser.update(gradient, state)
        return (optax.apply_updates(logs, change), state), value

    logs = jnp.full(SHAPE, jnp.log(0.1))
    values = lax.scan(step, (logs, optimiser.init(logs)), None, length=20)[1]
    assert float(values[-1]) < 0.8 * float(values[0])


@pytest.mark.slow
def test_second_derivatives() -> None:
    with x64():

        def loss(weight: jax.Array) -> jax.Array:
            s = solve(wavelet(IMAGE[0], weight, SOFT), gap=1e-13, gradient=EXACT)
            return jnp.sum((s.value.ravel() - TARGET.astype(s.value.dtype)) ** 4)

        first, h = jax.jit(jax.grad(loss)), 1e-6
        slope = float(first(0.1 + h) - first(0.1 - h)) / (2 * h)
        assert float(jax.jit(jax.grad(jax.grad(loss)))(0.1)) == pytest.approx(slope, rel=1e-4)


def test_what_cannot_be_differentiated_says_so() -> None:
    with pytest.raises(ValueError, match="ADMM differentiates where one transform"):
        solve(lasso(*LIST), ADMM(), gradient=Implicit())
    with pytest.raises(TypeError, match=r"Implicit\(\) or Unrolled"):
        solve(tv(*IMAGE), gradient="implicit")  # type: ignore[arg-type]
    for bad in (lambda: Implicit(tolerance=-1.0), lambda: Implicit(max_steps=-1), lambda: OneStep(0)):
        with pytest.raises(ValueError):
            bad()
