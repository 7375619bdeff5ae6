"""`emjax recover`: a scan on disk to a recovered image on disk."""

import contextlib
import dataclasses
import functools
import os
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import typer

import emjax
from emjax import io, tiling
from emjax.cli.outputs import check_output
from emjax.cli.progress import progress_bar

# What differs between a tile and the whole image is less the missing surroundings than where their solvers stop. With
# these settings they agree to 1e-3 (benchmarks/command.py); total variations, whose optimum is flat, in all but one
# pixel of ten thousand. The other methods are never tiled: a Delaunay triangulation of a lattice is ambiguous (four
# points on a circle) and wavelets are bound to a dyadic grid, so that tiles would differ from the whole by up to 0.4
# at single pixels, whatever the halo; plug-and-play takes its strength from the whole image.
PRECISE: dict[str, dict[str, Any]] = {
    "spectral": {"gap": 1e-7, "max_steps": 200},
    "tgv": {"gap": 1e-3, "max_steps": 2000},
    "tv": {"gap": 1e-4, "max_steps": 2000},
}

# Weights are estimated from at most four windows of this side (see `representative`).
WINDOW = 512
# Wider than the lags of the noise estimate, so that pixels of two windows never count as neighbours.
_GUTTER = 8


def recover_file(
    scan_path: Path,
    *,
    mask: Path | None,
    missing: float | None,
    method: str,
    weight: str,
    noise: str = "auto",
    output: Path | None,
    dtype: str | None,
    tile: int,
    halo: int,
    rgb: Literal["error", "mean"] = "error",
    quiet: bool,
) -> dict[str, Any]:
    """Read, recover slice by slice and tile by tile, write; returns the report. Raises ValueError for bad input."""
    if tile <= 2 * halo:
        raise typer.BadParameter(f"--tile {tile} must be larger than twice --halo {halo}")
    given = _weight(method, weight)
    told = _noise(method, noise, weight)
    scan = io.read(scan_path, mask=mask, missing=missing, rgb=rgb)
    target = output or scan_path.with_name(f"{scan_path.stem}_recovered.tif")
    check_output(target, [scan_path, mask])
    if dtype is not None:
        scan.check_dtype(dtype)
    begin = time.perf_counter()
    # An image in one piece has no seams to be seen: its solver stops where it does elsewhere (within 0.001 dB).
    settings = PRECISE.get(method, {}) if max(scan.image.shape[-2:]) > 2 * tile else {}
    recon = emjax.load(method, **given, **settings)
    sigma = None if told is None else _in_units(told, scan)
    image, weights = recover_scan(scan, recon, noise=sigma, tile=tile, halo=halo, quiet=quiet)
    seconds = time.perf_counter() - begin
    io.write(target, image, like=scan, dtype=dtype)
    noises = None if told is None else [told] * len(weights)
    if _is_network(recon):
        noises = [scan.scale * found["read_sigma"] for found in weights]
    soft = None if scan.mask is None else (scan.mask > 0) & (scan.mask < 1)
    return {
        "output": str(target),
        "shape": list(image.shape),
        "dtype": dtype or str(scan.dtype),
        "measured": 1.0 if scan.mask is None else round(float(np.mean(scan.mask > 0)), 6),
        "soft_weights": None if soft is None or not soft.any() else float(np.mean(soft)),
        "method": method,
        "weights": weights,
        "noise": noises,
        "seconds": round(seconds, 3),
        "pixel_size_nm": scan.metadata.pixel_size_nm,
        "dwell_time_s": scan.metadata.dwell_time_s,
    }


def recover_scan(
    scan: io.Scan, recon: Any, *, noise: float | None = None, tile: int = 512, halo: int = 48, quiet: bool = True
) -> tuple[np.ndarray, list[dict[str, float]]]:
    """The recovered image, float32 of the scan's shape, and the weights of each slice.

    noise: its standard deviation in units of `scan.image`, for networks and weights that are estimated; None: from the
    scan.
    Slices with a side above `2 tile` are recovered in tiles, by the methods of `PRECISE`; the others take them whole.
    Scan networks know how far they look: their tiles (of `2 tile` or more) are equal to the whole image.
    """
    slices = scan.image if scan.image.ndim == 3 else scan.image[None]
    masks = np.broadcast_to(np.float32(1) if scan.mask is None else scan.mask, scan.image.shape).reshape(slices.shape)
    for i, m in enumerate(masks):
        if scan.mask is not None and not (m > 0).any():
            raise ValueError(f"slice {i} (counted from 0) has no measured pixel; leave it out of the stack")
    out = np.empty(slices.shape, np.float32)
    weights = []
    cut = _tiles(recon, slices.shape[1:], tile, halo)
    parts = 1 if cut is None else tiling.count(cut.pop("shape"), cut["tile"], cut["halo"], cut["multiple"])
    with _threads() as (pool, ahead), progress_bar(len(slices) * (1 + parts), quiet) as advance:
        for i, (y, m) in enumerate(zip(slices, masks, strict=True)):
            m = np.ascontiguousarray(m)
            if scan.offset:  # of a soft weight w the file holds w x, and so (w x - offset) / scale
                y = np.where(m > 0, y + np.float32(scan.offset / scan.scale) * (1 - m), y)
            whole = (y, m) if cut is None else None
            fitted = pool.submit(_fit, recon, *representative(y, m), i, whole, noise).result()
            weights.append(_weights(fitted))
            advance()
            if cut is None:
                out[i] = pool.submit(_apply, fitted, y, m).result()
                advance()
                continue
            # A tile without any measured pixel becomes zero: the image's mean is the best that can stand there.
            seen = m > 0
            mean = np.float32(0 if _is_network(recon) else np.mean(y[seen] / m[seen], dtype=np.float64))
            pad = [(0, -n % cut["multiple"]) for n in y.shape]
            arrays = [np.pad(a, pad) if cut["multiple"] > 1 else a for a in (y - m * mean, m)]
            tiles = tiling.tiled(functools.partial(_apply, fitted), arrays, **cut, done=advance, pool=pool, ahead=ahead)
            out[i] = tiles[: y.shape[0], : y.shape[1]] + mean
    if not np.isfinite(out).all():
        raise ValueError("the recovery is not finite; look at the scan's values (emjax info) and the weight")
    return out.reshape(scan.image.shape), weights


def _on_host(recon: Any) -> bool:
    """Whether it is called as it stands: it has nothing to estimate, or is built on the host."""
    return not hasattr(recon, "weight") and not _is_network(recon)


def _is_network(recon: Any) -> bool:
    return isinstance(recon, emjax.reconstructors.ScanRecovery)


def _tiles(recon: Any, shape: tuple[int, ...], tile: int, halo: int) -> dict[str, Any] | None:
    """What `tiling.tiled` is told of images of that shape, and the shape that they are padded to; None: whole."""
    if _is_network(recon):
        network = recon.network
        size = -(-max(2 * tile, 4 * network.halo) // network.multiple) * network.multiple
        if max(shape) <= size:
            return None
        padded = tuple(n + -n % network.multiple for n in shape)
        reach = {"halo": network.halo, "dead": network.halo, "multiple": network.multiple}
        return {"shape": padded, "tile": size, **reach}
    if max(shape) > 2 * tile and isinstance(recon, tuple(emjax.reconstructors.METHODS[name] for name in PRECISE)):
        return {"shape": shape, "tile": tile, "halo": halo, "dead": None, "multiple": 1}
    return None


def representative(y: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the weights are estimated from: the image, or windows of `WINDOW` pixels around its quarter points.

    They stand side by side with an unmeasured gutter between them. So large images cost no more than small ones, in
    time, memory and compilation; the crops that `emjax.reconstructors.selection` takes of either are the same.
    """
    if not (mask > 0).any():
        raise ValueError("the scan has no measured pixel")
    rows, columns = (_windows(n) for n in y.shape)
    part, known = (np.ascontiguousarray(a[np.ix_(rows, columns)]) for a in (y, mask))
    for axis, n in enumerate(y.shape):
        if n > 2 * WINDOW:
            gutter = [slice(None), slice(None)]
            gutter[axis] = slice(WINDOW - _GUTTER // 2, WINDOW + _GUTTER // 2)
            known[tuple(gutter)] = 0
    # Where nothing was measured there, the image as a whole decides, whatever it costs.
    return (part, known) if (known > 0).sum() >= min(1000, (mask > 0).sum()) else (y, mask)


def _windows(n: int) -> np.ndarray:
    if n <= 2 * WINDOW:
        return np.arange(n)
    starts = (n // 4 - WINDOW // 2, n - n // 4 - WINDOW // 2)
    return np.concatenate([np.arange(start, start + WINDOW) for start in starts])


def _fit(
    recon: Any,
    y: np.ndarray,
    mask: np.ndarray,
    seed: int,
    image: tuple[np.ndarray, np.ndarray] | None,
    noise: float | None = None,
) -> Any:
    """The reconstructor with its weights, as one compiled program: the small steps around it would each be one more.

    While it runs, the program that recovers `image`, a scan and its mask, is compiled or found in the cache.
    """
    if _on_host(recon):
        return recon
    import jax

    fit, recover = _compiled()
    level = None
    if noise is not None and _is_network(recon):
        recon = dataclasses.replace(recon, read_sigma=np.float32(noise))  # they need it to recover, too
    elif noise is not None:
        level = emjax.Noise(np.float32(0), np.float32(noise))
    fitted = fit(recon, y, mask, level, jax.random.key(seed))  # dispatched: its arrays are still to come
    if image is not None and image[1].any():
        recover.lower(fitted, *image).compile()
    return jax.block_until_ready(fitted)


def _apply(recon: Any, y: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The recovery of one image or tile; zero without any measured pixel. On the host."""
    from emjax.operators import PixelSampling

    if not mask.any() and not _is_network(recon):
        return np.zeros_like(y)
    if _on_host(recon):
        return np.asarray(recon(y, PixelSampling(mask)))
    return np.asarray(_compiled()[1](recon, y, mask))


@functools.cache
def _compiled() -> tuple[Any, Any]:
    import jax

    from emjax.operators import PixelSampling

    return (
        jax.jit(lambda recon, y, mask, noise, key: recon.fit(y, PixelSampling(mask), noise, key=key)),
        jax.jit(lambda recon, y, mask: recon(y, PixelSampling(mask))),
    )


@contextlib.contextmanager
def _threads() -> Iterator[tuple[Executor, int]]:
    """Threads for the computing, and how many: one tile seldom keeps two cores busy, and the main thread stays free to
    be interrupted."""
    count = min(8, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
    pool = ThreadPoolExecutor(count, thread_name_prefix="emjax")
    try:
        yield pool, count
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _weights(fitted: Any) -> dict[str, float]:
    names = ("weight", "exponent", "level", "contrast", "read_sigma")
    return {n: float(v) for n in names if (v := getattr(fitted, n, None)) is not None}


def _weight(method: str, weight: str) -> dict[str, float]:
    if weight == "auto":
        return {}
    if method == "linear" or method not in emjax.reconstructors.METHODS:
        raise typer.BadParameter(f"the method {method} has no weight; leave --weight out")
    try:
        value = float(weight)
    except ValueError:
        raise typer.BadParameter(f'--weight takes "auto" or a number above 0, got {weight!r}') from None
    limits = np.finfo(np.float32)
    if not float(limits.tiny) <= value <= float(limits.max):
        raise typer.BadParameter(f'--weight takes "auto" or a finite number above 0, got {weight}')
    return {"weight": value}


def _noise(method: str, noise: str, weight: str) -> float | None:
    """The standard deviation in grey values of the file; None: to be estimated."""
    if noise == "auto":
        return None
    if method == "linear":
        raise typer.BadParameter("the method linear makes no use of the noise; leave --noise out")
    if weight != "auto":
        raise typer.BadParameter("with a --weight that is given, the noise is of no use; leave --noise out")
    try:
        value = float(noise)
    except ValueError:
        value = float("nan")
    if not 0 <= value < float("inf"):
        raise typer.BadParameter(
            f'--noise takes "auto" or a finite standard deviation in grey values of the file, 0 or above, got {noise!r}'
        )
    if method not in emjax.reconstructors.METHODS and emjax.zoo.entry(method).reconstructor != "ScanRecovery":
        raise typer.BadParameter(f"{method} is no scan network, and this command tells it no noise; leave --noise out")
    return value


def _in_units(noise: float, scan: io.Scan) -> float:
    """The noise for grey values as recoveries see them."""
    value = noise / scan.scale
    if not value <= float(np.finfo(np.float32).max):
        raise ValueError(f"--noise {noise:g} is beyond all measure for grey values that span {scan.scale:g}")
    return value
