"""The second method of the reference optima: over-relaxed ADMM in NumPy, float64, exact in every inner step.

    x' = argmin of the quadratic parts,   h = rho K x' + (1 - rho) z,   z' = prox_{g/c}(h + u),   u' = u + h - z'

Total variation: `z = D x`, and where pixels are missing `w = x` too, which carries the data; the DCT solves for x.
Wavelet and blocks: `z = W x`, and the data's resolvent has a closed form (`T` unitary) or one Cholesky factor.
Source: Boyd et al. 2011. It shares no code with emjax; for total variation no algorithm either (PDHG), for l1 that of
Douglas-Rachford, which is ADMM in other variables.
"""

from collections.abc import Callable

import numpy as np
import scipy.fft
import scipy.linalg
from instances import (
    Instance,
    Wavelet,
    cut,
    gradient,
    gradient_adjoint,
    inverse_transform,
    paste,
    shrink,
    transform,
)

RHO = 1.8
EVERY, SETTLED, LIMIT = 25, 1e-8, 4000  # steps between looks; relative fall in them that is none; steps at most


def admm(instance: Instance, near: float = -np.inf) -> tuple[np.ndarray, float, int]:
    """The image, its objective and the steps, of an instance with one item.

    Ends where it settles, and where it has taken half as many steps again as to the objective `near`.
    """
    step, image = _tv(instance) if instance.kind in ("inpainting", "rof") else _l1(instance)
    best, value, last = np.inf, image(), LIMIT
    for n in range(1, LIMIT + 1):
        step()
        if n % EVERY == 0:
            objective = float(instance.objective(image()[None])[0])
            if objective < best:
                value = image().copy()
            settled = abs(best - objective) < SETTLED * objective
            best = min(best, objective)
            if best <= near:
                last = min(last, n + n // 2)
            if settled or n >= last:
                break
    return value, best, n


def _tv(instance: Instance) -> tuple[Callable[[], None], Callable[[], np.ndarray]]:
    y, lam, mask = instance.y[0].astype(np.float64), instance.lam, instance.mask
    c, d = 6 * lam, 0.15  # penalties: 1/c is the shrinkage's step, d that of the pixels
    n = instance.side
    eigenvalues = 2 - 2 * np.cos(np.pi * np.arange(n) / n)
    spectrum = c * (eigenvalues[:, None] + eigenvalues[None]) + (1 if mask is None else d)
    x = y if mask is None else np.full_like(y, y.sum() / mask.sum())
    s = {"x": x, "w": x, "v": 0 * x, "z": gradient(x), "u": np.zeros((2, n, n))}

    def step() -> None:
        data = y if mask is None else d * (s["w"] - s["v"])
        rhs = data + c * gradient_adjoint(s["z"] - s["u"])
        coefficients = scipy.fft.dctn(rhs, norm="ortho", workers=-1) / spectrum
        s["x"] = scipy.fft.idctn(coefficients, norm="ortho", workers=-1)
        h = RHO * gradient(s["x"]) + (1 - RHO) * s["z"] + s["u"]
        if instance.isotropic:
            size = np.sqrt(np.sum(h * h, 0))
            s["z"] = h * (np.maximum(size - lam / c, 0) / np.maximum(size, 1e-300))
        else:
            s["z"] = shrink(h, lam / c)
        s["u"] = h - s["z"]
        if mask is not None:
            h = RHO * s["x"] + (1 - RHO) * s["w"] + s["v"]
            s["w"] = (d * h + mask * y) / (d + mask)
            s["v"] = h - s["w"]

    return step, lambda: s["x"]


def _l1(instance: Instance) -> tuple[Callable[[], None], Callable[[], np.ndarray]]:
    lam, c = instance.lam, 0.05 if instance.kind == "wavelet" else 0.2
    if instance.kind == "wavelet":
        W = Wavelet(instance.scaling, instance.side, instance.levels)
        y, mask, fourier = instance.y[0], instance.mask.astype(np.float64), instance.fourier
        forward, adjoint = W.forward, W.adjoint

        def resolvent(v: np.ndarray) -> np.ndarray:  # (A.H A + c)^-1 (A.H y + c v)
            return inverse_transform((mask * y + c * transform(v, fourier)) / (mask + c), fourier)
    else:
        phi, side = instance.matrix.astype(np.float64), instance.block
        y, count = instance.y[0].astype(np.float64), instance.side // side
        factor = scipy.linalg.cho_factor(phi @ phi.T + c * np.eye(len(phi)))

        def forward(x: np.ndarray) -> np.ndarray:
            return scipy.fft.dctn(x, axes=(1, 2), norm="ortho")

        def adjoint(z: np.ndarray) -> np.ndarray:
            return scipy.fft.idctn(z, axes=(1, 2), norm="ortho")

        def resolvent(v: np.ndarray) -> np.ndarray:
            v = v.reshape(len(v), -1)
            r = scipy.linalg.cho_solve(factor, (y - v @ phi.T).T).T
            return (v + r @ phi).reshape(-1, side, side)

    start = np.zeros(instance.truth.shape[1:])
    start = start if instance.kind == "wavelet" else cut(start, instance.block)
    s = {"x": start, "z": forward(start), "u": forward(start)}

    def step() -> None:
        s["x"] = resolvent(adjoint(s["z"] - s["u"]))
        h = RHO * forward(s["x"]) + (1 - RHO) * s["z"] + s["u"]
        s["z"] = shrink(h, lam / c)
        s["u"] = h - s["z"]

    def image() -> np.ndarray:
        x = adjoint(s["z"])  # sparse
        return x if instance.kind == "wavelet" else paste(x, count)

    return step, image
