"""How a scan comes about: patterns, dose and noise, and a phantom to scan."""

from typing import TYPE_CHECKING, Any

from emjax.acquisition.noise import Noise, estimate_noise, measure
from emjax.acquisition.patterns import PATTERNS, jittered_grid, line_hop, pattern, uniform

if TYPE_CHECKING:
    from emjax.acquisition._phantom import Organelle, Phantom, phantom

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


def __getattr__(name: str) -> Any:
    if name in ("Organelle", "Phantom", "phantom"):  # at their first use: SciPy's filters take a while to load
        from emjax.acquisition import _phantom

        return getattr(_phantom, name)
    raise AttributeError(f"module 'emjax.acquisition' has no attribute {name!r}")
