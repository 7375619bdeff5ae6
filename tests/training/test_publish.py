"""What a training leaves to be used, and what it tells on the way: the network of the zoo, its card, progress."""

import sys
from pathlib import Path

import numpy as np
import pytest

from emjax import zoo
from emjax.training import Recipe, Result, journal, load_recipe, train
from emjax.training import parameters as par
from emjax.training.publish import card


def test_the_network_is_one_of_the_zoo(whole: Result, recipe: Recipe) -> None:
    network = zoo.network(str(whole.model))
    assert network.settings == whole.network.settings
    for key, value in par.named(par.split(network)[1]).items():
        np.testing.assert_array_equal(value, par.named(par.split(whole.network)[1])[key].astype(np.float16))
    entry = zoo.entry(whole.model)
    assert entry.extra["steps"] == 12 and entry.extra["validation"] == whole.scores
    assert entry.extra["recipe"]["data"]["crop"] == 16
    text = zoo.card(whole.model)
    assert text.startswith("# tiny\n\nThe first line says what it is.\n")
    assert "| command | `emjax train tiny.toml --steps 12` |" in text
    assert f"| psnr | {whole.scores['psnr']:.4g} |" in text and "1 x cpu" in text
    assert "- training: phantoms (count = 2, size = 48)" in text and "*to be written*" in text


@pytest.mark.parametrize("name", ["scan-compact-blind", "denoise-phantom"])
def test_cards_of_the_recipes(name: str, whole: Result) -> None:
    recipe = load_recipe(name, seed=3)
    text = card(whole.network, recipe, {}, 7, ["A", "A", "B"])
    assert recipe.about in text and "2 x A, 1 x B" in text
    data = " --data FOLDER" if name.startswith("scan") else ""
    assert f"`emjax train {name}{data} --steps 7 --seed 3`" in text
    assert ("one scan of 0.25 of the pixels, noise 0.05" in text) == name.startswith("scan")


def test_a_name_that_no_network_may_have_is_refused_at_once(toml: Path, tmp_path: Path) -> None:
    for name, said in (("tv", "name of a classical method"), ("a b", "is no name for a network")):
        (tmp_path / f"{name}.toml").write_text(toml.read_text())
        with pytest.raises(ValueError, match=said):
            train(load_recipe(tmp_path / f"{name}.toml"), tmp_path / "out", quiet=True)
    assert not (tmp_path / "out").exists()


def test_progress_is_lines_without_rich_or_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    for missing in (True, False):
        with monkeypatch.context() as patch:
            if missing:
                for name in ("rich", "rich.console", "rich.progress"):
                    patch.setitem(sys.modules, name, None)
                patch.setattr(sys.stderr, "isatty", lambda: True)
            with journal.progress(100, 5, False) as shown:
                for step in (10, 20, 100):
                    shown.show(step, f"loss {step}")
                shown.say("a line")
        # The second comes too soon after the first; the last step is always told.
        assert capsys.readouterr().err == "step 10 of 100: loss 10\nstep 100 of 100: loss 100\na line\n"
    with journal.progress(100, 0, True) as shown:
        shown.show(100, "loss")
        shown.say("a line")
    assert capsys.readouterr().err == ""


def test_progress_is_a_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("rich")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with journal.progress(100, 0, False) as shown:
        shown.show(40, "loss 0.25")
        shown.say("a line")
    err = capsys.readouterr().err
    assert "loss 0.25" in err and "40/100" in err and "a line" in err


def test_nothing_is_said_where_there_is_no_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    with journal.progress(10, 0, False) as shown:
        shown.show(10, "loss")


def test_a_log_that_was_cut_off_goes_on(tmp_path: Path) -> None:
    log = journal.Journal(tmp_path / "log.jsonl", 0, {"head": 1})
    for step in (1, 2, 3):
        log.add({"step": step, "loss": 1 / step})
    with open(log.path, "a") as file:
        file.write('{"step": 4, "lo')
    again = journal.Journal(log.path, 2, {"head": 2})
    assert again.entries == [{"head": 1}, {"step": 1, "loss": 1.0}, {"step": 2, "loss": 0.5}]
    assert len(log.path.read_text().splitlines()) == 3
