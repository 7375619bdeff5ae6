"""How a scan comes about: patterns and their time, dose and noise, distortions, and a phantom to scan."""

from typing import TYPE_CHECKING, Any

from emjax.acquisition.adaptive import (
    DENSITIES,
    adaptive,
    gradient_density,
    residual_density,
    second_pass,
    variance_density,
)
from emjax.acquisition.density import variable_density
from emjax.acquisition.distortion import displace, drift, line_jitter
from emjax.acquisition.low_discrepancy import low_discrepancy
from emjax.acquisition.noise import Noise, estimate_noise, estimate_poisson_gaussian, measure
from emjax.acquisition.patterns import PATTERNS, jittered_grid, line_hop, pattern, uniform
from emjax.acquisition.poisson_disc import poisson_disc
from emjax.acquisition.spiral import spiral
from emjax.acquisition.stabilisation import asymptotic_inverse, stabilise, unbiased_inverse
from emjax.acquisition.timing import ratio_at_time, scan_time, spiral_time

if TYPE_CHECKING:
    from emjax.acquisition._phantom import Organelle, Phantom, phantom

__all__ = [
    "DENSITIES",
    "PATTERNS",
    "Noise",
    "Organelle",
    "Phantom",
    "adaptive",
    "asymptotic_inverse",
    "displace",
    "drift",
    "estimate_noise",
    "estimate_poisson_gaussian",
    "gradient_density",
    "jittered_grid",
    "line_hop",
    "line_jitter",
    "low_discrepancy",
    "measure",
    "pattern",
    "phantom",
    "poisson_disc",
    "ratio_at_time",
    "residual_density",
    "scan_time",
    "second_pass",
    "spiral",
    "spiral_time",
    "stabilise",
    "unbiased_inverse",
    "uniform",
    "variable_density",
    "variance_density",
]


def __getattr__(name: str) -> Any:
    if name in ("Organelle", "Phantom", "phantom"):  # at their first use: SciPy's filters take a while to load
        from emjax.acquisition import _phantom

        return getattr(_phantom, name)
    raise AttributeError(f"module 'emjax.acquisition' has no attribute {name!r}")
