"""A scan network as a reconstructor: grey level, contrast and noise of the scan are its weights."""

from typing import TYPE_CHECKING, Any, ClassVar, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from emjax._pytree import assign, leaf, pytree_dataclass
from emjax.acquisition.noise import Noise, estimate_noise
from emjax.operators import LinearOperator, PixelSampling
from emjax.operators.base import as_float
from emjax.reconstructors.base import Reconstructor

if TYPE_CHECKING:
    from emjax.networks.scan import ScanNetwork  # loaded by those who use it: flax takes its time

# What images hold that no two pixels share, over their contrast: fine texture and the noise of "noiseless" images. Of
# most of the images that the zoo's networks were trained on 0.06 (SEM) to 0.14 (FIB-SEM), 0 where they are
# band-limited.
TEXTURE = 0.13


@pytree_dataclass
class ScanRecovery(Reconstructor):
    """`ScanRecovery(network)`: sparse, noisy scans by an `emjax.networks.ScanNetwork`.

    level, contrast: mean and standard deviation of the image; read_sigma: its noise. Where they are None they come
    from the scan, the noise, unless the call says it, by `estimate_noise` less the square of `TEXTURE` times the
    contrast: the network knows texture, and what was measured shall stay where noise and texture cannot be told apart.
    Raises TypeError for something else than a scan network, ValueError for numbers that are not finite, a contrast not
    above 0 and a noise below 0.
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
                f"ScanRecovery takes a scan network, such as emjax.networks.build('scan'), got a "
                f"{type(self.network).__name__}"
            )
        for name, least in (("level", "finite"), ("contrast", "above 0"), ("read_sigma", "0 or more")):
            if (value := getattr(self, name)) is None:
                continue
            value = as_float(value)
            if not isinstance(value, jax.core.Tracer):
                numbers = np.asarray(value)
                fits = {"finite": True, "above 0": numbers > 0, "0 or more": numbers >= 0}[least]
                if not np.all(np.isfinite(numbers) & fits):
                    raise ValueError(f"the {name} of a scan is a number, {least}, in grey values; got {value}")
            assign(self, **{name: value})

    def _fit(self, y: Array, A: LinearOperator, noise: Noise | None, key: Array) -> Self:
        from emjax.networks.scan import divided, largest, statistics

        y = self.network.measurements(y, A)
        assert isinstance(A, PixelSampling)
        z, w = divided(y, A.mask)
        sigma = self.read_sigma
        if sigma is None and noise is None:
            # Of a soft beam only the pixels that it stayed at tell: elsewhere z = y / w is noise of any size.
            stayed, unit = w > 0.5 * jnp.max(w), largest(z)
            share = jnp.sqrt(jnp.sum(jnp.where(stayed, w**2, 0)) / jnp.maximum(jnp.sum(stayed), 1))
            found = share * estimate_noise(z / unit, stayed).read_sigma
            found = jnp.where(jnp.isfinite(found), found, 0)  # too few pixels to tell
            texture = TEXTURE * statistics(z / unit, w, Noise(0.0, found))[1]
            square = jnp.square(found) - jnp.square(texture)
            sigma = unit * jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1)), 0)
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
