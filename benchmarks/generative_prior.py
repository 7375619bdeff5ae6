"""How few Gaussian measurements does a generative prior need, where DCT-LASSO needs many, and where does it lose?

The experiment of Bora et al. 2017 on 32 x 32 patches of EM images: 25 to 750 Gaussian measurements, no noise, the mean
squared error a pixel of

- CSGM: a VAE of the zoo as the prior, with what its decoder leaves out (`Generative`), 10 restarts, all patches in one
  call; and its decoder alone, with the weight from its mean deviation (a network that is trained without deviations has
  a better one);
- LASSO in the DCT domain, with the weight that is best for each patch by the truth (an oracle's, in LASSO's favour);
- the linear estimate of least error, with mean and covariance of training patches (what a prior without any network,
  but with the same training data, can do).

The floor is the decoder's error with the whole patch measured and no prior's weight. Of each number m of measurements
of CSGM: how many LASSO needs for the same error (interpolated on its curve, both logarithmic) over m. The crossover is
where LASSO becomes the better one. The bar: a factor of 4 at every m for which LASSO's error at 4 m is above the floor.

Patches from the test parts, half from each set: axondeepseg-sem rat7 and rat8, flyem-medulla-fibsem slices 184 to 199,
at random places, other ones for each seed.

    python benchmarks/generative_prior.py -o benchmarks/results/generative_prior.json [--network csgm-vae] [--quick]
        [--picture docs/generative_prior.png]

The data is looked for as by sparse_scans.py. The JSON is written after each number of measurements and a run that was
stopped goes on from there; a Markdown table is written beside it. Exits with 1 if the bar is missed, 2 without data.
"""

import argparse
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tifffile
from sparse_scans import AXON, FIBSEM, find_folder

import emjax
from emjax.operators import DCT, Dense, Identity
from emjax.reconstructors import Generative, Lasso
from emjax.reconstructors.generative import row_power

SIDE = 32
COUNTS = (25, 35, 50, 75, 100, 150, 200, 300, 400, 500, 750)
SEEDS, TRAINED = 3, 20_000  # training patches of the linear estimate
SETTING = {"patches": 100, "restarts": 10, "steps": 500, "lasso_weights": np.geomspace(0.3, 1e-3, 6).tolist()}
QUICK = {"patches": 10, "restarts": 2, "steps": 100, "lasso_weights": np.geomspace(0.3, 1e-3, 3).tolist()}
LASSO_GAP, LASSO_STEPS = 1e-3, 600
FACTOR_BAR = 4.0
METHODS = ("csgm", "decoder", "lasso", "linear")
TEST = {
    "axon": ([AXON + "sub-rat7_sample-Maxo03img60.tif", AXON + "sub-rat8_sample-V915.tif"], None),
    "fibsem": ([FIBSEM], range(184, 200)),
}
TRAINING = {
    "axon": (
        [AXON + f"sub-rat{n}.tif" for n in ("1_sample-data1", "2_sample-data5", "3_sample-data9", "4_sample-data12")],
        None,
    ),
    "fibsem": ([FIBSEM], range(0, 168, 8)),
}


def draw(folder: Path, parts: dict[str, Any], count: int, seed: int) -> np.ndarray:
    """`count` patches `(count, 32, 32)` at random places, float32 in [0, 1]: one half from each set."""
    rng = np.random.default_rng(seed)
    patches = []
    for files, slices in parts.values():
        images = _images(folder, tuple(files), slices)
        for _ in range(count // len(parts)):
            image = images[rng.integers(len(images))]
            i, j = (rng.integers(n - SIDE + 1) for n in image.shape)
            patches.append(image[i : i + SIDE, j : j + SIDE])
    return np.stack(patches).astype(np.float32) / 255


@functools.cache
def _images(folder: Path, files: tuple[str, ...], slices: range | None) -> list[np.ndarray]:
    if slices is None:
        return [tifffile.imread(folder / file) for file in files]
    return list(tifffile.imread(folder / files[0], key=list(slices)))


def gaussian(count: int, seed: int) -> np.ndarray:
    """`count` rows of a Gaussian matrix, columns of norm about 1."""
    rng = np.random.default_rng([seed, count])
    return (rng.standard_normal((count, SIDE**2)) / np.sqrt(count)).astype(np.float32)


def errors(x: Any, truth: np.ndarray) -> np.ndarray:
    """The mean squared error of each patch."""
    return np.mean((np.asarray(x, np.float64) - truth) ** 2, (-2, -1))


def csgm(network: Any, y: jax.Array, A: Any, **settings: Any) -> tuple[np.ndarray, float]:
    """Recovered patches, and the seconds of the one warm call for all of them and all of their restarts."""
    recon = Generative(network, **settings)
    jax.block_until_ready(recon(y, A))
    begin = time.perf_counter()
    x = jax.block_until_ready(recon(y, A, key=jax.random.key(1)))
    return np.asarray(x), time.perf_counter() - begin


def lasso(y: jax.Array, A: Any, truth: np.ndarray, weights: list[float]) -> tuple[np.ndarray, np.ndarray, float]:
    """The errors with the best weight of each patch, those weights, and the median of the seconds with one weight."""
    found, seconds = [], []
    for weight in weights:
        recon = Lasso(jnp.float32(weight), transform=DCT((SIDE, SIDE)), gap=LASSO_GAP, max_steps=LASSO_STEPS)
        begin = time.perf_counter()
        found.append(errors(recon(y, A), truth))
        seconds.append(time.perf_counter() - begin)
    return np.min(found, 0), np.asarray(weights)[np.argmin(found, 0)], float(np.median(seconds[1:]))  # one compiles


def linear(y: np.ndarray, matrix: np.ndarray, mean: np.ndarray, covariance: np.ndarray) -> np.ndarray:
    """`mean + C A.T (A C A.T + e)^-1 (y - A mean)`."""
    H = matrix.astype(np.float64)
    gram = H @ covariance @ H.T
    gram += 1e-6 * np.trace(gram) / len(gram) * np.eye(len(gram))
    return (mean + (y - mean @ H.T) @ np.linalg.solve(gram, H @ covariance)).reshape(-1, SIDE, SIDE)


def floor(network: Any, truth: np.ndarray, steps: int) -> np.ndarray:
    """The least error of each patch that the decoder can have: its latent from 4 starts, on the patch itself."""
    x, _ = csgm(network, jnp.asarray(truth), Identity((SIDE, SIDE)), weight=0.0, restarts=4, steps=steps)
    return errors(x, truth)


def measure(
    network: Any,
    folder: Path,
    count: int,
    seed: int,
    statistics: tuple[np.ndarray, np.ndarray],
    setting: dict[str, Any] = SETTING,
) -> dict:
    """All methods on the patches of a seed."""
    truth = draw(folder, TEST, setting["patches"], seed)
    matrix = gaussian(count, seed)
    A = Dense(jnp.asarray(matrix), (SIDE, SIDE))
    y = A(jnp.asarray(truth))
    lengths = {"restarts": setting["restarts"], "steps": setting["steps"]}
    seconds: dict[str, float] = {}
    x, seconds["csgm"] = csgm(network, y, A, **lengths)
    weight = jnp.mean(network.sigma**2) * row_power(A, jnp.float32)[0]
    alone, seconds["decoder"] = csgm(network, y, A, weight=weight, **lengths)
    best, weights, seconds["lasso"] = lasso(y, A, truth, setting["lasso_weights"])
    begin = time.perf_counter()
    estimate = linear(np.asarray(y, np.float64), matrix, *statistics)
    seconds["linear"] = time.perf_counter() - begin
    each = {
        "csgm": errors(x, truth),
        "decoder": errors(alone, truth),
        "lasso": best,
        "linear": errors(estimate, truth),
    }
    half = len(truth) // 2
    summary = {
        name: {
            "mse": float(v.mean()),
            "axon": float(v[:half].mean()),
            "fibsem": float(v[half:].mean()),
            "worst": float(v.max()),
        }
        for name, v in each.items()
    }
    more = {"lasso_weight": float(np.median(weights)), "csgm_seconds": seconds["csgm"], "seconds": seconds}
    return {**summary, **more}


def needed(curve: dict[int, float], error: float) -> float | None:
    """How many measurements have that error on a falling curve; None beyond its last one."""
    counts = np.array(sorted(curve))
    values = np.minimum.accumulate([curve[int(m)] for m in counts])
    if error < values[-1]:
        return None
    if error >= values[0]:
        return float(counts[0])
    return float(np.exp(np.interp(-np.log(error), -np.log(values), np.log(counts))))


def judge(report: dict[str, Any]) -> None:
    """Means over seeds, factors, the crossover and whether the bar is reached, into the report."""
    runs, floors = report["runs"], report["floor"]
    report["mean_floor"] = float(np.mean([v["mse"] for v in floors.values()]))
    curves: dict[str, dict[int, float]] = {name: {} for name in METHODS}
    for count in COUNTS:
        rows = [run for key, run in runs.items() if int(key.split()[0]) == count]
        if rows:
            for name in METHODS:
                curves[name][count] = float(np.mean([row[name]["mse"] for row in rows]))
    table, passed = [], True
    above = needed(curves["lasso"], report["mean_floor"])  # until there LASSO's error is above the floor
    for count in curves["csgm"]:
        error = curves["csgm"][count]
        equal = needed(curves["lasso"], error)
        factor = None if equal is None else equal / count
        judged = above is None or FACTOR_BAR * count <= above
        row = {"measurements": count, **{name: curves[name][count] for name in METHODS}, "factor": factor}
        row |= {"judged": judged, "passed": not judged or (factor is None or factor >= FACTOR_BAR)}
        passed &= row["passed"]
        table.append(row)
    columns = ["measurements of 1024 pixels", *METHODS, "LASSO needs, times as many"]
    rows = [[row["measurements"], *(1e4 * row[name] for name in METHODS), row["factor"]] for row in table]
    columns[1:-1] = [f"{name} (squared error x 1e4)" for name in METHODS]
    report["readme"] = {"columns": columns, "rows": rows}
    worse = [row["measurements"] for row in table if row["lasso"] < row["csgm"]]
    report |= {"table": table, "crossover": min(worse) if worse else None, "passed": passed}


def markdown(report: dict[str, Any]) -> str:
    """The table, for people."""
    lines = [
        f"Mean squared error a pixel, x 1e-4; {report['setting']['patches']} patches, seeds: {len(report['floor'])}. "
        f"The decoder's floor: {1e4 * report['mean_floor']:.2f}. LASSO is the better one "
        + (f"from {report['crossover']} measurements on." if report["crossover"] else "nowhere."),
        "",
        "| measurements | CSGM | the decoder alone | DCT-LASSO, oracle's weight | linear | LASSO needs, x |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["table"]:
        values = " | ".join(f"{1e4 * row[name]:.2f}" for name in METHODS)
        factor = "more than 750" if row["factor"] is None else f"{row['factor']:.1f}"
        mark = "" if row["passed"] else " (below 4)"
        lines.append(f"| {row['measurements']} | {values} | {factor}{mark} |")
    return "\n".join([*lines, ""])


def picture(report: dict[str, Any], path: Path) -> None:
    """Error against measurements, and the floor."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4), layout="constrained")
    counts = [row["measurements"] for row in report["table"]]
    labels = {
        "csgm": "CSGM, with deviations",
        "decoder": "CSGM, the decoder alone",
        "lasso": "DCT-LASSO, oracle's weight",
        "linear": "linear, of least error",
    }
    for name, mark in zip(METHODS, "o^sd", strict=True):
        axis.loglog(counts, [row[name] for row in report["table"]], f"{mark}-", label=labels[name])
    axis.axhline(report["mean_floor"], color="grey", linestyle="--", label="the decoder's floor")
    axis.set(xlabel="Gaussian measurements of 1024 pixels", ylabel="mean squared error a pixel")
    axis.set_xticks(counts, [str(c) for c in counts], rotation=45)
    axis.minorticks_off()
    axis.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def plan(quick: bool) -> tuple[dict[str, Any], list[tuple[int, int]]]:
    """How it is measured, which is the setting of the report, and all (number of measurements, seed)."""
    seeds, counts = ((0,), COUNTS[2:7:4]) if quick else (range(SEEDS), COUNTS)
    return dict(QUICK if quick else SETTING), [(count, seed) for seed in seeds for count in counts]


def files() -> list[str]:
    """What of the data sets is read."""
    return [file for parts in (TEST, TRAINING) for names, _ in parts.values() for file in names]


def label(count: int, seed: int) -> str:
    """The key of a run."""
    return f"{count} measurements, seed {seed}"


def fits(report: dict[str, Any], name: str, setting: dict[str, Any]) -> bool:
    """Whether a report is of that network, with its present weights, and that setting."""
    checksum = emjax.zoo.entry(name).sha256
    same: bool = report.get("network", {}).get("sha256") == checksum and report.get("setting") == setting
    return same


def head(name: str, setting: dict[str, Any]) -> dict[str, Any]:
    """What a report says besides its results."""
    entry, network = emjax.zoo.entry(name), emjax.zoo.network(name)
    return {
        "environment": {"jax": jax.__version__, "platform": jax.default_backend(), "cpus": os.cpu_count()},
        "device": jax.devices()[0].device_kind,
        "version": emjax.__version__,
        "network": {"name": name, "sha256": entry.sha256, "latent": network.latent},
        "setting": setting,
    }


def run(
    report: dict[str, Any], cases: list[tuple[int, int]], folder: Path, name: str, update: Callable[[], None]
) -> None:
    """Measure the cases that `report["runs"]` lacks; `update` is called after each."""
    network, setting = emjax.zoo.network(name), report["setting"]
    statistics = None
    for count, seed in cases:
        if str(seed) not in report["floor"]:
            found = floor(network, draw(folder, TEST, setting["patches"], seed), setting["steps"])
            half = len(found) // 2
            halves = {"axon": float(found[:half].mean()), "fibsem": float(found[half:].mean())}
            report["floor"][str(seed)] = {"mse": float(found.mean()), **halves}
        key = label(count, seed)
        if key not in report["runs"]:
            if statistics is None:
                training = draw(folder, TRAINING, TRAINED, 99).reshape(-1, SIDE**2).astype(np.float64)
                statistics = training.mean(0), np.cov(training.T)
            report["runs"][key] = measure(network, folder, count, seed, statistics, setting)
            judge(report)
            update()
            row = {method: f"{report['runs'][key][method]['mse']:.2e}" for method in METHODS}
            print(f"{key}: {row}, {report['runs'][key]['csgm_seconds']:.2f} s", flush=True)
    judge(report)


def retime(report: dict[str, Any], cases: list[tuple[int, int]], folder: Path, name: str) -> None:
    """The seconds of the first seed's runs of CSGM anew; those of the others are dropped."""
    network, setting = emjax.zoo.network(name), report["setting"]
    lengths = {"restarts": setting["restarts"], "steps": setting["steps"]}
    first = cases[0][1]
    for count, seed in cases:
        done = report["runs"][label(count, seed)]
        done.pop("seconds", None)
        done.pop("csgm_seconds", None)
        if seed == first:
            A = Dense(jnp.asarray(gaussian(count, seed)), (SIDE, SIDE))
            y = A(jnp.asarray(draw(folder, TEST, setting["patches"], seed)))
            done["csgm_seconds"] = csgm(network, y, A, **lengths)[1]
            print(f"{label(count, seed)}: {done['csgm_seconds']:.2f} s", flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--data", type=Path, help="the folder with the data sets")
    parser.add_argument("--network", default="csgm-vae", help="a VAE of the zoo, or its path")
    parser.add_argument("--picture", type=Path, help="where to draw the curves (PNG)")
    parser.add_argument("--quick", action="store_true", help="one seed, two numbers of measurements, ten patches")
    parser.add_argument("--times", action="store_true", help="afterwards, time CSGM anew on the first seed")
    arguments = parser.parse_args()
    folder = find_folder(arguments.data, files())
    if folder is None:
        print("the data sets are not there; name their folder by --data or EMJAX_DATA", file=sys.stderr)
        return 2
    setting, cases = plan(arguments.quick)
    report: dict[str, Any] = {"runs": {}, "floor": {}}
    if arguments.output.exists():
        old = json.loads(arguments.output.read_text(encoding="utf-8"))
        report = old if fits(old, arguments.network, setting) else report
    report |= head(arguments.network, setting)

    def update() -> None:
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        with emjax.io.atomic_path(arguments.output) as part:
            part.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")

    run(report, cases, folder, arguments.network, update)
    if arguments.times:
        retime(report, cases, folder, arguments.network)
    update()
    print(markdown(report))
    arguments.output.with_suffix(".md").write_text(markdown(report), encoding="utf-8")
    if arguments.picture is not None:
        picture(report, arguments.picture)
    return 0 if report["passed"] else 1


if __name__ == "__main__":
    sys.exit(main())
