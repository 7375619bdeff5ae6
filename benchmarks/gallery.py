"""Which prior goes with which way of sampling?

Every one with every other, as one page of pictures and a table.

Crops of 128^2 pixels of the test parts of axondeepseg-sem (rat7) and flyem-medulla-fibsem (slice 191), uint8 / 255; a
quarter of the pixels or coefficients; Gaussian noise of 0 and 0.05 on every measurement. PSNR with range 1, clipped;
SSIM; seconds of a warm recovery, with its choice of the weight where that is automatic.

Weights are automatic (from the scan alone) for the methods of `emjax.load` on pixel scans, and with noise, whose level
is given, on all others. The rest take the best of a grid, by PSNR on a training crop (rat5) under the same noise and
sampling (one for all pixel patterns); so they know the kind of image, and automatic ones do not. Solves stop at a gap
of 3e-3 or 400 steps. The spiral weighs the pixels that its beam brushes by a half at most, so the noise counts double.
The ball's radius is that of the noise, sqrt(m) sigma (without noise a thousandth of |y|). Pixel scans are also recorded
as counts of 50 electrons at grey value 1, which is what the Poisson likelihood is for.

    python benchmarks/gallery.py -o benchmarks/results/gallery.json [--picture gallery.png] [--phantom] [--quick]

The data is looked for as in sparse_scans.py; with --phantom none is needed. The JSON is written after each sampling,
and a run that was stopped goes on from there. The picture shows the last image with noise; it is drawn from recoveries
kept beside the JSON in a .npz. Exits with 1 if a recovery failed, 2 without the data.
"""

import argparse
import io
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
from reports import earlier_report, save_report
from sparse_scans import CROPS, find_folder

import emjax
from emjax import TV, Box, LeastSquares, Problem, Term, solve
from emjax.acquisition import PATTERNS, Noise, measure, pattern, phantom, uniform, variable_density
from emjax.functionals import L1, HuberLoss, L2Ball, NuclearNorm, PoissonLikelihood
from emjax.metrics import psnr, ssim
from emjax.operators import (
    BlockSampling,
    Blur,
    Downsampling,
    LinearOperator,
    PixelSampling,
    SubsampledDCT,
    SubsampledFourier,
    SubsampledHadamard,
    UndecimatedWavelet,
    from_function,
    gaussian,
    gaussian_kernel,
)

SIDE, RATIO, DOSE = 128, 0.25, 50
COUNTS = f"dose {DOSE}"
NOISES = (0.0, 0.05, COUNTS)
PAGE = 0.05  # the noise of the page and of the README
SHAPE = (SIDE, SIDE)
GAP, STEPS = 3e-3, 400
TUNING_STEPS = 100  # for each weight of a grid, from the last one's solution where there is one
IMAGES = ("rat7", "fibsem-191")
TRAINING = ("axondeepseg-sem/images/sub-rat5_sample-data14.tif", 300, 300)
SAMPLINGS = (*PATTERNS, "hadamard", "dct", "fourier", "block gaussian", "bicubic x2", "blur + random")
COUNTED = (*PATTERNS, "blur + random")


def taken(noise: float | str, samplings: list[str]) -> list[str]:
    """The samplings that are taken with a noise: pixels are counted, coefficients are not."""
    return [name for name in samplings if noise != COUNTS or name in COUNTED]


def level(noise: float | str) -> Noise:
    return Noise.from_dose(DOSE) if noise == COUNTS else Noise(read_sigma=noise)


def corner(power: float) -> np.ndarray:
    """A density that falls from the low frequencies in the first corner of a transform."""
    r = np.hypot(*np.meshgrid(np.arange(SIDE), np.arange(SIDE), indexing="ij")) / SIDE
    return np.maximum(1 - r, 0) ** power + 1e-3


def sampling(name: str, key: jax.Array) -> LinearOperator:
    """A quarter of the measurements of 128^2 pixels."""
    if name in PATTERNS:
        return PixelSampling(pattern(name, key, SHAPE, RATIO))
    if name == "hadamard":
        return SubsampledHadamard(variable_density(key, SHAPE, RATIO, density=corner(4)), order="sequency")
    if name == "dct":
        return SubsampledDCT(variable_density(key, SHAPE, RATIO, density=corner(4)))
    if name == "fourier":
        return SubsampledFourier.centred(variable_density(key, SHAPE, RATIO, power=4))
    if name == "block gaussian":
        return BlockSampling(gaussian(key, (256,), ratio=RATIO, orthonormal=True).matrix, SHAPE, 16, orthonormal=True)
    if name == "bicubic x2":
        return Downsampling(SHAPE, 2)
    blur = Blur(gaussian_kernel(1.0), SHAPE, boundary="reflect")
    return PixelSampling(uniform(key, SHAPE, RATIO)) @ blur


# The priors. Those of `emjax.load` bring their weights; the others are problems of a weight.


def regions(x: jax.Array) -> jax.Array:
    """The 4 x 4 patches of each region of 32^2 pixels as a matrix of patches by pixels: `(16, 64, 16)`."""
    x = x.reshape(4, 8, 4, 4, 8, 4)  # region, patch, pixel of rows, then of columns
    return x.transpose(0, 3, 1, 4, 2, 5).reshape(16, 64, 16)


def moved_regions(x: jax.Array) -> jax.Array:
    """The same between those patches, so that no grid shows."""
    return regions(jnp.roll(x, (2, 2), (0, 1)))


def undecimated(A: LinearOperator, y: jax.Array, weight: jax.Array) -> Problem:
    W = UndecimatedWavelet(SHAPE, "db2", 3)
    # The mean over all shifts of an orthogonal transform whose levels weigh 2^(-1.5 (j - 1)), as in `WaveletL1`.
    level = W.level_map()
    scale = jnp.asarray(np.where(level == 0, 0, 2.0 ** (-2.5 * (level - 1))), jnp.float32)
    return Problem(LeastSquares(A, y), Term(L1(weight * scale), W), Box(0, 1))


def low_rank(A: LinearOperator, y: jax.Array, weight: jax.Array) -> Problem:
    terms = [Term(NuclearNorm(weight), from_function(f, SHAPE, norm=1)) for f in (regions, moved_regions)]
    return Problem(LeastSquares(A, y), *terms, Box(0, 1))


def huber(A: LinearOperator, y: jax.Array, weight: jax.Array) -> Problem:
    return Problem(HuberLoss(A, y, 0.1), TV(weight), Box(0, 1))


def non_negative(A: LinearOperator, y: jax.Array, weight: jax.Array) -> Problem:
    return Problem(LeastSquares(A, y), TV(weight), Box(0, jnp.inf))


def ball(A: LinearOperator, y: jax.Array, radius: jax.Array) -> Problem:
    return Problem(L2Ball(A, y, radius), TV(1.0), Box(0, 1))


def radius(A: LinearOperator, y: jax.Array, noise: float | str) -> float:
    """The expected norm of the noise of these measurements."""
    count = float(jnp.sum(A.measured(jnp.ones(A.out_shape)) != 0))
    if noise == COUNTS:
        return float(jnp.sqrt(jnp.sum(jnp.maximum(y, 0)) / DOSE))
    return max(float(noise) * count**0.5, 1e-3 * float(jnp.linalg.norm(y.ravel())))


def poisson(A: LinearOperator, y: jax.Array, weight: jax.Array) -> Problem:
    return Problem(PoissonLikelihood(A, jnp.maximum(y, 0), 1 / DOSE), TV(weight), Box(0, 1))


Build = Callable[[LinearOperator, jax.Array, jax.Array], Problem]
SETTINGS = {"gap": GAP, "max_steps": STEPS}
LOADED: dict[str, tuple[str, dict[str, Any]]] = {
    "linear": ("linear", {}),
    "spectral": ("spectral", {}),
    "tv": ("tv", SETTINGS),
    "tv anisotropic": ("tv", {"isotropic": False, **SETTINGS}),
    "tgv": ("tgv", SETTINGS),
    "wavelet": ("wavelet", SETTINGS),
}
BUILT: dict[str, Build] = {
    "undecimated": undecimated,
    "low rank": low_rank,
    "tv, x >= 0": non_negative,
    "huber loss + tv": huber,
    "ball + tv": ball,
    "poisson + tv": poisson,
}
PRIORS = (*LOADED, *BUILT)
# From the smoothest down: each solve starts from the last.
GRIDS = {
    "spectral": np.geomspace(3e2, 1e-3, 7),
    "wavelet": np.geomspace(0.5, 1e-3, 7),
    "undecimated": np.geomspace(3.0, 3e-3, 7),
    "low rank": np.geomspace(0.5, 1e-3, 7),
}
GRIDS["poisson + tv"] = np.geomspace(10, 1e-2, 7)
TV_GRID = np.geomspace(0.3, 3e-4, 7)


def refusal(prior: str, A: LinearOperator, noise: float | str) -> str | None:
    """Why a prior cannot be taken with an operator, or None."""
    if prior == "linear" and not isinstance(A, PixelSampling):
        return "interpolates between pixels, which this sampling does not measure"
    if prior == "huber loss + tv" and jnp.issubdtype(A.out_dtype, jnp.complexfloating):
        return "is for real measurements only"
    if prior == "poisson + tv" and noise != COUNTS:
        return "is for counts"
    return None


def is_automatic(prior: str, A: LinearOperator, noise: float | str) -> bool:
    """Whether the weight comes from the scan."""
    return prior == "ball + tv" or (prior in LOADED and (isinstance(A, PixelSampling) or noise != 0))


def tuned(prior: str, key: jax.Array, A: LinearOperator, noise: float | str, training: jax.Array) -> float:
    """The weight with the best PSNR on the training crop."""
    y = measure(key, training, A, level(noise))
    best, at, start = -np.inf, 0.0, None
    for weight in GRIDS.get(prior, TV_GRID):
        if prior in LOADED:
            x = recover(prior, A, y, weight=weight, max_steps=TUNING_STEPS)
        else:
            solution = solved(prior, A, y, weight, TUNING_STEPS, start)
            x, start = solution.value, solution
        best, at = max((best, at), (float(psnr(x, training)), float(weight)))
    return at


def solved(
    prior: str, A: LinearOperator, y: jax.Array, weight: float, max_steps: int = STEPS, start: Any = None
) -> Any:
    """The solution of a prior that is written down as a problem."""
    return solve(BUILT[prior](A, y, jnp.float32(weight)), gap=GAP, max_steps=max_steps, start=start)


def recover(
    prior: str,
    A: LinearOperator,
    y: jax.Array,
    noise: float | str = 0,
    weight: float | None = None,
    max_steps: int = STEPS,
) -> jax.Array:
    """One recovery: with this weight, or one from the scan; the noise is told where no held-out pixel could tell."""
    if prior == "ball + tv":
        weight = radius(A, y, noise)
    if prior in BUILT:
        assert weight is not None
        return solved(prior, A, y, weight, max_steps).value
    name, settings = LOADED[prior]
    if "max_steps" in settings:
        settings = {**settings, "max_steps": max_steps}
    if weight is not None:
        return emjax.load(name, **settings, weight=jnp.float32(weight))(y, A)
    return emjax.load(name, **settings)(y, A, None if isinstance(A, PixelSampling) else level(noise))


def measure_sampling(
    name: str, noise: float | str, truths: dict[str, jax.Array], training: jax.Array, weights: dict[str, float]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """All priors under one sampling and noise, for every image: figures and pictures. Fills in the tuned weights."""
    key = jax.random.key(0)
    A = sampling(name, key)
    found: dict[str, Any] = {image: {} for image in truths}
    pictures: dict[str, np.ndarray] = {}
    for prior in PRIORS:
        if reason := refusal(prior, A, noise):
            for image in truths:
                found[image][prior] = {"reason": reason}
            continue
        weight = None
        if not is_automatic(prior, A, noise):
            # Pixel patterns share the weights of the first of them.
            label = f"{prior}, {'pixels' if isinstance(A, PixelSampling) else name}, {noise}"
            if label not in weights:
                weights[label] = tuned(prior, key, A, noise, training)
            weight = weights[label]
        for k, (image, truth) in enumerate(truths.items()):
            y = measure(key, truth, A, level(noise))
            if k == 0:
                jax.block_until_ready(recover(prior, A, y, noise, weight))  # compiles
            begin = time.perf_counter()
            x = jax.block_until_ready(recover(prior, A, y, noise, weight))
            seconds = time.perf_counter() - begin
            figures = {"psnr": float(psnr(x, truth)), "ssim": float(ssim(jnp.clip(x, 0, 1), truth))}
            found[image][prior] = {**figures, "seconds": seconds, "weight": "scan" if weight is None else weight}
            pictures[f"{image}|{prior}"] = as_grey(x)
            pictures[f"{image}|scan"] = shown(name, A, y)
    return found, pictures


def as_grey(x: Any) -> np.ndarray:
    return np.round(np.clip(np.asarray(x), 0, 1) * 255).astype(np.uint8)


def shown(name: str, A: LinearOperator, y: jax.Array) -> np.ndarray:
    """The measurements as a picture in [0, 1]: NaN where nothing was measured, coefficients by their logarithm."""
    v = np.asarray(y)
    seen = np.asarray(A.measured(jnp.ones(A.out_shape))) != 0
    if name in ("hadamard", "dct", "fourier"):
        v = np.log10(np.abs(v) + 1e-3)
        v = np.clip((v + 2) / 3, 0, 1)
        v, seen = (np.fft.fftshift(v), np.fft.fftshift(seen)) if name == "fourier" else (v, seen)
    elif name == "block gaussian":
        rows, columns, m = v.shape
        side = int(np.sqrt(m))
        v = v.reshape(rows, columns, side, side).transpose(0, 2, 1, 3).reshape(rows * side, columns * side)
        v = (v - v.min()) / np.ptp(v)
        seen = np.ones_like(v, bool)
    return np.where(seen, v, np.nan).astype(np.float16)


def crop(folder: Path, name: str) -> jax.Array:
    """The middle of a crop of sparse_scans.py, `(128, 128)` in [0, 1]."""
    file, index, row, column = CROPS[name]
    return _cut(tifffile.imread(folder / file, key=index), row + 192, column + 192)


def _cut(image: np.ndarray, row: int, column: int) -> jax.Array:
    return jnp.asarray(image[row : row + SIDE, column : column + SIDE].astype(np.float32) / 255)


# The page.

INK, UNSEEN, BEST = "#222222", "#10204a", "#f2a900"


def page(report: dict[str, Any], pictures: dict[str, np.ndarray], output: Path) -> None:
    """Columns are samplings, rows priors; truth and scans on top, the PSNR in the corner of each tile."""
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt
    from PIL import Image

    image, noise = report["settings"]["images"][-1], PAGE
    samplings = report["settings"]["samplings"]
    priors = [p for p in report["settings"]["priors"] if p != "poisson + tv"]  # which is for counts
    grey = plt.get_cmap("gray").with_extremes(bad=UNSEEN)
    tile, gap, left, top, dpi = 1.05, 0.04, 1.21, 0.66, 100
    width = left + (len(samplings)) * (tile + gap) + gap
    height = top + (1 + len(priors)) * (tile + gap) + 0.42
    figure = plt.figure(figsize=(width, height), dpi=dpi, facecolor="white")

    def place(row: int, column: int) -> Any:
        x = left + column * (tile + gap) if column >= 0 else left - tile - 3 * gap
        y = height - top - (row + 1) * (tile + gap) + gap
        axis = figure.add_axes((x / width, y / height, tile / width, tile / height), xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
        return axis

    def draw(axis: Any, picture: np.ndarray, high: float = 255) -> None:
        axis.imshow(picture.astype(np.float32), cmap=grey, vmin=0, vmax=high, interpolation="nearest", aspect="auto")

    figure.text(gap / width, 1 - 0.16 / height, "What a prior makes of a sampling", size=12, weight="bold", va="center")
    text = f"{image}, {RATIO:.0%} measured, noise {noise}, {SIDE} x {SIDE} pixels; PSNR in dB"
    figure.text(1 - gap / width, 1 - 0.16 / height, text, size=8.5, ha="right", va="center", color=INK)
    draw(place(0, -1), pictures[f"{image}|truth"])
    figure.text(
        (left - tile / 2 - 3 * gap) / width, 1 - (top - 0.1) / height, "truth", size=8.5, ha="center", weight="bold"
    )
    for column, name in enumerate(samplings):
        cell = report["runs"][f"{name}, {noise}"][image]
        scores = {p: e["psnr"] for p, e in cell.items() if "psnr" in e}
        x = (left + column * (tile + gap) + tile / 2) / width
        figure.text(x, 1 - (top - 0.1) / height, name, size=8.5, ha="center", color=INK)
        draw(place(0, column), pictures[f"{name}, {noise}|{image}|scan"], 1)
        for row, prior in enumerate(priors, start=1):
            axis = place(row, column)
            if prior not in scores:
                axis.set_facecolor("#eeeeee")
                axis.text(0.5, 0.5, "not\ntaken", size=8, color="#888888", ha="center", va="center")
                axis.set(xlim=(0, 1), ylim=(0, 1))
                continue
            draw(axis, pictures[f"{name}, {noise}|{image}|{prior}"])
            best = scores[prior] == max(scores.values())
            box = {"boxstyle": "square,pad=0.18", "fc": BEST if best else "#000000b0", "ec": "none"}
            style = {"size": 7.5, "color": "black" if best else "white", "weight": "bold" if best else "normal"}
            at = {"transform": axis.transAxes, "ha": "left", "va": "bottom"}
            axis.text(0.03, 0.035, f"{scores[prior]:.1f}", bbox=box, **at, **style)
    for row, prior in enumerate(priors, start=1):
        y = height - top - row * (tile + gap) - tile / 2
        text = {"tv, x >= 0": "tv, x ≥ 0", "huber loss + tv": "Huber loss\n+ tv", "tv anisotropic": "tv\nanisotropic"}
        text = {**text, "undecimated": "undecimated\nwavelet", "low rank": "low-rank\npatches"}.get(prior, prior)
        figure.text((left - 0.1) / width, y / height, text, size=9, ha="right", va="center", color=INK)
    note = "Dark blue: not measured. Transforms: logarithm of the coefficients. Yellow: the best of a column. "
    note += "The beam of the spiral weighs pixels by a half at most."
    figure.text(left / width, 0.2 / height, note, size=8, color="#555555", va="center")
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=dpi)
    plt.close(figure)
    output.parent.mkdir(parents=True, exist_ok=True)
    # 100 greys and the two colours of the page take half of the room of all of them, and look the same.
    greys = [(round(v),) * 3 for v in np.linspace(0, 255, 100)]
    colours = [tuple(int(c[i : i + 2], 16) for i in (1, 3, 5)) for c in (UNSEEN, BEST, "#c08400", "#7a5400")]
    palette = Image.new("P", (1, 1))
    palette.putpalette([value for colour in (*greys, *colours) for value in colour])
    Image.open(buffer).convert("RGB").quantize(palette=palette, dither=Image.Dither.NONE).save(output, optimize=True)


# The report.


def markdown(report: dict[str, Any]) -> str:
    """The report as tables."""
    machine, settings, runs = report["environment"], report["settings"], report["runs"]
    lines = ["# Priors and samplings", "", *(__doc__ or "").split("\n\n    python")[0].split("\n")]
    lines += ["", f"JAX {machine['jax']}, {machine['platform']}, {machine['cpus']} CPUs, load {machine['load']}.", ""]
    for noise in settings["noises"]:
        lines += [f"## PSNR in dB (SSIM; seconds), mean over {', '.join(settings['images'])}; noise {noise}", ""]
        lines += [f"| sampling | {' | '.join(settings['priors'])} |", "|---" * (1 + len(settings["priors"])) + "|"]
        for name in taken(noise, settings["samplings"]):
            group = runs.get(f"{name}, {noise}", {})
            cells = [_cell([entry[p] for entry in group.values()]) for p in settings["priors"]] if group else []
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    lines += ["`*`: the weight was tuned on the training crop; else it comes from the scan.", ""]
    reasons = {(p, e["reason"]) for run in runs.values() for c in run.values() for p, e in c.items() if "reason" in e}
    lines += [f"`-`: not taken by {prior}, which {reason}." for prior, reason in sorted(reasons)]
    return "\n".join(lines) + "\n"


def _cell(entries: list[dict[str, Any]]) -> str:
    if "reason" in entries[0]:
        return "-"
    psnr_, ssim_, seconds = (float(np.mean([e[k] for e in entries])) for k in ("psnr", "ssim", "seconds"))
    star = "" if entries[0]["weight"] == "scan" else "*"
    return f"{psnr_:.2f}{star} ({ssim_:.3f}; {seconds:.1f})"


def readme(report: dict[str, Any]) -> dict[str, Any]:
    """The table of the README: with noise."""
    settings = report["settings"]
    noise, rows = PAGE, []
    priors = [p for p in settings["priors"] if p != "poisson + tv"]  # which is for counts
    for name in settings["samplings"]:
        group = report["runs"].get(f"{name}, {noise}")
        if group:
            entries = [[run[p] for run in group.values()] for p in priors]
            rows.append([name, *("" if "reason" in e[0] else float(np.mean([v["psnr"] for v in e])) for e in entries)])
    return {"columns": [f"sampling (noise {noise})", *priors], "rows": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--picture", type=Path, help="where to write the page (default: a .png beside the JSON)")
    parser.add_argument("--phantom", action="store_true", help="synthetic tissue in place of real images")
    parser.add_argument("--quick", action="store_true", help="three samplings, with noise")
    parser.add_argument("--data", type=Path, help="the folder that holds axondeepseg-sem and flyem-medulla-fibsem")
    arguments = parser.parse_args()
    if arguments.phantom:
        truths = {"phantom": jnp.asarray(phantom(SHAPE, seed=1).image)}
        training = jnp.asarray(phantom(SHAPE, seed=100).image)
    else:
        folder = find_folder(arguments.data, [CROPS[name][0] for name in IMAGES] + [TRAINING[0]])
        if folder is None:
            print(
                "the EM data was not found; name its folder with --data or EMJAX_DATA, or take --phantom",
                file=sys.stderr,
            )
            return 2
        truths = {name: crop(folder, name) for name in IMAGES}
        training = _cut(tifffile.imread(folder / TRAINING[0]), *TRAINING[1:])
    settings = {
        "images": list(truths),
        "noises": [PAGE] if arguments.quick else list(NOISES),
        "samplings": list(("random", "fourier", "bicubic x2") if arguments.quick else SAMPLINGS),
        "priors": list(PRIORS),
        "side": SIDE,
        "ratio": RATIO,
        "gap": GAP,
        "max_steps": STEPS,
    }
    kept = arguments.output.with_suffix(".npz")
    report = earlier_report(arguments.output, settings)
    pictures = dict(np.load(kept)) if report and kept.is_file() else {}
    environment = {"jax": jax.__version__, "platform": jax.default_backend(), "cpus": os.cpu_count()}
    environment["load"] = round(os.getloadavg()[1], 1)  # of others, too: it tells what the seconds are worth
    runs = report.get("runs", {}) if pictures else {}
    weights = report.get("weights", {}) if pictures else {}
    report = {"settings": settings, "environment": environment, "complete": False, "weights": weights, "runs": runs}
    pictures |= {f"{name}|truth": as_grey(truth) for name, truth in truths.items()}
    todo = [(noise, name) for noise in settings["noises"] for name in taken(noise, settings["samplings"])]
    for noise in sorted(settings["noises"], key=lambda n: n != PAGE):  # the page first
        for name in taken(noise, settings["samplings"]):
            label = f"{name}, {noise}"
            if label not in runs:
                runs[label], new = measure_sampling(name, noise, truths, training, weights)
                pictures |= {f"{label}|{k}": v for k, v in new.items()}
                first = next(iter(runs[label].values()))
                print(label, {p: f"{e['psnr']:.2f}" for p, e in first.items() if "psnr" in e}, flush=True)
            report |= {
                "readme": readme(report),
                "complete": len(runs) == len(todo),
            }
            arguments.output.parent.mkdir(parents=True, exist_ok=True)
            np.savez_compressed(kept, **pictures)
            save_report(report, markdown(report), arguments.output)
        if noise == PAGE:
            page(report, pictures, arguments.picture or arguments.output.with_suffix(".png"))
    print(markdown(report))
    failed = [e for run in runs.values() for cell in run.values() for e in cell.values() if not _finite(e)]
    return 1 if failed else 0


def _finite(entry: dict[str, Any]) -> bool:
    return "reason" in entry or bool(np.isfinite(entry["psnr"]))


if __name__ == "__main__":
    sys.exit(main())
