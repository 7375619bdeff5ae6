"""A tiny training that the tests share, and a compilation cache: they train often, and mostly the same programs."""

from collections.abc import Iterator
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

from emjax.training import Recipe, Result, load_recipe, train

TABLE = """# The first line says what it is.
[network]
kind = "dncnn"
width = 4
depth = 2
[task]
kind = "denoise"
[data]
train = [{ phantom = { count = 2, size = 48 } }]
validation = [{ phantom = { size = 48, seed = 9 } }]
crop = 16
batch = 4
validation_crops = 4
[optimiser]
learning_rate = 1e-2
ema = 0.9
[run]
steps = 12
validate_every = 6
checkpoint_every = 4
log_every = 3
"""
SETTINGS = {
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(scope="module", autouse=True)
def compiled(cache: Path) -> Iterator[None]:
    """What one test compiled, the next finds on the disk; other tests than these are not concerned."""
    settings = {**SETTINGS, "jax_compilation_cache_dir": str(cache)}
    before = {name: getattr(jax.config, name) for name in settings}
    for values in (settings, before):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()
        if values is settings:
            yield


@pytest.fixture(scope="session")
def toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the tiny recipe."""
    path = tmp_path_factory.mktemp("recipe") / "tiny.toml"
    path.write_text(TABLE)
    return path


@pytest.fixture(scope="session")
def recipe(toml: Path) -> Recipe:
    return load_recipe(toml)


@pytest.fixture(scope="session")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The training of the tiny recipe from its beginning to its end."""
    return train(recipe, tmp_path_factory.mktemp("whole"), quiet=True)
