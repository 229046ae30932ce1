"""Sources as a `Problem`: checked in a sandbox, trained where no source is ever run."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Key, UInt8

from jaxnas.core import Asked, Measured
from jaxnas.programs.edits import edited
from jaxnas.programs.inheritance import Memory, Weights, inherited
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
      weights: `[W]` after training, where those it began with were given.
    """

    valid: float
    test: float
    steps: int
    failure: str | None = None
    curve: tuple[float, ...] = ()
    message: str = ""
    weights: Float32[np.ndarray, " W"] | None = None


class Trainee(NamedTuple):
    """A program to be trained.

    Attributes:
      verdict: on its source.
      identity: SHA-256 of the program and of what it begins with; empty for what is no program.
      start: `[W]` weights it begins with, see `inheritance.inherited`; `None` for its own.
      steps: of training.
    """

    verdict: Verdict
    identity: str
    start: Float32[np.ndarray, " W"] | None
    steps: int

    @property
    def task(self) -> tuple[str, int]:
        """What is trained once."""
        return self.identity, self.steps


DUPLICATE = Score(np.nan, np.nan, 0, "duplicate")
Start = Float32[np.ndarray, " W"] | None
Starts = Sequence[Start]
Check = Callable[[Sequence[str]], list[Verdict]]
Train = Callable[..., list[Score]]


class Judge:
    """Programs, judged by the accuracy they reach in so many steps of training.

    Nothing depends on the key: a program is always trained from the same seed. The judge remembers
    nothing; what a search has met already is told to it (`distinct`), so that it is not trained again.

    Args:
      check: sources to verdicts, such as `Pool.check`.
      train: `(programs, steps) -> scores` in order; with a memory `(programs, steps, starts)`.
      steps: of training, where a candidate's budget is -1; also the most.
      seeds: sources whose random edits are samples.
      memory: of trained weights, with which the children of a program begin; `None` where all begin
        with their own. A program that begins otherwise is another one, but no copy of a parent is.

    Raises:
      ValueError: if there is no step to train.
    """

    def __init__(
        self,
        check: Check,
        train: Train,
        *,
        steps: int,
        seeds: Sequence[str],
        memory: Memory | None = None,
    ) -> None:
        if steps < 1:
            raise ValueError(f"`steps` must be at least 1, but got {steps}.")
        self.check, self.train, self.memory = check, train, memory
        self.steps, self.seeds = steps, tuple(seeds)

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
          met: what the search has asked for before by serial number, as it came in
            `extra["identity"]`: what is among it, or earlier in the batch, is a duplicate. `None`
            for a measurement on its own.

        Returns:
          Fitness in %, and by name in `extra`: `params`, `flops`, `depth`, `width`, `valid` (the
          fitness, not a number where there is none), `test`, `curve` `[N, T]`, `seconds` in the
          sandbox, `identity` `[N, 32]`, and `message` `[N, 2048]` for whoever is to mend it.
        """
        del key
        trainees = self._trainees(asked, met)
        again = _repeated([one.identity for one in trainees], met)
        pairs = list(zip(trainees, again, strict=True))
        new = {one.task: one for one, known in pairs if one.verdict.ok and not known}
        trained = self._trained(new)
        scores = [DUPLICATE if known else trained.get(one.task) for one, known in pairs]
        return _measured(trainees, scores)

    def _trainees(self, asked: Asked, met: UInt8[np.ndarray, "M 32"] | None) -> list[Trainee]:
        """Each program with the weights of its first parent, where it has any."""
        verdicts, budget = self._verdicts(texts(asked.genotypes)), np.asarray(asked.budget)
        lengths = np.where(budget < 0, self.steps, np.minimum(budget, self.steps)).tolist()
        trainees = []
        for verdict, names, steps in zip(verdicts, _parents(asked, met), lengths, strict=True):
            identity, start = verdict.identity, None
            if self.memory is not None:
                parents = {name: self.memory.get(name) for name in names if name}
                start = inherited(verdict.layout, parents.get(names[0]))
                identity = _identity(verdict.identity, start, parents)
            trainees.append(Trainee(verdict, identity, start, steps))
        return trainees

    def _trained(self, trainees: Mapping[tuple[str, int], Trainee]) -> dict[Any, Score]:
        """The scores of programs, those of equal length together."""
        scores: dict[Any, Score] = {}
        for steps in sorted({trainee.steps for trainee in trainees.values()}):
            some = {task: one for task, one in trainees.items() if one.steps == steps}
            programs = [one.verdict.programs for one in some.values()]
            starts = () if self.memory is None else ([one.start for one in some.values()],)
            scores |= dict(zip(some, self.train(programs, steps, *starts), strict=True))
        for task, score in scores.items():
            if self.memory is not None and score.failure is None and score.weights is not None:
                verdict = trainees[task].verdict
                weights = Weights(verdict.identity, verdict.layout, score.weights)
                self.memory[trainees[task].identity] = weights
        return scores

    def _verdicts(self, sources: Sequence[str]) -> list[Verdict]:
        """Of all sources; an empty page is none."""
        told = iter(self.check([source for source in sources if source]))
        empty = Verdict(False, "parse", "The source is empty.")
        return [next(told) if source else empty for source in sources]


def _parents(asked: Asked, met: UInt8[np.ndarray, "M 32"] | None) -> list[list[str]]:
    """The identities of the parents of each, `P` a candidate, empty where there is none."""
    if met is None or asked.parents is None:
        return [[""]] * len(asked.genotypes)
    names = ["", *(row.tobytes().hex() for row in met)]
    return [[names[serial] for serial in row] for row in np.asarray(asked.parents).tolist()]


def _identity(program: str, start: Start, parents: Mapping[str, Weights | None]) -> str:
    """A program that begins with weights of another is not the one that begins with its own.

    A copy of a parent is that parent, whatever it would begin with.
    """
    for identity, weights in parents.items():
        if weights is not None and weights.program == program:
            return identity
    if start is None or np.isnan(start).all():
        return program
    return hashlib.sha256(bytes.fromhex(program) + start.tobytes()).hexdigest()


def _repeated(identities: Sequence[str], met: UInt8[np.ndarray, "M 32"] | None) -> list[bool]:
    """Of which there was one before; what is no program has none."""
    if met is None:
        return [False] * len(identities)
    known, again = {row.tobytes().hex() for row in met}, []
    for identity in identities:
        again.append(bool(identity) and identity in known)
        known.add(identity)
    return again


def _measured(trainees: Sequence[Trainee], scores: Sequence[Score | None]) -> Measured:
    verdicts = [one.verdict for one in trainees]
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
        "identity": jnp.asarray([_digits(one.identity) for one in trainees], jnp.uint8),
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
