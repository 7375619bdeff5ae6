"""What a training gives away: the network as `emjax.load` takes it, with the skeleton of a model card.

NAME.safetensors, NAME.json and NAME.md are those of `emjax.zoo`, in float16; NAME-float32.safetensors has the same
averaged parameters as they were trained, to train on from.
"""

import json
import math
from pathlib import Path
from typing import Any

import jax

import emjax
from emjax.training import parameters as par
from emjax.training.recipe import FOLDER, Recipe, Source


def precise(path: Path) -> Path:
    """Where the float32 parameters of the network `path` lie."""
    return path.with_name(f"{path.name}-float32.safetensors")


def publish(path: Path, network: Any, recipe: Recipe, scores: dict[str, float], steps: int, devices: list[str]) -> None:
    """Write all four files of the network; see the top of this file.

    scores: of the validation. steps: that were trained. devices: kinds of them.
    Raises ValueError for parameters that float16 cannot hold.
    """
    from emjax import zoo

    par.write(precise(path), par.split(network)[1])
    scores = {key: value for key, value in scores.items() if math.isfinite(value)}  # JSON has no other numbers
    extra = {"recipe": recipe.tables(), "steps": steps, "validation": scores}
    zoo.save(path, network, card=card(network, recipe, scores, steps, devices), extra=extra)


def card(network: Any, recipe: Recipe, scores: dict[str, float], steps: int, devices: list[str]) -> str:
    """A model card, Markdown: all that the recipe knows, and what is left to be said by whoever trained."""
    data, run = recipe.data, recipe.run
    side = data.validation_crop or data.crop
    inside = (FOLDER / f"{recipe.name}.toml").is_file()
    command = f"emjax train {recipe.name if inside else recipe.name + '.toml'}"
    if any(source.files for source in (*data.train, *data.validation)):
        command += " --data FOLDER"
    command += f" --steps {steps}" + (f" --seed {run.seed}" if run.seed else "")
    lines = [
        f"# {recipe.name}",
        "",
        recipe.about or f"A {network.kind} network, trained by the recipe {recipe.name}.",
        "",
        "| | |",
        "|---|---|",
        f"| network | {network.kind}, {network.parameter_count():,} parameters |",
        f"| settings | {_values({k: v for k, v in recipe.network.items() if k != 'kind'})} |",
        f"| task | {_values(recipe.task)} |",
        f"| steps | {steps:,} of {data.batch} patches of {data.crop} x {data.crop} pixels, {run.compute} |",
        f"| device | {', '.join(f'{devices.count(d)} x {d}' for d in dict.fromkeys(devices))} |",
        f"| command | `{command}` |",
        f"| versions | emjax {emjax.__version__}, JAX {jax.__version__} |",
        "",
        "## Data",
        "",
        *(f"- training: {_set(source)}" for source in data.train),
        *(f"- validation: {_set(source)}" for source in data.validation),
        "",
        "Sources and licences: *to be written*.",
        "",
        "## Figures",
        "",
        f"Means over {data.validation_crops} validation patches of {side} x {side} pixels, before rounding to float16.",
        "",
        "| figure | value |",
        "|---|---|",
        *(f"| {key} | {value:.4g} |" for key, value in scores.items()),
        "",
        "## Limits",
        "",
        "*To be written*: what it was not trained on, and where it was seen to fail.",
    ]
    return "\n".join(lines) + "\n"


def _values(table: dict[str, Any]) -> str:
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in table.items()) or "as they are by default"


def _set(source: Source) -> str:
    text = f"`{source.files}`" if source.files is not None else f"phantoms ({_values(source.phantom or {})})"
    cuts = [
        f"{key} {getattr(source, key)}" for key in ("slices", "rows", "columns") if getattr(source, key) is not None
    ]
    if source.weight != 1:
        cuts.append(f"weight {source.weight:g}")
    if source.scan is not None:
        cuts.append(f"one scan of {source.scan.ratio:.3g} of the pixels, noise {source.scan.noise:g}")
    return ", ".join([text, *cuts])
