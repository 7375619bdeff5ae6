"""How a solve meets `vmap` and `grad`.

A batch runs as `vmap` on accelerators and item by item on a CPU, where a vectorised while-loop costs several times as
much; outside other programs its items are spread over the cores besides (`cores.py`). Items that share one matrix are
vectorised on a CPU too: the product with many vectors costs little more than that with one.
"""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array, lax
from jax.custom_batching import custom_vmap


def by_backend(
    fn: Callable[..., Any], together: Callable[[tuple[Any, ...], Any], bool] = lambda args, in_batched: False
) -> Callable[..., Any]:
    """`fn` whose `vmap` runs item by item on a CPU and vectorised elsewhere, or everywhere where `together` says so.

    `together(args, in_batched)` sees the arguments and which of their leaves are mapped.
    """
    fn = jax.jit(fn)  # traced once for the several forms below
    mapped = custom_vmap(fn)

    @mapped.def_vmap
    def rule(size: int, in_batched: Any, *args: Any) -> Any:
        leaves, treedef = jax.tree.flatten(args)
        flags = jax.tree.leaves(in_batched)
        moving = [x for x, b in zip(leaves, flags, strict=True) if b]
        fixed = [x for x, b in zip(leaves, flags, strict=True) if not b]

        def one(function: Callable[..., Any], items: list[Array], shared: list[Array]) -> Any:
            items_iter, shared_iter = iter(items), iter(shared)
            return function(*jax.tree.unflatten(treedef, [next(items_iter if b else shared_iter) for b in flags]))

        def sequential(items: list[Array], shared: list[Array]) -> Any:
            return lax.map(lambda i: one(mapped, i, shared), items)

        def vectorised(items: list[Array], shared: list[Array]) -> Any:
            return jax.vmap(lambda i: one(fn, i, shared))(items)

        if together(args, in_batched):
            out = vectorised(moving, fixed)
        else:
            out = lax.platform_dependent(moving, fixed, cpu=sequential, default=vectorised)
        return out, jax.tree.map(lambda _: True, out)

    return mapped


def each(fn: Callable[..., Any], *args: Any) -> Any:
    """`fn` over the leading axis of every argument, item by item on a CPU and vectorised elsewhere.

    Unlike `by_backend` it maps here and now, so that `fn` may close over what an outer `vmap` maps.
    """
    fn = jax.jit(fn)
    return lax.platform_dependent(*args, cpu=lambda *a: lax.map(lambda v: fn(*v), a), default=jax.vmap(fn))


def undifferentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` whose derivative raises with advice, in place of a message about while-loops."""
    wrapped = jax.custom_jvp(fn)

    @wrapped.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        raise ValueError(
            "this solve stops when its gap is small and has no derivative as it stands; say how to differentiate it: "
            "solve(..., gradient=emjax.solvers.Implicit()) for the derivative of the optimum, or "
            "gradient=emjax.solvers.Unrolled(steps=200) for that of so many steps; or cut the derivative where it "
            "comes in: jax.lax.stop_gradient(y)"
        )

    return wrapped
