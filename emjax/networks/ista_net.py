"""ISTA-Net and ISTA-Net+: unrolled proximal gradient steps whose sparsifying transform is learned.

    r = x - (t / |A|^2) A.T (A x - y)                        the step of ISTA
    x' = m + B(soft(F(r - m), s))                            ISTA-Net
    x' = r + G(B(soft(F(D(r - m)), s)))                      ISTA-Net+

with F and B two 3x3 convolutions and a relu between them, D and G one convolution, none with a bias, t and s numbers;
every phase has its own. The loss of the paper adds 0.01 times the `symmetry` |B(F(v)) - v|^2, v = r - m or D(r - m).
The gradient step goes through the operator and the convolutions over the whole image: blocks leave no seams. The mean
grey value m (of `field`) is zero in the paper; without biases layers have to learn it away, three times more slowly.
Source:
J. Zhang, B. Ghanem, ISTA-Net: interpretable optimization-inspired deep network for image compressive sensing, CVPR
2018, which starts, as "gaussian" does here, from the linear estimate of least error.
"""

from typing import Any

import jax.numpy as jnp
from flax import nnx
from jax import Array

from emjax.acquisition.noise import Noise
from emjax.functionals import L1, LeastSquares
from emjax.networks.base import Network, convolve, norm_bounds
from emjax.networks.starts import FIELD, check_start, linear_start, supports_start
from emjax.operators import LinearOperator
from emjax.operators.base import map_batch


class _Transform(nnx.Module):
    """`F(v)`, its thresholding and `B`: `(*batch, h, w, c)` to the same."""

    def __init__(self, channels: int, width: int, threshold: float, rngs: nnx.Rngs) -> None:
        self.forward = nnx.List([_conv(channels, width, rngs), _conv(width, width, rngs)])
        self.backward = nnx.List([_conv(width, width, rngs), _conv(width, channels, rngs)])
        self.threshold = nnx.Param(jnp.full((), threshold))

    def analysis(self, v: Array) -> Array:
        first, second = self.forward
        return convolve(second, nnx.relu(convolve(first, v)))

    def synthesis(self, v: Array) -> Array:
        first, second = self.backward
        return convolve(second, nnx.relu(convolve(first, v)))

    def __call__(self, v: Array) -> tuple[Array, Array]:
        """`B(soft(F(v), s))` and the mean of `(B(F(v)) - v)^2`."""
        coefficients = self.analysis(v)
        # The sign of the threshold does not matter: it cannot leave the range where soft thresholding is one.
        shrunk = L1(jnp.abs(self.threshold[...]).astype(v.dtype)).prox(coefficients, jnp.ones((), v.dtype))
        return self.synthesis(shrunk), jnp.mean(jnp.square(self.synthesis(coefficients) - v))


def _conv(inputs: int, outputs: int, rngs: nnx.Rngs, **kwargs: Any) -> nnx.Conv:
    return nnx.Conv(inputs, outputs, (3, 3), use_bias=False, rngs=rngs, **kwargs)


class _Phase(nnx.Module):
    """One phase of ISTA-Net, after its gradient step: images less their mean grey value to the same."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.step = nnx.Param(jnp.full((), 0.5))
        self.transform = _Transform(1, width, 1e-3, rngs)
        # Two channels pass the image on, its positive and its negative part: without a skip, random layers would lose
        # it in every phase.
        into, joined = self.transform.forward
        parted, out = self.transform.backward
        for layer, split in ((into, True), (joined, False), (parted, True), (out, False)):
            _pass_on(layer, split)

    def __call__(self, r: Array) -> tuple[Array, Array]:
        x, symmetry = self.transform(r[..., None])
        return x[..., 0], symmetry


def _pass_on(layer: nnx.Conv, split: bool) -> None:
    """Channels 0 and 1 become v and -v of channel 0 (split), or channel 0 becomes the difference of 0 and 1."""
    kernel = layer.kernel[...].at[..., : 2 if split else 1].set(0)
    layer.kernel[...] = kernel.at[(1, 1, 0, slice(0, 2)) if split else (1, 1, slice(0, 2), 0)].set(jnp.array([1.0, -1]))


class _PhasePlus(nnx.Module):
    """One phase of ISTA-Net+, likewise."""

    def __init__(self, width: int, rngs: nnx.Rngs) -> None:
        self.step = nnx.Param(jnp.full((), 0.5))
        self.into = _conv(1, width, rngs)
        self.transform = _Transform(width, width, 1e-2, rngs)
        self.out = _conv(width, 1, rngs, kernel_init=nnx.initializers.zeros_init())

    def __call__(self, r: Array) -> tuple[Array, Array]:
        v, symmetry = self.transform(convolve(self.into, r[..., None]))
        return r + convolve(self.out, v)[..., 0], symmetry


class IstaNet(Network):
    """ISTA-Net of this module, for images of any size: 171,090 parameters as published.

    phases, width: 9 phases of 32 channels are the published ones. start, field: where it starts (`starts`).
    """

    kind = "ista-net"
    _phase: type = _Phase

    def __init__(
        self,
        phases: int = 9,
        width: int = 32,
        start: str = "backprojection",
        field: tuple[float, ...] = FIELD,
        *,
        rngs: nnx.Rngs,
    ) -> None:
        if phases < 1 or width < 2:
            raise ValueError(f"there are 1 or more phases of 2 or more channels, got {phases} and {width}")
        check_start(start, field)
        self.phases, self.width, self.start, self.field = phases, width, start, field
        self.layers = nnx.List([self._phase(width, rngs) for _ in range(phases)])

    def supports(self, A: LinearOperator) -> str | None:
        return super().supports(A) or supports_start(self.start, A)

    def __call__(self, y: Array, A: LinearOperator, noise: Noise | None = None) -> Array:
        """Recover `x`, shape `(*batch, h, w)`, from `y`, shape `(*batch, *A.out_shape)`."""
        return self.with_symmetry(y, A, noise)[0]

    def with_symmetry(self, y: Array, A: LinearOperator, noise: Noise | None = None) -> tuple[Array, Array]:
        """`x` and the mean over phases of the squares `(B(F(v)) - v)^2`, a term of the loss."""
        y = self.measurements(y, A)
        data, x = LeastSquares(A, y), linear_start(self.start, self.field, y, A, noise)
        mean = self.field[0]
        bound = norm_bounds(A).astype(x.dtype) ** 2
        scale, symmetry = 1 / jnp.where(bound > 0, bound, 1), jnp.zeros((), x.dtype)
        for phase in self.layers:
            gradient = map_batch(lambda data, x: data.gradient(x), data, x, A.in_shape)
            x, asymmetry = phase(x - phase.step[...] * scale * gradient - mean)
            x, symmetry = x + mean, symmetry + asymmetry / self.phases
        return x, symmetry


class IstaNetPlus(IstaNet):
    """ISTA-Net+ of this module, for images of any size: 336,978 parameters as published. Untrained it only takes steps.

    phases, width: 9 phases of 32 channels are the published ones. start, field: where it starts (`starts`).
    """

    kind = "ista-net-plus"
    _phase = _PhasePlus
