"""The tables of `peers.py`: medians, ratios and bars from the runs of a report, as JSON and Markdown."""

import statistics
from typing import Any

from peers_environments import OURS

TARGETS = ("1e-3", "1e-4", "0.1 dB")

# The smallest ratio of the best peer's time to a gap of 1e-4 over emjax's, an item.
BARS = {"W1": 8.0, "W2": 3.0, "W3": 1.0, "W4 isotropic": 10.0, "W4 anisotropic": 3.0}


def summarise(done: list[dict[str, Any]], count: int) -> dict[str, Any]:
    """Medians over the rounds, seconds an item."""
    first = done[0]
    if "error" in first:
        return {"error": first["error"]}
    if not first["rows"]:
        limit = first["limit"] / count
        return {"error": f"an iteration takes more than {limit:.3g} s", "given_up_seconds": limit}
    row: dict[str, Any] = {"rounds": len(done)}
    row |= {"memory_mib": max(d["memory_mib"] for d in done if "memory_mib" in d), "seconds": {}}
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
    row["compile_seconds"] = max([0.0, *compiled]) if compiled else None
    if first["certified"]:
        row["same_measure"] = {"seconds": dict(row["seconds"]), "iterations": dict(row["iterations"])}
        for i, target in enumerate(TARGETS[:2]):
            entries = [d["certified"][i] for d in good]
            row["seconds"][target] = statistics.median(e["seconds"] for e in entries) / count
            row["iterations"] = {**row["iterations"], target: entries[0]["steps"]}
            row.setdefault("true_gap", {})[target] = max(e["gap"] for e in entries)
            row.setdefault("certified_gap", {})[target] = max(e["certified_gap"] for e in entries)
            row["solver"] = entries[0]["solver"]
        row["compile_seconds"] = max(0.0, first["certified"][0]["first_seconds"] - first["certified"][0]["seconds"])
    floors = [d["floor"] for d in good if d["floor"]]
    if floors:
        row["floor"] = min(floors, key=lambda f: f["seconds"])
        row["over_floor"] = row["iteration_seconds"] and row["iteration_seconds"] / row["floor"]["seconds"]
    return row


def verdict(name: str, table: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """emjax's time to 1e-4 against the best peer's, and whether the certificate was honest.

    A peer that was given up takes longer than the time that it had: where that is the least of all, the ratio is a
    lower bound.
    """
    mine = table.get("emjax", {}).get("seconds", {}).get("1e-4")
    known: dict[str, float] = {}
    given_up: set[str] = set()
    for peer, row in table.items():
        time, least = row.get("seconds", {}).get("1e-4"), row.get("given_up_seconds")
        if peer in OURS or (time is None and least is None):
            continue
        known[peer] = least if time is None else time
        if time is None:
            given_up.add(peer)
    if mine is None or not known:
        return None
    best = min(known, key=lambda p: known[p])
    bar = BARS[name.split(",")[0]]
    ratio = known[best] / mine
    same = table["emjax"]["same_measure"]["seconds"]["1e-4"]
    honest = table["emjax"]["true_gap"]["1e-4"] <= 1e-4
    return {
        "best_peer": best,
        "ratio": ratio,
        "lower_bound": best in given_up,
        "bar": bar,
        "true_gap_kept": honest,
        "passed": ratio >= bar and honest,
        "same_measure": None if same is None else known[best] / same,
        "passed_by_the_same_measure": same is not None and known[best] / same >= bar,
    }


def judged(passed: bool, honest: bool, lower_bound: bool) -> str:
    """A lower bound below the bar shows nothing."""
    return "kept" if passed else "not shown" if lower_bound and honest else "missed"


def span(counts: list[int], noun: str) -> str:
    """ "1 round", "2 to 5 rounds"."""
    low, high = min(counts), max(counts)
    return f"{'' if low == high else f'{low} to '}{high} {noun}{'' if high == 1 else 's'}"


def turns(runs: dict[str, list[Any]]) -> str:
    """How many rounds the packages of a table had."""
    most = max(map(len, runs.values()))
    fewer = {peer: len(done) for peer, done in runs.items() if done and len(done) < most}
    return ", ".join([str(most), *(f"{peer} {n}" for peer, n in fewer.items())])


def columns(report: dict[str, Any]) -> list[str]:
    """What the columns hold, and what is not there."""
    here, cases = len(report["summary"]), len(report["settings"]["cases"])
    host = ", in the host's memory, not the GPU's" if report["settings"]["platform"] == "gpu" else ""
    return [
        *([f"- Not all is here: {here} of {cases} cases."] if here < cases else []),
        "- Seconds are medians over the rounds, an item. A package that was given up before it reached any target was "
        "run once only; how many rounds the others had is below each table.",
        "- Compile s is the first call less a later one, which also holds what that call prepares once; 0 where "
        "the difference drowns in the noise of the clock, and empty where none is measured.",
        f"- MiB is how far the peak rises above that of loading the package{host}: 0 means that it stays below that. "
        "emjax's and plain's hold several compiled programs.",
    ]


def number(value: float | None, digits: int = 3) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def markdown(report: dict[str, Any], about: list[str]) -> str:
    """The report's tables, after the paragraphs `about` what was measured."""
    lines = ["# emjax and its peers", "", *about, ""]
    where = f"{report['environment']['cpus']} CPUs"
    if report["settings"]["platform"] == "gpu":
        where = f"{report['environment']['device']}, {where}"
    lines += [f"{where}.", "", *columns(report), ""]
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
        lines += ["", f"Rounds: {turns(report['runs'][name])}."]
        if (v := report["verdicts"].get(name)) is not None:
            least = "over " if v["lower_bound"] else ""
            words = f"{v['best_peer']} takes {least}{v['ratio']:.2f} times as long (bar {v['bar']:g})"
            lines += ["", f"To a certified 1e-4, {words}: {judged(v['passed'], v['true_gap_kept'], v['lower_bound'])}."]
            if v["same_measure"] is not None:
                ours = table["emjax"]["same_measure"]
                kept = judged(v["passed_by_the_same_measure"], True, v["lower_bound"])
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
        peer = f"{v['best_peer']} (given up)" if v["lower_bound"] else v["best_peer"]
        rows.append([name, peer, 1e3 * mine * v["ratio"], *ours, v["bar"]])
    heads = ["problem", "best peer", "its ms", "emjax (ms)", "times faster", "certified (ms)", "times faster", "bar"]
    found = {"columns": heads, "rows": rows}
    if not rows:
        return found
    tables = {name: report["runs"][name] for name in report["verdicts"]}
    peers = sorted({peer for runs in tables.values() for peer, done in runs.items() if done and peer not in OURS})
    counts = [max(map(len, runs.values())) for runs in tables.values()]
    note = f"{len(rows)} of {len(report['settings']['cases'])} problems, {span([len(peers)], 'peer')}"
    note += f" ({', '.join(peers)}), {span(counts, 'round')}."
    if any(v["lower_bound"] for v in report["verdicts"].values()):
        note += " Peers that were given up take longer than the time shown, and emjax is faster by more than that."
    return found | {"note": note}
