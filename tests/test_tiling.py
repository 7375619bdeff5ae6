"""Tiles cover, fade and blend so that nobody sees where they met."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emjax import tiling

sizes = st.tuples(st.integers(1, 300), st.integers(1, 300))
# Tiles from barely larger than their overlap to larger than the image.
settings_of_tiles = st.integers(0, 20).flatmap(
    lambda halo: st.tuples(st.integers(2 * halo + 1 + (halo == 0), 2 * halo + 150), st.just(halo))
)


@given(n=st.integers(1, 5000), plan=settings_of_tiles)
def test_spans_cover_and_overlap(n: int, plan: tuple[int, int]) -> None:
    tile, halo = plan
    starts, size = tiling.spans(n, tile, halo)
    assert size <= max(tile, 1) and size <= n
    assert starts[0] == 0 and starts[-1] + size == n
    steps = np.diff(starts)
    assert (steps > 0).all() and (size - steps >= 2 * halo).all()
    # No more tiles than the largest size allowed needs.
    assert len(starts) <= max(1, -(-(n - 2 * halo) // (tile - 2 * halo)))


@given(shape=sizes, plan=settings_of_tiles)
@settings(max_examples=50, deadline=None)
def test_weights_are_a_partition(shape: tuple[int, int], plan: tuple[int, int]) -> None:
    tile, halo = plan
    if tiling.count(shape, tile, halo) > 400:
        return
    total = np.zeros(shape)
    parts = list(tiling.tiles(shape, tile, halo))
    assert len(parts) == tiling.count(shape, tile, halo)
    for where, weight in parts:
        assert weight.dtype == np.float32 and weight.min() >= 0 and weight.max() <= 1
        assert weight.shape == total[where].shape == parts[0][1].shape
        total[where] += weight
    assert total.min() > 0


def test_the_rim_of_a_tile_does_not_count() -> None:
    weight = tiling.ramp(100, 30, 40, 8)
    assert (weight[:3] == 0).all() and (weight[-3:] == 0).all() and weight[20] == 1
    assert (np.diff(weight[:20]) >= 0).all()
    assert tiling.ramp(100, 0, 40, 8)[0] == 1 and tiling.ramp(100, 60, 40, 8)[-1] == 1


@given(shape=sizes, plan=settings_of_tiles, seed=st.integers(0, 99))
@settings(max_examples=50, deadline=None)
def test_identity_is_exact(shape: tuple[int, int], plan: tuple[int, int], seed: int) -> None:
    tile, halo = plan
    if tiling.count(shape, tile, halo) > 400:
        return
    image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    calls: list[int] = []
    out = tiling.tiled(lambda x: x, (image,), tile=tile, halo=halo, done=lambda: calls.append(1))
    np.testing.assert_array_equal(out, image)
    assert out.dtype == np.float32 and len(calls) == tiling.count(shape, tile, halo)


def test_a_filter_shorter_than_the_dead_rim_leaves_no_seam() -> None:
    image = np.random.default_rng(0).normal(size=(200, 333)).astype(np.float32)

    def blur(x: np.ndarray) -> np.ndarray:
        x = np.pad(x, 2, mode="edge")
        x = sum(x[i : x.shape[0] - 4 + i] for i in range(5))
        return sum(x[:, i : x.shape[1] - 4 + i] for i in range(5))

    np.testing.assert_array_equal(tiling.tiled(blur, (image,), tile=64, halo=8), blur(image))


def test_neighbours_that_disagree_are_cross_faded() -> None:
    values = iter(range(10))
    out = tiling.tiled(lambda x: np.full_like(x, next(values)), (np.zeros((40, 300), np.float32),), tile=100, halo=16)
    steps = np.diff(out[0])
    assert (steps >= 0).all() and steps.max() < 0.1 and out[0, 0] == 0 and out[0, -1] == 3


def test_threads_give_the_same() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 150, 170)).astype(np.float32)
    alone = tiling.tiled(lambda x, y: x * y.mean(), (a, b), tile=50, halo=6)
    with ThreadPoolExecutor(3) as pool:
        for ahead in (1, 3):
            np.testing.assert_array_equal(
                tiling.tiled(lambda x, y: x * y.mean(), (a, b), tile=50, halo=6, pool=pool, ahead=ahead), alone
            )


def test_every_tile_has_one_shape() -> None:
    shapes = set()

    def note(x: np.ndarray) -> np.ndarray:
        shapes.add(x.shape)
        return x

    tiling.tiled(note, (np.zeros((1000, 700), np.float32),), tile=300, halo=20)
    assert len(shapes) == 1
    assert shapes.pop()[0] % 16 == 0


def test_errors_say_what_to_do() -> None:
    image = np.zeros((50, 50), np.float32)
    with pytest.raises(ValueError, match="larger tiles or a smaller halo"):
        tiling.tiled(lambda x: x, (image,), tile=16, halo=8)
    with pytest.raises(ValueError, match="one shape"):
        tiling.tiled(lambda x, y: x, (image, image[1:]), tile=32, halo=4)
    with pytest.raises(ValueError, match="2-D"):
        tiling.tiled(lambda x: x, (image[0],), tile=32, halo=4)
    with pytest.raises(ValueError, match=r"\(1, 32\).*\(32, 32\)"):
        tiling.tiled(lambda x: x[:1], (image,), tile=32, halo=4)
    with pytest.raises(ValueError, match="halo"):
        tiling.tiled(lambda x: x, (image,), tile=32, halo=-1)
    with ThreadPoolExecutor(1) as pool, pytest.raises(ZeroDivisionError):
        tiling.tiled(lambda x: 1 / 0, (image,), tile=32, halo=4, pool=pool)
