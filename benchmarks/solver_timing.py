"""What a solve costs: compilation, steps, batches, import. Ratios are measured in turns in one process."""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from solver_figures import figure

from emjax import TV, LeastSquares, Problem, solve
from emjax.operators import PixelSampling
from emjax.solvers import PDHG


def median(run: Callable[[], Any], repeats: int) -> float:
    jax.block_until_ready(run())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(run())
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def against(name: str, bar: float, run: Callable[[], Any], peer: Callable[[], Any], repeats: int) -> None:
    """The ratio of two costs, measured in turns."""
    pairs = [(median(run, 1), median(peer, 1)) for _ in range(repeats)]
    ours, theirs = (statistics.median(p[i] for p in pairs) for i in (0, 1))
    spread = [round(a / b, 3) for a, b in sorted(pairs, key=lambda p: p[0] / p[1])]
    figure(
        name, ours / theirs, bar, seconds=round(ours, 5), peer_seconds=round(theirs, 5), ratios=[spread[0], spread[-1]]
    )


def scans(n: int, side: int, weight: float = 0.05) -> tuple[np.ndarray, np.ndarray]:
    """`n` noisy scans (a quarter of the pixels) of blocky images, float32."""
    rng = np.random.default_rng(6)
    x = rng.random((n, side // 8, side // 8)).repeat(8, 1).repeat(8, 2) + 0.05 * rng.standard_normal((n, side, side))
    mask = (rng.random((side, side)) < 0.25).astype("f4")
    return (mask * x).astype("f4"), mask


def hand_written(y: jax.Array, mask: jax.Array, weight: float, steps: int) -> jax.Array:
    """Relaxed PDHG for isotropic TV inpainting as one scan."""

    def gradient(x: jax.Array) -> jax.Array:
        return jnp.stack([jnp.pad(x[1:] - x[:-1], ((0, 1), (0, 0))), jnp.pad(x[:, 1:] - x[:, :-1], ((0, 0), (0, 1)))])

    def divergence(p: jax.Array) -> jax.Array:
        a, b = p[0, :-1], p[1, :, :-1]
        rows = jnp.pad(a, ((1, 0), (0, 0))) - jnp.pad(a, ((0, 1), (0, 0)))
        return rows + jnp.pad(b, ((0, 0), (1, 0))) - jnp.pad(b, ((0, 0), (0, 1)))

    low, high = jnp.min(jnp.where(mask > 0, y, jnp.inf)), jnp.max(jnp.where(mask > 0, y, -jnp.inf))
    tau, sigma, rho = 0.3, 0.99 / 8 / 0.3, 1.9

    def step(carry: tuple[jax.Array, jax.Array], _: None) -> tuple[tuple[jax.Array, jax.Array], None]:
        x, p = carry
        new = jnp.clip((x - tau * divergence(p) + tau * y) / (1 + tau * mask), low, high)
        q = p + sigma * gradient(2 * new - x)
        q = q / jnp.maximum(1, jnp.sqrt(q[0] ** 2 + q[1] ** 2) / weight)
        return (x + rho * (new - x), p + rho * (q - p)), None

    return jax.lax.scan(step, (y, jnp.zeros((2, *y.shape), y.dtype)), None, length=steps)[0][0]


def naive(gap: float, limit: int) -> Callable[..., jax.Array]:
    """`vmap` of the plain while-loop over measurements and weights: the same steps and certificates, in lockstep."""
    solver = PDHG()

    def one(A: PixelSampling, y: jax.Array, weight: jax.Array) -> jax.Array:
        plan = solver.prepare(Problem(LeastSquares(A, y), TV(weight)))

        def body(carry: Any) -> Any:
            state, steps, _ = carry
            count = jnp.where(steps < 0, 0, jnp.maximum(solver.check_every, steps // 10))
            state = jax.lax.fori_loop(0, count, lambda i, s: solver.step(plan, s, i == count - 1), state)
            certificate, _, state = solver.certificate(plan, state)
            relative = (certificate.gap + certificate.allowance) / certificate.objective
            return state, jnp.maximum(steps, 0) + count, relative

        start = solver.init(plan, None), jnp.int32(-1), jnp.float32(jnp.inf)
        return jax.lax.while_loop(lambda c: (c[2] > gap) & (c[1] < limit), body, start)[0].x

    return jax.jit(jax.vmap(one, in_axes=(None, 0, 0)))


def compilation(y: np.ndarray, mask: np.ndarray) -> None:
    small = Problem(LeastSquares(PixelSampling(mask[:32, :32]), y[:32, :32]), TV(0.05))
    solve(small, PDHG(), max_steps=1).value.block_until_ready()
    first = []
    for limit in (100, 100_000):
        jax.clear_caches()
        begin = time.perf_counter()
        problem = Problem(LeastSquares(PixelSampling(mask), y), TV(0.05))
        solve(problem, PDHG(), gap=1.0, max_steps=limit).value.block_until_ready()
        first.append(time.perf_counter() - begin)
    figure("first call of a TV solve at 128^2, seconds", first[0], 3.0)
    figure("the same with 1000 times the step limit, ratio", first[1] / first[0], 1.5)

    def other(i: int) -> None:
        m = (np.random.default_rng(i).random(mask.shape) < 0.1 + 0.2 * i).astype("f4")
        problem = Problem(LeastSquares(PixelSampling(m), m * y + i), TV(np.float32(0.01 * (i + 1))))
        solve(problem, PDHG(), gap=10.0 ** -(i + 1), max_steps=20 + i).value.block_until_ready()

    other(0)
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(lambda event, *_, **__: compiled.append(event))
    for i in range(1, 4):
        other(i)
    new = [event for event in compiled if event.endswith("backend_compile_duration")]
    figure("programs compiled for other masks, weights, tolerances, limits, measurements", len(new), 0)


IMPORTS = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"


def imports(repeats: int) -> None:
    times: dict[str, list[float]] = {"jax": [], "emjax": [], "emjax.solvers": []}
    for _ in range(repeats):
        for name, seconds in times.items():
            code = [sys.executable, "-c", IMPORTS.format(name)]
            seconds.append(float(subprocess.run(code, capture_output=True, text=True, check=True).stdout))
    # `import emjax` loads its parts when they are used, so that of a part is measured too.
    jax_, *ours = (statistics.median(seconds) for seconds in times.values())
    for name, seconds in zip(list(times)[1:], ours, strict=True):
        figure(f"import {name} over import jax", seconds / jax_, 1.2, seconds=seconds, peer_seconds=jax_)


def timing(quick: bool) -> None:
    repeats = 3 if quick else 15
    ys, mask = scans(64, 128)
    A = PixelSampling(mask)
    compilation(ys[0], mask)

    one = Problem(LeastSquares(A, ys[0]), TV(0.05))
    by_hand = jax.jit(hand_written, static_argnums=3)
    against(
        "1000 PDHG-TV steps at 128^2 through solve, over a hand-written scan",
        1.5,
        lambda: solve(one, PDHG(), gap=0.0, max_steps=1000).value,
        lambda: by_hand(ys[0], mask, 0.05, 1000),
        repeats,
    )
    figure("steps taken there", int(solve(one, PDHG(), gap=0.0, max_steps=1000).steps), 1000, True)

    batch = Problem(LeastSquares(A, ys[:32]), TV(0.05))
    singles = [Problem(LeastSquares(A, y), TV(0.05)) for y in ys[:32]]
    against(
        "a batch of 32 over 32 warm single solves",
        1.25,
        lambda: solve(batch, PDHG(), gap=1e-3).value,
        lambda: [solve(p, PDHG(), gap=1e-3).value for p in singles],
        max(3, repeats // 3),
    )

    # Grey levels travel one pixel a step or so: the more a weight joins, the longer it takes.
    A, ys = PixelSampling(mask[:64, :64]), ys[:, :64, :64]
    weights = np.full((64, 1, 1), 0.02, "f4")
    weights[-1] = 2.0
    mixed, limit, gap = Problem(LeastSquares(A, ys), TV(weights)), 4000, 1e-3
    plain = naive(gap, limit)
    steps = np.asarray(solve(mixed, PDHG(), gap=gap, max_steps=limit).steps)
    print("steps of the easy items and of the hard one:", steps[:-1].min(), steps[:-1].max(), steps[-1])
    against(
        "63 easy items with a hard one, over a naive vmap of the loop",
        1 / 3,
        lambda: solve(mixed, PDHG(), gap=gap, max_steps=limit).value,
        lambda: plain(A, ys, weights),
        3,
    )
    imports(3 if quick else 11)
