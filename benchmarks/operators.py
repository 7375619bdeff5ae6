"""Are the adjoints exact, are the norm bounds true, and do the transforms agree with SciPy, NumPy and PyWavelets?

Every operator of `tests/operators/operator_registry.py`, at six shapes, in float32 and float64: the largest adjoint
error `|<A x, y> - <x, A.H y>| / (|A x| |y|)` of 32 random pairs, and the norm bound divided by the largest singular
value of the dense float64 matrix. Exits with 1 if a bar is missed:

    python benchmarks/operators.py -o benchmarks/results/operators.json
"""

import argparse
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import numpy as np
import pywt
import scipy.fft
import scipy.ndimage

from emjax import operators as ops

DTYPES = ("float32", "float64")
# Largest relative error against the reference libraries. The symlets of PyWavelets are good to about 12 digits.
REFERENCE_BAR = {"float32": 2e-6, "float64": 1e-13, "symlets, float64": 5e-11}


def load_registry() -> ModuleType:
    path = Path(__file__).parents[1] / "tests" / "operators" / "operator_registry.py"
    spec = importlib.util.spec_from_file_location("operator_registry", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def check_operators(registry: ModuleType, misses: list[str]) -> dict:
    results: dict = {}
    for example in registry.EXAMPLES:
        rows = results[example.name] = {}
        for shape in example.shapes:
            single, double = (registry.measure(example, shape, dtype, optimised=True) for dtype in DTYPES)
            row = rows["x".join(map(str, shape))] = {}
            for dtype, m in zip(DTYPES, (single, double), strict=True):
                error = float(m.adjoint_errors.max())
                ratio = m.norm_bound / double.norm if double.norm > 1e-12 else None
                row[dtype] = {"adjoint_error": error, "norm_bound_over_norm": ratio}
                where = f"{example.name} {shape} {dtype}"
                if not error <= registry.ADJOINT_BAR[dtype]:
                    misses.append(f"{where}: adjoint error {error:.1e}")
                if ratio is None:
                    continue
                if ratio < 1 - 1e-14:
                    misses.append(f"{where}: the norm bound is below the norm, {ratio}")
                if example.tight is not None and ratio > example.tight:
                    misses.append(f"{where}: norm bound / norm is {ratio}")
    return results


def wavelet_reference(name: str, levels: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda x: pywt.coeffs_to_array(pywt.wavedecn(x, name, "periodization", levels))[0]


def references() -> dict[str, tuple]:
    """Name: (operator, the same map by another library), both on one item."""
    found: dict[str, tuple] = {}
    for shape in ((64, 48), (256, 256), (33, 100), (12, 20, 9), (1000,)):
        label = "x".join(map(str, shape))
        found[f"DCT {label}, SciPy"] = (ops.DCT(shape), lambda x: scipy.fft.dctn(x, norm="ortho"))
        found[f"Fourier {label}, NumPy"] = (ops.Fourier(shape), lambda x: np.fft.fftn(x, norm="ortho"))
    names = [*(f"db{n}" for n in range(1, 11)), *(f"sym{n}" for n in range(2, 11))]
    for name in names:
        found[f"{name} 320x192, 3 levels, PyWavelets"] = (ops.Wavelet((320, 192), name, 3), wavelet_reference(name, 3))
    found["db4 64x48x32, 2 levels, PyWavelets"] = (ops.Wavelet((64, 48, 32), "db4", 2), wavelet_reference("db4", 2))
    kernel = np.random.default_rng(1).random((5, 4))
    for boundary, mode in (("periodic", "wrap"), ("reflect", "reflect"), ("zero", "constant")):
        found[f"blur 5x4 of 65x48, {boundary}, SciPy"] = (
            ops.Blur(kernel, (65, 48), boundary),
            lambda x, mode=mode: scipy.ndimage.convolve(x, kernel, mode=mode),
        )
    return found


def check_references(registry: ModuleType, misses: list[str]) -> dict:
    results: dict = {}
    for dtype in DTYPES:
        with registry.precision(dtype):
            for name, (op, reference) in references().items():
                x = np.random.default_rng(0).standard_normal(op.in_shape)
                want = reference(x)
                error = float(np.linalg.norm(np.asarray(jax.jit(op)(x)) - want) / np.linalg.norm(want))
                results.setdefault(name, {})[dtype] = error
                inexact = dtype == "float64" and name.startswith("sym")
                if not error <= REFERENCE_BAR["symlets, float64" if inexact else dtype]:
                    misses.append(f"{name} {dtype}: relative error {error:.1e}")
    return results


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, help="where to write the JSON")
    output = parser.parse_args().output
    registry = load_registry()
    misses: list[str] = []
    operators, compared = check_operators(registry, misses), check_references(registry, misses)
    worst = {
        dtype: max(row[dtype]["adjoint_error"] for rows in operators.values() for row in rows.values())
        for dtype in DTYPES
    }
    report = {
        "jax": jax.__version__,
        "platform": jax.default_backend(),
        "seeds": registry.SEEDS,
        "bars": {"adjoint_error": registry.ADJOINT_BAR, "reference_error": REFERENCE_BAR, "norm_bound_over_norm": 1.0},
        "worst_adjoint_error": worst,
        "worst_reference_error": {dtype: max(row[dtype] for row in compared.values()) for dtype in DTYPES},
        "misses": misses,
        "operators": operators,
        "references": compared,
    }
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(report, indent=1) + "\n")
    print(f"{len(operators)} operators, adjoint error at most " + ", ".join(f"{e:.1e} ({d})" for d, e in worst.items()))
    for miss in misses:
        print("missed:", miss)
    return int(bool(misses))


if __name__ == "__main__":
    sys.exit(main())
