"""A network as a reconstructor: batches, noise levels with batch axes and `fit` as for every other method."""

from typing import TYPE_CHECKING, Any, ClassVar

from jax import Array

from emjax._pytree import pytree_dataclass
from emjax.acquisition.noise import Noise
from emjax.operators import LinearOperator
from emjax.reconstructors.base import Reconstructor

if TYPE_CHECKING:
    from emjax.networks import Network  # loaded by those who use it: flax takes its time


@pytree_dataclass
class Learned(Reconstructor):
    """`Learned(network)`: `network(y, A, noise)` with its weights as they are; there is nothing to estimate.

    Raises TypeError for something that cannot be called; the network itself raises ValueError for an operator that it
    cannot take.
    """

    network: "Network | Any"

    # On a CPU, too: convolutions inside a loop over the items are slow.
    _vectorised: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if isinstance(self.network, type) or not callable(self.network):
            raise TypeError(
                f"Learned takes a network, such as emjax.networks.build('ista-net-plus'), got {self.network!r}"
            )

    def _recover(self, y: Array, A: LinearOperator, noise: Noise | None) -> Array:
        return self.network(y, A, noise)
