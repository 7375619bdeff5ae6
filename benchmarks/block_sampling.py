"""How well are EM images recovered from block-wise measurements: by a linear estimate, sparse priors, networks?

Crops of 264^2 pixels (8 x 8 blocks of 33 x 33) of the test parts, the corners of those of `sparse_scans.py`:
axondeepseg-sem rat7 and rat8, flyem-medulla-fibsem slices 186, 191, 197. Every block is measured by one matrix with
orthonormal rows, those of ReconNet (Kulkarni et al., CVPR 2016), at 1, 4, 10 and 25 %; no noise. Compared:

- `linear`: the linear estimate of least error `X Y.T (Y Y.T)^-1`, in float64, of 100,000 patches X of the images that
  the networks are trained on, their measurements Y with a constant 1 among them (no worse than without, 0.1 dB better
  at 1 %);
- `field`: the same with the covariance of six numbers that networks start from (`emjax.networks.starts`);
- `tv`, `wavelet`: with an oracle's weights, the best against the truth on a grid of ten, refined by a parabola;
- every network of the zoo that takes block-wise operators. Another folder of networks: --zoo.

PSNR with range 1, clipped; SSIM; seconds of a warm recovery of one image.

    python benchmarks/block_sampling.py -o benchmarks/results/block_sampling.json [--zoo FOLDER] [--quick]

The data is looked for as in sparse_scans.py. The JSON is written after each (ratio, image), a run that was stopped goes
on from there, and networks with new weights are measured anew. Exits with 1 if a network is not above `linear`, or
ISTA-Net+ not above `tv` and `wavelet`, at a ratio (means over the images); 2 without the data.
"""

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from reports import earlier_report, save_report
from sparse_scans import CROPS, IMAGES, find_folder, judge, load_crop, refine

import emjax
from emjax import LeastSquares, solve, zoo
from emjax.metrics import psnr
from emjax.networks.starts import FIELD, linear_start
from emjax.operators import BlockSampling, Blockwise
from emjax.training import load_recipe
from emjax.training.augment import random_crops
from emjax.training.data import read_images
from emjax.training.tasks.block import read_matrix

SIDE, BLOCK = 264, 33
MATRICES = {r: f"reconnet-phi/phi_{r.replace('.', '_')}_1089.mat" for r in ("0.01", "0.04", "0.10", "0.25")}
RECIPE = "ista-net-plus"  # whose training images the linear estimate is made of
PATCHES, DRAW = 100_000, 2_000
CLASSICAL = ("linear", "field", "tv", "wavelet")
# Oracle: weights from the smoothest down, left once three in a row have brought nothing. Coarse solves, then fine ones.
GRIDS = {"tv": np.geomspace(0.03, 3e-5, 10), "wavelet": np.geomspace(0.3, 3e-4, 10)}
COARSE, FINE = {"tv": (1e-2, 100), "wavelet": (1e-2, 60)}, {"tv": (1e-3, 600), "wavelet": (1e-3, 400)}  # gap, steps
PATIENCE, GAIN = 3, 0.01  # weights, dB

Recover = Callable[[jax.Array], jax.Array]


def training_moments(folder: Path, patches: int) -> np.ndarray:
    """The second moments of training patches with a 1 behind them, float64, (1090, 1090)."""
    images, _ = read_images(load_recipe(RECIPE).data, folder)
    draw = jax.jit(random_crops, static_argnums=(2, 3))
    moments = np.zeros((BLOCK**2 + 1, BLOCK**2 + 1))
    for i in range(max(1, patches // DRAW)):
        x = np.asarray(draw(jax.random.key(i), images, BLOCK, DRAW), np.float64).reshape(DRAW, -1)
        x = np.concatenate([x, np.ones((DRAW, 1))], 1)
        moments += x.T @ x
    return moments


def linear_estimate(moments: np.ndarray, phi: np.ndarray) -> np.ndarray:
    """`X Y.T (Y Y.T)^-1`, (1089, m + 1), for measurements with a 1 behind them."""
    m, n = phi.shape
    with_one = np.zeros((m + 1, n + 1))
    with_one[:m, :n], with_one[m, n] = phi, 1
    cross = moments @ with_one.T
    return np.linalg.solve(with_one @ cross, cross[:n].T).T


def apply_linear(estimate: np.ndarray, y: jax.Array, A: Blockwise) -> jax.Array:
    v = np.asarray(y, np.float64).reshape(-1, y.shape[-1])
    x = np.concatenate([v, np.ones((len(v), 1))], 1) @ estimate.T
    return A.join(jnp.asarray(x, jnp.float32).reshape(-1, BLOCK, BLOCK))


def oracle(method: str, truth: np.ndarray, y: jax.Array, A: Blockwise) -> tuple[Recover, dict[str, Any]]:
    """The method with the weight that recovers the truth best."""
    target, tried = jnp.asarray(truth), []
    best, stale, start = -np.inf, 0, None

    def problem(data: LeastSquares, weight: float) -> emjax.Problem:
        return emjax.load(method, weight=jnp.float32(weight)).problem(data, jnp.float32(weight))

    centre = jnp.zeros(()) if method == "tv" else grey(y, A)
    data = LeastSquares(A, y - A(jnp.full(A.in_shape, centre)))
    for weight in GRIDS[method]:
        gap, steps = COARSE[method]
        solution = solve(problem(data, weight), gap=gap, max_steps=steps, start=start)
        start = solution if method == "tv" else solution.value
        found = float(psnr(solution.value + centre, target))
        tried.append((found, float(weight)))
        stale = stale + 1 if found < best + GAIN else 0
        best = max(best, found)
        if stale == PATIENCE:
            break
    gap, steps = FINE[method]
    entries = []
    for weight in dict.fromkeys((max(tried)[1], refine(tried))):
        solution = solve(problem(data, weight), gap=gap, max_steps=steps)
        entries.append((float(psnr(solution.value + centre, target)), weight, solution))
    _, weight, solution = max(entries, key=lambda e: e[0])
    recon = emjax.load(method, weight=jnp.float32(weight), gap=jnp.float32(gap), max_steps=jnp.int32(steps))
    more = {"weight": weight, "gap": float(solution.gap), "steps": int(solution.steps), "tried": len(tried)}
    return lambda y: recon(y, A), more


def grey(y: jax.Array, A: Blockwise) -> jax.Array:
    """The grey level of a uniform image that explains the measurements best."""
    ones = A(jnp.ones(A.in_shape))
    return jnp.sum(ones * y) / jnp.sum(ones * ones)


def score(run: Recover, y: jax.Array, truth: np.ndarray, **more: Any) -> dict[str, Any]:
    jax.block_until_ready(run(y))  # compiles
    begin = time.perf_counter()
    x = jax.block_until_ready(run(y))
    return {**judge(x, truth), "seconds": time.perf_counter() - begin, **more}


def networks(A: Blockwise) -> dict[str, tuple[Any, str]]:
    """The reconstructors of the zoo that take block-wise operators, and the checksums of their weights."""
    found = {}
    for name in zoo.names():
        entry = zoo.entry(name)
        if entry.reconstructor == "Learned" and zoo.network(name).supports(A) is None:
            found[name] = (emjax.load(name), entry.sha256)
    return found


def summary(runs: dict[str, Any], kinds: dict[str, str]) -> list[dict[str, Any]]:
    """Means over the images, for each ratio and method."""
    rows = []
    for ratio in MATRICES:
        group = [methods for name, methods in runs.items() if name.startswith(f"{ratio}, ")]
        for method in [*CLASSICAL, *kinds]:
            each = [methods[method] for methods in group if method in methods]
            if each:
                row = {"ratio": float(ratio), "method": method, "kind": kinds.get(method), "images": len(each)}
                row |= {key: float(np.mean([e[key] for e in each])) for key in ("psnr", "ssim")}
                row["worst_psnr"] = min(e["psnr"] for e in each)
                rows.append({**row, "seconds": float(np.median([e["seconds"] for e in each]))})
    return rows


def bars(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Every network against what it has to be above."""
    score = {(row["ratio"], row["method"]): row["psnr"] for row in rows}
    found = []
    for row in rows:
        rivals = () if row["kind"] is None else CLASSICAL[:1]
        rivals += ("tv", "wavelet") if row["kind"] == "ista-net-plus" else ()
        for rival in rivals:
            margin = row["psnr"] - score[row["ratio"], rival]
            found.append({"ratio": row["ratio"], "network": row["method"], "above": rival, "margin": margin})
    return [{**bar, "passed": bar["margin"] > 0} for bar in found]


def markdown(report: dict[str, Any]) -> str:
    lines = ["# Block-wise sampling of EM images", "", (__doc__ or "").split("\n\n")[1], ""]
    machine = report["environment"]
    lines += [f"JAX {machine['jax']}, {machine['platform']}, {machine['cpus']} CPUs.", ""]
    lines += ["| ratio | method | PSNR | worst | SSIM | s |", "|---|---|---:|---:|---:|---:|"]
    for row in report["summary"]:
        numbers = f"{row['psnr']:.2f} | {row['worst_psnr']:.2f} | {row['ssim']:.3f} | {row['seconds']:.3f}"
        lines.append(f"| {row['ratio']:.0%} | {row['method']} | {numbers} |")
    lines += ["", "| ratio | network | above | margin, dB | passed |", "|---|---|---|---:|---|"]
    for bar in report["bars"]:
        end = f"{bar['margin']:+.2f} | {'yes' if bar['passed'] else 'no'}"
        lines.append(f"| {bar['ratio']:.0%} | {bar['network']} | {bar['above']} | {end} |")
    return "\n".join(lines) + "\n"


def readme(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """One row a method, one column a ratio."""
    methods = list(dict.fromkeys(row["method"] for row in rows))
    score = {(row["ratio"], row["method"]): row["psnr"] for row in rows}
    table = [[method, *[score.get((float(r), method), "") for r in MATRICES]] for method in methods]
    return {"columns": ["method (PSNR, dB)", *[f"{float(r):.0%}" for r in MATRICES]], "rows": table}


def plan(quick: bool) -> dict[str, Any]:
    """What is measured, and how; the settings of the report."""
    return {
        "images": ["rat7", "fibsem-191"] if quick else list(IMAGES),
        "ratios": ["0.04", "0.25"] if quick else list(MATRICES),
        "patches": 10_000 if quick else PATCHES,
        "side": SIDE,
        "grids": {method: [float(v) for v in grid] for method, grid in GRIDS.items()},
        "coarse": {key: list(v) for key, v in COARSE.items()},
        "fine": {key: list(v) for key, v in FINE.items()},
    }


def files() -> list[str]:
    """What of the data sets is read, but for the training images."""
    return [*MATRICES.values(), *[CROPS[name][0] for name in IMAGES]]


def current(entry: dict[str, Any], method: str) -> bool:
    """Whether a network still has the weights that an entry was measured with; other methods have none."""
    if "sha256" not in entry:
        return True
    return method in zoo.names() and entry["sha256"] == zoo.entry(method).sha256


def run(report: dict[str, Any], folder: Path, update: Callable[[], None]) -> None:
    """Measure by `report["settings"]` what `report["runs"]` lacks; `update` is called after each (ratio, image)."""
    settings, runs = report["settings"], report.setdefault("runs", {})
    images, ratios = settings["images"], settings["ratios"]
    phis = {ratio: read_matrix(folder / MATRICES[ratio], BLOCK) for ratio in ratios}
    operators = {
        ratio: BlockSampling(phi.astype(np.float32), (SIDE, SIDE), BLOCK, orthonormal=True)
        for ratio, phi in phis.items()
    }
    learned = networks(operators[ratios[0]])
    kinds = {name: zoo.entry(name).kind for name in learned}
    moments = None
    for ratio in ratios:
        A, estimate = operators[ratio], None
        for name in images:
            entry = runs.setdefault(f"{ratio}, {name}", {})
            truth = load_crop(folder, name)[:SIDE, :SIDE]
            y = A(jnp.asarray(truth))
            if "linear" not in entry:
                if estimate is None:
                    moments = training_moments(folder, settings["patches"]) if moments is None else moments
                    estimate = linear_estimate(moments, phis[ratio])
                matrix = estimate
                entry["linear"] = score(lambda y, A=A, m=matrix: apply_linear(m, y, A), y, truth)
                field = jax.jit(lambda y, A: linear_start("gaussian", FIELD, y, A))
                entry["field"] = score(lambda y, A=A, f=field: f(y, A), y, truth)
            for method in ("tv", "wavelet"):
                if method not in entry:
                    recover, more = oracle(method, truth, y, A)
                    entry[method] = score(recover, y, truth, **more)
            for method, (recon, checksum) in learned.items():
                if entry.get(method, {}).get("sha256") != checksum:
                    entry[method] = score(lambda y, A=A, recon=recon: recon(y, A), y, truth, sha256=checksum)
            summarise(report, kinds)
            update()
            print(f"{ratio}, {name}: { {m: round(e['psnr'], 2) for m, e in entry.items()} }", flush=True)
    report["complete"] = True
    update()


def retime(report: dict[str, Any], folder: Path, update: Callable[[], None]) -> None:
    """The seconds of every run anew, with the weights that were found."""
    for ratio in report["settings"]["ratios"]:
        phi = read_matrix(folder / MATRICES[ratio], BLOCK)
        A = BlockSampling(phi.astype(np.float32), (SIDE, SIDE), BLOCK, orthonormal=True)
        learned = networks(A)
        some = np.zeros((BLOCK**2, len(phi) + 1))  # a linear estimate of any numbers takes as long
        field = jax.jit(lambda y, A: linear_start("gaussian", FIELD, y, A))
        for name in report["settings"]["images"]:
            entry = report["runs"][f"{ratio}, {name}"]
            truth = load_crop(folder, name)[:SIDE, :SIDE]
            y = A(jnp.asarray(truth))
            runs: dict[str, Recover] = {
                "linear": lambda y, A=A, m=some: apply_linear(m, y, A),
                "field": lambda y, A=A, f=field: f(y, A),
                **{m: functools.partial(recon, A=A) for m, (recon, _) in learned.items() if m in entry},
            }
            for method in ("tv", "wavelet"):
                gap, steps = FINE[method]
                weight = jnp.float32(entry[method]["weight"])
                recon = emjax.load(method, weight=weight, gap=jnp.float32(gap), max_steps=jnp.int32(steps))
                runs[method] = functools.partial(recon, A=A)
            for method, recover in runs.items():
                entry[method]["seconds"] = score(recover, y, truth)["seconds"]
        print(ratio, {m: round(entry[m]["seconds"], 4) for m in runs}, flush=True)
    summarise(report, {name: zoo.entry(name).kind for name in learned})
    report["complete"] = True
    update()


def summarise(report: dict[str, Any], kinds: dict[str, str]) -> None:
    """Fill in the means, the bars, and the table of the README."""
    rows = summary(report["runs"], kinds)
    report |= {"complete": False, "readme": readme(rows), "summary": rows, "bars": bars(rows)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--data", type=Path, help="the folder that holds axondeepseg-sem, reconnet-phi, ...")
    parser.add_argument("--zoo", type=Path, help="a folder of networks besides those of the package")
    parser.add_argument("--quick", action="store_true", help="two images, two ratios, few patches")
    parser.add_argument("--times", action="store_true", help="afterwards, time everything anew")
    arguments = parser.parse_args()
    folder = find_folder(arguments.data, files())
    if folder is None:
        print("the EM data was not found; name its folder with --data or EMJAX_DATA", file=sys.stderr)
        return 2
    if arguments.zoo is not None:
        os.environ[zoo.files.VARIABLE] = str(arguments.zoo)
    settings = plan(arguments.quick)
    environment = {"jax": jax.__version__, "platform": jax.default_backend(), "cpus": os.cpu_count()}
    report = {"settings": settings, "environment": environment, "complete": False, "readme": {}, "summary": []}
    report |= {"bars": [], "runs": earlier_report(arguments.output, settings).get("runs", {})}

    def update() -> None:
        save_report(report, markdown(report), arguments.output)

    run(report, folder, update)
    if arguments.times:
        retime(report, folder, update)
    print(markdown(report))
    return 0 if all(bar["passed"] for bar in report["bars"]) else 1


if __name__ == "__main__":
    sys.exit(main())
