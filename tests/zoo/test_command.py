"""The command's view of the zoo: `emjax zoo`, and networks as methods of `emjax recover`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from emjax import io, zoo
from emjax.cli import commands, main
from emjax.networks import Network

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """`run("zoo", ...)`: exit code, standard output, standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path / "cache"))

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["emjax", *arguments])
        try:
            main()
        except SystemExit as stop:
            return int(stop.code or 0), *capsys.readouterr()
        return 0, *capsys.readouterr()

    return command


@pytest.fixture
def mine(folder: Path, network: Network) -> str:
    zoo.save(folder / "mine", network, card="# mine\n\nA first line.\n\nMore.\n")
    return "mine"


def test_the_table_and_the_cards(run: Run, mine: str, folder: Path) -> None:
    code, out, _ = run("zoo")
    assert code == 0
    assert "mine" in out and "tiny" in out and "39" in out and "0.00 MB" in out and "A first line." in out
    code, out, _ = run("zoo", "--json")
    row = next(r for r in json.loads(out)["networks"] if r["name"] == mine)
    assert row["kind"] == "tiny" and row["reconstructor"] == "Learned" and row["parameters"] == 39
    assert row["bytes"] == (folder / "mine.safetensors").stat().st_size and row["path"] == str(folder / "mine")
    assert run("zoo", mine) == (0, "# mine\n\nA first line.\n\nMore.\n", "")
    assert json.loads(run("zoo", mine, "--json")[1])["settings"] == {"width": 2, "shape": [4, 5]}
    assert run("zoo", str(folder / "mine")) == run("zoo", mine)
    code, out, err = run("zoo", "magic")
    assert code == 1 and out == "" and "unknown network 'magic'" in err and err.count("\n") == 1


def test_a_network_that_cannot_be_read_is_in_the_table(run: Run, mine: str, folder: Path) -> None:
    (folder / "mine.json").write_text("{")
    code, out, _ = run("zoo")
    assert code == 0 and "cannot be used" in out
    code, _, err = run("zoo", mine)
    assert code == 1 and "no JSON" in err


def test_a_network_without_a_card_can_be_used(run: Run, mine: str, folder: Path) -> None:
    (folder / "mine.md").unlink()
    row = next(r for r in json.loads(run("zoo", "--json")[1])["networks"] if r["name"] == mine)
    assert row["description"].startswith("without a model card: ") and row["bytes"] > 0


def test_recover_takes_networks(run: Run, mine: str, folder: Path, tmp_path: Path) -> None:
    io.write(tmp_path / "scan.tif", np.where(np.arange(768).reshape(32, 24) % 3, np.nan, 0.5).astype(np.float32))
    for method in (mine, str(folder / "mine")):
        code, out, err = run("recover", "scan.tif", "--method", method, "--json")
        assert code == 0, err
        assert json.loads(out)["method"] == method and json.loads(out)["shape"] == [32, 24]
    code, _, err = run("recover", "scan.tif", "--method", mine, "--weight", "0.1")
    assert code == 2 and "the method mine has no weight" in err
    code, _, err = run("recover", "scan.tif", "--method", "./gone")
    assert code == 1 and "gone.json" in err
    code, _, err = run("recover", "scan.tif", "--method", "magic")
    assert code == 2 and "'magic' is none of linear" in err and mine in err
    assert mine in run("info")[1]
    assert (
        commands._methods().endswith("|PATH>") and f"|{mine}|" in commands._methods()
    )  # what --help shows, in a process of its own
