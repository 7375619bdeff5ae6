"""The two tissues of the phantom: which tubes fill the field of view, and how they are stained.

Sizes follow published electron microscopy: neurites of neuropil from 50 to 500 nm in radius, mitochondria
of 60 to 200 nm; fibres of white matter from 0.4 to 5 um with an axon that takes about two thirds of
the fibre's diameter (the g-ratio).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from emjax.acquisition._phantom_fields import Grid
from emjax.acquisition._phantom_tubes import Tubes, grow, jittered_lattice, join


@dataclass(frozen=True)
class Recipe:
    """The lengths (nm) and densities that tell one kind of tissue from the other.

    `pixels`: default, smallest and largest pixel size. `bends`: (wavelength, amplitude) of the warp.
    `margin`, `reach`: see `occupy`. `mitochondria`: smallest, typical and largest radius; `host`: the
    thinnest tube that holds one; `abundance`: how many such a tube holds on average, thicker ones more.
    `grains`: (size, contrast) of the cytoplasm's texture. `tones`: mean grey value of thin and of thick
    cells, and spread. `synapses`: sites tried a square micrometre of section. `cleft`: half the width
    of the unstained space between cells.
    """

    pixels: tuple[float, float, float]
    bends: tuple[tuple[float, float], ...]
    margin: float
    reach: float
    mitochondria: tuple[float, float, float]
    host: float
    abundance: float
    grains: tuple[tuple[float, float], ...]
    tones: tuple[float, float, float]
    synapses: float
    cleft: float


NEUROPIL = Recipe(
    pixels=(8.0, 2.0, 24.0),
    bends=((600, 30), (240, 14), (90, 5)),
    margin=140,
    reach=80,
    mitochondria=(60, 115, 200),
    host=120,
    abundance=1.2,
    grains=((18, 0.045), (50, 0.028), (300, 0.015)),
    tones=(0.52, 0.68, 0.06),
    synapses=1.6,
    cleft=0.0,
)
AXONS = Recipe(
    pixels=(100.0, 40.0, 250.0),
    bends=((4500, 420), (1500, 130)),
    margin=800,
    reach=500,
    mitochondria=(110, 200, 420),
    host=450,
    abundance=1.5,
    grains=((150, 0.035), (400, 0.022), (3000, 0.02)),
    tones=(0.58, 0.82, 0.04),
    synapses=0.0,
    cleft=110.0,
)
RECIPES = {"neuropil": NEUROPIL, "axons": AXONS}


def tissue(kind: str, rng: np.random.Generator, grid: Grid) -> Tubes:
    """The cells that fill `grid`; kind "neuropil" or "axons"."""
    return _neuropil(rng, grid) if kind == "neuropil" else _axons(rng, grid)


def _neuropil(rng: np.random.Generator, grid: Grid) -> Tubes:
    """Dendrites, axons and fine processes of every direction; a few of the thick ones are myelinated."""
    tiers = []
    #  spacing radius spread nodes stride turn swell
    for spacing, radius, spread, count, stride, turn, swell in (
        (1750, 310, 0.35, 6, 1.0, 0.35, 0.20),
        (720, 135, 0.35, 8, 1.1, 0.40, 0.35),
        (370, 54, 0.40, 8, 3.0, 0.40, 0.35),
    ):
        room = grid.half + 0.5 * count * stride * radius + radius
        starts = jittered_lattice(rng, room, np.full(3, float(spacing)))
        size = radius * np.exp(spread * rng.standard_normal(len(starts)))
        tiers.append(grow(rng, starts, size, count=count, stride=stride, turn=turn, swell=swell))
    tiers[0].sheath[:] = np.where(rng.random(len(tiers[0])) < 0.05, rng.uniform(50, 130, len(tiers[0])), 0.0)
    return join(*tiers)


def _axons(rng: np.random.Generator, grid: Grid) -> Tubes:
    """Myelinated fibres that run along z, packed thick to thin, and bare fibres and glia between."""
    room = grid.half + np.array([0.0, 4000.0, 4000.0])
    area = 4e-6 * room[1] * room[2]  # square micrometres
    tries = rng.poisson(0.8 * area)
    radius = np.sort(np.clip(900 * np.exp(0.62 * rng.standard_normal(tries)), 350, 5000))[::-1]
    centre = rng.uniform(-room, room, (tries, 3))
    centre[:, 0] = 0
    kept = _packed(centre, radius, overlap=0.16)
    fibres = _along_z(rng, grid, centre[kept], radius[kept], swell=0.06)
    ratio = np.clip(0.66 + 0.07 * rng.standard_normal(len(fibres)), 0.45, 0.85)
    fibres.sheath[:] = np.clip(radius[kept] * (1 - ratio), 160, 1500)
    fibres.sheath[(radius[kept] < 1200) & (rng.random(len(fibres)) < 0.08)] = 0.0  # bare

    starts = jittered_lattice(rng, room * [0, 1, 1], np.array([1.0, 1050.0, 1050.0]))
    size = 380 * np.exp(0.35 * rng.standard_normal(len(starts)))
    bare = _along_z(rng, grid, starts, size, swell=0.15)
    bare.sheath[:] = rng.uniform(40, 170, len(bare)) * (rng.random(len(bare)) < 0.6)
    return join(fibres, bare)


def _along_z(rng: np.random.Generator, grid: Grid, centre: NDArray, radius: NDArray, swell: float) -> Tubes:
    """Tubes through `centre` (n, 3) that cross the whole depth, each a little oblique and oval in section."""
    along = np.concatenate([np.ones((len(centre), 1)), 0.45 * rng.standard_normal((len(centre), 2))], axis=1)
    stride = np.full(len(centre), 2400.0)
    count = 2 + 2 * int(np.ceil(grid.half[0] / 1800))
    unit = grow(rng, np.zeros_like(centre), stride, count=count, stride=1.0, turn=0.07, swell=0, along=along)
    waves = np.exp(swell * rng.standard_normal((len(centre), count)))
    return Tubes(unit.nodes + centre[:, None], radius[:, None] * waves, np.zeros(len(centre)))


def _packed(centre: NDArray, radius: NDArray, overlap: float) -> NDArray[np.intp]:
    """Indices of the discs, taken thick to thin, that overlap none kept before by more than `overlap`."""
    tree = cKDTree(centre)
    free = np.ones(len(centre), bool)
    kept = []
    for i in range(len(centre)):
        if free[i]:
            kept.append(i)
            near = np.array(tree.query_ball_point(centre[i], 2 * radius[i]))
            apart = np.linalg.norm(centre[near] - centre[i], axis=1)
            free[near[apart < (1 - overlap) * (radius[near] + radius[i])]] = False
    return np.array(kept, np.intp)
