"""DeepInverse: three large convolutions on the proxy of the image.

    p = c A.T y,    x = (p +) (s) (W3 * relu(W2 * relu(W1 * (p - m) + b1) + b2) + b3)

with 11x11 kernels and 64, 32, 1 channels: 259,521 parameters. The mean grey value m (of `field`) only brings the input
near zero. Source: A. Mousavi, R. Baraniuk, Learning to invert: signal recovery via deep convolutional networks, ICASSP
2017.
"""

import jax.numpy as jnp
from flax import nnx
from jax import Array

from emjax.acquisition.noise import Noise
from emjax.networks.base import Network, convolve
from emjax.networks.starts import FIELD, check_start, gaussian_start, linear_start, supports_start
from emjax.operators import LinearOperator


class DeepInverse(Network):
    """The network of this module; see there.

    skip: add the proxy to the result (`p +` above), with the last layer zero at first, so that untrained it returns the
    proxy. The published network has no skip, and nothing to start from; its parameters are the same.
    start: "backprojection" is the published proxy, scaled by least squares. With one matrix for every block it has
    artefacts of blocks which three layers cannot mend at low ratios: there "gaussian" is the better proxy (`starts`);
    field: its numbers. scaled: what is added is in units of the proxy's own error (`s` above, of every pixel), which
    "gaussian" knows: one network for many ratios, which cannot tell a sharp proxy from a blurred one, then takes little
    away from the sharp ones. It needs `skip`.
    """

    kind = "deep-inverse"

    def __init__(
        self,
        skip: bool = True,
        start: str = "backprojection",
        field: tuple[float, ...] = FIELD,
        scaled: bool = False,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        check_start(start, field)
        if scaled and (start != "gaussian" or not skip):
            raise ValueError(
                'deep-inverse: scaled = true takes skip = true and start = "gaussian", whose error is known'
            )
        self.skip, self.start, self.field, self.scaled = skip, start, field, scaled
        he, last = nnx.initializers.he_normal(), nnx.initializers.zeros_init()
        self.layers = nnx.List(
            [
                nnx.Conv(1, 64, (11, 11), kernel_init=he, rngs=rngs),
                nnx.Conv(64, 32, (11, 11), kernel_init=he, rngs=rngs),
                nnx.Conv(32, 1, (11, 11), kernel_init=last if skip else nnx.initializers.lecun_normal(), rngs=rngs),
            ]
        )

    def supports(self, A: LinearOperator) -> str | None:
        return super().supports(A) or supports_start(self.start, A)

    def __call__(self, y: Array, A: LinearOperator, noise: Noise | None = None) -> Array:
        """Recover `x`, shape `(*batch, h, w)`, from `y`, shape `(*batch, *A.out_shape)`; any size."""
        y = self.measurements(y, A)
        if self.scaled:
            proxy, scale = gaussian_start(self.field, y, A, noise)
        else:
            proxy, scale = linear_start(self.start, self.field, y, A, noise), jnp.ones((), y.dtype)
        first, second, last = self.layers
        v = nnx.relu(convolve(first, proxy[..., None] - self.field[0]))
        v = nnx.relu(convolve(second, v))
        x = scale * convolve(last, v)[..., 0]
        return proxy + x if self.skip else x
