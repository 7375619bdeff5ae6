"""scikit-learn: `Lasso` of every block on the matrix `Phi D.T`, coordinate descent over the active set; an iteration is
a sweep. Two blocks at a time: the descent releases Python's lock. The objective there is divided by the rows of Phi."""

import numpy as np
from instances import Instance, dct_matrix, features, paste
from sklearn.linear_model import Lasso
from worker import Prepared, each, serve


def prepare(instance: Instance) -> Prepared:
    side, rows = instance.block, len(instance.matrix)
    D, matrix = dct_matrix(side), np.asfortranarray(features(instance.matrix))
    ys = instance.y[0].astype(np.float32)

    def solve(n: int) -> np.ndarray:
        def block(y: np.ndarray) -> np.ndarray:
            model = Lasso(float(instance.lam) / rows, fit_intercept=False, max_iter=n, tol=1e-9, copy_X=False)
            return model.fit(matrix, y, check_input=False).coef_.reshape(side, side)

        x = D.T @ each(block, ys) @ D
        return paste(x, instance.side // side)[None]

    return Prepared(solve, first=2)


if __name__ == "__main__":
    serve(prepare)
