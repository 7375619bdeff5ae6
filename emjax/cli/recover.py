"""`emjax recover`: a scan on disk to a recovered image on disk."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

import emjax
from emjax import io, tiling


def recover_file(
    scan_path: Path,
    *,
    mask: Path | None,
    missing: float | None,
    method: str,
    weight: str,
    output: Path | None,
    dtype: str | None,
    tile: int,
    halo: int,
    quiet: bool,
) -> dict[str, Any]:
    """Read, recover slice by slice and tile by tile, write; returns the report. Raises ValueError for bad input."""
    if tile <= 2 * halo:
        raise ValueError(f"--tile {tile} must be larger than twice --halo {halo}")
    kind = _dtype(dtype)
    recon = emjax.load(method, **_settings(method, weight))
    target = output or scan_path.with_name(f"{scan_path.stem}_recovered.tif")
    scan = io.read(scan_path, mask=mask, missing=missing)
    io.check_writable(target)
    begin = time.perf_counter()
    image, weights = recover_scan(scan, recon, tile=tile, halo=halo, quiet=quiet)
    seconds = time.perf_counter() - begin
    io.write(target, image, like=scan, dtype=kind)
    return {
        "output": str(target),
        "shape": list(image.shape),
        "dtype": str(kind or scan.dtype),
        "measured": 1.0 if scan.mask is None else round(float(np.mean(scan.mask > 0)), 6),
        "method": method,
        "weights": weights,
        "seconds": round(seconds, 3),
        "pixel_size_nm": scan.metadata.pixel_size_nm,
        "dwell_time_s": scan.metadata.dwell_time_s,
    }


def recover_scan(
    scan: io.Scan, recon: Any, *, tile: int = 256, halo: int = 32, quiet: bool = True
) -> tuple[np.ndarray, list[dict[str, float]]]:
    """The recovered image, float32 of the scan's shape, and the weights of each slice."""
    import jax

    from emjax.operators import PixelSampling

    slices = scan.image if scan.image.ndim == 3 else scan.image[None]
    mask = np.ones_like(slices[0])[None] if scan.mask is None else scan.mask
    mask = np.broadcast_to(mask if mask.ndim == 3 else mask[None], slices.shape)
    out = np.empty(slices.shape, np.float32)
    weights = []
    whole = max(slices.shape[1:]) <= 2 * tile or not hasattr(recon, "weight")
    total = len(slices) * (1 if whole else tiling.count(slices.shape[1:], tile, halo))
    with _bar(total, quiet) as advance:
        for i, (y, m) in enumerate(zip(slices, mask, strict=True)):
            measured = m > 0
            if not measured.any():
                raise ValueError(f"slice {i} has no measured pixel; leave it out of the stack")
            key = jax.random.fold_in(jax.random.key(0), i)
            # With soft weights the file holds y = w x.
            fitted = recon.fit(y, PixelSampling(m), key=key)
            weights.append(_weights(fitted))
            if whole:
                out[i] = np.asarray(fitted(y, PixelSampling(m), key=key))
                advance()
            else:
                out[i] = tiling.tiled(
                    lambda a, b, f=fitted: f(a, PixelSampling(b)), (y, m), tile=tile, halo=halo, done=advance
                )
    if not np.isfinite(out).all():
        raise ValueError("the recovery is not finite; look at the scan's values (emjax info) and the weight")
    return out.reshape(scan.image.shape), weights


def _weights(fitted: Any) -> dict[str, float]:
    names = ("weight", "exponent")
    return {n: float(v) for n in names if (v := getattr(fitted, n, None)) is not None}


def _settings(method: str, weight: str) -> dict[str, Any]:
    if weight == "auto":
        return {}
    if method == "linear":
        raise ValueError("the method linear has no weight")
    try:
        value = float(weight)
    except ValueError:
        raise ValueError(f'--weight takes "auto" or a number, got {weight!r}') from None
    if not 0 <= value < float("inf"):
        raise ValueError(f"--weight must be finite and not negative, got {weight}")
    return {"weight": value}


def _dtype(name: str | None) -> np.dtype | None:
    if name is None:
        return None
    try:
        return np.dtype(name)
    except TypeError:
        raise ValueError(f"--dtype {name} is no NumPy type; for example uint8, uint16, float32") from None


@contextlib.contextmanager
def _bar(total: int, quiet: bool) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error where somebody may look at it."""
    if quiet or total < 2 or not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("recovering", total=total)
        yield lambda: progress.advance(task)
