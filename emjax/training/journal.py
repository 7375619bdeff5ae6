"""What a training tells: a log of JSON lines, a plot, and a bar or lines on standard error."""

import contextlib
import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class Journal:
    """`DIR/log.jsonl`: first the recipe, then a line for every few steps and one for every validation."""

    def __init__(self, path: Path, step: int, head: dict[str, Any]):
        """A new log for step 0; otherwise the one there is, without what it tells of later steps than `step`."""
        self.path = path
        self.entries = [e for e in _read(path) if e.get("step", 0) <= step] if step else []
        if not self.entries:
            self.entries = [head]
        path.write_text("".join(json.dumps(e) + "\n" for e in self.entries), encoding="utf-8")

    def add(self, entry: dict[str, Any]) -> None:
        """One more line."""
        self.entries.append(entry)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")

    def curve(self, key: str) -> tuple[list[int], list[float]]:
        """Steps and values of all entries that have `key`."""
        found = [(e["step"], e[key]) for e in self.entries if key in e and "step" in e]
        return [s for s, _ in found], [v for _, v in found]

    def plot(self, path: Path) -> None:
        """Loss and validation PSNR over the steps, as a PNG."""
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.add_subplot()
        steps, values = self.curve("loss")
        axis.plot(steps, values, color="tab:grey", label="loss")
        if values and min(values) > 0:
            axis.set_yscale("log")
        axis.set_xlabel("step")
        axis.set_ylabel("loss")
        steps, values = self.curve("psnr")
        other = axis.twinx()
        other.plot(steps, values, color="tab:blue", marker="." if len(steps) < 40 else "", label="validation PSNR")
        other.set_ylabel("validation PSNR (dB)", color="tab:blue")
        figure.savefig(path, dpi=110, format="png")


def _read(path: Path) -> list[dict[str, Any]]:
    entries = []
    with contextlib.suppress(OSError, json.JSONDecodeError):  # a line that was cut off ends the log
        for line in path.read_text(encoding="utf-8").splitlines():
            entries.append(json.loads(line))
    return entries


class Progress:
    """`show(step, text)`: a bar on a terminal where rich is installed; otherwise a line every 20 seconds or so."""

    def __init__(self, bar: Any, task: Any, total: int, every: float = 20.0):
        self._bar, self._task, self._total, self._every = bar, task, total, every
        self._last = -float("inf")

    def show(self, step: int, text: str) -> None:
        """The step that is done, and what to say of it."""
        if self._bar is not None:
            self._bar.update(self._task, completed=step, description=text)
        elif time.monotonic() - self._last > self._every or step >= self._total:
            self._last = time.monotonic()
            self.say(f"step {step} of {self._total}: {text}")

    def say(self, text: str) -> None:
        """A line that stays."""
        if self._bar is not None:
            self._bar.console.print(text)
        elif self._every < float("inf") and sys.stderr is not None:
            print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def progress(total: int, step: int, quiet: bool) -> Iterator[Progress]:
    """The progress of `total` steps of which `step` are done."""
    if quiet:
        yield Progress(None, None, total, float("inf"))
        return
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar
    except ImportError:
        Bar = None  # type: ignore[assignment,misc]
    if Bar is None or sys.stderr is None or not sys.stderr.isatty():
        yield Progress(None, None, total)
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    columns += (TimeElapsedColumn(), TimeRemainingColumn())  # type: ignore[assignment]
    with Bar(*columns, console=Console(stderr=True)) as bar:
        yield Progress(bar, bar.add_task("training", total=total, completed=step), total)
