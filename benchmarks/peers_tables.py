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


def markdown(report: dict[str, Any], about: list[str]) -> str:
    """The report's tables, after the paragraphs `about` what was measured."""
    lines = ["# emjax and its peers", "", *about, ""]
    where = f"{report['environment']['cpus']} CPUs"
    if report["settings"]["platform"] == "gpu":
        text = f"{report['environment']['device']}, {where}; seconds are medians, an item"
        lines += [f"{text}; MiB is of the host's memory, not of the GPU's.", ""]
    else:
        lines += [f"{where}; seconds are medians, an item.", ""]
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
