"""One virtual environment for each package that emjax is compared with: what one needs need not suit another.

    python benchmarks/peers_environments.py FOLDER [--only sigpy,scico] [--gpu]

Each is made with the Python that runs this, by pip, at the release named below. What does not install is noted with the
reason, in FOLDER/PEER.json, and not tried again before that file is removed. prox_tv is built from source: it needs a
C++ compiler and the headers of LAPACKE (liblapacke-dev on Debian). --gpu adds what SCICO needs to compute on one; torch
has it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
OURS = ("emjax", "plain")  # run by the Python that runs this, with this emjax
REQUIREMENTS = {
    "sigpy": ["sigpy==0.1.27"],
    "scikit_image": ["scikit-image==0.26.0"],
    "scikit_learn": ["scikit-learn==1.9.1"],
    "spgl1": ["spgl1==0.0.3"],
    "scico": ["scico==0.0.7"],
    "deepinv": ["torch==2.14.1", "torchvision==0.29.1", "deepinv==0.5.0", "scipy"],
    "pyproximal": ["pyproximal==0.13.0"],
    "proxtv": ["prox_tv==3.2.1", "numpy<2", "scipy"],
}

ON_GPU = {"scico": ["jax[cuda12]"]}  # besides

# What is imported, where that is not the name of the package's environment.
MODULES = {"scikit_image": "skimage", "scikit_learn": "sklearn", "proxtv": "prox_tv"}
NAMES = {"proxtv": "prox-tv", "scikit_image": "scikit-image", "scikit_learn": "scikit-learn"}  # of the releases


def python(folder: Path) -> Path:
    """The interpreter of an environment."""
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def environment(folder: Path, peer: str, gpu: bool = False) -> dict[str, Any]:
    """Make it, or read what became of it: `python` and the installed `versions`, or the `reason` of a failure."""
    name = f"{peer}-gpu" if gpu else peer
    note = folder / f"{name}.json"
    if note.is_file():
        found: dict[str, Any] = json.loads(note.read_text())
        return found
    folder.mkdir(parents=True, exist_ok=True)
    interpreter = python(folder / name)
    if not interpreter.is_file():
        venv.create(folder / name, with_pip=True)
    wanted = [*REQUIREMENTS[peer], *(ON_GPU.get(peer, []) if gpu else [])]
    print(f"installing {' '.join(wanted)}", flush=True)
    pip = [str(interpreter), "-m", "pip", "--disable-pip-version-check"]
    run = subprocess.run([*pip, "install", "-q", *wanted], capture_output=True, text=True)
    if run.returncode == 0:  # installed, but does it load?
        run = subprocess.run([interpreter, "-c", f"import {MODULES.get(peer, peer)}"], capture_output=True, text=True)
    if run.returncode == 0:
        listed = json.loads(subprocess.run([*pip, "list", "--format=json"], capture_output=True, check=True).stdout)
        found = {"python": str(interpreter), "versions": {one["name"].lower(): one["version"] for one in listed}}
    else:
        lines = [line.strip() for line in run.stderr.splitlines() if "error" in line.lower()]
        found = {"reason": "; ".join(dict.fromkeys(lines))[:600] or f"ended with {run.returncode}"}
    part = note.with_suffix(".part")
    part.write_text(json.dumps(found, indent=1) + "\n")
    part.replace(note)
    return found


def surroundings(peer: str, platform: str = "cpu", given: bool = False) -> dict[str, str]:
    """The variables of a package's process: where it computes, and no packages but its own.

    An interpreter that was `given` finds its packages where the caller's PYTHONPATH says. On a GPU the products of the
    peers that compute with JAX are in full precision: TF32, the default there, would not get to a gap of 1e-4.
    """
    kept = {k: v for k, v in os.environ.items() if peer in OURS or given or k != "PYTHONPATH"}
    more = {"JAX_PLATFORMS": {"cpu": "cpu", "gpu": "cuda"}[platform], "PEERS_PLATFORM": platform}
    if peer in OURS:
        more["PYTHONPATH"] = os.pathsep.join([str(HERE.parent), kept.get("PYTHONPATH", "")])
    elif platform == "gpu":
        more["JAX_DEFAULT_MATMUL_PRECISION"] = "highest"
    return {**kept, **more, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def asked(interpreter: str, code: str, variables: dict[str, str]) -> str:
    """What an interpreter prints; raises ValueError with the last line of its complaint."""
    try:
        run = subprocess.run([interpreter, "-c", code], capture_output=True, text=True, env=variables)
    except OSError as error:
        raise ValueError(f"{interpreter}: {error.strerror}") from error
    if run.returncode:
        raise ValueError((run.stderr.strip().splitlines() or [f"ended with {run.returncode}"])[-1])
    return run.stdout.strip()


def version(peer: str, interpreter: str, platform: str) -> str:
    """The release of a package that an interpreter has. Raises ValueError where it has none."""
    code = f"import importlib.metadata as m; print(m.version({NAMES.get(peer, peer)!r}))"
    return asked(interpreter, code, surroundings(peer, platform, given=True))


def device() -> str:
    """The GPU that JAX computes on, in a process of its own. Raises ValueError where there is none."""
    return asked(sys.executable, "import jax; print(jax.devices()[0].device_kind)", surroundings("emjax", "gpu"))


def emjax_version() -> dict[str, str]:
    """The emjax that is timed: its release, and in a git checkout the commit, with a plus where it has been changed."""
    code = "import emjax; print(emjax.__version__)"
    found = {"version": asked(sys.executable, code, surroundings("emjax"))}
    git = ["git", "-C", str(HERE.parent)]
    if (HERE.parent / ".git").exists() and shutil.which("git"):
        head = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
        if head.returncode == 0:
            changed = subprocess.run([*git, "diff", "--quiet", "HEAD", "--", "emjax"], capture_output=True)
            found["commit"] = head.stdout.strip() + ("+" if changed.returncode else "")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", help="peer,peer,...")
    parser.add_argument("--gpu", action="store_true", help="with what they need to compute on a GPU")
    arguments = parser.parse_args()
    failed = 0
    for peer in arguments.only.split(",") if arguments.only else REQUIREMENTS:
        found = environment(arguments.folder, peer, arguments.gpu)
        failed += "reason" in found
        print(f"{peer}: {found.get('reason', 'ready')}", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
