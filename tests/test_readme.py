"""The README is a promise: its programs and commands run, in their order, and what it names exists."""

import os
import re
import subprocess
import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", TEXT, flags=re.MULTILINE | re.DOTALL)
SET_UP = ("pip install . && emjax demo\n", "pip install '.[test]' && pytest -n 2 --dist loadfile\n")


def test_set_up_commands() -> None:
    """The only two that are not run here: the continuous integration runs them, in a fresh environment."""
    assert tuple(text for language, text in BLOCKS if language == "bash" and "pip install" in text) == SET_UP
    assert {language for language, _ in BLOCKS} == {"bash", "python"}


def as_one_program() -> str:
    """The Python blocks as they stand, and each shell block as a call: one session, one folder, one order."""
    parts = ["import subprocess"]
    for language, text in BLOCKS:
        if language == "python":
            parts.append(text)
        elif text not in SET_UP:
            parts.append(f"subprocess.run(['bash', '-euo', 'pipefail', '-c', {text!r}], check=True)")
    return "\n".join(parts)


def test_programs_and_commands_run(tmp_path: Path) -> None:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        # Python and the command share compiled programs here, and find none of an earlier run.
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    script = tmp_path / "readme.py"
    script.write_text(as_one_program(), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"scan.tif", "recovered.tif", "recovered_tv.tif", "x.tif"} <= {p.name for p in tmp_path.iterdir()}


def test_names_and_links_exist() -> None:
    for name in set(re.findall(r"`(emjax(?:\.\w+)+)`", TEXT)):
        head, _, tail = name.rpartition(".")
        if not hasattr(import_module(head), tail):
            import_module(name)
    for link in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / link).exists(), f"the README links to {link}, which does not exist"


def test_measured_figures_are_those_of_the_results() -> None:
    script = ROOT / "benchmarks" / "readme_table.py"
    done = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
