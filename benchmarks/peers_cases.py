"""What `peers.py` solves: the cases by name, and their instances, from seeds."""

import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pywt

from emjax.acquisition import phantom

sys.path.insert(0, str(Path(__file__).parent / "peers"))
from instances import Instance, cut, transform


def cases(quick: bool) -> dict[str, dict[str, Any]]:
    """Name: what makes the instance. The first word chooses with --only, the part before the comma the bar."""
    found: dict[str, dict[str, Any]] = {}
    many = 2 if quick else 32
    for count in (1, many):
        batch = "" if count == 1 else f", batch of {count}"
        for side in (64,) if quick else (256, 512):
            found[f"W1, {side}{batch}"] = {"kind": "inpainting", "side": side, "count": count}
        for name in ("DCT", "Fourier"):
            side = 64 if quick else 256
            found[f"W2, {name} {side}{batch}"] = {"kind": "wavelet", "side": side, "count": count, "transform": name}
    for percent in (10, 25):
        side, block = (64, 16) if quick else (512, 64)
        found[f"W3, {percent} %"] = {"kind": "blocks", "side": side, "count": 1, "block": block, "percent": percent}
    for kind in ("isotropic", "anisotropic"):
        for side, count in ((64, 1), (64, many)) if quick else ((512, 1), (512, many), (2048, 1)):
            batch = "" if count == 1 else f", batch of {count}"
            found[f"W4 {kind}, {side}{batch}"] = {"kind": "rof", "side": side, "count": count, "tv": kind}
    return found


def is_long(case: dict[str, Any]) -> bool:
    return case["count"] > 1 or case["side"] > 512


@lru_cache(maxsize=64)
def image(side: int, seed: int) -> np.ndarray:
    """A phantom of tissue, float32: cases of one size share them."""
    return np.asarray(phantom((side, side), seed=seed).image, np.float32)


def make(case: dict[str, Any]) -> Instance:
    """The instance of a case, in float32, from seeds."""
    side, kind = case["side"], case["kind"]
    truth = np.stack([image(side, seed) for seed in range(case["count"])])
    rng = np.random.default_rng(0)
    if kind == "rof":
        y = truth + 0.1 * rng.standard_normal(truth.shape)
        return Instance(kind, 0.1, y.astype(np.float32), truth, isotropic=case["tv"] == "isotropic")
    if kind == "inpainting":
        mask = rng.random((side, side)) < 0.25
        y = mask * (truth + 0.02 * rng.standard_normal(truth.shape))
        return Instance(kind, 0.02, y.astype(np.float32), truth, mask.astype(np.float32))
    if kind == "blocks":
        n = case["block"] ** 2
        m = round(n * case["percent"] / 100)
        matrix = (rng.standard_normal((m, n)) / np.sqrt(m)).astype(np.float32)
        b = cut(truth[0], case["block"])
        y = b.reshape(len(b), -1) @ matrix.T + 0.01 * rng.standard_normal((len(b), m))
        return Instance(kind, 0.02, y[None].astype(np.float32), truth, matrix=matrix)
    fourier = case["transform"] == "Fourier"
    mask = low_pass_sampling(rng, side, fourier)
    levels = pywt.dwt_max_level(side, 8)
    y = transform(truth, fourier)
    noise = rng.standard_normal(y.shape)
    if fourier:  # of a real image
        noise = transform(noise, True)
    y = (mask * (y + 0.01 * noise)).astype(np.complex64 if fourier else np.float32)
    scaling = np.asarray(pywt.Wavelet("db4").rec_lo)
    return Instance(kind, 0.01, y, truth, mask, scaling=scaling, levels=levels, fourier=fourier)


def low_pass_sampling(rng: np.random.Generator, side: int, fourier: bool) -> np.ndarray:
    """A quarter of the coefficients, those near zero and the others with falling probability; symmetric for Fourier.

    Every frequency of the coarse band is there: its coefficients have one sign, so that their l1 norm sees only their
    mean, and what is not measured of them would not be determined.
    """
    frequency = np.abs(np.fft.fftfreq(side)) * 2 if fourier else np.arange(side) / side
    radius = np.hypot(frequency[:, None], frequency[None])
    score = np.where(radius < 0.2, 2, rng.random((side, side)) ** ((0.05 + radius) ** 2))
    if fourier:
        score = np.maximum(score, np.roll(score[::-1, ::-1], (1, 1), (0, 1)))
    return (score >= np.quantile(score, 0.75)).astype(np.float32)
