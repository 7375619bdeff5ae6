"""Non-local means: a pixel becomes the mean of those around it whose neighbourhoods look alike.

    x_i = sum_j w_ij v_j / sum_j w_ij,    w_ij = exp(-max(d_ij - 2 sigma^2, 0) / h^2),    h = strength sigma
    d_ij = sum_k g_k (v_{i+k} - v_{j+k})^2,    g a Gaussian over the patch, of sum 1

over the j inside of the picture and of the search window around i. `2 sigma^2` is what noise alone makes of `d`.
Source: Buades, Coll, Morel 2005; the noise's share: Buades, Coll, Morel 2011.
"""

import itertools
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from emjax._pytree import assign, pytree_dataclass, static
from emjax.denoisers.base import Denoiser
from emjax.functionals.base import weights


@pytree_dataclass
class NonLocalMeans(Denoiser):
    """The denoiser of this module; see there.

    strength: h in noise levels. Patches have `2 patch_radius + 1` pixels a side, search windows `2 search_radius + 1`;
    the time grows with the number of pixels of the latter. ndim: axes of one item, 3 for volumes. Patches reach over
    the picture's edge into its mirror image. An infinite sigma gives the mean over the search window.
    """

    strength: Any = 0.6
    patch_radius: int = static(default=2)
    search_radius: int = static(default=7)
    ndim: int = static(default=2)

    def __post_init__(self) -> None:
        for name in ("patch_radius", "search_radius", "ndim"):
            value, least = getattr(self, name), 1 if name == "ndim" else 0
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < least:
                raise ValueError(f"{name} is a whole number of {least} or more, got {value!r}")
        assign(self, strength=weights("the strength of non-local means", self.strength))

    def _denoise(self, v: Array, sigma: Array) -> Array:
        r, s = self.patch_radius, self.search_radius
        patches = jnp.pad(v, r, mode="reflect")
        wide = jnp.pad(patches, s)
        values, inside = jnp.pad(v, s), jnp.pad(jnp.ones_like(v), s)
        noise = sigma**2
        # For h = 0 only patches without any excess weigh: a division by the smallest number, not by zero.
        h2 = jnp.maximum((self.strength * sigma) ** 2, jnp.finfo(v.dtype).tiny).astype(v.dtype)

        def add(sums: tuple[Array, Array], offset: Array) -> tuple[tuple[Array, Array], None]:
            """Both ways of a pair: w_ij = w_ji, so that half of the window is enough."""
            at = tuple(s + offset[k] for k in range(self.ndim))
            difference = patches - lax.dynamic_slice(wide, at, patches.shape)
            excess = jnp.maximum(self._smooth(difference * difference) - 2 * noise, 0)
            w = jnp.exp(-excess / h2) * lax.dynamic_slice(inside, at, v.shape)
            here = tuple([s] * self.ndim)
            out = []
            one = jnp.ones((), v.dtype)
            neighbours = lax.dynamic_slice(values, at, v.shape)
            for total, there, own in zip(sums, (neighbours, one), (v, one), strict=True):
                for place, part in ((here, w * there), (at, w * own)):
                    total = lax.dynamic_update_slice(total, lax.dynamic_slice(total, place, v.shape) + part, place)
                out.append(total)
            return (out[0], out[1]), None

        window = itertools.product(range(-s, s + 1), repeat=self.ndim)
        offsets = np.asarray([o for o in window if o > (0,) * self.ndim], np.int32).reshape(-1, self.ndim)
        (total, weight), _ = lax.scan(
            add, (values, inside), jnp.asarray(offsets)
        )  # each pixel is its own likeness, of weight 1
        core = tuple(slice(s, s + n) for n in v.shape)
        return total[core] / weight[core]

    def _smooth(self, d: Array) -> Array:
        """`sum_k g_k d_{i+k}` over the patch, axis by axis."""
        r = self.patch_radius
        g = np.exp(-0.5 * (np.arange(-r, r + 1) / (0.5 * r if r else 1)) ** 2)
        g /= g.sum()
        for axis in range(self.ndim):
            n = d.shape[axis] - 2 * r
            parts = [float(c) * lax.slice_in_dim(d, k, k + n, axis=axis) for k, c in enumerate(g)]
            d = sum(parts[1:], parts[0])
        return d
