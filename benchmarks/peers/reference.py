"""The optimum of an instance, written into it: by emjax in float64 to a certified gap, and by ADMM in NumPy.

    python reference.py INSTANCE.npz GAP

The second method solves the first item only. The last line of the output is JSON: `disagreement`, the relative
difference of the two objectives, and the certified gap.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax

jax.config.update("jax_enable_x64", True)

import numpy as np  # noqa: E402
from instances import load, save  # noqa: E402
from references import admm  # noqa: E402
from with_emjax import images, problem  # noqa: E402

from emjax import solve  # noqa: E402


def main() -> None:
    path, gap = Path(sys.argv[1]), float(sys.argv[2])
    instance = load(path)
    solution = solve(problem(instance, np.float64), gap=gap, max_steps=200_000)
    x = np.array(images(solution.value, instance))
    optimum = instance.objective(x)
    other, value, steps = admm(instance.item(0))
    disagreement = value / optimum[0] - 1
    if disagreement < 0:
        optimum[0], x[0] = value, other
    known = {"optimum": optimum, "optimal_psnr": instance.psnr(x), "solution": x.astype(np.float32)}
    save(dataclasses.replace(instance, **known), path)
    certified = float(np.max(solution.gap))
    note = {"disagreement": float(disagreement), "certified_gap": certified, "optimum": float(optimum[0])}
    note |= {"steps": int(np.max(solution.steps)), "admm_steps": steps, "psnr": float(known["optimal_psnr"].mean())}
    print(json.dumps(note))


if __name__ == "__main__":
    main()
