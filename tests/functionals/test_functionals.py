"""Proximal maps against brute force, conjugates by Fenchel and Moreau, batches against single items."""

import functools
import itertools
from collections.abc import Callable
from typing import NamedTuple

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize
from hypothesis import given, settings
from jax import export

from emjax.functionals import (
    L1,
    Ball,
    Box,
    Fidelity,
    Functional,
    GroupL1,
    Huber,
    HuberLoss,
    KullbackLeibler,
    L1Ball,
    LeastSquares,
    NuclearNorm,
    PoissonLikelihood,
    Quadratic,
    SquaredDistance,
    nonnegative,
)
from emjax.operators import DCT, FiniteDifference, Identity, PixelSampling, SubsampledFourier

x64 = functools.partial(jax.enable_x64, True)
seeds = st.integers(0, 2**32 - 1)
few = settings(max_examples=10, deadline=None)


class Case(NamedTuple):
    """`make(rng, batch)`: a functional whose weights have the batch axes; items of `shape`, complex or real."""

    name: str
    make: Callable[[np.random.Generator, tuple[int, ...]], Functional]
    shape: tuple[int, ...]
    complex_: bool = False


def positive(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return rng.uniform(0.2, 2, shape)


CASES = [
    Case("L1", lambda r, b: L1(positive(r, (*b, 3)), ndim=1), (3,)),
    Case("L1, one weight an item", lambda r, b: L1(positive(r, (*b, 1)), ndim=1), (3,)),
    Case("L1, complex", lambda r, b: L1(positive(r, (*b, 1)), ndim=1), (1,), True),
    Case("GroupL1 of two", lambda r, b: GroupL1(positive(r, (*b, 1, 1)), ndim=2), (2, 1)),
    Case("GroupL1 of three", lambda r, b: GroupL1(positive(r, (*b, 1, 1)), ndim=2), (3, 1)),
    Case("Box", lambda r, b: Box(-positive(r, (*b, 1)), positive(r, (*b, 3)), ndim=1), (3,)),
    Case("SquaredDistance", lambda r, b: SquaredDistance(r.standard_normal((*b, 3)), None, 1), (3,)),
    Case(
        "SquaredDistance, weighted",
        lambda r, b: SquaredDistance(r.standard_normal((*b, 3)), positive(r, (*b, 3)), 1),
        (3,),
    ),
    Case(
        "KullbackLeibler",
        lambda r, b: KullbackLeibler(positive(r, (*b, 3)), positive(r, (*b, 1)), 0.1 * positive(r, (*b, 1)), 1),
        (3,),
    ),
    Case(
        "KullbackLeibler, a pixel without counts",
        lambda r, b: KullbackLeibler(positive(r, (*b, 3)) * [0, 1, 1], positive(r, (*b, 1)), 0.0, 1),
        (3,),
    ),
    Case("Huber", lambda r, b: Huber(positive(r, (*b, 1)), r.standard_normal((*b, 3)), 1), (3,)),
    Case("Ball", lambda r, b: Ball(positive(r, b), 0.1 * r.standard_normal((*b, 3)), 1), (3,)),
    Case("L1Ball", lambda r, b: L1Ball(positive(r, b), 1.0, 1), (3,)),
    Case("L1Ball, weights, complex", lambda r, b: L1Ball(positive(r, b), positive(r, (*b, 4)), 1), (4,), True),
    Case("NuclearNorm", lambda r, b: NuclearNorm(positive(r, b), 2), (1, 3)),
    Case("NuclearNorm, square", lambda r, b: NuclearNorm(positive(r, b), 2), (2, 2)),
    Case("NuclearNorm of blocks", lambda r, b: NuclearNorm(positive(r, (*b, 4)), 3), (4, 3, 2)),
    Case("Quadratic", lambda r, b: Quadratic(DCT((3,)), positive(r, (*b, 3)), r.standard_normal((*b, 3))), (3,)),
    Case(
        "LeastSquares, soft mask, weighted",
        lambda r, b: LeastSquares(
            PixelSampling(positive(r, (*b, 3)) * [0, 1, 1], 1), r.standard_normal((*b, 3)), positive(r, (*b, 3))
        ),
        (3,),
    ),
    Case(
        "PoissonLikelihood, soft mask",
        lambda r, b: PoissonLikelihood(
            PixelSampling(positive(r, (*b, 3)) * [0, 1, 1], 1), positive(r, (*b, 3)), positive(r, b), positive(r, b)
        ),
        (3,),
    ),
    Case(
        "HuberLoss, soft mask",
        lambda r, b: HuberLoss(
            PixelSampling(positive(r, (*b, 3)) * [0, 1, 1], 1), r.standard_normal((*b, 3)), positive(r, b)
        ),
        (3,),
    ),
    Case(
        "LeastSquares, Fourier",
        lambda r, b: LeastSquares(
            SubsampledFourier(r.random((*b, 3)) * [0, 1, 1], 1),
            r.standard_normal((*b, 3)) + 1j * r.standard_normal((*b, 3)),
        ),
        (3,),
    ),
]
every = pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
# Data terms are only ever used by their value, gradient and prox.
with_conjugate = pytest.mark.parametrize(
    "case",
    [c for c in CASES if not c.name.startswith(("LeastSquares", "PoissonLikelihood", "HuberLoss"))],
    ids=lambda c: c.name,
)
# A search takes few numbers: "NuclearNorm of blocks" is one of NuclearNorm a block, which `test_batches` compares.
searched = pytest.mark.parametrize(
    "case", [c for c in CASES if np.prod(c.shape) * (1 + c.complex_) <= 4], ids=lambda c: c.name
)


def draw(case: Case, seed: int, batch: tuple[int, ...] = ()) -> tuple[Functional, jax.Array, np.random.Generator]:
    rng = np.random.default_rng(seed)
    g = case.make(rng, batch)
    x = 2 * rng.standard_normal((*batch, *case.shape))
    if case.complex_:
        x = x + 2j * rng.standard_normal(x.shape)
    return g, jnp.asarray(x), rng


def inner(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.sum(jnp.real(jnp.conj(a) * b))


def domain(g: Functional, n: int) -> tuple[list[tuple[float, float]] | None, list[dict]]:
    """Where `g` is finite: bounds of its numbers, and other inequalities `fun(v) >= 0`."""
    if isinstance(g, Box):
        return [(float(a), float(b)) for a, b in np.broadcast(g.low, g.high)], []
    if isinstance(g, KullbackLeibler):
        return [(-float(b), 50.0) for b in np.broadcast_to(g.background, n)], []
    if isinstance(g, PoissonLikelihood):
        mask, background = np.asarray(g.A.mask), np.broadcast_to(g.functional.background, n)
        return [(-b / m if m > 0 else -50.0, 50.0) for m, b in zip(mask, background, strict=True)], []
    if isinstance(g, Ball):
        inside = {"type": "ineq", "fun": lambda v: float(g.radius**2 - np.sum((v - g.centre) ** 2))}
        return None, [inside]
    if isinstance(g, L1Ball):  # of weights one: a linear inequality for every combination of signs
        signs = np.array(list(itertools.product((-1, 1), repeat=n)))
        return None, [{"type": "ineq", "fun": lambda v: float(g.radius) - signs @ v}]
    return None, []


def brute_force(g: Functional, x: np.ndarray, step: float) -> np.ndarray:
    """`argmin_v g(v) + |v - x|^2 / (2 step)` over at most four numbers, by searches that know nothing of `g`."""

    def back(v: np.ndarray) -> np.ndarray:
        return (v[::2] + 1j * v[1::2] if np.iscomplexobj(x) else v).reshape(x.shape)

    n = x.size * (2 if np.iscomplexobj(x) else 1)
    bounds, inequalities = domain(g, n)
    indicator = isinstance(g, Box | Ball | L1Ball)
    value = jax.jit(lambda v: (0.0 if indicator else g(v)) + jnp.sum(jnp.abs(v - x) ** 2) / (2 * step))

    def objective(v: np.ndarray) -> float:
        return float(value(back(v)))

    if inequalities:
        start = np.broadcast_to(getattr(g, "centre", 0.0), n)
        found = scipy.optimize.minimize(objective, start, method="SLSQP", constraints=inequalities, tol=1e-14)
    elif bounds:
        options = {"xtol": 1e-10, "ftol": 1e-15, "maxiter": 5000}
        start = np.clip(np.ones(n), *np.transpose(bounds))
        found = scipy.optimize.minimize(objective, start, method="Powell", bounds=bounds, options=options)
    else:
        options = {"xatol": 1e-10, "fatol": 1e-15, "maxiter": 5000, "maxfev": 20000}
        found = scipy.optimize.minimize(objective, np.zeros(n), method="Nelder-Mead", options=options)
        # Once more from there: where `g` has an edge the first simplex may collapse.
        found = scipy.optimize.minimize(objective, found.x, method="Nelder-Mead", options=options)
    return back(found.x)


@searched
def test_prox_is_the_minimiser(case: Case) -> None:
    with x64():
        for seed in range(2):
            g, x, _ = draw(case, seed)
            step = 0.3 + seed
            np.testing.assert_allclose(g.prox(x, step), brute_force(g, np.asarray(x), step), atol=2e-5)


@with_conjugate
@given(seed=seeds, step=st.floats(0.05, 20))
@few
def test_prox_and_conjugate_are_a_fenchel_pair(case: Case, seed: int, step: float) -> None:
    """At `v = prox(x)`, `u = (x - v) / step` the inequality of Fenchel and Young is an equality."""
    with x64():
        g, x, _ = draw(case, seed)
        v = g.prox(x, step)
        rounded = (x - v) / step
        u = g.project(rounded)
        np.testing.assert_allclose(u, rounded, atol=1e-12 * float(jnp.abs(x).max() / step))
        size = float(1 + abs(g(v)) + jnp.sum(jnp.abs(u * x)))
        assert abs(g(v) + g.conjugate(u) - inner(u, v)) <= 1e-12 * size
        assert abs(g.fenchel_gap(v, u)) <= 1e-12 * size


@with_conjugate
@given(seed=seeds)
@few
def test_fenchel_gap_is_what_it_says(case: Case, seed: int) -> None:
    with x64():
        g, x, rng = draw(case, seed)
        x = g.prox(x, 1.0) if isinstance(g, Box | Ball | L1Ball | KullbackLeibler) else x
        u = rng.standard_normal(x.shape)
        u = g.project(jnp.asarray(u + 1j * rng.standard_normal(x.shape) if case.complex_ else u))
        gap = g.fenchel_gap(x, u)
        assert jnp.isfinite(gap) and gap >= -1e-12
        np.testing.assert_allclose(gap, g(x) + g.conjugate(u) - inner(u, x), rtol=1e-10, atol=1e-12)
        # `slope` bounds how the gap changes with x (to first order: the quadratic ones have curvature).
        error = jnp.asarray(rng.standard_normal(x.shape)) * 1e-7
        moved = abs(g.fenchel_gap(x + error, u) - gap)
        if isinstance(g, KullbackLeibler) and not jnp.isfinite(g(x + error)):
            return  # out of the domain
        assert moved <= float(g.slope(x, u) * jnp.linalg.norm(error.ravel())) + 1e-12


@with_conjugate
@given(seed=seeds, step=st.floats(0.05, 20))
@few
def test_moreau(case: Case, seed: int, step: float) -> None:
    with x64():
        g, u, _ = draw(case, seed)
        np.testing.assert_allclose(
            g.conjugate_prox(u, step), Functional.conjugate_prox(g, u, step), rtol=1e-12, atol=1e-12
        )


@pytest.mark.parametrize("g", [L1(0.5, ndim=1), GroupL1(0.5, ndim=2)], ids=["L1", "GroupL1"])
def test_the_conjugate_of_a_norm_is_infinite_outside_of_its_ball(g: L1 | GroupL1) -> None:
    u = jnp.full((2, 3)[-g.ndim :], 0.6)
    assert jnp.isinf(g.conjugate(u)) and g.conjugate(g.project(u)) == 0
    s = g.shrink(u)
    assert 0 < s < 1 and g.conjugate(s * u) == 0 and jnp.isinf(g.conjugate(1.01 * s * u))


@every
def test_batches(case: Case) -> None:
    """A batch gives what the items give, weights included, also with two batch axes."""
    with x64():
        batch = (2, 3)
        g, x, _ = draw(case, 5, batch)
        counts = jax.tree.map(lambda leaf: leaf.ndim, g)
        of_one = jax.tree.map(lambda leaf: leaf.ndim, case.make(np.random.default_rng(0), ()))
        methods = {"value": lambda f, v: f(v), "prox": lambda f, v: f.prox(v, 0.7)}
        if not isinstance(g, LeastSquares | Fidelity):
            methods["conjugate"] = lambda f, v: f.conjugate(f.project(v))
            methods["gap"] = lambda f, v: f.fenchel_gap(f.prox(v, 0.1), f.project(v))
        for method in methods.values():
            together = method(g, x)
            for i in np.ndindex(*batch):
                item = jax.tree.map(lambda leaf, n, m, i=i: leaf[i] if n > m else leaf, g, counts, of_one)
                np.testing.assert_allclose(together[i], method(item, x[i]), rtol=1e-12, atol=1e-14)


@every
def test_one_trace_and_export(case: Case) -> None:
    """Other weights and measurements are the same program, and it can be written for every platform."""
    traces = []

    @jax.jit
    def everything(g: Functional, x: jax.Array, step: float) -> tuple[jax.Array, ...]:
        traces.append(step)
        if isinstance(g, LeastSquares | Fidelity):
            return g(x), g.prox(x, step)
        return g(x), g.prox(x, step), g.conjugate_prox(x, step), g.fenchel_gap(x, g.project(x))

    for seed, step in ((0, 0.5), (1, 2.0)):
        g, x, _ = draw(case, seed)
        everything.trace(g, x, step)
    assert len(traces) == 1
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), jax.tree.map(jnp.asarray, (g, x)))
    assert len(export.export(everything, platforms=("cpu", "cuda", "tpu"))(*shapes, step).platforms) == 3


@pytest.mark.parametrize("g", [L1(0.5, ndim=2), GroupL1(0.5, ndim=2), L1(0.0, ndim=2), GroupL1(0.0, ndim=2)])
def test_derivatives_at_zero_are_finite(g: L1 | GroupL1) -> None:
    zero = jnp.zeros((2, 3))
    for method in (g, lambda z: jnp.sum(g.prox(z, 0.3)), lambda z: jnp.sum(g.project(z))):
        assert bool(jnp.isfinite(jax.grad(method)(zero)).all())
    assert bool((g.project(zero) == 0).all())


def test_projection_keeps_what_is_inside_bit_by_bit() -> None:
    g = GroupL1(0.3, ndim=2)
    u = jnp.asarray(np.random.default_rng(0).uniform(-0.2, 0.2, (2, 500)), jnp.float32)
    assert bool((g.project(u) == u).all())


def test_nonnegative() -> None:
    assert nonnegative().prox(jnp.array([-1.0, 0.5])).tolist() == [0.0, 0.5]
    assert nonnegative()(jnp.array([3.0])) == 0 and jnp.isinf(nonnegative()(jnp.array([-1.0])))


def test_off_the_mask_anything_may_stand() -> None:
    mask = np.array([1.0, 0, 1])
    y = np.array([0.5, np.nan, 2])
    data = LeastSquares(PixelSampling(mask, 1), y)
    assert float(data(jnp.zeros(3))) == pytest.approx(0.5 * (0.25 + 4))
    assert bool(jnp.isfinite(data.gradient(jnp.ones(3))).all())


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: LeastSquares(Identity((3, 4)), np.zeros((4, 3))), "batch axes go in front"),
        (lambda: Quadratic(FiniteDifference((3, 4)), np.ones((2, 3, 4))), "orthonormal"),
        (lambda: Quadratic(PixelSampling(np.ones((3, 4))), np.ones((3, 4))), "orthonormal"),
    ],
)
def test_bad_parts_are_refused(make: Callable[[], Functional], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()
