"""Organelles of the phantom: where mitochondria, reticulum, synapses and vesicles lie.

Everything here is geometry in nanometres; `_phantom_paint` turns it into grey values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from emjax.acquisition._phantom_fields import Array32, Grid, smooth_field, steepness
from emjax.acquisition._phantom_tissue import Recipe
from emjax.acquisition._phantom_tubes import FAR, Territory, Tubes, occupy

VESICLE_RADIUS = 21.0  # nm, outer; synaptic vesicles measure about 40 nm across


@dataclass(frozen=True)
class Organelles:
    """Distance maps (d, h, w) in nm. `mitochondrion`: depth below its outer membrane, negative outside;
    `crista`: phase in radians of its lamellae. `reticulum`: distance to the mid-surface of a cisterna.
    `vesicle`: distance to the nearest vesicle's centre. `density`: 0 to 1, how near a synapse is."""

    mitochondrion: Array32
    crista: Array32
    reticulum: Array32
    vesicle: Array32
    density: Array32


def organelles(
    rng: np.random.Generator,
    recipe: Recipe,
    grid: Grid,
    tubes: Tubes,
    coordinates: Array32,
    territory: Territory,
    wall: Array32,
) -> Organelles:
    """Furnish the cells. `wall` is the distance of each voxel to the inside of its cell, nm."""
    mitochondrion, crista = _mitochondria(rng, recipe, grid, tubes, coordinates, territory, wall)
    room = np.minimum(wall, -mitochondrion)  # distance to the cell's membrane or to a mitochondrion
    reticulum = _reticulum(rng, grid, room)
    density = np.zeros(grid.shape, np.float32)
    vesicle = np.full(grid.shape, FAR, np.float32)
    for site in _synapses(rng, recipe, grid, tubes, territory, wall):
        _thicken(rng, grid, site, density)
        _release(rng, grid, site, territory.owner, room, vesicle)
    return Organelles(mitochondrion, crista, reticulum, vesicle, density)


def _mitochondria(
    rng: np.random.Generator,
    recipe: Recipe,
    grid: Grid,
    tubes: Tubes,
    coordinates: Array32,
    territory: Territory,
    wall: Array32,
) -> tuple[Array32, Array32]:
    """Depth inside a mitochondrion and phase of its cristae; each follows a stretch of its tube, off axis."""
    low, typical, high = recipe.mitochondria
    width = np.median(tubes.radii, axis=1) - tubes.sheath
    room = np.clip(width / recipe.host, 0.0, 4.0)
    host = np.repeat(np.arange(len(tubes)), rng.poisson(recipe.abundance * room * (room >= 1)))
    nothing = np.full(grid.shape, -FAR, np.float32), np.zeros(grid.shape, np.float32)
    if not len(host):
        return nothing
    count = min(3, tubes.nodes.shape[1])
    first = (rng.random(len(host)) * (tubes.nodes.shape[1] - count + 1)).astype(int)
    rows, columns = host[:, None], first[:, None] + np.arange(count)
    radius = np.clip(typical * np.exp(0.25 * rng.standard_normal(len(host))), low, 0.6 * width[host])
    radius = np.minimum(radius, high)
    aside = rng.standard_normal((len(host), 3))
    aside *= (0.8 * np.maximum(width[host] - 1.3 * radius, 0) * rng.random(len(host)) / np.linalg.norm(aside, axis=1))[
        :, None
    ]
    swell = np.exp(0.10 * rng.standard_normal((len(host), count)))
    bodies = Tubes(tubes.nodes[rows, columns] + aside[:, None], radius[:, None] * swell, np.zeros(len(host)))
    place = occupy(bodies, grid, coordinates, margin=20, reach=0)
    at_home = (place.owner >= 0) & (territory.owner == host[place.owner])
    depth = np.where(at_home, np.minimum(-place.signed, wall - np.float32(0.25 * low)), -FAR)

    axis = bodies.nodes[:, -1] - bodies.nodes[:, 0] + 0.5 * radius[:, None] * rng.standard_normal((len(host), 3))
    axis *= (2 * np.pi / (0.45 * low + 12) / np.maximum(np.linalg.norm(axis, axis=1), 1e-6))[:, None]
    turns = axis.astype(np.float32)[place.owner]
    phase = sum(coordinates[k] * turns[..., k] for k in range(3))
    bend = 2.2 * smooth_field(rng, grid, 2.2 * low) + 1.0 * smooth_field(rng, grid, 0.9 * low)
    return depth, phase + bend


def _reticulum(rng: np.random.Generator, grid: Grid, room: Array32) -> Array32:
    """Distance to cisternae: patches, with rounded rims, of the zero level of a smooth field."""
    level = np.abs(smooth_field(rng, grid, 220.0) + np.float32(0.3) * smooth_field(rng, grid, 80.0))
    sheet = level / np.maximum(steepness(level, grid), 1 / 500)
    rim = np.maximum(np.float32(0.75) - smooth_field(rng, grid, 330.0), 0) * np.float32(120.0)
    close = np.maximum(np.float32(45.0) - room, 0)
    return np.sqrt(sheet**2 + rim**2 + close**2)


@dataclass(frozen=True)
class Synapse:
    """`at` (3,) nm on the membrane; `cell` the tube that releases; `radius` nm of the active zone."""

    at: NDArray[np.float64]
    cell: int
    radius: float


def _synapses(
    rng: np.random.Generator, recipe: Recipe, grid: Grid, tubes: Tubes, territory: Territory, wall: Array32
) -> list[Synapse]:
    """Sites drawn at random on the membranes of cells thick enough to hold vesicles."""
    volume = np.prod(np.maximum(np.array(grid.shape) * grid.pixel, [250.0, 0, 0])) * 1e-9
    wanted = rng.poisson(4 * recipe.synapses * volume)
    owner = territory.owner.ravel()
    edge = np.flatnonzero((wall.ravel() < grid.pixel) & (owner >= 0))
    if not len(edge) or not wanted:
        return []
    spots = rng.choice(edge, wanted)
    thick = np.median(tubes.radii, axis=1)[owner[spots]]
    spots = spots[(thick > 0.8 * recipe.host) & (tubes.sheath[owner[spots]] == 0)]
    positions = np.stack(np.unravel_index(spots, grid.shape), axis=1) * grid.pixel - grid.half
    radii = rng.uniform(90, 190, len(spots))
    return [Synapse(p, int(owner[s]), r) for p, s, r in zip(positions, spots, radii, strict=True)]


def _thicken(rng: np.random.Generator, grid: Grid, site: Synapse, density: Array32) -> None:
    """Raise `density` in a ball around the active zone, in place."""
    box = grid.box(site.at - site.radius, site.at + site.radius)
    if box is not None:
        strength = np.float32(rng.uniform(0.45, 0.95))
        fade = strength * np.clip(2.5 - 2.5 * _range(grid, box, site.at) / np.float32(site.radius), 0, 1)
        np.maximum(density[box], fade, out=density[box])


def _release(
    rng: np.random.Generator, grid: Grid, site: Synapse, owner: NDArray, room: Array32, vesicle: Array32
) -> None:
    """Fill the neighbourhood of the active zone with vesicles, in place: as many as find room."""
    if grid.pixel > VESICLE_RADIUS:
        return
    spread = site.radius * rng.uniform(1.5, 3.2)
    points = _cloud(rng, spread, 1.8 * VESICLE_RADIUS) + site.at
    index = np.rint((points + grid.half) / grid.pixel).astype(int)
    if grid.flat:
        index[:, 0] = np.where(np.abs(points[:, 0]) < VESICLE_RADIUS, 0, -1)
    inside = ((index >= 0) & (index < grid.shape)).all(axis=1)
    points, places = points[inside], tuple(index[inside].T)
    for p in points[(owner[places] == site.cell) & (room[places] > 1.35 * VESICLE_RADIUS)]:
        box = grid.box(p - 1.6 * VESICLE_RADIUS, p + 1.6 * VESICLE_RADIUS)
        if box is not None:
            np.minimum(vesicle[box], _range(grid, box, p), out=vesicle[box])


def _cloud(rng: np.random.Generator, spread: float, apart: float) -> NDArray[np.float64]:
    """Points (n, 3) about the origin, no two nearer than `apart`, fewer and fewer out to `spread`."""
    tries = int(1.2 * (2 * spread / apart) ** 3)
    points = rng.uniform(-spread, spread, (tries, 3))
    far = np.linalg.norm(points, axis=1) / spread
    points = points[rng.random(tries) < 1.8 * (1 - far)]
    late = cKDTree(points).query_pairs(apart, output_type="ndarray")[:, 1] if len(points) else []
    return np.delete(points, late, axis=0)


def _range(grid: Grid, box: tuple[slice, ...], centre: NDArray) -> Array32:
    """Distance from the voxels of `box` to `centre`, nm."""
    z, y, x = (
        (np.arange(s.start, s.stop) * grid.pixel - half - c).astype(np.float32)
        for s, half, c in zip(box, grid.half, centre, strict=True)
    )
    return np.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)
