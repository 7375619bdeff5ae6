"""The training loop: compiled steps, and between them validation, log and checkpoints.

    result = train(load_recipe("denoise-phantom"), Path("runs/denoise"))

A training that is stopped (Ctrl-C, SIGTERM) writes a checkpoint first; the same call then goes on from it.
"""

import contextlib
import dataclasses
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from emjax import zoo
from emjax.training import data as images_of
from emjax.training import parameters as par
from emjax.training.checkpoints import Checkpoints, fingerprint
from emjax.training.journal import Journal, progress
from emjax.training.publish import precise, publish
from emjax.training.recipe import LIMIT, Recipe
from emjax.training.step import Validation, initial, training_step
from emjax.training.tasks import TASKS, Task

RESERVE = 0.97  # of the time that --minutes gives: for the last checkpoint, the plot and the weights


@dataclasses.dataclass(frozen=True)
class Result:
    """A finished training: the network with averaged weights, its last validation, and where the files are.

    model: what `emjax.load` or `emjax.zoo.network` takes. weights: the same parameters in float32, for `init`.
    """

    network: Any = dataclasses.field(repr=False)
    scores: dict[str, float]
    steps: int
    seconds: float
    model: Path
    weights: Path
    log: Path
    plot: Path


def train(
    recipe: Recipe,
    output: Path,
    *,
    data: Path | None = None,
    cache: Path | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    init: Path | None = None,
    restart: bool = False,
    checkpoints: bool = True,
    quiet: bool = False,
    devices: Any = None,
) -> Result:
    """Train the network of a recipe into the folder `output`, which is made if need be.

    The network (see `publish`), NAME being the recipe's, is written at every validation, so that one can look at it
    before the end; further files are log.jsonl and, at the end, plot.png.

    Args:
        recipe: see `load_recipe`. data: the folder of its files. cache: an .npz file in place of them (written if it
            is not there). steps: in place of the recipe's. minutes: how long; the number of steps follows from the
            time of one, and is then fixed, in the checkpoint too.
        init: start from these weights (.safetensors); a training goes on from its checkpoint only with those, or
            without saying any. restart: forget the checkpoint in `output`, if there is one.
        checkpoints: whether to write any. quiet: no progress. devices: those that share a batch; default: all.

    Raises ValueError: a recipe that does not fit its network, task or data, or of a name that no network may have; an
    output that is no folder; a checkpoint of another recipe, or of a training from other weights than `init`; a loss
    that is no longer finite; a batch that the devices cannot share.
    """
    if steps is not None and minutes is not None:
        raise ValueError("give either a number of steps or of minutes, not both")
    if not (steps is None or 0 < steps <= LIMIT) or not (minutes is None or 0 < minutes < float("inf")):
        given = steps if minutes is None else minutes
        raise ValueError(f"steps and minutes are above 0, and steps at most {LIMIT:,}; got {given}")
    begin = time.monotonic()
    model = output / recipe.name
    zoo.check_name(model)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise ValueError(f"{output}: no folder can be made there ({err.strerror}); give another output") from err
    store = Checkpoints(output / "checkpoints") if checkpoints and recipe.run.checkpoint_every else None
    origin = None if init is None else par.checksum(init)
    about = None if store is None or restart else _previous(store, recipe, steps, origin)
    network, task = build(recipe, data)
    graph, parameters, rest = par.split(network)
    if init is not None and about is None:
        parameters = par.read(init, parameters)
    mesh, everywhere = _mesh(devices, recipe.data.batch)
    train_images, held_out = images_of.read_images(recipe.data, data, cache)
    validation = Validation(recipe, task, graph, held_out)
    arrays = task.arrays()
    parts = (validation.patches, train_images, rest, arrays)
    validation.patches, train_images, rest, arrays = jax.device_put(parts, everywhere)
    state = jax.device_put(initial(parameters, recipe), everywhere)
    del parameters, held_out
    run = training_step(recipe, task, graph, mesh)
    inner = recipe.run.inner or (1 if jax.default_backend() == "cpu" else 20)

    if about is not None:
        assert store is not None
        state, steps = store.restore(state), about["steps"]
    elif minutes is not None:
        steps = _fitting(
            lambda state, count: run(state, rest, train_images, arrays, jnp.asarray(2**30, jnp.int32), count),
            state,
            inner,
            60 * minutes * RESERVE,
            begin,
            lambda state: validation(state["average"], rest, arrays),
            recipe.run.validate_every,
        )
    else:
        steps = steps or recipe.run.steps
    origin = origin if about is None else about.get("init")
    about = {"fingerprint": fingerprint(recipe.tables()), "steps": steps, "recipe": recipe.tables(), "init": origin}
    step, total = int(state["step"]), jnp.asarray(steps, jnp.int32)
    used = list(np.ravel(mesh.devices)) if mesh is not None else list(everywhere.device_set)
    kinds = [str(device.device_kind) for device in used]
    head = {"recipe": recipe.tables(), "steps": steps, "parameters": network.parameter_count()}
    head["devices"] = [str(device) for device in used]
    if store is not None and restart:
        store.clear()  # not before all else is known to be sound
    journal = Journal(output / "log.jsonl", step, head)
    scores: dict[str, float] = {}
    sums: list[tuple[int, dict]] = []
    mark = (time.monotonic(), step)

    with progress(steps, step, quiet) as shown, _stopping() as stop:
        if step:
            shown.say(f"going on from step {step} of {steps}")
        while step < steps:
            count = min(inner, _next(step, recipe, steps) - step)
            state, more = run(
                state, rest, train_images, arrays, total, None if inner == 1 else jnp.asarray(count, jnp.int32)
            )
            sums.append((count, more))
            step += count
            # On a CPU the calls would pile up far ahead of the work; elsewhere the host is glad of the lead.
            if inner == 1:
                jax.block_until_ready(more["loss"])
            if step % recipe.run.log_every == 0 or step == steps:
                now = time.monotonic()
                entry = {"step": step, **_means(sums), "learning_rate": float(recipe.optimiser.rate(step - 1, steps))}
                entry |= {"steps_per_second": (step - mark[1]) / (now - mark[0]), "seconds": now - begin}
                sums, mark = [], (now, step)
                journal.add(entry)
                if not np.isfinite(entry["loss"]):
                    raise ValueError(
                        f"the loss is {entry['loss']} at step {step}; take a smaller optimiser.learning_rate or clip"
                    )
                text = f"loss {entry['loss']:.5f}" + (f", validation {scores['psnr']:.2f} dB" if scores else "")
                shown.show(step, text)
            if step % recipe.run.validate_every == 0 or step == steps:
                scores = validation(state["average"], rest, arrays)
                journal.add({"step": step, **scores})
                network = par.join(graph, state["average"], rest)
                publish(model, network, recipe, scores, step, kinds)
                mark = (time.monotonic(), mark[1]) if mark[1] == step else mark
            due = recipe.run.checkpoint_every and step % recipe.run.checkpoint_every == 0
            if store is not None and (due or step == steps or stop):
                store.save(step, state, about)
            if stop and step < steps:
                break
    if store is not None:
        store.close()
    if stop and step < steps:
        signal.raise_signal(stop[0])
        raise KeyboardInterrupt  # whoever ignores the signal gets no unfinished network
    if not scores:  # nothing was left to do
        scores, network = validation(state["average"], rest, arrays), par.join(graph, state["average"], rest)
        publish(model, network, recipe, scores, steps, kinds)
    plot = output / "plot.png"
    journal.plot(plot)
    return Result(network, scores, steps, time.monotonic() - begin, model, precise(model), journal.path, plot)


def build(recipe: Recipe, data: Path | None = None, seed: int | None = None) -> tuple[Any, Task]:
    """The network and the task of a recipe. Raises ValueError naming what does not fit."""
    from emjax import networks

    settings = {key: value for key, value in recipe.network.items() if key != "kind"}
    try:
        network = networks.build(recipe.network["kind"], settings, recipe.run.seed if seed is None else seed)
    except (TypeError, ValueError) as err:
        raise ValueError(f"[network] of {recipe.name}: {err}") from err
    kind = recipe.task["kind"]
    if kind not in TASKS:
        raise ValueError(f"[task] of {recipe.name}: unknown task {kind!r}; there are {', '.join(TASKS)}")
    try:
        task = TASKS[kind].from_recipe({key: value for key, value in recipe.task.items() if key != "kind"}, data)
    except (TypeError, ValueError) as err:
        raise ValueError(f"[task] of {recipe.name}: {err}") from err
    if recipe.data.scans != task.scans:
        given, taken = (("whole images", "scans")[flag] for flag in (recipe.data.scans, task.scans))
        raise ValueError(
            f"[task] of {recipe.name} learns from {taken}, and data.train gives {given}; a set of images becomes scans "
            "by scan = {ratio = ..., noise = ...}"
        )
    if others := task.refuses(network):
        raise ValueError(f"[task] of {recipe.name}: {kind} trains {others}, not [network] kind = {network.kind!r}")
    return network, task


def _previous(store: Checkpoints, recipe: Recipe, steps: int | None, origin: str | None) -> dict[str, Any] | None:
    """What the checkpoint to go on from says of itself; None where there is none. `origin`: the checksum of `init`."""
    if not store.exist():
        return None
    about = store.about()
    if about.get("fingerprint") != fingerprint(recipe.tables()):
        raise ValueError(
            f"{store.folder} is of a training by another recipe (or seed); start anew (--restart), or give --output "
            "another folder"
        )
    if steps not in (None, about["steps"]):
        raise ValueError(
            f"{store.folder} is of a training of {about['steps']} steps, not {steps}; leave the number out to go on, "
            "or start anew (--restart)"
        )
    if origin not in (None, about.get("init")):
        raise ValueError(
            f"{store.folder} is of a training that did not start from these weights (--init); leave them out to go on "
            "with its own, start anew from them (--restart), or give --output another folder"
        )
    return about


def _mesh(devices: Any, batch: int) -> tuple[Any, Any]:
    """The mesh over which a batch is split (None: one device), and where everything else lies."""
    devices = jax.devices() if devices is None else list(devices)
    if len(devices) == 1:
        return None, jax.sharding.SingleDeviceSharding(devices[0])
    if batch % len(devices):
        raise ValueError(f"data.batch is {batch}, which {len(devices)} devices cannot share; take a multiple of that")
    mesh = jax.sharding.Mesh(np.array(devices), ("batch",))
    return mesh, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())


def _next(step: int, recipe: Recipe, steps: int) -> int:
    """The next step at which the host has something to do."""
    every = [recipe.run.log_every, recipe.run.validate_every, recipe.run.checkpoint_every]
    return min([steps, *((step // n + 1) * n for n in every if n)])


def _fitting(run: Any, state: Any, inner: int, seconds: float, begin: float, check: Any, every: int) -> int:
    """How many steps fit into what is left of `seconds` since `begin`, by the time of a few on a copy of the state.

    `run(state, count)` and `check(state)` are the steps and the validation, which comes once in `every` steps.
    """
    count = None if inner == 1 else jnp.asarray(inner, jnp.int32)
    state = jax.block_until_ready(run(jax.tree.map(jnp.copy, state), count)[0])  # compiles
    check(state)
    times: list[float] = []
    while len(times) < 3 or (sum(times) < 1.0 and len(times) < 200):
        start = time.monotonic()
        state = jax.block_until_ready(run(state, count)[0])
        times.append(time.monotonic() - start)
    start = time.monotonic()
    check(state)
    one = float(np.median(times)) / inner + (time.monotonic() - start) / every
    return max(1, int((seconds - (time.monotonic() - begin)) / one))


def _means(sums: list[tuple[int, dict]]) -> dict[str, float]:
    count = sum(n for n, _ in sums)
    return {key: sum(float(part[key]) for _, part in sums) / count for key in sums[0][1]}


@contextlib.contextmanager
def _stopping() -> Iterator[list[int]]:
    """A list that receives the signal which asks to stop: the step under way is finished and a checkpoint written.

    A second signal is handled as it was before.
    """
    received: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: Any) -> None:
        received.append(number)
        restore()

    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    try:
        yield received
    finally:
        restore()
