"""What every package's script does: read an instance, solve it with rising counts of iterations, time only the solve.

A script gives `serve` a function `prepare(instance) -> solve`, where `solve(n)` runs n iterations from scratch and
returns the images `(items, h, w)`. `prepare` is not timed, nor is judging what came back, which is the same NumPy code
for all. Two jobs: `search` climbs a geometric ladder until every item is within 1e-4 of the optimum and finds the first
count for each target; `time` runs given counts once. A count that is timed has run before in the same process wherever
that compiles something.
"""

import argparse
import json
import os
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from instances import Images, Instance, load

TARGETS = ("1e-3", "1e-4", "0.1 dB")
GROWTH = 1.5
REPEATS, SHORT = 7, 1.0  # solves are timed so often, or for so many seconds

Solve = Callable[[int], Images]


class Prepared:
    """A solve by iteration count; `certified(gap)` for solvers that stop by themselves; `floor` says what limits it.

    `compiles`: the first run of a count compiles, so that a second one is timed.
    """

    def __init__(
        self,
        solve: Solve,
        compiles: bool = False,
        certified: Callable[[float], tuple[Images, dict[str, Any]]] | None = None,
        floor: Callable[[], dict[str, Any]] | None = None,
        first: int = 10,
    ) -> None:
        self.solve, self.compiles, self.certified, self.floor, self.first = solve, compiles, certified, floor, first


def each(solve: Callable[[Any], np.ndarray], items: Sequence[Any]) -> np.ndarray:
    """A batch for packages that take one image: two cores, an item each."""
    if len(items) == 1:
        return np.asarray(solve(items[0]))[None]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return np.stack(list(pool.map(solve, items)))


class Bench:
    """One instance and one package."""

    def __init__(self, instance: Instance, prepared: Prepared) -> None:
        self.instance, self.prepared = instance, prepared
        self.seen: set[int] = set()
        self.rows: list[dict[str, float]] = []
        self.given_up: float | None = None  # seconds of the longest run, where the next would take too long

    def run(self, count: int) -> dict[str, float]:
        """One row: iterations, seconds, the worst gap, the largest distance to the optimum's PSNR."""
        first = None
        if self.prepared.compiles and count not in self.seen:
            self.seen.add(count)
            begin = time.perf_counter()
            self.prepared.solve(count)
            first = time.perf_counter() - begin
        x, seconds = timed(lambda: self.prepared.solve(count))
        row = {"iterations": count, "seconds": seconds, **self.judge(x)}
        if first is not None:
            row["first_seconds"] = first
        self.rows.append(row)
        return row

    def judge(self, x: Images) -> dict[str, float]:
        x = np.asarray(x)
        assert x.shape == self.instance.truth.shape, (x.shape, self.instance.truth.shape)
        gaps = self.instance.gaps(x)
        distance = np.abs(self.instance.psnr(x) - self.instance.optimal_psnr)
        worst = float(np.max(gaps)) if np.all(np.isfinite(gaps)) else float("inf")
        return {"gap": worst, "psnr_distance": float(np.nan_to_num(np.max(distance), nan=np.inf))}

    def search(self, starts: list[int], limit: float, coarse: bool) -> None:
        """The ladder, then one run for each target at the count that the rows say; not where `coarse`."""
        for count in starts[:-1]:
            if self.rows and self.rows[-1]["seconds"] * count / self.rows[-1]["iterations"] > limit:
                break
            self.run(count)
        count = max(1, starts[-1])
        while not self.rows or self.rows[-1]["seconds"] * count / self.rows[-1]["iterations"] <= limit:
            row = self.run(count)
            # Far below 1e-4 the PSNR is no nearer to the optimum's for longer: that target is not reached then.
            if reached(row, "1e-4") and (reached(row, "0.1 dB") or row["gap"] < 1e-6):
                break
            count = max(count + 1, round(count * (1.2 if coarse else GROWTH)))
        else:
            self.given_up = max(row["seconds"] for row in self.rows)
        for target in () if coarse else TARGETS:
            for _ in range(2):
                guess = self.guess(target)
                if guess is None or any(row["iterations"] == guess for row in self.rows):
                    break
                self.run(guess)

    def guess(self, target: str) -> int | None:
        """The first count that reaches the target, interpolated between the last that missed it and the next."""
        rows = sorted(self.rows, key=lambda row: row["iterations"])
        missed = [i for i, row in enumerate(rows) if not reached(row, target)]
        after = missed[-1] + 1 if missed else 0
        if after == len(rows):
            return None
        if not missed:
            return int(rows[0]["iterations"])
        low, high = rows[after - 1], rows[after]
        name, bar = ("psnr_distance", 0.1) if target == "0.1 dB" else ("gap", float(target))
        a, b = np.log(low[name] / bar), np.log(max(high[name], 1e-12) / bar)
        share = a / (a - b) if np.isfinite(a) and a > b else 1.0
        count = np.exp(np.log(low["iterations"]) + share * np.log(high["iterations"] / low["iterations"]))
        return int(np.clip(np.ceil(count), low["iterations"] + 1, high["iterations"]))

    def counts(self) -> dict[str, int | None]:
        """The smallest counts seen from which on each target is kept."""
        found: dict[str, int | None] = {}
        for target in TARGETS:
            rows = sorted(self.rows, key=lambda row: row["iterations"])
            missed = [i for i, row in enumerate(rows) if not reached(row, target)]
            after = missed[-1] + 1 if missed else 0
            found[target] = int(rows[after]["iterations"]) if after < len(rows) else None
        return found

    def certify(self) -> list[dict[str, Any]]:
        """A solve to each gap by the solver's own stopping rule, its certificates included in the time."""
        rows = []
        for target in TARGETS[:2]:
            assert self.prepared.certified is not None
            begin = time.perf_counter()
            self.prepared.certified(float(target))
            first = time.perf_counter() - begin
            certified = self.prepared.certified
            (x, more), seconds = timed(lambda target=target, certified=certified: certified(float(target)))
            row = {"target": target, "seconds": seconds, "first_seconds": first}
            rows.append({**row, **self.judge(x), **more})
        return rows


def timed(solve: Callable[[], Any]) -> tuple[Any, float]:
    """What a solve returns, and its seconds: of short ones, the median of a few."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < REPEATS and sum(seconds) < SHORT):
        begin = time.perf_counter()
        found = solve()
        seconds.append(time.perf_counter() - begin)
    return found, statistics.median(seconds)


def reached(row: dict[str, float], target: str) -> bool:
    return row["psnr_distance"] <= 0.1 if target == "0.1 dB" else row["gap"] <= float(target)


def memory() -> float:
    """The largest resident size so far, MiB: what a solve adds to it is 0 where it needs less than loading did."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def serve(prepare: Callable[[Instance], Prepared]) -> None:
    """The command line of a package's script; prints nothing, writes JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("instance", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--counts", help="count,count,...: run these once each; without it, search")
    parser.add_argument("--start", help="count,count,...: run these first, and begin the ladder at the last")
    parser.add_argument("--coarse", action="store_true", help="small steps up the ladder, and no refinement")
    parser.add_argument("--floor", action="store_true", help="measure nothing but what limits an iteration")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds of one solve at which the ladder ends")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")  # of iteration limits, which are the point here
    instance = load(arguments.instance)
    before = memory()
    prepared = prepare(instance)
    if arguments.floor:
        arguments.output.write_text(json.dumps(prepared.floor() if prepared.floor else {}))
        return
    bench = Bench(instance, prepared)
    report: dict[str, Any] = {"certified": bench.certify() if prepared.certified else []}
    if arguments.counts is None:
        bench.run(1)
        bench.rows.clear()
        starts = [int(n) for n in arguments.start.split(",")] if arguments.start else [prepared.first]
        bench.search(starts, arguments.limit, arguments.coarse)
    else:
        counts = [int(n) for n in arguments.counts.split(",")]
        bench.run(min(counts[0], 10))
        bench.rows.clear()
        for count in counts:
            bench.run(count)
    report |= {"limit": arguments.limit, "given_up": bench.given_up}
    report |= {"rows": bench.rows, "counts": bench.counts(), "memory_mib": memory() - before}
    report["floor"] = prepared.floor() if prepared.floor else {}
    arguments.output.write_text(json.dumps(report))
    sys.stdout.flush()
