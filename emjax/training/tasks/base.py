"""What a task is: a frozen dataclass whose fields are the keys of the recipe's [task] table."""

import inspect
from pathlib import Path
from typing import Any, Self

from jax import Array
from jaxtyping import Float, PRNGKeyArray


def arguments(network: Any) -> set[str]:
    """The names of what a network is called with."""
    return set(inspect.signature(type(network).__call__).parameters)


class Task:
    """Base class. Subclasses are frozen dataclasses with `loss` and `evaluate`, both pure and compiled by the loop."""

    @property
    def scans(self) -> bool:
        """Whether the patches of `loss` are scans, NaN where nothing was measured; those of `evaluate` never are."""
        return False

    @classmethod
    def from_recipe(cls, table: dict[str, Any], folder: Path | None) -> Self:
        """The task of a [task] table (without `kind`); `folder` is where its files lie, if it has any.

        Raises ValueError naming the key: unknown, missing, of the wrong type or outside of its range.
        """
        from emjax.training.recipe import parse

        task = parse(cls, table, "task")
        task.check()
        return task

    def check(self) -> None:
        """Raise ValueError for a field outside of its range, naming the key."""

    def refuses(self, network: Any) -> str | None:
        """Which networks the task trains, if this is none of them."""
        return None

    def arrays(self) -> dict[str, Array]:
        """Large arrays that are made once and handed to `loss` and `evaluate` by name: none are compiled in."""
        return {}

    def loss(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, progress: Array, **arrays: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The loss on augmented patches in [0, 1], and further numbers for the log; `progress` runs from 0 to 1."""
        raise NotImplementedError

    def evaluate(
        self, network: Any, images: Float[Array, "batch h w"], key: PRNGKeyArray, **arrays: Array
    ) -> dict[str, Array]:
        """Means over held-out patches, for the same key the same every time; `"psnr"` in dB is one of them."""
        raise NotImplementedError
