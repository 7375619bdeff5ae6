"""PyProximal: `PrimalDual` on PyLops' gradient for total variation, the accelerated proximal gradient for l1."""

import numpy as np
import pylops
import pyproximal
from instances import Instance, Wavelet, dct_matrix, features, inverse_transform, paste, transform
from pylops.utils.typing import NDArray
from pyproximal.optimization.primal import ProximalGradient
from pyproximal.optimization.primaldual import PrimalDual
from worker import Prepared, each, serve

TAU = {"inpainting": 0.3, "rof": 0.3}


class Data(pyproximal.ProxOperator):
    """`1/2 |mask (x - y)|^2`; the package's own `L2` solves the normal equations by iteration."""

    def __init__(self, y: NDArray, mask: NDArray | None) -> None:
        super().__init__(None, False)
        self.y, self.mask = y, np.float32(1) if mask is None else mask

    def __call__(self, x: NDArray) -> float:
        return 0.5 * float(np.sum((self.mask * x - self.y) ** 2))

    def prox(self, x: NDArray, tau: float) -> NDArray:
        tau = np.float32(tau)
        return (x + tau * self.y) / (1 + tau * self.mask)


class Smooth(pyproximal.ProxOperator):
    """`1/2 |A c - y|^2` by its gradient."""

    def __init__(self, forward, adjoint, y: NDArray) -> None:
        super().__init__(None, True)
        self.forward, self.adjoint, self.y = forward, adjoint, y

    def __call__(self, c: NDArray) -> float:
        return 0.5 * float(np.sum(np.abs(self.forward(c) - self.y) ** 2))

    def grad(self, c: NDArray) -> NDArray:
        return self.adjoint(self.forward(c) - self.y)


def total_variation(instance: Instance, y: np.ndarray, n: int) -> np.ndarray:
    shape = (instance.side, instance.side)
    mask = None if instance.mask is None else instance.mask.astype(np.float32).ravel()
    D = pylops.Gradient(shape, kind="forward", edge=False, dtype="float32")
    norm = (
        pyproximal.L21(ndim=2, sigma=float(instance.lam)) if instance.isotropic else pyproximal.L1(float(instance.lam))
    )
    tau = TAU[instance.kind]
    start = y if mask is None else np.where(mask.reshape(shape) > 0, y, np.float32(y.sum() / mask.sum()))
    x = PrimalDual(Data(y.ravel(), mask), norm, D, start.ravel(), tau, 0.99 / 8 / tau, niter=n)
    return x.reshape(shape)


def prepare(instance: Instance) -> Prepared:
    ys = instance.y.astype(np.complex64 if instance.fourier else np.float32)
    if instance.kind in ("inpainting", "rof"):
        return Prepared(lambda n: each(lambda y: total_variation(instance, y, n), ys))
    if instance.kind == "wavelet":
        W = Wavelet(instance.scaling, instance.side, int(instance.levels), np.float32)
        mask, bound, shape = instance.mask.astype(np.float32), 1.0, (instance.side, instance.side)

        def forward(c: np.ndarray) -> np.ndarray:
            return mask * transform(W.adjoint(c.reshape(shape)), instance.fourier)

        def adjoint(r: np.ndarray) -> np.ndarray:
            return W.forward(inverse_transform(r, instance.fourier)).ravel()

        def image(c: np.ndarray) -> np.ndarray:
            return W.adjoint(c.reshape(shape))
    else:
        matrix, side = features(instance.matrix), instance.block
        D, bound = dct_matrix(side, np.float32), float(np.linalg.norm(instance.matrix, 2)) ** 2
        shape = (ys.shape[1], side, side)

        def forward(c: np.ndarray) -> np.ndarray:
            return c.reshape(len(ys[0]), -1) @ matrix.T

        def adjoint(r: np.ndarray) -> np.ndarray:
            return (r @ matrix).ravel()

        def image(c: np.ndarray) -> np.ndarray:
            return paste(D.T @ c.reshape(shape) @ D, instance.side // side)

    def solve(y: np.ndarray, n: int) -> np.ndarray:
        start = np.zeros(int(np.prod(shape)), np.float32)
        norm = pyproximal.L1(float(instance.lam))
        smooth = Smooth(forward, adjoint, y)
        return image(ProximalGradient(smooth, norm, start, tau=1 / bound, niter=n, acceleration="fista"))

    return Prepared(lambda n: each(lambda y: solve(y, n), ys))


if __name__ == "__main__":
    serve(prepare)
