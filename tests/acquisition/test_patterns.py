"""Scan patterns: exact counts, ratios, determinism, one pixel a cell or column, continuous beam paths, clear errors."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.acquisition import (
    PATTERNS,
    jittered_grid,
    line_hop,
    low_discrepancy,
    pattern,
    poisson_disc,
    spiral,
    uniform,
    variable_density,
)

KEY = jax.random.key(3)
every = pytest.mark.parametrize("name", list(PATTERNS))
# One program a pattern, shape and ratio, compiled quickly.
quick = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
drawn = quick(pattern, static_argnums=(0, 2, 3))


@every
@pytest.mark.parametrize(("shape", "ratio"), [((63, 101), 0.05), ((128, 40), 0.1), ((63, 101), 0.5)])
def test_ratio_is_kept(name: str, shape: tuple[int, int], ratio: float) -> None:
    mask = drawn(name, KEY, shape, ratio)
    assert mask.shape == shape
    assert mask.dtype == (jnp.float32 if name == "spiral" else bool)
    # A spiral has few turns on a small image, and jittered grids and line hops have whole rows of cells.
    slack = {"jittered": 0.1, "line-hop": 0.1, "spiral": 0.03}.get(name, 0.01)
    assert abs(float((mask > 0).mean()) / ratio - 1) < slack


@pytest.mark.parametrize("shape", [(1,), (7,), (5, 9), (1, 1), (4, 5, 6)])
@pytest.mark.parametrize("ratio", [1e-6, 0.1, 0.33, 1.0])
def test_uniform_has_exactly_the_asked_count(shape: tuple[int, ...], ratio: float) -> None:
    assert int(uniform(KEY, shape, ratio).sum()) == max(1, round(ratio * int(np.prod(shape))))


def test_uniform_gives_every_pixel_the_same_chance() -> None:
    masks = quick(jax.vmap(lambda k: uniform(k, (6, 7), 0.25)))(jax.random.split(KEY, 4000))
    chance = np.asarray(masks.mean(0))
    expected = round(0.25 * 42) / 42
    assert np.abs(chance - expected).max() < 5 * (expected * (1 - expected) / 4000) ** 0.5


@every
@pytest.mark.parametrize("shape", [(1, 1), (17, 5)])
@pytest.mark.parametrize("ratio", [1e-4, 1.0])
def test_no_mask_is_empty(name: str, shape: tuple[int, int], ratio: float) -> None:
    mask = drawn(name, KEY, shape, ratio)
    assert mask.any()
    assert ratio < 1 or (mask > 0).all()


@every
def test_keys_decide(name: str) -> None:
    first, again = (drawn(name, KEY, (48, 50), 0.2) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert (first != drawn(name, jax.random.key(4), (48, 50), 0.2)).any()


@every
def test_exports_and_maps_over_keys(name: str) -> None:
    keys = jax.random.split(KEY, 3)
    batch = quick(jax.vmap(lambda k: pattern(name, k, (24, 20), 0.25)))(keys)
    for key, mask in zip(keys, batch, strict=True):
        np.testing.assert_allclose(mask, drawn(name, key, (24, 20), 0.25), atol=1e-5 if name == "spiral" else 0)
    export = jax.export.export(jax.jit(lambda k: pattern(name, k, (24, 20), 0.25)), platforms=["cpu", "cuda", "tpu"])
    assert export(KEY).out_avals[0].shape == (24, 20)


def test_jittered_grid_has_one_pixel_a_cell() -> None:
    mask = np.asarray(drawn("jittered", KEY, (40, 60), 1 / 25))
    cells = mask.reshape(8, 5, 12, 5).sum((1, 3))
    np.testing.assert_array_equal(cells, 1)
    many = quick(jax.vmap(lambda k: jittered_grid(k, (5, 5), 1 / 25)))(jax.random.split(KEY, 200))
    inside = np.argwhere(many)[:, 1:]
    assert set(map(tuple, inside)) == {(i, j) for i in range(5) for j in range(5)}


def test_jittered_grid_in_three_dimensions() -> None:
    mask = np.asarray(drawn("jittered", KEY, (8, 12, 16), 1 / 64))
    np.testing.assert_array_equal(mask.reshape(2, 4, 3, 4, 4, 4).sum((1, 3, 5)), 1)


def test_jittered_grid_on_thin_shapes_keeps_the_ratio() -> None:
    # An axis shorter than a cell holds one cell; the others make up for it.
    mask = jittered_grid(KEY, (2, 500), 0.02)
    assert abs(float(mask.mean()) / 0.02 - 1) < 0.1


@pytest.mark.parametrize(("shape", "ratio"), [((64, 50), 0.125), ((63, 31), 0.2), ((10, 200), 0.1)])
def test_line_hop_is_a_continuous_path(shape: tuple[int, int], ratio: float) -> None:
    mask = np.asarray(drawn("line-hop", KEY, shape, ratio))
    rows = round(shape[0] * ratio)
    edges = np.round(np.arange(rows + 1) * (shape[0] / rows)).astype(int)
    for low, high in itertools.pairwise(edges):
        band = mask[low:high]
        np.testing.assert_array_equal(band.sum(0), 1)
        path = band.argmax(0)
        assert np.abs(np.diff(path)).max(initial=0) <= 1
        assert high - low == 1 or shape[1] < 50 or np.ptp(path) > 0


def test_line_hop_visits_all_rows_of_a_band_alike() -> None:
    masks = quick(jax.vmap(lambda k: line_hop(k, (6, 60), 1 / 6)))(jax.random.split(KEY, 400))
    share = np.asarray(masks.mean((0, 2)))
    np.testing.assert_allclose(share, 1 / 6, atol=0.03)


def test_line_hop_takes_bands_and_stacks() -> None:
    mask = np.asarray(line_hop(KEY, (3, 32, 20), 0.25, band=8))
    assert mask.shape == (3, 32, 20)
    np.testing.assert_array_equal(mask.reshape(3, 4, 8, 20).sum(2), 1)
    assert (mask[0] != mask[1]).any()


def gaps(mask: jax.Array) -> tuple[np.ndarray, float]:
    """The distance from each measured pixel to the next, and the radius of the largest hole."""
    from scipy.spatial import cKDTree

    points = np.argwhere(mask)
    tree = cKDTree(points)
    return tree.query(points, 2)[0][:, 1], tree.query(np.argwhere(np.ones(mask.shape)))[0].max()


@pytest.mark.parametrize("ratio", [0.02, 0.1, 0.2])
def test_poisson_discs_keep_their_distance_and_leave_no_holes(ratio: float) -> None:
    nearest, hole = gaps(drawn("poisson-disc", KEY, (96, 110), ratio))
    spacing = ratio**-0.5
    assert nearest.min() > 0.6 * spacing
    assert hole < 1.1 * spacing
    assert gaps(drawn("random", KEY, (96, 110), ratio))[1] > 1.3 * spacing


def test_poisson_discs_have_no_power_at_low_frequencies() -> None:
    masks = quick(jax.vmap(lambda k: poisson_disc(k, (64, 64), 0.1)))(jax.random.split(KEY, 16))
    power = np.abs(np.fft.fft2(np.asarray(masks) - 0.1)).__pow__(2).mean(0) / (4096 * 0.1 * 0.9)
    f = np.hypot(*np.meshgrid(np.fft.fftfreq(64), np.fft.fftfreq(64)))
    assert power[(f > 0.02) & (f < 0.12)].mean() < 0.25  # 1 for independent pixels
    assert power[(f > 0.3) & (f < 0.4)].mean() > 0.7


def test_poisson_discs_agree_with_darts_thrown_one_by_one() -> None:
    from emjax.acquisition.poisson_disc import _radii, _throw

    shape, radius = (30, 34), 3.2
    radii = jnp.asarray([radius, 0.0])
    order = np.argsort(-np.asarray(jax.random.permutation(KEY, 30 * 34)))
    taken: list[np.ndarray] = []
    for p in (np.array(divmod(int(i), 34)) for i in order):
        if all(np.hypot(*(p - q)) > radius for q in taken):
            taken.append(p)
    found = _throw(KEY, radii, jnp.ones(shape), jnp.zeros(shape, bool), len(taken), 3)
    np.testing.assert_array_equal(np.argwhere(found), np.array(sorted(map(tuple, taken))))
    assert (np.diff(_radii(20.0)) < 0).all() and _radii(20.0)[-1] == 0


@pytest.mark.parametrize("shape", [(5, 6, 7), (40,), (50, 60)])
def test_low_discrepancy_takes_any_number_of_axes(shape: tuple[int, ...]) -> None:
    assert int(low_discrepancy(KEY, shape, 0.3).sum()) == round(0.3 * int(np.prod(shape)))


def test_low_discrepancy_is_even_in_every_box() -> None:
    def worst(mask: jax.Array) -> float:
        boxes = np.cumsum(np.cumsum(np.asarray(mask, float), 0), 1)
        area = np.outer(np.arange(1, 129), np.arange(1, 129))
        return float(np.abs(boxes / boxes[-1, -1] - area / area[-1, -1]).max())

    assert worst(low_discrepancy(KEY, (128, 128), 0.05)) < 0.4 * worst(uniform(KEY, (128, 128), 0.05))


def test_variable_density_gives_each_pixel_its_chance() -> None:
    density = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 100.0], [0.0, jnp.nan, -1.0]])
    masks = jax.vmap(lambda k: variable_density(k, (3, 3), 4 / 9, density=density))(jax.random.split(KEY, 6000))
    np.testing.assert_array_equal(masks.sum((1, 2)), 4)
    # The largest is certain; the others share three pixels like 1 to 5.
    expected = np.array([[0.2, 0.4, 0.6], [0.8, 1, 1], [0, 0, 0]])
    np.testing.assert_allclose(masks.mean(0), expected, atol=0.03)


@pytest.mark.slow
def test_variable_density_is_centre_weighted_by_default_and_even_in_a_flat_density() -> None:
    mask = np.asarray(drawn("variable-density", KEY, (3, 96, 100), 0.1))
    assert (mask.sum((1, 2)) == 960).all() and (mask[0] != mask[1]).any()
    assert mask[:, 36:60, 38:62].mean() > 2.5 * mask[:, :24, :24].mean() > 0
    assert gaps(variable_density(KEY, (96, 100), 0.1, density=jnp.ones((96, 100))))[1] < 1.6 * 0.1**-0.5


def test_spirals_are_the_published_ones() -> None:
    # One pixel of path (integral 1 across). Partial-STEM's square kernels are wider on diagonals: its pitch is 20.
    mask = np.asarray(spiral(KEY, (256, 256), 0.1746, radius=127.5))
    assert abs((mask > 0).mean() - 0.1746) < 0.003
    assert 0.45 < mask.max() <= 0.5
    row = mask[128, 128 + 20 :]
    arms = np.flatnonzero((row[1:-1] >= row[:-2]) & (row[1:-1] > row[2:]))
    assert abs(np.diff(arms).mean() - 18) < 0.5
    np.testing.assert_allclose(row[: arms[-1]].mean() * 18, 1, rtol=0.15)
    assert mask[0, 0] == 0 and spiral(KEY, (256, 256), 0.5)[0].any()


@every
@pytest.mark.parametrize("ratio", [0.0, 1.01, float("nan")])
def test_a_ratio_outside_its_range_is_refused(name: str, ratio: float) -> None:
    with pytest.raises(ValueError, match=r"\(0, 1\]"):
        pattern(name, KEY, (8, 8), ratio)


def test_other_errors() -> None:
    with pytest.raises(ValueError, match="random, jittered, poisson-disc"):
        pattern("zigzag", KEY, (8, 8), 0.1)
    with pytest.raises(ValueError, match="axes"):
        line_hop(KEY, (8,), 0.1)
    with pytest.raises(ValueError, match="length 1 or more"):
        uniform(KEY, (0, 8), 0.1)
    with pytest.raises(ValueError, match="band"):
        line_hop(KEY, (8, 8), 0.1, band=0)
    with pytest.raises(TypeError, match="key"):
        jnp.asarray(uniform(0.5, (8, 8), 0.1))
    with pytest.raises(ValueError, match=r"\(8, 8\).*\(8, 9\)"):
        variable_density(KEY, (8, 8), 0.1, density=jnp.ones((8, 9)))
    with pytest.raises(ValueError, match="65536"):
        low_discrepancy(KEY, (1, 70000), 0.1)
    with pytest.raises(ValueError, match="width"):
        spiral(KEY, (8, 8), 0.1, width=0.5)
    with pytest.raises(ValueError, match="radius"):
        spiral(KEY, (8, 8), 0.1, radius=0)
