"""emjax: compressive sensing and reconstruction of electron-microscopy images in JAX.

Measurements `y`, the operator `A` that made them, and a reconstructor `(y, A) -> x`.
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Everything is imported at its first use: `import emjax` starts no device work and loads no optional library.
_MODULES = (
    "acquisition",
    "denoisers",
    "functionals",
    "io",
    "metrics",
    "networks",
    "operators",
    "reconstructors",
    "solvers",
    "tiling",
    "training",
    "weights",
)
_NAMES = {
    "Box": "functionals",
    "GroupL1": "functionals",
    "L1": "functionals",
    "L1Ball": "functionals",
    "HuberLoss": "functionals",
    "L2Ball": "functionals",
    "LeastSquares": "functionals",
    "Noise": "acquisition",
    "PoissonLikelihood": "functionals",
    "Problem": "solvers",
    "Quadratic": "functionals",
    "Solution": "solvers",
    "Status": "solvers",
    "TGV": "solvers",
    "TV": "solvers",
    "Term": "solvers",
    "load": "reconstructors",
    "solve": "solvers",
}

if TYPE_CHECKING:
    from emjax import (
        acquisition,
        denoisers,
        functionals,
        io,
        metrics,
        networks,
        operators,
        reconstructors,
        solvers,
        tiling,
        training,
        weights,
    )
    from emjax.acquisition import Noise
    from emjax.functionals import (
        L1,
        Box,
        GroupL1,
        HuberLoss,
        L1Ball,
        L2Ball,
        LeastSquares,
        PoissonLikelihood,
        Quadratic,
    )
    from emjax.reconstructors import load
    from emjax.solvers import TGV, TV, Problem, Solution, Status, Term, solve

__all__ = ["__version__", *_MODULES, *_NAMES]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"emjax.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"emjax.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'emjax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
