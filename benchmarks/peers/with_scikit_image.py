"""scikit-image: `denoise_tv_chambolle` (isotropic ROF with Neumann boundaries; its weight is lam), no early stop."""

import numpy as np
from instances import Instance
from skimage.restoration import denoise_tv_chambolle
from worker import Prepared, each, serve


def prepare(instance: Instance) -> Prepared:
    ys = instance.y.astype(np.float32)

    def solve(y: np.ndarray, n: int) -> np.ndarray:
        return denoise_tv_chambolle(y, weight=float(instance.lam), eps=0, max_num_iter=n)

    return Prepared(lambda n: each(lambda y: solve(y, n), ys))


if __name__ == "__main__":
    serve(prepare)
