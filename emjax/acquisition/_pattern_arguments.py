"""What every scan pattern checks before it starts, and stacks of patterns."""

import math
from collections.abc import Callable, Sequence

import jax
from jax import Array

from emjax.operators.base import check_shape


def check_pattern(shape: Sequence[int], ratio: float, name: str, axes: int = 2) -> tuple[int, ...]:
    """The shape as a tuple of Python integers, or a ValueError."""
    shape = check_shape(shape)
    if len(shape) < axes:
        raise ValueError(f"the {name} pattern needs a shape with {axes} or more axes, got {shape}")
    if not 0 < ratio <= 1:
        raise ValueError(f"the sampling ratio lies in (0, 1], got {ratio}")
    return shape


def pixel_count(shape: Sequence[int], ratio: float) -> int:
    """`round(ratio * n)` pixels of the `n` of one item, at least one."""
    return max(1, round(ratio * math.prod(shape)))


def each_scan(build: Callable[[Array], Array], key: Array, shape: Sequence[int]) -> Array:
    """`build(key)` makes one scan `(h, w)`; for a stack `(..., h, w)` a scan of its own for every leading index."""
    lead = tuple(shape[:-2])
    if not lead:
        return build(key)
    keys = jax.random.split(key, math.prod(lead))
    return jax.vmap(build)(keys).reshape(*lead, *shape[-2:])
