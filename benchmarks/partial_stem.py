"""What do published spiral scans with a soft beam measure, and how well are they recovered without training?

Five scans of 512^2 pixels, 17.5 % of them measured, with their weights w and truths t: the examples of J. M. Ede,
R. Beanland, Partial scanning transmission electron microscopy with deep learning, Sci. Rep. 10 (2020) 8332 (MIT). The
files say nothing about how a scan came from its truth. Candidates are fitted against the truth; the last one leaves a
rest that is uniform in [-1, 1] to a percent, for every image:

    y = c (1 + w (w X + (1 - w) X_b (1 + U)))  where w > 0, else 0,      U uniform in [-1, 1], independent

X = 2 t - 1, X_b the truth blurred by a 5 x 5 Gaussian of sigma 2.5 pixels and stretched to [-1, 1] by its own extremes,
c = 1 / (1 + the largest value) the scaling to [0, 1]. So the noise is multiplicative and vanishes at the middle grey
level: no dose describes it. And as w is small, a scan follows the blurred truth, on its own grey scale.

Recovered is x = (1 + X_b) / 2 in [0, 1] from z = (1 + (y / c - 1) / w) / 2, c found from the scan alone (`offset`), in
three ways: "soft", A multiplies by w and noise is of equal variance; "plain", A is a 0/1 mask; "weighted", A multiplies
by 1 / (1 - w), the inverse of what the model says of the noise. Weights of the priors from the scan alone. Scored
against what the scan follows, x; against the truth t as it is; and against t on the recovery's own grey scale (the best
offset and slope, which need the truth: the scan does not know the scale of t).

Answer (partial_stem.json): `spectral` on the divided scan is best, 26.8 dB on the mean, a root mean squared error of
5.5 %; `tgv` follows with 26.2 dB, `tv` with 24.6, linear interpolation with 19.4. To take w for a measure of trust
costs 2.7 dB of `spectral` and 0.9 dB of `tv`: it asks for a noise that grows as 1 / w, and here it falls as 1 - w.

Published: 3.8 % root mean squared intensity error at 1/17.9 coverage by the networks (arXiv:1905.13667, abstract), a
mean over their own test set. These five images are not that set, their mean of w is 1/22.1, and how the published
figure is scaled was not checked: the two are not to be compared closely.

    python benchmarks/partial_stem.py -o benchmarks/results/partial_stem.json [--quick]

The data is looked for as in sparse_scans.py. The JSON is written after each image, and a run that was stopped goes on
from there. Exits with 1 if the rest is not uniform or a recovery is not finite, 2 without the data.
"""

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tifffile
from reports import earlier_report, save_report
from scipy.ndimage import correlate
from sparse_scans import find_folder

import emjax
from emjax.metrics import psnr, ssim
from emjax.operators import PixelSampling

FOLDER = "partial-stem"
IMAGES = (1, 2, 3, 4, 5)
METHODS, WAYS = ("linear", "spectral", "tv", "tgv"), ("soft", "plain", "weighted")
# `linear` divides by the weights itself; `tgv` takes most of the time.
LEFT_OUT = (("linear", "soft"), ("linear", "weighted"), ("tgv", "plain"))
UNIFORM = 1 / np.sqrt(3)
BAR = 0.01  # of the standard deviation of U against that of a uniform variable
CURVE = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 2.5**2))
KERNEL = np.outer(CURVE, CURVE) / CURVE.sum() ** 2
# Pairs of neighbours whose beam weights differ tell the offset.
NEIGHBOURS = ((0, 1), (1, 0), (1, 1), (1, -1), (0, 2), (2, 0))


def load(folder: Path, k: int) -> tuple[np.ndarray, ...]:
    """Truth, weights and scan of one example, `(512, 512)` in float64."""
    names = ("truth", "mask", "partial_scan")
    t, w, y = (tifffile.imread(folder / FOLDER / f"{name}-{k}.tif").astype(np.float64) for name in names)
    return t, w, y


def stretched(t: np.ndarray) -> np.ndarray:
    """`X_b`: the blurred truth in [-1, 1]."""
    blurred = correlate(t, KERNEL, mode="mirror")
    return 2 * (blurred - blurred.min()) / np.ptp(blurred) - 1


def offset(y: np.ndarray, w: np.ndarray) -> float:
    """`c` from the scan alone, by least squares over pairs of neighbours i, j with the same grey level.

    There `(y_i - c) / w_i = (y_j - c) / w_j` but for the noise, so that `y_i w_j - y_j w_i = c (w_j - w_i)`.
    """
    above = below = 0.0
    for down, right in NEIGHBOURS:
        one = np.s_[: len(w) - down, max(0, -right) : w.shape[1] - max(0, right)]
        two = np.s_[down:, max(0, right) : w.shape[1] - max(0, -right)]
        both = (w[one] > 0) & (w[two] > 0)
        wi, wj, yi, yj = (v[both] for v in (w[one], w[two], y[one], y[two]))
        trust = 1 / ((wi * wj) ** 2 * ((1 - wi) ** 2 + (1 - wj) ** 2))
        above += float(np.sum(trust * (yi * wj - yj * wi) * (wj - wi)))
        below += float(np.sum(trust * (wj - wi) ** 2))
    return above / below


def fit(columns: list[np.ndarray], y: np.ndarray) -> dict[str, Any]:
    """Least squares of the measured pixels: the coefficients and the root mean square of the rest."""
    matrix = np.stack(columns, 1)
    coefficients = np.linalg.lstsq(matrix, y, rcond=None)[0]
    return {"rms": float(np.std(y - matrix @ coefficients)), "coefficients": [float(v) for v in coefficients]}


def measure_model(t: np.ndarray, w: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """How far candidates are from one scan, and what is left by the last of them."""
    seen = w > 0
    b = correlate(t, KERNEL, mode="mirror")[seen]
    xb, x, ws, ys, ts = stretched(t)[seen], 2 * t[seen] - 1, w[seen], y[seen], t[seen]
    one = np.ones_like(ts)
    candidates = {
        "a w t": [ws * ts],
        "a t + c": [ts, one],
        "a w t + b w": [ws * ts, ws],
        "a w t + c": [ws * ts, one],
        "a w t + b w + c": [ws * ts, ws, one],
        "a w blurred(t) + b w + c": [ws * b, ws, one],
        "c (1 + w (w X + (1 - w) X_b))": [1 + ws * (ws * x + (1 - ws) * xb)],
    }
    fits = {name: fit(columns, ys) for name, columns in candidates.items()}
    # Where X_b is near zero there is no noise: those pixels give c; then what is left is U.
    mean = 1 + ws * (ws * x + (1 - ws) * xb)
    trust = 1 / (ws * (1 - ws) * np.maximum(np.abs(xb), 0.02))
    c = float(np.sum(trust**2 * mean * ys) / np.sum((trust * mean) ** 2))
    clear = np.abs(xb) > 0.1
    u = ((ys - c * mean) / (c * ws * (1 - ws) * xb))[clear]
    shares = np.histogram(u, bins=np.linspace(-1, 1, 11))[0] / len(u)
    return {
        "fits": fits,
        "c": c,
        "c from the scan alone": offset(y, w),
        "blurred range": float(np.ptp(b)),
        "U std": float(np.std(u)),
        "U share a tenth, least and most": [float(shares.min()), float(shares.max())],
        "U beyond 1.02": float(np.mean(np.abs(u) > 1.02)),
        "U correlation with w": float(np.corrcoef(np.abs(u), ws[clear])[0, 1]),
        "off the mask": float(np.abs(y[~seen]).max()),
        "pixels measured": float(seen.mean()),
        "coverage": float(w.mean()),
        "noise of z": float(np.sqrt(np.mean((xb * (1 - ws)) ** 2 / 12))),
    }


def scans(y: np.ndarray, w: np.ndarray) -> dict[str, tuple[jax.Array, PixelSampling]]:
    """The measurements and operators of the three ways."""
    seen = w > 0
    z = np.where(seen, (1 + (y / offset(y, w) - 1) / np.where(seen, w, 1)) / 2, 0)
    masks = {"soft": w, "plain": seen.astype(float), "weighted": np.where(seen, 1 / (1 - w), 0)}
    return {way: (jnp.asarray(m * z, jnp.float32), PixelSampling(m.astype(np.float32))) for way, m in masks.items()}


def judge(x: jax.Array, t: np.ndarray) -> dict[str, float]:
    """The figures of one recovery against what the scan follows, the truth, and the truth on the grey scale of x."""
    followed = jnp.asarray((1 + stretched(t)) / 2, jnp.float32)
    truth, clipped = jnp.asarray(t, jnp.float32), jnp.clip(x, 0, 1)
    slope, level = np.polyfit(np.asarray(x, np.float64).ravel(), t.ravel(), 1)
    error = float(jnp.sqrt(jnp.mean((clipped - followed) ** 2)))
    return {
        "psnr": float(psnr(x, followed)),
        "ssim": float(ssim(clipped, followed)),
        "rmse": error,
        "psnr_truth": float(psnr(x, truth)),
        "ssim_truth": float(ssim(clipped, truth)),
        "psnr_scaled": float(psnr(jnp.asarray(slope * x + level, jnp.float32), truth)),
        "ssim_scaled": float(ssim(jnp.clip(slope * x + level, 0, 1), truth)),
    }


def measure_image(t: np.ndarray, w: np.ndarray, y: np.ndarray) -> dict[str, Any]:
    """All methods and ways on one image; seconds with the weights from the scan (the first image also compiles)."""
    out: dict[str, Any] = {}
    for way, (measured, A) in scans(y, w).items():
        for method in METHODS:
            if (method, way) in LEFT_OUT:
                continue
            recon = emjax.load(method)
            begin = time.perf_counter()
            fitted = recon.fit(measured, A)
            x = jax.block_until_ready(fitted(measured, A))
            entry = {"way": way, "method": method, **judge(x, t), "seconds": time.perf_counter() - begin}
            if method != "linear":
                entry["weight"] = float(fitted.weight)
            out[f"{method}, {way}"] = entry
    return out


def summary(runs: dict[str, Any]) -> list[dict[str, Any]]:
    """Means over the images, medians of the seconds."""
    rows = []
    for name in next(iter(runs.values()))["recoveries"] if runs else ():
        group = [run["recoveries"][name] for run in runs.values()]
        row = {"method": group[0]["method"], "way": group[0]["way"], "images": len(group)}
        keys = [k for k in group[0] if k not in ("method", "way", "seconds", "weight")]
        row |= {key: float(np.mean([g[key] for g in group])) for key in keys}
        row["worst_psnr"] = min(g["psnr"] for g in group)
        row["seconds"] = float(np.median([g["seconds"] for g in group]))  # the first one compiles: no mean
        rows.append(row)
    return rows


def readme(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The table of the README."""
    columns = ["method", "A", "PSNR (dB)", "SSIM", "RMSE", "PSNR, truth (dB)", "PSNR, truth scaled (dB)", "s"]
    keys = ("psnr", "ssim", "rmse", "psnr_truth", "psnr_scaled", "seconds")
    return {"columns": columns, "rows": [[r["method"], r["way"], *(r[k] for k in keys)] for r in rows]}


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    machine = report["environment"]
    runs: dict[str, Any] = report["runs"]
    lines = ["# Spiral scans with a soft beam", "", *(__doc__ or "").split("\n\n    python")[0].split("\n"), ""]
    lines += [f"JAX {machine['jax']}, {machine['platform']}, {machine['cpus']} CPUs, load {machine['load']}.", ""]
    names = list(next(iter(runs.values()))["model"]["fits"]) if runs else []
    lines += ["## The model: root mean square of the rest, where w > 0", ""]
    lines += [f"| image | {' | '.join(f'`{n}`' for n in names)} |", "|---" * (len(names) + 1) + "|"]
    for k, run in runs.items():
        rests = (run["model"]["fits"][n]["rms"] for n in names)
        lines.append(f"| {k} | {' | '.join(f'{rest:.4f}' for rest in rests)} |")
    lines += ["", "A uniform U has the standard deviation 0.5774, a tenth of its values in each tenth of [-1, 1].", ""]
    lines += ["| image | c | c from the scan | U std | tenths: least, most | beyond 1.02 | noise of z |"]
    lines += ["|---" * 7 + "|"]
    for k, run in runs.items():
        m = run["model"]
        low, high = m["U share a tenth, least and most"]
        cells = [f"{m['c']:.4f}", f"{m['c from the scan alone']:.4f}", f"{m['U std']:.4f}", f"{low:.3f}, {high:.3f}"]
        lines.append(f"| {k} | {' | '.join(cells)} | {m['U beyond 1.02']:.1e} | {m['noise of z']:.3f} |")
    if runs:
        m = next(iter(runs.values()))["model"]
        share = f"{m['pixels measured']:.1%} of the pixels; the mean of w is 1 / {1 / m['coverage']:.1f}."
        lines += ["", f"Measured: {share}"]
    lines += ["", "## Recoveries: means over the images", ""]
    lines += ["| method | A | PSNR | worst | SSIM | RMSE | truth: PSNR | SSIM | truth scaled: PSNR | SSIM | s |"]
    lines += ["|---" * 11 + "|"]
    for r in report["summary"]:
        cells = [r["method"], r["way"], f"{r['psnr']:.2f}", f"{r['worst_psnr']:.2f}", f"{r['ssim']:.3f}"]
        cells += [f"{r['rmse']:.1%}", f"{r['psnr_truth']:.2f}", f"{r['ssim_truth']:.3f}"]
        cells += [f"{r['psnr_scaled']:.2f}", f"{r['ssim_scaled']:.3f}", f"{r['seconds']:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "## PSNR against what the scan follows (SSIM), by image", ""]
    lines += [f"| method | A | {' | '.join(runs)} |", "|---" * (2 + len(runs)) + "|"]
    for r in report["summary"]:
        found = [run["recoveries"][f"{r['method']}, {r['way']}"] for run in runs.values()]
        cells = [f"{e['psnr']:.2f} ({e['ssim']:.3f})" for e in found]
        lines.append(f"| {r['method']} | {r['way']} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--quick", action="store_true", help="one image")
    parser.add_argument("--data", type=Path, help="the folder that holds partial-stem")
    arguments = parser.parse_args()
    folder = find_folder(arguments.data, [f"{FOLDER}/truth-{k}.tif" for k in IMAGES])
    if folder is None:
        print("the partial-stem data was not found; name its folder with --data or EMJAX_DATA", file=sys.stderr)
        return 2
    images = IMAGES[:1] if arguments.quick else IMAGES
    settings = {"images": list(images), "methods": list(METHODS), "ways": list(WAYS)}
    environment = {"jax": jax.__version__, "platform": jax.default_backend(), "cpus": os.cpu_count()}
    environment["load"] = round(os.getloadavg()[1], 1)  # of others, too: it tells what the seconds are worth
    runs: dict[str, Any] = earlier_report(arguments.output, settings).get("runs", {})
    report: dict[str, Any] = {"settings": settings, "environment": environment, "complete": False, "runs": runs}
    for k in images:
        if str(k) not in runs:
            t, w, y = load(folder, k)
            runs[str(k)] = {"model": measure_model(t, w, y), "recoveries": measure_image(t, w, y)}
            best = {n: f"{e['psnr']:.2f}" for n, e in runs[str(k)]["recoveries"].items()}
            print(f"{k}: {best}", flush=True)
        rows = summary(runs)
        report |= {"summary": rows, "readme": readme(rows), "complete": len(runs) == len(images)}
        save_report(report, markdown(report), arguments.output)
    print(markdown(report))
    uniform = all(abs(run["model"]["U std"] / UNIFORM - 1) < BAR for run in runs.values())
    finite = all(np.isfinite(row["psnr"]) for row in report["summary"])
    return 0 if uniform and finite else 1


if __name__ == "__main__":
    sys.exit(main())
