"""A few steps towards the best linear estimate of a scan, at a fixed cost: the start of the scan networks.

The image is taken for a Gaussian random field of mean 0, variance 1 and spectrum S(f) ~ (f^2 + f_0^2)^(-p/2), as in
`emjax.reconstructors.Spectral`, and

    x = argmin sum_i (z_i - x_i)^2 / v_i + sum_f |C x|_f^2 / S_f,     v_i the variance of the measured pixel z_i,

is approached by conjugate gradients from a first guess, in the domain of the DCT, where 1 / S is diagonal and so is the
preconditioner 1 / (1 / S + mean 1 / v). The image is cut into tiles that overlap, each with its own step lengths: the
transforms are products with small matrices, and no pixel depends on what is far away.
"""

import functools

import jax.numpy as jnp
import numpy as np
from jax import Array

TILE, HALO = 64, 8  # pixels: what a tile is for, and what it sees around
EXPONENT, CORNER = 3.25, 0.01  # p and f_0, cycles a pixel
FINEST = 0.05**2  # variance that no measured pixel is better than: what pixels hold beyond the field


def field(z: Array, precision: Array, start: Array, iterations: int) -> Array:
    """The estimate after so many steps; all arrays `(*batch, h, w)`, sides multiples of `TILE`.

    precision: 1 / variance of each pixel in units of the image's variance, 0 where nothing was measured.
    """
    if not iterations:
        return start
    weight = precision / (1 + FINEST * precision)
    tiles = _tiles(jnp.stack([z, weight, start]))
    z, weight, start = tiles[0], tiles[1], tiles[2]
    forward, spectrum = (jnp.asarray(a, z.dtype) for a in _transform(TILE + 2 * HALO))

    def dct(x: Array) -> Array:  # and transposed, which nothing here minds
        return _multiply(_multiply(x, forward.T), forward.T)

    def inverse(x: Array) -> Array:
        return _multiply(_multiply(x, forward), forward)

    def dot(a: Array, b: Array) -> Array:
        return jnp.sum(a * b, (-2, -1), keepdims=True)

    prior = 1 / spectrum
    # Of the mean weight a step of length one takes more than the data gives: the weights are zero at most pixels.
    scale = 1 / (prior + jnp.maximum(jnp.mean(weight, (-2, -1), keepdims=True), 1e-6))
    x = dct(start)
    residual = dct(weight * (z - start)) - prior * x
    moved = scale * residual
    direction, power = moved, dot(residual, moved)
    for step in range(iterations):
        image = prior * direction + dct(weight * inverse(direction))
        curvature = dot(direction, image)
        length = power / jnp.where(curvature > 0, curvature, 1)
        x = x + length * direction
        if step == iterations - 1:
            break
        residual = residual - length * image
        moved = scale * residual
        new = dot(residual, moved)
        direction = moved + new / jnp.where(power > 0, power, 1) * direction
        power = new
    return _join(inverse(x)[..., HALO:-HALO, HALO:-HALO], tiles.shape[1:-4])


def _multiply(x: Array, matrix: Array) -> Array:
    """`(x @ matrix)` transposed: two of them transform both axes."""
    product = jnp.matmul(x.reshape(-1, x.shape[-1]), matrix, precision="highest").reshape(x.shape)
    return jnp.swapaxes(product, -1, -2)


def _tiles(x: Array) -> Array:
    """`(..., h, w)` to overlapping tiles `(..., h / TILE, w / TILE, side, side)`, zero beyond the image."""
    *batch, h, w = x.shape
    n = len(batch)
    x = _overlap(x.reshape(*batch, h // TILE, TILE, w), n)
    x = jnp.swapaxes(x, -1, -2).reshape(*batch, h // TILE, w // TILE, TILE, TILE + 2 * HALO)
    return jnp.swapaxes(_overlap(x, n + 1), -1, -2)


def _overlap(x: Array, axis: int) -> Array:
    """Blocks `axis` of rows `axis + 1`, each with the nearest rows of the blocks beside it."""

    def rows(first: int, last: int | None) -> Array:
        return x[(slice(None),) * (axis + 1) + (slice(first, last),)]

    def shift(part: Array, by: int) -> Array:
        pad = [(0, 0)] * x.ndim
        pad[axis] = (max(by, 0), max(-by, 0))
        keep = slice(0, -1) if by > 0 else slice(1, None)
        return jnp.pad(part[(slice(None),) * axis + (keep,)], pad)

    return jnp.concatenate([shift(rows(-HALO, None), 1), x, shift(rows(0, HALO), -1)], axis + 1)


def _join(tiles: Array, batch: tuple[int, ...]) -> Array:
    *_, gy, gx, a, b = tiles.shape
    return jnp.swapaxes(tiles, -3, -2).reshape(*batch, gy * a, gx * b)


@functools.cache
def _transform(n: int) -> tuple[np.ndarray, np.ndarray]:
    """The orthonormal DCT-II of n samples as a matrix, and S of n x n coefficients (their mean is one)."""
    k = np.arange(n)
    matrix = np.sqrt(2 / n) * np.cos(np.pi * (k[None] + 0.5) * k[:, None] / n)
    matrix[0] /= np.sqrt(2)
    f = k / (2 * n)
    power = (f[:, None] ** 2 + f**2 + CORNER**2) ** (-EXPONENT / 2)
    return matrix, power / power.mean()
