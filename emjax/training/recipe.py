"""Recipes: TOML files that say everything about a training but where the data lie.

    [network]    kind, and the settings of that network
    [task]       kind, and the settings of that task
    [data]       train and validation (lists of sets), crop, batch, ...;  [data.augment]
    [optimiser]  learning_rate, warm_up, final, weight_decay, clip, ema, ...
    [run]        steps, seed, compute, validate_every, checkpoint_every, ...

Every key is known: a wrong one, or a value of the wrong type, is an error that names it.
"""

import dataclasses
import tomllib
import types
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from emjax.training.augment import Augmentation
from emjax.training.optimiser import Optimiser

LIMIT = 2**31 - 1  # steps are counted in 32 bits
FOLDER = Path(__file__).parent / "recipes"
T = TypeVar("T")


@dataclasses.dataclass(frozen=True)
class Scanned:
    """One sparse, noisy scan of every image, in place of the image: what a training without ground truth sees.

    Random pixels, `ratio` of them, with Gaussian noise of standard deviation `noise` (1 is white). The scan follows
    from `seed`, so that it is the same whenever the images are read.
    """

    ratio: float
    noise: float = 0.0
    seed: int = 0

    def check(self, where: str) -> None:
        """Raises ValueError for an entry outside of its range, naming the key."""
        if not 0 < self.ratio <= 1:
            raise ValueError(f"{where}.ratio is a share of the pixels, in (0, 1], got {self.ratio}")
        if not 0 <= self.noise <= 10:
            raise ValueError(f"{where}.noise is a standard deviation in [0, 10], 1 being white, got {self.noise}")
        if self.seed < 0:
            raise ValueError(f"{where}.seed is a whole number, 0 or above, got {self.seed}")


@dataclasses.dataclass(frozen=True)
class Phantoms:
    """`count` images of `size` x `size` pixels, with seeds from `seed` on; see `emjax.acquisition.phantom`."""

    count: int = 1
    size: int = 512
    seed: int = 0
    pixel_size: float | None = None
    kind: str = "neuropil"
    bright_stain: bool = False
    psf: float = 0.8

    @classmethod
    def of(cls, table: dict, where: str) -> "Phantoms":
        """From a TOML table. Raises ValueError for a key that is unknown, of another type or outside of its range."""
        found = parse(cls, table, where)
        if found.count < 1:
            raise ValueError(f"{where}.count is a whole number above 0, got {found.count}")
        return found


@dataclasses.dataclass(frozen=True)
class Source:
    """One set of images: `files` (a name or a glob relative to the data folder) or a `phantom`.

    `slices`, `rows`, `columns` cut a part out of every file ("start:stop:step", as in Python). A set is drawn from in
    proportion to `weight` times its pixels. `scan`: see `Scanned`; for all sets of `train` or none, and for no other.
    """

    files: str | None = None
    slices: str | None = None
    rows: str | None = None
    columns: str | None = None
    phantom: dict | None = None  # of `Phantoms`, as it stands in the file
    weight: float = 1.0
    scan: Scanned | None = None


@dataclasses.dataclass(frozen=True)
class Data:
    """`crop` is the side of the square patches, in pixels; `batch` how many make a step.

    `validation_crops` patches of side `validation_crop` (default: `crop`) are cut from the validation images once.
    """

    train: tuple[Source, ...]
    validation: tuple[Source, ...]
    crop: int
    batch: int
    validation_crops: int = 32
    validation_crop: int | None = None
    augment: Augmentation = dataclasses.field(default_factory=Augmentation)

    @property
    def scans(self) -> bool:
        """Whether the training sees scans, not images."""
        return any(source.scan is not None for source in self.train)


@dataclasses.dataclass(frozen=True)
class Run:
    """How long, in what precision, and how often the loop looks up; every number counts steps.

    `compute`: "float32", or "bfloat16" for the layers of the network (parameters and operators stay float32).
    `inner`: steps in one compiled call; by default 20 on a GPU or TPU, and 1 on a CPU, where convolutions inside
    compiled loops are slow. 0 for `checkpoint_every`: no checkpoints.
    """

    steps: int
    seed: int = 0
    compute: str = "float32"
    validate_every: int = 500
    checkpoint_every: int = 1000
    log_every: int = 50
    inner: int | None = None


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A training, ready to run. `network` and `task` are the tables as they stand in the file, `about` its comment."""

    name: str
    network: dict[str, Any]
    task: dict[str, Any]
    data: Data
    optimiser: Optimiser
    run: Run
    about: str = ""

    def tables(self) -> dict[str, Any]:
        """The recipe as nested dictionaries of plain values, as JSON has them."""
        return dataclasses.asdict(self)


def recipes() -> dict[str, str]:
    """The recipes that come with the package: name and first comment line."""
    return {path.stem: _about(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.toml"))}


def _about(text: str) -> str:
    first = text.partition("\n")[0]
    return first.removeprefix("#").strip() if first.startswith("#") else ""


def load_recipe(name: str | Path, **run: Any) -> Recipe:
    """The recipe of that name in the package, or in a file that ends in .toml; `run` replaces entries of [run].

    Raises ValueError: no such recipe, no TOML, a key that is missing, unknown or of the wrong type.
    """
    path = Path(name)
    if path.suffix != ".toml":
        path = FOLDER / f"{name}.toml"
        if path.parent != FOLDER or not path.is_file():
            raise ValueError(f"no recipe {str(name)!r}; there are {', '.join(recipes())}, or give a file NAME.toml")
    try:
        text = path.read_text(encoding="utf-8")
        table = tomllib.loads(text)
    except OSError as err:
        raise ValueError(f"{path}: the recipe cannot be read: {err.strerror}") from err
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as err:
        raise ValueError(f"{path}: no TOML file: {err}") from err
    table["run"] = {**_table(table.get("run", {}), "run"), **{k: v for k, v in run.items() if v is not None}}
    try:
        return dataclasses.replace(parse_recipe(table, path.stem), about=_about(text))
    except ValueError as err:
        raise ValueError(f"{path.name}: {err}") from err


def parse_recipe(table: dict[str, Any], name: str) -> Recipe:
    """A recipe from its nested tables. Raises ValueError as `load_recipe` does."""
    known = ("network", "task", "data", "optimiser", "run")
    if unknown := set(table) - set(known):
        raise ValueError(f"unknown table [{sorted(unknown)[0]}]; a recipe has {', '.join(f'[{k}]' for k in known)}")
    for part in ("network", "task"):
        if not isinstance(_table(table.get(part, {}), part).get("kind"), str):
            raise ValueError(f'[{part}] needs kind = "..."')
    recipe = Recipe(
        name,
        dict(table["network"]),
        dict(table["task"]),
        parse(Data, table.get("data", {}), "data"),
        parse(Optimiser, table.get("optimiser", {}), "optimiser"),
        parse(Run, table.get("run", {}), "run"),
    )
    _check(recipe)
    return recipe


def parse(cls: type[T], table: Any, where: str) -> T:
    """A dataclass from a TOML table, each entry checked against the type of its field.

    Raises ValueError naming the key: missing, unknown, or of another type.
    """
    hints = get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    table = _table(table, where)
    if unknown := sorted(set(table) - set(fields)):
        raise ValueError(f"[{where}] has no key {unknown[0]!r}; it has {', '.join(fields)}")
    empty = dataclasses.MISSING
    required = [n for n, f in fields.items() if f.default is empty and f.default_factory is empty]
    if missing := [n for n in required if n not in table]:
        raise ValueError(f"[{where}] lacks the key {missing[0]!r}")
    return cls(**{key: _value(hints[key], value, f"{where}.{key}") for key, value in table.items()})


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where} is a table, got {value!r}")
    return value


def _value(kind: Any, value: Any, where: str) -> Any:
    if isinstance(kind, types.UnionType):  # X | None: TOML has no null, so that the value is an X
        kind = next(k for k in get_args(kind) if k is not type(None))
    if dataclasses.is_dataclass(kind):
        return parse(kind, value, where)  # type: ignore[arg-type]
    if get_origin(kind) is tuple:
        parts = get_args(kind)
        if not isinstance(value, list):
            raise ValueError(f"{where} is a list, got {value!r}")
        if parts[-1] is not ... and len(value) != len(parts):
            raise ValueError(f"{where} is a list of {len(parts)}, got {value!r}")
        kinds = [parts[0]] * len(value) if parts[-1] is ... else parts
        return tuple(_value(k, v, f"{where}[{i}]") for i, (k, v) in enumerate(zip(kinds, value, strict=True)))
    if kind is float and type(value) is int:
        return float(value)
    if kind is Any or (type(value) is kind):
        return value
    names = {float: "a number", int: "a whole number", str: "a text", bool: "true or false", dict: "a table"}
    raise ValueError(f"{where} is {names.get(kind, kind)}, got {value!r}")


def _check(recipe: Recipe) -> None:
    data, run = recipe.data, recipe.run
    whole = {"data.crop": data.crop, "data.batch": data.batch, "data.validation_crops": data.validation_crops}
    whole |= {"run.steps": run.steps, "run.validate_every": run.validate_every, "run.log_every": run.log_every}
    optional = {"data.validation_crop": data.validation_crop, "run.inner": run.inner}
    whole |= {key: value for key, value in optional.items() if value is not None}
    for key, value in whole.items():
        if not 1 <= value <= LIMIT:
            raise ValueError(f"{key} is a whole number above 0, up to {LIMIT:,}, got {value}")
    if run.checkpoint_every < 0 or run.seed < 0:
        raise ValueError("run.checkpoint_every and run.seed are whole numbers, 0 or above")
    if run.compute not in ("float32", "bfloat16"):
        raise ValueError(f'run.compute is "float32" or "bfloat16", got {run.compute!r}')
    for part, sources in (("train", data.train), ("validation", data.validation)):
        if not sources:
            raise ValueError(f"data.{part} is an empty list; give at least one set of images")
        for i, source in enumerate(sources):
            if (source.files is None) == (source.phantom is None):
                raise ValueError(f"data.{part}[{i}] needs either files or phantom")
            if not 0 < source.weight < float("inf"):
                raise ValueError(f"data.{part}[{i}].weight is a number above 0, got {source.weight}")
            if source.phantom is not None:
                Phantoms.of(source.phantom, f"data.{part}[{i}].phantom")
                if cut := [key for key in ("slices", "rows", "columns") if getattr(source, key) is not None]:
                    raise ValueError(f"data.{part}[{i}].{cut[0]} cuts a part out of files; a phantom is taken whole")
    data.augment.check()
    _check_scans(data)
    recipe.optimiser.check()


def _check_scans(data: Data) -> None:
    for i, source in enumerate(data.validation):
        if source.scan is not None:
            raise ValueError(f"data.validation[{i}].scan: validation compares with the whole image; leave scan out")
    for i, source in enumerate(data.train):
        if source.scan is not None:
            source.scan.check(f"data.train[{i}].scan")
        elif data.scans:
            raise ValueError(f"data.train[{i}] has no scan, other sets have: give it to all of them or to none")
    for key in ("gamma", "binning", "blurred"):
        if data.scans and getattr(data.augment, key):
            raise ValueError(f"data.augment.{key} would change the noise of scans from pixel to pixel; set it to 0")
