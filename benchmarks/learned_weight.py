"""How much better than the best constant weight is a spatially varying one, learned through the solve?

Total variation of 25 % random pixels of 64^2 phantoms with noise 0.05. The weight of a pixel is the exponential of a
polynomial in a feature of the scan itself, the logarithm of the local contrast (the spread of the measured pixels
around it): log w = c0 + c1 f + c2 f^2. optax lowers the mean squared error over the training images by Adam, through
`jit(value_and_grad(...))` and `gradient=Implicit()`. The constant weight is the best on the same training images, by
their own mean squared error over a grid. Both are judged on phantoms that neither has seen.

    python benchmarks/learned_weight.py -o benchmarks/results/learned_weight.json [--quick]

Exits with 1 where the learned weight does not win on the held-out phantoms.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import emjax
from emjax import TV, LeastSquares, Problem, solve
from emjax.acquisition import phantom
from emjax.metrics import psnr
from emjax.operators import PixelSampling
from emjax.solvers import PDHG, Implicit

SIZE, RATIO, NOISE, GAP = 64, 0.25, 0.05, 1e-3
REACH = 2.5  # pixels: the standard deviation of the window of the local contrast
GRID = np.geomspace(0.005, 0.2, 25)


def scans(seeds: range) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Truths, masks and measurements of one phantom a seed."""
    truths = np.stack([np.asarray(phantom((SIZE, SIZE), seed).image, np.float32) for seed in seeds])
    rng = np.random.default_rng(seeds.start)
    masks = (rng.random(truths.shape) < RATIO).astype(np.float32)
    ys = masks * (truths + NOISE * rng.standard_normal(truths.shape)).astype(np.float32)
    return jnp.asarray(truths), jnp.asarray(masks), jnp.asarray(ys)


def contrast(y: jax.Array, mask: jax.Array) -> jax.Array:
    """The logarithm of the spread of the measured pixels around each pixel, over the noise."""
    offset = jnp.arange(SIZE)[:, None] - jnp.arange(SIZE)
    window = jnp.exp(-0.5 * (offset / REACH) ** 2)

    def local(v: jax.Array) -> jax.Array:
        return window @ v @ window

    count = local(mask)
    mean = local(y) / count
    variance = jnp.maximum(local(y**2) / count - mean**2, 0)
    return 0.5 * jnp.log(variance / NOISE**2 + 0.1)


def recover(weight: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
    """TV with one weight a pixel, or one for all."""
    problem = Problem(LeastSquares(PixelSampling(mask), y), TV(weight))
    return solve(problem, PDHG(), gap=GAP, gradient=Implicit(tolerance=1e-3, max_steps=300)).value


def learned(c: jax.Array, y: jax.Array, mask: jax.Array) -> jax.Array:
    """The weight map of the coefficients."""
    f = contrast(y, mask)
    return jnp.exp(c[0] + c[1] * f + c[2] * f**2)


@jax.jit
def error(c: jax.Array, truths: jax.Array, masks: jax.Array, ys: jax.Array) -> jax.Array:
    """The mean squared error of the learned weight over a batch."""
    weights = jax.vmap(learned, (None, 0, 0))(c, ys, masks)
    return jnp.mean((recover(weights, ys, masks) - truths) ** 2)


def train(start: float, data: tuple[jax.Array, ...], steps: int) -> tuple[jax.Array, list[float]]:
    """The coefficients of the best step, and the errors along the way."""
    optimiser = optax.adam(optax.cosine_decay_schedule(0.1, steps))
    slope = jax.jit(jax.value_and_grad(error))
    c = jnp.array([np.log(start), 0.0, 0.0], jnp.float32)
    state, best, errors = optimiser.init(c), c, []
    for step in range(steps + 1):
        value, gradient = slope(c, *data)
        errors.append(float(value))
        best = c if errors[-1] == min(errors) else best
        change, state = optimiser.update(gradient, state)
        c = optax.apply_updates(c, change)
        if step % 10 == 0:
            print(f"step {step}: mean squared error {errors[-1]:.6f}", flush=True)
    return best, errors


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--quick", action="store_true", help="few images and steps")
    arguments = parser.parse_args()
    images, steps = (3, 10) if arguments.quick else (8, 40)
    training, held_out = scans(range(images)), scans(range(100, 100 + images))
    truths, masks, ys = training
    plain = jax.jit(recover)
    grid = [float(jnp.mean((plain(jnp.float32(w), ys, masks) - truths) ** 2)) for w in GRID]
    constant = float(GRID[int(np.argmin(grid))])
    coefficients, errors = train(constant, training, steps)
    table: dict[str, Any] = {}
    for name, (truths, masks, ys) in {"training": training, "held out": held_out}.items():
        maps = jax.vmap(learned, (None, 0, 0))(coefficients, ys, masks)
        both = {"constant": plain(jnp.float32(constant), ys, masks), "learned": plain(maps, ys, masks)}
        each = {k: [float(psnr(x, t)) for x, t in zip(v, truths, strict=True)] for k, v in both.items()}
        gains = np.subtract(each["learned"], each["constant"])
        table[name] = {
            **{k: float(np.mean(v)) for k, v in each.items()},
            "gain": float(gains.mean()),
            "least_gain": float(gains.min()),
            "each": each,
        }
        row = table[name]
        print(f"{name}: constant {row['constant']:.2f} dB, learned {row['learned']:.2f} dB, gain {row['gain']:+.2f} dB")
    rows = [[name, row["constant"], row["learned"], row["gain"], row["least_gain"]] for name, row in table.items()]
    columns = ["phantoms", "best constant weight, dB", "learned weight, dB", "gain, dB", "least gain, dB"]
    report = {
        "environment": {"jax": jax.__version__, "platform": jax.default_backend(), "cpus": os.cpu_count()},
        "version": emjax.__version__,
        "setting": {"size": SIZE, "ratio": RATIO, "noise": NOISE, "images": images, "steps": steps},
        "constant_weight": constant,
        "coefficients": [float(v) for v in coefficients],
        "errors": errors,
        "passed": table["held out"]["gain"] > 0,
        "readme": {"columns": columns, "rows": rows},
        "results": table,
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    part = arguments.output.with_suffix(".part")
    part.write_text(json.dumps(report, indent=1) + "\n")
    part.replace(arguments.output)
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
