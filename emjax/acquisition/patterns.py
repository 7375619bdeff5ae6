"""Scan patterns: which pixels the beam visits. Each returns a mask of shape `shape`, pure in `key`.

Masks are boolean, but for the spiral's, which are soft weights. `ratio` is the share of pixels that are not zero.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from emjax.acquisition._pattern_arguments import check_pattern, pixel_count
from emjax.acquisition.density import variable_density
from emjax.acquisition.low_discrepancy import low_discrepancy
from emjax.acquisition.poisson_disc import poisson_disc
from emjax.acquisition.spiral import spiral


def uniform(key: Array, shape: Sequence[int], ratio: float) -> Array:
    """Exactly `round(ratio * n)` (at least one) pixels, all subsets equally likely."""
    shape = check_pattern(shape, ratio, "random", 1)
    order = jax.random.permutation(key, math.prod(shape))
    return (order < pixel_count(shape, ratio)).reshape(shape)


def jittered_grid(key: Array, shape: Sequence[int], ratio: float) -> Array:
    """One pixel at a random place in each cell of a regular grid: no large holes, no clumps.

    The cells have area `1 / ratio` on average; their borders are rounded to pixels, so sizes differ by one.
    """
    shape = check_pattern(shape, ratio, "jittered grid")
    cells = _cells(shape, ratio)
    # Cell edges in pixels, and a uniform place inside each cell along each axis.
    mask = jnp.zeros(shape, bool)
    places = []
    for axis, (n, c) in enumerate(zip(shape, cells, strict=True)):
        edges = jnp.round(jnp.arange(c + 1) * (n / c)).astype(jnp.int32)
        low, width = edges[:-1], edges[1:] - edges[:-1]
        u = jax.random.uniform(jax.random.fold_in(key, axis), tuple(cells))
        view = [1] * len(shape)
        view[axis] = c
        offset = jnp.minimum((u * width.reshape(view)).astype(jnp.int32), width.reshape(view) - 1)
        places.append(low.reshape(view) + offset)
    return mask.at[tuple(places)].set(True)


def _cells(shape: tuple[int, ...], ratio: float) -> list[int]:
    """The number of cells along each axis: cubic ones, but what a short axis cannot hold the longer ones make up."""
    cells = [1] * len(shape)
    axes = sorted(range(len(shape)), key=lambda a: shape[a])
    for left, axis in zip(range(len(shape), 0, -1), axes, strict=True):
        n = shape[axis]
        cells[axis] = max(1, min(n, round(n * ratio ** (1 / left))))
        ratio = min(1.0, ratio * n / cells[axis])
    return cells


def line_hop(key: Array, shape: Sequence[int], ratio: float, *, band: int | None = None) -> Array:
    """The beam walks along each line of a coarse raster and hops up and down by up to a band of rows.

    Rows come in bands of about `1 / ratio`; in each band one pixel of every column is visited, its row a random walk
    with steps of at most one row a column, reflected at the band's edges: a continuous beam path, as fast as a raster
    (Kovarik et al. 2016, "Implementing an accurate and rapid sparse sampling approach for low-dose atomic resolution
    STEM imaging").
    """
    shape = check_pattern(shape, ratio, "line-hop")
    if band is not None and band < 1:
        raise ValueError(f"a band has one or more rows, got band={band}")
    h, w = shape[-2:]
    rows = max(1, min(h, round(h * ratio) if band is None else -(-h // band)))
    edges = jnp.round(jnp.arange(rows + 1) * (h / rows)).astype(jnp.int32)
    low, width = edges[:-1], edges[1:] - edges[:-1]
    lead = shape[:-2]
    start_key, step_key = jax.random.split(key)
    start = jax.random.uniform(start_key, (*lead, rows, 1))
    steps = jax.random.randint(step_key, (*lead, rows, w), -1, 2).at[..., 0].set(0)
    walk = (start * width[:, None]).astype(jnp.int32) + jnp.cumsum(steps, -1)
    # Reflect into [0, width): the walk unfolded on a circle of length 2 width.
    period = 2 * width[:, None]
    folded = jnp.mod(walk, period)
    row = low[:, None] + jnp.where(folded >= width[:, None], period - 1 - folded, folded)
    columns = jnp.broadcast_to(jnp.arange(w), row.shape)
    lead_index = jnp.meshgrid(*[jnp.arange(n) for n in lead], indexing="ij") if lead else []
    index = [jnp.broadcast_to(i[..., None, None], row.shape) for i in lead_index]
    return jnp.zeros(shape, bool).at[(*index, row, columns)].set(True)


PATTERNS = {
    "random": uniform,
    "jittered": jittered_grid,
    "poisson-disc": poisson_disc,
    "low-discrepancy": low_discrepancy,
    "variable-density": variable_density,
    "line-hop": line_hop,
    "spiral": spiral,
}


def pattern(name: str, key: Array, shape: Sequence[int], ratio: float) -> Array:
    """The pattern of that name; ValueError lists the names there are."""
    if name not in PATTERNS:
        raise ValueError(f"unknown scan pattern {name!r}; there are {', '.join(PATTERNS)}")
    return PATTERNS[name](key, shape, ratio)
