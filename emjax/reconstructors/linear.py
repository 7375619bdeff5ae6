"""Scattered linear interpolation on the Delaunay triangulation of the measured pixels: the floor of comparisons.

The triangulation is built on the host (`scipy.spatial`), once a mask; applying the plan is pure. Outside the convex
hull the nearest measured pixel is taken.
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
    try:
        corners, weights = _rasterise(points, Delaunay(points).simplices, where.shape)
    except QhullError:  # fewer than three pixels, or all on one line: only the nearest is defined
        corners, weights = np.full((*where.shape, 3), -1, np.int32), np.zeros((*where.shape, 3), np.float32)
    outside = corners[..., 0] < 0
    if outside.any():
        corners[outside] = cKDTree(points).query(np.argwhere(outside))[1][:, None]
        weights[outside] = np.array([1, 0, 0], np.float32)
    return DelaunayPlan(jnp.asarray(flat[corners].astype(np.int32)), jnp.asarray(weights))


def _rasterise(points: np.ndarray, simplices: np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """The corners of the triangle around each pixel (-1 outside the hull) and its barycentric coordinates.

    Every pixel of a triangle's bounding box is tested with integer cross products: exact on a pixel grid, and many
    times faster than locating each pixel in the triangulation.
    """
    corners, weights = np.full((*shape, 3), -1, np.int32), np.zeros((*shape, 3), np.float32)
    boxes = np.ptp(points[simplices], axis=1) + 1
    # Groups of triangles of about four million box pixels bound the memory.
    group = np.cumsum(boxes.prod(1)) // 4_000_000
    for part in np.split(simplices, np.flatnonzero(np.diff(group)) + 1):
        a, b, c = (points[part[:, k]] for k in range(3))
        area = _cross(b - a, c - a)
        keep = area != 0
        part, a, b, c, area = (v[keep] for v in (part, a, b, c, area))
        low = np.minimum(np.minimum(a, b), c)
        size = np.maximum(np.maximum(a, b), c) - low + 1
        count = size.prod(1)
        t = np.repeat(np.arange(len(part)), count)
        k = np.arange(len(t)) - np.repeat(np.cumsum(count) - count, count)
        q = low[t] + np.stack([k // size[t, 1], k % size[t, 1]], 1)
        sign = np.sign(area[t])
        w1, w2 = sign * _cross(q - a[t], (c - a)[t]), sign * _cross((b - a)[t], q - a[t])
        w0 = np.abs(area[t]) - w1 - w2
        inside = (w0 >= 0) & (w1 >= 0) & (w2 >= 0)
        place = tuple(q[inside].T)
        corners[place] = part[t[inside]]
        weights[place] = np.stack([w0, w1, w2], 1)[inside] / np.abs(area[t[inside]])[:, None]
    return corners, weights


def _cross(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0]


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
