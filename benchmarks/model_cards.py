"""Are the test figures in the model cards those that were measured?

    python benchmarks/model_cards.py [--write]

Each card of the zoo has a section between two markers, made of learned_vs_iterative.json, block_sampling.json and
generative_prior.json.
Without `--write` nothing changes, and the exit code is 1 where a section is not what the JSON says.
"""

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
CARDS = Path(__file__).parents[1] / "emjax" / "zoo" / "weights"
BEGIN, END = "<!-- test figures: begin -->", "<!-- test figures: end -->"
SCANS, BLOCKS, PRIORS = ("scan-compact", "scan-full"), ("ista-net-plus", "deep-inverse"), ("csgm-vae",)


def table(head: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in [head, ["---"] * len(head), *rows]]


def scans(name: str) -> list[str]:
    """Means over images and draws."""
    report = json.loads((RESULTS / "learned_vs_iterative.json").read_text())

    def mean(ratio: float, noise: float, method: str) -> str:
        cases = [v for k, v in report["quality"].items() if k.endswith(f"ratio {ratio:.2f}, noise {noise:.2f}")]
        return f"{statistics.mean(statistics.mean(e['psnr'] for e in case[method]) for case in cases):.2f}"

    methods = (f"{name}, told", f"{name}, estimated", "spectral, oracle")
    scans = sorted({(ratio, noise) for _, _, ratio, noise in report["settings"]["quality"]}, key=lambda s: s[::-1])
    rows = [[f"{ratio:.0%}", f"{noise:g}", *(mean(ratio, noise, m) for m in methods)] for ratio, noise in scans]
    gains: dict[str, list[float]] = {}
    for key, found in report["unseen"].items():
        gains.setdefault(key.partition(":")[0], []).append(found[name]["psnr"] - found["spectral"]["psnr"])
    text = ", ".join(f"{kind} {statistics.mean(v):+.2f} (worst {min(v):+.2f})" for kind, v in gains.items())
    return [
        "PSNR in dB, means over seven crops of 512 x 512 pixels of the test parts and three draws of random pixels",
        "(learned_vs_iterative.json), beside the classical method that is best there, with its oracle's weight.",
        "",
        *table(["pixels", "noise", "noise told", "noise estimated", "spectral, oracle's weight"], rows),
        "",
        f"Gain over `spectral` (automatic) on other images, dB: {text}.",
        "",
    ]


def blocks(name: str) -> list[str]:
    """Means over images."""
    report: dict[str, Any] = json.loads((RESULTS / "block_sampling.json").read_text())
    methods = (name, "linear", "tv", "wavelet")
    found = {(row["ratio"], row["method"]): row["psnr"] for row in report["summary"]}
    ratios = sorted({ratio for ratio, _ in found})
    rows = [[f"{ratio:.0%}", *(f"{found[ratio, method]:.2f}" for method in methods)] for ratio in ratios]
    return [
        "PSNR in dB, means over seven crops of 264 x 264 pixels of the test parts (block_sampling.json), beside the",
        "linear estimate of least error and the iterative methods with their oracle's weights.",
        "",
        *table(["measured", *methods], rows),
        "",
    ]


def priors(name: str) -> list[str]:
    """Means over patches."""
    report: dict[str, Any] = json.loads((RESULTS / "generative_prior.json").read_text())
    columns = [column.replace(" (squared error x 1e4)", "") for column in report["readme"]["columns"][:-1]]
    rows = [[f"{row[0]}", *(f"{value:.2f}" for value in row[1:-1])] for row in report["readme"]["rows"]]
    return [
        "Mean squared error of a pixel, times 10^4, of 100 test patches of 32 x 32 pixels from so many Gaussian",
        "measurements (generative_prior.json): with the deviations' mean, of the decoder alone, of DCT-LASSO with its",
        "oracle's weight, and of the linear estimate of least error. The decoder cannot come below",
        f"{1e4 * report['mean_floor']:.2f}.",
        "",
        *table(columns, rows),
        "",
    ]


def section(name: str) -> str:
    lines = scans(name) if name in SCANS else blocks(name) if name in BLOCKS else priors(name)
    return "\n".join([BEGIN, "## Test figures", "", *lines, END])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the sections into the cards")
    write = parser.parse_args().write
    wrong = 0
    for name in (*SCANS, *BLOCKS, *PRIORS):
        path = CARDS / f"{name}.md"
        text = path.read_text(encoding="utf-8")
        before, _, rest = text.partition(BEGIN)
        _, found, after = rest.partition(END)
        if not found:
            print(f"{path}: it has no {BEGIN} and {END} after it", file=sys.stderr)
            return 2
        new = before + section(name) + after
        if new != text:
            wrong += 1
            print(f"{path.name}: {'rewritten' if write else 'not what the JSON says; run this with --write'}")
            if write:
                path.write_text(new, encoding="utf-8")
    return int(wrong > 0 and not write)


if __name__ == "__main__":
    sys.exit(main())
