"""The sub-commands of `emjax` and what they print; `emjax.cli.entry` runs them."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from emjax import zoo
from emjax.cli.outputs import reporting

app = typer.Typer(
    name="emjax",
    help="Recover electron-microscopy images from few, noisy pixels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


# The choices stand here so that wrong usage and --help are answered without loading JAX.
# The names of `emjax.reconstructors.METHODS`; those of the zoo are the names of its files.
METHODS = ("linear", "pnp", "spectral", "tgv", "tv", "wavelet")


class Pattern(StrEnum):
    """The names of `emjax.acquisition.PATTERNS`."""

    RANDOM = "random"
    JITTERED = "jittered"
    POISSON_DISC = "poisson-disc"
    LOW_DISCREPANCY = "low-discrepancy"
    VARIABLE_DENSITY = "variable-density"
    LINE_HOP = "line-hop"
    SPIRAL = "spiral"


class Type(StrEnum):
    """What a TIFF that other programs open can hold."""

    UINT8 = "uint8"
    UINT16 = "uint16"
    UINT32 = "uint32"
    INT8 = "int8"
    INT16 = "int16"
    INT32 = "int32"
    FLOAT16 = "float16"
    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Rgb(StrEnum):
    """What becomes of colour channels that differ."""

    ERROR = "error"
    MEAN = "mean"


Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
_TILE = "Largest side of the tiles of large images, pixels; linear and wavelet take any image whole."
Image = Annotated[Path, typer.Argument(help="A TIFF image or stack.", show_default=False)]
Colour = Annotated[Rgb, typer.Option("--rgb", help="Colour channels that differ: an error, or take their mean.")]

# What the text says of entries besides their names.
_NAMES = {"pixel_size_nm": "pixel size", "dwell_time_s": "dwell time", "seconds": "time"}
_UNITS = {
    "shape": "pixels",
    "pixel_size_nm": "nm",
    "dwell_time_s": "s",
    "seconds": "s",
    "measured": "of the pixels",
    "soft_weights": "of the pixels",
    "noise": "grey values of the file",
    "dose": "electrons a pixel at full grey value",
    "read_noise": "of the full grey range",
}


def _method(name: str) -> str:
    """A classical method, a network of the zoo, or the path of a network."""
    if name in METHODS or zoo.is_path(name) or name in zoo.names():
        return name
    raise typer.BadParameter(f"{name!r} is none of {', '.join([*METHODS, *zoo.names()])}, nor the path of a network")


def _methods() -> str:
    """How --help shows the choices. A fault of the zoo's folder is told when a command needs it."""
    try:
        return f"<{'|'.join([*METHODS, *zoo.names()])}|PATH>"
    except ValueError:
        return f"<{'|'.join(METHODS)}|PATH>"


def _version(asked: bool) -> None:
    if asked:
        from emjax import __version__

        with reporting():
            print(f"emjax {__version__}")
        raise typer.Exit


@app.callback()
def _every(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command()
def recover(
    scan: Image,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="A TIFF mask. Integers: non-zero where the beam measured. Floats: weights in [0, 1], 0 not measured."
        ),
    ] = None,
    missing: Annotated[
        float | None, typer.Option(help="The grey value that means: not measured. NaN needs no mention.")
    ] = None,
    method: Annotated[
        str,
        typer.Option(help="How to recover; emjax zoo tells of networks.", metavar=_methods(), callback=_method),
    ] = "spectral",
    weight: Annotated[
        str, typer.Option(help='"auto", or a number above 0, for grey values in [0, 1] (larger is smoother).')
    ] = "auto",
    noise: Annotated[
        str,
        typer.Option(
            help='"auto" (found in the scan), or the standard deviation of its noise, in grey values as in the file '
            "(those of 8 bits end at 255). For networks, and for weights that are found."
        ),
    ] = "auto",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: SCAN_recovered.tif.")] = None,
    dtype: Annotated[Type | None, typer.Option(help="The output's type; default: the scan's.")] = None,
    tile: Annotated[int, typer.Option(help=_TILE, min=64)] = 512,
    halo: Annotated[int, typer.Option(help="Overlap at each side of a tile, pixels.", min=4)] = 48,
    rgb: Colour = Rgb.ERROR,
    json_: Json = False,
) -> None:
    """Recover a sparse or noisy scan; unmeasured pixels come from --mask, --missing, or NaN in the file."""
    from emjax.cli.recover import recover_file

    report = recover_file(
        scan,
        mask=mask,
        missing=missing,
        method=method,
        weight=weight,
        noise=noise,
        output=output,
        dtype=None if dtype is None else dtype.value,
        tile=tile,
        halo=halo,
        rgb=rgb.value,
        quiet=json_,
    )
    show(report, json_)


@app.command()
def sample(
    image: Image,
    output: Annotated[Path, typer.Option("-o", "--output", help="The sparse scan; NaN where not measured.")],
    ratio: Annotated[float, typer.Option(help="The share of pixels that is measured, in (0, 1].")] = 0.25,
    pattern: Annotated[Pattern, typer.Option(help="Which pixels the beam visits.")] = Pattern.RANDOM,
    dose: Annotated[float | None, typer.Option(help="Electrons a pixel at full grey value; default: no noise.")] = None,
    read_noise: Annotated[float, typer.Option(help="Read-out noise, of the full grey range.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of pattern and noise.", min=0, max=2**32 - 1)] = 0,
    mask_output: Annotated[Path | None, typer.Option("--mask", help="Write the mask here too.")] = None,
    rgb: Colour = Rgb.ERROR,
    json_: Json = False,
) -> None:
    """Simulate a sparse scan of a full image."""
    from emjax.cli.sample import sample_file

    report = sample_file(
        image,
        output,
        ratio=ratio,
        pattern_name=pattern.value,
        dose=dose,
        read_noise=read_noise,
        seed=seed,
        mask_output=mask_output,
        rgb=rgb.value,
    )
    show(report, json_)


@app.command()
def info(
    image: Annotated[
        Path | None, typer.Argument(help="A TIFF image; without it: the installation.", show_default=False)
    ] = None,
    rgb: Colour = Rgb.ERROR,
    json_: Json = False,
) -> None:
    """What a file holds, or what emjax runs on."""
    from emjax.cli.info import describe_file, describe_installation

    show(describe_installation() if image is None else describe_file(image, rgb.value), json_)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture, a PNG.")] = Path("emjax-demo.png"),
    size: Annotated[int, typer.Option(help="Side of the phantom, pixels.", min=64, max=4096)] = 512,
    ratio: Annotated[float, typer.Option(help="The share of pixels that is scanned.")] = 0.2,
    dose: Annotated[float, typer.Option(help="Electrons a pixel at full grey value.")] = 400.0,
    seed: Annotated[int, typer.Option(help="Seed of phantom, pattern and noise.", min=0, max=2**32 - 1)] = 0,
    json_: Json = False,
) -> None:
    """Scan a synthetic EM phantom sparsely and recover it by several methods: a table and a picture."""
    from emjax.cli.demo import run_demo

    run_demo(output, size=size, ratio=ratio, dose=dose, seed=seed, as_json=json_)


@app.command("zoo")
def zoo_(
    name: Annotated[
        str | None, typer.Argument(help="A network, to read its model card; without it: all.", show_default=False)
    ] = None,
    json_: Json = False,
) -> None:
    """The trained networks: a table, or the model card of one."""
    from emjax.cli.zoo import list_networks, show_network

    if name is None:
        list_networks(json_)
    else:
        show_network(name, json_)


@app.command()
def train(
    recipe: Annotated[
        str | None, typer.Argument(help="A recipe of the package (--list), or a file .toml.", show_default=False)
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", help="Folder for weights, log, plot and checkpoints; default: RECIPE."),
    ] = None,
    data: Annotated[Path | None, typer.Option(help="The folder that the files of the recipe lie in.")] = None,
    cache: Annotated[
        Path | None, typer.Option(help="An .npz file: the images, read once; made if it is not there.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="How many steps; default: the recipe's.", min=1)] = None,
    minutes: Annotated[float | None, typer.Option(help="How long; fixes the number of steps at the start.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed; default: the recipe's.", min=0, max=2**32 - 1)] = None,
    init: Annotated[
        Path | None,
        typer.Option(
            help="Start from these weights, a .safetensors file; for a checkpoint to go on with, those it had."
        ),
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Start anew where --output has a checkpoint.")] = False,
    no_checkpoints: Annotated[bool, typer.Option("--no-checkpoints", help="Write none.")] = False,
    list_: Annotated[bool, typer.Option("--list", help="List the recipes of the package.")] = False,
    json_: Json = False,
) -> None:
    """Train a network by a recipe; goes on where it was stopped."""
    from emjax.cli.train import list_recipes, train_recipe

    if list_:
        list_recipes(json_)
        return
    if recipe is None:
        raise typer.BadParameter("give a recipe (--list names those of the package)")
    report = train_recipe(
        recipe,
        output,
        data=data,
        cache=cache,
        steps=steps,
        minutes=minutes,
        seed=seed,
        init=init,
        restart=restart,
        checkpoints=not no_checkpoints,
        quiet=json_,
    )
    show(report, json_)


def show(report: dict[str, Any], as_json: bool) -> None:
    """One JSON object, or a line an entry with its unit; entries that are None are left out of the text."""
    with reporting(report.get("output")):
        if as_json:
            print(json.dumps(report))
            return
        for name, value in report.items():
            text = "" if value is None else _text(name, value)
            if text.strip("; "):  # methods without weights have none to tell
                unit = f" {_UNITS[name]}" if name in _UNITS else ""
                print(f"{_NAMES.get(name, name.replace('_', ' '))}: {text}{unit}")


def _text(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(key, part)}" for key, part in value.items())
    if isinstance(value, list | tuple):
        between = {"shape": " x ", "pixel_size_nm": " x ", "grey_values": " to "}.get(name, "; ")
        return between.join(_text(name, part) for part in value)
    return str(value)
