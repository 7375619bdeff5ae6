"""A phantom of stained tissue under the electron microscope: image and truth, in two or three dimensions.

Host-side: NumPy and SciPy, never traced. Cells are curved tubes that share space in an additively
weighted Voronoi diagram in warped coordinates; mitochondria, myelin, reticulum, synapses and vesicles
are level sets inside them. An image is a slice of no thickness through the same three-dimensional
tissue. The picture has the tissue's own texture and the beam's blur but no noise: that belongs to
the measurement model.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from emjax.acquisition._phantom_fields import Array32, Grid, smooth_field, soft_step, warped_coordinates
from emjax.acquisition._phantom_organelles import VESICLE_RADIUS, Organelles, organelles
from emjax.acquisition._phantom_paint import MEMBRANE_HALF_WIDTH, blur, paint
from emjax.acquisition._phantom_tissue import RECIPES, Recipe, tissue
from emjax.acquisition._phantom_tubes import Territory, Tubes, occupy, wall_distance

Kind = Literal["neuropil", "axons"]


class Organelle(IntEnum):
    """Semantic class of a voxel of `Phantom.organelles`."""

    NONE = 0  #: cytoplasm
    MEMBRANE = 1  #: plasma membrane and the cleft between cells; `labels` is 0 here and only here
    MITOCHONDRION = 2
    VESICLE = 3
    MYELIN = 4  #: carries the label of the axon that it wraps
    RETICULUM = 5  #: endoplasmic reticulum
    DENSITY = 6  #: the stained matter of a synapse, beside the membrane


@dataclass(frozen=True, eq=False)
class Phantom:
    """A picture of tissue and what is in it. Shapes (h, w) or (d, h, w).

    `image` float32 in [0, 1], stain dark; `labels` uint16, one number for each cell (a cell cut twice by
    the slice keeps its number), 0 on membranes; `organelles` uint8 of `Organelle`; `pixel_size` nm.
    """

    image: NDArray[np.float32]
    labels: NDArray[np.uint16]
    organelles: NDArray[np.uint8]
    pixel_size: float


def phantom(
    shape: tuple[int, ...],
    seed: int = 0,
    *,
    pixel_size: float | None = None,
    kind: Kind = "neuropil",
    bright_stain: bool = False,
    psf: float = 0.8,
) -> Phantom:
    """Tissue of `shape` (h, w) or (d, h, w) with cubic voxels of `pixel_size` nm.

    `kind="neuropil"`: tangled neurites with mitochondria, synapses and now and then a myelin sheath
    (default 8 nm). `kind="axons"`: white matter cut across, myelinated fibres along z (default 100 nm).
    `bright_stain` inverts the grey scale, as a detector of back-scattered electrons does. `psf` is
    the standard deviation of the beam's blur in pixels; at 0 edges are still softened by a pixel.

    Equal arguments give equal bits (for one NumPy and SciPy on one machine). Host-side; time and memory
    grow with the number of voxels, and at coarse pixels with the number of cells.
    Raises ValueError where an argument is outside its range, with the range.
    """
    grid = _grid(shape, kind, pixel_size)
    if not 0 <= psf <= 20:
        raise ValueError(f"psf is {psf}; expected a standard deviation of 0 to 20 pixels")
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(_seed(seed)).spawn(5)]
    recipe = RECIPES[kind]
    tubes = tissue(kind, streams[0], grid)
    coordinates, shift = warped_coordinates(streams[1], grid, recipe.bends)
    # capsules are boxed where they were before the warp; half the largest shift covers all but stragglers
    territory = occupy(tubes, grid, coordinates, recipe.margin + 0.5 * shift, recipe.reach)
    wall = wall_distance(territory, grid)
    myelin, inside = _myelin(streams[2], recipe, tubes, grid, territory, wall)
    parts = organelles(streams[3], recipe, grid, tubes, coordinates, territory, inside)
    image = paint(streams[4], recipe, grid, tubes, territory, wall, myelin, parts)
    image = np.clip(blur(image, grid, psf), 0.0, 1.0)
    classes = _classes(grid, wall, inside, myelin, parts)
    labels = _labels(territory.owner, classes)
    image = 1 - image if bright_stain else image
    return Phantom(image.reshape(shape), labels.reshape(shape), classes.reshape(shape), grid.pixel)


def _grid(shape: tuple[int, ...], kind: str, pixel_size: float | None) -> Grid:
    """The voxel grid, once shape, kind and pixel size are known to be good."""
    if kind not in get_args(Kind):
        raise ValueError(f"kind is {kind!r}; expected one of {', '.join(map(repr, get_args(Kind)))}")
    try:
        sizes = tuple(operator.index(n) for n in shape)
    except TypeError:
        sizes = ()
    if len(sizes) not in (2, 3) or min(sizes) < 1:
        raise ValueError(f"shape is {shape!r}; expected (h, w) or (d, h, w) with positive integers")
    default, low, high = RECIPES[kind].pixels
    pixel = default if pixel_size is None else float(pixel_size)
    if not low <= pixel <= high:
        raise ValueError(f"pixel_size is {pixel_size} nm; {kind} is drawn at {low:g} to {high:g} nm a pixel")
    d, h, w = (1, *sizes)[-3:]
    return Grid((d, h, w), pixel)


def _seed(seed: int) -> int:
    """`seed` as a Python integer that SeedSequence takes."""
    try:
        number = operator.index(seed)
    except TypeError:
        number = -1
    if number < 0:
        raise ValueError(f"seed is {seed!r}; expected an integer of at least 0")
    return number


def _myelin(
    rng: np.random.Generator, recipe: Recipe, tubes: Tubes, grid: Grid, territory: Territory, wall: Array32
) -> tuple[Array32, Array32]:
    """Opacity of myelin, and the distance of each voxel to its cell's membrane or sheath, nm."""
    sheath = tubes.sheath.astype(np.float32)[territory.owner]
    if not sheath.any():
        return np.zeros_like(wall), wall
    ragged = 1 + np.float32(0.15) * smooth_field(rng, grid, 4 * recipe.host)
    # concentric with the tube; where neighbours squeeze the fibre the sheath thins but does not vanish
    # (half the gap, not `wall`: that is first order, and this deep its slope is unsteady)
    inner = np.minimum(-territory.signed - sheath * ragged, np.float32(0.5) * territory.gap - np.float32(0.4) * sheath)
    inner = np.where(sheath > 0, inner, wall)
    return np.where(sheath > 0, 1 - soft_step(inner, grid.pixel), 0.0), inner


def _classes(grid: Grid, wall: Array32, inside: Array32, myelin: Array32, parts: Organelles) -> NDArray[np.uint8]:
    """The semantic class of each voxel; what comes later covers what came before."""
    classes = np.full(grid.shape, Organelle.NONE, np.uint8)
    if grid.pixel < VESICLE_RADIUS:
        classes[parts.reticulum < 20.0] = Organelle.RETICULUM
        classes[parts.vesicle < VESICLE_RADIUS] = Organelle.VESICLE
    classes[parts.mitochondrion > 0] = Organelle.MITOCHONDRION
    classes[parts.density * (wall < 2.2 * MEMBRANE_HALF_WIDTH) > 0.3] = Organelle.DENSITY
    classes[myelin > 0.5] = Organelle.MYELIN
    classes[wall < max(MEMBRANE_HALF_WIDTH, 0.6 * grid.pixel)] = Organelle.MEMBRANE
    return classes


def _labels(owner: NDArray[np.int32], classes: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Cells numbered 1, 2, ... in the order of the tubes; 0 on membranes."""
    numbers = np.where(classes == Organelle.MEMBRANE, -1, owner)
    cells = np.unique(numbers[numbers >= 0])
    if len(cells) > np.iinfo(np.uint16).max:
        raise ValueError(f"the field of view holds {len(cells)} cells, uint16 labels 65535; take a smaller shape")
    table = np.zeros(owner.max() + 2, np.uint16)  # the last entry serves owner -1
    table[cells] = np.arange(1, len(cells) + 1)
    return table[numbers]
