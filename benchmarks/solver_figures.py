"""Figures with bars: what the solver benchmarks note, print and save."""

import json
import platform
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FIGURES: list[dict[str, Any]] = []


def figure(name: str, value: float, bar: float, at_least: bool = False, **more: Any) -> None:
    """Note a figure and whether it keeps its bar."""
    passed = bool(value >= bar if at_least else value <= bar)
    row = {"figure": name, "value": float(value), "bar": bar, "passed": passed, **more}
    FIGURES.append({**row, "rule": "at least" if at_least else "at most"})
    print(f"{'ok  ' if passed else 'MISS'} {name}: {value:.4g} ({'>=' if at_least else '<='} {bar:.4g}) {more or ''}")


def cast(tree: Any, dtype: str) -> Any:
    """The same problem with every real or complex leaf in another precision."""

    def one(v: Any) -> Any:
        v = np.asarray(v)
        return jnp.asarray(v, np.result_type(dtype, np.complex64) if np.iscomplexobj(v) else dtype)

    return jax.tree.map(one, tree)


def dense_rows(operator: Any) -> list[jax.Array]:
    """The rows of the matrix of an operator; those of a complex one as its real and imaginary rows."""
    n = int(np.prod(operator.in_shape))
    columns = operator(jnp.eye(n).reshape(n, *operator.in_shape)).reshape(n, -1).T
    return [columns.real, columns.imag] if jnp.iscomplexobj(columns) else [columns]


def dense(operator: Any) -> np.ndarray:
    """The matrix of an operator."""
    return np.concatenate([np.asarray(rows) for rows in dense_rows(operator)])


def save(path: Path, section: str) -> int:
    """Write the figures of a section, keeping those of the other; the exit status."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    machine = {"jax": jax.__version__, "backend": jax.default_backend(), "machine": platform.machine()}
    new = {"machine": machine, "passed": all(f["passed"] for f in FIGURES), "figures": list(FIGURES)}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**kept, section: new}, indent=1) + "\n")
    missed = [f["figure"] for f in FIGURES if not f["passed"]]
    print(f"{section}: {len(FIGURES) - len(missed)} of {len(FIGURES)} figures keep their bar", *missed, sep="\n  ")
    FIGURES.clear()
    return int(bool(missed))
