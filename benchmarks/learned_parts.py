"""The parts `blocks` and `prior` of learned_vs_iterative.py: reconstructors that take no scans, where they apply.

- blocks: DeepInverse and ISTA-Net+ beside linear estimates, TV and wavelets, from block-wise measurements:
  block_sampling.py, its settings, functions and figures.
- prior: a generative prior (CSGM) beside LASSO and the linear estimate, from Gaussian measurements of small patches:
  generative_prior.py, likewise.

What these two have measured by themselves is taken over from their JSON in the folder of the output, if that is of the
same settings and of networks with the same weights; the rest is measured here. The part says which and how many.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import block_sampling
import generative_prior
import numpy as np

import emjax

PARTS = ("blocks", "prior")
FILES = {"blocks": block_sampling.files, "prior": generative_prior.files}
NETWORK = "csgm-vae"
NAMES = {
    "csgm": "CSGM",
    "decoder": "CSGM, the decoder alone",
    "lasso": "DCT-LASSO, oracle's weight",
    "linear": "linear",
}


BLOCK_NETWORKS = ("deep-inverse", "ista-net-plus")


def begin(report: dict[str, Any], output: Path, quick: bool) -> None:
    """Put into the report what is known of both parts: of an earlier run, and of the two benchmarks themselves."""
    report["blocks"] = _begin_blocks(report, output, block_sampling.plan(quick))
    setting, cases = generative_prior.plan(quick)
    report["prior"] = _begin_prior(report, output, setting) | {"cases": len(cases)}


def _known(own: dict[str, Any], output: Path, name: str) -> list[tuple[str | None, dict[str, Any]]]:
    """The part of an earlier report, and what the benchmark itself wrote beside it, which goes first."""
    path = output.with_name(name)
    return [(None, own), (name, json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})]


def _begin_blocks(report: dict[str, Any], output: Path, settings: dict[str, Any]) -> dict[str, Any]:
    runs: dict[str, Any] = {}
    part: dict[str, Any] = {"settings": settings, "environment": report["environment"], "runs": runs}
    for name, other in _known(report["blocks"], output, "block_sampling.json"):
        if other.get("settings") != settings:
            continue
        count = 0
        for key, methods in other["runs"].items():
            fresh = {method: e for method, e in methods.items() if block_sampling.current(e, method)}
            runs.setdefault(key, {}).update(fresh)
            count += len(fresh)
        _note(part, name, other, count)
    networks = {method for methods in runs.values() for method, e in methods.items() if "sha256" in e}
    block_sampling.summarise(part, {method: emjax.zoo.entry(method).kind for method in sorted(networks)})
    return part


def _begin_prior(report: dict[str, Any], output: Path, setting: dict[str, Any]) -> dict[str, Any]:
    part = {**generative_prior.head(NETWORK, setting), "runs": {}, "floor": {}}
    for name, other in _known(report["prior"], output, "generative_prior.json"):
        if generative_prior.fits(other, NETWORK, setting):
            part["runs"] |= other["runs"]
            part["floor"] |= other["floor"]
            _note(part, name, other, len(other["runs"]))
    if part["runs"]:
        generative_prior.judge(part)
    return part


def _note(part: dict[str, Any], name: str | None, other: dict[str, Any], count: int) -> None:
    """On which machine an earlier run measured, and what of the part is taken over from another file."""
    if name is None:
        part["environment"] = other["environment"]
    else:
        part["taken_over"] = {"file": name, "results": count, "environment": other["environment"]}


def run_blocks(report: dict[str, Any], folder: Path, update: Callable[[], None]) -> None:
    """Measure what is missing."""
    block_sampling.run(report["blocks"], folder, update)


def run_prior(report: dict[str, Any], folder: Path, update: Callable[[], None], quick: bool) -> None:
    """Measure what is missing."""
    _, cases = generative_prior.plan(quick)
    generative_prior.run(report["prior"], cases, folder, NETWORK, update)


def complete(report: dict[str, Any]) -> dict[str, bool]:
    """Whether each part has all its results."""
    blocks, prior = report["blocks"], report["prior"]
    rows = blocks.get("summary", [])
    images, ratios = (len(blocks["settings"][key]) for key in ("images", "ratios")) if rows else (0, 0)
    whole = all(row["images"] == images for row in rows)
    for method in (*block_sampling.CLASSICAL, *BLOCK_NETWORKS):
        whole &= len({row["ratio"] for row in rows if row["method"] == method}) == ratios
    return {"blocks": bool(rows) and whole, "prior": 0 < prior.get("cases", 0) == len(prior.get("runs", ()))}


def blocks(part: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row a ratio and method; the least margin of each network over what it has to be above."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for bar in part.get("bars", []):
        groups.setdefault((bar["network"], bar["above"]), []).append(bar)
    bars = []
    for (network, rival), group in groups.items():
        worst = min(group, key=lambda bar: bar["margin"])
        text = f"{network} over {rival}, block-wise sampling: least mean of a ratio ({worst['ratio']:.0%}), dB"
        found = {"figure": text, "value": worst["margin"], "rule": "at least", "bar": 0.0}
        bars.append({**found, "passed": all(bar["passed"] for bar in group)})
    return part.get("summary", []), bars


def prior(part: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row a number of measurements and method, PSNR of the mean squared error; and how many LASSO needs."""
    rows = []
    for line in part.get("table", []):
        count = line["measurements"]
        runs = [run for key, run in part["runs"].items() if int(key.split()[0]) == count]
        for method in generative_prior.METHODS:
            row = {"measurements": count, "ratio": count / generative_prior.SIDE**2, "method": method}
            row |= {"mse": line[method], "psnr": -10 * float(np.log10(line[method])), "draws": len(runs)}
            times = [run.get("seconds", {"csgm": run.get("csgm_seconds")}).get(method) for run in runs]
            known = [t / part["setting"]["patches"] for t in times if t is not None]
            rows.append({**row, "seconds": float(np.median(known)) if known else None})
    judged = [line for line in part.get("table", []) if line["judged"] and line["factor"] is not None]
    if not judged:
        return rows, []
    worst = min(judged, key=lambda line: line["factor"])
    text = f"CSGM: times as many measurements that DCT-LASSO needs, where judged, least (at {worst['measurements']})"
    limit = generative_prior.FACTOR_BAR
    bar = {"figure": text, "value": worst["factor"], "rule": "at least", "bar": limit, "passed": part["passed"]}
    return rows, [bar]


def origin(part: dict[str, Any], total: int) -> str:
    """Where the `total` results of a part come from."""
    taken = part.get("taken_over")
    if taken is None:
        return f"{_machine(part)}."
    rest = "" if taken["results"] == total else f", the others: {_machine(part)}"
    return f"{taken['results']} of {total} results are those of {taken['file']} ({_machine(taken)}){rest}."


def _machine(part: dict[str, Any]) -> str:
    machine = part["environment"]
    return f"JAX {machine['jax']}, {machine['platform']}, {machine['cpus']} CPUs"


def tables(report: dict[str, Any]) -> list[str]:
    """Both parts for people."""
    lines = []
    rows = report["summary"]["blocks"]
    if rows:
        side, size = block_sampling.SIDE, block_sampling.BLOCK
        lines += [f"## Block-wise sampling: crops of {side}^2, blocks of {size} x {size}, no noise", ""]
        lines += [origin(report["blocks"], sum(map(len, report["blocks"]["runs"].values()))), ""]
        lines += ["| ratio | method | images | PSNR | worst image | SSIM | s an image |", "|---" * 7 + "|"]
        for row in rows:
            numbers = f"{row['psnr']:.2f} | {row['worst_psnr']:.2f} | {row['ssim']:.3f} | {row['seconds']:.3f}"
            lines.append(f"| {row['ratio']:.0%} | {row['method']} | {row['images']} | {numbers} |")
        lines.append("")
    rows = report["summary"]["prior"]
    if rows:
        part = report["prior"]
        side, count = generative_prior.SIDE, part["setting"]["patches"]
        lines += [f"## Gaussian measurements of patches of {side} x {side}: a generative prior", ""]
        lines += [f"{count} patches a draw, all in one call. {origin(part, len(part['runs']))}", ""]
        lines += ["| measurements | ratio | method | draws | PSNR of the mean error | s a patch |", "|---" * 6 + "|"]
        for row in rows:
            seconds = "" if row["seconds"] is None else f"{row['seconds']:.4f}"
            cells = [f"{row['measurements']}", f"{row['ratio']:.1%}", NAMES[row["method"]], f"{row['draws']}"]
            cells += [f"{row['psnr']:.2f}", seconds]
            lines.append(f"| {' | '.join(cells)} |")
        lines.append("")
    return lines
