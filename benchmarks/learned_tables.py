"""Summary, bars and tables of learned_vs_iterative.py, all from its report alone."""

from collections.abc import Iterable
from typing import Any

import learned_parts
import learned_speed
import numpy as np

NETWORKS = ("scan-compact", "scan-full")
CLASSICAL = ("linear", "tv, oracle", "wavelet, oracle", "spectral, oracle")  # of which the best is what gains are over
GAIN_BARS = {"scan-full": 1.5, "scan-compact": 0.7}  # dB, mean over 10, 25, 50 %
GAIN_RATIOS = (0.10, 0.25, 0.50)
TRAINED = ("random", "jittered", "line-hop", "spiral")
PATTERN_BAR, BLIND_BAR = 0.5, 0.7  # dB
SEEN_KINDS = ("hela",)


def mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def bar(figure: str, value: float, rule: str, limit: float) -> dict[str, Any]:
    """A figure and whether it passes. rule: "at least" or "at most"."""
    passed = value >= limit if rule == "at least" else value <= limit
    return {"figure": figure, "value": value, "rule": rule, "bar": limit, "passed": bool(passed)}


def summarise(report: dict[str, Any]) -> None:
    """Fill in the summary with its bars, what is complete, and the table of the README."""
    whole = {
        part: {key: found for key, found in report[part].items() if {"spectral", *NETWORKS} <= found.keys()}
        for part in ("patterns", "unseen")
    }
    parts = {
        "quality": quality(report["quality"]),
        "patterns": patterns(whole["patterns"]),
        "unseen": unseen(whole["unseen"]),
        "blind": blind(report["blind"]),
        "speed": learned_speed.summary(report["speed"].get("times", {})),
        "blocks": learned_parts.blocks(report["blocks"]),
        "prior": learned_parts.prior(report["prior"]),
    }
    settings = report["settings"]
    counts = {"quality": sum(len(methods) for methods in report["quality"].values())}
    counts |= {part: len(found) for part, found in whole.items()}
    counts["blind"] = len(report["blind"].get("runs", ()))
    report["complete"] = {part: counts[part] == len(settings[part]) for part in counts}
    report["complete"] |= {"speed": report["speed"].get("complete", False), **learned_parts.complete(report)}
    report["summary"] = {part: rows for part, (rows, _) in parts.items()}
    report["summary"]["bars"] = [b for _, bars in parts.values() for b in bars]
    report["readme"] = readme(parts["quality"][0])


def by_image(entries: dict[str, Any], key: str, field: str = "psnr", seeds: set[int] | None = None) -> dict[str, float]:
    """The mean over the draws (all, or these) of each image that has the method."""
    found = {}
    for image, methods in entries.items():
        values = [e[field] for e in methods.get(key, ()) if seeds is None or e["seed"] in seeds]
        if values:
            found[image] = mean(values)
    return found


def draws(entries: dict[str, Any], key: str) -> set[int]:
    return {e["seed"] for methods in entries.values() for e in methods.get(key, ())}


def gain(entries: dict[str, Any], key: str, other: str) -> dict[str, Any]:
    """PSNR of one method over another on the same images and draws."""
    common = draws(entries, key) & draws(entries, other)
    one, two = by_image(entries, key, seeds=common), by_image(entries, other, seeds=common)
    gains = {image: one[image] - two[image] for image in one if image in two}
    worst = min(gains, key=lambda image: gains[image])
    return {"mean": mean(gains.values()), "worst": gains[worst], "worst_image": worst, "images": len(gains)}


def quality(runs: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row a ratio and noise."""
    groups: dict[tuple[float, float], dict[str, Any]] = {}
    for name, methods in runs.items():
        image, at, with_noise = name.split(", ")
        groups.setdefault((float(with_noise.split()[1]), float(at.split()[1])), {})[image] = methods
    rows = []
    for (noise, ratio), entries in sorted(groups.items()):
        keys = list(dict.fromkeys(key for methods in entries.values() for key in methods))
        row: dict[str, Any] = {"ratio": ratio, "noise": noise, "images": len(entries), "methods": {}}
        for key in keys:
            values = by_image(entries, key)
            row["methods"][key] = {
                "images": len(values),
                "draws": len(draws(entries, key)),
                **{field: mean(by_image(entries, key, field).values()) for field in ("psnr", "ssim", "frc")},
                "worst_psnr": min(values.values()),
                "worst_image": min(values, key=lambda image: values[image]),
            }
        whole = [k for k in CLASSICAL if row["methods"].get(k, {}).get("images") == len(entries)]
        if whole:
            # All on draw 0, which all of them have.
            first = {k: mean(by_image(entries, k, seeds={0}).values()) for k in whole}
            row["best"] = max(whole, key=lambda k: first[k])
            row["gains"] = {k: gain(entries, k, row["best"]) for k in keys if k.startswith("scan-")}
            row["few"] = {
                k: gain(entries, k, "spectral, automatic") for k in keys if row["methods"][k]["images"] < len(entries)
            }
        rows.append(row)
    bars = []
    for name, limit in GAIN_BARS.items():
        judged = [row for row in rows if f"{name}, told" in row.get("gains", {})]
        central = [row["gains"][f"{name}, told"]["mean"] for row in judged if row["ratio"] in GAIN_RATIOS]
        if central:
            text = f"{name}, noise told, over the best classical method with its oracle's weight, 10 to 50 %: mean, dB"
            bars.append(bar(text, mean(central), "at least", limit))
            least = min(judged, key=lambda row: row["gains"][f"{name}, told"]["mean"])
            where = f"{least['ratio']:.0%}, noise {least['noise']:g}"
            text = f"{name}, noise told, over the same: least mean of a ratio and noise ({where}), dB"
            bars.append(bar(text, least["gains"][f"{name}, told"]["mean"], "at least", 0.0))
    return rows, bars


def patterns(runs: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row a ratio and pattern; costs against random scans."""
    groups: dict[tuple[float, str], list[dict[str, Any]]] = {}
    for name, found in runs.items():
        kind, _, at, _ = name.split(", ")
        groups.setdefault((float(at.split()[1]), kind), []).append(found)
    rows = []
    for (ratio, kind), group in sorted(groups.items(), key=lambda item: item[0][0]):
        row: dict[str, Any] = {"ratio": ratio, "pattern": kind, "trained": kind in TRAINED, "images": len(group)}
        row["measured"] = mean(e["measured"] for e in group)
        for method in ("spectral", *NETWORKS):
            row[method] = mean(e[method]["psnr"] for e in group)
        for method in NETWORKS:
            row[f"{method}: gain"] = mean(e[method]["psnr"] - e["spectral"]["psnr"] for e in group)
        rows.append(row)
    bars = []
    for method in NETWORKS:
        at_random = {row["ratio"]: row[f"{method}: gain"] for row in rows if row["pattern"] == "random"}
        for row in rows:
            if row["ratio"] in at_random:
                row[f"{method}: cost"] = at_random[row["ratio"]] - row[f"{method}: gain"]
        foreign = [row for row in rows if not row["trained"] and f"{method}: cost" in row]
        if foreign:
            worst = max(foreign, key=lambda row: row[f"{method}: cost"])
            where = f"{worst['pattern']}, {worst['ratio']:.0%}"
            text = f"{method}: what a scan pattern costs that it never saw, most ({where}), dB"
            bars.append(bar(text, worst[f"{method}: cost"], "at most", PATTERN_BAR))
    return rows, bars


def unseen(runs: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row a kind, ratio and noise; bars over all scans of a kind."""
    groups: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for name, found in runs.items():
        image, ratio, noise = name.split(", ")
        groups.setdefault((image.partition(":")[0], ratio, noise), []).append(found)
    rows = []
    for (kind, ratio, noise), group in groups.items():
        row: dict[str, Any] = {"kind": kind, "ratio": float(ratio.split()[1]), "noise": float(noise.split()[1])}
        row["images"] = len(group)
        for method in group[0]:
            row[method] = mean(e[method]["psnr"] for e in group)
        for method in NETWORKS:
            gains = [e[method]["psnr"] - e["spectral"]["psnr"] for e in group]
            row |= {f"{method}: gain": mean(gains), f"{method}: worst": min(gains)}
        rows.append(row)
    bars = []
    for kind in dict.fromkeys(row["kind"] for row in rows if row["kind"] not in SEEN_KINDS):
        for method in NETWORKS:
            gains = [row[f"{method}: gain"] for row in rows if row["kind"] == kind]
            bars.append(bar(f"{method} over spectral on {kind}: mean gain, dB", mean(gains), "at least", 0.0))
    return rows, bars


def blind(part: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """One row an image; and the mean."""
    rows = []
    for image, found in part.get("runs", {}).items():
        rows.append({"image": image} | {key: mean(e["psnr"] for e in entries) for key, entries in found.items()})
    if not rows:
        return [], []
    loss = mean(row["scan-compact, told"] - row["other, told"] for row in rows)
    text = f"{part['network']}, trained without ground truth, below scan-compact at 25 %, noise 0.05: mean, dB"
    return rows, [bar(text, loss, "at most", BLIND_BAR)]


def readme(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """PSNR of the classical methods with an oracle's weights, and of the networks."""
    methods = {"tv, oracle": "tv", "wavelet, oracle": "wavelet", "spectral, oracle": "spectral"}
    methods |= {f"{name}, told": name for name in NETWORKS}
    columns = ["pixels measured", "noise", "linear (dB)"]
    columns += [f"{text}, oracle's weight" if key.endswith("oracle") else text for key, text in methods.items()]
    lines = []
    for row in rows:
        found = [row["methods"].get(key, {}).get("psnr", "") for key in ("linear", *methods)]
        lines.append([f"{row['ratio']:.0%}", f"{row['noise']:g}", *found])
    return {"columns": columns, "rows": lines}


def table(columns: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def markdown(report: dict[str, Any], text: str) -> str:
    """The report as tables."""
    summary, machine = report["summary"], report["environment"]
    lines = ["# Learned and iterative recoveries of sparse scans", "", *text.split("\n\n    python")[0].split("\n"), ""]
    lines += [f"JAX {machine['jax']}, {machine['platform']}, {machine['cpus']} CPUs.", ""]
    missing = [part for part, done in report["complete"].items() if not done]
    lines += [f"Not complete yet: {', '.join(missing)}.", ""] if missing else []
    rows = [
        [b["figure"], f"{b['value']:.2f}", f"{b['rule']} {b['bar']:g}", "yes" if b["passed"] else "no"]
        for b in summary["bars"]
    ]
    lines += ["## Bars", "", *table(["figure", "value", "bar", "passed"], rows)]
    for part, write in (("quality", _quality), ("patterns", _patterns), ("unseen", _unseen), ("blind", _blind)):
        lines += write(summary[part]) if summary[part] else []
    lines += _speed(report["speed"], summary["speed"]) if summary["speed"] else []
    lines += learned_parts.tables(report)
    return "\n".join(lines).rstrip() + "\n"


def _quality(rows: list[dict[str, Any]]) -> list[str]:
    """Means, gains."""
    lines = ["## Gain over the best classical method with its oracle's weight, dB: mean (worst image)", ""]
    keys = [f"{name}, {mode}" for name in NETWORKS for mode in ("told", "estimated")]
    cells = []
    for row in rows:
        gains = [row.get("gains", {}).get(key) for key in keys]
        texts = [f"{g['mean']:+.2f} ({g['worst']:+.2f} {g['worst_image']})" if g else "" for g in gains]
        cells.append([f"{row['ratio']:.0%}", f"{row['noise']:g}", row.get("best", ""), *texts])
    lines += table(["ratio", "noise", "best classical", *[f"{key}" for key in keys]], cells)
    lines += ["Told, estimated: the noise level.", ""]
    few = [(row, key, g) for row in rows for key, g in row.get("few", {}).items() if not key.startswith("scan-")]
    if few:
        cells = [[f"{r['ratio']:.0%}", f"{r['noise']:g}", k, f"{g['images']}", f"{g['mean']:+.2f}"] for r, k, g in few]
        lines += ["Methods that saw some of the images only: gain over `spectral` (automatic) there, dB.", ""]
        lines += table(["ratio", "noise", "method", "images", "gain"], cells)
    lines += ["## Means over images and draws", ""]
    cells = []
    for row in rows:
        for key, m in sorted(row["methods"].items(), key=lambda item: -item[1]["psnr"]):
            numbers = [f"{m['psnr']:.2f}", f"{m['worst_psnr']:.2f} {m['worst_image']}", f"{m['ssim']:.3f}"]
            count = [f"{m['images']}", f"{m['draws']}"]
            cells.append([f"{row['ratio']:.0%}", f"{row['noise']:g}", key, *count, *numbers, f"{m['frc']:.2f}"])
    columns = ["ratio", "noise", "method", "images", "draws", "PSNR", "worst image", "SSIM", "resolution, pixels"]
    return [*lines, *table(columns, cells)]


def _patterns(rows: list[dict[str, Any]]) -> list[str]:
    columns = ["ratio", "pattern", "trained on", "spectral", *NETWORKS, *[f"{n}: gain" for n in NETWORKS]]
    columns += [f"{n}: cost" for n in NETWORKS]
    cells = []
    for row in rows:
        cell = [f"{row['ratio']:.0%}", row["pattern"], "yes" if row["trained"] else "no"]
        cell += [f"{row[m]:.2f}" for m in ("spectral", *NETWORKS)]
        cell += [f"{row[f'{m}: gain']:+.2f}" for m in NETWORKS]
        cells.append([*cell, *(f"{row.get(f'{m}: cost', np.nan):+.2f}" for m in NETWORKS)])
    return ["## Scan patterns, noise 0.05: PSNR, and gain over `spectral` (automatic), dB", "", *table(columns, cells)]


def _unseen(rows: list[dict[str, Any]]) -> list[str]:
    columns = ["kind", "ratio", "noise", "images", "spectral", "spectral, oracle", *NETWORKS]
    columns += [f"{n}: gain (worst image)" for n in NETWORKS]
    cells = []
    for row in rows:
        own = row["kind"] == "partial-stem"  # published with its noise
        cell = [
            row["kind"],
            "17.5%" if own else f"{row['ratio']:.0%}",
            "its own" if own else f"{row['noise']:g}",
            f"{row['images']}",
        ]
        cell += [f"{row[m]:.2f}" if m in row else "" for m in ("spectral", "spectral, oracle", *NETWORKS)]
        cells.append([*cell, *(f"{row[f'{m}: gain']:+.2f} ({row[f'{m}: worst']:+.2f})" for m in NETWORKS)])
    return ["## Other kinds of images: PSNR, and gain over `spectral` (automatic), dB", "", *table(columns, cells)]


def _blind(rows: list[dict[str, Any]]) -> list[str]:
    keys = [key for key in rows[0] if key != "image"]
    cells = [[row["image"], *(f"{row[key]:.2f}" for key in keys)] for row in rows]
    cells.append(["mean", *(f"{mean(row[key] for row in rows):.2f}" for key in keys)])
    columns = ["image", *(key.replace("other", "without ground truth") for key in keys)]
    return ["## Trained without ground truth: PSNR at 25 %, noise 0.05", "", *table(columns, cells)]


def _speed(part: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    lines = [
        "## Seconds: medians, side by side",
        "",
        f"Load of the machine at the start of a case: {part['load']}.",
        "",
    ]
    cells = []
    for case, methods in part["times"].items():
        for method, e in methods.items():
            low, high = e["spread"]
            numbers = [f"{e['seconds']:.4f}", f"{low:.4f} to {high:.4f}", f"{e['seconds_an_image']:.4f}"]
            cells.append([case, method, *numbers, f"{e['compilation']:.1f}", f"{e['psnr']:.2f}"])
    lines += table(["side, scan", "method", "s", "spread", "s an image", "compilation, s", "PSNR"], cells)
    lines += ["How many times faster `scan-compact` is (and its gain, dB):", ""]
    methods = list(learned_speed.COMPARED)
    cells = [[row["case"], *(f"{row[m]:.1f} ({row[f'{m}: gain']:+.2f})" for m in methods)] for row in rows]
    lines += table(["side, scan", *methods], cells)
    if part["memory"]:
        cells = [[method, f"{m['peak']:.0f}", f"{m['above']:.0f}"] for method, m in part["memory"].items()]
        lines += ["Memory of one recovery in a process of its own, compilation included:", ""]
        lines += table(["method", "peak, MiB", "above the process before it, MiB"], cells)
    return lines
