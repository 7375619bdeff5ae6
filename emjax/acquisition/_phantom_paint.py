"""Grey values of the phantom: heavy metal stains membranes dark on bright cytoplasm.

Each function lays one kind of structure over the image, from the cytoplasm up to the membranes.
"""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from emjax.acquisition._phantom_fields import Array32, Grid, grain, smooth_field, soft_step
from emjax.acquisition._phantom_organelles import VESICLE_RADIUS, Organelles
from emjax.acquisition._phantom_tissue import Recipe
from emjax.acquisition._phantom_tubes import Territory, Tubes

MEMBRANE_HALF_WIDTH = 15.0  # nm; two bilayers and the cleft between them, measured from the middle
STAIN = np.float32(0.20)  # grey value of fully stained matter


def over(image: Array32, grey: Array32 | np.float32, cover: Array32) -> None:
    """Lay `grey` over `image` with opacity `cover` in [0, 1], in place."""
    image += cover * (grey - image)


def line(distance: Array32, width: float, pixel: float) -> Array32:
    """Opacity of a stained line or sheet of half width `width`; finer than a pixel, it fades."""
    seen = np.hypot(width, 0.5 * pixel)
    return np.float32(width / seen) * np.exp(-((distance / np.float32(seen)) ** 2))


def paint(
    rng: np.random.Generator,
    recipe: Recipe,
    grid: Grid,
    tubes: Tubes,
    territory: Territory,
    wall: Array32,
    myelin: Array32,
    parts: Organelles,
) -> Array32:
    """The image (d, h, w), about [0, 1], before the beam's blur. `myelin` is its opacity."""
    texture: Array32 = np.sum([np.float32(c) * grain(rng, grid, size) for size, c in recipe.grains], axis=0)
    image = _cytoplasm(rng, recipe, tubes, territory, texture)
    _mitochondria(image, grid, parts, texture)
    if grid.pixel < VESICLE_RADIUS:
        _vesicles(image, grid, parts)
    shade = np.float32(0.035) * smooth_field(rng, grid, 2 * recipe.host) + np.float32(0.03)
    over(image, STAIN + shade + np.float32(0.6) * texture, myelin)
    if recipe.cleft:
        over(image, np.float32(0.6) * image + np.float32(0.22), line(wall, recipe.cleft, grid.pixel))
    membrane = line(wall, MEMBRANE_HALF_WIDTH, grid.pixel)
    unevenness = np.clip(np.float32(0.86) + np.float32(0.12) * smooth_field(rng, grid, 120.0), 0, 1)
    over(image, STAIN + np.float32(0.04), membrane * unevenness)
    over(image, STAIN - np.float32(0.06), parts.density * line(wall, 2.2 * MEMBRANE_HALF_WIDTH, grid.pixel))
    return image


def _cytoplasm(
    rng: np.random.Generator, recipe: Recipe, tubes: Tubes, territory: Territory, texture: Array32
) -> Array32:
    """Every cell has its own brightness and its own coarseness; thick cells are the brighter ones."""
    n = len(tubes)
    size = np.clip(np.median(tubes.radii, axis=1) / (2.5 * recipe.host), 0, 1)
    thin, thick, spread = recipe.tones
    tone = thin + (thick - thin) * size + spread * rng.standard_normal(n)
    tone -= np.where(rng.random(n) < 0.12, 2 * spread, 0.0)  # glia and dark profiles
    rough = rng.uniform(0.7, 1.3, n)
    image = tone.astype(np.float32)[territory.owner]
    image += rough.astype(np.float32)[territory.owner] * texture
    return image


def _mitochondria(image: Array32, grid: Grid, parts: Organelles, texture: Array32) -> None:
    """A grey matrix with dark cristae that stop short of a dark double membrane."""
    depth = parts.mitochondrion
    cristae = np.clip(np.cos(parts.crista) * np.float32(1.4) - np.float32(0.4), 0, 1)
    cristae *= soft_step(depth - np.float32(16.0), 12.0)
    grey = np.float32(0.38) + np.float32(0.7) * texture - np.float32(0.11) * cristae
    over(image, grey, soft_step(depth, grid.pixel))
    over(image, STAIN + np.float32(0.05), np.float32(0.8) * line(depth - np.float32(5.0), 10.0, grid.pixel))


def _vesicles(image: Array32, grid: Grid, parts: Organelles) -> None:
    """Cisternae and vesicles: a bilayer around a clear lumen."""
    for distance, radius, stain in (
        (parts.reticulum, 13.0, 0.65),
        (parts.vesicle, VESICLE_RADIUS - 4.0, 0.95),
    ):
        lumen = soft_step(np.float32(radius) - distance, grid.pixel)
        over(image, np.float32(0.62), np.float32(0.6) * lumen)
        over(
            image,
            STAIN + np.float32(0.05),
            np.float32(stain) * line(distance - np.float32(radius), 6.0, grid.pixel),
        )


def blur(image: Array32, grid: Grid, sigma: float) -> Array32:
    """The beam's point-spread function, a Gaussian of `sigma` pixels in the plane and in depth."""
    if sigma == 0:
        return image
    return gaussian_filter(image, [0 if n == 1 else sigma for n in grid.shape], mode="nearest", truncate=3.5)
