"""The JSON of a benchmark and its Markdown: written whole or not at all, and read again by a run that goes on."""

import json
from pathlib import Path
from typing import Any


def save_report(report: dict[str, Any], table: str, output: Path) -> None:
    """Write a report as JSON and its table as Markdown; a stop in between leaves the last whole ones."""
    output.parent.mkdir(parents=True, exist_ok=True)
    for path, text in ((output, json.dumps(report, indent=1) + "\n"), (output.with_suffix(".md"), table)):
        part = path.with_suffix(path.suffix + ".part")
        part.write_text(text)
        part.replace(path)


def earlier_report(output: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """The report of an earlier run with the same settings, or an empty one."""
    report: dict[str, Any] = json.loads(output.read_text()) if output.is_file() else {}
    return report if report.get("settings") == settings else {}
