"""Training: it learns, goes on bit by bit after a stop, trains parameters only, and any number of devices agree."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from emjax.networks import NETWORKS, Network
from emjax.training import Recipe, Result, train
from emjax.training import parameters as par
from emjax.training.checkpoints import Checkpoints
from emjax.training.step import Validation


def entries(result: Result, key: str) -> list[Any]:
    lines = [json.loads(line) for line in result.log.read_text().splitlines()]
    return [line[key] for line in lines if key in line]


def weights(result: Result) -> dict[str, np.ndarray]:
    return par.named(nnx.state(result.network, nnx.Param))


def same(a: Result, b: Result) -> bool:
    return all(np.array_equal(v, weights(b)[k]) for k, v in weights(a).items())


def changed(recipe: Recipe, **run: Any) -> Recipe:
    return dataclasses.replace(recipe, run=dataclasses.replace(recipe.run, **run))


def test_what_a_training_leaves(recipe: Recipe, whole: Result) -> None:
    assert whole.steps == 12 and entries(whole, "step") == [3, 6, 6, 9, 12, 12]
    assert entries(whole, "psnr")[-1] == whole.scores["psnr"] > 15
    assert whole.plot.read_bytes().startswith(b"\x89PNG")
    assert whole.weights.name == "tiny-float32.safetensors"
    shell = nnx.state(whole.network, nnx.Param)
    read = par.named(par.read(whole.weights, shell))
    assert all(np.array_equal(v, read[k]) and v.dtype == np.float32 for k, v in weights(whole).items())
    assert entries(whole, "parameters") == [whole.network.parameter_count()]


def test_it_learns(recipe: Recipe, tmp_path: Path) -> None:
    longer = changed(recipe, steps=120, inner=20, log_every=120, validate_every=120)
    result = train(longer, tmp_path, checkpoints=False, quiet=True)
    assert result.scores["psnr"] > result.scores["psnr_noisy"] + 2
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_stopped_training_goes_on_bit_by_bit(
    recipe: Recipe, whole: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    validate = Validation.__call__

    def stop(self: Validation, *args: Any) -> dict[str, float]:
        signal.raise_signal(number)
        return validate(self, *args)

    before = signal.signal(number, signal.default_int_handler)
    try:
        monkeypatch.setattr(Validation, "__call__", stop)
        with pytest.raises(KeyboardInterrupt):
            train(recipe, tmp_path, quiet=True)
    finally:
        signal.signal(number, before)
        monkeypatch.undo()
    result = train(recipe, tmp_path, quiet=True)
    assert same(result, whole)
    assert entries(result, "loss") == entries(whole, "loss")
    assert entries(result, "step") == entries(whole, "step")


def test_a_killed_training_goes_on_from_its_last_checkpoint(recipe: Recipe, whole: Result, tmp_path: Path) -> None:
    shutil.copytree(whole.weights.parent / "checkpoints", tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "checkpoints" / "12")  # as if killed after step 8
    result = train(recipe, tmp_path, quiet=True)
    assert same(result, whole)
    assert entries(result, "step") == [9, 12, 12]
    again = train(recipe, tmp_path, quiet=True)  # nothing is left to do
    assert same(again, whole) and again.scores == result.scores


def test_a_checkpoint_of_another_training_is_refused(recipe: Recipe, whole: Result) -> None:
    folder = whole.weights.parent
    with pytest.raises(ValueError, match=r"another recipe \(or seed\)"):
        train(changed(recipe, seed=1), folder, quiet=True)
    with pytest.raises(ValueError, match="training of 12 steps, not 13"):
        train(recipe, folder, steps=13, quiet=True)
    with pytest.raises(ValueError, match="either a number of steps or of minutes"):
        train(recipe, folder, steps=13, minutes=1.0, quiet=True)


def test_a_training_goes_on_with_the_weights_it_started_from_only(
    recipe: Recipe, whole: Result, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=r"did not start from these weights \(--init\); leave them out to go on"):
        train(recipe, whole.weights.parent, init=whole.weights, quiet=True)
    first = train(recipe, tmp_path, steps=3, init=whole.weights, quiet=True)
    for init in (whole.weights, None):  # nothing is left to do
        assert same(train(recipe, tmp_path, init=init, quiet=True), first)
    other = tmp_path / "other.safetensors"
    other.write_bytes(first.weights.read_bytes())
    with pytest.raises(ValueError, match="did not start from these weights"):
        train(recipe, tmp_path, init=other, quiet=True)
    other.write_bytes(b"no")
    with pytest.raises(ValueError, match="no safetensors file"):
        train(recipe, tmp_path, init=other, restart=True, quiet=True)
    assert same(train(recipe, tmp_path, quiet=True), first)  # a --restart that failed has forgotten nothing


def test_steps_inside_one_call_are_the_same_steps(recipe: Recipe, whole: Result, tmp_path: Path) -> None:
    result = train(changed(recipe, inner=5), tmp_path, checkpoints=False, quiet=True)
    for key, value in weights(whole).items():
        np.testing.assert_allclose(weights(result)[key], value, atol=1e-5)
    np.testing.assert_allclose(entries(result, "loss"), entries(whole, "loss"), rtol=1e-5)


def test_bfloat16_computes_otherwise_and_keeps_float32(recipe: Recipe, whole: Result, tmp_path: Path) -> None:
    result = train(changed(recipe, compute="bfloat16"), tmp_path, checkpoints=False, quiet=True)
    assert not same(result, whole)
    for key, value in weights(whole).items():
        assert weights(result)[key].dtype == np.float32
        np.testing.assert_allclose(weights(result)[key], value, atol=0.02)


def test_minutes_fix_the_number_of_steps(recipe: Recipe, tmp_path: Path) -> None:
    few = changed(recipe, validate_every=10_000, log_every=10_000)
    result = train(few, tmp_path, minutes=0.025, checkpoints=False, quiet=True)
    assert result.steps >= 1 and entries(result, "steps") == [result.steps]
    assert result.seconds < 20


def test_a_training_starts_from_given_weights(recipe: Recipe, whole: Result, tmp_path: Path) -> None:
    shell = par.split(whole.network)[1]
    given = par.read(whole.model.with_suffix(".safetensors"), shell)  # float16 will do, too
    for key, value in weights(whole).items():
        np.testing.assert_allclose(par.named(given)[key], value, rtol=1e-3, atol=1e-6)
    par.write(tmp_path / "off.safetensors", jax.tree.map(lambda p: p + 1, given))
    result = train(recipe, tmp_path, steps=3, init=tmp_path / "off.safetensors", checkpoints=False, quiet=True)
    assert entries(result, "loss")[0] > 5 * entries(whole, "loss")[0]  # of the same patches
    other = dataclasses.replace(recipe, network={**recipe.network, "width": 5})
    with pytest.raises(ValueError, match=r"weights of another network: layers/0/bias is \(4,\) in the file, \(5,\)"):
        train(other, tmp_path, init=whole.weights, quiet=True)
    (tmp_path / "bad.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="no safetensors file"):
        train(recipe, tmp_path, init=tmp_path / "bad.safetensors", checkpoints=False, quiet=True)


def test_no_array_but_parameters_is_trained(recipe: Recipe, tmp_path: Path) -> None:
    class Holder(Network):
        kind = "holder-of-an-operator"

        def __init__(self, *, rngs: nnx.Rngs):
            self.matrix = nnx.data(jnp.ones((16, 16)))
            self.fixed = nnx.Variable(jnp.full((), 0.5))
            self.gain = nnx.Param(jnp.ones(()))

        def __call__(self, v: Any, sigma: Any) -> Any:  # type: ignore[override]
            return self.gain[...] * (self.matrix * v + self.fixed[...])

    try:
        held = dataclasses.replace(recipe, network={"kind": Holder.kind})
        network = train(held, tmp_path, steps=3, checkpoints=False, quiet=True).network
    finally:
        del NETWORKS[Holder.kind]
    np.testing.assert_array_equal(network.matrix, np.ones((16, 16)))
    assert float(network.fixed[...]) == 0.5 and float(network.gain[...]) != 1


def test_an_output_that_is_no_folder(recipe: Recipe, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="file: no folder can be made there"):
        train(recipe, tmp_path / "file", quiet=True)


def test_a_full_disk_is_called_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: [OS error 28: No space left on device] while writing")

    store = Checkpoints(tmp_path / "checkpoints")
    monkeypatch.setattr(type(store._open()), "save", full)
    with pytest.raises(ValueError, match=r"the checkpoint of step 5 cannot be written .the disk is full"):
        store.save(5, {"a": jnp.zeros(3)}, {})
    store.close()


def test_a_loss_that_is_not_finite_ends_the_training(recipe: Recipe, whole: Result, tmp_path: Path) -> None:
    wild = jax.tree.map(lambda p: 1e30 * (1 + p), par.split(whole.network)[1])
    par.write(tmp_path / "wild.safetensors", wild)
    with pytest.raises(ValueError, match=r"the loss is (nan|inf) at step 3"):
        train(recipe, tmp_path, init=tmp_path / "wild.safetensors", checkpoints=False, quiet=True)


@pytest.mark.slow
def test_two_devices_share_a_batch(toml: Path, whole: Result, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from emjax.training import load_recipe, train; import jax\n"
        "assert len(jax.devices()) == 2\n"
        f"train(load_recipe({str(toml)!r}), Path({str(tmp_path)!r}), checkpoints=False, quiet=True)"
    )
    flags = "--xla_backend_optimization_level=0 --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = dataclasses.replace(whole, log=tmp_path / "log.jsonl")
    np.testing.assert_allclose(entries(result, "loss"), entries(whole, "loss"), rtol=1e-5)
    assert len(entries(result, "devices")[0]) == 2


def test_devices_must_share_evenly(recipe: Recipe, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="batch is 4, which 3 devices cannot share"):
        train(recipe, tmp_path, devices=jax.devices() * 3, checkpoints=False, quiet=True)
