"""The command itself: its sub-commands, errors as one line, exit codes.

Exit codes: 0 done, 1 bad input or output (one line on standard error), 2 wrong usage, 130 interrupted.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(
    name="emjax",
    help="Recover electron-microscopy images from few, noisy pixels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
Image = Annotated[Path, typer.Argument(help="A TIFF image or stack.")]


@app.command()
def recover(
    scan: Image,
    mask: Annotated[Path | None, typer.Option(help="A TIFF mask: non-zero where the beam measured.")] = None,
    missing: Annotated[float | None, typer.Option(help="The grey value that means: not measured.")] = None,
    method: Annotated[str, typer.Option(help="linear, spectral, tv or wavelet.")] = "spectral",
    weight: Annotated[str, typer.Option(help='"auto", or a number (larger is smoother).')] = "auto",
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Default: SCAN_recovered.tif.")] = None,
    dtype: Annotated[str | None, typer.Option(help="The output's type; default: the scan's.")] = None,
    tile: Annotated[int, typer.Option(help="Side of the tiles of large images, pixels.", min=64)] = 256,
    halo: Annotated[int, typer.Option(help="Overlap at each side of a tile, pixels.", min=4)] = 32,
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
        output=output,
        dtype=dtype,
        tile=tile,
        halo=halo,
        quiet=json_,
    )
    _show(report, json_)


@app.command()
def sample(
    image: Image,
    output: Annotated[Path, typer.Option("-o", "--output", help="The sparse scan; NaN where not measured.")],
    ratio: Annotated[float, typer.Option(help="The share of pixels that is measured, in (0, 1].")] = 0.25,
    pattern: Annotated[str, typer.Option(help="random, jittered or line-hop.")] = "random",
    dose: Annotated[float | None, typer.Option(help="Electrons a pixel at full grey value; default: no noise.")] = None,
    read_noise: Annotated[float, typer.Option(help="Read-out noise, of the full grey range.")] = 0.0,
    seed: Annotated[int, typer.Option(help="Seed of pattern and noise.")] = 0,
    mask_output: Annotated[Path | None, typer.Option("--mask", help="Write the mask here too.")] = None,
    json_: Json = False,
) -> None:
    """Simulate a sparse scan of a full image."""
    from emjax.cli.sample import sample_file

    report = sample_file(
        image,
        output,
        ratio=ratio,
        pattern_name=pattern,
        dose=dose,
        read_noise=read_noise,
        seed=seed,
        mask_output=mask_output,
    )
    _show(report, json_)


@app.command()
def info(
    image: Annotated[Path | None, typer.Argument(help="A TIFF image; without it: the installation.")] = None,
    json_: Json = False,
) -> None:
    """What a file holds, or what emjax runs on."""
    from emjax.cli.info import describe_file, describe_installation

    _show(describe_installation() if image is None else describe_file(image), json_)


@app.command()
def demo(
    output: Annotated[Path, typer.Option("-o", "--output", help="The picture, a PNG.")] = Path("emjax-demo.png"),
    size: Annotated[int, typer.Option(help="Side of the phantom, pixels.", min=64, max=4096)] = 512,
    ratio: Annotated[float, typer.Option(help="The share of pixels that is scanned.")] = 0.2,
    dose: Annotated[float, typer.Option(help="Electrons a pixel at full grey value.")] = 400.0,
    seed: Annotated[int, typer.Option(help="Seed of phantom, pattern and noise.")] = 0,
    json_: Json = False,
) -> None:
    """Scan a synthetic EM phantom sparsely and recover it by several methods: a table and a picture."""
    from emjax.cli.demo import run_demo

    run_demo(output, size=size, ratio=ratio, dose=dose, seed=seed, as_json=json_)


def _show(report: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(report))
        return
    for name, value in report.items():
        if value is not None:
            print(f"{name.replace('_', ' ')}: {value}")


def main() -> None:
    """The entry point: every expected failure becomes one line and an exit code."""
    _cache()
    try:
        app()
    except KeyboardInterrupt:
        _fail("interrupted; nothing was written", 130)
    except (ValueError, TypeError, RuntimeError, OSError, MemoryError) as err:
        if os.environ.get("EMJAX_TRACEBACK"):
            raise
        _fail(" ".join(str(err).split()) or type(err).__name__, 1)


def _fail(message: str, code: int) -> None:
    print(f"emjax: {message}", file=sys.stderr)
    sys.exit(code)


def _cache() -> None:
    """Switch on JAX's persistent compilation cache: the second call of a command compiles nothing.

    The user's cache folder, unless JAX_COMPILATION_CACHE_DIR says otherwise.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        folder = os.path.join(root, "emjax", "jax")
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError:
            return  # a home that cannot be written to costs compile time, not the recovery
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
