"""Scattered linear interpolation on the Delaunay triangulation of the measured pixels: the floor of every comparison.

The triangulation is built on the host (`scipy.spatial`), once a mask; applying the plan is pure. Outside the convex hull
the nearest measured pixel is taken.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import pytree_dataclass
from emjax.acquisition.noise import Noise
from emjax.operators import LinearOperator, PixelSampling
from emjax.reconstructors.base import check_measurements


@pytree_dataclass
class DelaunayPlan:
    """For each pixel the row-major indices of three measured pixels, `(*shape, 3)`, and their weights."""

    indices: Array
    weights: Array

    def __call__(self, values: Array) -> Array:
        """Interpolate `(*batch, *shape)` values that are known at the measured pixels. Pure."""
        ndim = self.indices.ndim - 1
        flat = values.reshape(*values.shape[: values.ndim - ndim], -1)
        return jnp.sum(flat[..., self.indices] * self.weights.astype(values.dtype), -1)


def plan(mask: Any) -> DelaunayPlan:
    """The plan of one 2-D mask `(h, w)`. On the host: raises TypeError under `jit`, ValueError for an empty mask."""
    if isinstance(mask, jax.core.Tracer):
        raise TypeError(
            "the Delaunay triangulation is built on the host and cannot be traced: call "
            "emjax.reconstructors.linear_plan(mask) outside of jit, and apply the plan inside"
        )
    where = np.asarray(mask) != 0
    if where.ndim != 2:
        raise ValueError(f"linear interpolation takes one 2-D mask, got shape {where.shape}")
    if not where.any():
        raise ValueError("the mask has no measured pixel; nothing can be interpolated")
    from scipy.spatial import Delaunay, QhullError, cKDTree

    points = np.argwhere(where)
    flat = np.flatnonzero(where)
    pixels = np.indices(where.shape).reshape(2, -1).T
    tree = cKDTree(points)
    indices = np.empty((pixels.shape[0], 3), np.int32)
    weights = np.zeros((pixels.shape[0], 3), np.float32)
    try:
        triangles = Delaunay(points)
        simplex = triangles.find_simplex(pixels)
    except QhullError:  # fewer than three pixels, or all on one line: only the nearest is defined
        triangles, simplex = None, np.full(pixels.shape[0], -1)
    inside = simplex >= 0
    if triangles is not None and inside.any():
        chosen = simplex[inside]
        transform = triangles.transform[chosen]
        bary = np.einsum("nij,nj->ni", transform[:, :2], pixels[inside] - transform[:, 2])
        coords = np.concatenate([bary, 1 - bary.sum(1, keepdims=True)], 1)
        # A degenerate (flat) triangle has no coordinates; its pixels take the nearest measurement below.
        usable = np.isfinite(coords).all(1)
        inside[np.flatnonzero(inside)[~usable]] = False
        indices[inside] = flat[triangles.simplices[chosen[usable]]]
        weights[inside] = coords[usable]
    outside = ~inside
    if outside.any():
        nearest = tree.query(pixels[outside])[1]
        indices[outside] = flat[nearest][:, None]
        weights[outside] = np.array([1, 0, 0], np.float32)
    shape = (*where.shape, 3)
    return DelaunayPlan(jnp.asarray(indices.reshape(shape)), jnp.asarray(weights.reshape(shape)))


@pytree_dataclass
class LinearInterpolation:
    """The reconstructor of this module, for pixel scans of one mask. It has no weight; `fit` returns itself."""

    def fit(self, y: Any, A: LinearOperator, noise: Noise | None = None, *, key: Array | None = None) -> Any:
        """Nothing to estimate."""
        return self

    def __call__(self, y: Any, A: LinearOperator, noise: Noise | None = None, *, key: Array | None = None) -> Array:
        """`x`, shape `(*batch, h, w)`. Soft weights are divided out. Raises TypeError for other operators."""
        if not isinstance(A, PixelSampling) or A.ndim != 2:
            raise TypeError(f"linear interpolation needs a 2-D PixelSampling operator, got {A}")
        y = check_measurements(y, A)
        if A.mask.ndim > 2:  # a mask an item: a plan an item
            batch = jnp.broadcast_shapes(y.shape[:-2], A.mask.shape[:-2])
            masks = np.broadcast_to(np.asarray(A.mask), (*batch, *A.in_shape)).reshape(-1, *A.in_shape)
            ys = jnp.broadcast_to(y, (*batch, *A.in_shape)).reshape(-1, *A.in_shape)
            out = [self(v, PixelSampling(m)) for v, m in zip(ys, masks, strict=True)]
            return jnp.stack(out).reshape(*batch, *A.in_shape)
        values = jnp.where(A.mask != 0, y / jnp.where(A.mask != 0, A.mask, 1), 0)
        return plan(A.mask)(values)
