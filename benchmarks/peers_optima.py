"""The instances of `peers.py` as files, each with its optimum: computed once, by two methods, or known already.

`peers/optima.json` keeps, of every case whose items two methods agreed about, the optima and what tells its instance
from any other: the norm of each of its arrays, and the products with four fixed random vectors. An instance that is
made anew and is the same takes its optima from there; any other's are computed, which is minutes to hours, as are those
for a package that needs the solution itself.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from peers_cases import make
from peers_environments import HERE, surroundings

sys.path.insert(0, str(HERE / "peers"))
import instances
from instances import Instance

OPTIMA = HERE / "peers" / "optima.json"
REFERENCE_GAP, BATCH_GAP, AGREEMENT = 1e-7, 1e-6, 1e-5  # certified of the optima; between the two methods
SAME = 1e-6  # of two instances: the relative difference that float32 and another machine's rounding may make


def slug(name: str) -> str:
    return "".join(c if c.isalnum() else "-" for c in name.lower().replace("%", "percent").replace(", ", "_"))


def instance_file(
    work: Path, name: str, case: dict[str, Any], optima: Path | None = OPTIMA, whole: bool = False
) -> tuple[Path, dict[str, Any]]:
    """The instance with its optimum, from the cache or made now, and how well the two methods agree.

    `optima`: the file of known optima, which learns those that are computed. `whole`: with the solution, too.
    """
    path = work / f"{slug(name)}.npz"
    note = path.with_suffix(".json")
    kept = json.loads(note.read_text()) if path.is_file() and note.is_file() else {}
    if kept.get("case") != case:
        kept = {}
    if kept.get("agreed_items") == case["count"]:
        if has_solution(path):
            keep(optima, name, kept, path)
            return path, kept
        if not whole:
            return path, kept
        kept = {}
    work.mkdir(parents=True, exist_ok=True)
    if not kept:
        note.unlink(missing_ok=True)
        instance = make(case)
        if not whole and (found := known(optima, name, case, instance)):
            print(f"{name}: its optimum is known", flush=True)
            fields = {key: np.array(found[key]) for key in ("optimum", "optimal_psnr")}
            instances.save(dataclasses.replace(instance, **fields), path)
            note.write_text(json.dumps(found["note"]) + "\n")
            return path, found["note"]
        instances.save(instance, path)
    print(f"{name}: reference optimum", flush=True)
    gap = REFERENCE_GAP if case["count"] == 1 else BATCH_GAP
    code = [sys.executable, str(HERE / "peers" / "reference.py"), str(path), "--agree" if kept else str(gap)]
    result = subprocess.run(code, capture_output=True, text=True, env=surroundings("emjax"))
    if result.returncode:
        raise SystemExit(f"the reference optimum of {name} failed:\n{result.stderr}")
    kept = {"case": case, **kept, **json.loads(result.stdout.splitlines()[-1])}
    if abs(kept["disagreement"]) > AGREEMENT:
        raise SystemExit(f"two methods disagree about the optimum of {name} by {kept['disagreement']:.1e}")
    note.write_text(json.dumps(kept) + "\n")
    keep(optima, name, kept, path)
    return path, kept


def has_solution(path: Path) -> bool:
    with np.load(path) as file:
        return "solution" in file.files


def fingerprint(instance: Instance) -> dict[str, list[float]]:
    """Of each array, and of the numbers: the norm, and the products with four random vectors, in float64."""
    values = {"numbers": np.array([instance.lam, instance.levels, instance.isotropic, instance.fourier], np.float64)}
    for name in ("y", "truth", "mask", "matrix", "scaling"):
        if (value := getattr(instance, name)) is not None:
            values[name] = np.ravel(value)
    found = {}
    for name, value in values.items():
        rng = np.random.default_rng(1)
        parts = [part.astype(np.float64) for part in ([value.real, value.imag] if np.iscomplexobj(value) else [value])]
        products = []
        for _ in range(4):
            direction = rng.standard_normal(len(value))
            products += [float(direction @ part) for part in parts]
        found[name] = [float(np.sqrt(sum(part @ part for part in parts))), *products]
    return found


def same(a: dict[str, list[float]], b: dict[str, list[float]]) -> bool:
    """Whether two fingerprints are of the same instance."""
    if {name: len(v) for name, v in a.items()} != {name: len(v) for name, v in b.items()}:
        return False
    return all(np.max(np.abs(np.subtract(a[name], b[name]))) <= SAME * a[name][0] for name in a)


def table(optima: Path | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(optima.read_text()) if optima and optima.is_file() else {}
    return found


def known(optima: Path | None, name: str, case: dict[str, Any], instance: Instance) -> dict[str, Any] | None:
    """What the file holds of this very instance."""
    found: dict[str, Any] | None = table(optima).get(name)
    if found is None or found["note"]["case"] != case or not same(found["fingerprint"], fingerprint(instance)):
        return None
    return found


def keep(optima: Path | None, name: str, note: dict[str, Any], path: Path) -> None:
    """Write the optima of an instance about which two methods agree into the file, one line a case."""
    if optima is None or note.get("agreed_items") != note["case"]["count"]:
        return
    entries = table(optima)
    with np.load(path) as file:
        entry = {"note": note} | {key: file[key].tolist() for key in ("optimum", "optimal_psnr")}
    if name in entries and entry == {key: entries[name][key] for key in entry}:
        return
    entries[name] = entry | {"fingerprint": fingerprint(instances.load(path))}
    lines = [f"{json.dumps(name)}: {json.dumps(entries[name])}" for name in sorted(entries)]
    part = optima.with_suffix(".part")
    part.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    part.replace(optima)
