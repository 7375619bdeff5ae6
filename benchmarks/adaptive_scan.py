"""Does an adaptive two-pass scan beat patterns of one pass at equal scan time?

The middle 256^2 pixels of crops of the test parts (see sparse_scans.py), uint8 / 255; Gaussian noise of 0 and 0.05;
three draws of pattern and noise; recovered by `spectral` with automatic weights. The time is that of random pixels at
10 and 25 %, with 10 us of dwell, 20 us of settling a jump and 100 us of fly-back a line, in each pass anew. Adaptive
scans spend half of their pixels on a Poisson-disc pattern. "even" is their second pass without adaptation (mix 1):
against one-pass patterns it shows what two passes cost, against the adaptive ones what adapting brings.

Answer (adaptive_scan.json): the best one, by residuals, beats random pixels by 0.33 dB on the mean (0.93 and 0.40 dB at
10 %, 0.04 and -0.06 dB at 25 %, without and with noise), but not the even patterns of one pass: low-discrepancy points
gain 0.49 dB, Poisson discs 0.42, a jittered grid 0.37. Most of its gain is that it, too, is spread evenly: adapting
adds 0.08 dB to "even". The second fly-back costs more (0.18 dB: 8.3 % of the pixels in place of 9.3 %). At 25 % evenly
spread pixels lose to settling, since random ones have neighbours that need none.

    python benchmarks/adaptive_scan.py -o benchmarks/results/adaptive_scan.json [--quick]

The data is looked for as in sparse_scans.py. The JSON is written after each (image, ratio, noise), and a run that was
stopped goes on from there. Exits with 1 if no adaptive scan beats random pixels on the mean, 2 without the data.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sparse_scans import find_data, load_crop

import emjax
from emjax.acquisition import DENSITIES, adaptive, pattern, scan_time
from emjax.metrics import psnr, ssim
from emjax.operators import PixelSampling

IMAGES = ("rat7", "rat8", "fibsem-191", "rat7-b", "rat8-b", "fibsem-186", "fibsem-197")
RATIOS, NOISES, SEEDS = (0.10, 0.25), (0.0, 0.05), (0, 1, 2)
TIMES = {"dwell": 10e-6, "settling": 20e-6, "flyback": 100e-6}
ONE_PASS = ("random", "jittered", "poisson-disc", "low-discrepancy")
# Name: density and mix. The mix 0.6 was chosen on training images.
TWO_PASS: dict[str, tuple[str, float]] = {
    "even": ("residual", 1.0),
    "gradient": ("gradient", 0.6),
    "variance": ("variance", 0.6),
    "residual": ("residual", 0.6),
    "residual, mix 0.3": ("residual", 0.3),
}
METHODS = (*ONE_PASS, *TWO_PASS)
Scan = Callable[[jax.Array], jax.Array]


def take(method: str, key: jax.Array, scan: Scan, shape: tuple[int, ...], ratio: float) -> tuple[jax.Array, Any, float]:
    """The measurements, their mask and the seconds of one scan."""
    passes: list[jax.Array] = []

    def watched(mask: jax.Array) -> jax.Array:
        passes.append(mask)
        return scan(mask)

    if method in ONE_PASS:
        mask = pattern(method, key, shape, ratio)
        y = watched(mask)
    else:
        density, mix = TWO_PASS[method]
        y, mask = adaptive(key, watched, shape, ratio, density=DENSITIES[density], mix=mix)
    return y, mask, sum(float(seconds_of(m)) for m in passes)


seconds_of = jax.jit(partial(scan_time, **TIMES))


def scan_of(truth: np.ndarray, noise: float, seed: int) -> Scan:
    """Pixel scans of one noisy image."""
    draw = noise * np.random.default_rng(seed).standard_normal(truth.shape)
    noisy = jnp.asarray(truth + draw, jnp.float32)
    return lambda mask: jnp.where(mask, noisy, 0)


def equal_times(truth: np.ndarray, nominal: float) -> dict[str, Any]:
    """The ratio of each method that takes as long as random pixels do at the nominal one."""
    scan = scan_of(truth, 0.0, 0)
    *_, budget = take("random", jax.random.key(0), scan, truth.shape, nominal)
    ratios = {"random": nominal}
    for method in METHODS[1:]:
        fixed = TIMES["flyback"] * truth.shape[0] * (1 if method in ONE_PASS else 2)
        ratio = nominal * (budget - fixed) / (budget - TIMES["flyback"] * truth.shape[0])
        for _ in range(2):
            *_, seconds = take(method, jax.random.key(0), scan, truth.shape, ratio)
            ratio *= (budget - fixed) / (seconds - fixed)
        ratios[method] = round(ratio, 5)
    return {"seconds": budget, "ratios": ratios}


def measure_case(truth: np.ndarray, noise: float, ratios: dict[str, float], seeds: tuple[int, ...]) -> dict[str, Any]:
    """All methods on one image."""
    recon, target = emjax.load("spectral"), jnp.asarray(truth)
    methods: dict[str, list[dict[str, float]]] = {method: [] for method in METHODS}
    for method in METHODS:
        for seed in seeds:
            scan = scan_of(truth, noise, seed)
            y, mask, seconds = take(method, jax.random.key(seed), scan, truth.shape, ratios[method])
            x = recon(y, PixelSampling(mask))
            figures = {"psnr": float(psnr(x, target)), "ssim": float(ssim(jnp.clip(x, 0, 1), target))}
            methods[method].append({"seed": seed, **figures, "measured": float(mask.mean()), "seconds": seconds})
    return methods


def label(name: str, ratio: float, noise: float) -> str:
    return f"{name}, ratio {ratio:.2f}, noise {noise:.2f}"


def summary(runs: dict[str, Any]) -> list[dict[str, Any]]:
    """Means over images and draws; gains over random pixels on the same image and draw, and how many are gains."""
    rows = []
    for ratio in RATIOS:
        for noise in NOISES:
            group = [run for name, run in runs.items() if name.endswith(label("", ratio, noise))]
            for method in METHODS if group else ():
                entries = [e for run in group for e in run[method]]
                row: dict[str, Any] = {"ratio": ratio, "noise": noise, "method": method, "images": len(group)}
                row |= {
                    key: float(np.mean([e[key] for e in entries])) for key in ("psnr", "ssim", "measured", "seconds")
                }
                for other in ("random", "poisson-disc", "even"):
                    gains = [
                        a["psnr"] - b["psnr"] for run in group for a, b in zip(run[method], run[other], strict=True)
                    ]
                    row[f"gain_over_{other}"] = float(np.mean(gains))
                    row[f"wins_over_{other}"] = f"{sum(g > 0 for g in gains)} of {len(gains)}"
                rows.append(row)
    return rows


def verdict(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Mean gains of the adaptive scans over all ratios and noises, dB."""
    others = ("random", "poisson-disc", "even")
    table = {
        method: {
            other: float(np.mean([r[f"gain_over_{other}"] for r in rows if r["method"] == method])) for other in others
        }
        for method in METHODS
    }
    best = max((m for m in TWO_PASS if m != "even"), key=lambda m: table[m]["random"])
    return {"gains": table, "best_adaptive": best, "beats_random": table[best]["random"] > 0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--quick", action="store_true", help="two images, one ratio, one draw")
    parser.add_argument("--data", type=Path, help="the folder that holds axondeepseg-sem, flyem-medulla-fibsem, ...")
    arguments = parser.parse_args()
    folder = find_data(arguments.data)
    if folder is None:
        print("the EM data was not found; name its folder with --data or EMJAX_DATA", file=sys.stderr)
        return 2
    images, ratios, seeds = (IMAGES[:3:2], RATIOS[:1], SEEDS[:1]) if arguments.quick else (IMAGES, RATIOS, SEEDS)
    settings = {
        "images": list(images),
        "ratios": list(ratios),
        "noises": list(NOISES),
        "seeds": list(seeds),
        "times": TIMES,
        "two_pass": {name: list(values) for name, values in TWO_PASS.items()},
    }
    report: dict[str, Any] = {}
    if arguments.output.is_file():
        report = json.loads(arguments.output.read_text())
    if report.get("settings") != settings:
        report = {"settings": settings, "equal_time": {}, "runs": {}}
    report["environment"] = {"jax": jax.__version__, "platform": jax.default_backend(), "cpus": os.cpu_count()}
    truths = {name: load_crop(folder, name)[128:384, 128:384] for name in images}
    runs, times = report["runs"], report["equal_time"]
    cases = [(name, ratio, noise) for name in images for ratio in ratios for noise in NOISES]
    for name, ratio, noise in cases:
        if str(ratio) not in times:
            times[str(ratio)] = equal_times(truths[images[0]], ratio)
        case = label(name, ratio, noise)
        if case not in runs:
            runs[case] = measure_case(truths[name], noise, times[str(ratio)]["ratios"], seeds)
            print(case, {m: f"{np.mean([e['psnr'] for e in v]):.2f}" for m, v in runs[case].items()}, flush=True)
        report["summary"] = summary(runs)
        report["verdict"] = verdict(report["summary"])
        report["complete"] = len(runs) == len(cases)
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        part = arguments.output.with_suffix(".json.part")
        part.write_text(json.dumps(report, indent=1) + "\n")
        part.replace(arguments.output)
    for row in report["summary"]:
        print({key: round(value, 3) if isinstance(value, float) else value for key, value in row.items()})
    print(report["verdict"])
    return 0 if report["verdict"]["beats_random"] else 1


if __name__ == "__main__":
    sys.exit(main())
