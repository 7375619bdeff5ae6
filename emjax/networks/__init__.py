"""Networks that invert measurements: each is called like a reconstructor, `x = network(y, A, noise=None)`.

`build(kind, settings, seed)` makes one by its name in `NETWORKS`; `emjax.reconstructors.Learned(network)` makes a
reconstructor of it. A new network is a file with a subclass of `Network`, imported here.
"""

from emjax.networks.base import NETWORKS, Network, build
from emjax.networks.deep_inverse import DeepInverse
from emjax.networks.dncnn import DnCNN
from emjax.networks.ista_net import IstaNet, IstaNetPlus
from emjax.networks.learned_primal_dual import LearnedPrimalDual
from emjax.networks.lista import LISTA
from emjax.networks.modl import MoDL
from emjax.networks.scan import ScanNetwork
from emjax.networks.starts import estimate_field
from emjax.networks.vae import VAE

__all__ = [
    "LISTA",
    "NETWORKS",
    "VAE",
    "DeepInverse",
    "DnCNN",
    "IstaNet",
    "IstaNetPlus",
    "LearnedPrimalDual",
    "MoDL",
    "Network",
    "ScanNetwork",
    "build",
    "estimate_field",
]
