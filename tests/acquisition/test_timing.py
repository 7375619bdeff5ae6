"""Scan times: counted by hand and by a walk on the host, and the ratio that a time allows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.acquisition import line_hop, ratio_at_time, scan_time, spiral, spiral_time, uniform, variable_density

KEY = jax.random.key(2)
DWELL, SETTLING, FLYBACK = 2.0, 30.0, 500.0


def walk(mask: np.ndarray, line_of_row: list[int]) -> float:
    """The same walk, pixel by pixel."""
    seconds, last = 0.0, None
    for line, column, row in sorted((line_of_row[i], j, i) for i, j in np.argwhere(mask)):
        seconds += DWELL
        if last is None or last[0] != line:
            seconds += FLYBACK
        elif max(abs(column - last[1]), abs(row - last[2])) > 1:
            seconds += SETTLING
        last = (line, column, row)
    return seconds


def test_a_raster_takes_its_pixels_and_lines() -> None:
    assert float(scan_time(np.ones((6, 9)), DWELL, SETTLING, FLYBACK)) == 54 * DWELL + 6 * FLYBACK
    assert float(scan_time(np.zeros((6, 9)), DWELL, SETTLING, FLYBACK)) == 0
    assert float(scan_time(np.eye(5), DWELL, SETTLING, FLYBACK)) == 5 * (DWELL + FLYBACK)


@pytest.mark.parametrize("ratio", [0.05, 0.3, 0.8])
@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (13, 17)])
def test_times_are_those_of_the_walk(shape: tuple[int, int], ratio: float) -> None:
    mask = np.asarray(uniform(KEY, shape, ratio))
    assert float(scan_time(mask, DWELL, SETTLING, FLYBACK)) == walk(mask, list(range(shape[0])))
    bands = max(1, shape[0] // 3)
    edges = np.round(np.arange(bands + 1) * (shape[0] / bands))
    line = list(np.searchsorted(edges, np.arange(shape[0]), side="right") - 1)
    assert float(scan_time(mask, DWELL, SETTLING, FLYBACK, bands=bands)) == walk(mask, line)


def test_line_hop_needs_no_settling_on_its_own_path() -> None:
    mask = line_hop(KEY, (50, 60), 0.2)
    assert float(scan_time(mask, DWELL, SETTLING, FLYBACK, bands=10)) == 600 * DWELL + 10 * FLYBACK
    assert float(scan_time(mask, DWELL, SETTLING, FLYBACK)) > 400 * SETTLING


def test_times_map_differentiate_and_export() -> None:
    masks = jax.vmap(lambda k: uniform(k, (12, 15), 0.3))(jax.random.split(KEY, 3))
    both = jax.vmap(lambda m: scan_time(m, DWELL, SETTLING, FLYBACK))(masks)
    np.testing.assert_array_equal(both, [scan_time(m, DWELL, SETTLING, FLYBACK) for m in masks])
    assert float(jax.grad(lambda d: scan_time(masks[0], d, SETTLING))(DWELL)) == 54
    jax.export.export(jax.jit(scan_time), platforms=["cpu", "cuda", "tpu"])(masks[0], 1.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="vmap"):
        scan_time(masks, DWELL)
    with pytest.raises(ValueError, match="bands"):
        scan_time(masks[0], DWELL, bands=13)


def test_the_ratio_at_a_time_takes_that_time() -> None:
    def cost(mask: jax.Array) -> jax.Array:
        return scan_time(mask, DWELL, SETTLING, FLYBACK)

    shape = (64, 64)
    seconds = float(cost(uniform(KEY, shape, 0.2)))
    np.testing.assert_allclose(ratio_at_time(seconds, KEY, shape, uniform, cost=cost), 0.2, rtol=0.01)
    found = ratio_at_time(seconds, KEY, shape, variable_density, cost=cost)
    assert 0.98 * seconds < float(cost(variable_density(KEY, shape, found))) <= seconds


def test_enough_time_for_everything_gives_the_whole_image_and_too_little_an_error() -> None:
    assert ratio_at_time(1e9, KEY, (9, 9), uniform, cost=lambda m: scan_time(m, DWELL, SETTLING, FLYBACK)) == 1
    with pytest.raises(ValueError, match="smallest scan takes 502"):
        ratio_at_time(10, KEY, (9, 9), uniform, cost=lambda m: scan_time(m, DWELL, SETTLING, FLYBACK))


def test_settling_can_make_a_gappy_scan_slower_than_a_full_one() -> None:
    full = float(scan_time(jnp.ones((40, 40)), DWELL, SETTLING, FLYBACK))
    assert float(scan_time(uniform(KEY, (40, 40), 0.5), DWELL, SETTLING, FLYBACK)) > full - 800 * DWELL
    found = ratio_at_time(full, KEY, (40, 40), uniform, cost=lambda m: scan_time(m, DWELL, SETTLING, FLYBACK))
    assert found < 0.5


def test_a_spiral_takes_the_length_of_its_path() -> None:
    radius, weights = 30.0, spiral(KEY, (64, 64), 0.3, radius=30.0)
    # A path of pitch p sweeps a disc of radius R in pi R^2 / p; of the disc a share 2 width / p is not zero.
    share = float(jnp.mean(weights > 0)) * 64 * 64 / (np.pi * radius**2)
    length = np.pi * radius**2 * share / 4
    np.testing.assert_allclose(
        float(spiral_time(weights, DWELL, FLYBACK, radius=radius)), DWELL * length + FLYBACK, rtol=0.05
    )
    # Up to the corner of a square, the path is pi / 2 times as long as its part inside.
    whole = spiral(KEY, (64, 64), 0.3)
    np.testing.assert_allclose(float(spiral_time(whole, DWELL)), float(jnp.sum(whole)) * DWELL * np.pi / 2, rtol=0.03)
    with pytest.raises(ValueError, match="vmap"):
        spiral_time(jnp.stack([whole, whole]), DWELL)
