"""What a denoiser is: a callable `eta(v, sigma) -> x` for one item `v = x + sigma n`, n of unit variance.

It stands where a proximal map would: `prox_g(v, sigma^2)` is the denoiser of the prior `exp(-g)`. Message passing and
plug-and-play take any: a class of `emjax.denoisers`, a function, a network. Its divergence is its own
(`eta.divergence(v, sigma)`, the mean derivative) where it has one.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

from emjax._pytree import pytree_dataclass, static

Denoiser = Callable[[Array, Array], Array]


@pytree_dataclass
class Fixed:
    """A denoiser that is a plain function: part of the program."""

    function: Denoiser = static()

    def __call__(self, v: Array, sigma: Array) -> Array:
        return self.function(v, sigma)


def as_denoiser(denoiser: Any) -> Any:
    """A pytree that is called, or None as it is; TypeError for what cannot be called."""
    if denoiser is None:
        return None
    if isinstance(denoiser, type) or not callable(denoiser):
        raise TypeError(f"a denoiser is a callable eta(v, sigma), such as NonLocalMeans(); got {denoiser!r}")
    leaves = jax.tree.leaves(denoiser)
    return Fixed(denoiser) if len(leaves) == 1 and leaves[0] is denoiser else denoiser
