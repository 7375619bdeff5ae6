"""Scan patterns: exact counts, ratios, determinism, one pixel a cell or column, continuous beam paths, clear errors."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.acquisition import PATTERNS, jittered_grid, line_hop, pattern, uniform

KEY = jax.random.key(3)
SHAPES = [(63, 101), (128, 40)]
every = pytest.mark.parametrize("name", list(PATTERNS))


@every
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("ratio", [0.05, 0.1, 0.5])
def test_ratio_is_kept(name: str, shape: tuple[int, int], ratio: float) -> None:
    mask = pattern(name, KEY, shape, ratio)
    assert mask.shape == shape
    assert mask.dtype == bool
    assert abs(float(mask.mean()) / ratio - 1) < 0.1


@pytest.mark.parametrize("shape", [(1,), (7,), (5, 9), (1, 1), (4, 5, 6)])
@pytest.mark.parametrize("ratio", [1e-6, 0.1, 0.33, 1.0])
def test_uniform_has_exactly_the_asked_count(shape: tuple[int, ...], ratio: float) -> None:
    assert int(uniform(KEY, shape, ratio).sum()) == max(1, round(ratio * int(np.prod(shape))))


def test_uniform_gives_every_pixel_the_same_chance() -> None:
    masks = jax.vmap(lambda k: uniform(k, (6, 7), 0.25))(jax.random.split(KEY, 4000))
    chance = np.asarray(masks.mean(0))
    expected = round(0.25 * 42) / 42
    assert np.abs(chance - expected).max() < 5 * (expected * (1 - expected) / 4000) ** 0.5


@every
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (17, 5)])
@pytest.mark.parametrize("ratio", [1e-4, 0.7, 1.0])
def test_no_mask_is_empty(name: str, shape: tuple[int, int], ratio: float) -> None:
    mask = pattern(name, KEY, shape, ratio)
    assert mask.any()
    assert ratio < 1 or mask.all()


@every
def test_keys_decide(name: str) -> None:
    first, again = (pattern(name, KEY, (48, 50), 0.2) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != pattern(name, jax.random.key(4), (48, 50), 0.2)).any()


@every
def test_exports_and_maps_over_keys(name: str) -> None:
    keys = jax.random.split(KEY, 3)
    batch = jax.vmap(lambda k: pattern(name, k, (24, 20), 0.25))(keys)
    for key, mask in zip(keys, batch, strict=True):
        np.testing.assert_array_equal(mask, pattern(name, key, (24, 20), 0.25))
    export = jax.export.export(jax.jit(lambda k: pattern(name, k, (24, 20), 0.25)), platforms=["cpu", "cuda", "tpu"])
    assert export(KEY).out_avals[0].shape == (24, 20)


def test_jittered_grid_has_one_pixel_a_cell() -> None:
    mask = np.asarray(jittered_grid(KEY, (40, 60), 1 / 25))
    cells = mask.reshape(8, 5, 12, 5).sum((1, 3))
    np.testing.assert_array_equal(cells, 1)
    inside = np.stack([np.argwhere(jittered_grid(k, (5, 5), 1 / 25))[0] for k in jax.random.split(KEY, 200)])
    assert set(map(tuple, inside)) == {(i, j) for i in range(5) for j in range(5)}


def test_jittered_grid_in_three_dimensions() -> None:
    mask = np.asarray(jittered_grid(KEY, (8, 12, 16), 1 / 64))
    np.testing.assert_array_equal(mask.reshape(2, 4, 3, 4, 4, 4).sum((1, 3, 5)), 1)


def test_jittered_grid_on_thin_shapes_keeps_the_ratio() -> None:
    # An axis shorter than a cell holds one cell; the others make up for it.
    mask = jittered_grid(KEY, (2, 500), 0.02)
    assert abs(float(mask.mean()) / 0.02 - 1) < 0.1


@pytest.mark.parametrize(("shape", "ratio"), [((64, 50), 0.125), ((63, 31), 0.2), ((10, 200), 0.1)])
def test_line_hop_is_a_continuous_path(shape: tuple[int, int], ratio: float) -> None:
    mask = np.asarray(line_hop(KEY, shape, ratio))
    rows = round(shape[0] * ratio)
    edges = np.round(np.arange(rows + 1) * (shape[0] / rows)).astype(int)
    for low, high in itertools.pairwise(edges):
        band = mask[low:high]
        np.testing.assert_array_equal(band.sum(0), 1)
        path = band.argmax(0)
        assert np.abs(np.diff(path)).max(initial=0) <= 1
        assert high - low == 1 or shape[1] < 50 or np.ptp(path) > 0


def test_line_hop_visits_all_rows_of_a_band_alike() -> None:
    masks = jax.vmap(lambda k: line_hop(k, (6, 60), 1 / 6))(jax.random.split(KEY, 400))
    share = np.asarray(masks.mean((0, 2)))
    np.testing.assert_allclose(share, 1 / 6, atol=0.03)


def test_line_hop_takes_bands_and_stacks() -> None:
    mask = np.asarray(line_hop(KEY, (3, 32, 20), 0.25, band=8))
    assert mask.shape == (3, 32, 20)
    np.testing.assert_array_equal(mask.reshape(3, 4, 8, 20).sum(2), 1)
    assert (mask[0] != mask[1]).any()


@every
@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.01, float("nan")])
def test_a_ratio_outside_its_range_is_refused(name: str, ratio: float) -> None:
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        pattern(name, KEY, (8, 8), ratio)


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="random, jittered, line-hop"):
        pattern("spiral", KEY, (8, 8), 0.1)
    with pytest.raises(ValueError, match="axes"):
        line_hop(KEY, (8,), 0.1)
    with pytest.raises(ValueError, match="length 1 or more"):
        uniform(KEY, (0, 8), 0.1)
    with pytest.raises(ValueError, match="band"):
        line_hop(KEY, (8, 8), 0.1, band=0)
    with pytest.raises(TypeError, match="key"):
        jnp.asarray(uniform(0.5, (8, 8), 0.1))
