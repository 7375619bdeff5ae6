"""How a scan comes about: patterns, dose and noise, and a phantom to scan."""

from emjax.acquisition.noise import Noise, estimate_noise, measure
from emjax.acquisition.patterns import PATTERNS, jittered_grid, line_hop, pattern, uniform
from emjax.acquisition.phantom import Organelle, Phantom, phantom

__all__ = [
    "PATTERNS",
    "Noise",
    "Organelle",
    "Phantom",
    "estimate_noise",
    "jittered_grid",
    "line_hop",
    "measure",
    "pattern",
    "phantom",
    "uniform",
]
