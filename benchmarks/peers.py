"""How long do emjax and the packages that one would otherwise take need, to the same optimum of the same problem?

W1: isotropic TV inpainting of 25 % random pixels, noise 0.02, lam 0.02. W2: wavelet-l1 (db4, periodic, all bands) from
25 % of the DCT or Fourier coefficients, low ones more often, noise 0.01, lam 0.01. W3: 64 blocks of 64 x 64 from a
Gaussian matrix at 10 and 25 %, noise 0.01, DCT-l1, lam 0.02. W4: ROF denoising of noise 0.1, lam 0.1, isotropic and
anisotropic. The images are phantoms of tissue; batches are 32 of them, and their gap is that of the worst.

A gap is `(P(x) - P*) / P*`, evaluated in float64 outside of the timing by one evaluator for all; `P*` is agreed on by
two methods in float64 (emjax's certified solve, and an ADMM in NumPy that shares no code with it; the report tells for
how many items of a batch). Each package runs in float32 where it can, in its own environment, as a subprocess, in turn
with the others, two to five rounds: A B C A B C. Round 0 searches the iteration counts at which a package reaches a gap
of 1e-3, of 1e-4, and 0.1 dB of the optimum's PSNR for good; each round times them, from scratch. A batch, and an image
of 2048^2, begins at the counts that one of 512^2 (256^2) took. emjax, the first in turn, is timed twice: to the same
true gap as the others ("by the same measure"; it evaluates its certificates on the way, and more of them than a user's
run would), and to a certified gap, which no other package gives and which comes later, for its dual settles after its
primal. A package that would take longer than three times the bar of emjax's certified time is given up, and the time
that it had is a lower bound of what it takes. `plain` is what one would write by hand in JAX, compiled, without
certificates: the floor. Compile time is apart, and so is what is prepared once an instance: of W3 the product of the
matrix and the transform, which all take (emjax makes its own, within its time).

    python benchmarks/peers.py -o benchmarks/results/peers.json [--only W1,W4] [--short] [--quick] [--peers emjax,sigpy]
    python benchmarks/peers.py -o benchmarks/results/peers.json --again --only W1
    python benchmarks/peers.py -o benchmarks/results/peers.json --floors
    python benchmarks/peers.py -o benchmarks/results/peers_gpu.json --platform gpu

--environments and --work name folders for the packages and for instances with their optima (default: a cache of the
user's); --prepare makes both and times nothing; --again times anew all packages that reached a target, at the iteration
counts that were found for them, which only emjax and `plain` search again (a run of it that was stopped goes on without
--again); --floors measures anew what the memory and the products of this machine allow an iteration of emjax, and keeps
the times of the report. MiB is by how much a package's peak rises above that of loading. The JSON is written after each
run of a package and a stopped run goes on from there; a Markdown table is written beside it. Exits with 1 if a bar is
missed by the certified times.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pywt
from peers_environments import REQUIREMENTS, environment
from sparse_scans import earlier_report, save_report

from emjax.acquisition import phantom

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "peers"))
import instances  # noqa: E402
from instances import Instance, cut, transform  # noqa: E402

OURS = ("emjax", "plain")
ON_GPU = (*OURS, "scico", "deepinv")  # the others know none, or need CuPy beside code of their own
KINDS = {  # what each package can solve as well as it is meant to
    "emjax": ("inpainting", "rof", "wavelet", "blocks"),
    "plain": ("inpainting", "rof", "wavelet", "blocks"),
    "sigpy": ("inpainting", "rof", "wavelet", "blocks"),
    "scico": ("inpainting", "rof", "wavelet", "blocks"),
    "deepinv": ("inpainting", "rof", "wavelet", "blocks"),
    "pyproximal": ("inpainting", "rof", "wavelet", "blocks"),
    "spgl1": ("wavelet", "blocks"),
    "scikit_image": ("rof",),
    "scikit_learn": ("blocks",),
    "proxtv": ("rof",),
}
TARGETS = ("1e-3", "1e-4", "0.1 dB")
ROUNDS, LONG_ROUNDS = 5, 2  # of batches, which are their own average, and of images of 2048^2
# Seconds of one solve after which a package is given up: so many times the bar of emjax's, and no less than these.
PATIENCE, LIMIT = 3.0, 5.0
REFERENCE_GAP, BATCH_GAP, AGREEMENT = 1e-7, 1e-6, 1e-5  # certified of the optima; between the two methods

# The smallest ratio of the best peer's time to a gap of 1e-4 over emjax's, an item.
BARS = {"W1": 8.0, "W2": 3.0, "W3": 1.0, "W4 isotropic": 10.0, "W4 anisotropic": 3.0}


def cases(quick: bool) -> dict[str, dict[str, Any]]:
    """Name: what makes the instance. The first word chooses with --only, the part before the comma the bar."""
    found: dict[str, dict[str, Any]] = {}
    many = 2 if quick else 32
    for count in (1, many):
        batch = "" if count == 1 else f", batch of {count}"
        for side in (64,) if quick else (256, 512):
            found[f"W1, {side}{batch}"] = {"kind": "inpainting", "side": side, "count": count}
        for name in ("DCT", "Fourier"):
            side = 64 if quick else 256
            found[f"W2, {name} {side}{batch}"] = {"kind": "wavelet", "side": side, "count": count, "transform": name}
    for percent in (10, 25):
        side, block = (64, 16) if quick else (512, 64)
        found[f"W3, {percent} %"] = {"kind": "blocks", "side": side, "count": 1, "block": block, "percent": percent}
    for kind in ("isotropic", "anisotropic"):
        for side, count in ((64, 1), (64, many)) if quick else ((512, 1), (512, many), (2048, 1)):
            batch = "" if count == 1 else f", batch of {count}"
            found[f"W4 {kind}, {side}{batch}"] = {"kind": "rof", "side": side, "count": count, "tv": kind}
    return found


def make(case: dict[str, Any]) -> Instance:
    """The instance of a case, in float32, from seeds."""
    side, kind = case["side"], case["kind"]
    truth = np.stack([phantom((side, side), seed=seed).image for seed in range(case["count"])]).astype(np.float32)
    rng = np.random.default_rng(0)
    if kind == "rof":
        y = truth + 0.1 * rng.standard_normal(truth.shape)
        return Instance(kind, 0.1, y.astype(np.float32), truth, isotropic=case["tv"] == "isotropic")
    if kind == "inpainting":
        mask = rng.random((side, side)) < 0.25
        y = mask * (truth + 0.02 * rng.standard_normal(truth.shape))
        return Instance(kind, 0.02, y.astype(np.float32), truth, mask.astype(np.float32))
    if kind == "blocks":
        n = case["block"] ** 2
        m = round(n * case["percent"] / 100)
        matrix = (rng.standard_normal((m, n)) / np.sqrt(m)).astype(np.float32)
        b = cut(truth[0], case["block"])
        y = b.reshape(len(b), -1) @ matrix.T + 0.01 * rng.standard_normal((len(b), m))
        return Instance(kind, 0.02, y[None].astype(np.float32), truth, matrix=matrix)
    fourier = case["transform"] == "Fourier"
    mask = low_pass_sampling(rng, side, fourier)
    levels = pywt.dwt_max_level(side, 8)
    y = transform(truth, fourier)
    noise = rng.standard_normal(y.shape)
    if fourier:  # of a real image
        noise = transform(noise, True)
    y = (mask * (y + 0.01 * noise)).astype(np.complex64 if fourier else np.float32)
    scaling = np.asarray(pywt.Wavelet("db4").rec_lo)
    return Instance(kind, 0.01, y, truth, mask, scaling=scaling, levels=levels, fourier=fourier)


def low_pass_sampling(rng: np.random.Generator, side: int, fourier: bool) -> np.ndarray:
    """A quarter of the coefficients, those near zero and the others with falling probability; symmetric for Fourier.

    Every frequency of the coarse band is there: its coefficients have one sign, so that their l1 norm sees only their
    mean, and what is not measured of them would not be determined.
    """
    frequency = np.abs(np.fft.fftfreq(side)) * 2 if fourier else np.arange(side) / side
    radius = np.hypot(frequency[:, None], frequency[None])
    score = np.where(radius < 0.2, 2, rng.random((side, side)) ** ((0.05 + radius) ** 2))
    if fourier:
        score = np.maximum(score, np.roll(score[::-1, ::-1], (1, 1), (0, 1)))
    return (score >= np.quantile(score, 0.75)).astype(np.float32)


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower().replace("%", "percent").replace(", ", "_"))


def instance_file(work: Path, name: str, case: dict[str, Any]) -> tuple[Path, dict[str, Any]]:
    """The instance with its optimum, from the cache or made now, and how well the two methods agree."""
    path = work / f"{slug(name)}.npz"
    note = path.with_suffix(".json")
    kept = json.loads(note.read_text()) if path.is_file() and note.is_file() else {}
    if kept.get("case") != case:
        kept = {}
    if kept.get("agreed_items") == case["count"]:
        return path, kept
    work.mkdir(parents=True, exist_ok=True)
    print(f"{name}: reference optimum", flush=True)
    gap = REFERENCE_GAP if case["count"] == 1 else BATCH_GAP
    if not kept:
        note.unlink(missing_ok=True)
        instances.save(make(case), path)
    code = [sys.executable, str(HERE / "peers" / "reference.py"), str(path), "--agree" if kept else str(gap)]
    result = subprocess.run(code, capture_output=True, text=True, env=surroundings("emjax"))
    if result.returncode:
        raise SystemExit(f"the reference optimum of {name} failed:\n{result.stderr}")
    kept = {"case": case, **kept, **json.loads(result.stdout.splitlines()[-1])}
    if abs(kept["disagreement"]) > AGREEMENT:
        raise SystemExit(f"two methods disagree about the optimum of {name} by {kept['disagreement']:.1e}")
    note.write_text(json.dumps(kept) + "\n")
    return path, kept


def surroundings(peer: str, platform: str = "cpu") -> dict[str, str]:
    """The variables of a package's process: where it computes, and no packages but its own."""
    kept = {k: v for k, v in os.environ.items() if peer in OURS or k != "PYTHONPATH"}
    path = {"PYTHONPATH": os.pathsep.join([str(HERE.parent), kept.get("PYTHONPATH", "")])} if peer in OURS else {}
    jax = {"cpu": "cpu", "gpu": "cuda"}[platform]
    return {**kept, **path, "JAX_PLATFORMS": jax, "PEERS_PLATFORM": platform, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def run(peer: str, interpreter: str, path: Path, output: Path, more: list[str], platform: str) -> dict[str, Any]:
    """One process of one package; what went wrong is the result, too."""
    script = HERE / "peers" / f"with_{peer}.py"
    output.unlink(missing_ok=True)
    code = [interpreter, str(script), str(path), str(output), *more]
    result = subprocess.run(code, capture_output=True, text=True, env=surroundings(peer, platform))
    if result.returncode or not output.is_file():
        lines = result.stderr.strip().splitlines() or [f"ended with {result.returncode}"]
        return {"error": lines[-1][:300]}
    found: dict[str, Any] = json.loads(output.read_text())
    output.unlink()
    return found


def is_long(case: dict[str, Any]) -> bool:
    return case["count"] > 1 or case["side"] > 512


def rounds(todo: dict[str, dict[str, Any]], names: list[str], peers: list[str]) -> Iterator[tuple[str, int, str]]:
    """Each case by itself, its packages in turn."""
    for name in names:
        for number in range(LONG_ROUNDS if is_long(todo[name]) else ROUNDS):
            for peer in peers:
                yield name, number, peer


def forget(report: dict[str, Any], names: list[str], peers: list[str]) -> None:
    """Drop the times of these packages, and keep what they searched for; who reached nothing keeps its bound."""
    for name in names:
        runs, found = report["runs"].get(name, {}), report["searched"].setdefault(name, {})
        for peer in (p for p in peers if runs.get(p)):
            first = runs[peer][0]
            if peer in OURS or "error" in first:
                del runs[peer]
            elif any(first["counts"].values()):
                found[peer] = {key: first[key] for key in ("counts", "given_up", "limit")}
                del runs[peer]


def options(report: dict[str, Any], name: str, peer: str, number: int, count: int) -> list[str] | None:
    """What a package is asked for in this round; None where it has nothing to do."""
    runs, known = report["runs"], report["searched"].get(name, {}).get(peer)
    done = runs[name].get(peer, [])
    if number or known:
        found = done[0] if number else known
        if "error" in found:
            return None
        counts = sorted({n for n in found["counts"].values() if n is not None})
        return ["--counts", ",".join(map(str, counts))] if counts else None
    ours = [min(e["seconds"] for e in d["certified"] if e["target"] == "1e-4") for d in runs[name].get("emjax", [])[:1]]
    limit = max(LIMIT, *(PATIENCE * BARS[name.split(",")[0]] * t for t in ours)) if ours else LIMIT * count
    more = ["--limit", str(limit)]
    short = name.split(", batch")[0].replace("2048", "512")
    single = (runs.get(short, {}).get(peer) or [{}])[0].get("counts", {}) if short != name else {}
    known = sorted({n for n in single.values() if n is not None})
    return [*more, "--start", ",".join(map(str, known)), "--coarse"] if known else more


def summarise(done: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """Medians over the rounds, seconds an item."""
    first = done[0]
    if "error" in first:
        return {"error": first["error"]}
    if not first["rows"]:
        return {"error": f"an iteration takes more than {first['limit'] / count:.3g} s"}
    row: dict[str, Any] = {"memory_mib": max(d["memory_mib"] for d in done if "memory_mib" in d), "seconds": {}}
    good = [d for d in done if "rows" in d]
    times: dict[int, list[float]] = {}
    for d in good:
        for r in d["rows"]:
            times.setdefault(r["iterations"], []).append(r["seconds"])
    median = {n: statistics.median(t) for n, t in times.items()}
    row["iterations"] = first["counts"]
    for target in TARGETS:
        n = first["counts"][target]
        row["seconds"][target] = None if n is None else median[n] / count
    row["best_gap"] = min(r["gap"] for r in first["rows"])
    row["given_up_seconds"] = first["given_up"] and first["given_up"] / count
    low, high = min(median), max(median)
    slope = (median[high] - median[low]) / (high - low) / count if high > low else 0.0
    row["iteration_seconds"] = slope if slope > 0 else None  # a few iterations drown in the noise of the clock
    compiled = [r["first_seconds"] - r["seconds"] for r in first["rows"] if "first_seconds" in r]
    row["compile_seconds"] = max(compiled, default=None)
    if first["certified"]:
        row["same_measure"] = {"seconds": dict(row["seconds"]), "iterations": dict(row["iterations"])}
        for i, target in enumerate(TARGETS[:2]):
            entries = [d["certified"][i] for d in good]
            row["seconds"][target] = statistics.median(e["seconds"] for e in entries) / count
            row["iterations"] = {**row["iterations"], target: entries[0]["steps"]}
            row.setdefault("true_gap", {})[target] = max(e["gap"] for e in entries)
            row.setdefault("certified_gap", {})[target] = max(e["certified_gap"] for e in entries)
            row["solver"] = entries[0]["solver"]
        row["compile_seconds"] = first["certified"][0]["first_seconds"] - first["certified"][0]["seconds"]
    floors = [d["floor"] for d in good if d["floor"]]
    if floors:
        row["floor"] = min(floors, key=lambda f: f["seconds"])
        row["over_floor"] = row["iteration_seconds"] and row["iteration_seconds"] / row["floor"]["seconds"]
    return row


def verdict(name: str, table: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """emjax's time to 1e-4 against the best peer's, and whether the certificate was honest."""
    mine = table.get("emjax", {}).get("seconds", {}).get("1e-4")
    others = {p: row for p, row in table.items() if p not in OURS and "seconds" in row}
    times = {p: t for p, row in others.items() if (t := row["seconds"]["1e-4"]) is not None}
    # Who was given up is known to take longer than this.
    least = {p: t for p, row in others.items() if p not in times and (t := row["given_up_seconds"]) is not None}
    if mine is None or not (times or least):
        return None
    known = times or least
    best = min(known, key=lambda p: known[p])
    bar = BARS[name.split(",")[0]]
    ratio = known[best] / mine
    same = table["emjax"]["same_measure"]["seconds"]["1e-4"]
    honest = table["emjax"]["true_gap"]["1e-4"] <= 1e-4
    return {
        "best_peer": best,
        "ratio": ratio,
        "lower_bound": not times,
        "bar": bar,
        "true_gap_kept": honest,
        "passed": ratio >= bar and honest,
        "same_measure": None if same is None else known[best] / same,
        "passed_by_the_same_measure": same is not None and known[best] / same >= bar,
    }


def number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def markdown(report: dict[str, Any]) -> str:
    lines = ["# emjax and its peers", "", *(__doc__ or "").split("\n\n")[1:3], ""]
    lines += [f"{report['environment']['cpus']} CPUs; seconds are medians, an item.", ""]
    for peer, found in report["peers"].items():
        lines.append(f"- {peer}: {found['reason'] if 'reason' in found else found['version']}")
    for name, table in report["summary"].items():
        note = report["references"][name]
        agreed, count = note.get("agreed_items", 1), note["case"]["count"]
        whose = "" if count == 1 else f" of {agreed} of {count} items"
        lines += [
            "",
            f"## {name}",
            "",
            f"Two methods agree about the optimum{whose} to {abs(note['disagreement']):.1e}.",
        ]
        lines += [""]
        heads = [
            "package",
            *(f"s to {t}" for t in TARGETS),
            "iterations to 1e-4",
            "ms an iteration",
            "compile s",
            "MiB",
        ]
        lines += [f"| {' | '.join(heads)} |"]
        lines += ["|---|---:|---:|---:|---:|---:|---:|---:|"]
        for peer, row in table.items():
            if "error" in row:
                lines.append(f"| {peer} | failed: {row['error']} | | | | | | |")
                continue
            missed = "not reached" if row["given_up_seconds"] is None else f"over {row['given_up_seconds']:.3g}"
            cells = [number(row["seconds"][t]) or missed for t in TARGETS]
            each = row["iteration_seconds"]
            cells += [number(row["iterations"]["1e-4"], 6), number(each and 1e3 * each), number(row["compile_seconds"])]
            lines.append(f"| {peer} | {' | '.join(cells)} | {row['memory_mib']:.0f} |")
        if (v := report["verdicts"].get(name)) is not None:
            least = "over " if v["lower_bound"] else ""
            words = f"{v['best_peer']} takes {least}{v['ratio']:.2f} times as long (bar {v['bar']:g})"
            lines += ["", f"To a certified 1e-4, {words}: {'kept' if v['passed'] else 'missed'}."]
            if v["same_measure"] is not None:
                ours = table["emjax"]["same_measure"]
                kept = "kept" if v["passed_by_the_same_measure"] else "missed"
                words = f"{number(ours['seconds']['1e-4'])} s ({ours['iterations']['1e-4']} iterations)"
                lines[-1] += f" By the same measure, a true gap of 1e-4, emjax takes {words}: {least}"
                lines[-1] += f"{v['same_measure']:.2f} times, {kept}."
        if (ours := table.get("emjax", {})).get("floor"):
            kind = "bytes" if "bytes" in ours["floor"] else "operations"
            rate = ours["floor"][f"{kind}_a_second"] / 1e9
            text = f"{ours['floor'][kind] / 1e6:.3g} M {kind} an iteration at {rate:.3g} G a second"
            lines.append(f"emjax's floor: {text}, {1e3 * ours['floor']['seconds']:.3g} ms.")
            if ours["over_floor"]:
                lines[-1] += f" It takes {ours['over_floor']:.2f} times that, with {ours['solver']}."
    return "\n".join(lines) + "\n"


def readme(report: dict[str, Any]) -> dict[str, Any]:
    rows = []
    for name, v in report["verdicts"].items():
        table = report["summary"][name]
        mine = table["emjax"]["seconds"]["1e-4"]
        same = table["emjax"]["same_measure"]["seconds"]["1e-4"]
        ours = [None if same is None else 1e3 * same, v["same_measure"], 1e3 * mine, v["ratio"]]
        rows.append([name, v["best_peer"], 1e3 * mine * v["ratio"], *ours, v["bar"]])
    columns = ["problem", "best peer", "its ms", "emjax (ms)", "times faster", "certified (ms)", "times faster", "bar"]
    return {"columns": columns, "rows": rows}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path.home() / ".cache" / "emjax" / "peers"
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--only", help="W1,W2,W3,W4: these problems")
    parser.add_argument("--short", action="store_true", help="neither batches nor images of 2048^2")
    parser.add_argument("--peers", help="emjax,plain,sigpy,...: these packages")
    parser.add_argument("--quick", action="store_true", help="tiny images, batches of two: does everything run?")
    parser.add_argument("--environments", type=Path, default=cache / "environments")
    parser.add_argument("--work", type=Path, default=cache / "instances")
    parser.add_argument("--platform", choices=("cpu", "gpu"), default="cpu", help="where the packages compute")
    parser.add_argument("--prepare", action="store_true", help="only make environments and reference optima")
    parser.add_argument("--again", action="store_true", help="forget the times, not the counts of iterations")
    parser.add_argument("--floors", action="store_true", help="only measure the floors of a report again")
    arguments = parser.parse_args()
    work = arguments.work / "quick" if arguments.quick else arguments.work
    todo = cases(arguments.quick)
    settings = {"cases": todo, "patience": PATIENCE, "limit": LIMIT, "bars": BARS}
    settings |= {"quick": arguments.quick, "platform": arguments.platform}
    report = earlier_report(arguments.output, settings)
    report = {"peers": {}, "references": {}, "runs": {}, "searched": {}, **report, "settings": settings}
    report["environment"] = {"cpus": os.cpu_count(), "python": sys.version.split()[0]}

    def update() -> None:
        report["summary"] = {
            name: {peer: summarise(done, todo[name]["count"]) for peer, done in table.items() if done}
            for name, table in report["runs"].items()
        }
        found = {name: verdict(name, table) for name, table in report["summary"].items()}
        report["verdicts"] = {name: v for name, v in found.items() if v is not None}
        report["readme"] = readme(report)
        save_report(report, markdown(report), arguments.output)

    gpu = arguments.platform == "gpu"
    wanted = arguments.peers.split(",") if arguments.peers else list(KINDS)
    wanted = [peer for peer in wanted if not gpu or peer in ON_GPU]
    interpreters = {peer: sys.executable for peer in OURS if peer in wanted}
    for peer in (p for p in REQUIREMENTS if p in wanted):
        found = environment(arguments.environments, peer, gpu)
        if "python" in found:
            interpreters[peer] = found["python"]
            name = {"proxtv": "prox-tv"}.get(peer, peer.replace("_", "-"))
            found = {"version": found["versions"].get(name) or found["versions"].get(name.replace("-", "_"))}
        report["peers"][peer] = found
    names = [name for name in todo if not arguments.only or name.split(",")[0].split()[0] in arguments.only.split(",")]
    names = [name for name in names if not (arguments.short and is_long(todo[name]))]
    if arguments.prepare:
        for name in names:
            instance_file(work, name, todo[name])
        return 0
    names.sort(key=lambda name: is_long(todo[name]))
    if arguments.floors:
        for name in (name for name in names if report["runs"].get(name, {}).get("emjax")):
            path, _ = instance_file(work, name, todo[name])
            found = run(
                "emjax", sys.executable, path, work / f"{slug(name)}_floor.json", ["--floor"], arguments.platform
            )
            if "error" in found:
                raise SystemExit(f"the floor of {name} failed: {found['error']}")
            for done in report["runs"][name]["emjax"]:
                done["floor"] = found
            update()
            print(f"{name}: {1e3 * found['seconds']:.3g} ms", flush=True)
        return 0
    if arguments.again:
        forget(report, names, list(interpreters))
    paths = {}
    for name in names:
        paths[name], report["references"][name] = instance_file(work, name, todo[name])
    for name, turn, peer in rounds(todo, names, [p for p in KINDS if p in interpreters]):
        case = todo[name]
        if case["kind"] not in KINDS[peer] or (peer == "scikit_image" and case["tv"] != "isotropic"):
            continue
        if peer == "proxtv" and case["tv"] == "isotropic":
            continue
        done = report["runs"].setdefault(name, {}).setdefault(peer, [])
        if len(done) > turn:
            continue
        more = options(report, name, peer, turn, case["count"])
        if more is None:
            continue
        result = run(
            peer, interpreters[peer], paths[name], work / f"{slug(name)}_{peer}.json", more, arguments.platform
        )
        known = {} if turn or "error" in result else report["searched"].get(name, {}).get(peer, {})
        done.append(result | known)
        update()
        print(f"{name}, round {turn}, {peer}: {result.get('error') or result['counts']}", flush=True)
    update()
    print(markdown(report))
    return int(not all(v["passed"] for v in report["verdicts"].values()))


if __name__ == "__main__":
    sys.exit(main())
