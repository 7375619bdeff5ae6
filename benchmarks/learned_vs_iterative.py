"""How much better, and how much faster, are trained networks than iterative solvers on sparse scans of real EM images?

Seven parts, each a question:

- quality: the seven test crops of sparse_scans.py (512^2), random pixels, 5 to 60 %, noise 0 and 0.05: PSNR, SSIM and
  the Fourier ring correlation's resolution (threshold 0.5 against the truth, in pixels) of the scan networks, with the
  noise told and estimated from the scan, and of the classical methods with weights from the scan (automatic) and by an
  oracle (sparse_scans.py; where its results hold the weight for a draw, the recovery is made with that weight; draws 1
  and 2 take the oracle's weight of draw 0). `pnp` and, at 10 and 25 %, `tgv` on two crops. Three draws for the networks
  and `spectral`, one for the others. Gains are over the classical method that is best on the mean, with its oracle's
  weight.
- patterns: all scan patterns, with gains over `spectral` (automatic) on the same scan; the networks were trained on
  random, jittered, line-hop and spiral scans. What a pattern costs is the gain on random scans less the gain on it.
- unseen: kinds of images that were not trained on: coatings and superalloys (nasa-micronet-sem, test parts) and the
  published spiral scans of partial_stem.py (divided by their weights, noise not told); and a held-out slice of a kind
  that was (hela-sbfsem z0150).
- blind: a network that was trained without ground truth (`--network`) beside scan-compact, at 25 % and noise 0.05.
- speed: seconds, single images and a batch, methods taking turns, with compilation apart, and memory. See
  learned_speed.py; it wants a machine with nothing else to do.
- blocks, prior: DeepInverse and ISTA-Net+ from block-wise measurements, and a generative prior from few Gaussian ones,
  beside iterative methods, where scan networks do not apply. See learned_parts.py: what block_sampling.py and
  generative_prior.py have measured into the same folder is taken over, whatever parts are named.

    python benchmarks/learned_vs_iterative.py -o benchmarks/results/learned_vs_iterative.json [--only quality blind ...]
        [--network PATH] [--picture TIME.png RATIO.png] [--quick]

The data is looked for as in sparse_scans.py. The JSON is written after each scan and method; a run that was stopped
goes on from there. Exits with 1 if a bar is missed, 2 without the data.
"""

import argparse
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import learned_parts
import learned_speed
import learned_tables
import numpy as np
import partial_stem
import tifffile
from reports import earlier_report, save_report
from sparse_scans import (
    CROPS,
    EXPONENTS,
    IMAGES,
    WEIGHTED,
    find_folder,
    judge,
    label,
    load,
    load_crop,
    oracle,
    refine,
    scan,
)

import emjax
from emjax.acquisition import PATTERNS, Noise, measure, pattern
from emjax.metrics import fourier_ring_correlation, psnr, resolution
from emjax.operators import PixelSampling

PARTS = ("quality", "patterns", "unseen", "blind", "speed", *learned_parts.PARTS)
NETWORKS = ("scan-compact", "scan-full")
RATIOS, NOISES = (0.10, 0.25, 0.50, 0.05, 0.60), (0.0, 0.05)  # those that a bar's mean is taken over come first
# What the bars need comes first: a run that is stopped early has that.
METHODS = ("scan-compact, told", "spectral, automatic", "spectral, oracle", "scan-full, told")
REST = ("scan-compact, estimated", "linear", "tv, automatic", "tv, oracle", "wavelet, automatic", "wavelet, oracle")
LAST = ("scan-full, estimated",)
FEW, FEW_IMAGES = {"pnp": RATIOS, "tgv": (0.10, 0.25)}, ("rat7", "fibsem-191")  # slow ones
SEEDS = (0, 1, 2)
MANY = (*NETWORKS, "spectral")  # take all draws
PATTERN_IMAGES, PATTERN_RATIOS, PATTERN_NOISE = ("rat7", "rat8", "fibsem-191"), (0.10, 0.25), 0.05
UNSEEN_SCANS = ((0.10, 0.0), (0.25, 0.05), (0.50, 0.0))
UNSEEN = {
    "ebc": [f"nasa-micronet-sem/ebc/test/images/{n}.tif" for n in ("040617_2_S127_2_0015", "040617_3_S0410018")]
    + ["nasa-micronet-sem/ebc/test/images/050317_3_S0440016.tif"],
    "superalloy": [
        f"nasa-micronet-sem/superalloy/test/images/{name}.tif"
        for name in ("45kx_SE_15kV-etched_0", "lshr_15kx_3kv_0", "me3_15kx_3kv_2", "pt2_15kx_3kv_7", "spot2_0d_0")
    ],
    "hela": ["hela-sbfsem/z0150.tif"],
}
STEM = "partial-stem"
BLIND_SCAN = (0.25, 0.05)
KNOWN = Path(__file__).parent / "results" / "sparse_scans.json"


def figures(x: jax.Array, truth: np.ndarray) -> dict[str, float]:
    """PSNR, SSIM, and the period in pixels down to which a recovery follows the truth."""
    curve = fourier_ring_correlation(jnp.clip(x, 0, 1), jnp.asarray(truth))
    return {**judge(x, truth), "frc": float(resolution(curve, 1.0, "0.5"))}


@functools.cache
def network(name: str) -> Any:
    """A scan network of the zoo, or a path, as a reconstructor."""
    return emjax.load(name)


@functools.cache
def known() -> dict[str, Any]:
    """The runs of sparse_scans.py: their weights need no second search."""
    runs: dict[str, Any] = json.loads(KNOWN.read_text())["runs"] if KNOWN.is_file() else {}
    return runs


def chosen(entry: Any) -> dict[str, float]:
    """The weight, and the exponent of `spectral`."""
    return {key: entry[key] for key in ("weight", "exponent") if key in entry}


def told(mode: str, sigma: float) -> Noise | None:
    return Noise(0.0, sigma) if mode == "told" else None


def automatic(method: str, y: jax.Array, A: PixelSampling) -> dict[str, float]:
    """The weights from the scan."""
    fitted = load(method).fit(y, A)
    return {key: float(getattr(fitted, key)) for key in ("weight", "exponent") if hasattr(fitted, key)}


def measure_method(key: str, truth: np.ndarray, case: tuple[str, float, float], seeds: tuple[int, ...]) -> list[Any]:
    """The figures of one method on all draws of one image, ratio and noise."""
    method, _, mode = key.partition(", ")
    _, ratio, noise = case
    earlier = known().get(label(*case), {}).get(method, {})
    entries = []
    best = earlier.get("oracle")
    for seed in seeds if method in MANY else seeds[:1]:
        y, A = scan(truth, ratio, noise, seed)
        weights: dict[str, float] = {}
        if method in NETWORKS:
            x = network(method)(y, A, told(mode, noise))
        elif method in WEIGHTED:
            if mode == "oracle":
                best = oracle(method, truth, ratio, noise, seed) if best is None else best
                weights = chosen(best)
            else:
                same = [e for e in earlier.get("automatic", ()) if e["seed"] == seed]
                weights = chosen(same[0]) if same else automatic(method, y, A)
            x = load(method, **weights)(y, A)
        elif mode == "oracle":
            weights, x = best_weight(method, truth, y, A)
        else:
            x = emjax.load(method)(y, A)
        entries.append({"seed": seed, **figures(x, truth), **weights})
    return entries


def best_weight(method: str, truth: np.ndarray, y: jax.Array, A: PixelSampling) -> tuple[dict[str, float], jax.Array]:
    """The weight, and the recovery, of the best PSNR: uphill in factors of two from the scan's own, then between."""
    found: dict[float, tuple[float, jax.Array]] = {}

    def quality(weight: float) -> float:
        if weight not in found:
            x = emjax.load(method, weight=jnp.float32(weight))(y, A)
            found[weight] = float(psnr(jnp.clip(x, 0, 1), jnp.asarray(truth))), x
        return found[weight][0]

    weight = float(emjax.load(method).fit(y, A).weight)
    step = 2.0 if quality(2 * weight) > quality(weight) else 0.5
    for _ in range(8):
        if quality(step * weight) <= quality(weight):
            break
        weight *= step
    points = [(quality(w), w) for w in (weight / 2, weight, 2 * weight)]
    best = max((weight, refine(points)), key=quality)
    return {"weight": best}, found[best][1]


def against_spectral(
    found: dict[str, Any], truth: np.ndarray, y: jax.Array, A: PixelSampling, noise: Noise | None
) -> None:
    """Adds the networks and `spectral` with weights from the scan, on one scan, where they are missing."""
    if "spectral" not in found:
        found["spectral"] = figures(load("spectral")(y, A), truth)
    for name in NETWORKS:
        if name not in found:
            found[name] = figures(network(name)(y, A, noise), truth)


def measure_pattern(found: dict[str, Any], name: str, truth: np.ndarray, ratio: float) -> None:
    """One scan pattern on one image."""
    noise = Noise(0.0, PATTERN_NOISE)
    A = PixelSampling(pattern(name, jax.random.key(0), truth.shape, ratio))
    y = measure(jax.random.key(1), jnp.asarray(truth), A, noise)
    found |= {"measured": float(jnp.mean(A.mask != 0)), "weight": float(jnp.mean(A.mask))}
    against_spectral(found, truth, y, A, noise)


def load_part(path: Path) -> np.ndarray:
    """The upper left 512^2 pixels as float32 in [0, 1]."""
    image = tifffile.imread(path)
    return image[:512, :512].astype(np.float32) / np.iinfo(image.dtype).max


def measure_unseen(found: dict[str, Any], folder: Path, name: str, ratio: float, noise: float) -> None:
    """One image of a kind that was not trained on. The ratio and noise of the published scans are their own."""
    kind, _, which = name.partition(": ")
    if kind == STEM:
        t, w, published = partial_stem.load(folder, int(which))
        y, A = partial_stem.scans(published, w)["plain"]
        against_spectral(found, ((1 + partial_stem.stretched(t)) / 2).astype(np.float32), y, A, None)
        return
    truth = load_part(folder / next(file for file in UNSEEN[kind] if Path(file).stem == which))
    y, A = scan(truth, ratio, noise, 0)
    against_spectral(found, truth, y, A, Noise(0.0, noise))
    if "spectral, oracle" not in found:
        best = chosen(oracle("spectral", truth, ratio, noise))
        found["spectral, oracle"] = figures(load("spectral", **best)(y, A), truth) | best


def measure_blind(other: str, truth: np.ndarray, seeds: tuple[int, ...]) -> dict[str, list[Any]]:
    """scan-compact and a network that was trained without ground truth."""
    found: dict[str, list[Any]] = {}
    for seed in seeds:
        y, A = scan(truth, *BLIND_SCAN, seed)
        for who, recon in (("other", network(other)), ("scan-compact", network("scan-compact"))):
            for mode in ("told", "estimated"):
                x = recon(y, A, told(mode, BLIND_SCAN[1]))
                found.setdefault(f"{who}, {mode}", []).append({"seed": seed, **figures(x, truth)})
    return found


def plan(quick: bool) -> dict[str, Any]:
    """What each part measures; the settings of the report."""
    names = ("rat7", "fibsem-191") if quick else IMAGES
    seeds = SEEDS[:1] if quick else SEEDS
    scans = [(0.10, 0.0), (0.25, 0.05)] if quick else [(ratio, noise) for ratio in RATIOS for noise in NOISES]
    cases = [(name, *pair) for pair in scans for name in names]
    stages = [(key, case) for case in cases for key in METHODS]
    for rest in (REST,) if quick else (REST, LAST):
        stages += [(key, case) for case in cases for key in rest]
    few = [case for case in cases if case[0] in FEW_IMAGES and not quick]
    slow = [(name, case) for name, ratios in FEW.items() for case in few if case[1] in ratios]
    stages += [(f"{name}, {mode}", case) for mode in ("automatic", "oracle") for name, case in slow]
    unseen = [f"{STEM}: {k}" for k in (partial_stem.IMAGES[:1] if quick else partial_stem.IMAGES)]
    other = [
        (f"{kind}: {Path(file).stem}", ratio, noise)
        for ratio, noise in (UNSEEN_SCANS[1:2] if quick else UNSEEN_SCANS)
        for kind, files in UNSEEN.items()
        for file in (files[:1] if quick else files)
    ]
    return {
        "seeds": list(seeds),
        "quality": [[key, *case] for key, case in stages],
        "patterns": [
            [kind, name, ratio]
            for ratio in (PATTERN_RATIOS[1:] if quick else PATTERN_RATIOS)
            for name in PATTERN_IMAGES[: 1 if quick else None]
            for kind in (("random", "spiral") if quick else PATTERNS)
        ],
        "unseen": [[name, 0.175, 0.0] for name in unseen] + [list(case) for case in other],
        "blind": list(names),
        "speed": learned_speed.plan(quick),
        "exponents": list(EXPONENTS),
    }


def forget_networks(report: dict[str, Any]) -> None:
    """Drop what was measured with other weights of the networks than those of today; the others keep theirs."""
    now = {name: emjax.zoo.entry(name).sha256 for name in NETWORKS}
    changed = {name for name in NETWORKS if report.get("networks", {}).get(name) != now[name]}
    report["networks"] = now
    for part in ("quality", "patterns", "unseen"):
        for found in report[part].values():
            for key in [key for key in found if key.partition(", ")[0] in changed]:
                del found[key]
    if changed:
        report["speed"] = {}
    if "scan-compact" in changed and report["blind"]:
        report["blind"]["runs"] = {}


def run_quality(report: dict[str, Any], folder: Path, update: Callable[[], None]) -> None:
    settings, found = report["settings"], report["quality"]
    for key, *rest in settings["quality"]:
        case = (rest[0], rest[1], rest[2])
        methods = found.setdefault(label(*case), {})
        if key not in methods:
            methods[key] = measure_method(key, load_crop(folder, case[0]), case, tuple(settings["seeds"]))
            print(f"{label(*case)}: {key} {[round(e['psnr'], 2) for e in methods[key]]}", flush=True)
            update()


def lacks(found: dict[str, Any]) -> bool:
    return any(name not in found for name in ("spectral", *NETWORKS))


def run_patterns(report: dict[str, Any], folder: Path, update: Callable[[], None]) -> None:
    for kind, name, ratio in report["settings"]["patterns"]:
        key = f"{kind}, {label(name, ratio, PATTERN_NOISE)}"
        found = report["patterns"].setdefault(key, {})
        if lacks(found):
            measure_pattern(found, kind, load_crop(folder, name), ratio)
            print(key, {m: round(v["psnr"], 2) for m, v in found.items() if isinstance(v, dict)}, flush=True)
            update()


def run_unseen(report: dict[str, Any], folder: Path, update: Callable[[], None]) -> None:
    for name, ratio, noise in report["settings"]["unseen"]:
        key = label(name, ratio, noise)
        found = report["unseen"].setdefault(key, {})
        if lacks(found):
            measure_unseen(found, folder, name, ratio, noise)
            print(key, {m: round(v["psnr"], 2) for m, v in found.items()}, flush=True)
            update()


def run_blind(report: dict[str, Any], folder: Path, update: Callable[[], None], path: str) -> None:
    """The name of the network is kept, not where it lies."""
    name, checksum = Path(path).name, emjax.zoo.entry(path).sha256
    if report["blind"].get("sha256") != checksum:
        report["blind"] = {"network": name, "sha256": checksum, "runs": {}}
    for image in report["settings"]["blind"]:
        if image not in report["blind"]["runs"]:
            seeds = tuple(report["settings"]["seeds"])
            found = report["blind"]["runs"][image] = measure_blind(path, load_crop(folder, image), seeds)
            print(f"{name} on {image}:", {m: round(v[0]["psnr"], 2) for m, v in found.items()}, flush=True)
            update()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts; the others stay as they are")
    parser.add_argument("--network", help="a network trained without ground truth, for the part `blind`: its path")
    parser.add_argument("--picture", nargs=2, type=Path, metavar="PNG", help="quality against time, against ratio")
    parser.add_argument("--quick", action="store_true", help="two images, two scans, one draw; small images for speed")
    parser.add_argument("--data", type=Path, help="the folder that holds axondeepseg-sem, flyem-medulla-fibsem, ...")
    arguments = parser.parse_args()
    files = [CROPS[name][0] for name in IMAGES] + [file for group in UNSEEN.values() for file in group]
    files += [file for part, needed in learned_parts.FILES.items() if part in arguments.only for file in needed()]
    folder = find_folder(arguments.data, [*files, f"{STEM}/truth-1.tif"])
    if folder is None:
        print("the EM data was not found; name its folder with --data or EMJAX_DATA", file=sys.stderr)
        return 2
    settings = json.loads(json.dumps(plan(arguments.quick)))
    report = earlier_report(arguments.output, settings)
    environment = {"jax": jax.__version__, "platform": jax.default_backend(), "cpus": os.cpu_count()}
    report = {"settings": settings, "environment": environment, "summary": {}} | report
    for part in PARTS:
        report.setdefault(part, {})
    forget_networks(report)
    learned_parts.begin(report, arguments.output, arguments.quick)

    def update() -> None:
        learned_tables.summarise(report)
        save_report(report, learned_tables.markdown(report, __doc__ or ""), arguments.output)

    runs: dict[str, Callable[..., None]] = {"quality": run_quality, "patterns": run_patterns, "unseen": run_unseen}
    for part, run in runs.items():
        if part in arguments.only:
            run(report, folder, update)
    if "blind" in arguments.only:
        if arguments.network is not None:
            run_blind(report, folder, update, arguments.network)
        elif not report["blind"]:
            print("blind: left out, as no --network was named", file=sys.stderr)
    if "speed" in arguments.only:
        learned_speed.run(report, folder, update)
    if "blocks" in arguments.only:
        learned_parts.run_blocks(report, folder, update)
    if "prior" in arguments.only:
        learned_parts.run_prior(report, folder, update, arguments.quick)
    update()
    if arguments.picture is not None:
        import learned_pictures

        for draw, path in zip(
            (learned_pictures.draw_time, learned_pictures.draw_ratio), arguments.picture, strict=True
        ):
            if not draw(report, path):
                print(f"{path}: not drawn, a part that it shows was not measured yet", file=sys.stderr)
    print(learned_tables.markdown(report, __doc__ or ""))
    return 0 if all(bar["passed"] for bar in report["summary"]["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
