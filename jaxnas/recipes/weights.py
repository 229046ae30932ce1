"""Trained weights in the folder of a run, for networks that begin with those of their parents."""

import json
import os
from collections import deque
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxnas.programs.inheritance import Weights
from jaxnas.runs.checkpoint import KEEP
from jaxnas.runs.store import Run

FOLDER = "weights"


class KeptWeights:
    """A file for each network, by the identity of what was trained: four bytes a weight.

    A file is there whole or not at all. What a lost step has written is written again by the next
    one, bit for bit; so a run that goes on finds what it had. A file goes when none of the states
    needs it that the run may go on from: those of the checkpoints that stay and the one in the
    making.

    Example:
        >>> kept = KeptWeights()
        >>> kept.attach(run)
        >>> kept[identity] = Weights(program, layout, values)
        >>> kept.get(identity)
        >>> kept.keep({identity})
    """

    def __init__(self) -> None:
        self._folder: Path | None = None
        self._needed: deque[set[str]] = deque(maxlen=KEEP + 1)

    def attach(self, run: Run) -> None:
        """Keeps weights with this run from now on; for `System.attach`."""
        self._folder = run.folder / FOLDER
        self._folder.mkdir(exist_ok=True)
        self._needed.clear()

    def get(self, identity: str) -> Weights | None:
        """The weights, or None where none are kept."""
        path = self._path(identity)
        if not path.exists():
            return None
        with np.load(path, allow_pickle=False) as file:
            told = ((name, tuple(shape)) for name, shape in json.loads(str(file["layout"])))
            program = str(file["program"]) if "program" in file else ""  # kept by older versions
            return Weights(program, tuple(told), file["values"])

    def __setitem__(self, identity: str, weights: Weights) -> None:
        path = self._path(identity)
        partial = path.with_suffix(".partial")
        layout = np.array(json.dumps(weights.layout))
        with partial.open("wb") as file:
            np.savez(file, program=np.array(weights.program), layout=layout, values=weights.values)
        os.replace(partial, path)

    def keep(self, identities: Iterable[str]) -> None:
        """Says what a state needs whose checkpoint has begun, between two steps.

        Args:
          identities: of all that may be inherited from when the run goes on from this state.
        """
        self._needed.append({self._path(identity).name for identity in identities})
        if len(self._needed) <= KEEP:  # a checkpoint from before the run went on may be there
            return
        for path in self._home().glob("*.npz"):
            if not any(path.name in needed for needed in self._needed):
                path.unlink()

    def _path(self, identity: str) -> Path:
        return self._home() / f"{identity}.npz"

    def _home(self) -> Path:
        if self._folder is None:
            raise ValueError("`attach` must be called with a run before weights are kept.")
        return self._folder
