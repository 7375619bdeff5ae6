"""Where a command writes: files, checked before any work is done, and its report on standard output."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import typer

from emjax import io
from emjax.io.errors import plain


def check_output(
    output: Path, taken: list[Path | None], *, option: str = "-o", suffixes: tuple[str, ...] = (".tif", ".tiff")
) -> None:
    """Raise if `output`, given by `option`, is a folder or one of the files `taken` (inputs, other outputs), is named
    like another format, or cannot be written."""
    if os.path.isdir(output):  # an empty name too, which is the folder "."
        raise typer.BadParameter(
            f"{option}: the name is empty or that of a folder ({output}); give that of a file, e.g. "
            f"{output / ('out' + suffixes[0])}"
        )
    if output.suffix.lower() not in suffixes:
        kind = suffixes[0][1:].upper()
        raise typer.BadParameter(f"{option} {output}: the output is a {kind} file; end its name in {suffixes[0]}")
    for path in taken:
        if path is not None and _same(output, path):
            raise typer.BadParameter(f"{option} {output}: this would replace {path}; give {option} another name")
    io.check_writable(output)


@contextlib.contextmanager
def reporting(written: str | Path | None = None) -> Iterator[None]:
    """Print the report inside. If standard output does not take it, the error says so, and where the file is."""
    try:
        if sys.stdout is None:
            raise OSError(errno.EBADF, "it is closed")
        yield
        sys.stdout.flush()
    except (OSError, UnicodeError) as err:
        gone = isinstance(err, BrokenPipeError)
        if gone and written is None:
            raise
        why = "its reader has gone" if gone else plain(err) if isinstance(err, OSError) else str(err)
        where = "" if written is None else f"; the image is written: {written}"
        raise RuntimeError(f"the report could not be written to standard output ({why}){where}") from err


def _same(a: Path, b: Path) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:  # one of them is not there (yet)
        return os.path.realpath(a) == os.path.realpath(b)
    except ValueError:  # a null byte; the reader or the writer says so
        return False
