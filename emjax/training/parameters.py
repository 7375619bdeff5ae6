"""The trained parameters of a network, apart from all else in it, and as a safetensors file.

Only `nnx.Param`s are trained: arrays that a network holds otherwise (`rest`) are handed through as they are.
"""

import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array


def split(network: Any) -> tuple[Any, Any, Any]:
    """`(graph, parameters, rest)` of a network; `join` puts them together again."""
    parts: Any = nnx.split(network, nnx.Param, ...)
    return parts


def join(graph: Any, parameters: Any, rest: Any, compute: str = "float32") -> Any:
    """The network with these parameters; with compute="bfloat16", its layers (kernels and biases) in that precision.

    Other parameters, such as steps and thresholds, always stay in float32.
    """
    if compute == "bfloat16":
        # `emjax.networks.convolve` computes in the precision of the layer and answers in that of its input.
        flat = [(path, variable.replace(_narrow(path, variable))) for path, variable in nnx.to_flat_state(parameters)]
        parameters = nnx.from_flat_state(flat)
    return nnx.merge(graph, parameters, rest)


def _narrow(path: tuple, variable: Any) -> Array:
    value = variable.get_value()
    return value.astype(jnp.bfloat16) if path[-1] in ("kernel", "bias", "embedding") else value


def named(parameters: Any) -> dict[str, np.ndarray]:
    """Every parameter by its path in the network, "layers/0/kernel"."""
    return {"/".join(map(str, path)): np.asarray(v.get_value()) for path, v in nnx.to_flat_state(parameters)}


def write(path: Path, parameters: Any) -> None:
    """All parameters to a safetensors file in float32."""
    from safetensors.numpy import save

    from emjax.io import atomic_path

    arrays = {key: np.asarray(value, np.float32, order="C") for key, value in named(parameters).items()}
    with atomic_path(path) as temporary:
        temporary.write_bytes(save(arrays))


def read(path: Path, parameters: Any) -> Any:
    """Parameters like those given, with the values of a safetensors file, in float32.

    Raises ValueError: no such file, no safetensors file, or parameters of another network.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        arrays = load(_contents(path))
    except (SafetensorError, KeyError, ValueError) as err:
        raise ValueError(f"{path}: no safetensors file of real numbers ({err})") from err
    here = {key: value.shape for key, value in named(parameters).items()}
    there = {key: value.shape for key, value in arrays.items()}
    for key in sorted(here.keys() | there.keys()):
        if here.get(key) != there.get(key):
            raise ValueError(
                f"{path}: weights of another network: {key} is {there.get(key, 'missing')} in the file, "
                f"{here.get(key, 'missing')} in the network of the recipe"
            )
    flat = []
    for p, variable in nnx.to_flat_state(parameters):
        flat.append((p, variable.replace(jnp.asarray(arrays["/".join(map(str, p))], jnp.float32))))
    return nnx.from_flat_state(flat)


def checksum(path: Path) -> str:
    """The SHA-256 of a file of weights. Raises ValueError if it cannot be read."""
    return hashlib.sha256(_contents(path)).hexdigest()


def _contents(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as err:
        raise ValueError(f"{path}: the weights cannot be read: {err.strerror}") from err


def copy(parameters: Any) -> Any:
    """The same values in arrays of their own, as donated arrays may stand in one place only."""
    return jax.tree.map(jnp.copy, parameters)
