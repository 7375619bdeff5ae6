"""What do weights from the scan alone lose against an oracle's, on crops of many kinds of EM images?

54 crops of 128^2 pixels, six of each of nine test parts: places drawn uniformly with a seed, anew where the crop's grey
values spread (standard deviation) by less than 0.03. Grey values are scaled by the 0.1 and 99.9 percentiles of their
image to [0, 1]. 25 % random pixels, Gaussian noise of 0.02, 0.05 and 0.1, of which the method is told nothing. The
oracle takes the weight with the best PSNR against the crop, on a path of 20 weights over three decades (`spectral`: 14
cut-off frequencies for each of five exponents), refined by a parabola. Loss: its PSNR less that of the automatic one.

    python benchmarks/automatic_weights.py -o benchmarks/results/automatic_weights.json [--quick]

The data is looked for in --data, the environment variable EMJAX_DATA, then ../shared/data beside the repository. The
JSON is written after each crop and noise level, and a run that was stopped goes on from there. Exits with 1 if a bar is
missed (median 0.3 dB, 95th percentile 1 dB, for each method), 2 without the data.
"""

import argparse
import functools
import json
import os
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tifffile

import emjax
from emjax import LeastSquares, Problem
from emjax.metrics import psnr
from emjax.operators import PixelSampling
from emjax.reconstructors import Spectral, TotalVariation, WaveletL1
from emjax.solvers import FISTA, PCG, PDHG
from emjax.weights import path

SIZE, CROPS, RATIO, NOISES, LEAST_SPREAD = 128, 6, 0.25, (0.02, 0.05, 0.1), 0.03
MEDIAN_BAR, TAIL_BAR = 0.3, 1.0  # dB
METHODS = ("tv", "wavelet", "spectral")
GRIDS = {
    "tv": np.geomspace(0.4, 4e-4, 20),
    "wavelet": np.geomspace(3.0, 3e-3, 20),
    "spectral": np.geomspace(0.05, 1.2, 14),
}
EXPONENTS = (2.0, 2.5, 3.0, 3.5, 4.0)
# Test parts: a name, files, and the slices of a stack.
SOURCES: dict[str, tuple[str, tuple[int, ...] | None]] = {
    "rat7": ("axondeepseg-sem/images/sub-rat7*.tif", None),
    "rat8": ("axondeepseg-sem/images/sub-rat8*.tif", None),
    "fibsem": ("flyem-medulla-fibsem/validation_raw.tif", (184, 188, 192, 196, 199)),
    "hela": ("hela-sbfsem/z0150.tif", None),
    "ebc": ("nasa-micronet-sem/ebc/test/images/*.tif", None),
    "superalloy": ("nasa-micronet-sem/superalloy/test/images/*.tif", None),
    "stem": ("etspy-nist-stem/serialem_repeat_frames_tilt0.tif", (0,)),
    "elegans": ("neubias-em/c_elegans_em_volume.tif", (0, 10, 20)),
    "mitochondria": ("neubias-em/em_mitochondria_er.tif", None),
}


def find_data(given: Path | None) -> Path | None:
    """The folder with all `SOURCES`, or None."""
    named = os.environ.get("EMJAX_DATA")
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = given if given is not None else Path(named) if named else beside
    return folder if all(any(folder.glob(pattern)) for pattern, _ in SOURCES.values()) else None


def load_images(folder: Path, source: str) -> list[np.ndarray]:
    """The images of a test part, float32, scaled by their percentiles."""
    pattern, slices = SOURCES[source]
    found = []
    for file in sorted(folder.glob(pattern)):
        for key in slices or (None,):
            image = tifffile.imread(file, key=key).astype(np.float32)
            low, high = np.percentile(image, (0.1, 99.9))
            found.append(np.clip((image - low) / (high - low), 0, 1))
    return found


def load_crops(folder: Path) -> dict[str, np.ndarray]:
    """The crops by name: the seed and the spread decide, never a result."""
    crops = {}
    for number, source in enumerate(SOURCES):
        rng = np.random.default_rng(number)
        images = load_images(folder, source)
        kept = 0
        while kept < CROPS:
            image = images[rng.integers(len(images))]
            i, j = (rng.integers(n - SIZE + 1) for n in image.shape)
            crop = image[i : i + SIZE, j : j + SIZE]
            if crop.std() >= LEAST_SPREAD:
                crops[f"{source}-{kept}"] = crop
                kept += 1
    return crops


def problem(method: str, data: LeastSquares, theta: jax.Array, exponent: jax.Array) -> Problem:
    """What the reconstructor solves; of `spectral` the first argument is a cut-off frequency, over the sampling's."""
    if method == "spectral":
        return Spectral().problem(data, RATIO / (RATIO**0.5 * theta) ** exponent, exponent)
    return (TotalVariation() if method == "tv" else WaveletL1()).problem(data, theta)


@functools.partial(jax.jit, static_argnames="method")
def along(y: jax.Array, mask: jax.Array, truth: jax.Array, exponent: jax.Array, *, method: str) -> jax.Array:
    """The PSNR along the oracle's path."""
    solver = {"tv": PDHG(), "wavelet": FISTA(), "spectral": PCG()}[method]
    centre = jnp.sum(y) / jnp.sum(mask) if method == "wavelet" else jnp.zeros(())  # it takes the mean off itself
    data = LeastSquares(PixelSampling(mask), y - centre)
    thetas = jnp.asarray(GRIDS[method], y.dtype)
    p = path(lambda theta: problem(method, data, theta, exponent), thetas, solver=solver, max_steps=1000)
    return psnr(p.values + centre, jnp.broadcast_to(truth, p.values.shape))


def refine(grid: np.ndarray, scores: np.ndarray) -> float:
    """The top of the parabola through the best point and its neighbours; the best point at an end."""
    i = int(np.argmax(scores))
    if not 0 < i < len(grid) - 1:
        return float(grid[i])
    a, b, c = scores[i - 1 : i + 2]
    shift = 0.5 * (a - c) / (a - 2 * b + c) if a - 2 * b + c < 0 else 0.0
    return float(grid[i] * (grid[1] / grid[0]) ** shift)


def recover(method: str, y: jax.Array, A: PixelSampling, truth: jax.Array, **given: float) -> float:
    """The PSNR with the given weight; its numbers as arrays, so that all share one program."""
    recon = emjax.load(method, **{name: jnp.float32(v) for name, v in given.items()})
    return float(psnr(recon(y, A), truth))


def measure(method: str, truth: np.ndarray, y: jax.Array, A: PixelSampling) -> dict[str, Any]:
    """The automatic weight and the oracle's."""
    target = jnp.asarray(truth)
    fitted = emjax.load(method).fit(y, A)
    chosen = {"weight": float(fitted.weight)} | ({"exponent": float(fitted.exponent)} if method == "spectral" else {})
    grid, best = GRIDS[method], (-np.inf, {"weight": 0.0})
    for exponent in EXPONENTS if method == "spectral" else (0.0,):
        scores = np.asarray(along(y, A.mask, target, jnp.float32(exponent), method=method))
        for value in (float(grid[int(np.argmax(scores))]), refine(grid, scores)):
            weight = RATIO / (RATIO**0.5 * value) ** exponent if method == "spectral" else value
            given = {"weight": weight} | ({"exponent": exponent} if method == "spectral" else {})
            if method != "spectral" or scores.max() > best[0] - 0.3:
                best = max(best, (recover(method, y, A, target, **given), given), key=lambda v: v[0])
    automatic = recover(method, y, A, target, **chosen)
    return {
        "automatic": {"psnr": automatic, **chosen},
        "oracle": {"psnr": best[0], **best[1]},
        "loss": best[0] - automatic,
    }


def summary(runs: dict[str, Any]) -> dict[str, Any]:
    """The distribution of the losses of each method, and of all."""
    found = {m: {name: run[m]["loss"] for name, run in runs.items()} for m in METHODS}
    found["all"] = {f"{m}: {name}": v for m in METHODS for name, v in found[m].items()}
    table = {}
    for method, losses in found.items():
        v = np.array(list(losses.values()))
        median, tail = float(np.median(v)), float(np.percentile(v, 95))
        table[method] = {
            "count": len(v),
            "median": median,
            "percentile_95": tail,
            "worst": float(v.max()),
            "worst_case": max(losses, key=lambda k: losses[k]),
            "passed": median <= MEDIAN_BAR and tail <= TAIL_BAR,
        }
    return table


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--data", type=Path, help="the folder that holds axondeepseg-sem, flyem-medulla-fibsem, ...")
    parser.add_argument("--quick", action="store_true", help="one crop of each part")
    arguments = parser.parse_args()
    folder = find_data(arguments.data)
    if folder is None:
        print("the EM data was not found; name its folder with --data or EMJAX_DATA", file=sys.stderr)
        return 2
    crops = load_crops(folder)
    # Source last: a run that is stopped early has seen every source.
    names = [f"{source}-{k}" for k in range(1 if arguments.quick else CROPS) for source in SOURCES]
    settings = {
        "names": names,
        "size": SIZE,
        "ratio": RATIO,
        "noises": list(NOISES),
        "grids": {m: [float(v) for v in g] for m, g in GRIDS.items()},
        "exponents": list(EXPONENTS),
        "bars": {"median": MEDIAN_BAR, "percentile_95": TAIL_BAR},
    }
    runs: dict[str, Any] = {}
    if arguments.output.is_file() and (old := json.loads(arguments.output.read_text()))["settings"] == settings:
        runs = old["runs"]
    environment = {"jax": jax.__version__, "platform": jax.default_backend(), "cpus": os.cpu_count()}
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        for noise in NOISES:
            label = f"{name}, noise {noise:g}"
            if label not in runs:
                rng = np.random.default_rng([number, round(1000 * noise)])
                mask = rng.random((SIZE, SIZE)) < RATIO
                noisy = crops[name] + noise * rng.standard_normal((SIZE, SIZE))
                y, A = jnp.asarray(np.where(mask, noisy, 0), jnp.float32), PixelSampling(mask)
                runs[label] = {method: measure(method, crops[name], y, A) for method in METHODS}
                print(label, {m: f"{v['loss']:.2f}" for m, v in runs[label].items()}, flush=True)
            table = summary(runs)
            columns = ["method", "scans", "median (dB)", "95 % (dB)", "worst (dB)"]
            keys = ("count", "median", "percentile_95", "worst")
            report = {
                "settings": settings,
                "environment": environment,
                "complete": len(runs) == len(names) * len(NOISES),
                "summary": table,
                "readme": {"columns": columns, "rows": [[m, *[row[k] for k in keys]] for m, row in table.items()]},
                "runs": runs,
            }
            part = arguments.output.with_suffix(".part")
            part.write_text(json.dumps(report, indent=1) + "\n")
            part.replace(arguments.output)
    print(json.dumps(report["summary"], indent=1))
    return 0 if all(report["summary"][m]["passed"] for m in METHODS) else 1


if __name__ == "__main__":
    sys.exit(main())
