"""Sources as a `Problem`: checked in a sandbox, trained where no source is ever run."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key, UInt8

from jaxnas.core import Asked, Measured
from jaxnas.programs.edits import edited
from jaxnas.programs.page import pages, texts
from jaxnas.programs.sandbox.verdict import FAILURES, Verdict

REASONS = ("", *FAILURES)
MESSAGE = 2048  # bytes kept of what a model should know to mend its program


class Score(NamedTuple):
    """How the training of one program ended.

    Attributes:
      valid: best accuracy of validation seen, in %.
      test: accuracy on the test set in %, at the same moment; not a number where it was not asked.
      steps: trained.
      failure: one of `FAILURES` where there is no accuracy, else None.
      curve: loss of training along the way; empty where the training did not end.
      message: about the failure.
    """

    valid: float
    test: float
    steps: int
    failure: str | None = None
    curve: tuple[float, ...] = ()
    message: str = ""


DUPLICATE = Score(np.nan, np.nan, 0, "duplicate")
Task = tuple[str, int]  # an identity and the steps it is trained for
Check = Callable[[Sequence[str]], list[Verdict]]
Train = Callable[[Sequence[Mapping[str, bytes]], int], list[Score]]


class Judge:
    """Programs, judged by the accuracy they reach in so many steps of training.

    Nothing depends on the key: a program is always trained from the same seed. The judge remembers
    nothing; what a search has met already is told to it (`distinct`), so that it is not trained again.

    Args:
      check: sources to verdicts, such as `Pool.check`.
      train: `(programs, steps) -> scores` in order.
      steps: of training, where a candidate's budget is -1; also the most.
      seeds: sources whose random edits are samples.

    Raises:
      ValueError: if there is no step to train.
    """

    def __init__(self, check: Check, train: Train, *, steps: int, seeds: Sequence[str]) -> None:
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1, but got {steps}.")
        self.check, self.train, self.steps, self.seeds = check, train, steps, tuple(seeds)

    def sample(self, key: Key[Array, ""], n: int) -> UInt8[np.ndarray, "n L"]:
        """Random edits of the seeds, one to three each."""
        numbers = np.asarray(jax.random.randint(key, (n,), 0, 2**31 - 1)).tolist()
        return pages([edited(self.seeds[i % len(self.seeds)], i, most=3) for i in numbers])

    def evaluate(
        self, key: Key[Array, ""], asked: Asked, met: UInt8[np.ndarray, "M 32"] | None = None
    ) -> Measured:
        """Checks every source and trains each program once; `cost` is in steps.

        Args:
          key: of nothing.
          asked: pages of source.
          met: what the search has asked for before, as it came in `extra["identity"]`: what is
            among it, or earlier in the batch, is a duplicate. `None` for a measurement on its own.

        Returns:
          Fitness in %, and by name in `extra`: `params`, `flops`, `depth`, `width`, `valid` (the
          fitness, not a number where there is none), `test`, `curve` `[N, T]`, `seconds` in the
          sandbox, `identity` `[N, 32]`, and `message` `[N, 2048]` for whoever is to mend it.
        """
        del key
        verdicts = self._verdicts(texts(asked.genotypes))
        budget = np.asarray(asked.budget)
        lengths = np.where(budget < 0, self.steps, np.minimum(budget, self.steps)).tolist()
        tasks = [(v.identity, n) if v.ok else None for v, n in zip(verdicts, lengths, strict=True)]
        again = (
            [False] * len(tasks) if met is None else _repeated([v.identity for v in verdicts], met)
        )
        programs = {
            task: v.programs
            for task, v, known in zip(tasks, verdicts, again, strict=True)
            if task and not known
        }
        trained = self._trained(programs)
        scores = [
            DUPLICATE if known else trained[task] if task else None
            for task, known in zip(tasks, again, strict=True)
        ]
        return _measured(verdicts, scores)

    def _trained(self, programs: Mapping[Task, Mapping[str, bytes]]) -> dict[Task, Score]:
        """The scores of programs, those of equal length together."""
        scores: dict[Task, Score] = {}
        for steps in sorted({steps for _, steps in programs}):
            some = [task for task in programs if task[1] == steps]
            ended = self.train([programs[task] for task in some], steps)
            scores |= dict(zip(some, ended, strict=True))
        return scores

    def _verdicts(self, sources: Sequence[str]) -> list[Verdict]:
        """Of all sources; an empty page is none."""
        told = iter(self.check([source for source in sources if source]))
        empty = Verdict(False, "parse", "The source is empty.")
        return [next(told) if source else empty for source in sources]


def _repeated(identities: Sequence[str], met: UInt8[np.ndarray, "M 32"]) -> list[bool]:
    """Of which programs there was one before; what is no program has no identity."""
    known, again = {row.tobytes().hex() for row in met}, []
    for identity in identities:
        again.append(bool(identity) and identity in known)
        known.add(identity)
    return again


def _measured(verdicts: Sequence[Verdict], scores: Sequence[Score | None]) -> Measured:
    reasons = [s.failure if s else v.failure for v, s in zip(verdicts, scores, strict=True)]
    failure = jnp.asarray([REASONS.index(reason or "") for reason in reasons], jnp.int32)
    valid = np.array([-np.inf if s is None or s.failure else s.valid for s in scores], np.float32)
    ended = [s or Score(np.nan, np.nan, 0) for s in scores]
    counts = {
        name: jnp.asarray([getattr(v, name) for v in verdicts], kind)
        for name, kind in (
            ("params", jnp.int32),
            ("flops", jnp.float32),
            ("depth", jnp.int32),
            ("width", jnp.int32),
            ("seconds", jnp.float32),
        )
    }
    extra = counts | {
        "valid": jnp.asarray([s.valid for s in ended], jnp.float32),
        "test": jnp.asarray([s.test for s in ended], jnp.float32),
        "curve": jnp.asarray(_rows([s.curve for s in ended])),
        "identity": jnp.asarray([_digits(v.identity) for v in verdicts], jnp.uint8),
        "message": jnp.asarray(
            [_bytes(v.message or s.message) for v, s in zip(verdicts, ended, strict=True)],
            jnp.uint8,
        ),
    }
    cost = jnp.asarray([s.steps for s in ended], jnp.float32)
    return Measured(jnp.asarray(valid), cost, extra, failure)


def _rows(curves: Sequence[Sequence[float]]) -> np.ndarray:
    """Curves below each other; what was not trained, or shorter, ends in NaN."""
    rows = np.full((len(curves), max(map(len, curves), default=0)), np.nan, np.float32)
    for row, curve in zip(rows, curves, strict=True):
        row[: len(curve)] = curve
    return rows


def _digits(identity: str) -> list[int]:
    return list(bytes.fromhex(identity or "0" * 64))


def _bytes(message: str) -> np.ndarray:
    data = message.encode("utf-8", "replace")[:MESSAGE].ljust(MESSAGE, b"\0")
    return np.frombuffer(data, np.uint8)
