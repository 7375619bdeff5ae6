"""Which iteration counts does `peers.py` ask a package for? Those of a search, of an earlier one, or of another run."""

import json
import math
from pathlib import Path
from typing import Any

from peers_environments import OURS
from peers_tables import BARS

# Seconds of one solve after which a package is given up: so many times the bar of emjax's, and no less than these.
PATIENCE, LIMIT = 3.0, 5.0


def forget(report: dict[str, Any], names: list[str], peers: list[str]) -> None:
    """Drop the times of these packages, and keep what they searched for; who reached nothing keeps its bound."""
    for name in names:
        runs, found = report["runs"].get(name, {}), report["searched"].setdefault(name, {})
        for peer in (p for p in peers if runs.get(p)):
            first = runs[peer][0]
            if peer in OURS or "error" in first:
                del runs[peer]
                if peer in OURS:
                    found.pop(peer, None)
            elif any(first["counts"].values()):
                found[peer] = {key: first[key] for key in ("counts", "given_up", "limit")}
                del runs[peer]


def smaller(name: str) -> str:
    """The case of one image of 512^2 (256^2) whose counts a larger one begins at."""
    return name.split(", batch")[0].replace("2048", "512")


def take_counts(report: dict[str, Any], source: Path, names: list[str], peers: list[str]) -> None:
    """The counts of another run, of packages that reached 1e-4 in it, for those that have none yet."""
    try:
        other = json.loads(source.read_text())
        found, searched, theirs = other["runs"], other["searched"], other["settings"]["cases"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SystemExit(f"--counts {source}: no report of this program ({error!r})") from error
    for name in dict.fromkeys([*names, *map(smaller, names)]):
        if name not in report["settings"]["cases"]:
            continue
        if theirs.get(name) != report["settings"]["cases"][name]:
            raise SystemExit(f"--counts {source}: its {name!r} is another problem or is not there")
        for peer in peers:
            first = (found.get(name, {}).get(peer) or [searched.get(name, {}).get(peer, {})])[0]
            if (counts := first.get("counts", {})).get("1e-4") is not None:
                entry = {"counts": counts, "of": source.name}
                report["searched"].setdefault(name, {}).setdefault(peer, entry)


def options(report: dict[str, Any], name: str, peer: str, number: int, count: int) -> list[str] | None:
    """What a package is asked for in this round; None where it has nothing to do."""
    runs, searched = report["runs"], report["searched"]
    known = searched.get(name, {}).get(peer)
    done = runs[name].get(peer, [])
    if number or known:
        if number and not done:
            return None
        found = done[0] if number else known
        if "error" in found:
            return None
        counts = {n for n in found["counts"].values() if n is not None}
        if not number and "of" in known:
            counts |= {math.ceil(1.1 * n) for n in counts}
        return ["--counts", ",".join(map(str, sorted(counts)))] if counts else None
    ours = [
        e["seconds"] for d in runs[name].get("emjax", [])[:1] for e in d.get("certified", []) if e["target"] == "1e-4"
    ]
    limit = max(LIMIT, PATIENCE * BARS[name.split(",")[0]] * ours[0]) if ours else LIMIT * count
    more = ["--limit", str(limit)]
    short = smaller(name)
    single = (runs.get(short, {}).get(peer) or [searched.get(short, {}).get(peer, {})])[0] if short != name else {}
    starts = sorted({n for n in single.get("counts", {}).values() if n is not None})
    return [*more, "--start", ",".join(map(str, starts)), "--coarse"] if starts else more
