"""Do the solvers reach the optimum, is the gap that they report true, and what does a solve cost?

    python benchmarks/solvers.py -o benchmarks/results/solvers.json [--quick] [--only accuracy|timing]

Accuracy: closed forms and recomputed optima of total variation, certified gaps in both precisions, agreement with
independent methods in NumPy, the reported gap against the true one on random instances, batches against single items.
Timing (on a CPU): batches, one hard item among easy ones, the step against a hand-written one, compilation, import.
Every figure has its bar; the exit status is 1 where one is missed. `--quick` takes fewer instances and repetitions.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import scipy.sparse as sp
import scipy.sparse.linalg as spl

import emjax
from emjax import L1, TV, Box, LeastSquares, Problem, Quadratic, Term, solve
from emjax.operators import DCT, Blur, PixelSampling, SubsampledFourier, Wavelet, gaussian_kernel
from emjax.solvers import FISTA, PCG, PDHG, Status

FIGURES: list[dict[str, Any]] = []


def figure(name: str, value: float, bar: float, at_least: bool = False, **more: Any) -> None:
    """Note a figure and whether it keeps its bar."""
    passed = bool(value >= bar if at_least else value <= bar)
    row = {"figure": name, "value": float(value), "bar": bar, "passed": passed, **more}
    FIGURES.append({**row, "rule": "at least" if at_least else "at most"})
    print(f"{'ok  ' if passed else 'MISS'} {name}: {value:.4g} ({'>=' if at_least else '<='} {bar:.4g}) {more or ''}")


def cast(tree: Any, dtype: str) -> Any:
    """The same problem with every real or complex leaf in another precision."""

    def one(v: Any) -> Any:
        v = np.asarray(v)
        return jnp.asarray(v, np.result_type(dtype, np.complex64) if np.iscomplexobj(v) else dtype)

    return jax.tree.map(one, tree)


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
    for name, problem in scan_problems((128, 128)).items():
        for dtype, bar in (("float64", 1e-6), ("float32", 1e-4)):
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


def dense(operator: Any) -> np.ndarray:
    """The matrix of an operator in float64 (complex rows as real ones)."""
    n = int(np.prod(operator.in_shape))
    columns = np.asarray(operator(jnp.eye(n).reshape(n, *operator.in_shape))).reshape(n, -1).T
    return np.concatenate([columns.real, columns.imag]) if np.iscomplexobj(columns) else columns


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
        s = solve(Problem(LeastSquares(PixelSampling(mask), y), TV(0.05, isotropic)), PDHG(), gap=1e-7, max_steps=50_000)
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


# The reported gap against the true one.


def families(count: int) -> dict[str, tuple[Problem, Any]]:
    """Batches of random problems, about `count` in all, with the solver that takes them."""
    rng = np.random.default_rng(4)
    part = max(2, count // 20)

    def images(n: int, shape: tuple[int, ...]) -> np.ndarray:
        small = rng.random((n, *[-(-s // 4) for s in shape]))
        for axis in range(1, len(shape) + 1):
            small = np.repeat(small, 4, axis)
        x = small[(slice(None), *[slice(0, s) for s in shape])]
        column = (n, *[1] * len(shape))
        x = x + rng.choice([0, 0.1], column) * rng.standard_normal(x.shape)
        return x * rng.choice([1, 1000.0], column) + rng.choice([0, 100.0], column)

    def weights(x: np.ndarray) -> np.ndarray:
        axes = tuple(range(1, x.ndim))
        return x.std(axes, keepdims=True) * 10 ** rng.uniform(-2.5, 0, (len(x), *[1] * (x.ndim - 1)))

    def pixels(x: np.ndarray, soft: bool = False) -> PixelSampling:
        ratio = rng.choice([1, 0.6, 0.25, 0.1], (len(x), *[1] * (x.ndim - 1)))
        mask = (rng.random(x.shape) < ratio).astype(float)
        return PixelSampling(mask * (10 ** rng.uniform(-2, 0.5, x.shape) if soft else 1), x.ndim - 1)

    def frequencies(x: np.ndarray) -> SubsampledFourier:
        mask = (rng.random(x.shape) < 0.5).astype(float)
        mask[:, :3, :3] = 1
        return SubsampledFourier(mask)

    out: dict[str, tuple[Problem, Any]] = {}
    for kind, isotropic, shape, n in (
        ("isotropic 2-D", True, (16, 13), 5 * part),
        ("anisotropic 2-D", False, (16, 13), 2 * part),
        ("isotropic 3-D", True, (5, 6, 7), 2 * part),
        ("anisotropic 3-D", False, (5, 6, 7), part),
    ):
        x = images(n, shape)
        A, tv = pixels(x), TV(weights(x), isotropic, (2.0, 1.0, 1.0) if len(shape) == 3 else None)
        out[f"TV, {kind}"] = Problem(LeastSquares(A, A(x)), tv), PDHG()
    x = images(2 * part, (16, 13))
    A = pixels(x, soft=True)
    out["TV, soft masks and weighted"] = Problem(LeastSquares(A, A(x), rng.random(x.shape)), TV(weights(x))), PDHG()
    A, (low, high) = frequencies(x), np.quantile(x, [0.05, 0.95], axis=(1, 2))[:, :, None, None]
    out["TV, Fourier samples, box"] = Problem(LeastSquares(A, A(x)), TV(weights(x)), Box(low, high)), PDHG()
    for solver in (FISTA(), PDHG()):
        name, x = type(solver).__name__, images(2 * part, (16, 16))
        A, B, prior = pixels(x), frequencies(x), Term(L1(weights(x)), Wavelet((16, 16), "db2"))
        out[f"wavelet-l1, pixels, {name}"] = Problem(LeastSquares(A, A(x)), prior), solver
        out[f"wavelet-l1, Fourier samples, {name}"] = Problem(LeastSquares(B, B(x)), prior), solver
    f = np.hypot(*np.meshgrid(np.arange(16) / 32, np.arange(16) / 32, indexing="ij")).clip(1 / 64)
    A, d = pixels(x), f ** rng.choice([2, 3, 4], (len(x), 1, 1)) * 10 ** rng.uniform(-1, 2, (len(x), 1, 1))
    out["quadratic prior, PCG"] = Problem(LeastSquares(A, A(x)), Quadratic(DCT((16, 16)), d, x.mean())), PCG()
    A = Blur(gaussian_kernel((1.0, 1.0), 3), (16, 16))
    out["box only, FISTA"] = Problem(LeastSquares(A, A(x)), Box(low[: len(x)], high[: len(x)])), FISTA()
    return out


def true_objective(problem: Problem, x: np.ndarray) -> np.ndarray:
    """The objectives of a batch, every item by matrix products in NumPy (float64)."""
    term = problem.terms[0] if problem.terms else None
    values = []
    for i, v in enumerate(np.asarray(x, float)):
        item = jax.tree.map(lambda leaf, ndim: leaf, problem, problem)
        item = _item(item, i)
        r = dense(item.data.A) @ v.ravel()
        y = np.asarray(item.data.y).ravel()
        r = r - (np.concatenate([y.real, y.imag]) if np.iscomplexobj(y) else y)
        weight = 1.0 if item.data.weight is None else np.asarray(item.data.weight).ravel()
        value = 0.5 * np.sum(weight * r**2)
        if term is not None:
            g = item.terms[0].functional
            if isinstance(g, Quadratic):
                c = dense(g.C) @ (v - np.asarray(g.mean)).ravel()
                value += 0.5 * np.sum(np.asarray(g.d).ravel() * c**2)
            else:
                z = dense(item.terms[0].K) @ v.ravel()
                z = z.reshape(item.terms[0].K.out_shape)
                size = np.linalg.norm(z, axis=0) if type(g).__name__ == "GroupL1" else np.abs(z)
                value += np.sum(np.asarray(g.weight) * size)
        values.append(value)
    return np.asarray(values)
