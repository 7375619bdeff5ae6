"""SPGL1: `spgl1` with the radius of the l1 ball at which the optima of both forms agree, so that no root is searched:
the most favourable set-up that it has. The radius is `|W x*|_1` of the reference optimum."""

from typing import Any

import numpy as np
from instances import Instance, Wavelet, cut, dct_matrix, features, inverse_transform, paste, transform
from scipy.sparse.linalg import LinearOperator
from spgl1 import spgl1
from worker import Prepared, each, serve


def prepare(instance: Instance) -> Prepared:
    if instance.kind == "wavelet":
        return Prepared(wavelet(instance))
    return Prepared(blocks(instance))


def run(A: LinearOperator, y: np.ndarray, radius: float, n: int) -> np.ndarray:
    return spgl1(A, y, tau=radius, sigma=0, iter_lim=n, verbosity=0, opt_tol=1e-9, bp_tol=1e-9, ls_tol=1e-9)[0]


def wavelet(instance: Instance) -> Any:
    side, fourier = instance.side, bool(instance.fourier)
    W = Wavelet(instance.scaling, side, int(instance.levels), np.float32)
    mask = instance.mask.astype(np.float32)
    seen = np.flatnonzero(mask)

    # Complex measurements as real ones: twice as many rows.
    def listed(r: np.ndarray) -> np.ndarray:
        r = r.ravel()[seen]
        return np.concatenate([r.real, r.imag]) if fourier else r

    def forward(c: np.ndarray) -> np.ndarray:
        return listed(transform(W.adjoint(c.reshape(side, side).astype(np.float32)), fourier))

    def back(r: np.ndarray) -> np.ndarray:
        full = np.zeros(side * side, np.complex64 if fourier else np.float32)
        full[seen] = r[: len(seen)] + 1j * r[len(seen) :] if fourier else r
        return W.forward(inverse_transform(full.reshape(side, side), fourier)).ravel()

    rows = len(seen) * (2 if fourier else 1)
    A = LinearOperator((rows, side * side), matvec=forward, rmatvec=back, dtype=np.float32)
    exact = Wavelet(instance.scaling, side, int(instance.levels))
    pairs = [
        (listed(y).astype(np.float32), float(np.abs(exact.forward(x)).sum()))
        for y, x in zip(instance.y, instance.solution, strict=True)
    ]

    def solve(n: int) -> np.ndarray:
        return each(lambda pair: W.adjoint(run(A, *pair, n).reshape(side, side).astype(np.float32)), pairs)

    return solve


def blocks(instance: Instance) -> Any:
    side = instance.block
    D, matrix = dct_matrix(side), features(instance.matrix)
    A = LinearOperator(matrix.shape, matvec=lambda c: matrix @ c, rmatvec=lambda r: r @ matrix, dtype=np.float32)
    radii = np.abs(D @ cut(instance.solution[0].astype(np.float64), side) @ D.T).sum((1, 2))
    pairs = list(zip(instance.y[0].astype(np.float32), radii, strict=True))

    def solve(n: int) -> np.ndarray:
        c = each(lambda pair: run(A, pair[0], float(pair[1]), n).reshape(side, side), pairs)
        return paste(D.T @ c @ D, instance.side // side)[None]

    return solve


if __name__ == "__main__":
    serve(prepare)
