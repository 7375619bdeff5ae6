"""The package as a whole: what an import costs, which folder may use which, and that public names exist and explain
themselves."""

import ast
import importlib
import inspect
import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import emjax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "emjax"
SUBPACKAGES = (
    "acquisition",
    "denoisers",
    "functionals",
    "io",
    "metrics",
    "networks",
    "operators",
    "reconstructors",
    "solvers",
    "tiling",
    "training",
    "weights",
    "zoo",
)

# What each part of the package may import of the others: an arrow down only. `cli` stands on top of everything.
BELOW: dict[str, set[str]] = {
    "operators": set(),
    "functionals": {"operators"},
    "acquisition": {"operators"},
    "solvers": {"functionals", "operators"},
    "denoisers": {"functionals", "operators", "solvers"},
    "networks": {"acquisition", "functionals", "operators", "solvers"},
    "weights": {"acquisition", "functionals", "operators", "solvers"},
    "reconstructors": {"acquisition", "denoisers", "functionals", "networks", "operators", "solvers", "weights"},
    "metrics": set(),
    "tiling": set(),
    "io": set(),
    "zoo": {"io", "networks", "reconstructors"},
    "training": {"acquisition", "functionals", "io", "metrics", "networks", "operators", "reconstructors", "solvers"}
    | {"weights", "zoo"},
    "cli": {"acquisition", "denoisers", "functionals", "io", "metrics", "networks", "operators", "reconstructors"}
    | {"solvers", "tiling", "training", "weights", "zoo"},
}


def in_a_fresh_python(code: str) -> dict:
    """What `code` prints as JSON, run by a Python that has imported nothing yet."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_import_loads_no_optional_library() -> None:
    seen = in_a_fresh_python(
        "import emjax, json, sys\n"
        "names = ('flax', 'optax', 'tifffile', 'imagecodecs', 'scipy', 'matplotlib', 'rich', 'typer')\n"
        "print(json.dumps({name: name in sys.modules for name in names}))"
    )
    assert not any(seen.values()), seen


def test_import_changes_no_configuration_and_starts_no_device() -> None:
    """Of the package and of all its parts: a program's own settings must still take effect after them."""
    parts = [f"emjax.{name}" for name in SUBPACKAGES]
    seen = in_a_fresh_python(
        "import importlib, json, os, jax\n"
        "from jax._src import xla_bridge\n"
        "before, variables = dict(jax.config.values), dict(os.environ)\n"
        f"for name in ['emjax', *{parts!r}]: importlib.import_module(name)\n"
        "changed = [k for k, v in jax.config.values.items() if k in before and before[k] != v]\n"
        "print(json.dumps({'changed': changed, 'environment': variables == dict(os.environ),\n"
        "    'started': xla_bridge.backends_are_initialized()}))"
    )
    assert seen == {"changed": [], "environment": True, "started": False}


def test_array_parts_load_no_file_or_training_library() -> None:
    seen = in_a_fresh_python(
        "import emjax.reconstructors, emjax.metrics, json, sys\n"
        "names = ('flax', 'optax', 'tifffile', 'imagecodecs', 'matplotlib', 'rich', 'typer')\n"
        "print(json.dumps({name: name in sys.modules for name in names}))"
    )
    assert not any(seen.values()), seen


def test_version_is_that_of_the_project_file() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert emjax.__version__ == project["version"]


def public_modules() -> list[str]:
    return ["emjax", *(f"emjax.{name}" for name in SUBPACKAGES), "emjax.cli"]


def public_names(module: str) -> dict[str, object]:
    """The names in `__all__`, or those that a plain module defines itself."""
    loaded = importlib.import_module(module)
    names = getattr(loaded, "__all__", None)
    if names is None:
        names = [n for n, v in vars(loaded).items() if not n.startswith("_") and inspect.getmodule(v) is loaded]
    return {name: getattr(loaded, name) for name in names}


@pytest.mark.parametrize("module", public_modules())
def test_public_names_exist_and_explain_themselves(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__doc__, f"{module} has no docstring"
    for name, value in public_names(module).items():
        if inspect.isclass(value) or inspect.isfunction(value):
            text = value.__doc__ or ""
            # A dataclass without a docstring gets its signature as one.
            assert text and not text.startswith(f"{name}("), f"{module}.{name} has no docstring"


def test_top_level_names_are_complete() -> None:
    assert set(emjax.__all__) == set(dir(emjax))
    assert {p.name for p in PACKAGE.iterdir() if (p / "__init__.py").exists()} | {"tiling"} == {*SUBPACKAGES, "cli"}
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = emjax.no_such_name


def sources(folder: Path) -> Iterator[tuple[Path, str]]:
    """The Python of a folder: its modules, and the code cells of its notebooks."""
    for path in sorted(folder.rglob("*.py")):
        yield path, path.read_text(encoding="utf-8")
    for path in sorted(folder.rglob("*.ipynb")):
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        python = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
        lines = "\n".join(text for text in python if not text.startswith("%%")).splitlines()
        yield path, "\n".join("" if line.lstrip().startswith(("!", "%")) else line for line in lines)


def imports(source: str, package: str = "") -> Iterator[str]:
    """The dotted names of emjax that a source imports, wherever the statement stands; `package` resolves dots."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names if a.name.split(".")[0] == "emjax")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            if base.split(".")[0] == "emjax":
                yield from (f"{base}.{a.name}" for a in node.names)


def test_imports_point_down() -> None:
    faults = []
    for path, source in sources(PACKAGE):
        inside = path.relative_to(PACKAGE)
        room = inside.parts[0].removesuffix(".py")
        if len(inside.parts) == 1 and room.startswith("_"):
            continue  # the package's own front door and its private base
        assert room in BELOW, f"emjax/{room} is new: say in BELOW what it may import"
        package = ".".join(["emjax", *inside.parts[:-1]])
        for name in imports(source, package):
            parts = name.split(".")
            if parts == ["emjax"]:
                allowed = room == "cli"  # below, the whole package would hide what is used
            else:
                allowed = parts[1] in {room, "_pytree", *BELOW[room]} or (room == "cli" and parts[1] == "__version__")
                owner = next((parts[1:i] for i, p in enumerate(parts) if i > 1 and p.startswith("_")), None)
                if owner is not None and list(inside.parts[: len(owner)]) != owner:
                    allowed = False  # a file that begins with _ is private to its folder
            if not allowed:
                faults.append(f"{inside} imports {name}")
    assert not faults, faults


@pytest.mark.parametrize("folder", ["benchmarks", "notebooks"])
def test_programs_use_public_names_only(folder: str) -> None:
    faults = []
    for path, source in sources(ROOT / folder):
        used = list(imports(source))
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Attribute) and ast.unparse(node).startswith("emjax."):
                used.append(ast.unparse(node))
        hidden = [n for n in used if any(p.startswith("_") and not p.startswith("__") for p in n.split("."))]
        faults += [f"{path.relative_to(ROOT)} uses {name}" for name in hidden]
    assert not faults, faults
