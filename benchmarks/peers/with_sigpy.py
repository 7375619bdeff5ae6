"""SigPy: `PrimalDualHybridGradient` for total variation (accelerated where the data term allows it), `GradientMethod`
with acceleration for l1. Its finite differences and wavelets have other boundaries: ours are plain functions, which its
algorithms take. The primal step is 0.3 (0.5 where it is accelerated)."""

import numpy as np
import sigpy.alg
import sigpy.thresh
from instances import (
    Instance,
    Wavelet,
    dct_matrix,
    features,
    gradient,
    gradient_adjoint,
    inverse_transform,
    paste,
    transform,
)
from worker import Prepared, each, serve

TAU = {"inpainting": 0.3, "rof": 0.5}


def total_variation(instance: Instance, y: np.ndarray, n: int) -> np.ndarray:
    lam, tau = instance.lam, TAU[instance.kind]
    mask = None if instance.mask is None else instance.mask.astype(np.float32)
    isotropic = bool(instance.isotropic)

    def project(_: float, p: np.ndarray) -> np.ndarray:
        if not isotropic:
            return np.clip(p, -lam, lam)
        return p / np.maximum(1, np.sqrt(p[0] ** 2 + p[1] ** 2) / lam)

    def data(step: float, x: np.ndarray) -> np.ndarray:
        if mask is None:
            return (x + np.float32(step) * y) / np.float32(1 + step)
        return (x + np.float32(step) * y) / (1 + np.float32(step) * mask)  # y is zero off the mask

    x = y.copy() if mask is None else np.where(mask > 0, y, np.float32(y.sum() / mask.sum()))
    algorithm = sigpy.alg.PrimalDualHybridGradient(
        project,
        data,
        gradient,
        gradient_adjoint,
        x,
        np.zeros((2, *y.shape), np.float32),
        tau,
        0.99 / 8 / tau,
        gamma_primal=1 if mask is None else 0,
        max_iter=n,
        tol=-1,
    )
    while not algorithm.done():
        algorithm.update()
    return algorithm.x


def prepare(instance: Instance) -> Prepared:
    ys = instance.y.astype(np.complex64 if instance.fourier else np.float32)
    if instance.kind in ("inpainting", "rof"):
        return Prepared(lambda n: each(lambda y: total_variation(instance, y, n), ys))
    lam = float(instance.lam)
    if instance.kind == "wavelet":
        W = Wavelet(instance.scaling, instance.side, int(instance.levels), np.float32)
        mask, bound = instance.mask.astype(np.float32), 1.0
        shape = (instance.side, instance.side)

        def slope(c: np.ndarray, y: np.ndarray) -> np.ndarray:
            residual = mask * transform(W.adjoint(c), instance.fourier) - y
            return W.forward(inverse_transform(residual, instance.fourier))

        image = W.adjoint
    else:
        matrix, side = features(instance.matrix), instance.block
        D = dct_matrix(side, np.float32)
        bound = float(np.linalg.norm(instance.matrix, 2)) ** 2
        shape = (ys.shape[1], side * side)

        def slope(c: np.ndarray, y: np.ndarray) -> np.ndarray:
            return (c @ matrix.T - y) @ matrix

        def image(c: np.ndarray) -> np.ndarray:
            return paste(D.T @ c.reshape(-1, side, side) @ D, instance.side // side)

    def threshold(step: float, c: np.ndarray) -> np.ndarray:
        return sigpy.thresh.soft_thresh(np.float32(step * lam), c)

    def solve(y: np.ndarray, n: int) -> np.ndarray:
        start = np.zeros(shape, np.float32)
        algorithm = sigpy.alg.GradientMethod(
            lambda c: slope(c, y), start, 1 / bound, proxg=threshold, accelerate=True, max_iter=n, tol=-1
        )
        while not algorithm.done():
            algorithm.update()
        return image(algorithm.x)

    return Prepared(lambda n: each(lambda y: solve(y, n), ys))


if __name__ == "__main__":
    serve(prepare)
