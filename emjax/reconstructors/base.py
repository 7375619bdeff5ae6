"""What every reconstructor shares: `x = recon(y, A, noise=None, key=None)`, batched, pure, with weights from the data.

A reconstructor is a frozen pytree. Where its weights are None they are estimated from the measurements; `fit` returns
the same reconstructor with the weights filled in, to be seen, kept, and used for other parts of one image.
"""

from __future__ import annotations

import functools
import math
from typing import Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec

from emjax._pytree import batch_axes, may_have_batch
from emjax.acquisition.noise import Noise
from emjax.operators import LinearOperator
from emjax.operators.base import as_float, check_measured
from emjax.solvers import Solution, Status
from emjax.solvers.sharding import divided_over, on_devices
from emjax.solvers.transforms import by_backend


class Reconstructor:
    """Base class: subclasses give `_recover`, and `_fit` where they have weights, for one item.

    A batch runs item by item on a CPU and vectorised elsewhere; `_vectorised` ones are so everywhere (methods of dense
    algebra, which take many items at the price of a few).
    """

    _vectorised: ClassVar[bool] = False

    @property
    def _scalar(self) -> int:
        """The axes of a setting that is one number an item."""
        return 0

    def _fit(self, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Self:
        """The same reconstructor with every weight an array; those without weights have nothing to estimate."""
        return self

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        """`x` for one item, with the weights given."""
        raise NotImplementedError

    def fit(self, y: Array, A: LinearOperator, noise: Noise | None = None, *, key: Array | None = None) -> Self:
        """Estimate the weights that were not given, one set an item; see the class for how."""
        y = check_measurements(y, A)
        check_noise(noise)
        return _fit_items(self, y, A, noise, _key(key))

    def __call__(self, y: Array, A: LinearOperator, noise: Noise | None = None, *, key: Array | None = None) -> Array:
        """Recover `x`, shape `(*batch, *A.in_shape)`, from `y`, shape `(*batch, *A.out_shape)`.

        noise: its level where known (`Noise`); otherwise taken from the data where a method needs it.
        key: for the random choice of held-out measurements; a fixed one when not given.
        Raises ValueError for shapes that do not fit. NaN at unmeasured places is ignored.
        """
        y = check_measurements(y, A)
        check_noise(noise)
        return _recover_items(self, y, A, noise, _key(key))


def check_measurements(y: Any, A: LinearOperator) -> Array:
    """`y` as floats, or an error that names what is wrong."""
    return check_measured(A, y, "recon(y, A)")


def check_noise(noise: Any) -> None:
    """TypeError for a noise level that is no `Noise`."""
    if noise is not None and not isinstance(noise, Noise):
        raise TypeError(f"noise is a Noise, for example Noise(read_sigma=0.05); got {type(noise).__name__}")


def check_gap(gap: Any) -> Array:
    """A relative gap, or one an item; ValueError for negative ones and NaN."""
    gap = as_float(gap)
    if not isinstance(gap, jax.core.Tracer) and not bool(np.all(np.asarray(gap) >= 0)):
        raise ValueError(f"gap is the relative duality gap to reach, 0 or more, got {gap}")
    return gap


def check_steps(steps: Any) -> Array:
    """A number of steps, or one an item."""
    if isinstance(steps, jax.core.Tracer):
        return steps
    known = np.asarray(steps)
    if known.dtype.kind not in "iu":
        raise TypeError(f"max_steps: a whole number of 0 or more, got {steps!r}")
    if known.size and known.min() < 0:
        raise ValueError(f"max_steps: a whole number of 0 or more, got {steps!r}")
    return jnp.asarray(known, jnp.int32)


def check_transform(transform: Any) -> None:
    """TypeError for a transform that is no operator."""
    if transform is not None and not isinstance(transform, LinearOperator):
        raise TypeError(f"transform is a linear operator, such as Wavelet(shape), or None; got {transform!r}")


def recovered(solution: Solution) -> Array:
    """The item that one solve found; NaN, for want of a status, where it met numbers that are none."""
    return jnp.where(solution.status == Status.NON_FINITE, jnp.nan, solution.value)


def _key(key: Array | None) -> Array:
    if key is None or isinstance(key, int):
        return jax.random.key(key or 0)
    return key


def _one_fit(recon: Reconstructor, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Any:
    return recon._fit(y, A, noise, key)


def _one_recover(recon: Reconstructor, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Any:
    return recon._fit(y, A, noise, key)._recover(y, A, noise)


def _over_items(fn: Any, recon: Reconstructor, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Any:
    """`fn` over the leading axes of the measurements, and of masks, weights and noise levels that have them."""
    parts = (recon, A, noise)
    leaves, treedef = jax.tree.flatten(parts)
    counts = jax.tree.leaves(batch_axes(parts))
    core = len(A.out_shape)
    own = y.shape[: y.ndim - core]
    others = list(dict.fromkeys(jnp.shape(v)[:c] for v, c in zip(leaves, counts, strict=True) if c))
    try:
        batch = jnp.broadcast_shapes(own, *others)
    except ValueError:
        raise ValueError(
            f"the batch axes do not go together: {own} of the measurements, and {', '.join(map(str, others))} of the "
            "operator, the weights or the noise"
        ) from None
    if not batch:
        return fn(recon, y, A, noise, key)
    size = 1
    for n in batch:
        size *= n

    def flat(v: Array, count: int) -> Array:
        shape = jnp.shape(v)[count:]
        return jnp.broadcast_to(v, (*batch, *shape)).reshape(size, *shape) if count else v

    moved = jax.tree.unflatten(treedef, [flat(v, c) for v, c in zip(leaves, counts, strict=True)])
    axes = jax.tree.unflatten(treedef, [0 if c else None for c in counts])
    ys = jnp.broadcast_to(y, (*batch, *A.out_shape)).reshape(size, *A.out_shape)
    keys = jax.random.split(key, size)
    # A batch item by item has no derivative in reverse; the solves within choose for themselves how to run.
    run = fn if recon._vectorised or getattr(recon, "gradient", None) is not None else by_backend(fn)
    every = jax.vmap(run, in_axes=(axes[0], 0, axes[1], axes[2], 0))
    flags = [bool(c) for c in counts]
    if (place := divided_over((y, *leaves), (bool(own), *flags))) is None:
        out = every(moved[0], ys, moved[1], moved[2], keys)
    else:
        out = _on_devices(every, *place, (moved, flags), ys, keys)
    # Weights that were fitted have a value an item; the parameters of a network stay as they are.
    own = jax.tree.map(lambda _: True, out) if isinstance(out, Array) else may_have_batch(out)
    return jax.tree.map(lambda v, many: v.reshape(*batch, *v.shape[1:]) if many else v[0], out, own)


def _on_devices(every: Any, mesh: Any, names: Any, parts: tuple[Any, list[bool]], ys: Array, keys: Array) -> Any:
    """The items of a batch that is split over the devices of a mesh, where they are."""
    leaves, treedef = jax.tree.flatten(parts[0])
    split, whole = PartitionSpec(names), PartitionSpec()

    def local(leaves: Any, ys: Array, keys: Array) -> Any:
        recon, A, noise = jax.tree.unflatten(treedef, leaves)
        return every(recon, ys, A, noise, keys)

    specs = ([split if flag else whole for flag in parts[1]], split, split)
    return on_devices(local, mesh, names, specs, leaves, ys, keys)


# Measurements that a fit does not look at still say on which devices the items are.
@functools.partial(jax.jit, keep_unused=True)
def _fit_items(recon: Reconstructor, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Any:
    return _over_items(_one_fit, recon, y, A, noise, key)


@jax.jit
def _recover_items(recon: Reconstructor, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Array:
    return _over_items(_one_recover, recon, y, A, noise, key)


def grey_level(y: Array, A: LinearOperator) -> Array:
    """The grey level `c` of a uniform image that explains the measurements of one item best: `A 1 c ~ y`.

    Zero where a uniform image is not seen: what a transform without its mean makes of ones is rounding error.
    """
    ones = A.forward(jnp.ones(A.in_shape, y.real.dtype))
    power = jnp.sum(jnp.abs(ones) ** 2)
    rounding = 1e3 * jnp.finfo(power.dtype).eps ** 2 * A.norm_bound() ** 2 * math.prod(A.in_shape)
    seen = power > rounding.astype(power.dtype)
    return jnp.where(seen, jnp.sum(jnp.real(jnp.conj(ones) * y)) / jnp.where(seen, power, 1), 0)


def noise_weights(estimate: Array, noise: Noise | None, mask: Array) -> Array | None:
    """Inverse noise variances at the estimated grey values, scaled to a mean of one over the mask; None if unknown.

    One electron of a pixel of weight `w` counts for `w gain`: the variance of `y = w x` is `w^2 gain x + sigma^2`.
    """
    if noise is None:
        return None
    variance = noise.variance(mask**2 * estimate).astype(estimate.dtype)
    seen = (mask != 0).astype(estimate.dtype)
    floor = 1e-3 * jnp.max(variance * seen)
    weight = 1 / jnp.where(variance > floor, variance, jnp.where(floor > 0, floor, 1))
    mean = jnp.sum(weight * seen) / jnp.maximum(jnp.sum(seen), 1)
    return weight / jnp.where(mean > 0, mean, 1)
