"""The training step and the validation, compiled.

    state = (parameters, optimiser, average, step),    key_t = fold_in(key, t)

Every random number of step t follows from the seed and t, so that a training that was stopped goes on bit by bit.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from emjax.training import parameters as par
from emjax.training.augment import augment, random_crops
from emjax.training.data import Images
from emjax.training.recipe import Recipe
from emjax.training.tasks import Task

State = dict[str, Any]


def initial(parameters: Any, recipe: Recipe) -> State:
    """The state before the first step."""
    return {
        "parameters": parameters,
        "optimiser": recipe.optimiser.transformation().init(parameters),
        "average": par.copy(parameters),
        "step": jnp.zeros((), jnp.int32),
    }


def training_step(recipe: Recipe, task: Task, graph: Any, mesh: Any = None) -> Callable[..., tuple[State, dict]]:
    """`run(state, rest, images, arrays, steps, count) -> (state, sums)`: `count` steps of a training of `steps`.

    One call. `arrays` are those of the task.

    `state` is donated. `sums` are the loss and the numbers of the task, summed over these steps. A `count` of None is
    one step without a loop around it. `mesh` splits the batch over devices.
    """
    data, optimiser = recipe.data, recipe.optimiser
    transformation = optimiser.transformation()
    key = jax.random.key(recipe.run.seed)
    sharding = None
    if mesh is not None:
        sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(mesh.axis_names))

    def one(state: State, rest: Any, images: Images, arrays: dict[str, Array], steps: Array) -> tuple[State, dict]:
        t = state["step"]
        crop_key, augment_key, task_key = jax.random.split(jax.random.fold_in(key, t), 3)
        patches = random_crops(crop_key, images, data.crop, data.batch, data.augment.binning)
        patches = augment(augment_key, patches, data.augment, clip=not data.scans)
        if sharding is not None:
            patches = lax.with_sharding_constraint(patches, sharding)
        progress = t / jnp.maximum(steps, 1)

        def loss(parameters: Any) -> tuple[Array, dict[str, Array]]:
            network = par.join(graph, parameters, rest, recipe.run.compute)
            return task.loss(network, patches, task_key, progress, **arrays)

        (value, more), gradient = jax.value_and_grad(loss, has_aux=True)(state["parameters"])
        updates, chain = transformation.update(gradient, state["optimiser"], state["parameters"])
        rate, decay = optimiser.rate(t, steps), optimiser.decay(t)
        new = jax.tree.map(lambda p, u: p - rate * u, state["parameters"], updates)
        average = jax.tree.map(lambda a, p: a + (1 - decay) * (p - a), state["average"], new)
        norm = jnp.sqrt(sum(jnp.sum(jnp.square(g)) for g in jax.tree.leaves(gradient)))
        sums = {"loss": value, "gradient_norm": norm, **more}
        return {"parameters": new, "optimiser": chain, "average": average, "step": t + 1}, sums

    @functools.partial(jax.jit, donate_argnums=0)
    def run(
        state: State, rest: Any, images: Images, arrays: dict[str, Array], steps: Array, count: Array | None
    ) -> tuple[State, dict]:
        if count is None:
            return one(state, rest, images, arrays, steps)
        shapes = jax.eval_shape(one, state, rest, images, arrays, steps)[1]
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)

        def body(_: Array, carry: tuple[State, dict]) -> tuple[State, dict]:
            state, sums = carry
            state, more = one(state, rest, images, arrays, steps)
            return state, jax.tree.map(jnp.add, sums, more)

        return lax.fori_loop(0, count, body, (state, zeros))

    return run


class Validation:
    """Held-out patches, cut once with a fixed key, and the scores on them of the averaged parameters in float32."""

    def __init__(self, recipe: Recipe, task: Task, graph: Any, images: Images):
        data = recipe.data
        # Whole batches, so that one program serves all.
        self.size = min(data.batch, data.validation_crops)
        self.batches = -(-data.validation_crops // self.size)
        crop = data.validation_crop or data.crop
        make = jax.jit(random_crops, static_argnums=(2, 3))
        self.patches = make(jax.random.key(0), images, crop, self.size * self.batches)

        @jax.jit
        def score(parameters: Any, rest: Any, patches: Array, key: Array, arrays: dict[str, Array]) -> dict[str, Array]:
            return task.evaluate(par.join(graph, parameters, rest), patches, key, **arrays)

        self._score = score

    def __call__(self, parameters: Any, rest: Any, arrays: dict[str, Array]) -> dict[str, float]:
        """The means over all patches; `psnr` among them."""
        key = jax.random.key(1)
        parts = []
        for i in range(self.batches):
            patches = self.patches[i * self.size : (i + 1) * self.size]
            parts.append(self._score(parameters, rest, patches, jax.random.fold_in(key, i), arrays))
        return {name: sum(float(p[name]) for p in parts) / len(parts) for name in parts[0]}
