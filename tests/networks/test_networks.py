"""Every network: what NumPy makes of its docstring, one trace, transformations; only parameters are trained."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from network_registry import CASES, matrix, measured, network, operator, reference, untrained, weights
from numpy_networks import ista, start

from emjax.networks import NETWORKS, IstaNetPlus, Network

every = pytest.mark.parametrize("name", CASES)
TRACES: list[str] = []


@functools.partial(jax.jit, static_argnums=0)
def call(name: str, found: Network, y: jax.Array, A: Any) -> tuple[jax.Array, Any]:
    """The image, and the gradient of its inner product with `probe` by the parameters and the measurements."""
    TRACES.append(name)
    graph, state = nnx.split(found, nnx.Param)

    def inner(state: Any, y: jax.Array) -> tuple[jax.Array, jax.Array]:
        x = CASES[name].call(nnx.merge(graph, state), y, A, CASES[name].noise)
        return jnp.mean(x * probe(x.shape).astype("f4")), x

    gradient, x = jax.grad(inner, argnums=(0, 1), has_aux=True)(state, y)
    return x, gradient


def probe(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(3).standard_normal(shape)


@functools.cache
def answers(name: str) -> tuple[np.ndarray, Any]:
    x, gradient = call(name, network(name), measured(name)[0], operator(CASES[name].operator))
    return np.asarray(x), gradient


def answer(name: str) -> np.ndarray:
    return answers(name)[0]


def wide(y: Any) -> np.ndarray:
    """In double precision."""
    return np.asarray(y).astype(np.complex128 if jnp.iscomplexobj(y) else np.float64)


def close(x: Any, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    np.testing.assert_allclose(x, expected, atol=tolerance * max(1, np.abs(expected).max()), rtol=0)


def test_all_networks_are_here() -> None:
    assert {case.kind for case in CASES.values()} == set(NETWORKS) - {"tiny"}


@every
def test_forward_is_what_numpy_says(name: str) -> None:
    expected = reference(name, weights(network(name)), wide(measured(name)[0]))
    assert np.ptp(expected) > 0.1 and answer(name).dtype == np.float32
    close(answer(name), expected)


@every
def test_one_trace_for_other_weights_and_measurements(name: str) -> None:
    first = answer(name)
    before = TRACES.count(name)
    A = operator(CASES[name].operator)
    second, _ = call(name, network(name, 1), measured(name)[1], jax.tree.map(lambda v: v * 1, A))
    assert TRACES.count(name) == before
    assert np.abs(second - first).max() > 1e-3


@every
def test_parameters(name: str) -> None:
    assert network(name).parameter_count() == CASES[name].parameters
    assert all(isinstance(v, nnx.Param) for _, v in nnx.to_flat_state(nnx.state(network(name))))


@every
def test_a_batch_is_its_items_and_vmap_is_a_batch(name: str) -> None:
    case, A = CASES[name], operator(CASES[name].operator)

    @jax.jit
    def both(found: Network, ys: jax.Array) -> tuple[jax.Array, jax.Array]:
        one = lambda y: case.call(found, y, A, case.noise)  # noqa: E731
        return one(ys[:, None]), jax.vmap(one)(ys)

    batch, mapped = both(network(name), measured(name)[:2])
    assert batch.shape == (2, 1, *answer(name).shape)
    close(batch[0, 0], answer(name))
    close(batch[:, 0], np.asarray(mapped))
    assert np.abs(batch[1] - batch[0]).max() > 1e-3


@every
def test_gradients_are_those_of_numpy(name: str) -> None:
    """Of all weights and the measurements at once: along a random direction, against differences in float64."""
    A, y, rng = operator(CASES[name].operator), measured(name)[0], np.random.default_rng(4)
    x, (by_weights, by_y) = answers(name)
    found, slopes = weights(network(name)), weights(by_weights)
    assert slopes.keys() == found.keys() and all(np.isfinite(v).all() for v in slopes.values())
    direction = {k: rng.standard_normal(v.shape) * np.abs(v).max() for k, v in found.items()}
    at_y = wide(A.measured(jnp.asarray(rng.standard_normal(y.shape), y.dtype)))
    # JAX gives the conjugate of the gradient by complex numbers.
    slope = sum(np.vdot(slopes[k], direction[k]) for k in found) + np.real(np.sum(wide(by_y) * at_y))
    t = 1e-6
    values = [
        np.mean(
            probe(x.shape) * reference(name, {k: v + s * direction[k] for k, v in found.items()}, wide(y) + s * at_y)
        )
        for s in (t, -t)
    ]
    np.testing.assert_allclose(slope, (values[0] - values[1]) / (2 * t), rtol=5e-4)


def test_the_symmetry_of_a_transform_is_what_numpy_says() -> None:
    found, case, y = network("ista-net-plus"), CASES["ista-net-plus"], measured("ista-net-plus")
    assert isinstance(found, IstaNetPlus)
    _, symmetry = jax.jit(lambda n, y, A: n.with_symmetry(y, A, case.noise))(found, y, operator(case.operator))
    each = [ista(weights(found), found.settings, wide(v), matrix(case.operator), case.noise, plus=True)[1] for v in y]
    np.testing.assert_allclose(symmetry, np.mean(each), rtol=1e-5)


@every
def test_exports_for_every_platform(name: str) -> None:
    case = CASES[name]
    leaves, tree = jax.tree.flatten((network(name), operator(case.operator)))

    def run(leaves: list[jax.Array], y: jax.Array) -> jax.Array:
        found, A = jax.tree.unflatten(tree, leaves)
        return case.call(found, y, A, case.noise)

    export = jax.export.export(jax.jit(run), platforms=["cpu", "cuda", "tpu"])(leaves, measured(name)[0])
    assert export.out_avals[0].shape == answer(name).shape


@every
def test_no_array_of_the_operator_is_trained(name: str) -> None:
    case, A, found = CASES[name], operator(CASES[name].operator), network(name)
    before = weights(found)
    inside = {id(v) for v in jax.tree.leaves(nnx.state(found))}
    assert not inside & {id(v) for v in jax.tree.leaves(A)}
    jax.eval_shape(lambda y: case.call(found, y, A, case.noise), measured(name)[0])
    after = weights(found)  # nothing was kept of the call
    assert after.keys() == before.keys() and found.parameter_count() == case.parameters
    assert len(jax.tree.leaves(nnx.state(found))) == len(before)


@every
def test_phases_are_no_compiled_loops(name: str) -> None:
    """Which cost a multiple to differentiate on a CPU; only the conjugate gradients of MoDL, for dense A, are one."""
    case = CASES[name]

    def run(y: jax.Array, A: Any) -> jax.Array:
        return case.call(network(name), y, A, case.noise)

    program = str(jax.make_jaxpr(run)(measured(name)[0], operator(case.operator)))
    assert ("while[" in program or "scan[" in program) == (name == "modl")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.start])
def test_untrained_it_returns_its_start(name: str) -> None:
    case, found = CASES[name], untrained(name, seed=2)
    y = np.asarray(measured(name)[0])
    expected = y if case.kind == "dncnn" else start(found.settings, y, matrix(case.operator), case.noise)
    close(call(name, found, measured(name)[0], operator(case.operator))[0], expected)
