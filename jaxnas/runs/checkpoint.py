"""The state of a search in `state/`: the last two checkpoints, whole or not there at all.

Orbax writes each checkpoint into a temporary folder, renames it when it is complete, and checks
sums when it reads one back. A state is stored as its leaves, bit for bit (typed keys as their
words, whatever the dtype), beside a list of their names, shapes and dtypes; leaves without
elements, which Orbax refuses, are made again from that list.
"""

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from jaxnas.runs.ledger import BrokenRunError

KEEP = 2  # checkpoints that stay


class Checkpoints:
    """The checkpoints of one run; saving goes on in the background until `wait`."""

    def __init__(self, folder: Path | str, *, keep: int = KEEP) -> None:
        """Opens the folder, or makes it.

        Args:
          folder: where; only one process may have it open.
          keep: how many checkpoints stay.
        """
        self.folder = Path(folder).resolve()
        for left in self.folder.glob("*.orbax-checkpoint-tmp*"):
            shutil.rmtree(left, ignore_errors=True)
        options = ocp.CheckpointManagerOptions(max_to_keep=keep)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self._manager.close()
        except Exception as error:
            if kind is None:  # otherwise the first error says more
                raise self._explained(error) from error

    def save(self, step: int, state: PyTree) -> None:
        """Starts to save, after the checkpoint before it is complete.

        Args:
          step: how many steps `state` has seen.
          state: any pytree of arrays.

        Raises:
          OSError: if this or the last checkpoint cannot be written, say because the disk is full;
            those before it are intact.
        """
        stored = ocp.args.StandardSave(_stored(state))
        spec = ocp.args.JsonSave({"leaves": _spec(state)})
        try:
            self._manager.save(step, args=ocp.args.Composite(state=stored, spec=spec), force=True)
        except Exception as error:
            raise self._explained(error) from error

    def wait(self) -> None:
        """Returns when every checkpoint is complete.

        Raises:
          OSError: as `save`.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            raise self._explained(error) from error

    def latest(self) -> int:
        """The step of the newest complete checkpoint, 0 if there is none."""
        return max(self._steps(), default=0)

    def restore(self, like_at: Callable[[int], PyTree]) -> tuple[int, PyTree] | None:
        """Reads the newest checkpoint that can be read; damaged newer ones are removed.

        Args:
          like_at: `(step) -> like`, the structure, shapes and dtypes expected of a state of that
            step, e.g. from `jax.eval_shape`.

        Returns:
          `(step, state)`, or `None` if there is no checkpoint.

        Raises:
          ValueError: if the state stored is not like that: the configuration differs.
          BrokenRunError: if there are checkpoints, but none can be read; nothing is removed.
        """
        steps, damage = sorted(self._steps(), reverse=True), None
        for i, step in enumerate(steps):
            like = like_at(step)
            try:
                spec = self._read(step, "spec", ocp.args.JsonRestore())["leaves"]
                _compare(spec, _spec(like))
                state = self._read(step, "state", ocp.args.StandardRestore(_target(like)))
            except _MismatchError as error:
                raise ValueError(f"{self.folder / str(step)}: {error}") from None
            except Exception as error:
                damage = error
                continue
            for damaged in steps[:i]:
                self._manager.delete(damaged)
            return step, _state(state, like)
        if damage is not None:
            raise BrokenRunError(
                f"No checkpoint in {self.folder} can be read; restore it from a copy, or remove it "
                f"to start the run again."
            ) from damage
        return None

    def _steps(self) -> list[int]:
        self._manager.reload()  # after a failure it forgets checkpoints that are still there
        return list(self._manager.all_steps())

    def _read(self, step: int, name: str, how: Any) -> Any:
        return self._manager.restore(step, args=ocp.args.Composite(**{name: how}))[name]

    def _explained(self, error: Exception) -> Exception:
        if not isinstance(error, OSError) and "os_error_code" not in str(error):
            return error
        why = re.findall(r"[^:\n]+$", re.sub(r" \[os_error_code=.*", "", str(error)))
        return OSError(
            f"{self.folder} cannot take another checkpoint ({''.join(why).strip()}); free some "
            f"space, then resume: the checkpoint before it is intact."
        )


class _MismatchError(Exception):
    """What was stored is not what is expected."""


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _spec(state: PyTree) -> list[str]:
    leaves, _ = jax.tree.flatten_with_path(state)
    return [f"{jax.tree_util.keystr(path)}: {leaf.dtype}{[*leaf.shape]}" for path, leaf in leaves]


def _compare(stored: list[str], expected: list[str]) -> None:
    if stored == expected:
        return
    only_stored = [line for line in stored if line not in expected]
    only_expected = [line for line in expected if line not in stored]
    raise _MismatchError(
        f"the configuration differs from the one this state was stored with: it holds "
        f"{only_stored[:3]}, but these settings want {only_expected[:3]}; resume with the settings in "
        f"config.json, or start a new run."
    )


def _words(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _stored(state: PyTree) -> dict[str, np.ndarray]:
    leaves = jax.tree.leaves(state)
    return {str(i): np.asarray(_words(x)) for i, x in enumerate(leaves) if x.size}


def _target(like: PyTree) -> dict[str, np.ndarray]:
    words = jax.eval_shape(lambda leaves: [_words(x) for x in leaves], jax.tree.leaves(like))
    return {str(i): np.empty(x.shape, x.dtype) for i, x in enumerate(words) if x.size}


def _state(stored: dict[str, np.ndarray], like: PyTree) -> PyTree:
    def leaf(i: int, expected: Any) -> Any:
        if not expected.size:
            return jnp.empty(expected.shape, expected.dtype)
        words = jnp.asarray(stored[str(i)])
        if not _is_key(expected):
            return words
        return jax.random.wrap_key_data(
            words, impl=jax.random.key_impl(jnp.empty((), expected.dtype))
        )

    leaves, structure = jax.tree.flatten(like)
    return structure.unflatten(leaf(i, expected) for i, expected in enumerate(leaves))
