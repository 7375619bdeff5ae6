"""proxTV: `tv1_2d` (anisotropic ROF), Douglas-Rachford over rows and columns, the method that it takes by itself, with
two threads; float64, the only precision that it has. An iteration is one of Douglas-Rachford."""

import os

import numpy as np
import prox_tv
from instances import Instance
from worker import Prepared, serve


def prepare(instance: Instance) -> Prepared:
    ys, threads = instance.y.astype(np.float64), os.cpu_count() or 1

    def solve(n: int) -> np.ndarray:
        return np.stack([prox_tv.tv1_2d(y, float(instance.lam), n_threads=threads, max_iters=n) for y in ys])

    return Prepared(solve, first=2)


if __name__ == "__main__":
    serve(prepare)
