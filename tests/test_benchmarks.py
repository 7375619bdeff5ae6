"""The one benchmark of learned recoveries takes over what its parts have measured by themselves, and nothing else."""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1] / "benchmarks"
MACHINE = {"jax": "0", "platform": "cpu", "cpus": 2}


@pytest.fixture
def parts(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(ROOT))
    before = set(sys.modules)
    import learned_parts

    yield learned_parts
    for name in set(sys.modules) - before:
        if str(ROOT) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


def begun(parts: Any, folder: Path, **own: Any) -> dict[str, Any]:
    report: dict[str, Any] = {"environment": MACHINE, "blocks": {}, "prior": {}} | copy.deepcopy(own)
    parts.begin(report, folder / "learned.json", False)
    rows = {"blocks": parts.blocks(report["blocks"])[0], "prior": parts.prior(report["prior"])[0]}
    return report | {"summary": rows}


def write(folder: Path, name: str, of: str, change: Any = lambda report: None) -> dict[str, Any]:
    report: dict[str, Any] = json.loads((ROOT / "results" / of).read_text())
    change(report)
    (folder / name).write_text(json.dumps(report))
    return report


def test_without_results_both_parts_are_empty(parts: Any, tmp_path: Path) -> None:
    report = begun(parts, tmp_path)
    assert report["blocks"]["runs"] == report["prior"]["runs"] == {}
    assert parts.complete(report) == {"blocks": False, "prior": False} and parts.tables(report) == []


def test_results_of_the_same_settings_are_taken_over(parts: Any, tmp_path: Path) -> None:
    blocks = write(tmp_path, "block_sampling.json", "block_sampling.json")
    prior = write(tmp_path, "generative_prior.json", "generative_prior.json")
    report = begun(parts, tmp_path)
    assert report["blocks"]["runs"] == blocks["runs"] and report["blocks"]["summary"] == blocks["summary"]
    assert report["prior"]["runs"] == prior["runs"] and report["prior"]["table"] == prior["table"]
    assert parts.complete(report)["blocks"] == blocks["complete"]
    text = "\n".join(parts.tables(report))
    assert f"{len(prior['runs'])} of {len(prior['runs'])} results are those of generative_prior.json" in text
    assert "| 25% | ista-net-plus | 7 |" in text and "| 50 | 4.9% | CSGM |" in text
    # They stay when the files are gone, and a second time changes nothing.
    again = begun(parts, tmp_path, blocks=report["blocks"], prior=report["prior"])
    assert {k: again[k] for k in ("blocks", "prior")} == {k: report[k] for k in ("blocks", "prior")}
    (tmp_path / "block_sampling.json").unlink()
    alone = begun(parts, tmp_path, blocks=report["blocks"], prior=report["prior"])
    assert alone["blocks"]["runs"] == blocks["runs"] and "taken_over" not in alone["blocks"]


def test_other_settings_and_other_weights_are_not_taken_over(parts: Any, tmp_path: Path) -> None:
    def stale(report: dict[str, Any]) -> None:
        for methods in report["runs"].values():
            methods["deep-inverse"]["sha256"] = "of others"

    write(tmp_path, "block_sampling.json", "block_sampling.json", stale)
    write(tmp_path, "generative_prior.json", "generative_prior.json", lambda r: r["setting"].update(steps=499))
    report = begun(parts, tmp_path)
    methods = {method for methods in report["blocks"]["runs"].values() for method in methods}
    assert "ista-net-plus" in methods and "tv" in methods and "deep-inverse" not in methods
    assert report["prior"]["runs"] == {} and "taken_over" not in report["prior"]
    write(tmp_path, "block_sampling.json", "block_sampling.json", lambda r: r["settings"].update(side=33))
    assert begun(parts, tmp_path)["blocks"]["runs"] == {}
