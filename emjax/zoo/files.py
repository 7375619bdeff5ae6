"""Where the networks of the zoo lie, and what their JSON and their model cards say. Loads no JAX."""

import dataclasses
import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

FORMAT = 1  # of the files; a reader takes its own and older ones
WEIGHTS = Path(__file__).parent / "weights"
VARIABLE = "EMJAX_ZOO"
SUFFIXES = (".safetensors", ".json", ".md")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclasses.dataclass(frozen=True)
class Entry:
    """What NAME.json says of a network.

    kind, settings: what `emjax.networks.build` makes it of. reconstructor: the class of `emjax.reconstructors` around
    it, None for a network that recovers nothing by itself. parameters: how many numbers are trained. sha256: of
    NAME.safetensors. extra: whatever the training noted. path: where it lies, without suffix.
    """

    kind: str
    settings: dict[str, Any]
    reconstructor: str | None
    parameters: int
    sha256: str
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)
    format: int = FORMAT
    path: Path = dataclasses.field(default_factory=Path, compare=False)

    def text(self) -> str:
        """The JSON of the entry."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "path"}
        return json.dumps(values, indent=2, sort_keys=True, allow_nan=False) + "\n"


def folders() -> list[Path]:
    """The folders that are searched, the user's first. Raises ValueError if EMJAX_ZOO names no folder."""
    given = os.environ.get(VARIABLE)
    if not given:
        return [WEIGHTS]
    if not Path(given).is_dir():
        raise ValueError(f"{VARIABLE}={given}: there is no such folder; make it, or unset the variable")
    return [Path(given), WEIGHTS]


def names() -> list[str]:
    """The names of the networks, sorted."""
    found = {path.stem for folder in folders() for path in folder.glob("*.json") if _NAME.fullmatch(path.stem)}
    return sorted(found)


def is_path(name: str) -> bool:
    """Whether that is the path of a network, not a name."""
    return any(mark in name for mark in ("/", os.sep)) or name.endswith(SUFFIXES)


def find(name: str | os.PathLike[str]) -> Path:
    """The path, without suffix, of the network of that name, or of the files of that path.

    Raises ValueError for one that is not there, listing those that are.
    """
    text = os.fspath(name)
    if is_path(text):
        return stem(text)
    for folder in folders():
        if _NAME.fullmatch(text) and (folder / f"{text}.json").is_file():
            return folder / text
    there = ", ".join(names()) or "none yet"
    raise ValueError(f"unknown network {text!r}; there are: {there}. A network elsewhere takes its path, ./{text}")


def stem(path: str | os.PathLike[str]) -> Path:
    """The path without one of the three suffixes."""
    text = os.fspath(path)
    return Path(next((text.removesuffix(s) for s in SUFFIXES if text.endswith(s)), text))


def check_name(path: Path) -> None:
    """Raise ValueError where a network may not be called so."""
    if not _NAME.fullmatch(path.name):
        raise ValueError(f"{path.name!r} is no name for a network; use letters, digits, '-', '_' and '.'")


def beside(path: Path, suffix: str) -> Path:
    """NAME with that suffix; `Path.with_suffix` would cut a name such as `scan-v1.2`."""
    return path.with_name(path.name + suffix)


def entry(name: str | os.PathLike[str]) -> Entry:
    """What the JSON of the network of that name (or path) says; see `describe`."""
    return describe(find(name))


def describe(path: Path) -> Entry:
    """What `path`.json says. Raises ValueError if it is missing, damaged or of a newer emjax."""
    file = beside(path, ".json")
    text = contents(file).decode("utf-8", errors="replace")
    try:
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: this is no JSON ({error}); the file is damaged, fetch it again") from None
    version = values.get("format") if isinstance(values, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ValueError(f"{file}: this does not describe a network (no 'format'); emjax.zoo.save writes such files")
    if version > FORMAT:
        raise ValueError(
            f"{file}: written in format {version} by a newer emjax, this one reads up to {FORMAT}; update emjax"
        )
    wanted = {f.name: f.type for f in dataclasses.fields(Entry) if f.name != "path"}
    types: dict[str, Any] = {
        "kind": str,
        "settings": dict,
        "reconstructor": (str, type(None)),
        "parameters": int,
        "sha256": str,
    }
    for key in wanted:
        if key not in values or not isinstance(values[key], types.get(key, object)):
            what = f"{values[key]!r} for" if key in values else "no"
            raise ValueError(f"{file}: {what} {key!r}; the file is damaged or edited, fetch it again")
    return Entry(**{key: values[key] for key in wanted}, path=path)


def contents(file: Path) -> bytes:
    """The bytes of a file of the zoo, or an error that says which is missing."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{file}: cannot be read ({error.strerror}); a network is three files, NAME{', NAME'.join(SUFFIXES)}, "
            "side by side"
        ) from None


def checksum(data: bytes) -> str:
    """SHA-256, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def card(name: str | os.PathLike[str]) -> str:
    """The model card, Markdown. Raises ValueError if there is none."""
    return contents(beside(find(name), ".md")).decode("utf-8", errors="replace")


def summary(text: str) -> str:
    """The first line of a model card that is no heading."""
    lines = (line.strip() for line in text.splitlines())
    return next((line for line in lines if line and not line.startswith(("#", "---", "|"))), "")


def _described(name: str) -> str:
    try:
        return summary(card(name))
    except ValueError as error:
        return f"without a model card: {error}"


def table() -> list[dict[str, Any]]:
    """A row a network: name, kind, reconstructor, parameters, bytes, description, path.

    One that cannot be read has None for them, and says why in its description.
    """
    rows = []
    for name in names():
        row: dict[str, Any] = {"name": name, "kind": None, "reconstructor": None, "parameters": None, "bytes": None}
        try:
            known = entry(name)
            row |= {key: getattr(known, key) for key in ("kind", "reconstructor", "parameters")}
            row["bytes"] = len(contents(beside(known.path, ".safetensors")))
        except ValueError as error:
            row["description"] = f"cannot be used: {error}"
        else:
            row["description"] = _described(name)
        rows.append({**row, "path": str(find(name))})
    return rows
