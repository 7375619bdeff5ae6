"""A batch over several devices.

The items of a batch are independent, and each stops on its own. So where a leading axis of the measurements (or masks,
or weights) is split over the devices of a mesh, `jax.shard_map` gives every device the loop of its own items: left to
the compiler, the loop over a batch would first gather all of them on every device.
"""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
from jax import Array
from jax.sharding import NamedSharding, PartitionSpec


def placement(flat: Any) -> tuple[Any, Any] | None:
    """The mesh, and its axes that split the items of a flattened problem; None where they are not known to be split.

    Inside of `jit` that is known of meshes with explicit axes, the default of `jax.make_mesh`.
    """
    problem, axes = flat
    return divided_over(jax.tree.leaves(problem), axes.flags)


def divided_over(leaves: Iterable[Any], flags: Iterable[bool]) -> tuple[Any, Any] | None:
    """The same of arrays, of which those flagged have the items as their leading axis."""
    for x, batched in zip(leaves, flags, strict=True):
        sharding = jax.typeof(x).sharding if isinstance(x, jax.core.Tracer) else getattr(x, "sharding", None)
        if batched and isinstance(sharding, NamedSharding) and sharding.spec and sharding.spec[0] is not None:
            names = sharding.spec[0]
            used = (names,) if isinstance(names, str) else names
            if any(sharding.mesh.shape[n] > 1 and n not in sharding.mesh.manual_axes for n in used):
                return sharding.mesh, names
    return None


@functools.partial(jax.jit, static_argnums=(0, 1, 2), static_argnames=("rows",))
def split(
    program: Callable[..., Any], mesh: Any, names: Any, flat: Any, shared: Any, items: Any, **static: Any
) -> Array:
    """`program(flat, shared, items, **static)`, every device with its part of the items; the result stays split."""
    problem, axes = flat
    leaves, treedef = jax.tree.flatten(problem)
    split, whole = PartitionSpec(names), PartitionSpec()
    specs = ([split if f else whole for f in axes.flags], whole, split)

    def local(leaves: Any, shared: Any, items: Any) -> Any:
        return program((jax.tree.unflatten(treedef, leaves), axes), shared, items, **static)

    return on_devices(local, mesh, names, specs, leaves, shared, items)


def on_devices(local: Callable[..., Any], mesh: Any, names: Any, specs: Any, *args: Any) -> Any:
    """`local(*args)` on every device with its part of those that `specs` split; what it returns is split, too."""
    if mesh.are_all_axes_explicit:
        args = jax.sharding.reshard(
            args, jax.tree.map(lambda s: NamedSharding(mesh, s), specs, is_leaf=lambda s: isinstance(s, PartitionSpec))
        )
    out = PartitionSpec(names)
    return jax.shard_map(local, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)(*args)
