"""Patches come from inside the images, as often as the weights say; changes stay within [0, 1] and follow the key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from emjax.training import Augmentation, Images
from emjax.training.augment import augment, blur, random_crops, symmetry

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, size, np.uint8) for size in ((20, 31), (9, 8), (40, 11))]
crops = jax.jit(random_crops, static_argnums=(2, 3, 4))
change = jax.jit(augment, static_argnums=(2, 3))


def found(patch: np.ndarray, picture: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(picture, patch.shape)
    return bool((windows == patch).all((-1, -2)).any())


@pytest.mark.parametrize("dtype", [np.uint8, pytest.param(np.uint16, marks=pytest.mark.slow)])
def test_patches_are_windows_of_the_images(dtype: type) -> None:
    pictures = [p.astype(dtype) for p in PICTURES]
    white = np.iinfo(dtype).max
    patches = np.asarray(crops(jax.random.key(0), Images.pack(pictures), 7, 64) * white)
    assert np.abs(patches - np.rint(patches)).max() < 1e-2
    assert all(any(found(np.rint(patch), picture) for picture in pictures) for patch in patches)


def test_images_are_drawn_by_weight_and_pixels_and_all_places_are_reached() -> None:
    flat = [np.full(size, grey, np.uint8) for grey, size in ((51, (8, 8)), (102, (16, 8)), (204, (8, 24)))]
    patches = crops(jax.random.key(1), Images.pack(flat, [1, 1, 2]), 4, 20_000)
    shares = [float(jnp.mean(jnp.abs(patches[:, 0, 0] - grey / 255) < 1e-3)) for grey in (51, 102, 204)]
    np.testing.assert_allclose(shares, np.array([64, 128, 384]) / 576, atol=0.015)
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8)
    patches = crops(jax.random.key(2), Images.pack([ramp, *flat[1:]], [9, 1e-6, 1e-6]), 4, 20_000)
    corners = np.rint(np.asarray(patches)[:, 0, 0] * 255)
    assert set(corners) == {8 * i + j for i in range(5) for j in range(5)}


def test_binned_patches_are_means_and_only_of_images_large_enough() -> None:
    board = np.where(np.indices((12, 12)).sum(0) % 2, 255, 0).astype(np.uint8)
    flat = board.reshape(9, 16)  # not high enough
    patches = np.asarray(crops(jax.random.key(0), Images.pack([board]), 6, 400, 0.5))
    even = np.all(np.abs(patches - 0.5) < 1e-6, axis=(1, 2))
    assert 0.4 < np.mean(even) < 0.6
    assert not np.isclose(crops(jax.random.key(0), Images.pack([flat]), 6, 400, 0.5), 0.5).any()


def test_the_eight_symmetries_are_those_of_the_square() -> None:
    x = jnp.arange(9.0).reshape(3, 3)
    ours = {tuple(np.asarray(symmetry(x, jnp.asarray(i))).ravel()) for i in range(8)}
    theirs = {tuple(np.rot90(y, k).ravel()) for y in (np.asarray(x), np.asarray(x.T)) for k in range(4)}
    assert ours == theirs


def test_a_share_of_the_patches_is_blurred_by_a_gaussian() -> None:
    x = RNG.random((400, 24, 24)).astype(np.float32)
    how = Augmentation(symmetries=False, blur=2.0, blurred=0.25)
    y = np.asarray(change(jax.random.key(5), x, how))
    same = np.all(y == x, axis=(1, 2))
    assert 0.65 < same.mean() < 0.85
    assert np.var(y[~same]) < 0.5 * np.var(x)
    expected = gaussian_filter(x[0].astype(float), 1.3, mode="constant", truncate=20)
    expected /= gaussian_filter(np.ones((24, 24)), 1.3, mode="constant", truncate=20)
    np.testing.assert_allclose(blur(jnp.asarray(x[0]), jnp.float32(1.3)), expected, atol=2e-4)
    # What was not measured stays so, and counts for nothing.
    x[0, 3:5, 4] = np.nan
    found = np.asarray(blur(jnp.asarray(x[0]), jnp.float32(1.0)))
    np.testing.assert_array_equal(np.isnan(found), np.isnan(x[0]))
    assert found[2, 4] == pytest.approx(np.nanmean(x[0, :6, 1:8]), abs=0.3)


def test_grey_changes_stay_in_range_and_follow_the_key() -> None:
    how = Augmentation(gain=0.5, offset=0.3, gamma=1.0, inversion=0.5)
    x = RNG.random((50, 6, 6)).astype(np.float32)
    x[0], x[1] = 0, 1
    y, again, other = (np.asarray(change(jax.random.key(seed), x, how)) for seed in (3, 3, 4))
    assert y.shape == x.shape and y.min() >= 0 and y.max() <= 1
    np.testing.assert_array_equal(y, again)
    assert np.abs(y - other).mean() > 0.05
    np.testing.assert_array_equal(change(jax.random.key(0), x, Augmentation(symmetries=False)), x)
    inverted = change(jax.random.key(0), x, Augmentation(symmetries=False, inversion=1.0))
    np.testing.assert_array_equal(inverted, 1 - x)


def test_scans_keep_their_gaps_and_are_not_clipped() -> None:
    how = Augmentation(gain=0.5, offset=0.3, inversion=0.5)
    x = (0.5 + 2 * RNG.standard_normal((20, 6, 6))).astype(np.float32)
    x[RNG.random(x.shape) < 0.5] = np.nan
    y = np.asarray(change(jax.random.key(1), x, how, False))
    for before, after in zip(x, y, strict=True):
        turned = [np.rot90(z, k) for z in (before, before.T) for k in range(4)]
        (one,) = [z for z in turned if np.array_equal(np.isnan(z), np.isnan(after))]
        seen = np.isfinite(after)
        slope, shift = np.polyfit(one[seen], after[seen], 1)
        assert 0.5 <= abs(slope) <= 1.5
        np.testing.assert_allclose(after[seen], slope * one[seen] + shift, atol=1e-4)
