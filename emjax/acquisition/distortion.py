"""Scan distortions: the specimen drifts while it is scanned, and the lines of a scan start a little too early or late.

A line i of the scan sees the image displaced by (a_i, b_i) pixels,

    x'[i, j] = x(i + a_i, j + b_i),

between pixels by cubic convolution (Keys 1981, a = -1/2; exact at whole displacements), beyond the border the nearest
pixel. Drift is slow: a velocity a frame. Jitter is fast: a displacement a line along it, from the line's fly-back and
from mains fields. Sources: Jones and Nellist 2013 ("Identifying and correcting scan noise and drift in the STEM").
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax.operators.base import as_float


def displace(x: Any, down: Any, across: Any) -> Array:
    """Images `(*batch, h, w)` with line i displaced by `down[i]` rows and `across[i]` columns, each `(*batch, h)`.

    Pure, and differentiable in all three. Raises ValueError for shapes that do not go together.
    """
    x, down, across = as_float(x), as_float(down), as_float(across)
    if x.ndim < 2 or any(v.ndim < 1 or v.shape[-1] != x.shape[-2] for v in (down, across)):
        raise ValueError(
            f"images (*batch, h, w) are displaced by h rows and h columns, got shapes {x.shape}, {down.shape} and "
            f"{across.shape}"
        )
    batch = jnp.broadcast_shapes(x.shape[:-2], down.shape[:-1], across.shape[:-1])
    h, w = x.shape[-2:]
    one = _displace
    for _ in batch:
        one = jax.vmap(one)
    down, across = (jnp.broadcast_to(v, (*batch, h)).astype(x.dtype) for v in (down, across))
    return one(jnp.broadcast_to(x, (*batch, h, w)), down, across)


def drift(key: Array, x: Any, amplitude: Any) -> Array:
    """Images `(*batch, h, w)` scanned while the specimen moves at a constant velocity, another one for each image.

    Along each axis the path from the first to one line past the last is normal with mean 0 and a standard deviation of
    `amplitude` pixels (a number, or one for each image); the middle of the frame stays where it is.
    """
    x = as_float(x)
    _check_image(x)
    amplitude = jnp.asarray(amplitude, x.dtype)
    h, batch = x.shape[-2], x.shape[:-2]
    velocity = amplitude * jax.random.normal(key, (2, *batch), x.dtype)
    time = (jnp.arange(h, dtype=x.dtype) - (h - 1) / 2) / h
    return displace(x, velocity[0][..., None] * time, velocity[1][..., None] * time)


def line_jitter(key: Array, x: Any, amplitude: Any, *, correlation: float = 0.0) -> Array:
    """Images `(*batch, h, w)` with every line displaced along itself, normally with standard deviation `amplitude`.

    amplitude: pixels, a number or one for each image. correlation: of the displacements of neighbouring lines, in
    [0, 1): 0 is white, above it a process `b_i = correlation b_(i-1) + ...` of the same variance. Raises ValueError for
    a correlation outside its range.
    """
    x = as_float(x)
    _check_image(x)
    if not 0 <= correlation < 1:
        raise ValueError(f"the correlation of neighbouring lines lies in [0, 1), got {correlation}")
    amplitude = jnp.asarray(amplitude, x.dtype)
    h, batch = x.shape[-2], x.shape[:-2]
    white = jax.random.normal(key, (*batch, h), x.dtype)
    if correlation:

        def step(last: Array, fresh: Array) -> tuple[Array, Array]:
            following = correlation * last + (1 - correlation**2) ** 0.5 * fresh
            return following, following

        lines = jnp.moveaxis(white, -1, 0)
        moved = lax.scan(step, lines[0], lines[1:])[1]
        white = jnp.moveaxis(jnp.concatenate([lines[:1], moved]), 0, -1)
    across = amplitude[..., None] * white
    return displace(x, jnp.zeros_like(across), across)


def _check_image(x: Array) -> None:
    if x.ndim < 2 or jnp.iscomplexobj(x):
        raise ValueError(f"a scan is distorted as real images (*batch, h, w), got {x.dtype}{x.shape}")


def _displace(x: Array, down: Array, across: Array) -> Array:
    """One image: rows first, each line by its own number, then along the lines."""
    h, w = x.shape
    rows, weights = _taps(jnp.arange(h) + down, h)
    lines = jnp.sum(jnp.stack([weights[k][:, None] * x[rows[k]] for k in range(4)]), 0)
    columns, weights = _taps(jnp.arange(w) + across[:, None], w)
    return jnp.sum(jnp.stack([weights[k] * jnp.take_along_axis(lines, columns[k], 1) for k in range(4)]), 0)


def _taps(places: Array, n: int) -> tuple[list[Array], list[Array]]:
    """The four samples around each place along an axis of length n, and their weights (Keys, a = -1/2)."""
    whole = jnp.floor(places)
    t = places - whole
    weights = [
        ((-0.5 * t + 1) * t - 0.5) * t,
        (1.5 * t - 2.5) * t * t + 1,
        ((-1.5 * t + 2) * t + 0.5) * t,
        (0.5 * t - 0.5) * t * t,
    ]
    first = jnp.clip(whole, -4, n + 4).astype(jnp.int32) - 1
    return [jnp.clip(first + k, 0, n - 1) for k in range(4)], weights
