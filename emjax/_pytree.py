"""Frozen dataclasses as JAX pytrees.

`jax.tree_util.register_dataclass` rebuilds an object through its constructor, so a constructor that validates or
converts would run on tracers and on `None`. Here unflattening bypasses the constructor: classes may check and convert
their arguments in `__post_init__`, and `PixelSampling(mask)` stays one short call.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any, TypeVar, dataclass_transform

import jax
import jax.numpy as jnp

C = TypeVar("C", bound=type)


def static(**kwargs: Any) -> Any:
    """A field that is part of the program, not of the data: hashable, and a new value means a new trace."""
    return dataclasses.field(metadata={"static": True}, **kwargs)


def leaf(core: str, **kwargs: Any) -> Any:
    """An array field that may carry leading batch axes.

    `core` names the property that says how many axes one item has: a shape (`"in_shape"`, `"out_shape"`), a number, or
    None where that is not known. An array with more axes than that is a batch; one with as many or fewer is shared.
    """
    return dataclasses.field(metadata={"core": core}, **kwargs)


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(dataclasses.field, static, leaf))
def pytree_dataclass(cls: C) -> C:
    """Make `cls` a frozen dataclass, compared by identity, whose non-static fields are pytree children."""
    if cls.__repr__ is object.__repr__:
        cls.__repr__ = _short_repr  # type: ignore[assignment,method-assign]
    cls = dataclasses.dataclass(frozen=True, eq=False, repr=False)(cls)  # type: ignore[assignment]
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    data = tuple(f.name for f in fields if not f.metadata.get("static"))
    meta = tuple(f.name for f in fields if f.metadata.get("static"))

    def flatten(obj: Any) -> tuple[tuple, tuple]:
        return tuple(getattr(obj, n) for n in data), tuple(getattr(obj, n) for n in meta)

    def flatten_with_keys(obj: Any) -> tuple[tuple, tuple]:
        children, aux = flatten(obj)
        return tuple((jax.tree_util.GetAttrKey(n), c) for n, c in zip(data, children, strict=True)), aux

    def unflatten(aux: tuple, children: Iterable[Any]) -> Any:
        obj: Any = object.__new__(cls)
        for names, values in ((data, tuple(children)), (meta, aux)):
            for name, value in zip(names, values, strict=True):
                object.__setattr__(obj, name, value)
        return obj

    jax.tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
    return cls


def _short_repr(obj: Any) -> str:
    """Fields on one line, an array by its type and shape (a scalar by its value): a mask is never printed whole."""

    def show(value: Any) -> str:
        if not hasattr(value, "dtype") or isinstance(value, jax.core.Tracer):
            return repr(value)
        return f"{value.item():.4g}" if value.ndim == 0 and value.dtype.kind in "iuf" else f"{value.dtype}{value.shape}"

    fields = ", ".join(f"{f.name}={show(getattr(obj, f.name))}" for f in dataclasses.fields(obj))
    return f"{type(obj).__name__}({fields})"


def _axes(core: tuple[int, ...] | int | None, value: Any) -> int:
    if core is None:
        return jnp.ndim(value)
    return core if isinstance(core, int) else len(core)


def assign(obj: Any, **values: Any) -> None:
    """Set fields of a frozen object while it is being built (in `__post_init__` only)."""
    for name, value in values.items():
        object.__setattr__(obj, name, value)


def may_have_batch(tree: Any, declared: bool = False) -> Any:
    """Whether each array leaf of `tree` was declared with `leaf(core=...)`, as a pytree of the same structure.

    A network within a reconstructor was not: its parameters are shared by every item of a batch.
    """
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = [f for f in dataclasses.fields(tree) if not f.metadata.get("static")]
        children = [may_have_batch(getattr(tree, f.name), f.metadata.get("core") is not None) for f in fields]
        _, treedef = jax.tree.flatten(tree, is_leaf=lambda x: x is not tree)
        return jax.tree.unflatten(treedef, children)
    return jax.tree.map(lambda _: declared, tree)


def batch_axes(tree: Any, batch_ndim: int = 0) -> Any:
    """The number of leading batch axes of every array leaf of `tree`, as a pytree of the same structure.

    Leaves declared with `leaf(core=...)` may have some; all other leaves are shared by every item of a batch.
    """
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        children = []
        for field in dataclasses.fields(tree):
            if field.metadata.get("static"):
                continue
            value = getattr(tree, field.name)
            core = field.metadata.get("core")
            if core is None:
                children.append(batch_axes(value))
            else:
                children.append(None if value is None else max(0, jnp.ndim(value) - _axes(getattr(tree, core), value)))
        _, treedef = jax.tree.flatten(tree, is_leaf=lambda x: x is not tree)
        return jax.tree.unflatten(treedef, children)
    if isinstance(tree, tuple | list):
        parts = [batch_axes(t) for t in tree]
        return (
            type(tree)(*parts) if hasattr(tree, "_fields") else type(tree)(parts)
        )  # named tuples take them one by one
    if isinstance(tree, dict):
        return {k: batch_axes(v) for k, v in tree.items()}
    return jax.tree.map(lambda _: batch_ndim, tree)
