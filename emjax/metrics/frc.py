"""Fourier ring correlation: up to which spatial frequency do two images agree (a shell correlation in 3-D).

    FRC(r) = Re sum_{k in ring r} F_a(k) conj F_b(k) / sqrt( sum |F_a(k)|^2  sum |F_b(k)|^2 )

Saxton and Baumeister, J. Microsc. 127 (1982): the correlation. Van Heel and Schatz, J. Struct. Biol. 151 (2005): the
half-bit threshold. Nieuwenhuizen et al., Nat. Methods 10 (2013): images, the threshold 1/7.

Two uses, two meanings. Between *two independent halves* of the data the correlation is SNR / (1 + SNR) of one half,
and the thresholds "1/7" and "half-bit" were made for it. Between a *reconstruction and a truth* it is
sqrt(SNR / (1 + SNR)) of the reconstruction, its agreement with the truth, so the equivalent of 1/7 is "0.5"
(SNR = 1/3 in both cases). It then tells up to which detail the reconstruction is faithful. It does not see a wrong
contrast (any gain per ring cancels), and a noisy "truth" lowers it. Two reconstructions made with the same prior or
network agree in what that prior invented: that is no evidence of resolution.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from ._inputs import image_pair

TAPER = 1 / 8  # part of each axis that the window lets fade out at each end
Criterion = Literal["1/7", "half-bit", "0.5"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class FRC:
    """A Fourier ring correlation curve.

    Attributes:
        frequency: `(rings,)`, the ring centres in cycles per pixel, from the first ring above zero up to at most 0.5.
        correlation: `(*batch, rings)`, between -1 and 1; 0 in rings where an image has no power at all.
        n: `(rings,)`, independent samples in each ring: the Fourier samples, both of each Friedel pair counted, times
            the part that the window leaves independent. White-noise pairs have a correlation of standard deviation
            `1 / sqrt(n)`.
    """

    frequency: Float[Array, " rings"]
    correlation: Float[Array, "*batch rings"]
    n: Float[Array, " rings"]


def fourier_ring_correlation(
    a: Float[Array, "*batch h w"],
    b: Float[Array, "*batch h w"],
    *,
    pixel_size: Sequence[float] | None = None,
    ndim: int = 2,
) -> FRC:
    """Correlate two images ring by ring in Fourier space; symmetric, blind to offset and to (positive) gain.

    The mean is taken off, and each axis is multiplied by a Tukey window whose cosine flanks take 1/8 at each end:
    without it, the jump between opposite edges, which both images share, correlates at all frequencies. Rings are one
    Fourier pixel of the shortest side wide, in true frequency, also when the sides differ.

    Args:
        a: `(*batch, h, w)`, or `(*batch, d, h, w)` with `ndim=3` (shells instead of rings).
        b: same shape.
        pixel_size: static; for pixels that are not square, their size along each spatial axis in any unit (only the
            ratios count). "Pixel" in the answer is then the smallest of them; shells above the Nyquist frequency of
            a coarser axis are incomplete. None: square.
        ndim: static, 2 or 3 spatial axes.

    Raises:
        ValueError: (at trace time) shapes differ, too few axes, dtype not float32 or float64, a side below 2 pixels,
            or `pixel_size` is not `ndim` positive numbers.
    """
    a, b = image_pair(a, b, ndim)
    size = a.shape[-ndim:]
    if min(size) < 2:
        raise ValueError(
            f"images of size {size} have no Fourier rings; give at least 2 pixels along every spatial axis"
        )
    return _frc(a, b, _relative_pixels(pixel_size, ndim))


def _relative_pixels(pixel_size: Sequence[float] | None, ndim: int) -> tuple[float, ...]:
    if pixel_size is None:
        return (1.0,) * ndim
    pixels = np.asarray(pixel_size, dtype=float)
    if pixels.shape != (ndim,) or not (np.all(pixels > 0) and np.all(np.isfinite(pixels))):
        raise ValueError(
            f"pixel_size={pixel_size!r} was given, expected {ndim} positive sizes, one per spatial axis; leave it out "
            "for square pixels, and give the size in nm to `resolution`"
        )
    return tuple((pixels / pixels.min()).tolist())


@functools.partial(jax.jit, static_argnums=2)
def _frc(a: Array, b: Array, pixels: tuple[float, ...]) -> FRC:
    ndim = len(pixels)
    size, batch = a.shape[-ndim:], a.shape[:-ndim]
    dtype = jnp.result_type(a, b)
    space = tuple(range(-ndim, 0))
    flanks = [_tukey(n) for n in size]
    window = functools.reduce(jnp.multiply, [jnp.asarray(w, dtype) for w in np.ix_(*flanks)])

    def spectrum(x: Array) -> Array:
        # Off with the mean under the window, so that nothing of it leaks into the first rings.
        mean = jnp.sum(window * x, axis=space, keepdims=True) / jnp.sum(window)
        return jnp.fft.rfftn(window * (x - mean), axes=space)

    # Ring of every sample of the half spectrum. Made from one vector per axis inside the trace, as a table would put
    # a constant as large as the image into the compiled program.
    shortest = min(n * p for n, p in zip(size, pixels, strict=True))
    axes = [np.fft.fftfreq(n, p) * shortest for n, p in zip(size[:-1], pixels[:-1], strict=True)]
    axes.append(np.fft.rfftfreq(size[-1], pixels[-1]) * shortest)
    squares = functools.reduce(jnp.add, [jnp.asarray(q**2, dtype) for q in np.ix_(*axes)])
    rings = int(shortest / 2 + 1e-9)
    ring = jnp.round(jnp.sqrt(squares)).astype(jnp.int32).ravel()
    # Ring 0 holds the removed mean; ring indices past the last one, the corners, are dropped by segment_sum.
    mates = np.full(axes[-1].size, 2)  # the half spectrum leaves out the Friedel mate of every column ...
    mates[0] = 1  # ... but of these
    if size[-1] % 2 == 0:
        mates[-1] = 1

    def ring_sum(x: Array) -> Array:
        x = (x * jnp.asarray(mates, x.dtype)).reshape(-1, ring.size)
        sums = jax.vmap(lambda row: jax.ops.segment_sum(row, ring, rings + 1))(x)
        return sums[:, 1:]

    fa, fb = spectrum(a), spectrum(b)
    cross = ring_sum(fa.real * fb.real + fa.imag * fb.imag)
    power_a = ring_sum(fa.real**2 + fa.imag**2)
    power_b = ring_sum(fb.real**2 + fb.imag**2)
    # Two roots, not the root of the product, which overflows in float32; the inner `where` keeps gradients finite.
    some = (power_a > 0) & (power_b > 0)
    norm = jnp.sqrt(jnp.where(some, power_a, 1)) * jnp.sqrt(jnp.where(some, power_b, 1))
    correlation = jnp.where(some, cross / norm, 0).reshape(*batch, rings)

    samples = ring_sum(jnp.ones(squares.shape, jnp.int32))[0].astype(dtype)
    # A window correlates neighbouring samples; mean(w^2)^2 / mean(w^4) of them stay independent.
    independent = float(np.prod([np.mean(w**2) ** 2 / np.mean(w**4) for w in flanks]))
    return FRC(
        frequency=jnp.asarray(np.arange(1, rings + 1) / shortest, dtype),
        correlation=correlation,
        n=samples * independent,
    )


def _tukey(n: int) -> np.ndarray:
    """Flat with raised-cosine flanks; sampled at pixel centres, so symmetric and nowhere zero."""
    to_end = 0.5 + np.minimum(np.arange(n), np.arange(n)[::-1])
    edge = to_end / n
    return np.where(edge < TAPER, 0.5 - 0.5 * np.cos(np.pi * edge / TAPER), 1.0)


def resolution(frc: FRC, pixel_size_nm: ArrayLike, criterion: Criterion = "1/7") -> Float[Array, "*batch"]:
    """Resolution in nm: the period at which the curve first drops below the threshold.

    The curve is smoothed by a mean over three rings (two at the ends) and interpolated linearly between rings, so an
    abrupt limit is overrated by about one ring.

    Args:
        frc: curves with `rings` values; leading axes are batch axes.
        pixel_size_nm: size of a pixel in nm (of the smallest side, if they differ); a number, or one per curve.
        criterion: static. "1/7" and "half-bit", `(0.2071 + 1.9102 / sqrt n) / (1.2071 + 0.9102 / sqrt n)`, for two
            independent halves of the data; "0.5" for a reconstruction against a truth (see the top of this module).

    Returns:
        `(*batch,)` in nm. A curve that never drops below the threshold gives `2 * pixel_size_nm`, the Nyquist limit:
        the pixels, not the data, set the resolution. A curve that starts below it, or holds a NaN, gives NaN.

    Raises:
        ValueError: unknown criterion.
    """
    if criterion not in ("1/7", "half-bit", "0.5"):
        raise ValueError(f"criterion={criterion!r} was given; choose '1/7', 'half-bit' or '0.5'")
    return _resolution(frc, pixel_size_nm, criterion)


@functools.partial(jax.jit, static_argnums=2)
def _resolution(frc: FRC, pixel_size_nm: ArrayLike, criterion: Criterion) -> Array:
    root = jnp.sqrt(frc.n)
    if criterion == "1/7":
        threshold = jnp.full_like(root, 1 / 7)
    elif criterion == "0.5":
        threshold = jnp.full_like(root, 0.5)
    else:
        threshold = (0.2071 * root + 1.9102) / (1.2071 * root + 0.9102)

    margin = _smooth(frc.correlation) - threshold
    frequency = jnp.broadcast_to(frc.frequency, margin.shape)
    below = margin < 0
    crosses = jnp.any(below, axis=-1)
    after = jnp.maximum(jnp.argmax(below, axis=-1), 1)
    before = after - 1
    if margin.shape[-1] == 1:  # a single ring: there is no pair to interpolate between
        after = before

    def at(x: Array, index: Array) -> Array:
        return jnp.take_along_axis(x, index[..., None], axis=-1)[..., 0]

    above, under = at(margin, before), at(margin, after)
    drop = jnp.where(above > under, above - under, 1)
    cut = at(frequency, before) + (at(frequency, after) - at(frequency, before)) * above / drop
    cut = jnp.where(crosses, cut, 0.5)
    # A last ring below the Nyquist frequency of odd sizes does not limit the answer: the data never dropped.
    lost = below[..., 0] | jnp.any(jnp.isnan(margin), axis=-1)
    return jnp.where(lost, jnp.nan, jnp.asarray(pixel_size_nm, margin.dtype) / jnp.where(lost, 0.5, cut))


def _smooth(curve: Array) -> Array:
    before = jnp.concatenate([jnp.zeros_like(curve[..., :1]), curve[..., :-1]], axis=-1)
    after = jnp.concatenate([curve[..., 1:], jnp.zeros_like(curve[..., :1])], axis=-1)
    rings = curve.shape[-1]
    terms = np.full(rings, 3)
    terms[0] -= 1
    terms[-1] -= 1  # a single ring has lost both neighbours
    return (before + curve + after) / jnp.asarray(terms, curve.dtype)
