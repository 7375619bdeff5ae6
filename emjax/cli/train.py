"""`emjax train`: a recipe, a folder, and a report."""

import json
from pathlib import Path
from typing import Any

import typer

from emjax.cli.outputs import reporting


def list_recipes(as_json: bool) -> None:
    """Print the recipes that come with the package."""
    from emjax.training.recipe import recipes

    found = recipes()
    with reporting():
        if as_json:
            print(json.dumps(found))
            return
        width = max(map(len, found), default=0)
        for name, what in found.items():
            print(f"{name:{width}}  {what}")


def train_recipe(
    name: str,
    output: Path | None,
    *,
    data: Path | None,
    cache: Path | None,
    steps: int | None,
    minutes: float | None,
    seed: int | None,
    init: Path | None,
    restart: bool,
    checkpoints: bool,
    quiet: bool,
) -> dict[str, Any]:
    """Train, and return the report. Raises typer.BadParameter for options that do not go together."""
    if steps is not None and minutes is not None:
        raise typer.BadParameter("give either --steps or --minutes")
    if minutes is not None and not 0 < minutes < float("inf"):
        raise typer.BadParameter(f"--minutes is how long to train, finite and above 0; got {minutes}")
    if data is not None and not data.is_dir():
        raise typer.BadParameter(f"--data {data}: there is no such folder")
    if cache is not None and cache.suffix != ".npz":
        raise typer.BadParameter(f"--cache {cache}: the cache is an .npz file; end its name so")
    from emjax.training import load_recipe, train

    recipe = load_recipe(name, seed=seed)
    try:
        result = train(
            recipe,
            output or Path(recipe.name),
            data=data,
            cache=cache,
            steps=steps,
            minutes=minutes,
            init=init,
            restart=restart,
            checkpoints=checkpoints,
            quiet=quiet,
        )
    except (MemoryError, RuntimeError) as err:
        if not isinstance(err, MemoryError) and "RESOURCE_EXHAUSTED" not in str(err):
            raise
        raise ValueError("the memory is too small for this training; take a smaller data.batch or data.crop") from err
    return {
        "output": str(result.model),
        "weights": str(result.weights),
        "log": str(result.log),
        "plot": str(result.plot),
        "steps": result.steps,
        "seconds": result.seconds,
        "validation": result.scores,
    }
