"""Checkpoints by orbax: parameters, optimiser, average and step, and what they are a checkpoint of.

The random key of a step is a function of the recipe's seed and the step, so that nothing else is needed to go on as if
nothing had happened.
"""

import dataclasses
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import jax

FREE = ("validate_every", "checkpoint_every", "log_every", "inner")  # entries of [run] that may change


def fingerprint(tables: dict[str, Any]) -> str:
    """A hash of a recipe, without what does not change the weights at a given step of a given number of steps."""
    tables = {key: value for key, value in tables.items() if key not in ("name", "about")}
    tables["run"] = {key: value for key, value in tables["run"].items() if key not in FREE}
    return hashlib.sha256(json.dumps(tables, sort_keys=True).encode()).hexdigest()


@dataclasses.dataclass
class Checkpoints:
    """The checkpoints of one training, in a folder of their own; the two newest are kept."""

    folder: Path
    _manager: Any = None

    def clear(self) -> None:
        """Forget all of them."""
        if self.folder.exists():
            shutil.rmtree(self.folder)

    def exist(self) -> bool:
        """Whether there is one to go on from."""
        return self.folder.is_dir() and self._open().latest_step() is not None

    def save(self, step: int, state: Any, about: dict[str, Any]) -> None:
        """Write `state`, a pytree of arrays, and `about`, which JSON can hold. Returns when it is on the disk.

        Raises ValueError if it cannot be written.
        """
        ocp = _orbax()
        manager = self._open()
        if step in manager.all_steps():
            return
        args = ocp.args.Composite(state=ocp.args.StandardSave(_named(state)), about=ocp.args.JsonSave(about))
        try:
            manager.save(step, args=args, force=True)
            manager.wait_until_finished()
        except Exception as err:  # orbax raises whatever its storage layers do
            # Of a full disk some of them say RESOURCE_EXHAUSTED, as XLA does of memory.
            full = "no space left" in str(err).lower() or "RESOURCE_EXHAUSTED" in str(err)
            why = "the disk is full" if full else f"{type(err).__name__}: {err}"
            raise ValueError(
                f"{self.folder}: the checkpoint of step {step} cannot be written ({why}); make room, and the same "
                "command goes on from the one before"
            ) from err

    def about(self) -> dict[str, Any]:
        """What the newest one says of itself. Raises ValueError if it cannot be read."""
        ocp = _orbax()
        manager = self._open()
        try:
            return dict(
                manager.restore(manager.latest_step(), args=ocp.args.Composite(about=ocp.args.JsonRestore())).about
            )
        except Exception as err:  # orbax raises whatever its many storage layers do
            raise ValueError(f"{self.folder}: the checkpoint cannot be read ({err}); start anew (--restart)") from err

    def restore(self, like: Any) -> Any:
        """The newest state, placed as `like` is. Raises ValueError if it cannot be read or is of another network."""
        ocp = _orbax()
        manager = self._open()
        target = {key: jax.ShapeDtypeStruct(v.shape, v.dtype, sharding=v.sharding) for key, v in _named(like).items()}
        try:
            args = ocp.args.Composite(state=ocp.args.StandardRestore(target))
            found = manager.restore(manager.latest_step(), args=args).state
        except Exception as err:
            raise ValueError(f"{self.folder}: the checkpoint cannot be read ({err}); start anew (--restart)") from err
        return jax.tree.unflatten(jax.tree.structure(like), [found[key] for key in _named(like)])

    def close(self) -> None:
        """Finish what is being written."""
        if self._manager is not None:
            self._manager.close()
            self._manager = None

    def _open(self) -> Any:
        if self._manager is None:
            ocp = _orbax()
            options = ocp.CheckpointManagerOptions(max_to_keep=2, enable_async_checkpointing=False)
            self._manager = ocp.CheckpointManager(self.folder.absolute(), options=options)
        return self._manager


def _named(state: Any) -> dict[str, Any]:
    # A flat dictionary: which containers optax and flax use is their affair, and may change with their versions.
    leaves, _ = jax.tree_util.tree_flatten_with_path(state)
    return {jax.tree_util.keystr(path): value for path, value in leaves}


def _orbax() -> Any:
    try:
        import orbax.checkpoint as ocp
    except ImportError as err:
        raise ValueError(
            "checkpoints need orbax: pip install 'emjax[train]', or train without them (--no-checkpoints)"
        ) from err
    return ocp
