"""Which figures does the README show? Those of the committed results, and nothing else.

For every `benchmarks/results/NAME.json`: the question that `benchmarks/NAME.py` asks (the first line of its docstring),
the command that answers it, and a table. A benchmark chooses its own table with a key

    "readme": {"columns": ["method", "PSNR (dB)"], "rows": [["tv", 27.1], ...], "note": "of one image"}

in its JSON (the note, which may be left out, stands below the table); a result without one is summarised here or only
linked to.

    python benchmarks/readme_table.py            print the Markdown
    python benchmarks/readme_table.py --write    put it into the README
    python benchmarks/readme_table.py --check    exit with 1 where the README holds something else
"""

import argparse
import ast
import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
README = ROOT / "README.md"
BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def operators(result: dict[str, Any]) -> dict[str, Any]:
    """The worst errors over all operators, shapes and seeds, beside the bars that they must stay below."""
    bars, adjoint, reference = result["bars"], result["worst_adjoint_error"], result["worst_reference_error"]
    rows = [
        [kind, adjoint[kind], bars["adjoint_error"][kind], reference[kind]] for kind in adjoint if kind in reference
    ]
    return {"columns": ["dtype", "worst adjoint error", "must be below", "worst against references"], "rows": rows}


def psnr_by_method(result: dict[str, Any]) -> dict[str, Any]:
    """One row a ratio and noise, one column a method or pattern: the mean PSNR with automatic weights."""
    rows = result["summary"]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    psnr = {(row["ratio"], row["noise"], row["method"]): row["psnr"] for row in rows}
    scans = list(dict.fromkeys((row["ratio"], row["noise"]) for row in rows))
    lines = [[f"{r:.0%}", f"{n:g}", *[psnr.get((r, n, m), "") for m in methods]] for r, n in scans]
    return {"columns": ["pixels measured", "noise", *[f"{m} (dB)" for m in methods]], "rows": lines}


# Groups of the solvers' accuracy figures: how their names begin, and how the README calls the worst of them.
GROUPS = {
    "certified gap": "certified relative gap, float32 / float64: worst share of its bar",
    "true gap less reported gap": "true gap less the reported one: largest",
    "TV inpainting": "objective against an independent ADMM, relative: worst",
    "wavelet-l1": "objective against an independent ISTA, relative: worst",
    "noisy square": "objective against recomputed optima, relative: worst",
    "batch against": "a batch against single items, a neighbour 1000 times larger: worst",
}


def solvers(result: dict[str, Any]) -> dict[str, Any]:
    """The worst figure of each group of accuracy figures, and every timing figure."""
    rows: list[list[Any]] = []
    figures = result.get("accuracy", {}).get("figures", [])
    for begin, text in GROUPS.items():
        group = [f for f in figures if f["figure"].startswith(begin)]
        if begin == "certified gap" and group:
            rows.append([text, max(f["value"] / f["bar"] for f in group), "at most 1"])
        elif group:
            bar = group[0]["bar"]
            rows.append([text, max(f["value"] for f in group if f["bar"] == bar), f"at most {bar:.3g}"])
    timing = result.get("timing", {}).get("figures", [])
    rows += [[f["figure"], f["value"], f"{f['rule']} {f['bar']:.3g}"] for f in timing]
    return {"columns": ["figure", "value", "bar"], "rows": rows}


def command(result: dict[str, Any]) -> dict[str, Any]:
    """Every figure with its bar."""
    rows = [[name, f["value"], f"below {f['bar']:g}"] for name, f in result["figures"].items()]
    return {"columns": ["figure", "value", "bar"], "rows": rows}


def recovery_probability(result: dict[str, Any]) -> dict[str, Any]:
    """What has a bar in theory; the curves are in the picture."""
    verdict, bars = result["verdict"], result["settings"]["bars"]
    low, high = bars["stability_slope"]
    named = [
        (
            "half of the l1 recoveries, from the Donoho-Tanner curve: largest distance in rho",
            "transition_distance",
            f"at most {bars['transition_distance']}",
        ),
        ("seconds of that diagram", "diagram_seconds", "at most 900"),
        (
            "AMP's error at an iteration, from state evolution: largest share",
            "evolution_error",
            f"at most {bars['evolution_error']}",
        ),
        (
            "AMP and basis pursuit denoising, from their LASSO: largest share",
            "agreement",
            f"at most {bars['agreement']}",
        ),
        ("error against the size of the noise: log-log slope", "stability_slope", f"{low} to {high}"),
    ]
    return {
        "columns": ["figure", "value", "bar"],
        "rows": [[text, verdict[key]["value"], bar] for text, key, bar in named],
    }


def references(result: dict[str, Any]) -> dict[str, Any]:
    """The worst difference of the convex problems, and how many supports of the greedy methods agree."""
    rows = result["comparisons"]
    greedy = [row for row in rows if "same_support" in row]
    convex = [row for row in rows if "same_support" not in row]
    worst = max(row["largest_difference"] for row in convex)
    same, problems = (sum(row[key] for row in greedy) for key in ("same_support", "problems"))
    count = min(row["problems"] for row in rows)
    return {
        "columns": ["comparisons", "problems each", "figure", "value", "bar"],
        "rows": [
            [f"{len(convex)} of objectives", count, "largest relative difference", worst, f"at most {result['bar']:g}"],
            [f"{len(greedy)} of supports", count, "supports that are the same", f"{same} of {problems}", "all"],
        ],
    }


SUMMARIES = {
    "adaptive_scan": psnr_by_method,
    "command": command,
    "operators": operators,
    "recovery_probability": recovery_probability,
    "references": references,
    "solvers": solvers,
    "sparse_scans": psnr_by_method,
}


def cell(value: Any) -> str:
    """A number with three digits that matter, the text itself, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.1e}" if 0 < abs(value) < 1e-3 else f"{value:.2f}" if abs(value) < 100 else f"{value:.0f}"
    return str(value)


def table(columns: list[str], rows: list[list[Any]]) -> str:
    """A Markdown table; columns of numbers are aligned to the right."""
    numeric = [bool(rows) and all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(columns))]
    lines = [columns, ["---:" if right else "---" for right in numeric], *[[cell(v) for v in row] for row in rows]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def question(name: str) -> str:
    """The first line of the docstring of the benchmark of that name."""
    source = RESULTS.parent / f"{name}.py"
    if not source.exists():
        raise SystemExit(f"{name}.json has no {source.relative_to(ROOT)} that made it; restore one or remove the other")
    text = ast.get_docstring(ast.parse(source.read_text(encoding="utf-8")))
    if not text:
        raise SystemExit(f"{source.relative_to(ROOT)} has no docstring; begin it with the question that it answers")
    return text.splitlines()[0]


def section(name: str, result: Any) -> str:
    """What the README says about one result."""
    path = f"benchmarks/results/{name}.json"
    script, gpu = name.removesuffix("_gpu"), " --platform gpu" if name.endswith("_gpu") else ""
    parts = [f"**{question(script)}** `python benchmarks/{script}.py -o {path}{gpu}`, [{name}.json]({path})"]
    chosen = result.get("readme") if isinstance(result, dict) else None
    if chosen is None and name in SUMMARIES:
        chosen = SUMMARIES[name](result)
    if chosen is not None:
        parts.append(table(chosen["columns"], chosen["rows"]))
        if chosen.get("note"):
            parts.append(chosen["note"])
    return "\n\n".join(parts)


def markdown() -> str:
    """The whole section."""
    paths = sorted(RESULTS.glob("*.json"))
    return "\n\n".join(section(p.stem, json.loads(p.read_text(encoding="utf-8"))) for p in paths)


def main() -> None:
    """The command line above."""
    parser = argparse.ArgumentParser(description="The figures of the README, from the committed results.")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--check", action="store_true", help="exit with 1 where the README holds something else")
    action.add_argument("--write", action="store_true", help="put them into the README")
    options = parser.parse_args()
    text = markdown()
    if not options.check and not options.write:
        print(text)
        return
    readme = README.read_text(encoding="utf-8")
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"README.md has lost its markers {BEGIN} and {END}; put them back")
    wanted = f"{before}{BEGIN}\n{text}\n{END}{after}" if text else f"{before}{BEGIN}\n{END}{after}"
    if options.write:
        README.write_text(wanted, encoding="utf-8")
    elif readme != wanted:
        sys.exit("README.md and benchmarks/results differ; run: python benchmarks/readme_table.py --write")


if __name__ == "__main__":
    main()
