"""How many measurements does a sparse signal need, method by method?

The classical figures of compressive sensing:

- diagram: Gaussian matrices of N = 1000 columns, delta = M / N by rho = k / M, AMP everywhere and basis pursuit (PDHG)
  near the transition, one matrix a column of delta. Theory: the weak threshold of Donoho and Tanner; the points where
  half of the l1 recoveries succeed have to lie within 0.03 of it in rho. Success: a relative error below 1e-3.
- evolution: the mean squared error of AMP at each iteration against state evolution, N = 4000, noise variance 0.2, 50
  trials; in float64 (N = 1000), its limit against the LASSO of its weight, and that against basis pursuit denoising.
- stability: the error of basis pursuit denoising against the size of the noise, over two decades; its slope.
- sparse: every method on signals of N = 256 with k = 20 entries, Gaussian matrices, M from small to large.
  Success: a relative error below 1e-2.
- patches: 32 x 32 patches of synthetic tissue, and of real EM images where the data is there, Gaussian matrices; sparse
  in wavelets (db2). Convex and greedy methods, a Gaussian field, AMP and VAMP with wavelets, D-AMP with total variation
  and with non-local means, plug-and-play and RED with total variation (proximal gradients, ADMM, half-quadratic
  splitting; as many steps as are given, from nothing), learned ones. Success: a PSNR of 25 dB or more.

A point of the last two is one compiled call of all its trials. Intervals are Wilson's, 95 %.

    python benchmarks/recovery_probability.py -o benchmarks/results/recovery_probability.json \
        --picture docs/recovery_probability.png [--quick] [--only diagram evolution stability sparse patches]

The JSON is written after each point; a run that was stopped goes on from there, and parts of other sizes than the
report has start anew. The data is looked for as in
sparse_scans.py. Exits with 1 where a figure misses its bar. A method is added by a line in SPARSE or PATCHES.
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize
from sparse_scans import CROPS, find_folder, load_crop

import emjax
from emjax.acquisition import phantom
from emjax.denoisers import NonLocalMeans, TVDenoiser
from emjax.functionals import LeastSquares
from emjax.operators import Dense, Wavelet
from emjax.reconstructors import (
    AMP,
    HTP,
    IHT,
    OMP,
    VAMP,
    BasisPursuit,
    BernoulliGauss,
    CoSaMP,
    Lasso,
    PlugAndPlay,
    ReweightedL1,
    SoftThreshold,
    Spectral,
    TotalGeneralisedVariation,
    TotalVariation,
    donoho_tanner,
)
from emjax.solvers import HQS, RED, ParetoRoot, PnPADMM, PnPPGD, Problem, solve

PARTS = ("diagram", "evolution", "stability", "sparse", "patches")
STRICT, LOOSE, DECIBELS = 1e-3, 1e-2, 25.0
BARS = {"transition_distance": 0.03, "evolution_error": 0.05, "agreement": 1e-3, "stability_slope": [0.9, 1.1]}
SIDE = 32


class Setting(NamedTuple):
    """What a method may know of a point."""

    m: int
    n: int
    k: int


class WaveletThreshold(NamedTuple):
    """Soft thresholding of wavelet coefficients, for AMP on images."""

    alpha: float = 1.5

    def __call__(self, v: jax.Array, sigma: jax.Array) -> jax.Array:
        W = wavelet()
        return W.adjoint(SoftThreshold(self.alpha)(W.forward(v), sigma))


class Solved(NamedTuple):
    """Least squares with a solver that brings its own prior: plug-and-play and RED."""

    solver: Any
    max_steps: int

    def __call__(self, y: jax.Array, A: Dense) -> jax.Array:
        return solve(Problem(LeastSquares(A, y)), self.solver, gap=1e-4, max_steps=self.max_steps).value


@functools.cache
def wavelet() -> Wavelet:
    return Wavelet((SIDE, SIDE), "db2")


def _share(s: Setting) -> int:
    return max(1, s.m // 4)


# The methods: a name and how it is set up for a point. A learned reconstructor is one line more.
SPARSE: dict[str, Callable[[Setting], Any]] = {
    "OMP": lambda s: OMP(s.k),
    "CoSaMP": lambda s: CoSaMP(s.k),
    "IHT": lambda s: IHT(s.k),
    "HTP": lambda s: HTP(s.k),
    "LASSO": lambda s: Lasso(2e-3, gap=1e-4, max_steps=3000),
    "basis pursuit": lambda s: BasisPursuit(0.0, gap=1e-3, max_steps=2000),
    "reweighted l1": lambda s: ReweightedL1(BasisPursuit(0.0, gap=1e-3, max_steps=800), rounds=3),
    "AMP": lambda s: AMP(iterations=300),
    "VAMP": lambda s: VAMP(SoftThreshold.minimax(s.m / s.n), iterations=200, damping=0.9),
    "VAMP, prior known": lambda s: VAMP(BernoulliGauss(s.k / s.n, 1.0), iterations=100, damping=0.9),
}
PATCHES: dict[str, Callable[[Setting], Any]] = {
    "total variation": lambda s: TotalVariation(1e-3, gap=1e-2, max_steps=1000),
    "TGV": lambda s: TotalGeneralisedVariation(1e-3, gap=1e-2, max_steps=1000),
    "LASSO": lambda s: Lasso(2e-3, transform=wavelet(), gap=1e-3, max_steps=1000),
    "basis pursuit": lambda s: BasisPursuit(1e-3, transform=wavelet(), gap=1e-2, max_steps=1000),
    "reweighted l1": lambda s: ReweightedL1(
        BasisPursuit(1e-3, transform=wavelet(), gap=1e-2, max_steps=500), rounds=2, offset=0.02
    ),
    "OMP, k = M / 4": lambda s: OMP(_share(s), transform=wavelet()),
    "CoSaMP, k = M / 4": lambda s: CoSaMP(_share(s), transform=wavelet()),
    "IHT, k = M / 4": lambda s: IHT(_share(s), transform=wavelet(), max_steps=300),
    "HTP, k = M / 4": lambda s: HTP(_share(s), transform=wavelet()),
    "AMP, wavelets": lambda s: AMP(WaveletThreshold(), iterations=60, damping=0.9),
    "VAMP, wavelets": lambda s: VAMP(WaveletThreshold(), iterations=60, damping=0.9),
    "plug-and-play": lambda s: PlugAndPlay(1e-5, start=TotalVariation(1e-3, gap=1e-2, max_steps=1000)),
    "spectral": lambda s: Spectral(10.0, 3.0, max_steps=200),
    "D-AMP, TV": lambda s: AMP(TVDenoiser(steps=20), iterations=50, damping=0.9),
    "D-AMP, NLM": lambda s: AMP(NonLocalMeans(1.0, 1, 3), iterations=20),
    "PnP-PGD, TV": lambda s: Solved(PnPPGD(TVDenoiser(steps=10), 1e-3), 400),
    "PnP-ADMM, TV": lambda s: Solved(PnPADMM(TVDenoiser(steps=20), 2e-4, 0.05), 150),
    "HQS, TV": lambda s: Solved(HQS(TVDenoiser(steps=10), 2e-4, 0.01, first=0.2, iterations=200), 200),
    "RED, TV": lambda s: Solved(RED(TVDenoiser(steps=10), 0.02, 0.03), 300),
    "CSGM, learned": lambda s: emjax.load("csgm-vae", restarts=2, steps=300),
    "ISTA-Net+, learned": lambda s: emjax.load("ista-net-plus"),
    "DeepInverse, learned": lambda s: emjax.load("deep-inverse"),
}
# Points of networks are measured anew where their weights have changed.
WEIGHTS = {"CSGM, learned": "csgm-vae", "ISTA-Net+, learned": "ista-net-plus", "DeepInverse, learned": "deep-inverse"}


# Draws and judgements.


def matrices(rng: np.random.Generator, groups: int, m: int, n: int) -> np.ndarray:
    return (rng.standard_normal((groups, m, n)) / m**0.5).astype("f4")


def signals(rng: np.random.Generator, shape: tuple[int, ...], n: int, k: int) -> np.ndarray:
    """k standard normal entries at random places."""
    x = np.zeros((*shape, n), "f4")
    for index in np.ndindex(*shape):
        x[index][rng.permutation(n)[:k]] = rng.standard_normal(k)
    return x


@functools.partial(jax.jit, static_argnames="shape")
def recover(recon: Any, phi: jax.Array, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """All trials of a point, groups that share a matrix one after the other: recovered `(groups, trials, *shape)`."""

    def group(both: tuple[jax.Array, jax.Array]) -> jax.Array:
        A = Dense(both[0], shape)
        return recon(jax.vmap(A.forward)(both[1]), A)

    return jax.lax.map(group, (phi, x))


def relative_errors(found: Any, x: np.ndarray) -> np.ndarray:
    flat = (np.asarray(found, float) - x).reshape(*x.shape[:2], -1)
    return np.linalg.norm(flat, axis=-1) / np.linalg.norm(x.reshape(*x.shape[:2], -1), axis=-1)


def wilson(successes: int, trials: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's interval of a proportion (1927)."""
    p, shrink = successes / trials, 1 + z * z / trials
    middle, half = p + z * z / (2 * trials), z * np.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2))
    return float((middle - half) / shrink), float((middle + half) / shrink)


def point(success: np.ndarray, seconds: float) -> dict[str, Any]:
    successes, trials = int(np.sum(success)), int(success.size)
    low, high = wilson(successes, trials)
    return {"rate": successes / trials, "low": low, "high": high, "trials": trials, "seconds": round(seconds, 2)}


def timed(fn: Callable[[], Any]) -> tuple[Any, float]:
    begin = time.perf_counter()
    out = jax.block_until_ready(fn())
    return out, time.perf_counter() - begin


# The diagram.


def diagram(sizes: dict[str, Any], points: dict[str, Any], save: Callable[[], None]) -> None:
    n, trials = sizes["n"], sizes["trials"]
    for delta in sizes["deltas"]:
        m = round(delta * n)
        phi = matrices(np.random.default_rng([1, m]), 1, m, n)
        amp, l1 = AMP(iterations=sizes["amp_iterations"]), BasisPursuit(0.0, gap=1e-5, max_steps=sizes["l1_steps"])
        middle = donoho_tanner(delta)[0]
        near = [round(middle + offset, 4) for offset in sizes["offsets"]]
        for method, recon, rhos in (("AMP", amp, sizes["rhos"]), ("l1", l1, near)):
            for rho in rhos:
                label = f"{method}, delta {delta:g}, rho {rho:g}"
                if label in points:
                    continue
                k = max(1, round(rho * m))
                x = signals(np.random.default_rng([2, m, k]), (1, trials), n, k)
                found, seconds = timed(lambda recon=recon, phi=phi, x=x: recover(recon, phi, x, (n,)))
                points[label] = {"method": method, "delta": m / n, "rho": k / m} | point(
                    relative_errors(found, x) < STRICT, seconds
                )
                print(label, points[label]["rate"], f"{seconds:.1f} s", flush=True)
                save()


def half(rhos: np.ndarray, rates: np.ndarray, trials: int) -> float | None:
    """Where a logistic curve through the rates (by maximum likelihood) is one half; None if it is not in sight."""
    if rates.max() <= 0.2 or rates.min() >= 0.8:
        return None

    def loss(v: np.ndarray) -> float:
        z = np.exp(v[1]) * (v[0] - rhos)
        return float(np.sum(trials * (np.logaddexp(0, -z) * rates + np.logaddexp(0, z) * (1 - rates))))

    start = np.array([np.interp(-0.5, -rates, rhos), np.log(100.0)])
    return float(minimize(loss, start, method="Nelder-Mead", options={"xatol": 1e-6, "fatol": 1e-8}).x[0])


def transitions(points: dict[str, Any]) -> list[dict[str, Any]]:
    lines = []
    for method, delta in sorted({(p["method"], p["delta"]) for p in points.values()}):
        row = sorted(
            (p["rho"], p["rate"], p["trials"]) for p in points.values() if (p["method"], p["delta"]) == (method, delta)
        )
        rhos, rates, trials = (np.array(v) for v in zip(*row, strict=True))
        lines.append(
            {"method": method, "delta": delta, "half": half(rhos, rates, trials[0]), "theory": donoho_tanner(delta)[0]}
        )
    return lines


# State evolution.


def risk(sigma2: float, alpha: float, sparsity: float) -> tuple[float, float]:
    """`E |eta(x + sigma z) - x|^2` and `E eta'` of the soft threshold `alpha sigma` for entries 0, +1, -1."""
    z = np.linspace(-12, 12, 48_001)
    density = np.exp(-z * z / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    sigma = np.sqrt(sigma2)
    error = slope = 0.0
    for x, share in ((0.0, 1 - sparsity), (1.0, sparsity)):  # -1 is like +1
        v = x + sigma * z
        kept = np.abs(v) > alpha * sigma
        error += share * float(np.sum(density * (np.sign(v) * np.maximum(np.abs(v) - alpha * sigma, 0) - x) ** 2))
        slope += share * float(np.sum(density * kept))
    return error, slope


DELTA, SPARSITY, VARIANCE = 0.64, 0.128, 0.2


def noisy(seed: int, n: int, trials: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A matrix with columns of norm 1, as AMP scales them, signals of +-1, and their noisy measurements."""
    rng, m = np.random.default_rng(seed), round(DELTA * n)
    phi = matrices(rng, 1, m, n)[0]
    phi /= np.linalg.norm(phi, axis=0)
    x = ((rng.random((trials, n)) < SPARSITY) * rng.choice([-1.0, 1.0], (trials, n))).astype("f4")
    return phi, x, x @ phi.T + VARIANCE**0.5 * rng.standard_normal((trials, m)).astype("f4")


@jax.jit
def traced(recon: AMP, y: jax.Array, phi: jax.Array) -> Any:
    return jax.vmap(lambda one: recon.trace(one, Dense(phi)))(y)


def agreement(alpha: float, sizes: dict[str, Any]) -> dict[str, float]:
    """In float64: the limit of AMP, the LASSO of its last weight, basis pursuit denoising of that residual."""
    phi, _, y = noisy(8, sizes["agreeing_n"], sizes["agreeing"])
    with jax.enable_x64(True):
        phi, y = phi.astype(float), y.astype(float)
        found, trace = traced(AMP(SoftThreshold(alpha), iterations=300), y, phi)
        found = np.asarray(found)
        weight = alpha * np.asarray(trace.sigma)[:, -1] * (1 - np.mean(found != 0, 1) / DELTA)
        lasso = np.asarray(Lasso(weight, gap=1e-10, max_steps=10_000)(y, Dense(phi)))
        eps = np.linalg.norm(lasso @ phi.T - y, axis=1)
        denoised = np.asarray(BasisPursuit(eps, solver=ParetoRoot(), gap=1e-7, max_steps=10_000)(y, Dense(phi)))

    def apart(a: np.ndarray) -> float:
        return float(np.max(np.linalg.norm(a - lasso, axis=1) / np.linalg.norm(lasso, axis=1)))

    return {"amp_from_lasso": apart(found), "bpdn_from_lasso": apart(denoised)}


def evolution(sizes: dict[str, Any], points: dict[str, Any], save: Callable[[], None]) -> None:
    count = sizes["iterations"]
    phi, x, y = noisy(3, sizes["n"], sizes["trials"])
    for alpha in sizes["alphas"]:
        label = f"alpha {alpha:g}"
        if label in points:
            continue
        method = AMP(SoftThreshold(alpha), iterations=count)
        (_, trace), seconds = timed(lambda method=method: traced(method, y, phi))
        measured = np.mean((np.asarray(trace.x) - x[:, None]) ** 2, (0, 2))
        predicted, sigma2 = [], VARIANCE + SPARSITY / DELTA
        for _ in range(count):
            error, slope = risk(sigma2, alpha, SPARSITY)
            predicted.append(error)
            last, sigma2 = sigma2, VARIANCE + error / DELTA
        points[label] = {
            "weight": float(alpha * np.sqrt(last) * (1 - slope / DELTA)),  # of the LASSO whose optimum is the limit
            "measured": measured.tolist(),
            "predicted": predicted,
            "largest_deviation": float(np.max(np.abs(measured / np.array(predicted) - 1))),
            "seconds": seconds,
        } | agreement(alpha, sizes)
        print(label, {k: v for k, v in points[label].items() if not isinstance(v, list)}, flush=True)
        save()


def stability(sizes: dict[str, Any], points: dict[str, Any], save: Callable[[], None]) -> None:
    m, n, k, trials = 128, 256, 15, sizes["trials"]
    rng = np.random.default_rng(4)
    phi = matrices(rng, 1, m, n)[0].astype(float)
    x = signals(rng, (1, trials), n, k)[0].astype(float)
    clean, direction = x @ phi.T, rng.standard_normal((trials, m))
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    for eps in sizes["eps"]:
        label = f"eps {eps:.4g}"
        if label in points:
            continue
        with jax.enable_x64(True):
            recon = BasisPursuit(eps, solver=ParetoRoot(), gap=1e-6, max_steps=10_000)
            found, seconds = timed(lambda recon=recon, eps=eps: recon(clean + eps * direction, Dense(phi)))
        errors = np.linalg.norm(np.asarray(found) - x, axis=1)
        points[label] = {"eps": eps, "error": float(np.median(errors)), "seconds": seconds}
        print(label, points[label]["error"], f"{seconds:.1f} s", flush=True)
        save()


def slope(points: dict[str, Any]) -> float:
    eps, errors = (np.array([p[k] for p in points.values()]) for k in ("eps", "error"))
    return float(np.polyfit(np.log(eps), np.log(errors), 1)[0])


# Every method.


def sparse(sizes: dict[str, Any], points: dict[str, Any], save: Callable[[], None]) -> None:
    n, k, groups, trials = sizes["n"], sizes["k"], sizes["matrices"], sizes["trials"]
    for delta in sizes["deltas"]:
        m = round(delta * n)
        rng = np.random.default_rng([5, m])
        phi, x = matrices(rng, groups, m, n), signals(rng, (groups, trials // groups), n, k)
        for name, make in SPARSE.items():
            label = f"{name}, delta {delta:g}"
            if label in points or k > m:
                continue
            recon = make(Setting(m, n, k))
            found, seconds = timed(lambda recon=recon, phi=phi, x=x: recover(recon, phi, x, (n,)))
            points[label] = {"method": name, "delta": m / n} | point(relative_errors(found, x) < LOOSE, seconds)
            print(label, points[label]["rate"], f"{seconds:.1f} s", flush=True)
            save()


def patches_of(image: np.ndarray, rng: np.random.Generator, groups: int, trials: int) -> np.ndarray:
    rows, columns = (rng.integers(0, s - SIDE + 1, groups * trials) for s in image.shape)
    cut = [image[r : r + SIDE, c : c + SIDE] for r, c in zip(rows, columns, strict=True)]
    return np.stack(cut).reshape(groups, trials, SIDE, SIDE).astype("f4")


def patches(
    sizes: dict[str, Any], points: dict[str, Any], save: Callable[[], None], images: dict[str, np.ndarray]
) -> None:
    n, groups, trials = SIDE * SIDE, sizes["matrices"], sizes["trials"]
    for delta in sizes["deltas"]:
        m = round(delta * n)
        for source, image in images.items():
            rng = np.random.default_rng([6, m])
            phi, x = matrices(rng, groups, m, n), patches_of(image, rng, groups, trials // groups)
            for name, make in PATCHES.items():
                label = f"{source}, {name}, delta {delta:g}"
                made = {"sha256": emjax.zoo.entry(WEIGHTS[name]).sha256} if name in WEIGHTS else {}
                if label in points and points[label].get("sha256") == made.get("sha256"):
                    continue
                recon = make(Setting(m, n, _share(Setting(m, n, 0))))
                found, seconds = timed(lambda recon=recon, phi=phi, x=x: recover(recon, phi, x, (SIDE, SIDE)))
                error = np.mean((np.clip(np.asarray(found), 0, 1) - x) ** 2, (2, 3))
                psnr = -10 * np.log10(np.maximum(error, 1e-12))
                points[label] = (
                    {"source": source, "method": name, "delta": m / n} | point(psnr >= DECIBELS, seconds) | made
                )
                points[label]["median_psnr"] = float(np.median(psnr))
                print(label, points[label]["rate"], f"{np.median(psnr):.1f} dB {seconds:.1f} s", flush=True)
                save()


# The report.


def verdict(report: dict[str, Any]) -> dict[str, Any]:
    """The figures that have a bar, as far as they are there."""
    out: dict[str, Any] = {}
    lines = [t for t in transitions(report["diagram"]) if t["method"] == "l1"]
    if lines:
        known = all(t["half"] is not None for t in lines)
        worst = max(abs(t["half"] - t["theory"]) for t in lines) if known else None
        out["transition_distance"] = {"value": worst, "met": known and worst <= BARS["transition_distance"]}
        out["diagram_seconds"] = {"value": sum(p["seconds"] for p in report["diagram"].values())}
    if report["evolution"]:
        worst = max(p["largest_deviation"] for p in report["evolution"].values())
        out["evolution_error"] = {"value": worst, "met": worst <= BARS["evolution_error"]}
        worst = max(max(p["amp_from_lasso"], p["bpdn_from_lasso"]) for p in report["evolution"].values())
        out["agreement"] = {"value": worst, "met": worst <= BARS["agreement"]}
    if len(report["stability"]) > 2:
        value, (low, high) = slope(report["stability"]), BARS["stability_slope"]
        out["stability_slope"] = {"value": value, "met": low <= value <= high}
    return out


def beneath(axis: Any, columns: int) -> None:
    """The legend below the axis, where it hides nothing."""
    place = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.16)}
    axis.legend(fontsize=6, frameon=False, ncols=columns, columnspacing=1, handlelength=2.4, **place)


def curves(axis: Any, points: list[dict[str, Any]], methods: list[str]) -> None:
    """In the order of the methods, ten colours a kind of line; those that are no longer known last."""
    found = dict.fromkeys(p["method"] for p in points)
    for i, name in enumerate(dict.fromkeys([*(m for m in methods if m in found), *found])):
        row = sorted((p["delta"], p["rate"], p["low"], p["high"]) for p in points if p["method"] == name)
        delta, rate, low, high = (np.array(v) for v in zip(*row, strict=True))
        style = ("-", "--", ":")[i // 10 % 3]
        (line,) = axis.plot(delta, rate, style, marker="o", markersize=2.5, linewidth=1, label=name)
        axis.fill_between(delta, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axis.set(xlabel="M / N", ylabel="share recovered", ylim=(-0.03, 1.03))
    beneath(axis, 3)


def picture(report: dict[str, Any], output: Path) -> None:
    sources = list(dict.fromkeys(p["source"] for p in report["patches"].values()))
    rows = 2 if report["sparse"] or sources else 1
    figure, axes = plt.subplots(rows, 3, figsize=(13, 4.2 * rows), layout="constrained", squeeze=False)
    axis, columns = axes[0, 0], report["settings"]["sizes"]["diagram"]["n"]
    amp = [p for p in report["diagram"].values() if p["method"] == "AMP"]
    if amp:
        delta, rho, rate = ([p[key] for p in amp] for key in ("delta", "rho", "rate"))
        marks = {"marker": "s", "s": 60, "edgecolors": "0.6", "linewidths": 0.3}
        drawn = axis.scatter(delta, rho, c=rate, cmap="gray", vmin=0, vmax=1, **marks)
        figure.colorbar(drawn, ax=axis, label="share recovered (AMP)")
        line = np.linspace(0.05, 0.95, 60)
        axis.plot(line, [donoho_tanner(d)[0] for d in line], color="#c0392b", linewidth=1, label="Donoho-Tanner")
        found = [t for t in transitions(report["diagram"]) if t["method"] == "l1" and t["half"] is not None]
        axis.plot([t["delta"] for t in found], [t["half"] for t in found], "x", color="#f2a900", label="l1: one half")
        axis.set(
            xlabel="delta = M / N",
            ylabel="rho = k / M",
            title=f"Gaussian matrices, N = {columns}",
        )
        beneath(axis, 2)
    axis = axes[0, 1]
    for label, p in report["evolution"].items():
        steps = np.arange(1, 1 + len(p["measured"]))
        (drawn,) = axis.plot(steps, p["predicted"], linewidth=1, label=label)
        axis.plot(steps, p["measured"], "o", markersize=3, color=drawn.get_color())
    axis.set(xlabel="iteration", ylabel="mean squared error", title="AMP (dots) and state evolution", yscale="log")
    if report["evolution"]:
        beneath(axis, 4)
    axis = axes[0, 2]
    if report["stability"]:
        axis.loglog(*zip(*[(p["eps"], p["error"]) for p in report["stability"].values()], strict=True), "o-")
        axis.set(
            xlabel="size of the noise", ylabel="error", title=f"stable recovery, slope {slope(report['stability']):.2f}"
        )
    if report["sparse"]:
        curves(axes[1, 0], list(report["sparse"].values()), list(SPARSE))
        n, k = (report["settings"]["sizes"]["sparse"][key] for key in ("n", "k"))
        axes[1, 0].set(title=f"sparse signals, N = {n}, k = {k}")
    for axis, source in zip(axes[-1, 1:], sources, strict=False):
        curves(axis, [p for p in report["patches"].values() if p["source"] == source], list(PATCHES))
        axis.set(title=f"patches, {source}, {DECIBELS:g} dB")
    for axis in axes.flat:
        axis.set_visible(axis.has_data())
    output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(output, dpi=110)
    plt.close(figure)


def sizes_of(quick: bool) -> dict[str, dict[str, Any]]:
    diagram = {"n": 1000, "trials": 100, "deltas": [0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]}
    diagram |= {"rhos": [round(0.04 * i, 2) for i in range(1, 21)], "offsets": [-0.045, -0.015, 0.015, 0.045]}
    diagram |= {"amp_iterations": 300, "l1_steps": 10_000}
    ratios = [round(0.1 + 0.05 * i, 2) for i in range(11)]
    sizes: dict[str, dict[str, Any]] = {
        "diagram": diagram,
        "evolution": {"n": 4000, "trials": 50, "iterations": 20, "alphas": [1.0, 1.25, 1.4, 2.0]},
        "stability": {"trials": 20, "eps": [float(v) for v in np.geomspace(1e-3, 1e-1, 7)]},
        "sparse": {"n": 256, "k": 20, "matrices": 20, "trials": 1000, "deltas": ratios},
        "patches": {"matrices": 4, "trials": 1000, "deltas": [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7]},
    }
    sizes["evolution"] |= {"agreeing": 4, "agreeing_n": 1000}
    if quick:
        sizes["diagram"] |= {"n": 200, "trials": 20, "deltas": [0.5], "rhos": [0.2, 0.6], "amp_iterations": 100}
        sizes["diagram"] |= {"l1_steps": 1000}
        sizes["evolution"] |= {"n": 1000, "trials": 10, "alphas": [1.4], "agreeing_n": 400}
        sizes["stability"] |= {"trials": 4, "eps": [1e-3, 1e-2, 1e-1]}
        sizes["sparse"] |= {"n": 128, "k": 8, "matrices": 2, "trials": 20, "deltas": [0.4]}
        sizes["patches"] |= {"matrices": 1, "trials": 8, "deltas": [0.4]}
    return sizes


def earlier_parts(output: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The report of an earlier run, with those of its parts that were of the same sizes; the others are empty."""
    report: dict[str, Any] = json.loads(output.read_text()) if output.is_file() else {}
    earlier = report.get("settings", {})
    if {**earlier, "sizes": None} != {**settings, "sizes": None}:
        report = {}
    same = [part for part in PARTS if report and earlier["sizes"].get(part) == settings["sizes"][part]]
    return {"settings": settings} | {part: report[part] if part in same else {} for part in PARTS}


def write(report: dict[str, Any], output: Path) -> None:
    """Through a temporary file: a run that is stopped leaves a whole report."""
    output.parent.mkdir(parents=True, exist_ok=True)
    beside = output.with_suffix(".tmp")
    beside.write_text(json.dumps(report, indent=1) + "\n")
    os.replace(beside, output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--picture", type=Path, help="where to write the figure (default: a .png beside the JSON)")
    parser.add_argument("--quick", action="store_true", help="small sizes, a point or two of each part")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="these parts")
    parser.add_argument("--data", type=Path, help="the folder that holds axondeepseg-sem")
    arguments = parser.parse_args()
    images = {"phantom": np.asarray(phantom((512, 512), seed=1).image)}
    folder = find_folder(arguments.data, [CROPS["rat7"][0]])
    if folder is not None:
        images["SEM of a nerve"] = load_crop(folder, "rat7")
    sizes = sizes_of(arguments.quick)
    settings = {
        "sizes": sizes,
        "success": {"diagram": STRICT, "sparse": LOOSE, "patches_psnr": DECIBELS},
        "bars": BARS,
        "images": list(images),
    }
    report = earlier_parts(arguments.output, settings)
    report["environment"] = {
        "jax": jax.__version__,
        "platform": jax.default_backend(),
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[1], 1),
    }

    def save() -> None:
        report["verdict"], report["transitions"] = verdict(report), transitions(report["diagram"])
        write(report, arguments.output)

    runs: dict[str, Callable[..., None]] = {
        "diagram": diagram,
        "evolution": evolution,
        "stability": stability,
        "sparse": sparse,
        "patches": functools.partial(patches, images=images),
    }
    for part in PARTS:
        if part in arguments.only:
            runs[part](sizes[part], report[part], save)
    save()
    picture(report, arguments.picture or arguments.output.with_suffix(".png"))
    print(json.dumps(report["verdict"], indent=1))
    # The bars are for the full sizes.
    return 0 if arguments.quick or all(v.get("met", True) for v in report["verdict"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
