"""Reconstructors `(y, A) -> x`: `emjax.load(name)`, or the classes themselves."""

import dataclasses
from typing import Any

from emjax.reconstructors.base import Reconstructor
from emjax.reconstructors.generative import Generative
from emjax.reconstructors.greedy import HTP, IHT, OMP, CoSaMP
from emjax.reconstructors.learned import Learned
from emjax.reconstructors.linear import DelaunayPlan, LinearInterpolation
from emjax.reconstructors.linear import plan as linear_plan
from emjax.reconstructors.message_passing import AMP, VAMP, BernoulliGauss, SoftThreshold, donoho_tanner
from emjax.reconstructors.plug_and_play import PlugAndPlay
from emjax.reconstructors.scan_recovery import ScanRecovery
from emjax.reconstructors.sparse import BasisPursuit, Lasso, ReweightedL1
from emjax.reconstructors.spectral import Spectral
from emjax.reconstructors.stabilised import Stabilised
from emjax.reconstructors.variational import TotalGeneralisedVariation, TotalVariation, WaveletL1

METHODS = {
    "linear": LinearInterpolation,
    "pnp": PlugAndPlay,
    "spectral": Spectral,
    "tgv": TotalGeneralisedVariation,
    "tv": TotalVariation,
    "wavelet": WaveletL1,
}


def load(name: str, /, **settings: Any) -> Any:
    """The reconstructor of that name with the given settings, e.g. `load("tv", weight=0.02)`.

    Raises ValueError for an unknown name, listing those there are.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}; there are {', '.join(METHODS)}")
    known = [f.name for f in dataclasses.fields(METHODS[name])]
    if unknown := set(settings) - set(known):
        raise TypeError(f"{name} has no setting {', '.join(sorted(unknown))}; it has {', '.join(known) or 'none'}")
    return METHODS[name](**settings)


__all__ = [
    "AMP",
    "HTP",
    "IHT",
    "METHODS",
    "OMP",
    "VAMP",
    "BasisPursuit",
    "BernoulliGauss",
    "CoSaMP",
    "DelaunayPlan",
    "Generative",
    "Lasso",
    "Learned",
    "LinearInterpolation",
    "PlugAndPlay",
    "Reconstructor",
    "ReweightedL1",
    "ScanRecovery",
    "SoftThreshold",
    "Spectral",
    "Stabilised",
    "TotalGeneralisedVariation",
    "TotalVariation",
    "WaveletL1",
    "donoho_tanner",
    "linear_plan",
    "load",
]
