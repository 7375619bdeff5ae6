"""The optimum of an instance, written into it: by emjax in float64 to a certified gap, and by ADMM in NumPy.

    python reference.py INSTANCE.npz GAP
    python reference.py INSTANCE.npz --agree

--agree only runs the second method, on every item, where the optimum is known. The last line of the output is JSON:
`disagreement`, the relative difference of the two objectives that is largest, and the certified gap.
"""

import argparse
import dataclasses
import json
import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from instances import Instance, load, save
from references import admm

# The second method goes on from here, relative to the first one's optimum, for half as many steps again: one that was
# too high it would leave behind.
NEAR = 8e-6


def certified(instance: Instance, gap: float) -> tuple[Instance, dict[str, Any]]:
    """The instance with the optima of all its items, by emjax."""
    import jax

    jax.config.update("jax_enable_x64", True)

    from with_emjax import images, problem

    from emjax import solve

    solution = solve(problem(instance, np.float64), gap=gap, max_steps=200_000)
    x = np.array(images(solution.value, instance))
    note = {"certified_gap": float(np.max(solution.gap)), "steps": int(np.max(solution.steps))}
    return known(instance, instance.objective(x), x), note


def known(instance: Instance, optimum: np.ndarray, x: np.ndarray) -> Instance:
    found = {"optimum": optimum, "optimal_psnr": instance.psnr(x), "solution": x.astype(np.float32)}
    return dataclasses.replace(instance, **found)


def second(item: Instance) -> tuple[np.ndarray, float, int]:
    """The item alone by the second method, until it settles, or beyond the neighbourhood of the first one's optimum."""
    assert item.optimum is not None
    return admm(item, near=(1 + NEAR) * item.optimum[0])


def agreed(instance: Instance) -> tuple[Instance, dict[str, Any]]:
    """The lower of the two objectives of each item, and how far they are apart."""
    assert instance.optimum is not None and instance.solution is not None
    items = [instance.item(i) for i in range(len(instance.y))]
    if len(items) == 1:
        found = [second(items[0])]
    else:
        with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
            found = list(pool.map(second, items))
    optimum, x = instance.optimum.copy(), instance.solution.astype(np.float64)
    apart = np.array([value for _, value, _ in found]) / optimum - 1
    for i in np.flatnonzero(apart < 0):
        x[i], optimum[i], _ = found[i]
    note = {"disagreement": float(apart[np.argmax(np.abs(apart))]), "agreed_items": len(items)}
    return known(instance, optimum, x), note | {"admm_steps": max(steps for _, _, steps in found)}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("instance", type=Path)
    parser.add_argument("gap", type=float, nargs="?")
    parser.add_argument("--agree", action="store_true")
    arguments = parser.parse_args()
    instance, note = load(arguments.instance), {}
    if not arguments.agree:
        instance, note = certified(instance, arguments.gap)
    instance, more = agreed(instance)
    assert instance.optimum is not None and instance.optimal_psnr is not None
    save(instance, arguments.instance)
    note |= {**more, "optimum": float(instance.optimum[0]), "psnr": float(instance.optimal_psnr.mean())}
    print(json.dumps(note))


if __name__ == "__main__":
    main()
