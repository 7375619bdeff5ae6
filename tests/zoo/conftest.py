"""A tiny network of the tests' own, and a folder with it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from flax import nnx

from emjax.networks import NETWORKS, Network
from emjax.networks.base import convolve


@pytest.fixture(scope="session", autouse=True)
def tiny() -> Iterator[type[Network]]:
    """One convolution of the proxy `A.T y`, registered while these tests run."""

    class Tiny(Network):
        kind: ClassVar[str] = "tiny"

        def __init__(self, width: int = 3, shape: tuple[int, ...] = (1,), *, rngs: nnx.Rngs) -> None:
            if width < 1:
                raise ValueError(f"width is 1 or more, got {width}")
            self.width, self.shape = width, tuple(shape)
            self.layers = nnx.List([nnx.Conv(1, width, (3, 3), rngs=rngs), nnx.Conv(width, 1, (3, 3), rngs=rngs)])

        def __call__(self, y: Any, A: Any, noise: Any = None) -> Any:
            x = A.adjoint(self.measurements(y, A))[..., None]
            return convolve(self.layers[1], convolve(self.layers[0], x))[..., 0]

    yield Tiny
    del NETWORKS["tiny"]


@pytest.fixture(scope="session")
def network(tiny: type[Network]) -> Network:
    return tiny(width=2, shape=(4, 5), rngs=nnx.Rngs(3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's zoo, still empty."""
    path = tmp_path / "zoo"
    path.mkdir()
    monkeypatch.setenv("EMJAX_ZOO", str(path))
    return path
