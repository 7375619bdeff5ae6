"""Cells of the phantom: curved tubes that share space by the smallest signed distance.

A cell is a chain of tapered capsules. Every voxel belongs to the cell whose surface is nearest in
the signed sense, `argmin_i |x - axis_i| - radius_i` (an additively weighted Voronoi, or Apollonius,
diagram): thick cells stay round, thin ones fill the gaps and take whatever shape is left, as in
neuropil. The gap between the best and second-best value, divided by its slope, is the distance to
the membrane.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from emjax.acquisition._phantom_fields import Array32, Grid, steepness

FAR = np.float32(1e6)  # nm; "nobody is near", finite so that differences stay finite


@dataclass(frozen=True)
class Tubes:
    """`nodes` (n, m, 3) and `radii` (n, m) in nm: n tubes of m nodes. `sheath` (n,) nm of myelin."""

    nodes: NDArray[np.float64]
    radii: NDArray[np.float64]
    sheath: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.nodes)


@dataclass(frozen=True)
class Territory:
    """Who owns each voxel: `owner` (index into the tubes, -1 for none), `signed` (its signed
    distance, nm, negative inside) and `gap` (how much farther the next tube is, nm)."""

    owner: NDArray[np.int32]
    signed: Array32
    gap: Array32


def join(*groups: Tubes) -> Tubes:
    """All the tubes of the groups; each group's chains are padded to the longest by repeating the end."""
    longest = max(group.nodes.shape[1] for group in groups)
    pads = [(0, longest - group.nodes.shape[1]) for group in groups]
    return Tubes(
        np.concatenate([np.pad(g.nodes, ((0, 0), p, (0, 0)), "edge") for g, p in zip(groups, pads, strict=True)]),
        np.concatenate([np.pad(g.radii, ((0, 0), p), "edge") for g, p in zip(groups, pads, strict=True)]),
        np.concatenate([g.sheath for g in groups]),
    )


def jittered_lattice(rng: np.random.Generator, half: NDArray, spacing: NDArray) -> NDArray:
    """Points (n, 3), one at random in each cell of a lattice that covers [-half, half]."""
    counts = np.maximum(np.ceil(2 * half / spacing), 1).astype(int)
    corners = np.stack(np.meshgrid(*[np.arange(n) for n in counts], indexing="ij"), -1).reshape(-1, 3)
    return (corners + rng.random(corners.shape) - counts / 2) * spacing


def grow(
    rng: np.random.Generator,
    starts: NDArray,
    radius: NDArray,
    *,
    count: int,
    stride: float,
    turn: float,
    swell: float,
    along: NDArray | None = None,
) -> Tubes:
    """Tubes of `count` nodes centred on `starts` (n, 3) with mean `radius` (n,), nm.

    Directions do a random walk on the sphere (`turn` = change a step, first direction `along` (n, 3)
    or random), steps are `stride` radii, and radii swell and thin with log-deviation `swell`.
    """
    n = len(starts)
    heading = rng.standard_normal((n, 3)) if along is None else along
    directions = np.empty((n, count - 1, 3))
    for k in range(count - 1):
        heading = heading / np.linalg.norm(heading, axis=1, keepdims=True)
        directions[:, k] = heading
        heading = heading + turn * rng.standard_normal((n, 3))
    path = np.concatenate([np.zeros((n, 1, 3)), np.cumsum(directions, axis=1)], axis=1)
    path -= path.mean(axis=1, keepdims=True)
    nodes = starts[:, None] + stride * radius[:, None, None] * path
    waves = rng.standard_normal((n, count + 1))
    radii = radius[:, None] * np.exp(swell * (waves[:, 1:] + waves[:, :-1]) / np.sqrt(2))
    return Tubes(nodes, radii, np.zeros(n))


def _segments(tubes: Tubes, grid: Grid, reach: float) -> tuple[NDArray, NDArray]:
    """Tube and node index of every capsule worth drawing, thick ones first.

    Left out are capsules whose surface stays `reach` away from the field of view, padding of zero
    length, and thin capsules buried whole in a thick node, which could win no voxel.
    """
    a, b = tubes.nodes[:, :-1], tubes.nodes[:, 1:]
    thick = np.maximum(tubes.radii[:, :-1], tubes.radii[:, 1:])
    outside = np.maximum(np.minimum(a, b) - grid.half, -grid.half - np.maximum(a, b)).max(axis=2)
    drawn = (outside - thick < reach) & ((a != b).any(axis=2))
    nodes, radii = tubes.nodes.reshape(-1, 3), tubes.radii.ravel()
    heavy = np.flatnonzero(radii >= np.quantile(radii, 0.9))
    distance, near = cKDTree(nodes[heavy]).query(nodes, k=1)
    buried = (distance < radii[heavy][near] - radii).reshape(tubes.radii.shape)
    drawn &= ~(buried[:, :-1] & buried[:, 1:])
    tube, node = np.nonzero(drawn)
    order = np.argsort(-thick[tube, node], kind="stable")
    return tube[order], node[order]


def occupy(tubes: Tubes, grid: Grid, coordinates: Array32, margin: float, reach: float) -> Territory:
    """Let the tubes compete for the voxels at `coordinates` (3, d, h, w), nm.

    `margin` is how far (nm) beyond its surface a capsule is evaluated; `reach` how far from the field
    of view a surface may lie and still compete.
    """
    best = np.full(grid.shape, FAR, np.float32)
    second = best.copy()
    owner = np.full(grid.shape, -1, np.int32)
    for i, k in zip(*_segments(tubes, grid, reach), strict=True):
        a, b = tubes.nodes[i, k], tubes.nodes[i, k + 1]
        ra, rb = tubes.radii[i, k], tubes.radii[i, k + 1]
        span = max(ra, rb) + margin
        if grid.flat:  # the slice cuts a smaller disc out of a ball that is centred off the slice
            off = 0.0 if a[0] * b[0] < 0 else min(abs(a[0]), abs(b[0]))
            span = np.array([span, *[np.sqrt(max(span**2 - off**2, 0.0))] * 2])
        box = grid.box(np.minimum(a, b) - span, np.maximum(a, b) + span)
        if box is None:
            continue
        d = capsule_distance(coordinates[(slice(None), *box)], a, b, ra, rb)
        near, next_, who = best[box], second[box], owner[box]
        # a capsule of the cell that holds the voxel is no rival to it; any other may become second
        np.copyto(next_, np.maximum(near, np.minimum(next_, d)), where=who != i)
        who[d < near] = i
        np.minimum(near, d, out=near)
    return Territory(owner, best, second - best)


def capsule_distance(x: Array32, a: NDArray, b: NDArray, ra: float, rb: float) -> Array32:
    """Signed distance from points `x` (3, ...) to the capsule from `a` (radius ra) to `b` (radius rb)."""
    z, y, w = (x[k] - np.float32(a[k]) for k in range(3))
    ez, ey, ew = (b - a).astype(np.float32)
    length2 = np.float32(max(((b - a) ** 2).sum(), 1e-6))
    t = np.clip((z * ez + y * ey + w * ew) / length2, 0, 1)
    z -= t * ez
    y -= t * ey
    w -= t * ew
    z *= z
    y *= y
    z += y
    w *= w
    z += w
    np.sqrt(z, out=z)
    t *= np.float32(rb - ra)
    z -= t
    z -= np.float32(ra)
    return z


def wall_distance(territory: Territory, grid: Grid, least_slope: float = 1.0) -> Array32:
    """Distance from each voxel to the membrane around its cell, nm, to first order.

    Where the cells run nearly alike along the slice the slope is raised to `least_slope`: a membrane
    cut obliquely looks wide, as in a section.
    """
    slope: Array32 = np.clip(steepness(territory.gap, grid), least_slope, 2.0).astype(np.float32)
    return territory.gap / slope
