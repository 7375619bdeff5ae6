"""The scan network: an image from few, noisy pixels, whatever their pattern, share and noise.

With `y = w x + n`, `n` of standard deviation sigma, and s the contrast of the image, every pixel comes with the
confidence that the scan deserves there, and the scan weighed by it:

    c = w^2 k / (w^2 k + sigma^2 / s^2),      c z = (w y / s) k / (w^2 k + sigma^2 / s^2),      z = y / w in units of s

so that weights, masks and noise levels reach the network as one map: 1 where a pixel is known, 0 where nothing was
measured. It starts from a normalised convolution (Knutsson and Westin 1993; see `_start`), and each stage adds what a
U-Net says and then trusts the scan where it should, with e the stage's own error (trained):

    x <- x + U(x, c (z - x), c),        x <- x + g (z - x),   g = w^2 e^2 / (w^2 e^2 + sigma^2 / s^2)

which is the mean of the posterior when the errors of both are independent (as in unrolled ADMM with its exact inner
solve; Aggarwal et al. 2019, "MoDL"). Untrained, U is zero and the network returns its start.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax

from emjax.acquisition.noise import Noise
from emjax.networks.base import Network
from emjax.networks.field import HALO, TILE, field
from emjax.networks.unet import UNet, operations, receptive_field, shuffle, unshuffle
from emjax.operators import LinearOperator, PixelSampling

BLOCK = 4  # of the start, pixels
CONFIDENT = 0.1  # k: at noise of 0.3 of the contrast the confidence is one half
WIDTHS = (1.0, 2.0)  # of the start's Gaussians, pixels
PRIOR = 0.05  # what the next wider estimate counts beside one measured pixel
FAINT = 1e-4  # smaller weights measure nothing: they would only amplify rounding


class ScanNetwork(Network):
    """`x = network(y, A, noise)` for `A` a `PixelSampling` of masks or soft weights `(h, w)` or `(*batch, h, w)`.

    unshuffle: side of the pixel blocks that become channels. widths, encoder, decoder, depth: see
    `emjax.networks.unet.UNet`. stages: how often the U-Net (one set of weights) and the scan meet. field_steps: steps
    towards the best linear estimate before that (`emjax.networks.field`).
    """

    kind = "scan"

    def __init__(
        self,
        *,
        unshuffle: int = 4,
        widths: Sequence[int] = (64, 96, 128),
        encoder: Sequence[int] = (0, 1, 2),
        decoder: Sequence[int] = (1, 1),
        depth: int = 1,
        stages: int = 1,
        field_steps: int = 0,
        rngs: nnx.Rngs,
    ) -> None:
        counts = {"widths": widths, "depth": (depth,), "stages": (stages,), "unshuffle": (unshuffle,)}
        counts |= {"encoder": encoder, "decoder": decoder, "field_steps": (field_steps,)}
        for name, values in counts.items():
            least = 0 if name in ("encoder", "decoder", "field_steps") else 1
            if any(type(v) is not int or v < least for v in values):
                raise ValueError(f"{name} of a scan network counts in whole numbers, {least} or more, got {values}")
        if len(encoder) != len(widths) or len(decoder) != len(widths) - 1:
            raise ValueError(
                f"a U-Net of {len(widths)} levels has {len(widths)} counts of encoder blocks and {len(widths) - 1} of "
                f"decoder blocks, got {tuple(encoder)} and {tuple(decoder)}"
            )
        if BLOCK % unshuffle:
            raise ValueError(f"unshuffle divides {BLOCK}, got {unshuffle}")
        self.unshuffle, self.depth, self.stages, self.field_steps = unshuffle, depth, stages, field_steps
        self.widths, self.encoder, self.decoder = tuple(widths), tuple(encoder), tuple(decoder)
        p2 = unshuffle**2
        self.body = UNet(3 * p2, p2, **self._shape(), rngs=rngs)
        # log e^2 of each stage, in units of the contrast: a start is off by about a third of it.
        self.log_error = nnx.Param(jnp.full((stages,), -2.0))
        if stages > 1:  # what tells one pass from another
            self.stage_bias = nnx.Param(jnp.zeros((stages, self.widths[0])))

    def _shape(self) -> dict[str, Any]:
        return {"widths": self.widths, "encoder": self.encoder, "decoder": self.decoder, "depth": self.depth}

    @property
    def multiple(self) -> int:
        """Sides are padded to multiples of this, and tiles must begin at them to be equal to the whole."""
        smallest = max(self.unshuffle * 2 ** (len(self.widths) - 1), BLOCK**2)
        return math.lcm(smallest, TILE) if self.field_steps else smallest

    @property
    def halo(self) -> int:
        """How far, in pixels, the measurements reach that can change a pixel; a multiple of `multiple`."""
        one = self.unshuffle * (receptive_field(self.widths, self.encoder, self.decoder, self.depth) + 1)
        reach = self.stages * one + 2 * BLOCK**2 + 4 * BLOCK + (HALO + TILE if self.field_steps else 0)
        return -(-reach // self.multiple) * self.multiple

    @property
    def operations(self) -> float:
        """Multiplications (each with its addition) a pixel."""
        p2 = self.unshuffle**2
        start: float = 2 * 9 * BLOCK**2 * len(WIDTHS)
        start += (self.field_steps + 2) * 4 * (TILE + 2 * HALO) ** 3 / TILE**2 if self.field_steps else 0
        return self.stages * operations(3 * p2, p2, **self._shape()) / p2 + start

    def supports(self, A: LinearOperator) -> str | None:
        if not isinstance(A, PixelSampling) or len(A.in_shape) != 2:
            return (
                f"the scan network takes PixelSampling of images (h, w), not {type(A).__name__} of {A.in_shape}; for "
                "other operators there are iterative methods, and networks for block-wise sampling"
            )
        return super().supports(A)

    def __call__(
        self,
        y: Array,
        A: LinearOperator,
        noise: Noise | None = None,
        *,
        level: Array | None = None,
        contrast: Array | None = None,
    ) -> Array:
        """Recover `x`, shape `(*batch, h, w)`, from `y` of that shape.

        noise: its level; none is taken for none. level, contrast: mean and standard deviation of the image where they
        are known (those of the whole image, for a part of it), `(*batch,)`; otherwise those of the measured pixels.
        """
        y = self.measurements(y, A)
        assert isinstance(A, PixelSampling)
        if level is None or contrast is None:
            found = statistics(*divided(y, A.mask), noise)
            level, contrast = found[0] if level is None else level, found[1] if contrast is None else contrast
        level, contrast = (jnp.asarray(v, y.dtype)[..., None, None, None] for v in (level, contrast))
        blocks = self._blocks(y), self._blocks(jnp.broadcast_to(A.mask.astype(y.dtype), y.shape))
        z, w = divided(*blocks)
        z = jnp.where(w > 0, (z - level) / contrast, 0)
        variance = jnp.zeros_like(z)
        if noise is not None:
            gain, read = (v.astype(y.dtype).reshape(*v.shape, 1, 1, 1) for v in (noise.gain, noise.read_sigma))
            # At the grey level of the surroundings: that of the pixel itself is noisy, and would favour low draws.
            around = level + contrast * _surroundings(z, (w > 0).astype(z.dtype))
            variance = (read / contrast) ** 2 + gain / contrast * w**2 * jnp.maximum(around / contrast, 0)
        x = shuffle(level + contrast * self._recover(z, w, variance), self.unshuffle)[..., 0]
        return x[..., : y.shape[-2], : y.shape[-1]]

    def _blocks(self, x: Array) -> Array:
        """`(*batch, h, w)`, padded with zeros to the next multiples, as blocks `(*batch, H / 4, W / 4, 16)`."""
        pad = [(0, 0)] * (x.ndim - 2) + [(0, -n % self.multiple) for n in x.shape[-2:]]
        x = jnp.pad(x, pad) if any(p for _, p in pad) else x
        return unshuffle(x[..., None], BLOCK)

    def _recover(self, z: Array, w: Array, variance: Array) -> Array:
        """The image in units of its contrast, blocks of 4 to blocks of `unshuffle`; `z` is zero where `w` is."""
        total = CONFIDENT * w**2 + variance
        c = CONFIDENT * w**2 / jnp.where(w > 0, total, 1)
        x, w2 = _start(c * z, c), w**2
        if self.field_steps:
            measured, precision, guess = (shuffle(v, BLOCK)[..., 0] for v in (z, w2 / jnp.maximum(variance, 1e-6), x))
            x = unshuffle(field(measured, precision, guess, self.field_steps)[..., None], BLOCK)
        if (p := self.unshuffle) != BLOCK:
            x, z, c, w2, variance = (unshuffle(shuffle(v, BLOCK), p) for v in (x, z, c, w2, variance))
        dtype = self.body.head.kernel[...].dtype  # bfloat16 where the parameters were cast to it
        for stage in range(self.stages):
            features = jnp.concatenate([x, c * (z - x), c], -1).astype(dtype)
            x = x + self._body(features, stage).astype(x.dtype)
            error = jnp.exp(self.log_error[...][stage].astype(x.dtype))
            # Not where nothing was measured: the square of a faint noise, in the derivative, is zero in float32.
            total = jnp.where(w2 > 0, w2 * error + variance, 1)
            x = x + w2 * error / total * (z - x)
        return x

    def _body(self, features: Array, stage: int) -> Array:
        batch = features.shape[:-3]
        features = features.reshape(-1, *features.shape[-3:])
        bias = self.stage_bias[...][stage] if self.stages > 1 else None
        out = self.body(features, bias)
        return out.reshape(*batch, *out.shape[1:])


def divided(y: Array, mask: Array) -> tuple[Array, Array]:
    """`z = y / w` and the weights `w`, both zero where (next to) nothing was measured; any batch axes."""
    w = jnp.broadcast_to(mask.astype(y.dtype), y.shape)
    w = jnp.where(w > FAINT, w, 0)
    return jnp.where(w > 0, y / jnp.where(w > 0, w, 1), 0), w


def statistics(z: Array, w: Array, noise: Noise | None = None) -> tuple[Array, Array]:
    """Mean and standard deviation of the image behind measured pixels `z` `(*batch, h, w)`, free of known noise.

    Where the beam hardly was, z is noise of any size, `sigma / w`: pixels count by `w^2 / (w^2 + sigma^2 / s^2)`, s the
    contrast by weights w^2 first. At least a tenth of the deviation of the pixels themselves, so that noise alone is
    not blown up.
    """
    unit = largest(z)  # squares of very small or large grey values are none in float32
    z = z / unit[..., None, None]
    if noise is None:
        level, contrast = _moments(z, w, (w > 0).astype(z.dtype), None)
        return unit * level, unit * contrast
    noise = jax.tree.map(lambda level: level / unit, noise)
    squares = jnp.square(w).astype(z.dtype)
    _, contrast = _moments(z, w, squares, noise)
    relative = (noise.read_sigma / contrast) ** 2
    total = squares + relative[..., None, None].astype(z.dtype)
    level, contrast = _moments(z, w, squares / jnp.where(total > 0, total, 1), noise)
    return unit * level, unit * contrast


def largest(z: Array) -> Array:
    """The largest magnitude of each image, 1 where there is none, `(*batch,)`: a unit of grey values."""
    most = lax.stop_gradient(jnp.max(jnp.abs(z), (-2, -1)))
    return jnp.where(most > 0, most, 1)


def _moments(z: Array, w: Array, trust: Array, noise: Noise | None) -> tuple[Array, Array]:
    """Level and contrast by pixels that count by `trust`."""
    total = jnp.sum(trust, (-2, -1))
    total = jnp.where(total > 0, total, 1)
    level = jnp.sum(trust * z, (-2, -1)) / total
    spread = jnp.sum(trust * jnp.square(z - level[..., None, None]), (-2, -1)) / total
    own = jnp.zeros_like(spread)
    if noise is not None:
        read = jnp.sum(trust / jnp.square(jnp.where(w > 0, w, 1)), (-2, -1)) / total * noise.read_sigma**2
        own = (read + noise.gain * jnp.maximum(level, 0)).astype(z.dtype)
    floor = 1e-5 * (jnp.square(level) + 1e-8)  # a constant image
    return level, jnp.sqrt(jnp.maximum(spread - own, 0.01 * spread) + floor)


def _blend(sums: Array, wider: Array | float) -> Array:
    """`(top + a wider) / (bottom + a)`, top and bottom the halves of `sums` along its first axis."""
    top, bottom = jnp.split(sums, 2)
    return (top + PRIOR * wider) / (bottom + PRIOR)


def _surroundings(cz: Array, c: Array) -> Array:
    """The mean of some 12 x 12 pixels around each block, `(*batch, h / 4, w / 4, 1)`."""
    fine = jnp.sum(jnp.stack([cz, c]).reshape(-1, *cz.shape[-3:]), -1, keepdims=True)
    coarse = jnp.sum(unshuffle(fine, BLOCK), -1, keepdims=True)
    e = _blend(_around(coarse), 0.0)  # the mean level is zero
    e = _blend(_around(fine), jnp.repeat(jnp.repeat(e, BLOCK, 1), BLOCK, 2))
    return e.reshape(*cz.shape[:-1], 1)


def _start(cz: Array, c: Array) -> Array:
    """Normalised convolutions from wide to narrow, of blocks `(*batch, h / 4, w / 4, 16)`.

    e <- (G * c z + a e) / (G * c + a), G two sums over neighbouring blocks, then two Gaussians: where the narrow ones
    find few pixels, the wide ones fill in. On blocks of 4 x 4 pixels a Gaussian is a 3 x 3 convolution of 16 channels.
    """
    q = jnp.stack([cz, c]).reshape(-1, *cz.shape[-3:])
    e = _surroundings(cz, c).reshape(-1, *cz.shape[-3:-1], 1)
    gaussians = jnp.asarray(_gaussians(), q.dtype)
    sums = lax.conv_general_dilated(q, gaussians, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    for k in reversed(range(len(WIDTHS))):
        e = _blend(sums[..., k * BLOCK**2 : (k + 1) * BLOCK**2], e)
    return e.reshape(cz.shape)


def _around(x: Array) -> Array:
    """Sums over 3 x 3 neighbours with the weights of a Gaussian, `(n, h, w, 1)`."""
    side = float(np.exp(-0.5 / 0.8**2))
    for axis in (1, 2):
        pad = [(0, 0)] * 4
        pad[axis] = (1, 1)
        wide = jnp.pad(x, pad)
        n = x.shape[axis]
        x = x + side * (lax.slice_in_dim(wide, 0, n, axis=axis) + lax.slice_in_dim(wide, 2, n + 2, axis=axis))
    return x


@functools.cache
def _gaussians() -> np.ndarray:
    """Gaussians within 4 pixels as convolutions of blocks, `(3, 3, 16, 16 len(WIDTHS))`."""
    kernel = np.zeros((3, 3, BLOCK**2, len(WIDTHS), BLOCK**2), np.float32)
    places = list(itertools.product(range(BLOCK), range(BLOCK)))
    for a, b in itertools.product(range(3), range(3)):
        for (k, s), (i, (u, v)), (j, (r, t)) in itertools.product(
            enumerate(WIDTHS), enumerate(places), enumerate(places)
        ):
            dy, dx = (a - 1) * BLOCK + u - r, (b - 1) * BLOCK + v - t
            if max(abs(dy), abs(dx)) <= BLOCK:
                kernel[a, b, i, k, j] = np.exp(-(dy**2 + dx**2) / (2 * s**2))
    return kernel.reshape(3, 3, BLOCK**2, -1)
