"""Random fields and coordinates on a voxel grid: the raw material of the phantom.

A *smooth field* is a cubic B-spline with independent Gaussian coefficients on a coarse grid. It is
interpolated axis by axis with four taps, elementwise: no FFT, no BLAS, so that one seed gives one
image to the last bit however many threads run. All lengths are nanometres and all grids are
three-dimensional (z, y, x); an image is a volume with one slice, so both share every line of code.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

Array32 = NDArray[np.float32]


@dataclass(frozen=True)
class Grid:
    """A `shape` = (d, h, w) of cubic voxels with edge `pixel` (nm), centred on the origin."""

    shape: tuple[int, int, int]
    pixel: float

    @property
    def flat(self) -> bool:
        """True for a single slice."""
        return self.shape[0] == 1

    @property
    def half(self) -> NDArray[np.float64]:
        """Half the edge lengths of the field of view, (3,), nm; a single slice has no thickness."""
        return 0.5 * self.pixel * (np.array(self.shape, float) - 1.0)

    def axes(self) -> list[Array32]:
        """Open (broadcastable) voxel-centre coordinates along z, y, x, nm."""
        lines = [np.arange(n) * self.pixel - half for n, half in zip(self.shape, self.half, strict=True)]
        return list(np.ix_(*[line.astype(np.float32) for line in lines]))

    def box(self, low: NDArray, high: NDArray) -> tuple[slice, ...] | None:
        """The voxels between the corners `low` and `high` (nm); None where they miss the grid.

        The z extent of a single slice is not tested: a caller gives bounds that reach it.
        """
        first = np.ceil((low + self.half) / self.pixel).astype(int)
        last = np.floor((high + self.half) / self.pixel).astype(int) + 1
        first, last = np.maximum(first, 0), np.minimum(last, self.shape)
        if (first >= last).any():
            return None
        return tuple(slice(a, b) for a, b in zip(first, last, strict=True))


def smooth_field(rng: np.random.Generator, grid: Grid, spacing: float) -> Array32:
    """A Gaussian field of mean 0 and variance about 1 whose features are about `spacing` nm; (d, h, w)."""
    step = max(spacing / grid.pixel, 2.0)  # a finer spline could not be seen on this grid
    counts = [1 if n == 1 else int((n - 1) / step) + 5 for n in grid.shape]
    field = rng.standard_normal(counts, dtype=np.float32)
    for axis, n in enumerate(grid.shape):
        if n > 1:
            field = _interpolate(field, axis, np.arange(n) / step + rng.random())
    return field


def _interpolate(coefficients: Array32, axis: int, at: NDArray) -> Array32:
    """Cubic B-spline values at positions `at` along `axis`, scaled to keep the variance near 1."""
    base = at.astype(int)
    t = at - base
    taps = np.stack([(1 - t) ** 3, 3 * t**3 - 6 * t**2 + 4, -3 * t**3 + 3 * t**2 + 3 * t + 1, t**3]) / 6
    taps /= np.sqrt((taps**2).sum(axis=0))
    form = [1, 1, 1]
    form[axis] = len(at)
    weights = taps.astype(np.float32).reshape(4, *form)
    return sum(weights[k] * np.take(coefficients, base + k, axis=axis) for k in range(4))


def grain(rng: np.random.Generator, grid: Grid, size: float) -> Array32:
    """Fine granular texture of unit variance with grains of about `size` nm; (d, h, w).

    Below a pixel the grains average out, and the field fades as they would under a real beam.
    """
    sigma = size / grid.pixel / 2.355
    noise = rng.standard_normal(grid.shape, dtype=np.float32)
    dims = 2 if grid.flat else 3
    if sigma > 0.25:
        noise = gaussian_filter(noise, [0 if n == 1 else sigma for n in grid.shape], truncate=3.0)
        noise *= np.float32(max(1.0, (2 * np.sqrt(np.pi) * sigma) ** (dims / 2)))
    return noise * np.float32(min(1.0, size / grid.pixel))


def warped_coordinates(
    rng: np.random.Generator, grid: Grid, bends: tuple[tuple[float, float], ...]
) -> tuple[Array32, float]:
    """Voxel coordinates bent by smooth displacements, (3, d, h, w) nm, and the largest displacement.

    `bends` are pairs (wavelength, amplitude) in nm. Membranes drawn in these coordinates wiggle.
    """
    coordinates = np.empty((3, *grid.shape), np.float32)
    largest = 0.0
    for k, line in enumerate(grid.axes()):
        shift = sum(np.float32(size) * smooth_field(rng, grid, length) for length, size in bends)
        largest = max(largest, float(np.abs(shift).max()))
        coordinates[k] = line + shift
    return coordinates, largest


def steepness(field: Array32, grid: Grid) -> Array32:
    """Length of the gradient, per nm; (d, h, w). It sees no crease.

    Slopes are one-sided differences, the larger of two: where |f| turns over they do not cancel.
    """
    squared = np.zeros(grid.shape, np.float32)
    for axis, n in enumerate(grid.shape):
        if n > 1:
            step = np.abs(np.diff(field, axis=axis)) / np.float32(grid.pixel)
            before = np.concatenate([step.take([0], axis), step], axis)
            after = np.concatenate([step, step.take([-1], axis)], axis)
            squared += np.maximum(before, after) ** 2
    return np.sqrt(squared)


def soft_step(x: NDArray, width: float) -> NDArray:
    """0 below -width/2, 1 above width/2, linear between: an edge with its partial-volume voxels."""
    return np.clip(x / width + np.float32(0.5), 0.0, 1.0)
