"""The optimiser: clipping by the global norm, then AdamW (Loshchilov & Hutter, ICLR 2019), by optax.

The learning rate stands outside of the chain: it depends on the number of steps, which `--minutes` fixes only after
the training step has been compiled, so that it is an argument there.

    rate(t) = peak * min(1, (t + 1) / warm),                       t < warm = warm_up * steps
    rate(t) = peak * (final + (1 - final) (1 + cos(pi s)) / 2),    s = (t - warm) / (steps - warm)
"""

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
from jax import Array

if TYPE_CHECKING:
    import optax


@dataclasses.dataclass(frozen=True)
class Optimiser:
    """`warm_up` and `final` are shares: of the steps, and of the peak learning rate at the end.

    `clip` is the largest global norm of a gradient (0: none). `ema` is the decay of the average of the parameters,
    which starts faster: `min(ema, (1 + t) / (10 + t))`. `weight_decay` acts on kernels (two axes or more) only.
    """

    learning_rate: float = 1e-3
    warm_up: float = 0.02
    final: float = 0.01
    weight_decay: float = 0.0
    clip: float = 1.0
    ema: float = 0.999
    b1: float = 0.9
    b2: float = 0.999

    def check(self) -> None:
        """Raises ValueError for an entry outside of its range, naming the key."""
        for key in ("warm_up", "final", "ema", "b1", "b2"):
            value = getattr(self, key)
            if not 0 <= value < 1 + (key == "final"):
                raise ValueError(f"optimiser.{key} is a number from 0 to below 1, got {value}")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"optimiser.learning_rate is a number above 0, got {self.learning_rate}")
        for key in ("weight_decay", "clip"):
            if not 0 <= getattr(self, key) < float("inf"):
                raise ValueError(f"optimiser.{key} is a number, 0 or above, got {getattr(self, key)}")

    def transformation(self) -> "optax.GradientTransformation":
        """The chain, all but the learning rate."""
        import optax

        links = [optax.clip_by_global_norm(self.clip)] if self.clip else []
        links.append(optax.scale_by_adam(self.b1, self.b2))
        if self.weight_decay:
            links.append(optax.add_decayed_weights(self.weight_decay, mask=_kernels))
        return optax.chain(*links)

    def rate(self, step: Any, steps: Any) -> Array:
        """The learning rate of step `step` (from 0) of `steps`; both may be traced."""
        t, n = jnp.asarray(step, jnp.float32), jnp.asarray(steps, jnp.float32)
        warm = jnp.floor(self.warm_up * n)
        share = jnp.clip((t - warm) / jnp.maximum(n - warm, 1), 0, 1)
        cosine = self.final + (1 - self.final) * 0.5 * (1 + jnp.cos(jnp.pi * share))
        return self.learning_rate * jnp.where(t < warm, (t + 1) / jnp.maximum(warm, 1), cosine)

    def decay(self, step: Any) -> Array:
        """The decay of the average of the parameters at step `step` (from 0)."""
        t = jnp.asarray(step, jnp.float32)
        return jnp.minimum(self.ema, (1 + t) / (10 + t))


def _kernels(params: Any) -> Any:
    return jax.tree.map(lambda p: p.ndim > 1, params)
