"""Patches come from inside the images, as often as the weights say; changes stay within [0, 1] and follow the key."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from emjax.training import Augmentation, Images
from emjax.training.augment import augment, random_crops, symmetry

RNG = np.random.default_rng(0)
PICTURES = [RNG.integers(0, 256, size, np.uint8) for size in ((20, 31), (9, 8), (40, 11))]
crops = jax.jit(random_crops, static_argnums=(2, 3, 4))


def found(patch: np.ndarray, picture: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(picture, patch.shape)
    return bool((windows == patch).all((-1, -2)).any())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
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
    ramp = np.arange(30, dtype=np.uint8).reshape(5, 6)
    corners = np.rint(np.asarray(crops(jax.random.key(2), Images.pack([ramp]), 4, 200))[:, 0, 0] * 255)
    assert set(corners) == {0, 1, 2, 6, 7, 8}


def test_binned_patches_are_means_and_only_of_images_large_enough() -> None:
    board = np.where(np.indices((12, 12)).sum(0) % 2, 255, 0).astype(np.uint8)
    patches = crops(jax.random.key(0), Images.pack([board]), 6, 400, 0.5)
    even = jnp.all(jnp.abs(patches - 0.5) < 1e-6, axis=(1, 2))
    assert 0.4 < float(jnp.mean(even)) < 0.6
    assert not bool(jnp.any(jnp.isclose(crops(jax.random.key(0), Images.pack([board]), 7, 50, 1.0), 0.5)))


def test_the_eight_symmetries_are_those_of_the_square() -> None:
    x = jnp.arange(9.0).reshape(3, 3)
    ours = {tuple(np.asarray(symmetry(x, jnp.asarray(i))).ravel()) for i in range(8)}
    theirs = {tuple(np.rot90(y, k).ravel()) for y in (np.asarray(x), np.asarray(x.T)) for k in range(4)}
    assert ours == theirs


def test_grey_changes_stay_in_range_and_follow_the_key() -> None:
    how = Augmentation(gain=0.5, offset=0.3, gamma=1.0, inversion=0.5)
    change = jax.jit(lambda key, x: augment(key, x, how))
    x = jnp.asarray(RNG.random((50, 6, 6)), jnp.float32).at[0].set(0).at[1].set(1)
    y = change(jax.random.key(3), x)
    assert y.shape == x.shape and float(y.min()) >= 0 and float(y.max()) <= 1
    np.testing.assert_array_equal(y, change(jax.random.key(3), x))
    assert float(jnp.abs(y - change(jax.random.key(4), x)).mean()) > 0.05
    nothing = augment(jax.random.key(0), x, Augmentation(symmetries=False))
    np.testing.assert_array_equal(nothing, x)
    inverted = augment(jax.random.key(0), x, Augmentation(symmetries=False, inversion=1.0))
    np.testing.assert_array_equal(inverted, 1 - x)
