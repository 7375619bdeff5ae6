"""The two pictures of learned_vs_iterative.py: quality against time and against the share of pixels."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import learned_speed
import matplotlib
import numpy as np

matplotlib.use("agg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes

# Networks warm, classical methods cool or grey; the same in both pictures (Okabe and Ito 2008, for colour-blind eyes).
COLOURS = {
    "scan-full": "#D55E00",
    "scan-compact": "#E69F00",
    "spectral": "#0072B2",
    "wavelet": "#009E73",
    "tv": "#CC79A7",
    "linear": "#777777",
}
INK = "#333333"
# Timed method: label, the method of `quality` with the same recovery.
MARKS = {
    "scan-compact": ("scan-compact", "scan-compact, told"),
    "scan-full": ("scan-full", "scan-full, told"),
    "spectral, automatic": ("spectral", "spectral, automatic"),
    "spectral, given": ("spectral,\nweight given", "spectral, automatic"),
    "tv certified, given": ("TV certified,\nweight given", "tv, automatic"),
    "tv certified, automatic": ("TV certified", "tv, automatic"),
    "wavelet, automatic": ("wavelet", "wavelet, automatic"),
    "linear": ("linear", "linear"),
}
LINES = {
    "scan-full, told": ("scan-full", "-", "o"),
    "scan-compact, told": ("scan-compact", "-", "o"),
    "spectral, oracle": ("spectral", "--", "s"),
    "wavelet, oracle": ("wavelet", "--", "D"),
    "tv, oracle": ("TV", "--", "^"),
    "linear": ("linear", "--", "v"),
}


def colour(name: str) -> str:
    return next(c for key, c in COLOURS.items() if name.lower().startswith(key))


def style() -> Any:
    return {
        "font.size": 10,
        "text.color": INK,
        "axes.labelcolor": INK,
        "axes.edgecolor": "#999999",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.color": "#E6E6E6",
        "xtick.color": INK,
        "ytick.color": INK,
    }


def count(rows: Iterable[dict[str, Any]]) -> str:
    """The number of images that the means are taken over."""
    most = max(m["images"] for methods in rows for m in methods.values())
    return {2: "two", 7: "seven"}.get(most, str(most))


def save(figure: Any, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150, facecolor="white")
    plt.close(figure)


def clock(value: float, _: float = 0) -> str:
    """Seconds as people say them."""
    return f"{1000 * value:g} ms" if value < 1 else f"{value:g} s"


def draw_time(report: dict[str, Any], path: Path) -> bool:
    """A mark a method: mean PSNR over the images against the time of one; False without both parts."""
    size, cores = report["settings"]["speed"]["sizes"][-1], report["environment"]["cpus"]
    rows = {(row["ratio"], row["noise"]): row["methods"] for row in report["summary"]["quality"]}
    panels = []
    for ratio, noise in report["settings"]["speed"]["scans"]:
        times = report["speed"].get("times", {}).get(learned_speed.key(size, ratio, noise, None))
        if times and (ratio, noise) in rows:
            panels.append((ratio, noise, times, rows[ratio, noise]))
    if not panels:
        return False
    with plt.rc_context(style()):
        figure, axes = plt.subplots(1, len(panels), figsize=(5.6 * len(panels), 4.6), layout="constrained")
        for axis, (ratio, noise, times, methods) in zip(np.atleast_1d(axes), panels, strict=True):
            points = {
                text: (times[timed]["seconds"], methods[key]["psnr"])
                for timed, (text, key) in MARKS.items()
                if timed in times and key in methods
            }
            _marks(axis, points)
            title = f"{ratio:.0%} of the pixels, " + (f"noise {noise:g}" if noise else "no noise")
            axis.set_title(title, loc="left", fontsize=11, fontweight="bold")
            axis.set_xlabel(f"time of one image of {size}² pixels, {cores} CPU cores (logarithmic)")
        np.atleast_1d(axes)[0].set_ylabel(f"PSNR, mean of {count(rows.values())} EM images (dB)")
        save(figure, path)
    return True


def _marks(axis: Axes, points: dict[str, tuple[float, float]]) -> None:
    """Marks with their names beside them; names that would overlap go above or below."""
    axis.set_xscale("log")
    times = [t for t, _ in points.values()]
    axis.set_xlim(min(times) / 2, max(times) * 4.5)
    low, high = (f(p for _, p in points.values()) for f in (min, max))
    axis.set_ylim(low - 0.17 * (high - low), high + 0.14 * (high - low))
    axis.xaxis.set_major_formatter(clock)
    axis.grid(True, which="major")
    for text, (x, y) in points.items():
        learned = text.startswith("scan-")
        size = 190 if learned else 75
        axis.scatter(x, y, s=size, color=colour(text), marker="*" if learned else "o", zorder=3, edgecolor="white")
    # The corner that everyone wants to be in.
    axis.annotate(
        "faster and better",
        xy=(0.015, 0.985),
        xytext=(0.12, 0.9),
        xycoords="axes fraction",
        textcoords="axes fraction",
        color="#999999",
        fontsize=9,
        arrowprops={"arrowstyle": "->", "color": "#999999"},
    )
    figure = axis.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    renderer: Any = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    taken = [axis.transData.transform(p) for p in points.values()]
    boxes: list[Any] = []
    right, left = ((9, 0), "left", "center"), ((-9, 0), "right", "center")
    places = [right, ((0, -9), "center", "top"), ((0, 9), "center", "bottom"), left]
    for text, point in points.items():
        for offset, across, up in places:
            note = axis.annotate(
                text,
                point,
                xytext=offset,
                textcoords="offset points",
                ha=across,
                va=up,
                fontsize=9,
                color=colour(text),
                fontweight="bold" if text.startswith("scan-") else "normal",
                linespacing=0.95,
            )
            box = note.get_window_extent(renderer).padded(2)
            clear = not any(box.contains(*p) for p in taken) and not any(box.overlaps(b) for b in boxes)
            if clear or (offset, across, up) == places[-1]:
                boxes.append(box)
                break
            note.remove()


def draw_ratio(report: dict[str, Any], path: Path) -> bool:
    """Above PSNR, below the gain over `spectral` with its oracle's weight; a column a noise."""
    rows = report["summary"]["quality"]
    noises = sorted({row["noise"] for row in rows})
    if not noises:
        return False
    with plt.rc_context(style()):
        figure, axes = plt.subplots(
            2,
            len(noises),
            figsize=(5.2 * len(noises), 6.8),
            sharex=True,
            sharey="row",
            layout="constrained",
            height_ratios=(1.5, 1),
            squeeze=False,
        )
        for column, noise in zip(axes.T, noises, strict=True):
            group = [row for row in rows if row["noise"] == noise]
            for key, (text, dash, mark) in LINES.items():
                found = [row for row in group if key in row["methods"] and "spectral, oracle" in row["methods"]]
                ratios = [row["ratio"] for row in found]
                look = {"color": colour(text), "linestyle": dash, "marker": mark, "markersize": 5, "label": text}
                look |= {"linewidth": 2.4 if text.startswith("scan-") else 1.4, "markeredgecolor": "white"}
                look["zorder"] = 4 if text.startswith("scan-") else 3
                values = [row["methods"][key]["psnr"] for row in found]
                base = [row["methods"]["spectral, oracle"]["psnr"] for row in found]
                column[0].plot(ratios, values, **look)
                column[1].plot(ratios, np.subtract(values, base), **look)
            text = f"noise {noise:g}" if noise else "no noise"
            column[0].set_title(text, loc="left", fontsize=11, fontweight="bold")
            column[1].set_xscale("log")
            ticks = [row["ratio"] for row in group]
            column[1].set_xticks(ticks, [f"{100 * r:.0f}" for r in ticks])
            column[1].minorticks_off()
            column[1].set_xlabel("pixels measured (%)")
            column[1].set_ylim(-2.0, 1.2)
        axes[0][0].set_ylabel(f"PSNR, mean of {count(row['methods'] for row in rows)} EM images (dB)")
        axes[1][0].set_ylabel("gain over spectral (dB)")
        handles, labels = axes[0][0].get_legend_handles_labels()
        texts = [t if t.startswith("scan-") or t == "linear" else f"{t}, best possible weight" for t in labels]
        axes[0][0].legend(handles, texts, loc="upper left", frameon=False, fontsize=9)
        save(figure, path)
    return True
