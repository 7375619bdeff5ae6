"""`emjax train`: the report, the files, and one line for whatever is wrong."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emjax import zoo
from emjax.cli import main
from emjax.training import Result, recipes

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`run(...)`, the arguments of `emjax train`: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(cache))

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["emjax", "train", *map(str, arguments)])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return command


def test_a_training_and_its_report(run: Run, toml: Path, whole: Result, tmp_path: Path) -> None:
    code, out, err = run(toml, "--json", "--cache", "images.npz")
    assert code == 0, err
    report = json.loads(out)
    assert report["steps"] == 12 and report["validation"] == whole.scores and err == ""
    assert report["output"] == "tiny/tiny" and report["weights"] == "tiny/tiny-float32.safetensors"
    there = {"checkpoints", "log.jsonl", "plot.png", "tiny-float32.safetensors"}
    assert {p.name for p in (tmp_path / "tiny").iterdir()} == there | {
        f"tiny{s}" for s in (".safetensors", ".json", ".md")
    }
    assert zoo.network(report["output"]).kind == "dncnn" and (tmp_path / "images.npz").exists()
    code, out, err = run(toml, "--cache", "images.npz")  # nothing is left to do
    assert code == 0 and "going on from step 12 of 12" in err and "steps: 12" in out.splitlines()
    code, out, err = run(toml, "--steps", "6", "--no-checkpoints", "--output", "second", "--init", report["weights"])
    assert code == 0 and "step 6 of 6: loss" in err and not (tmp_path / "second" / "checkpoints").exists()
    assert np.isfinite(json.loads((tmp_path / "second" / "log.jsonl").read_text().splitlines()[-1])["psnr"])


def test_the_recipes_are_listed(run: Run) -> None:
    assert json.loads(run("--list", "--json")[1]) == recipes()
    assert [line.split("  ")[0].strip() for line in run("--list")[1].splitlines()] == list(recipes())


@pytest.mark.parametrize(
    ("arguments", "expected", "said"),
    [
        ((), 2, "give a recipe (--list"),
        (("nothing",), 1, "no recipe 'nothing'"),
        (("gone.toml",), 1, "gone.toml: the recipe cannot be read"),
        (("denoise-phantom", "--steps", "3", "--minutes", "1"), 2, "either --steps or --minutes"),
        (("denoise-phantom", "--minutes", "-1"), 2, "--minutes is how long to train"),
        (("denoise-phantom", "--steps", "0"), 2, "--steps"),
        (("denoise-phantom", "--steps", str(2**31)), 1, "steps at most 2,147,483,647"),
        (("scan-compact", "--data", "gone"), 2, "--data gone: there is no such folder"),
        (("files.toml",), 1, "say which (--data)"),
        (("denoise-phantom", "--cache", "images.zip"), 2, "the cache is an .npz file"),
        (("files.toml", "--init", "gone.safetensors"), 1, "gone.safetensors: the weights cannot be read"),
    ],
)
def test_what_is_wrong_is_one_line(run: Run, toml: Path, arguments: tuple, expected: int, said: str) -> None:
    Path("files.toml").write_text(toml.read_text().replace("phantom = { count = 2, size = 48 }", 'files = "*.tif"'))
    code, out, err = run(*arguments)
    assert code == expected and out == "" and said in " ".join(err.split()) and "Traceback" not in err
