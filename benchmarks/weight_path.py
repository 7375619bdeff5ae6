"""What does a path of 20 weights cost beside one cold solve?

TV by PDHG, wavelet-l1 by FISTA and the spectral prior by PCG, 25 % random pixels of 256^2 with noise 0.05: a
phantom and, where the data is, a crop of rat7. 20 weights over two decades around the one with the best PSNR. The cold
solve is `solve` at that weight to a gap of 1e-3 by the same solver settings. Paths: `same`, every point to 1e-3;
`choose`, every point to 1e-2, which chooses a weight; `near`, 1e-2 but 1e-3 within a factor 1.7 of the best weight; and
`all cold`, 20 separate cold solves to 1e-3. Seconds are medians of five, path and cold solve in turn, after a warm-up.

    python benchmarks/weight_path.py -o benchmarks/results/weight_path.json [--quick]

The data is looked for in --data, the environment variable EMJAX_DATA, then ../shared/data beside the repository. Exits
with 1 where a path to 1e-3 takes more than three times the cold solve.
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tifffile

import emjax
from emjax import TV, LeastSquares, Problem, solve
from emjax.acquisition import phantom
from emjax.metrics import psnr
from emjax.operators import PixelSampling
from emjax.reconstructors import Spectral, WaveletL1
from emjax.solvers import FISTA, PCG, PDHG
from emjax.weights import path

SIZE, RATIO, NOISE, COUNT = 256, 0.25, 0.05, 20
GAP, LOOSE, LIMIT, BAR = 1e-3, 1e-2, 5000, 3.0
RAT7 = "axondeepseg-sem/images/sub-rat7_sample-Maxo03img60.tif"
# Solver, and the grid on which the best weight is looked for. Few conjugate gradients are needed: look more often.
METHODS: dict[str, tuple[Any, np.ndarray]] = {
    "tv": (PDHG(), np.geomspace(0.1, 1e-3, 13)),
    "wavelet": (FISTA(), np.geomspace(1.0, 1e-2, 13)),
    "spectral": (PCG(check_every=2), np.geomspace(1e3, 3.0, 13)),
}
KINDS = ("same", "choose", "near")


def images(given: Path | None) -> dict[str, np.ndarray]:
    """The phantom, and the crop of rat7 where its file is."""
    named = os.environ.get("EMJAX_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    file = (given if given is not None else Path(named) if named else beside) / RAT7
    found = {"phantom": np.asarray(phantom((SIZE, SIZE), 0).image, np.float32)}
    if file.is_file():
        found["rat7"] = tifffile.imread(file)[600 : 600 + SIZE, 600 : 600 + SIZE].astype(np.float32) / 255
    return found


def build(method: str, y: jax.Array, mask: jax.Array, theta: jax.Array) -> Problem:
    """The problem of one weight."""
    A = PixelSampling(mask)
    if method == "tv":
        return Problem(LeastSquares(A, y), TV(theta))
    if method == "wavelet":
        mean = jnp.sum(y) / jnp.sum(mask)  # as the reconstructor takes it off
        return WaveletL1().problem(LeastSquares(A, y - mean), theta)
    return Spectral().problem(LeastSquares(A, y), theta, jnp.asarray(3.0, y.dtype))


@functools.partial(jax.jit, static_argnames="method")
def cold(y: jax.Array, mask: jax.Array, theta: jax.Array, *, method: str) -> Any:
    """The one cold solve."""
    return solve(build(method, y, mask, theta), METHODS[method][0], gap=GAP, max_steps=LIMIT)


@functools.partial(jax.jit, static_argnames="method")
def along(y: jax.Array, mask: jax.Array, thetas: jax.Array, gaps: jax.Array, *, method: str) -> Any:
    """The path."""
    problem = functools.partial(build, method, y, mask)
    return path(problem, thetas, solver=METHODS[method][0], gap=gaps, max_steps=LIMIT)


def seconds(fn: Callable[[], Any]) -> float:
    """Of one call."""
    begin = time.perf_counter()
    jax.block_until_ready(fn())
    return time.perf_counter() - begin


def measure(method: str, truth: np.ndarray, repeats: int) -> dict[str, Any]:
    """The figures of one method on one image."""
    rng = np.random.default_rng(0)
    mask = jnp.asarray(rng.random(truth.shape) < RATIO, jnp.float32)
    y = mask * jnp.asarray(truth + NOISE * rng.standard_normal(truth.shape), jnp.float32)
    mean = jnp.sum(y) / jnp.sum(mask) if method == "wavelet" else jnp.float32(0)
    grid = METHODS[method][1]
    scores = [float(psnr(cold(y, mask, jnp.float32(t), method=method).value + mean, jnp.asarray(truth))) for t in grid]
    best = float(grid[int(np.argmax(scores))])
    thetas = jnp.asarray(best * np.geomspace(10, 0.1, COUNT), jnp.float32)
    near = jnp.abs(jnp.log(thetas / best)) < np.log(1.7)
    gaps = {"same": jnp.full(COUNT, GAP), "choose": jnp.full(COUNT, LOOSE), "near": jnp.where(near, GAP, LOOSE)}
    one = functools.partial(cold, y, mask, jnp.float32(best), method=method)
    runs = {kind: functools.partial(along, y, mask, thetas, gaps[kind], method=method) for kind in KINDS}
    each = [functools.partial(cold, y, mask, t, method=method) for t in thetas]
    reference, paths = jax.block_until_ready((one(), {kind: run() for kind, run in runs.items()}))
    times: dict[str, list[float]] = {name: [] for name in ("cold", *KINDS, "all cold")}
    for _ in range(repeats):
        times["cold"].append(seconds(one))
        for kind, run in runs.items():
            times[kind].append(seconds(run))
        times["all cold"].append(sum(map(seconds, each)))
    median = {name: float(np.median(v)) for name, v in times.items()}
    separate = sum(int(fn().steps) for fn in each)
    tight = [float(psnr(x + mean, jnp.asarray(truth))) for x in paths["same"].values]
    loose = [float(psnr(x + mean, jnp.asarray(truth))) for x in paths["choose"].values]
    return {
        "best_weight": best,
        "cold": {"seconds": median["cold"], "steps": int(reference.steps), "gap": float(reference.gap)},
        "all cold": {
            "seconds": median["all cold"],
            "ratio": median["all cold"] / median["cold"],
            "steps": separate,
            "step_ratio": separate / int(reference.steps),
        },
        **{
            kind: {
                "seconds": median[kind],
                "ratio": median[kind] / median["cold"],
                "steps": int(p.steps.sum()),
                "step_ratio": int(p.steps.sum()) / int(reference.steps),
                "steps_by_weight": [int(v) for v in p.steps],
                "converged": bool(jnp.all(p.statuses == 0)),
            }
            for kind, p in paths.items()
        },
        # What the weight with the best PSNR of the loose path loses on the tight one.
        "loss_of_choosing_dB": max(tight) - tight[int(np.argmax(loose))],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--data", type=Path, help="the folder that holds axondeepseg-sem")
    parser.add_argument("--quick", action="store_true", help="one repetition")
    arguments = parser.parse_args()
    results: dict[str, Any] = {}
    for name, truth in images(arguments.data).items():
        for method in METHODS:
            row = measure(method, truth, 1 if arguments.quick else 5)
            results[f"{name}, {method}"] = row
            print(name, method, {k: f"{row[k]['ratio']:.2f}" for k in (*KINDS, "all cold")}, flush=True)
    rows = [
        [label, row["cold"]["steps"], *[row[kind]["ratio"] for kind in (*KINDS, "all cold")]]
        for label, row in results.items()
    ]
    columns = ["problem", "steps of one cold solve", "path to 1e-3", "path to 1e-2", "1e-3 near the best", "20 cold"]
    report = {
        "environment": {"jax": jax.__version__, "platform": jax.default_backend(), "cpus": os.cpu_count()},
        "version": emjax.__version__,
        "bar": BAR,
        "passed": all(row["same"]["ratio"] <= BAR for row in results.values()),
        "readme": {"columns": columns, "rows": rows},
        "results": results,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    part = arguments.output.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    part.replace(arguments.output)
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
