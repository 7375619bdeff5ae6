"""How long do emjax and the packages that one would otherwise take need, to the same optimum of the same problem?

W1: isotropic TV inpainting of 25 % random pixels, noise 0.02, lam 0.02. W2: wavelet-l1 (db4, periodic, all bands) from
25 % of the DCT or Fourier coefficients, low ones more often, noise 0.01, lam 0.01. W3: 64 blocks of 64 x 64 from a
Gaussian matrix at 10 and 25 %, noise 0.01, DCT-l1, lam 0.02. W4: ROF denoising of noise 0.1, lam 0.1, isotropic and
anisotropic. The images are phantoms of tissue; batches are 32 of them, and their gap is that of the worst.

A gap is `(P(x) - P*) / P*`, evaluated in float64 outside of the timing by one evaluator for all; `P*` is agreed on by
two methods in float64 (emjax's certified solve, and an ADMM in NumPy that shares no code with it; the report tells for
how many items of a batch). Each package runs in float32 where it can, in its own environment, as a subprocess, in turn
with the others, in rounds: A B C A B C. Round 0 searches the iteration counts at which a package reaches a gap
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
user's); --python scico=PYTHON takes an interpreter that has the package, and what PYTHONPATH names, instead of an
environment. The optima are those of peers/optima.json where the instance is the same, and are added to it where they
were computed; --prepare makes environments and instances and times nothing.

--case "W1, 512, batch of 32" chooses one case, and may be repeated; --rounds 1 ends after the round that searches,
whose solves are timed, too. --counts REPORT takes the counts of another run for packages that reached 1e-4 there, and
runs each and a tenth more, as another machine rounds otherwise; the counts reported are those that reached the targets
here. --again times anew all packages that reached a target, at the iteration counts that were found for them, which
only emjax and `plain` search again (a run of it that was stopped goes on without --again); --floors measures anew what
the memory and the products of this machine allow an iteration of emjax, and keeps the times of the report. MiB is by
how much a package's peak rises above that of loading, in the memory of the host, or 0. The JSON is written after each
run of a package and a stopped run goes on from there; a Markdown table is written beside it. Exits with 1 if a bar is
missed by the certified times.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from peers_cases import cases, is_long
from peers_counts import LIMIT, PATIENCE, forget, options, take_counts
from peers_environments import (
    HERE,
    NAMES,
    OURS,
    REQUIREMENTS,
    device,
    emjax_version,
    environment,
    surroundings,
    version,
)
from peers_optima import OPTIMA, instance_file, slug
from peers_tables import BARS, markdown, readme, summarise, verdict
from reports import earlier_report, save_report

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
NEEDS_SOLUTION = ("spgl1",)  # whose constraint is taken from it
ROUNDS, LONG_ROUNDS = 5, 2  # of batches, which are their own average, and of images of 2048^2


Report = dict[str, Any]


def run(
    peer: str, interpreter: str, path: Path, output: Path, more: list[str], variables: dict[str, str]
) -> dict[str, Any]:
    """One process of one package; what went wrong is the result, too."""
    script = HERE / "peers" / f"with_{peer}.py"
    output.unlink(missing_ok=True)
    code = [interpreter, str(script), str(path), str(output), *more]
    result = subprocess.run(code, capture_output=True, text=True, env=variables)
    if result.returncode or not output.is_file():
        lines = result.stderr.strip().splitlines() or [f"ended with {result.returncode}"]
        return {"error": lines[-1][:300]}
    found: dict[str, Any] = json.loads(output.read_text())
    output.unlink()
    return found


def rounds(todo: dict[str, Any], names: list[str], peers: list[str], most: int) -> Iterator[tuple[str, int, str]]:
    """Each case by itself, its packages in turn."""
    for name in names:
        for number in range(min(most, LONG_ROUNDS if is_long(todo[name]) else ROUNDS)):
            for peer in peers:
                yield name, number, peer


def solves(peer: str, case: dict[str, Any]) -> bool:
    """Whether the package is meant for this problem."""
    if peer in ("scikit_image", "proxtv") and case["kind"] == "rof":
        return case["tv"] == {"scikit_image": "isotropic", "proxtv": "anisotropic"}[peer]
    return case["kind"] in KINDS[peer]


def packages(
    report: Report, wanted: list[str], given: dict[str, str], folder: Path, platform: str
) -> dict[str, tuple[str, dict[str, str]]]:
    """The interpreter of each package and the variables of its process; the report learns the releases."""
    found = {peer: (sys.executable, surroundings(peer, platform)) for peer in OURS if peer in wanted}
    for peer in (p for p in given if p in wanted):
        try:
            report["peers"][peer] = {"version": version(peer, given[peer], platform)}
        except ValueError as error:
            raise SystemExit(f"--python {peer}={given[peer]}: {error}") from error
        found[peer] = given[peer], surroundings(peer, platform, given=True)
    for peer in (p for p in REQUIREMENTS if p in wanted and p not in given):
        made = environment(folder, peer, platform == "gpu")
        if "python" in made:
            found[peer] = made["python"], surroundings(peer, platform)
            name = NAMES.get(peer, peer)
            made = {"version": made["versions"].get(name) or made["versions"].get(name.replace("-", "_"))}
        report["peers"][peer] = made
    return found


def machine(report: Report, platform: str) -> None:
    """Note where this runs; times of two GPUs do not go into one report."""
    now: dict[str, Any] = {"cpus": os.cpu_count(), "python": sys.version.split()[0]}
    if platform == "gpu":
        try:
            now["device"] = device()
        except ValueError as error:
            raise SystemExit(f"--platform gpu: JAX computes on none here: {error}") from error
        before = report.get("environment", {}).get("device", now["device"])
        if before != now["device"] and report["runs"]:
            raise SystemExit(f"the report has times of {before}, and this is {now['device']}: name another with -o")
    report["environment"] = now


def measure_floors(
    report: Report, names: list[str], paths: dict[str, Path], variables: dict[str, str], update: Callable[[], None]
) -> None:
    for name in names:
        output = paths[name].with_name(f"{slug(name)}_floor.json")
        found = run("emjax", sys.executable, paths[name], output, ["--floor"], variables)
        if "error" in found:
            raise SystemExit(f"the floor of {name} failed: {found['error']}")
        for done in report["runs"][name]["emjax"]:
            done["floor"] = found
        update()
        print(f"{name}: {1e3 * found['seconds']:.3g} ms", flush=True)


def chosen(parser: argparse.ArgumentParser, arguments: argparse.Namespace, todo: dict[str, Any]) -> list[str]:
    """The cases in the order in which they run: as named, or those that take long last."""
    if arguments.case:
        if arguments.only or arguments.short:
            parser.error("--case names each case: it goes with neither --only nor --short")
        for name in arguments.case:
            if name not in todo:
                parser.error(f"--case {name!r}: there is no such case; there are {', '.join(map(repr, todo))}")
        return list(dict.fromkeys(arguments.case))
    only = arguments.only and arguments.only.split(",")
    names = [name for name in todo if not only or name.split(",")[0].split()[0] in only]
    names = [name for name in names if not (arguments.short and is_long(todo[name]))]
    return names if arguments.prepare else sorted(names, key=lambda name: is_long(todo[name]))


def command_line() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path.home() / ".cache" / "emjax" / "peers"
    parser.add_argument("-o", "--output", type=Path, required=True, help="where to write the JSON")
    parser.add_argument("--only", help="W1,W2,W3,W4: these problems, or none: only the tables")
    parser.add_argument("--case", action="append", metavar="NAME", help="this case (repeat for more, in this order)")
    parser.add_argument("--short", action="store_true", help="neither batches nor images of 2048^2")
    parser.add_argument("--peers", help="emjax,plain,sigpy,...: these packages")
    parser.add_argument("--quick", action="store_true", help="tiny images, batches of two: does everything run?")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="time at most so often")
    parser.add_argument("--counts", type=Path, metavar="REPORT", help="take iteration counts from this report")
    parser.add_argument("--environments", type=Path, default=cache / "environments")
    parser.add_argument("--work", type=Path, default=cache / "instances")
    parser.add_argument(
        "--python", action="append", default=[], metavar="PEER=PYTHON", help="an interpreter that has it"
    )
    parser.add_argument("--platform", choices=("cpu", "gpu"), default="cpu", help="where the packages compute")
    parser.add_argument("--prepare", action="store_true", help="only make environments and instances with their optima")
    parser.add_argument("--again", action="store_true", help="forget the times, not the counts of iterations")
    parser.add_argument("--floors", action="store_true", help="only measure the floors of a report again")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds {arguments.rounds}: it takes at least one")
    for option, known in (("only", ("W1", "W2", "W3", "W4", "none")), ("peers", tuple(KINDS))):
        for name in (getattr(arguments, option) or "").split(","):
            if name and name not in known:
                parser.error(f"--{option} {name}: expected some of {', '.join(known)}")
    for text in arguments.python:
        peer, _, interpreter = text.partition("=")
        if peer not in REQUIREMENTS or not interpreter:
            parser.error(f"--python {text}: expected PEER=PYTHON, with one of {', '.join(REQUIREMENTS)}")
    return parser, arguments


def main() -> int:
    parser, arguments = command_line()
    quick, platform = arguments.quick, arguments.platform
    work = arguments.work / "quick" if quick else arguments.work
    todo = cases(quick)
    names = chosen(parser, arguments, todo)
    settings = {"cases": todo, "patience": PATIENCE, "limit": LIMIT, "bars": BARS}
    settings |= {"quick": quick, "platform": platform}
    report = earlier_report(arguments.output, settings)
    report = {"peers": {}, "references": {}, "runs": {}, "searched": {}, **report, "settings": settings}

    def update() -> None:
        report["summary"] = {
            name: {peer: summarise(done, todo[name]["count"]) for peer, done in table.items() if done}
            for name, table in report["runs"].items()
        }
        found = {name: verdict(name, table) for name, table in report["summary"].items()}
        report["verdicts"] = {name: v for name, v in found.items() if v is not None}
        report["readme"] = readme(report)
        save_report(report, markdown(report, about), arguments.output)

    about = (__doc__ or "").split("\n\n")[1:3]
    wanted = arguments.peers.split(",") if arguments.peers else list(KINDS)
    wanted = [peer for peer in wanted if platform == "cpu" or peer in ON_GPU]
    given = dict(text.split("=", 1) for text in arguments.python)

    def instance(name: str) -> tuple[Path, dict[str, Any]]:
        whole = any(peer in wanted and solves(peer, todo[name]) for peer in NEEDS_SOLUTION)
        return instance_file(work, name, todo[name], None if quick else OPTIMA, whole)

    if arguments.prepare:
        packages(report, wanted, given, arguments.environments, platform)
        for name in names:
            instance(name)
        return 0
    if names or "environment" not in report:
        machine(report, platform)
    if arguments.floors:
        names = [name for name in names if report["runs"].get(name, {}).get("emjax")]
        paths = {name: instance(name)[0] for name in names}
        measure_floors(report, names, paths, surroundings("emjax", platform), update)
        return 0
    found = packages(report, wanted, given, arguments.environments, platform) if names else {}
    peers = [peer for peer in KINDS if peer in found]
    if arguments.again:
        forget(report, names, peers)
    if arguments.counts:
        take_counts(report, arguments.counts, names, peers)
    paths = {}
    for name in names:
        paths[name], report["references"][name] = instance(name)
    this = emjax_version() if names else {}
    for name, turn, peer in rounds(todo, names, peers, arguments.rounds):
        done = report["runs"].setdefault(name, {}).setdefault(peer, []) if solves(peer, todo[name]) else None
        if done is None or len(done) > turn:
            continue
        more = options(report, name, peer, turn, todo[name]["count"])
        if more is None:
            continue
        interpreter, variables = found[peer]
        result = run(peer, interpreter, paths[name], work / f"{slug(name)}_{peer}.json", more, variables)
        known = {} if turn or "error" in result else report["searched"].get(name, {}).get(peer, {})
        # Counts that were found elsewhere are only tried here.
        done.append(result | ({} if "of" in known else known) | ({"emjax": this} if peer == "emjax" else {}))
        update()
        print(f"{name}, round {turn}, {peer}: {result.get('error') or result['counts']}", flush=True)
    update()
    print(markdown(report, about))
    return int(not all(v["passed"] for v in report["verdicts"].values()))


if __name__ == "__main__":
    sys.exit(main())
