"""DeepInverse: three large convolutions on the proxy of the image.

    p = c A.T y,    x = (p +) W3 * relu(W2 * relu(W1 * (p - m) + b1) + b2) + b3

with 11x11 kernels and 64, 32, 1 channels: 259,521 parameters. The mean grey value m (of `field`) only brings the input
near zero. Source: A. Mousavi, R. Baraniuk, Learning to invert: signal recovery via deep convolutional networks, ICASSP
2017.
"""

from flax import nnx
from jax import Array

from emjax.acquisition.noise import Noise
from emjax.networks.base import Network, convolve
from emjax.networks.starts import FIELD, Estimate, check_start, linear_start, supports_start
from emjax.operators import LinearOperator
from emjax.operators.base import map_batch


class DeepInverse(Network):
    """The network of this module; see there.

    skip: add the proxy to the result (`p +` above), with the last layer zero at first, so that untrained it returns the
    proxy. The published network has no skip, and nothing to start from; its parameters are the same.
    start: "backprojection" is the published proxy, scaled by least squares. With one matrix for every block it has
    artefacts of blocks which three layers cannot mend at low ratios: there "gaussian" is the better proxy (`starts`);
    field: its numbers.
    posterior: what is added is in units of the error s that "gaussian" expects of its proxy at every pixel, and what of
    it contradicts the measurements is taken off (`Estimate.unseen`). One network for many ratios cannot tell a sharp
    proxy from a blurred one; so it takes little away from the sharp ones. It needs `skip`.
    """

    kind = "deep-inverse"

    def __init__(
        self,
        skip: bool = True,
        start: str = "backprojection",
        field: tuple[float, ...] = FIELD,
        posterior: bool = False,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        check_start(start, field)
        if posterior and (start != "gaussian" or not skip):
            raise ValueError(
                'deep-inverse: posterior = true takes skip = true and start = "gaussian", which knows its error'
            )
        self.skip, self.start, self.field, self.posterior = skip, start, field, posterior
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
        if self.posterior:
            parts = (A, Noise() if noise is None else noise)
            return map_batch(lambda parts, y: self._item(y, *parts), parts, y, A.out_shape)
        proxy = linear_start(self.start, self.field, y, A, noise)
        return proxy + self._added(proxy) if self.skip else self._added(proxy)

    def _item(self, y: Array, A: LinearOperator, noise: Noise) -> Array:
        estimate = Estimate.of(self.field, A, noise, y.dtype)
        proxy = estimate.start(y)
        return proxy + estimate.unseen(estimate.error() * self._added(proxy))

    def _added(self, proxy: Array) -> Array:
        first, second, last = self.layers
        v = nnx.relu(convolve(first, proxy[..., None] - self.field[0]))
        v = nnx.relu(convolve(second, v))
        return convolve(last, v)[..., 0]
