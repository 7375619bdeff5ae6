"""Files appear whole or not at all, whatever stops the writing."""

import errno
import os
import stat
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from emjax.io import ImageError, atomic_path, check_writable, read, write


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("old", [b"old content", None])
@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt(), RuntimeError("codec")]
)
def test_a_failure_in_the_middle_leaves_the_old_file(tmp_path: Path, old: bytes | None, failure: BaseException) -> None:
    target = tmp_path / "out.tif"
    if old is not None:
        target.write_bytes(old)
    expected = ImageError if isinstance(failure, OSError) else type(failure)
    with pytest.raises(expected) as caught, atomic_path(target) as temporary:
        temporary.write_bytes(b"half")
        raise failure
    if expected is ImageError:
        assert str(caught.value) == f"{target}: cannot be written: the disk is full; free some space or write elsewhere"
    assert names(tmp_path) == ([] if old is None else ["out.tif"])
    assert old is None or target.read_bytes() == old


@pytest.mark.parametrize("step", ["fsync", "replace", "open"])
def test_every_step_may_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    target = tmp_path / "out.tif"
    target.write_bytes(b"old")

    def fail(*_args: object, **_options: object) -> None:
        raise OSError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, step, fail)
        with pytest.raises(ImageError, match="cannot be written: permission denied"):
            write(target, np.zeros((4, 5)))
    assert names(tmp_path) == ["out.tif"] and target.read_bytes() == b"old"


def test_a_failure_inside_the_tiff_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "out.tif"
    write(target, np.full((4, 5), 0.25))
    for failure, expected in [
        (KeyboardInterrupt(), KeyboardInterrupt),
        (OSError("9 requested and 4 written"), ImageError),
    ]:
        real = tifffile.TiffWriter.write

        def half(self: tifffile.TiffWriter, *args: object, failure: BaseException = failure, **options: object) -> None:
            real(self, *args, **options)  # type: ignore[arg-type]  # noqa: B023
            raise failure

        with monkeypatch.context() as patch:
            patch.setattr(tifffile.TiffWriter, "write", half)
            with pytest.raises(expected):
                write(target, np.zeros((4, 5)))
        assert names(tmp_path) == ["out.tif"]
        assert read(target).image[0, 0] == 0.25


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are a POSIX idea")
def test_a_real_limit_in_the_middle_of_a_file(tmp_path: Path) -> None:
    import resource

    target = tmp_path / "out.tif"
    write(target, np.full((4, 5), 0.25))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20000, hard))
    try:
        for compression in ("deflate", "none"):
            with pytest.raises(ImageError, match="cannot be written"):
                write(target, np.random.default_rng(0).random((200, 200)), compression=compression)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["out.tif"]
    assert read(target).image[0, 0] == 0.25


def test_success_replaces_and_keeps_the_suffix_and_the_rights(tmp_path: Path) -> None:
    target = tmp_path / "picture.png"
    target.write_bytes(b"old")
    target.chmod(0o640)
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".png" and temporary.parent == tmp_path and temporary.name.startswith(".")
        assert target.read_bytes() == b"old"
        temporary.write_bytes(b"new")
    assert target.read_bytes() == b"new" and names(tmp_path) == ["picture.png"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o640
    mask = os.umask(0o022)
    try:
        write(tmp_path / "fresh.tif", np.zeros((2, 3)))
    finally:
        os.umask(mask)
    assert stat.S_IMODE((tmp_path / "fresh.tif").stat().st_mode) == 0o644


def test_a_link_is_followed_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    write(tmp_path / "real" / "a.tif", np.zeros((2, 3)))
    (tmp_path / "link.tif").symlink_to(tmp_path / "real" / "a.tif")
    write(tmp_path / "link.tif", np.ones((2, 3)))
    assert (tmp_path / "link.tif").is_symlink()
    assert read(tmp_path / "real" / "a.tif").image.min() == 1
    assert names(tmp_path / "real") == ["a.tif"]


def test_places_that_cannot_be_written_are_known_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    cases = [
        (tmp_path, "folder"),
        (tmp_path / "absent" / "a.tif", "missing; make it first"),
        (tmp_path / "file" / "a.tif", "missing"),
        ("/dev/null", "device"),
        (tmp_path / ("x" * 300 + ".tif"), "too long"),
    ]
    for path, words in cases:
        for act in (check_writable, lambda path: write(path, np.zeros((2, 3)))):
            with pytest.raises(ImageError, match=words):
                act(path)
    (tmp_path / "kept.tif").write_bytes(b"kept")
    monkeypatch.setattr(os, "access", lambda *_args: False)
    with pytest.raises(ImageError, match="write-protected"):
        check_writable(tmp_path / "kept.tif")
    monkeypatch.undo()
    check_writable(tmp_path / "kept.tif")
    check_writable(tmp_path / "new.tif")
    assert names(tmp_path) == ["file", "kept.tif"] and (tmp_path / "kept.tif").read_bytes() == b"kept"


def test_a_folder_without_rights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_args: object) -> int:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ImageError, match="the disk is read-only; write elsewhere"):
        check_writable(tmp_path / "a.tif")
