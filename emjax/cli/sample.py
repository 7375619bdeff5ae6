"""`emjax sample`: a full image on disk to a simulated sparse scan on disk."""

from pathlib import Path
from typing import Any, Literal

import numpy as np
import typer

from emjax import io
from emjax.cli.outputs import check_output


def sample_file(
    image_path: Path,
    output: Path,
    *,
    ratio: float,
    pattern_name: str,
    dose: float | None,
    read_noise: float,
    seed: int,
    mask_output: Path | None,
    rgb: Literal["error", "mean"] = "error",
) -> dict[str, Any]:
    """Write the scan as float32 in the image's own grey values, NaN where not measured. Raises ValueError."""
    if not 0 < ratio <= 1:
        raise typer.BadParameter(f"--ratio is the share of pixels measured, in (0, 1]; got {ratio}")
    if dose is not None and not 0 < dose < float("inf"):
        raise typer.BadParameter(f"--dose is the electrons a pixel at full grey value, finite and above 0; got {dose}")
    if not 0 <= read_noise < float("inf"):
        raise typer.BadParameter(f"--read-noise must be finite and not negative, got {read_noise}")
    scan = io.read(image_path, rgb=rgb)
    check_output(output, [image_path])
    if mask_output is not None:
        check_output(mask_output, [image_path, output], option="--mask")
    import jax

    from emjax.acquisition import Noise, measure, pattern
    from emjax.operators import PixelSampling

    pattern_key, noise_key = jax.random.split(jax.random.key(seed))
    slices = scan.image if scan.image.ndim == 3 else scan.image[None]
    noise = None
    if dose is not None or read_noise > 0:
        noise = Noise(0.0 if dose is None else 1 / dose, read_noise)
    scanned = np.empty(slices.shape, np.float32)
    for i, x in enumerate(slices):
        weights = np.asarray(pattern(pattern_name, jax.random.fold_in(pattern_key, i), x.shape, ratio), np.float32)
        if scan.mask is not None:
            weights = weights * (np.broadcast_to(scan.mask, scan.image.shape).reshape(slices.shape)[i] > 0)
        y = measure(jax.random.fold_in(noise_key, i), x, PixelSampling(weights), noise)
        # The file holds grey values: soft weights are divided out, and the read-out noise of faint pixels is larger.
        seen = weights > 0
        scanned[i] = np.where(seen, np.asarray(y) / np.where(seen, weights, 1), np.nan)
    scanned = scanned.reshape(scan.image.shape)
    measured = ~np.isnan(scanned)
    if not measured.any():
        raise ValueError("no measured pixel is left; raise --ratio")
    io.write(output, scan.original(scanned, np.float32), like=scan.metadata, dtype=np.float32)
    if mask_output is not None:
        io.write(mask_output, measured.astype(np.float32), like=scan.metadata, dtype=np.uint8)
    return {
        "output": str(output),
        "mask": None if mask_output is None else str(mask_output),
        "shape": list(scan.image.shape),
        "measured": round(float(measured.mean()), 6),
        "pattern": pattern_name,
        "dose": dose,
        "read_noise": read_noise,
        "seed": seed,
    }
