"""Networks on disk: what is saved is what is loaded, and whatever is wrong with a file is said."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file, save_file

import emjax
from emjax import zoo
from emjax.networks import Network, build
from emjax.operators import PixelSampling
from emjax.zoo.files import WEIGHTS, checksum

CARD = "# tiny\n\nOne convolution, for tests.\n\n## Limits\nAll.\n"


def arrays(network: Network) -> list[np.ndarray]:
    return [np.asarray(v.get_value()) for _, v in nnx.to_flat_state(nnx.state(network, nnx.Param))]


@pytest.fixture
def saved(folder: Path, network: Network) -> Path:
    zoo.save(folder / "mine-v1.2", network, card=CARD, extra={"steps": 7})
    return folder / "mine-v1.2"


def test_what_is_saved_is_what_is_loaded(saved: Path, network: Network) -> None:
    again = zoo.network("mine-v1.2")
    assert type(again) is type(network) and again.settings == network.settings == {"width": 2, "shape": (4, 5)}
    for a, b in zip(arrays(network), arrays(again), strict=True):
        assert b.dtype == np.float32
        np.testing.assert_array_equal(b, a.astype(np.float16).astype(np.float32))
    entry = zoo.entry("mine-v1.2")
    assert entry.parameters == network.parameter_count() == sum(a.size for a in arrays(network))
    assert entry.reconstructor == "Learned" and entry.extra == {"steps": 7} and entry.format == 1
    assert zoo.card("mine-v1.2") == CARD
    stored = load_file(f"{saved}.safetensors")
    assert "layers/0/kernel" in stored and {v.dtype for v in stored.values()} == {np.dtype(np.float16)}
    assert sorted(os.listdir(saved.parent)) == [f"mine-v1.2.{s}" for s in ("json", "md", "safetensors")]


def test_load_by_name_and_by_path(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mask = (np.arange(64).reshape(8, 8) % 3 == 0).astype(np.float32)
    A = PixelSampling(jnp.asarray(mask))
    y = jnp.asarray(mask * np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8))
    recon = emjax.load("mine-v1.2")
    assert recon(y, A).shape == (8, 8)
    monkeypatch.delenv("EMJAX_ZOO")
    monkeypatch.chdir(saved.parent)
    for path in (str(saved), f"{saved}.json", "./mine-v1.2", "mine-v1.2.safetensors"):
        np.testing.assert_array_equal(emjax.load(path)(y, A), recon(y, A))
    assert zoo.read("mine-v1.2").kind == "tiny"  # a path, not a name
    with pytest.raises(ValueError, match=r"unknown network.*takes its path, ./mine"):
        zoo.network("mine-v1.2")


def test_the_users_folder_comes_first(saved: Path, network: Network, tmp_path: Path, monkeypatch: Any) -> None:
    other = tmp_path / "package"
    other.mkdir()
    zoo.save(other / "mine-v1.2", build("tiny", {"width": 5}), card=CARD)
    zoo.save(other / "ours", build("tiny", {"width": 5}), card=CARD)
    monkeypatch.setattr(zoo.files, "WEIGHTS", other)
    assert zoo.names() == ["mine-v1.2", "ours"]  # of these two folders
    assert zoo.network("mine-v1.2").settings["width"] == 2 and zoo.network("ours").settings["width"] == 5


def test_classical_names_come_first_and_unknown_ones_list_both(saved: Path, network: Network) -> None:
    assert type(emjax.load("tv", weight=0.1)).__name__ == "TotalVariation"
    with pytest.raises(
        ValueError, match=r"unknown method 'magic'; there are linear, .*wavelet; and in the zoo .*mine-"
    ):
        emjax.load("magic")
    with pytest.raises(TypeError, match=r"mine-v1\.2 has no setting weight; it has none"):
        emjax.load("mine-v1.2", weight=0.1)
    with pytest.raises(ValueError, match="'tv' is the name of a classical method"):
        zoo.save(saved.with_name("tv"), network, card=CARD)
    with pytest.raises(ValueError, match="no name for a network"):
        zoo.save(saved.with_name("my net"), network, card=CARD)


def edit(path: Path, **changes: Any) -> None:
    file = Path(f"{path}.json")
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in values.items() if v is not ...}))


def replace(path: Path, **changes: Any) -> None:
    """Other arrays, with the checksum put right."""
    stored = load_file(f"{path}.safetensors") | {k.replace("__", "/"): v for k, v in changes.items()}
    save_file({k: v for k, v in stored.items() if v is not ...}, f"{path}.safetensors")
    edit(path, sha256=checksum(Path(f"{path}.safetensors").read_bytes()))


ONES = np.ones((3, 3, 1, 2), np.float16)
FAULTS: dict[str, tuple[Any, str]] = {
    "no parameters": (lambda p: os.remove(f"{p}.safetensors"), "safetensors: cannot be read .*three files"),
    "cut off": (lambda p: os.truncate(f"{p}.safetensors", 99), "SHA-256.*damaged or another network's"),
    "one bit": (
        lambda p: Path(f"{p}.safetensors").write_bytes(
            bytes([(d := Path(f"{p}.safetensors").read_bytes())[0] ^ 1]) + d[1:]
        ),
        "SHA-256",
    ),
    "text": (
        lambda p: (
            Path(f"{p}.safetensors").write_bytes(b"no tensors here"),
            edit(p, sha256=checksum(b"no tensors here")),
        ),
        "no safetensors file",
    ),
    "no JSON": (lambda p: Path(f"{p}.json").write_text("{"), "no JSON"),
    "a list": (lambda p: Path(f"{p}.json").write_text("[1]"), "does not describe a network"),
    "newer": (lambda p: edit(p, format=2), "format 2 by a newer emjax.*update"),
    "no checksum": (lambda p: edit(p, sha256=...), "no 'sha256'"),
    "settings are a list": (lambda p: edit(p, settings=[1]), r"\[1\] for 'settings'"),
    "kind": (lambda p: edit(p, kind="other"), "no network 'other', only .*tiny"),
    "unknown setting": (lambda p: edit(p, settings={"depth": 2}), "tiny has no setting depth; it has width, shape"),
    "bad setting": (lambda p: edit(p, settings={"width": 0}), "cannot be built.*width is 1 or more"),
    "odd setting": (lambda p: edit(p, settings={"width": "x"}), "cannot be built"),
    "other width": (lambda p: edit(p, settings={"width": 7}), "layers/0/bias has shape.*not of one network"),
    "other count": (lambda p: edit(p, parameters=-1), "parameters, mine-v1.2.json says -1"),
    "reconstructor": (lambda p: edit(p, reconstructor="Magic"), "no reconstructor 'Magic'"),
    "none": (lambda p: edit(p, reconstructor=None), "recovers nothing by itself"),
    "NaN": (lambda p: replace(p, layers__0__kernel=ONES * np.float16(np.nan)), "layers/0/kernel holds NaN"),
    "shape": (lambda p: replace(p, layers__0__kernel=ONES[:2]), "layers/0/kernel has shape"),
    "missing": (lambda p: replace(p, layers__0__kernel=...), "lacks layers/0/kernel; it is not that of this tiny"),
    "foreign": (lambda p: replace(p, head__kernel=ONES), "has unknown head/kernel"),
    "integers": (lambda p: replace(p, layers__0__kernel=ONES.astype(np.int32)), "is int32"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named(saved: Path, fault: str) -> None:
    spoil, message = FAULTS[fault]
    spoil(saved)
    with pytest.raises(ValueError, match=f"mine-v1.2.*{message}"):
        emjax.load("mine-v1.2")


def test_a_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EMJAX_ZOO", str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"EMJAX_ZOO=.*no such folder"):
        zoo.names()
    with pytest.raises(ValueError, match=r"no\.json: cannot be read .*three files"):
        emjax.load(str(tmp_path / "no"))


def test_what_cannot_be_kept_is_not_saved(folder: Path, tiny: type[Network]) -> None:
    for value, message in ((np.nan, "NaN or infinity"), (1e5, "beyond 65504")):
        network = tiny(rngs=nnx.Rngs(0))
        network.layers[0].bias[...] = jnp.full(3, value)
        with pytest.raises(ValueError, match=f"layers/0/bias holds .*{message}"):
            zoo.save(folder / "bad", network, card=CARD)
    network = tiny(rngs=nnx.Rngs(0))
    network.width = 4
    with pytest.raises(ValueError, match=r"could not be read again: .*shape"):
        zoo.save(folder / "bad", network, card=CARD)
    network.width = 3
    for extra in ({"a": {1}}, {"a": float("nan")}):
        with pytest.raises(ValueError, match="for JSON"):
            zoo.save(folder / "bad", network, card=CARD, extra=extra)
    with pytest.raises(ValueError, match=r"the folder .* is missing"):
        zoo.save(folder / "deep" / "bad", network, card=CARD)
    assert os.listdir(folder) == []


def test_names_and_cards_load_no_jax(saved: Path) -> None:
    code = (
        "import sys; from emjax import zoo; assert zoo.card('mine-v1.2')\n"
        "assert next(r['parameters'] for r in zoo.table() if r['name'] == 'mine-v1.2') == 39\n"
        "print([n for n in ('jax', 'flax', 'safetensors', 'numpy') if n in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['numpy']", done.stderr


@pytest.mark.parametrize("name", sorted(p.stem for p in WEIGHTS.glob("*.json")))
def test_the_networks_of_the_package(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loads, is described, and all of them together are small."""
    monkeypatch.delenv("EMJAX_ZOO", raising=False)
    network, entry = zoo.network(name), zoo.entry(name)
    assert network.parameter_count() == entry.parameters and network.kind == entry.kind
    assert zoo.files.summary(zoo.card(name)) and (entry.reconstructor is None or emjax.load(name))
    assert sum(p.stat().st_size for p in WEIGHTS.glob("*.safetensors")) <= 6e6


def test_the_cards_say_what_was_measured() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "model_cards.py"
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
