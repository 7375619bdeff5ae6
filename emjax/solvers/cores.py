"""A batch over the cores of a CPU.

What one thread dispatches runs one after the other, and the loop of a small image keeps a single core busy. So a few
threads run the same program, each on its share of the batch. Large images are left alone: their kernels use all cores
already, and side by side they push each other out of the cache (two cores: 64^2 1.7 times faster, 512^2 1.05, 1024^2
1.2 times slower).
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np

LARGEST = 512 * 512


def threads(args: Any, size: int, pixels: int) -> int:
    """How many threads a batch of `size` items of `pixels` each is worth: 1 but for concrete arrays on one CPU."""
    leaves = jax.tree.leaves(args)
    if size < 2 or pixels > LARGEST or any(isinstance(x, jax.core.Tracer) for x in leaves):
        return 1
    devices = {d for x in leaves if isinstance(x, jax.Array) for d in x.devices()}
    if devices != {jax.devices()[0]} or jax.devices()[0].platform != "cpu":
        return 1
    return min(size, _available())


def _available() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on every system
        return os.cpu_count() or 1


def spread(program: Callable[..., Any], args: tuple[Any, ...], size: int, workers: int, **static: Any) -> Any:
    """`program(*args, first, count=count, **static)` for equal shares of `size` items, joined along their first axis.

    One program serves all shares: the last one starts earlier where they do not divide the batch. It is compiled here,
    under the settings of this thread, and only run in the others.
    """
    args = jax.tree.map(jax.numpy.asarray, args)  # Python numbers would follow the settings of the other threads
    count = -(-size // workers)
    firsts = [min(i, size - count) for i in range(0, size, count)]
    inputs = [(*args, np.int32(first)) for first in firsts]
    compiled = program.lower(*inputs[0], count=count, **static).compile()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(len(firsts)) as pool:
        parts = list(pool.map(lambda one: jax.block_until_ready(compiled(*one)), inputs))
    overlap = count * len(firsts) - size

    def join(*shares: Any) -> Any:
        *whole, last = (np.asarray(share) for share in shares)
        return jax.numpy.asarray(np.concatenate([*whole, last[overlap:]]))

    return jax.tree.map(join, *parts)
