"""The parameters of networks on disk: `save`, `read`, `network`.

Every `nnx.Param` is one array of NAME.safetensors, called by its path in the network ("stages/0/head/kernel"); float16
on disk, float32 in memory. Nothing is ever unpickled: a file from elsewhere can be wrong, never run.
"""

import contextlib
import dataclasses
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from emjax.zoo import files
from emjax.zoo.files import Entry, beside

if TYPE_CHECKING:
    from emjax.networks import Network

_READ = ("float16", "float32")


def save(
    path: str | os.PathLike[str],
    network: "Network",
    *,
    card: str,
    extra: Mapping[str, Any] | None = None,
    reconstructor: str | None = None,
) -> Entry:
    """Write `path`.safetensors, `path`.json and `path`.md; all of them or none.

    card: the model card, Markdown; its first line that is no heading is the description in lists. extra: anything that
    JSON can hold (recipe, steps, figures). reconstructor: the class that recovers with it; default: that of
    `emjax.reconstructors.wrappers` for this kind of network.
    Raises ValueError for parameters that are not finite or too large for float16, settings that do not build the same
    network again, a name that is taken by a classical method, or a folder that cannot be written to.
    """
    from safetensors.numpy import save as pack

    from emjax.io import atomic_path
    from emjax.reconstructors.wrappers import reconstructor_of, wrapper

    target = files.stem(path)
    check_name(target)
    if reconstructor is None:
        reconstructor = reconstructor_of(network.kind)
    if reconstructor is not None:
        wrapper(reconstructor)
    arrays = {}
    for key, value in _parameters(network).items():
        whole = np.asarray(value)
        with np.errstate(over="ignore"):
            arrays[key] = np.asarray(whole, np.float16, order="C")  # `ascontiguousarray` would give a number an axis
        if not np.isfinite(arrays[key]).all():
            large = np.isfinite(whole).all()
            raise ValueError(
                f"{key} holds {'values beyond 65504, which float16 cannot keep' if large else 'NaN or infinity'}: "
                f"{target.name} is not saved; train it again, with a lower learning rate or stronger clipping"
            )
    data = pack(arrays)
    count = sum(a.size for a in arrays.values())
    known = Entry(network.kind, dict(network.settings), reconstructor, count, files.checksum(data), dict(extra or {}))
    try:
        text = known.text()
    except (TypeError, ValueError) as error:
        raise ValueError(f"settings and extra of {target.name} are for JSON: {error}") from None
    try:
        _fill(known.kind, json.loads(text)["settings"], arrays, target.name)
    except ValueError as error:
        raise ValueError(f"{target.name} is not saved, as it could not be read again: {error}") from error
    with contextlib.ExitStack() as stack:  # renamed one after the other once all are on the disk
        for suffix, content in ((".json", text.encode()), (".md", card.encode()), (".safetensors", data)):
            stack.enter_context(atomic_path(beside(target, suffix))).write_bytes(content)
    return dataclasses.replace(known, path=target)


def check_name(path: str | os.PathLike[str]) -> None:
    """Raise ValueError where no network may be called like that: letters that names have not, or a classical method."""
    from emjax.reconstructors import METHODS

    target = files.stem(path)
    files.check_name(target)
    if target.name in METHODS:
        raise ValueError(f"{target.name!r} is the name of a classical method; give the network another one")


def network(name: str) -> "Network":
    """The network of that name (or path), in float32. Raises ValueError for an unknown or a damaged one."""
    return read(files.find(name))


def read(path: str | os.PathLike[str]) -> "Network":
    """The network in the files `path`.safetensors and `path`.json, in float32.

    Raises ValueError for a missing, damaged, foreign or newer file, saying which and what to do.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load as unpack

    known = files.describe(files.stem(path))
    file = beside(known.path, ".safetensors")
    data = files.contents(file)
    if (found := files.checksum(data)) != known.sha256:
        raise ValueError(
            f"{file}: its SHA-256 is {found[:12]}..., {known.path.name}.json says {known.sha256[:12]}...; the file is "
            "damaged or another network's, fetch both again"
        )
    try:
        arrays = unpack(data)
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f"{file}: no safetensors file of real numbers ({error}); save it by emjax.zoo.save") from None
    for key, value in arrays.items():
        if str(value.dtype) not in _READ:
            raise ValueError(f"{file}: {key} is {value.dtype}, a network is kept as {' or '.join(_READ)}")
        if not np.isfinite(value).all():
            raise ValueError(f"{file}: {key} holds NaN or infinity; its training went wrong, take another checkpoint")
    filled = _fill(known.kind, known.settings, arrays, str(beside(known.path, ".json")))
    if (count := sum(a.size for a in arrays.values())) != known.parameters:
        raise ValueError(
            f"{file}: it has {count:,} parameters, {known.path.name}.json says {known.parameters:,}; the JSON is "
            "edited or another network's, fetch both again"
        )
    return filled


def _parameters(network: Any) -> dict[str, Any]:
    """Path -> array of every trained parameter."""
    from flax import nnx

    flat = nnx.to_flat_state(nnx.state(network, nnx.Param))
    return {"/".join(map(str, path)): variable.get_value() for path, variable in flat}


def _fill(kind: str, settings: dict[str, Any], arrays: dict[str, np.ndarray], where: str) -> Any:
    """The network of that kind with these parameters; `where` names its file in errors."""
    import jax.numpy as jnp
    from flax import nnx

    from emjax.networks import NETWORKS, build
    from emjax.networks.base import setting_names

    if kind not in NETWORKS:
        raise ValueError(
            f"{where}: this emjax has no network {kind!r}, only {', '.join(sorted(NETWORKS))}; a newer one may have it"
        )
    taken = setting_names(NETWORKS[kind])
    if unknown := sorted(set(settings) - set(taken)):
        raise ValueError(
            f"{where}: {kind} has no setting {', '.join(unknown)}; it has {', '.join(taken) or 'none'}. "
            "The file is edited, or of a newer emjax"
        )
    try:
        # Only the shapes: drawing first values, which are replaced at once, would cost seconds of compilation.
        shell = nnx.eval_shape(lambda: build(kind, settings, 0))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: {kind} cannot be built with {settings}: {error}") from error
    variables = [variable for _, variable in nnx.to_flat_state(nnx.state(shell))]
    if not all(isinstance(v, nnx.Param) for v in variables):  # fixed arrays, which only a real network has
        shell = build(kind, settings, 0)
    graph, state, *rest = nnx.split(shell, nnx.Param, ...)
    flat = {"/".join(map(str, path)): (path, variable) for path, variable in nnx.to_flat_state(state)}
    missing, foreign = sorted(set(flat) - set(arrays)), sorted(set(arrays) - set(flat))
    if missing or foreign:
        parts = [
            f"{what} {', '.join(keys[:3])}{f' and {len(keys) - 3} more' if len(keys) > 3 else ''}"
            for what, keys in (("lacks", missing), ("has unknown", foreign))
            if keys
        ]
        raise ValueError(f"{where}: the file of parameters {' and '.join(parts)}; it is not that of this {kind}")
    for key, (_, variable) in flat.items():
        if arrays[key].shape != tuple(variable.get_value().shape):
            raise ValueError(
                f"{where}: {key} has shape {arrays[key].shape}, {kind} with these settings takes "
                f"{tuple(variable.get_value().shape)}; parameters and settings are not of one network"
            )
    filled = [(path, variable.replace(jnp.asarray(arrays[key], jnp.float32))) for key, (path, variable) in flat.items()]
    return nnx.merge(graph, nnx.from_flat_state(filled), *rest)
