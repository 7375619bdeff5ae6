"""What every network shares: its name, its settings, its size, and how it meets measurements.

An inverting network is called like a reconstructor, `x = network(y, A, noise=None)`, with `y` of shape
`(*batch, *A.out_shape)` and `x` of `(*batch, *A.in_shape)`. The operator comes in at the call and is never kept, so
that no array of it can be trained. Images run as NHWC inside, and phases are unrolled in Python: convolutions in
`lax.scan` are many times slower on a CPU when they are differentiated.

Parameters are float32 `nnx.Param`s. Whoever casts them to bfloat16 gets bfloat16 convolutions; operators, steps and
results stay in the precision of `y` (see `convolve`).
"""

import inspect
import math
import numbers
import types
from collections.abc import Sequence
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array

from emjax.acquisition.noise import Noise
from emjax.operators import LinearOperator
from emjax.operators.base import check_measured, map_batch

NETWORKS: dict[str, type["Network"]] = {}


class Network(nnx.Module):
    """Base class: `Net(**settings, rngs=nnx.Rngs(seed))`.

    A subclass gives its registered name `kind`, keeps every argument of its constructor but `rngs` as an attribute of
    the same name (numbers, strings, booleans, None, tuples of them: what JSON holds and what can be compared), and is
    callable. Naming `kind` registers it in `NETWORKS`.
    """

    kind: ClassVar[str]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "kind" in vars(cls):
            NETWORKS[cls.kind] = cls

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of the constructor: `build(kind, settings)` gives the same network with other weights."""
        return {name: getattr(self, name) for name in setting_names(type(self))}

    def parameter_count(self) -> int:
        """How many numbers are trained."""
        return sum(math.prod(p.shape) for p in jax.tree.leaves(nnx.state(self, nnx.Param)))

    def supports(self, A: LinearOperator) -> str | None:
        """Why the network cannot invert `A`, or None where it can. By default: one that measures real 2-D images."""
        if len(A.in_shape) != 2 or jnp.issubdtype(A.in_dtype, jnp.complexfloating):
            return f"{type(self).__name__} recovers real images (h, w), not {A.in_dtype} items of shape {A.in_shape}"
        return None

    def measurements(self, y: Any, A: LinearOperator) -> Array:
        """`y` as floats, zero where nothing was measured.

        Raises TypeError for something else than an operator and for complex measurements of a real one, ValueError for
        shapes that do not fit and for an operator that the network cannot take.
        """
        y = check_measured(A, y, f"{type(self).__name__}(y, A)")
        if reason := self.supports(A):
            raise ValueError(reason)
        if jnp.iscomplexobj(y) and not jnp.issubdtype(A.out_dtype, jnp.complexfloating):
            raise TypeError(f"{A} makes real measurements, got {y.dtype} ones; take their real part or magnitude")
        return y

    def __call__(self, y: Array, A: LinearOperator, noise: Noise | None = None) -> Array:
        """Recover `x`, shape `(*batch, *A.in_shape)`, from `y`, shape `(*batch, *A.out_shape)`."""
        raise NotImplementedError


def setting_names(network: type[Network]) -> list[str]:
    """The names of the constructor's arguments but `rngs`."""
    return [name for name in inspect.signature(network.__init__).parameters if name not in ("self", "rngs")]


def build(kind: str, settings: dict[str, Any] | None = None, seed: int = 0) -> Network:
    """The network of that kind, initialised from `seed`; lists in the settings become tuples.

    Raises ValueError for an unknown kind, TypeError for settings it has not, listing those there are, and for values of
    another type.
    """
    if kind not in NETWORKS:
        raise ValueError(f"unknown network {kind!r}; there are {', '.join(sorted(NETWORKS))}")
    network: Any = NETWORKS[kind]
    settings = dict(settings or {})
    known = setting_names(network)
    if unknown := set(settings) - set(known):
        raise TypeError(f"{kind} has no setting {', '.join(sorted(unknown))}; it has {', '.join(known) or 'none'}")
    settings = {name: tuple(v) if isinstance(v, list) else v for name, v in settings.items()}
    hints = get_type_hints(network.__init__)
    for name, value in settings.items():
        if name in hints and not _fits(value, hints[name]):
            raise TypeError(f"{kind}: {name} is {_described(hints[name])}, got {value!r}")
    return network(**settings, rngs=nnx.Rngs(seed))


def _fits(value: Any, hint: Any) -> bool:
    """Whether a setting is of the type that the constructor names; a whole number will do for a float."""
    if hint is Any:
        return True
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (types.UnionType, Union):
        return any(_fits(value, part) for part in parts)
    if origin in (tuple, Sequence):
        return isinstance(value, tuple) and all(_fits(v, parts[0]) for v in value if parts)
    if origin in (int, float) and isinstance(value, bool):
        return False
    return isinstance(value, numbers.Real if origin is float else numbers.Integral if origin is int else origin)


def _described(hint: Any) -> str:
    origin, parts = get_origin(hint) or hint, get_args(hint)
    if origin in (types.UnionType, Union):
        return " or ".join(map(_described, parts))
    if origin in (tuple, Sequence):
        return f"a list, each {_described(parts[0])}" if parts else "a list"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false", type(None): "nothing"}
    return names.get(origin, str(hint))


def convolve(layer: nnx.Conv, x: Array) -> Array:
    """`layer(x)` for images `(*batch, h, w, c)`, in bfloat16 where the layer's parameters are; the dtype stays x's."""
    narrow = layer.kernel[...].dtype == jnp.bfloat16
    return layer(x.astype(jnp.bfloat16) if narrow else x).astype(x.dtype)


def norm_bounds(A: LinearOperator) -> Array:
    """`A.norm_bound()` of each item, its axes followed by ones for those of an item of `A.in_shape`."""
    bound = map_batch(lambda op, _: op.norm_bound(), A, jnp.zeros(A.in_shape, A.in_dtype), A.in_shape)
    return bound.reshape(*bound.shape, *[1] * len(A.in_shape))
