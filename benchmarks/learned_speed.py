"""The part `speed` of learned_vs_iterative.py: seconds, compilation and memory, side by side in one process.

Crops of rat7, random pixels, 25 % with noise 0.05 and 10 % without. Methods take turns (A B C, A B C, ...), so that
whatever else the machine does meets all of them; the median of the rounds counts. Before that each runs once, which
compiles it: compilation is that call less the median. "Certified" TV runs to a relative duality gap of 1e-4; with the
weight given, which is the one that the automatic rule finds, or with that rule in the time. A batch holds other draws
of the same crop. Memory: the peak of a process that recovers one image by one method, and what that is above the same
process before it did (compilation is in it).
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from sparse_scans import TIMED, load_crop, scan

import emjax
from emjax import LeastSquares, solve
from emjax.acquisition import Noise
from emjax.metrics import psnr
from emjax.operators import PixelSampling

CERTIFIED, MAX_STEPS = 1e-4, 10000
METHODS = (
    "scan-compact",
    "scan-full",
    "spectral, automatic",
    "spectral, given",
    "tv certified, given",
    "tv certified, automatic",
    "tv, automatic",
    "wavelet, automatic",
    "linear",
)
BATCHED = METHODS[:6]
COMPARED = {"spectral, automatic": 5.0, "tv certified, given": 20.0, "tv certified, automatic": 20.0}  # times as fast
Recovery = Callable[[jax.Array, PixelSampling], jax.Array]


def plan(quick: bool) -> dict[str, Any]:
    """Sides, scans (ratio, noise), items of the batch, rounds."""
    if quick:
        return {"sizes": [128], "scans": [[0.25, 0.05]], "batch": 2, "repeats": 2}
    return {"sizes": [256, 512], "scans": [[0.25, 0.05], [0.10, 0.0]], "batch": 8, "repeats": 5}


def scans(truth: np.ndarray, ratio: float, noise: float, batch: int | None) -> tuple[jax.Array, PixelSampling]:
    """One scan, or a batch of draws 0, 1, ..."""
    if batch is None:
        return scan(truth, ratio, noise, 0)
    ys, operators = zip(*(scan(truth, ratio, noise, seed) for seed in range(batch)), strict=True)
    return jnp.stack(ys), PixelSampling(jnp.stack([A.mask for A in operators]))


def recovery(method: str, y: jax.Array, A: PixelSampling, noise: float) -> Recovery:
    """What is timed. Weights that are given are found here, before."""
    name, _, mode = method.partition(", ")
    settings: dict[str, Any] = {}
    if name == "tv certified":
        name, settings = "tv", {"gap": CERTIFIED, "max_steps": MAX_STEPS}
    recon = emjax.load(name, **settings)
    if mode == "given":
        recon = recon.fit(y, A)
    if name.startswith("scan-"):
        return lambda y, A: recon(y, A, Noise(0.0, noise))
    return lambda y, A: recon(y, A)


def seconds(run: Recovery, y: jax.Array, A: PixelSampling) -> tuple[float, jax.Array]:
    begin = time.perf_counter()
    x = jax.block_until_ready(run(y, A))
    return time.perf_counter() - begin, x


def side_by_side(truth: np.ndarray, ratio: float, noise: float, batch: int | None, repeats: int) -> dict[str, Any]:
    """All methods on one scan or batch, taking turns."""
    y, A = scans(truth, ratio, noise, batch)
    methods = METHODS if batch is None else BATCHED
    runs = {method: recovery(method, y, A, noise) for method in methods}
    first: dict[str, float] = {}
    found: dict[str, dict[str, Any]] = {}
    for method, run in runs.items():
        first[method], x = seconds(run, y, A)
        quality = float(jnp.mean(psnr(x, jnp.broadcast_to(jnp.asarray(truth), x.shape))))
        found[method] = {"psnr": quality, "rounds": []}
    for _ in range(repeats):
        for method, run in runs.items():
            found[method]["rounds"].append(seconds(run, y, A)[0])
    for method, entry in found.items():
        entry["seconds"] = float(np.median(entry["rounds"]))
        entry["spread"] = [min(entry["rounds"]), max(entry["rounds"])]
        # Programs are shared with earlier scans of the same size: only the first of them compiles.
        entry["compilation"] = max(0.0, first[method] - entry["seconds"])
        entry["seconds_an_image"] = entry["seconds"] / (batch or 1)
    if batch is None:
        found["tv certified, given"] |= certificate(y, A)
    return found


def certificate(y: jax.Array, A: PixelSampling) -> dict[str, float]:
    """Steps and gap of the certified solve."""
    recon = emjax.load("tv").fit(y, A)
    solution = solve(recon.problem(LeastSquares(A, y), recon.weight), gap=CERTIFIED, max_steps=MAX_STEPS)
    return {"steps": int(solution.steps), "gap": float(solution.gap)}


def peak() -> float:
    """MiB that this process has held at most."""
    status = Path("/proc/self/status")
    if status.is_file():  # `ru_maxrss` begins with what the process held that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def measure_memory(method: str, folder: Path, size: int, ratio: float, noise: float) -> dict[str, float]:
    """The peak of a process of its own."""
    command = [sys.executable, __file__, method, str(folder), str(size), str(ratio), str(noise)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def key(size: int, ratio: float, noise: float, batch: int | None) -> str:
    return f"{size}, ratio {ratio:.2f}, noise {noise:.2f}, {'single' if batch is None else f'batch {batch}'}"


def run(report: dict[str, Any], folder: Path, update: Callable[[], None]) -> None:
    """Fill in `report["speed"]`, case by case."""
    settings, speed = report["settings"]["speed"], report["speed"]
    times, memory = speed.setdefault("times", {}), speed.setdefault("memory", {})
    whole = load_crop(folder, TIMED)
    cases = [(size, *pair, None) for size in settings["sizes"] for pair in settings["scans"]]
    cases += [(size, *settings["scans"][0], settings["batch"]) for size in settings["sizes"]]
    for size, ratio, noise, batch in cases:
        name = key(size, ratio, noise, batch)
        if name not in times:
            repeats = settings["repeats"] if batch is None else min(3, settings["repeats"])
            truth = np.ascontiguousarray(whole[:size, :size])
            # Of others, too: it tells what the seconds are worth.
            speed.setdefault("load", round(os.getloadavg()[0], 1))
            times[name] = side_by_side(truth, ratio, noise, batch, repeats)
            print(name, {m: round(e["seconds"], 4) for m, e in times[name].items()}, flush=True)
            update()
    size, (ratio, noise) = settings["sizes"][-1], settings["scans"][0]
    for method in METHODS:
        if method not in memory:
            memory[method] = measure_memory(method, folder, size, ratio, noise)
            print(method, memory[method], flush=True)
            update()
    speed["complete"] = True


def summary(times: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """How many times faster scan-compact is than each method of `COMPARED`; and the bars, by the worst of the cases."""
    rows = []
    for name, methods in times.items():
        row: dict[str, Any] = {"case": name}
        for method, bar in COMPARED.items():
            other, mine = methods[method], methods["scan-compact"]
            row[method] = other["seconds"] / mine["seconds"]
            row[f"{method}: gain"] = mine["psnr"] - other["psnr"]
            row[f"{method}: passed"] = row[method] >= bar and mine["psnr"] >= other["psnr"]
        rows.append(row)
    bars = []
    for method, bar in COMPARED.items() if rows else ():
        single = [row for row in rows if row["case"].endswith("single")]
        worst = min(single, key=lambda row: row[method])
        passed = all(row[f"{method}: passed"] for row in single)
        text = f"scan-compact over {method}: times as fast, least of the single images ({worst['case']}), and better"
        bars.append({"figure": text, "value": worst[method], "rule": "at least", "bar": bar, "passed": passed})
    return rows, bars


def main() -> None:
    """One recovery in a process of its own, for its memory."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("method", choices=METHODS)
    parser.add_argument("data", type=Path)
    parser.add_argument("size", type=int)
    parser.add_argument("ratio", type=float)
    parser.add_argument("noise", type=float)
    a = parser.parse_args()
    truth = np.ascontiguousarray(load_crop(a.data, TIMED)[: a.size, : a.size])
    y, A = scans(truth, a.ratio, a.noise, None)
    before = peak()
    # Given weights come from elsewhere: to find them here would count, too.
    name, _, mode = a.method.partition(", ")
    if mode == "given":
        certified = {"gap": CERTIFIED, "max_steps": MAX_STEPS} if name == "tv certified" else {"exponent": 3.0}
        recon = emjax.load(name.split()[0], weight=0.02 if name == "tv certified" else 1.0, **certified)
        jax.block_until_ready(recon(y, A))
    else:
        jax.block_until_ready(recovery(a.method, y, A, a.noise)(y, A))
    print(json.dumps({"peak": peak(), "above": peak() - before}))


if __name__ == "__main__":
    main()
