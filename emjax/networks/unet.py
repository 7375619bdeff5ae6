"""A residual U-Net on pixel-unshuffled images: the body of the scan networks (Ronneberger et al. 2015, with the sums of
Lee et al. 2017 in place of concatenations, and the pre-activation blocks of He et al. 2016).

    level 0    head: 3x3 conv  -> blocks ------------------------------ + -> blocks -> tail: 3x3 conv (zero)
    level l    2x2 conv, stride 2  -> blocks ------------- + -> blocks -> 1x1 conv, pixel shuffle
    last       2x2 conv, stride 2  -> blocks -> 1x1 conv, pixel shuffle

A block is `x + convs(x)`, each 3x3 convolution after a rectifier. There are no normalisations, so that an image does
not depend on what lies beyond the receptive field.
"""

from collections.abc import Sequence
from typing import Any

import jax
from flax import nnx
from jax import Array

HE = nnx.initializers.variance_scaling(2.0, "fan_in", "truncated_normal")


def unshuffle(x: Array, p: int) -> Array:
    """`(..., h, w, c) -> (..., h / p, w / p, p p c)`: every p x p block of pixels becomes one of many channels."""
    *batch, h, w, c = x.shape
    n = len(batch)
    x = x.reshape(*batch, h // p, p, w // p, p, c)
    return x.transpose(*range(n), n, n + 2, n + 1, n + 3, n + 4).reshape(*batch, h // p, w // p, p * p * c)


def shuffle(x: Array, p: int) -> Array:
    """The inverse of `unshuffle`: `(..., h, w, p p c) -> (..., p h, p w, c)`."""
    *batch, h, w, channels = x.shape
    n, c = len(batch), channels // (p * p)
    x = x.reshape(*batch, h, w, p, p, c)
    return x.transpose(*range(n), n, n + 2, n + 1, n + 3, n + 4).reshape(*batch, p * h, p * w, c)


class Block(nnx.Module):
    """`x + convs(x)` with `depth` 3x3 convolutions, each after a rectifier; the last begins small."""

    def __init__(self, width: int, depth: int, *, rngs: nnx.Rngs) -> None:
        small = nnx.initializers.variance_scaling(0.2, "fan_in", "truncated_normal")
        self.convs = nnx.List(
            [
                nnx.Conv(width, width, (3, 3), kernel_init=small if i == depth - 1 else HE, rngs=rngs)
                for i in range(depth)
            ]
        )

    def __call__(self, x: Array) -> Array:
        h = x
        for conv in self.convs:
            h = conv(jax.nn.relu(h))
        return x + h


class UNet(nnx.Module):
    """Images `(*batch, h, w, channels_in)` to `(*batch, h, w, channels_out)`; h and w multiples of `2^(levels - 1)`.

    widths: channels of each level. encoder, decoder: blocks of each level on the way down and up (the last level has
    only the former). depth: convolutions a block.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        widths: Sequence[int],
        encoder: Sequence[int],
        decoder: Sequence[int],
        depth: int,
        rngs: nnx.Rngs,
    ) -> None:
        def blocks(level: int, count: int) -> Any:
            return nnx.List([Block(widths[level], depth, rngs=rngs) for _ in range(count)])

        last = len(widths) - 1
        self.head = nnx.Conv(channels_in, widths[0], (3, 3), rngs=rngs)
        self.down_blocks = nnx.List([blocks(level, encoder[level]) for level in range(last + 1)])
        self.downs = nnx.List(
            [nnx.Conv(widths[i], widths[i + 1], (2, 2), strides=2, padding="VALID", rngs=rngs) for i in range(last)]
        )
        self.ups = nnx.List([nnx.Conv(widths[i + 1], 4 * widths[i], (1, 1), rngs=rngs) for i in range(last)])
        self.up_blocks = nnx.List([blocks(level, decoder[level]) for level in range(last)])
        self.tail = nnx.Conv(widths[0], channels_out, (3, 3), kernel_init=nnx.initializers.zeros, rngs=rngs)

    def __call__(self, x: Array, bias: Array | None = None) -> Array:
        """`bias`, `(widths[0],)`, is added after the head."""
        x = self.head(x)
        x = x if bias is None else x + bias.astype(x.dtype)
        skips = []
        for level, blocks in enumerate(self.down_blocks):
            for block in blocks:
                x = block(x)
            if level < len(self.downs):
                skips.append(x)
                x = self.downs[level](x)
        for level in reversed(range(len(self.ups))):
            x = skips[level] + shuffle(self.ups[level](x), 2)
            for block in self.up_blocks[level]:
                x = block(x)
        return self.tail(jax.nn.relu(x))


def operations(
    channels_in: int,
    channels_out: int,
    *,
    widths: Sequence[int],
    encoder: Sequence[int],
    decoder: Sequence[int],
    depth: int,
) -> float:
    """Multiplications (each with its addition) for one position of the input."""
    total = 9.0 * widths[0] * (channels_in + channels_out)
    for level, width in enumerate(widths):
        blocks = encoder[level] + (decoder[level] if level < len(widths) - 1 else 0)
        total += 9 * depth * width**2 * blocks / 4**level
        if level:
            total += 2 * 4 * width * widths[level - 1] / 4**level
    return total


def receptive_field(widths: Sequence[int], encoder: Sequence[int], decoder: Sequence[int], depth: int) -> int:
    """How many positions of the input, to each side, can change one position of the output."""
    reach = 2  # head and tail
    for level in range(len(widths)):
        blocks = encoder[level] + (decoder[level] if level < len(widths) - 1 else 0)
        reach += 2**level * depth * blocks + (2**level - 1 if level else 0)
    return reach
