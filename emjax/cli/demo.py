"""`emjax demo`: a phantom, a sparse noisy scan of it, and several recoveries, as a table and a picture."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import typer

import emjax
from emjax import io
from emjax.cli.outputs import check_output, reporting
from emjax.cli.progress import progress_bar

METHODS = ("linear", "tv", "spectral", "scan-compact")


def run_demo(output: Path, *, size: int, ratio: float, dose: float, seed: int, as_json: bool) -> None:
    """Make the picture at `output` and print the table. Raises typer.BadParameter for bad settings."""
    if not 0 < ratio <= 1:
        raise typer.BadParameter(f"--ratio is the share of pixels scanned, in (0, 1]; got {ratio}")
    if not 0 < dose < float("inf"):
        raise typer.BadParameter(f"--dose is the electrons a pixel at full grey value, finite and above 0; got {dose}")
    check_output(output, [], suffixes=(".png",))
    import jax

    from emjax.acquisition import Noise, measure, phantom, uniform
    from emjax.metrics import psnr, ssim
    from emjax.operators import PixelSampling

    truth = jax.numpy.asarray(phantom((size, size), seed).image)
    pattern_key, noise_key = jax.random.split(jax.random.key(seed))
    A = PixelSampling(uniform(pattern_key, truth.shape, ratio))
    y = measure(noise_key, truth, A, Noise.from_dose(dose))
    rows: list[dict[str, Any]] = []
    images = {}
    with progress_bar(2 * len(METHODS), as_json) as advance:
        for name in METHODS:
            recon = emjax.load(name)
            jax.block_until_ready(recon(y, A))  # compile; the time below is that of a second image
            advance()
            begin = time.perf_counter()
            x = jax.block_until_ready(recon(y, A))
            seconds = time.perf_counter() - begin
            advance()
            images[name] = np.asarray(x)
            scores = {"psnr": float(psnr(x, truth)), "ssim": float(ssim(x, truth))}
            rows.append({"method": name, **scores, "seconds": seconds})
    scan = np.where(np.asarray(A.mask) > 0, np.asarray(y), np.nan)
    _picture(output, np.asarray(truth), scan, images, rows, ratio, dose)
    with reporting(output):
        if as_json:
            print(json.dumps({"output": str(output), "ratio": ratio, "dose": dose, "results": rows}))
        else:
            _print_table(rows, f"{size} x {size}, {ratio:.0%} scanned, dose {dose:g}", output)


def _print_table(rows: list[dict[str, Any]], title: str, output: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, min_width=len(title))  # a title breaks where its table ends
    for column in ("method", "PSNR (dB)", "SSIM", "seconds"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for row in rows:
        table.add_row(row["method"], f"{row['psnr']:.2f}", f"{row['ssim']:.3f}", f"{row['seconds']:.2f}")
    console = Console()
    console.print(table)
    console.print(f"picture: {output}")


def _picture(
    output: Path,
    truth: np.ndarray,
    scan: np.ndarray,
    images: dict[str, np.ndarray],
    rows: list[dict[str, Any]],
    ratio: float,
    dose: float,
) -> None:
    """Truth, scan and recoveries side by side, each with a magnified corner of the centre."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    scores = {row["method"]: f"{row['psnr']:.1f} dB, SSIM {row['ssim']:.2f}" for row in rows}
    panels = [("truth", truth, "synthetic phantom"), ("scan", scan, f"{ratio:.0%} of pixels, {dose:g} electrons each")]
    panels += [(name, image, scores[name]) for name, image in images.items()]
    figure, axes = plt.subplots(2, 3, figsize=(13.5, 9.6), layout="constrained")
    h, w = truth.shape
    part = max(16, h // 5)
    shown = plt.get_cmap("gray").with_extremes(bad="#10204a")  # not measured
    top, left = (h - part) // 2, (w - part) // 2
    for axis, (name, image, caption) in zip(axes.flat, panels, strict=True):
        axis.imshow(image, cmap=shown, vmin=0, vmax=1, interpolation="nearest")
        inset = axis.inset_axes((0.58, 0.0, 0.42, 0.42))
        inset.imshow(image[top : top + part, left : left + part], cmap=shown, vmin=0, vmax=1, interpolation="nearest")
        for a in (axis, inset):
            a.set_xticks([])
            a.set_yticks([])
        for spine in inset.spines.values():
            spine.set_edgecolor("#f2a900")
            spine.set_linewidth(1.5)
        axis.add_patch(plt.Rectangle((left, top), part, part, fill=False, edgecolor="#f2a900", linewidth=1.0))
        axis.set_title(f"{name}: {caption}", fontsize=11)
    with io.atomic_path(output) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)
