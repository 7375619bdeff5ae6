"""Where a command may write: checked before any work is done."""

import os
from pathlib import Path

import typer

from emjax import io


def check_output(output: Path, inputs: list[Path | None], *, suffixes: tuple[str, ...] = (".tif", ".tiff")) -> None:
    """Raise if `output` is a file of the inputs, is named like another format, or cannot be written."""
    if output.suffix.lower() not in suffixes:
        kind = suffixes[0][1:].upper()
        raise typer.BadParameter(f"{output}: the output is a {kind} file; end its name in {suffixes[0]}")
    for path in inputs:
        if path is not None and _same(output, path):
            raise typer.BadParameter(f"{output}: the output would replace an input; give another name with -o")
    io.check_writable(output)


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:  # one of them is not there (yet)
        return os.path.realpath(a) == os.path.realpath(b)
    except ValueError:  # a null byte; the reader or the writer says so
        return False
