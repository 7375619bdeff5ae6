"""`emjax info`: what a file holds, or what emjax runs on."""

import importlib.metadata
import platform
from pathlib import Path
from typing import Any, Literal

import numpy as np

import emjax
from emjax import io


def describe_file(path: Path, rgb: Literal["error", "mean"] = "error") -> dict[str, Any]:
    """Shape, type, grey values, measured share and metadata of an image. Loads no JAX."""
    scan = io.read(path, rgb=rgb)
    measured = scan.image if scan.mask is None else scan.image[scan.mask > 0]
    low, high = (float(v) * scan.scale + scan.offset for v in (measured.min(), measured.max()))
    return {
        "file": str(path),
        "shape": list(scan.image.shape),
        "dtype": str(scan.dtype),
        "grey_values": [low, high] if scan.dtype.kind == "f" else [round(low), round(high)],
        "measured": 1.0 if scan.mask is None else round(float(np.mean(scan.mask > 0)), 6),
        "pixel_size_nm": scan.metadata.pixel_size_nm,
        "dwell_time_s": scan.metadata.dwell_time_s,
        "instrument": scan.metadata.instrument,
        "metadata_from": scan.metadata.source,
    }


def describe_installation() -> dict[str, Any]:
    """Versions and devices."""
    import jax

    return {
        "emjax": emjax.__version__,
        "python": platform.python_version(),
        "jax": importlib.metadata.version("jax"),
        "devices": [f"{d.platform}:{d.id} {d.device_kind}" for d in jax.devices()],
        "methods": [*emjax.reconstructors.METHODS, *emjax.zoo.names()],
    }
