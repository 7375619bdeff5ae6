"""Small scans on disk, and the command called in this process. One image size, so that programs are compiled once."""

import dataclasses
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from emjax import io
from emjax.cli import main

SIZE = 64


@dataclasses.dataclass
class Result:
    """How a call of the command ended."""

    code: int
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        """The one JSON object on standard output."""
        return json.loads(self.out)


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A compilation cache of the tests' own, never the user's."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        patch.delenv("EMJAX_TRACEBACK", raising=False)
        yield folder


@pytest.fixture
def emjax(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Result]:
    """`emjax("recover", path, ...)` as from a shell in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: Any) -> Result:
        monkeypatch.setattr(sys, "argv", ["emjax", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        captured = capsys.readouterr()
        assert "Traceback" not in captured.err
        return Result(code, captured.out, captured.err)

    return run


@pytest.fixture(scope="session")
def truth() -> np.ndarray:
    """A smooth image with an edge, in [0.1, 0.9]."""
    i, j = np.mgrid[:SIZE, :SIZE] / SIZE
    return (0.5 + 0.2 * np.sin(7 * i) * np.cos(5 * j) + 0.2 * (i + j > 1)).astype(np.float32)


@pytest.fixture(scope="session")
def mask() -> np.ndarray:
    return np.random.default_rng(0).random((SIZE, SIZE)) < 0.4


@pytest.fixture
def scan(tmp_path: Path, truth: np.ndarray, mask: np.ndarray) -> Path:
    """A sparse scan in 8 bits, 0 where not measured, with metadata."""
    path = tmp_path / "scan.tif"
    values = np.where(mask, np.rint(255 * truth), 0).astype(np.uint8)
    io.write(path, values, like=io.Metadata(pixel_size_nm=(4.0, 5.0), dwell_time_s=2e-6))
    return path
