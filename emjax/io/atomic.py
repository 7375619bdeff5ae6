"""Files that appear whole or not at all.

A writer is given a hidden name in the target's folder; only when it has finished is the file flushed to the
disk and renamed over the target (`rename` within one folder is atomic). Whatever goes wrong, an older file of
that name is untouched and the temporary one is removed.
"""

import contextlib
import os
import secrets
import stat
from collections.abc import Iterator
from pathlib import Path

from emjax.io.errors import ImageError, plain


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path to write to; rename it to `path` when the block ends without an exception.

    The temporary file already exists (empty) and has the suffix of `path`, so that writers which choose a
    format by the suffix do the right thing. A symbolic link is followed, never replaced.

    Raises:
        ImageError: `path` cannot be written, or the operating system stopped the writing (disk full, ...).
            Every other exception, `KeyboardInterrupt` too, passes through; in each case the old file stays.
    """
    target = _target(path)
    temporary = _temporary(target)
    try:
        _create(temporary)
        yield temporary
        _flush(temporary)
        if target.exists():
            os.chmod(temporary, stat.S_IMODE(target.stat().st_mode))
        os.replace(temporary, target)
        _flush_folder(target.parent)
    except OSError as error:
        raise ImageError(f"{path}: cannot be written: {plain(error)}") from error
    finally:
        # gone already after a successful rename; a failure here must not hide the exception under way
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise `ImageError` if `path` cannot be written: meant to be called before long work.

    Makes and removes an empty hidden file in the folder: permission bits alone do not tell (read-only mounts,
    network drives).
    """
    temporary = _temporary(_target(path))
    try:
        _create(temporary)
    except OSError as error:
        raise ImageError(f"{path}: cannot be written: {plain(error)}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _target(path: str | os.PathLike[str]) -> Path:
    try:
        target = Path(os.path.realpath(path))
        mode = target.stat().st_mode if target.exists() else None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the name
        reason = plain(error) if isinstance(error, OSError) else str(error)
        raise ImageError(f"{path}: cannot be written: {reason}") from error
    if mode is not None and stat.S_ISDIR(mode):
        raise ImageError(f"{path}: cannot be written: this is a folder; give the name of a file")
    if mode is not None and not stat.S_ISREG(mode):
        raise ImageError(f"{path}: cannot be written: this is a device or a pipe; give the name of a file")
    if not target.parent.is_dir():
        raise ImageError(f"{path}: cannot be written: the folder {target.parent} is missing; make it first")
    # a rename would replace a read-only file without asking: its owner protected it on purpose
    if mode is not None and not os.access(target, os.W_OK):
        raise ImageError(f"{path}: cannot be written: the file is write-protected; choose another name")
    return target


def _temporary(target: Path) -> Path:
    # not built from the target's name, which may already have the longest length a file system allows
    return target.parent / f".emjax-{secrets.token_hex(8)}{target.suffix[:16]}"


def _create(temporary: Path) -> None:
    # 0o666 and not the 0o600 of the tempfile module: the result gets the rights any new file has
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))


def _flush(temporary: Path) -> None:
    descriptor = os.open(temporary, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _flush_folder(folder: Path) -> None:
    # makes the new name survive a power cut; the file is in place by now, so a refusal is no failure
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
