"""Low-discrepancy patterns: the R_d sequence on the pixel grid, as even as a lattice at every count.

    point_i = (shift + i alpha) mod 1,    alpha_k = phi^-k,    phi^(d+1) = phi + 1

generalises the golden-ratio sequence to d axes (Roberts 2018, "The unreasonable effectiveness of quasirandom
sequences"); the key draws the shift (Cranley and Patterson 1976). A pixel is measured at the first point that falls in
it; later ones are skipped, so that the count is exact.
"""

import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array

from emjax.acquisition._pattern_arguments import check_pattern, pixel_count


def low_discrepancy(key: Array, shape: Sequence[int], ratio: float) -> Array:
    """Exactly `round(ratio * n)` (at least one) pixels of a shape with any number of axes, up to 65536 along each."""
    shape = check_pattern(shape, ratio, "low-discrepancy", 1)
    if max(shape) > 1 << 16:
        raise ValueError(f"the low-discrepancy pattern takes up to 65536 pixels along an axis, got shape {shape}")
    return _first_pixels(key, shape, pixel_count(shape, ratio))


@functools.partial(jax.jit, static_argnames=("shape", "count"))
def _first_pixels(key: Array, shape: tuple[int, ...], count: int) -> Array:
    """The first `count` different pixels of the sequence."""
    size = math.prod(shape)
    # Twice as many points as the last pixel needs on average; a pixel that none of them meets comes last.
    points = min(2 * count + 64, 2 * size) if 2 * count <= size else 4 * size
    shift = jax.random.bits(key, (len(shape),), jnp.uint32)
    i = jnp.arange(points, dtype=jnp.uint32)
    pixel = jnp.zeros(points, jnp.int32)
    for axis, (n, step) in enumerate(zip(shape, _steps(len(shape)), strict=True)):
        # Fractions of 2^32: exact, where i * alpha in float32 has no digits left after a million points.
        place = ((shift[axis] + i * jnp.uint32(step)) >> 16) * jnp.uint32(n) >> 16
        pixel = pixel * n + place.astype(jnp.int32)
    first = jnp.full(size, points, jnp.int32).at[pixel].min(i.astype(jnp.int32))
    place = jnp.zeros(size, jnp.int32).at[jnp.argsort(first)].set(jnp.arange(size, dtype=jnp.int32))
    return (place < count).reshape(shape)


def _steps(axes: int) -> list[int]:
    """`alpha_k` in units of 2^-32."""
    phi = 2.0
    for _ in range(64):
        phi = (1 + phi) ** (1 / (axes + 1))
    return [round(phi ** -(k + 1) * 2**32) for k in range(axes)]
