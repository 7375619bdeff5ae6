"""How well are sparse, noisy scans of real EM images recovered, and what do automatic weights lose against an oracle's?

Seven crops of 512^2 pixels of the test parts of axondeepseg-sem (two of rat7, two of rat8) and flyem-medulla-fibsem
(slices 186, 191, 197), uint8 / 255; random pixels, 5 to 50 %; Gaussian noise of 0 and 0.05. PSNR with range 1, clipped;
SSIM; seconds of a warm recovery, measured apart from the rest (on rat7) with weights from the data and with given ones.
The oracle takes the weight with the best PSNR against the truth, on a grid of 14 values from the smoothest down, which
it leaves once three values in a row have brought nothing; `spectral` also tries the exponents 2, 2.5, 3, 3.5, 4.

    python benchmarks/sparse_scans.py -o benchmarks/results/sparse_scans.json [--only quality|timing] [--quick]

The data is looked for in --data, the environment variable EMJAX_DATA, then ../shared/data beside the repository. The
JSON is written after each (image, ratio, noise) and a run that was stopped goes on from there; a Markdown table is
written beside it. Exits with 1 if a bar is missed, 2 without the data.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tifffile
from reports import earlier_report, save_report

import emjax
from emjax import LeastSquares, solve
from emjax.metrics import psnr, ssim
from emjax.operators import PixelSampling
from emjax.solvers import Solution

METHODS = ("linear", "spectral", "tv", "wavelet")
WEIGHTED = ("spectral", "tv", "wavelet")
RATIOS, NOISES = (0.05, 0.10, 0.25, 0.50), (0.0, 0.05)
# Three draws of mask and noise where a recovery takes a fraction of a second. Losses compare draw 0 with draw 0.
SEEDS = {"linear": (0,), "spectral": (0, 1, 2), "tv": (0,), "wavelet": (0,)}
EXPONENTS = (2.0, 2.5, 3.0, 3.5, 4.0)
# Weights of the oracle. Spectral: cut-off frequencies over that of the sampling, weight = ratio / cut-off^exponent.
GRIDS = {
    "tv": np.geomspace(0.5, 2e-4, 14),
    "wavelet": np.geomspace(2.0, 1e-3, 14),
    "spectral": np.geomspace(0.08, 1.0, 14),
}
PATIENCE, GAIN = 3, 0.01  # weights, dB
COARSE_GAP, COARSE_STEPS = 1e-3, {"tv": 150, "wavelet": 60, "spectral": 20}
LOSS_BAR, REFERENCE_SLACK = 0.3, 0.05  # dB

AXON = "axondeepseg-sem/images/"
FIBSEM = "flyem-medulla-fibsem/validation_raw.tif"
EBC = "nasa-micronet-sem/ebc/test/images/040617_2_S127_2_0015.tif"
# Name: file, slice of a stack, first row and column of the crop.
CROPS: dict[str, tuple[str, int | None, int, int]] = {
    "rat7": (AXON + "sub-rat7_sample-Maxo03img60.tif", None, 600, 600),
    "rat8": (AXON + "sub-rat8_sample-V915.tif", None, 200, 200),
    "rat7-b": (AXON + "sub-rat7_sample-Maxo03img60.tif", None, 100, 1300),
    "rat8-b": (AXON + "sub-rat8_sample-V915.tif", None, 560, 900),
    "fibsem-186": (FIBSEM, 186, 8, 8),
    "fibsem-191": (FIBSEM, 191, 0, 0),
    "fibsem-197": (FIBSEM, 197, 0, 8),
    "fibsem-190": (FIBSEM, 190, 0, 0),
    "ebc": (EBC, None, 300, 300),
}
IMAGES = ("rat7", "rat8", "fibsem-191", "rat7-b", "rat8-b", "fibsem-186", "fibsem-197")
TIMED = "rat7"
# Outside figures on the same draws (seed 0): spectral with a weight by an oracle on a coarse grid, exponents 2, 3, 4.
REFERENCE = {
    ("rat7", 0.10, 0.0): (30.62, 32.38, 32.22),
    ("rat7", 0.25, 0.05): (30.34, 31.29, 31.35),
    ("rat8", 0.10, 0.0): (29.26, 31.05, 31.01),
    ("rat8", 0.25, 0.05): (29.65, 30.31, 30.58),
    ("fibsem-190", 0.10, 0.0): (27.31, 28.43, 28.52),
    ("fibsem-190", 0.25, 0.05): (28.02, 28.64, 28.66),
    ("ebc", 0.10, 0.0): (23.42, 24.60, 24.75),
    ("ebc", 0.25, 0.05): (25.61, 26.28, 26.34),
}


def find_data(given: Path | None) -> Path | None:
    """The folder with all files of `CROPS`, or None."""
    return find_folder(given, [crop[0] for crop in CROPS.values()])


def find_folder(given: Path | None, files: list[str]) -> Path | None:
    """The folder with all of these files, or None."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    named = os.environ.get("EMJAX_DATA")
    folder = given if given is not None else Path(named) if named else beside
    return folder if all((folder / file).is_file() for file in files) else None


def load_crop(folder: Path, name: str) -> np.ndarray:
    """The crop as float32 in [0, 1]."""
    file, index, row, column = CROPS[name]
    image = tifffile.imread(folder / file, key=index)
    return image[row : row + 512, column : column + 512].astype(np.float32) / 255


def scan(truth: np.ndarray, ratio: float, noise: float, seed: int) -> tuple[jax.Array, PixelSampling]:
    """Random pixels with Gaussian noise. NumPy's generator, so that other packages can draw the same scan."""
    rng = np.random.default_rng(seed)
    mask = rng.random(truth.shape) < ratio
    y = truth + noise * rng.standard_normal(truth.shape) if noise else truth
    return jnp.asarray(np.where(mask, y, 0), jnp.float32), PixelSampling(mask)


def timed(recon: Callable[..., jax.Array], y: jax.Array, A: PixelSampling) -> float:
    """The seconds until the recovery is there."""
    begin = time.perf_counter()
    jax.block_until_ready(recon(y, A))
    return time.perf_counter() - begin


def judge(x: jax.Array, truth: np.ndarray) -> dict[str, float]:
    """The figures of one recovery."""
    target, clipped = jnp.asarray(truth), jnp.clip(x, 0, 1)
    return {"psnr": float(psnr(x, target)), "ssim": float(ssim(clipped, target))}


def load(method: str, weight: float | None = None, exponent: float | None = None, **settings: Any) -> Any:
    """The reconstructor; its numbers as float32 arrays, so that all of them share one compiled program."""
    if weight is not None:
        settings["weight"] = jnp.float32(weight)
    if exponent is not None:
        settings["exponent"] = jnp.float32(exponent)
    return emjax.load(method, **settings)


def warm_up(truth: np.ndarray) -> None:
    """Compile everything that is timed; `max_steps` is data, so one step compiles the same program."""
    y, A = scan(truth, 0.1, 0.05, 99)
    load("linear")(y, A)
    for method in WEIGHTED:
        exponent = 3.0 if method == "spectral" else None
        load(method, max_steps=1)(y, A)
        load(method, max_steps=1).fit(y, A)
        load(method, 0.1, exponent, max_steps=1)(y, A)


def automatic(method: str, truth: np.ndarray, ratio: float, noise: float, seed: int) -> dict[str, Any]:
    """Weights from the scan alone: no truth, no noise level."""
    y, A = scan(truth, ratio, noise, seed)
    recon = load(method)
    entry: dict[str, Any] = {"seed": seed, **judge(recon(y, A), truth)}
    if method in WEIGHTED:
        fitted = recon.fit(y, A)
        entry["weight"] = float(fitted.weight)
        if method == "spectral":
            entry["exponent"] = float(fitted.exponent)
    return entry


def walk(
    method: str, truth: np.ndarray, y: jax.Array, A: PixelSampling, exponent: float | None
) -> Iterator[tuple[float, float]]:
    """`(psnr, weight)` along the grid, each solve a coarse one that starts from the last, as long as it pays."""
    ratio, target = float(jnp.mean(A.mask)), jnp.asarray(truth)
    recon = load(method, 1.0, exponent)
    centre = jnp.sum(y) / jnp.sum(A.mask) if method == "wavelet" else jnp.float32(0)  # it takes the mean off itself
    data = LeastSquares(A, y - centre)
    fixed = () if exponent is None else (jnp.float32(exponent),)
    first = best = -np.inf
    stale = 0
    start: Solution | jax.Array | None = None
    for value in GRIDS[method]:
        weight = float(value if exponent is None else ratio / (np.sqrt(ratio) * value) ** exponent)
        problem = recon.problem(data, jnp.float32(weight), *fixed)
        solution = solve(problem, gap=COARSE_GAP, max_steps=COARSE_STEPS[method], start=start)
        start = solution if method == "tv" else solution.value  # PDHG goes on from its dual variables, too
        found = float(psnr(solution.value + centre, target))
        yield found, weight
        first = found if first == -np.inf else first
        # The smoothest weights all give a constant image: that is no reason to stop.
        stale = stale + 1 if found < best - GAIN or (found < best + GAIN and best > first + 0.5) else 0
        best = max(best, found)
        if stale == PATIENCE:
            return


def oracle(method: str, truth: np.ndarray, ratio: float, noise: float, seed: int = 0) -> dict[str, Any]:
    """The weight with the best PSNR against the truth, refined by a parabola, then recovered as any other."""
    y, A = scan(truth, ratio, noise, seed)
    tried: dict[float | None, list[tuple[float, float]]] = {}
    for exponent in EXPONENTS if method == "spectral" else (None,):
        tried[exponent] = list(walk(method, truth, y, A, exponent))
    tops = {exponent: max(points) for exponent, points in tried.items()}
    exponent = max(tops, key=lambda e: tops[e])
    entries: list[dict[str, Any]] = []
    for weight in dict.fromkeys((tops[exponent][1], refine(tried[exponent]))):
        recon = load(method, weight, exponent)
        entries.append({"seed": seed, **judge(recon(y, A), truth), "weight": weight})
    entry = max(entries, key=lambda e: e["psnr"])
    if exponent is not None:
        entry["exponent"] = exponent
        entry["psnr_by_exponent"] = {str(e): top[0] for e, top in tops.items()}
    return {**entry, "tried": sum(map(len, tried.values()))}


def refine(points: list[tuple[float, float]]) -> float:
    """The weight at the top of the parabola through the best point and its neighbours; the best one at an end."""
    i = max(range(len(points)), key=lambda k: points[k])
    if not 0 < i < len(points) - 1:
        return points[i][1]
    (a, x0), (b, x1), (c, x2) = points[i - 1 : i + 2]
    bend = a - 2 * b + c
    shift = 0.5 * (a - c) / bend if bend < 0 else 0.0
    spacing = np.log(x2 / x0) / 2
    return float(x1 * np.exp(shift * spacing))


def measure_case(truth: np.ndarray, ratio: float, noise: float, quick: bool) -> dict[str, Any]:
    """All methods on one image, ratio and noise."""
    methods: dict[str, dict[str, Any]] = {}
    for method in METHODS:
        seeds = SEEDS[method][:1] if quick else SEEDS[method]
        methods[method] = {"automatic": [automatic(method, truth, ratio, noise, seed) for seed in seeds]}
        if method in WEIGHTED:
            methods[method]["oracle"] = oracle(method, truth, ratio, noise)
    return methods


def measure_reference(truth: np.ndarray, key: tuple[str, float, float]) -> dict[str, Any]:
    """`spectral` on the draw of an outside figure."""
    _, ratio, noise = key
    best = oracle("spectral", truth, ratio, noise)
    figure = max(REFERENCE[key])
    return {
        "figure": figure,
        "oracle": best,
        "automatic": automatic("spectral", truth, ratio, noise, 0),
        "passed": best["psnr"] >= figure - REFERENCE_SLACK,
    }


def label(name: str, ratio: float, noise: float) -> str:
    return f"{name}, ratio {ratio:.2f}, noise {noise:.2f}"


def losses(runs: dict[str, Any]) -> dict[str, Any]:
    """What automatic weights lose against the oracle's on the same draw, dB."""
    found: dict[str, dict[str, float]] = {method: {} for method in WEIGHTED}
    for name, methods in runs.items():
        for method in WEIGHTED:
            found[method][name] = methods[method]["oracle"]["psnr"] - methods[method]["automatic"][0]["psnr"]
    found["all"] = {f"{m}: {k}": v for m in WEIGHTED for k, v in found[m].items()}
    table = {}
    for method, values in found.items():
        v = np.array(list(values.values()))
        table[method] = {
            "count": len(v),
            "mean": float(v.mean()),
            "median": float(np.median(v)),
            "percentile_95": float(np.percentile(v, 95)),
            "worst": float(v.max()),
            "worst_case": max(values, key=lambda k: values[k]),
            "passed": bool(v.mean() <= LOSS_BAR),
        }
    return table


def measure_times(truths: dict[str, np.ndarray], runs: dict[str, Any]) -> dict[str, Any]:
    """Seconds of warm recoveries of `TIMED`, for each method, ratio and noise: on a machine with nothing else to do."""
    times: dict[str, Any] = {}
    for name, methods in runs.items():
        image, ratio, noise = name.split(", ")
        if image != TIMED:
            continue
        y, A = scan(truths[image], float(ratio.split()[1]), float(noise.split()[1]), 0)
        times[name] = {}
        for method, entries in methods.items():
            row = {"automatic": timed(load(method), y, A)}
            if method in WEIGHTED:
                best = entries["oracle"]
                row["given"] = timed(load(method, best["weight"], best.get("exponent")), y, A)
            times[name][method] = row
        print(f"{name}: {times[name]}", flush=True)
    return times


def summary(runs: dict[str, Any], times: dict[str, Any]) -> list[dict[str, Any]]:
    """Means over images and draws, medians of the seconds, for each method, ratio and noise."""
    rows = []
    for ratio in RATIOS:
        for noise in NOISES:
            names = [name for name in runs if name.endswith(label("", ratio, noise))]
            group = [runs[name] for name in names]
            for method in METHODS if group else ():
                auto = [entry for m in group for entry in m[method]["automatic"]]
                row: dict[str, Any] = {"ratio": ratio, "noise": noise, "method": method, "images": len(group)}
                row |= {key: float(np.mean([e[key] for e in auto])) for key in ("psnr", "ssim")}
                row["worst_psnr"] = min(e["psnr"] for e in auto)
                clock = [times[name][method] for name in names if name in times]
                row["seconds"] = float(np.median([c["automatic"] for c in clock])) if clock else None
                if method in WEIGHTED:
                    best = [m[method]["oracle"] for m in group]
                    row |= {f"oracle_{key}": float(np.mean([e[key] for e in best])) for key in ("psnr", "ssim")}
                    row["oracle_seconds"] = float(np.median([c["given"] for c in clock])) if clock else None
                rows.append(row)
    return rows


def seconds(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    lines = ["# Sparse scans of real EM images", "", (__doc__ or "").split("\n\n")[1], ""]
    machine = report["environment"]
    lines += [f"JAX {machine['jax']}, {machine['platform']}, {machine['cpus']} CPUs.", ""]
    lines += ["| ratio | noise | method | PSNR | worst | SSIM | s | oracle: PSNR | SSIM | s |"]
    lines += ["|---|---|---|---|---|---|---|---|---|---|"]
    for row in report["summary"]:
        cells = [f"{row['ratio']:.0%}", f"{row['noise']:g}", row["method"], f"{row['psnr']:.2f}"]
        cells += [f"{row['worst_psnr']:.2f}", f"{row['ssim']:.3f}", seconds(row["seconds"])]
        if "oracle_psnr" in row:
            cells += [f"{row['oracle_psnr']:.2f}", f"{row['oracle_ssim']:.3f}", seconds(row["oracle_seconds"])]
        else:
            cells += ["", "", ""]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", f"## Loss of automatic weights, dB (bar: mean at most {LOSS_BAR})", ""]
    lines += ["| method | mean | median | 95 % | worst | where | passed |", "|---|---|---|---|---|---|---|"]
    for method, row in report["weights"].items():
        numbers = " | ".join(f"{row[key]:.2f}" for key in ("mean", "median", "percentile_95", "worst"))
        lines.append(f"| {method} | {numbers} | {row['worst_case']} | {'yes' if row['passed'] else 'no'} |")
    lines += ["", f"## `spectral` against outside figures, dB (passed: oracle >= figure - {REFERENCE_SLACK})", ""]
    lines += ["| scan | figure | oracle | automatic | passed |", "|---|---|---|---|---|"]
    for name, row in report["reference"].items():
        numbers = f"{row['figure']:.2f} | {row['oracle']['psnr']:.2f} | {row['automatic']['psnr']:.2f}"
        lines.append(f"| {name} | {numbers} | {'yes' if row['passed'] else 'no'} |")
    return "\n".join(lines) + "\n"


def save(report: dict[str, Any], output: Path) -> None:
    """Write the JSON and the table."""
    save_report(report, markdown(report), output)


def earlier(output: Path, settings: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The runs, references and times of an earlier run with the same settings, which goes on from there."""
    report = earlier_report(output, settings)
    return {part: report.get(part, {}) for part in ("runs", "reference", "times")}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--quick", action="store_true", help="two images, two settings, one draw")
    parser.add_argument("--data", type=Path, help="the folder that holds axondeepseg-sem, flyem-medulla-fibsem, ...")
    parser.add_argument("--only", choices=("quality", "timing"), help="timing needs the quality figures first")
    arguments = parser.parse_args()
    folder = find_data(arguments.data)
    if folder is None:
        print("the EM data was not found; name its folder with --data or EMJAX_DATA", file=sys.stderr)
        return 2
    quick = arguments.quick
    # Image last: a run that is stopped early has seen every image.
    cases = [(name, ratio, noise) for ratio in RATIOS for noise in NOISES for name in IMAGES]
    references = list(REFERENCE)
    if quick:
        cases = [(name, *pair) for name in ("rat7", "fibsem-191") for pair in ((0.10, 0.0), (0.25, 0.05))]
        references = references[:2]
    settings = {
        "cases": [list(case) for case in cases],
        "references": [list(case) for case in references],
        "seeds": {method: list(seeds[:1] if quick else seeds) for method, seeds in SEEDS.items()},
        "grids": {method: [float(v) for v in grid] for method, grid in GRIDS.items()},
        "exponents": list(EXPONENTS),
        "bars": {"mean_loss": LOSS_BAR, "reference_slack": REFERENCE_SLACK},
    }
    found = earlier(arguments.output, settings)
    runs, reference, times = found["runs"], found["reference"], found["times"]
    truths = {name: load_crop(folder, name) for name in CROPS}
    warm_up(truths["rat7"])
    environment = {"jax": jax.__version__, "platform": jax.default_backend(), "cpus": os.cpu_count()}
    report: dict[str, Any] = {"settings": settings, "environment": environment, "complete": False}

    def update() -> None:
        weights = losses(runs) if runs else {}
        report.update(weights=weights, reference=reference, summary=summary(runs, times), times=times, runs=runs)
        save(report, arguments.output)

    todo = arguments.only != "timing"
    for case in references if todo else ():
        if label(*case) not in reference:
            reference[label(*case)] = measure_reference(truths[case[0]], case)
            update()
    for case in cases if todo else ():
        if label(*case) not in runs:
            runs[label(*case)] = measure_case(truths[case[0]], case[1], case[2], quick)
            update()
            best = {m: f"{v['automatic'][0]['psnr']:.2f}" for m, v in runs[label(*case)].items()}
            print(f"{label(*case)}: {best}", flush=True)
    if arguments.only != "quality":
        times.update(measure_times(truths, runs))
    report["complete"] = all(label(*case) in runs and (case[0] != TIMED or label(*case) in times) for case in cases)
    update()
    print(markdown(report))
    passed = all(row["passed"] for part in ("weights", "reference") for row in report[part].values())
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
