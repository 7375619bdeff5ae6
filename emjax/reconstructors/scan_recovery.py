"""A scan network as a reconstructor: grey level, contrast and noise of the scan are its weights."""

from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax.numpy as jnp
from jax import Array

from emjax._pytree import leaf, pytree_dataclass
from emjax.acquisition.noise import Noise, estimate_noise
from emjax.operators import LinearOperator, PixelSampling
from emjax.reconstructors.base import Reconstructor

if TYPE_CHECKING:
    from emjax.networks.scan import ScanNetwork  # loaded by those who use it: flax takes its time


@pytree_dataclass
class ScanRecovery(Reconstructor):
    """`ScanRecovery(network)`: sparse, noisy scans by an `emjax.networks.ScanNetwork`.

    level, contrast: mean and standard deviation of the image; read_sigma: its noise. Where they are None they come
    from the scan: the noise by `estimate_noise` unless the call says it. That takes the finest texture for noise; a
    scan that is known to have none is recovered closer to what was measured with `noise=Noise()`.
    """

    network: "ScanNetwork | Any"
    level: Any = leaf("_scalar", default=None)
    contrast: Any = leaf("_scalar", default=None)
    read_sigma: Any = leaf("_scalar", default=None)

    # On a CPU, too: convolutions inside a loop over the items are slow.
    _vectorised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not hasattr(self.network, "multiple"):
            raise TypeError(
                f"ScanRecovery takes a scan network, such as emjax.networks.build('scan'), got {self.network}"
            )

    def _fit(self, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Self:
        from emjax.networks.scan import divided, statistics

        if reason := self.network.supports(A):
            raise ValueError(reason)
        assert isinstance(A, PixelSampling)
        z, w = divided(y, A.mask)
        sigma = self.read_sigma
        if sigma is None and noise is None:
            # Of a soft beam only the pixels that it stayed at tell: elsewhere z = y / w is noise of any size.
            stayed = w > 0.5 * jnp.max(w)
            share = jnp.sqrt(jnp.sum(jnp.where(stayed, w**2, 0)) / jnp.maximum(jnp.sum(stayed), 1))
            found = share * estimate_noise(z, stayed).read_sigma
            sigma = jnp.where(jnp.isfinite(found), found, 0)  # too few pixels to tell
        told = noise if noise is not None else Noise(0.0, sigma)
        level, contrast = statistics(z, w, told)
        return type(self)(
            self.network,
            level if self.level is None else jnp.asarray(self.level, y.dtype),
            contrast if self.contrast is None else jnp.asarray(self.contrast, y.dtype),
            jnp.zeros((), y.dtype) if sigma is None else jnp.asarray(sigma, y.dtype),
        )

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        told = noise if noise is not None else Noise(0.0, self.read_sigma)
        return self.network(y, A, told, level=self.level, contrast=self.contrast)
