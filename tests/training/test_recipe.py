"""Recipes: what is wrong with one is said with the key that is wrong."""

import copy
import tomllib
from pathlib import Path

import pytest

from emjax.training import TASKS, Recipe, load_recipe, recipes
from emjax.training.loop import build
from emjax.training.recipe import FOLDER, parse_recipe

INF, NAN = float("inf"), float("nan")
TABLE = {
    "network": {"kind": "dncnn", "width": 4, "depth": 2},
    "task": {"kind": "denoise"},
    "data": {"train": [{"phantom": {"size": 32}}], "validation": [{"files": "a.tif"}], "crop": 16, "batch": 2},
    "run": {"steps": 3},
}


def with_(path: str, value: object) -> dict:
    table = copy.deepcopy(TABLE)
    place = table
    *parts, last = path.split(".")
    for part in parts:
        place = place.setdefault(part, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return table


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("optimizer", {}, r"unknown table \[optimizer\]"),
        ("data.patch", 3, r"\[data\] has no key 'patch'"),
        ("data.augment.gian", 0.1, r"\[data.augment\] has no key 'gian'"),
        ("data.crop", None, r"\[data\] lacks the key 'crop'"),
        ("data.crop", 1.5, "data.crop is a whole number, got 1.5"),
        ("run.steps", 2**31, "run.steps is a whole number above 0, up to 2,147,483,647, got 2147483648"),
        ("data.crop", 0, "data.crop is a whole number above 0"),
        ("data.train", [], "data.train is an empty list"),
        ("data.train", "x.tif", "data.train is a list"),
        ("data.train", [{}], r"data.train\[0\] needs either files or phantom"),
        ("data.train", [{"files": "a", "wieght": 2}], r"\[data.train\[0\]\] has no key 'wieght'"),
        (
            "data.train",
            [{"phantom": {"sise": 32}}],
            r"\[data.train\[0\].phantom\] has no key 'sise'; it has count, size, seed",
        ),
        ("data.validation", [{"phantom": {"size": 32.5}}], r"data.validation\[0\].phantom.size is a whole number"),
        ("data.train", [{"phantom": {"count": 0}}], r"data.train\[0\].phantom.count is a whole number above 0, got 0"),
        ("data.train", [{"phantom": {}, "rows": "2:"}], r"data.train\[0\].rows cuts a part out of files"),
        ("data.augment.gain", 2, "data.augment.gain is a number in"),
        ("data.train", [{"files": "a", "scan": {}}], r"\[data.train\[0\].scan\] lacks the key 'ratio'"),
        ("data.train", [{"files": "a", "scan": {"ratio": 0}}], r"data.train\[0\].scan.ratio is a share"),
        ("data.train", [{"files": "a", "scan": {"ratio": 0.5, "noise": -1}}], r"data.train\[0\].scan.noise is"),
        ("data.train", [{"files": "a", "scan": {"ratio": 1, "seed": -1}}], r"data.train\[0\].scan.seed is"),
        ("data.train", [{"files": "a", "scan": {"ratio": 1}}, {"files": "b"}], r"data.train\[1\] has no scan"),
        ("data.validation", [{"files": "a", "scan": {"ratio": 1}}], r"data.validation\[0\].scan: validation"),
        ("optimiser.learning_rate", -1, "optimiser.learning_rate"),
        ("optimiser.ema", 1, "optimiser.ema"),
        ("run.compute", "float16", "run.compute"),
        ("run.seed", True, "run.seed is a whole number, got True"),
        ("network.kind", None, r"\[network\] needs kind"),
        ("task", 3, "task is a table"),
    ],
)
def test_a_wrong_recipe_is_an_error_that_names_the_key(path: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse_recipe(with_(path, value), "r")


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("network.kind", "nonet", r"\[network\] of r: unknown network 'nonet'"),
        ("network.widht", 3, r"\[network\] of r: .*widht"),
        ("network.width", "4", r"\[network\] of r: dncnn: width is a whole number, got '4'"),
        ("network.width", 4.5, r"\[network\] of r: dncnn: width is a whole number, got 4.5"),
        ("network.depth", True, r"\[network\] of r: dncnn: depth is a whole number, got True"),
        ("network", {"kind": "scan", "widths": 8}, r"scan: widths is a list, each a whole number, got 8"),
        ("network", {"kind": "scan", "widths": ["a"]}, r"scan: widths is a list, each a whole number, got \('a',\)"),
        ("network", {"kind": "ista-net", "start": 3}, "ista-net: start is a text, got 3"),
        ("task.kind", "notask", r"\[task\] of r: unknown task 'notask'; there are block, denoise"),
        (
            "task.kind",
            "scan",
            r"\[task\] of r: scan trains scan networks, kind = \"scan\", not \[network\] kind = 'dncnn'",
        ),
        ("task.kind", "vae", "vae trains variational auto-encoders"),
        ("task", {"kind": "block", "ratios": [0.1], "block": 4}, "block trains networks that invert an operator"),
        ("network", {"kind": "scan"}, "denoise trains denoisers such as"),
        ("task.sgima", 3, r"\[task\] has no key 'sgima'"),
        ("task.sigma", [0.2, 0.1], "task.sigma"),
        ("task.sigma", [0.2], "task.sigma is a list of 2"),
        ("task.loss_name", "l7", "task.loss_name"),
        ("task", {"kind": "scan", "patterns": ["swirl"]}, "task.patterns: unknown scan pattern 'swirl'"),
        ("task", {"kind": "scan", "pattern_weights": [1.0]}, "task.pattern_weights has one weight"),
        ("task", {"kind": "scan", "pattern_weights": [1.0, 0.1, -0.1, 0.0]}, "task.pattern_weights has one weight"),
        ("task", {"kind": "scan", "noise": [0.0, INF]}, "task.noise is two noise levels, finite"),
        ("task", {"kind": "scan", "added": [NAN, 0.1]}, "task.added is two noise levels, finite"),
        ("task", {"kind": "scan", "sigma": INF}, "task.sigma is finite and 0 or above, got inf"),
        ("task", {"kind": "scan", "noise_power": 0.0}, "task.noise_power is a number above 0"),
        ("task", {"kind": "scan", "misjudged": -0.1}, "task.misjudged is finite and 0 or above"),
        ("task", {"kind": "scan", "test_noise": [0.0, NAN]}, "task.test_noise is finite and 0 or above"),
        ("task.sigma", [0.0, INF], "task.sigma"),
        ("task", {"kind": "scan", "seen": [0.5, 1.0]}, "task.seen is two shares"),
        ("task", {"kind": "scan", "test_ratios": [0.0]}, "task.test_ratios are shares"),
    ],
)
def test_a_wrong_network_or_task_is_an_error_that_names_it(path: str, value: object, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(parse_recipe(with_(path, value), "r"))


@pytest.mark.parametrize("key", ["gamma", "binning", "blurred"])
def test_scans_allow_no_changes_of_their_noise(key: str) -> None:
    table = with_("data.train", [{"files": "a", "scan": {"ratio": 0.5}}])
    table["data"]["augment"] = {key: 0.1}
    with pytest.raises(ValueError, match=f"data.augment.{key} would change the noise"):
        parse_recipe(table, "r")


def test_scans_and_images_go_to_tasks_that_take_them() -> None:
    with pytest.raises(ValueError, match=r"learns from whole images, and data.train gives scans"):
        build(parse_recipe(with_("data.train", [{"files": "a", "scan": {"ratio": 0.5}}]), "r"))
    with pytest.raises(ValueError, match=r"learns from scans, and data.train gives whole images"):
        build(parse_recipe(with_("task", {"kind": "scan", "truth": False}), "r"))


def test_names_and_files_of_recipes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no recipe 'nothing'; there are .*denoise-phantom"):
        load_recipe("nothing")
    with pytest.raises(ValueError, match="cannot be read: No such file"):
        load_recipe(tmp_path / "a.toml")
    (tmp_path / "a.toml").write_text("[network\n")
    with pytest.raises(ValueError, match="no TOML"):
        load_recipe(tmp_path / "a.toml")
    assert load_recipe("denoise-phantom", seed=3, steps=None).run.seed == 3


@pytest.mark.parametrize("name", sorted(recipes()))
def test_recipes_of_the_package_are_sound(name: str) -> None:
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    assert recipe.task["kind"] in TASKS
    assert recipes()[name], f"{name}.toml begins with a comment: what it trains"
    assert set(tomllib.loads((FOLDER / f"{name}.toml").read_text())) >= {"network", "task", "data", "run"}
