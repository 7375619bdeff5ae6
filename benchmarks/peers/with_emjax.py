"""emjax: `solve(problem, gap=...)` with the solver that it picks itself, its certificates included."""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from instances import Instance
from worker import Prepared, serve

from emjax import TV, LeastSquares, Problem, Term, solve
from emjax.functionals import L1
from emjax.operators import DCT, Blockwise, Dense, Identity, PixelSampling, SubsampledDCT, SubsampledFourier, Wavelet


def problem(instance: Instance, dtype: Any = np.float32) -> Problem:
    """The problem as a user of emjax writes it."""
    y = instance.y.astype(np.result_type(dtype, np.complex64) if instance.fourier else dtype)
    y, lam = jnp.asarray(y if len(y) > 1 else y[0]), jnp.asarray(instance.lam, dtype)
    shape = (instance.side, instance.side)
    if instance.kind == "rof":
        return Problem(LeastSquares(Identity(shape), y), TV(lam, isotropic=bool(instance.isotropic)))
    if instance.kind == "blocks":
        side, count = instance.block, instance.side // instance.block
        A = Blockwise(Dense(instance.matrix.astype(dtype), (side, side)), shape)
        return Problem(
            LeastSquares(A, y.reshape(count, count, -1)), Term(L1(lam, 4), Blockwise(DCT((side, side)), shape))
        )
    mask = instance.mask.astype(dtype)
    if instance.kind == "inpainting":
        return Problem(LeastSquares(PixelSampling(mask), y), TV(lam))
    A = SubsampledFourier(mask) if instance.fourier else SubsampledDCT(mask)
    return Problem(LeastSquares(A, y), Term(L1(lam, 2), Wavelet(shape, "db4", int(instance.levels))))


def images(value: jax.Array, instance: Instance) -> np.ndarray:
    return np.asarray(value).reshape(instance.truth.shape)


def prepare(instance: Instance) -> Prepared:
    p = problem(instance)

    def by_steps(n: int) -> np.ndarray:
        return images(solve(p, gap=0.0, max_steps=n).value, instance)

    def certified(gap: float) -> tuple[np.ndarray, dict[str, Any]]:
        s = solve(p, gap=gap, max_steps=100_000)
        x = images(s.value, instance)
        steps = np.asarray(s.steps)
        more = {"certified_gap": float(np.max(s.gap)), "steps": int(steps.max()), "mean_steps": float(steps.mean())}
        return x, {**more, "solver": s.solver}

    return Prepared(by_steps, certified=certified, floor=partial(floor, instance))


def floor(instance: Instance) -> dict[str, Any]:
    """What one iteration of one item cannot go below: bytes over the bandwidth of as many, or products over their rate.

    Each array is read once and written once: PDHG reads x, p (2), y, and a mask, and writes x and p; Douglas-Rachford
    reads z, p, y and a mask and writes z and p, its transforms taken as free. Blocks: the two products with Phi. The
    bandwidth is that of an array half as large as what is moved, read and written in its place.
    """
    n = instance.side**2
    if instance.kind == "blocks":
        m, width = instance.matrix.shape
        operations = 4 * m * n
        a, b = jnp.asarray(instance.matrix, jnp.float32), jnp.ones((width, n // width), jnp.float32)
        seconds = best(jax.jit(lambda a, b: jnp.matmul(a, b, precision="highest")), a, b)
        rate = 2 * m * n / seconds
        return {"operations": operations, "operations_a_second": rate, "seconds": operations / rate}
    arrays = {"inpainting": 8, "rof": 7, "wavelet": 6}[instance.kind]
    repeats = 20

    # As much as an iteration touches: it may lie in a cache. A list of arrays that takes turns would be copied.
    def sweep(v: jax.Array) -> jax.Array:
        return jax.lax.fori_loop(0, repeats, lambda _, v: 0.999 * v + 1e-3, v)

    seconds = best(jax.jit(sweep), jnp.ones(arrays * n // 2, jnp.float32)) / repeats
    size = arrays * 4 * n
    return {"bytes": size, "bytes_a_second": size / seconds, "seconds": seconds}


def best(function: Any, *args: Any) -> float:
    jax.block_until_ready(function(*args))
    times = []
    for _ in range(7):
        begin = time.perf_counter()
        jax.block_until_ready(function(*args))
        times.append(time.perf_counter() - begin)
    return min(times)


if __name__ == "__main__":
    serve(prepare)
