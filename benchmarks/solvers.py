"""Do the solvers reach the optimum, is the gap that they report true, and what does a solve cost?

    python benchmarks/solvers.py -o benchmarks/results/solvers.json [--quick] [--only accuracy|timing]

Accuracy: closed forms and recomputed optima of total variation, certified gaps in both precisions, agreement with
independent methods in NumPy, the reported gap against the true one on random instances, batches against single items.
Timing (on a CPU): batches, one hard item among easy ones, the step against a hand-written one, compilation, import.
Every figure has its bar; the exit status is 1 where one is missed. `--quick` takes fewer instances and repetitions.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl
from solver_figures import cast, dense, figure, save
from solver_gaps import honest_gaps
from solver_timing import timing

import emjax
from emjax import L1, TV, Box, LeastSquares, Problem, Quadratic, Term, solve
from emjax.operators import DCT, PixelSampling, SubsampledFourier, Wavelet
from emjax.solvers import FISTA, PCG, PDHG, Status

# Total variation: closed forms and recomputed optima.


def known_optima() -> None:
    step = np.zeros((64, 64))
    step[:, 24:] = 1
    rectangle = np.zeros((64, 64))
    rectangle[10:42, 20:40] = 1
    rng = np.random.default_rng(0)
    truth = np.zeros((64, 64))
    truth[16:48, 20:40] = 1
    noisy = truth + 0.1 * rng.standard_normal((64, 64))

    def rof(y: np.ndarray, weight: float, isotropic: bool) -> emjax.Solution:
        problem = Problem(LeastSquares(PixelSampling(jnp.ones(y.shape)), y), TV(weight, isotropic))
        return solve(problem, PDHG(), gap=1e-10, max_steps=50_000)

    for isotropic in (True, False):
        kind = "isotropic" if isotropic else "anisotropic"
        for lam in (0.5, 5.0, 20.0):
            x = np.asarray(rof(step, lam, isotropic).value)
            left, right = (lam / 24, 1 - lam / 40) if lam < 15 else (0.625, 0.625)
            error = max(np.abs(x[:, :24] - left).max(), np.abs(x[:, 24:] - right).max())
            figure(f"vertical step, {kind}, weight {lam}: largest error", error, 1e-4)
    x = np.asarray(rof(rectangle, 0.5, False).value)
    error = np.abs(x - np.where(rectangle > 0, 0.918750, 0.015046)).max()
    figure("rectangle, anisotropic, weight 0.5: largest error", error, 1e-4)
    optima = {True: (22.86812317, 30.00078748, 40.203398), False: (24.08618154, 30.42952698, 40.65752824)}
    for isotropic, values in optima.items():
        for weight, value in zip((0.05, 0.1, 0.2), values, strict=True):
            s = rof(noisy, weight, isotropic)
            error = abs(float(s.objective) - value) / value
            kind = "isotropic" if isotropic else "anisotropic"
            figure(f"noisy square, {kind}, weight {weight}: relative objective error", error, 1e-8)
            if isotropic and weight == 0.1:
                psnr = -10 * np.log10(np.mean((np.asarray(s.value) - truth) ** 2))
                figure("noisy square: |PSNR - 34.7643| dB", abs(psnr - 34.7643), 1e-4)


# Certified gaps, and independent methods.


def scan_problems(shape: tuple[int, int]) -> dict[str, Problem]:
    rng = np.random.default_rng(1)
    truth = np.asarray(emjax.acquisition.phantom(shape, seed=3).image, float)
    mask = (rng.random(shape) < 0.25).astype(float)
    noisy = truth + 0.05 * rng.standard_normal(shape)
    scan, few = PixelSampling(mask), PixelSampling((rng.random(shape) < 0.1).astype(float))
    k = np.fft.fftfreq(shape[0])[:, None] ** 2 + np.fft.fftfreq(shape[1]) ** 2
    fourier = SubsampledFourier((rng.random(shape) < 0.2 + 0.8 * np.exp(-k / 0.005)).astype(float))
    wavelet = Term(L1(0.05), Wavelet(shape, "db4"))
    return {
        "TV inpainting, 25 %, noise 0.05": Problem(LeastSquares(scan, noisy * mask), TV(0.05)),
        "TV inpainting, 10 %, noiseless": Problem(LeastSquares(few, truth * few.mask), TV(0.005)),
        "TV, Fourier samples, box": Problem(LeastSquares(fourier, fourier(noisy)), TV(0.05), Box(0, 1)),
        "wavelet-l1, pixels": Problem(LeastSquares(scan, (noisy - 0.5) * mask), wavelet),
        "wavelet-l1, Fourier samples": Problem(LeastSquares(fourier, fourier(noisy - 0.5)), wavelet),
    }


def certified() -> None:
    with jax.enable_x64(True):
        problems = scan_problems((128, 128))
    for name, problem in problems.items():
        for dtype, bar in (("float64", 1e-6), ("float32", 1e-4)):
            with jax.enable_x64(dtype == "float64"):
                s = solve(cast(problem, dtype), PDHG(), gap=bar, max_steps=40_000)
            more = {"steps": int(s.steps), "status": Status(int(s.status)).name}
            figure(f"certified gap, {name}, {dtype}", float(s.gap), bar, **more)


def differences(shape: tuple[int, int]) -> sp.csr_matrix:
    """Forward differences with Neumann boundaries, the two directions stacked."""
    one = [sp.diags([-1.0, 1.0], [0, 1], (n, n)).tolil() for n in shape]
    for d in one:
        d[-1, -1] = 0
    return sp.vstack([sp.kron(one[0], sp.eye(shape[1])), sp.kron(sp.eye(shape[0]), one[1])]).tocsr()


def tv_admm(y: np.ndarray, mask: np.ndarray, weight: float, isotropic: bool, steps: int) -> float:
    """The optimum of TV inpainting by ADMM with a sparse LU factorisation, in NumPy and SciPy."""
    K, n, rho = differences(y.shape), y.size, 5 * weight
    factor = spl.splu((sp.diags(mask.ravel()) + rho * K.T @ K).tocsc())
    z = w = np.zeros(2 * n)
    best = np.inf
    for _ in range(steps):
        x = factor.solve((mask * y).ravel() + rho * K.T @ (z - w))
        v = 1.8 * (K @ x) - 0.8 * z + w
        if isotropic:
            size = np.linalg.norm(v.reshape(2, n), axis=0)
            z_new = (v.reshape(2, n) * np.maximum(1 - weight / rho / np.maximum(size, 1e-300), 0)).ravel()
        else:
            z_new = np.sign(v) * np.maximum(np.abs(v) - weight / rho, 0)
        z, w = z_new, v - z_new
        d = (K @ x).reshape(2, n)
        tv = np.linalg.norm(d, axis=0).sum() if isotropic else np.abs(d).sum()
        best = min(best, 0.5 * np.sum(mask * (x.reshape(y.shape) - y) ** 2) + weight * tv)
    return best


def lasso_ista(A: np.ndarray, W: np.ndarray, y: np.ndarray, weight: float, steps: int) -> float:
    """The optimum of analysis-l1 with an orthogonal W: plain proximal gradients on the coefficients, in NumPy."""
    B, y = A @ W.T, np.concatenate([y.ravel().real, y.ravel().imag]) if np.iscomplexobj(y) else y.ravel()
    step = 1 / np.linalg.norm(B, 2) ** 2
    c = step * B.T @ y
    for _ in range(steps):
        v = c - step * (B.T @ (B @ c - y))
        c = np.sign(v) * np.maximum(np.abs(v) - step * weight, 0)
    return 0.5 * np.sum((B @ c - y) ** 2) + weight * np.abs(c).sum()


def independent(quick: bool) -> None:
    rng = np.random.default_rng(2)
    shape = (40, 33)
    truth = np.kron(rng.random((5, 5)), np.ones((8, 8)))[: shape[0], : shape[1]]
    for isotropic in (True, False):
        mask = (rng.random(shape) < 0.4).astype(float)
        y = mask * (truth + 0.05 * rng.standard_normal(shape))
        s = solve(
            Problem(LeastSquares(PixelSampling(mask), y), TV(0.05, isotropic)), PDHG(), gap=1e-7, max_steps=50_000
        )
        other = tv_admm(y, mask, 0.05, isotropic, 1500 if quick else 4000)
        kind = "isotropic" if isotropic else "anisotropic"
        figure(f"TV inpainting, {kind}, against ADMM in SciPy", abs(float(s.objective) - other) / other, 1e-5)
    for name, problem in list(scan_problems((24, 24)).items())[3:]:
        weight = float(problem.terms[0].functional.weight)
        A, W = dense(problem.data.A), dense(problem.terms[0].K)
        other = lasso_ista(A, W, np.asarray(problem.data.y), weight, 20_000)
        for solver in (PDHG(), FISTA()):
            s = solve(problem, solver, gap=1e-8, max_steps=50_000)
            error = abs(float(s.objective) - other) / other
            figure(f"{name}, {type(solver).__name__} against ISTA in NumPy", error, 1e-5)


# Batches.


def batches() -> None:
    rng = np.random.default_rng(5)
    mask = (rng.random((32, 32)) < 0.4).astype("f4")
    y = mask * rng.random((3, 32, 32)).astype("f4")
    y[1] *= 1000
    nan = y.copy()
    nan[1, 5, 5], mask[5, 5] = np.nan, 1
    prior = Quadratic(DCT((32, 32)), np.linspace(0.1, 3, 1024, dtype="f4").reshape(32, 32))
    parts: dict[str, tuple[Any, Any]] = {
        "TV, PDHG": (lambda y: TV(0.05 * y.std((-1, -2), keepdims=True)), PDHG()),
        "wavelet-l1, FISTA": (lambda y: Term(L1(y.std((-1, -2), keepdims=True)), Wavelet((32, 32), "db2")), FISTA()),
        "quadratic, PCG": (lambda y: prior, PCG()),
    }
    for name, (term, solver) in parts.items():

        def run(y: np.ndarray, term: Any = term, solver: Any = solver, like: Any = None) -> emjax.Solution:
            problem = Problem(LeastSquares(PixelSampling(mask), y), term(y if like is None else like))
            return solve(problem, solver, gap=1e-4, max_steps=3000)

        together, alone = run(y), [run(v) for v in y]
        scale = [np.abs(np.asarray(s.value)).max() for s in alone]
        error = max(np.abs(together.value[i] - alone[i].value).max() / scale[i] for i in range(3))
        figure(f"batch against single items, a neighbour scaled by 1000: {name}", error, 1e-6)
        clean, broken = run(y), run(nan, like=y)
        same = all(
            bool((jnp.asarray(a)[jnp.array([0, 2])] == jnp.asarray(b)[jnp.array([0, 2])]).all())
            for a, b in ((clean.value, broken.value), (clean.steps, broken.steps), (clean.gap, broken.gap))
        )
        status = int(broken.status[1]) == Status.NON_FINITE and bool((broken.status[::2] == clean.status[::2]).all())
        figure(f"a NaN item has its own status and leaves the others unchanged: {name}", same and status, 1, True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/results/solvers.json"))
    parser.add_argument("--quick", action="store_true", help="fewer instances and repetitions")
    parser.add_argument("--only", choices=("accuracy", "timing"))
    options = parser.parse_args()
    status = 0
    if options.only != "timing":
        with jax.enable_x64(True):
            known_optima()
            independent(options.quick)
        certified()
        batches()
        honest_gaps(options.quick)
        status |= save(options.output, "accuracy")
    if options.only != "accuracy":
        timing(options.quick)
        status |= save(options.output, "timing")
    return status


if __name__ == "__main__":
    sys.exit(main())
