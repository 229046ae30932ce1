"""What is said of one source: that it may be trained, or why not.

The reasons are in the order in which they are looked for. `parse`: no Python, too long, or no class
to be found; `forbidden`: it breaks a rule or did what a program has no business doing; `import`: its
body raises; `shape`: it cannot be called on a batch, or the result has the wrong shape; `memory`,
`time`: over a limit; `non-finite`: its loss is no number; `duplicate`: the same program has been
judged; `low`: worse than the threshold; `crash`: the process ended without an answer.
"""

import re
import traceback
from types import TracebackType
from typing import NamedTuple

FAILURES = (
    "parse",
    "forbidden",
    "import",
    "shape",
    "memory",
    "time",
    "non-finite",
    "duplicate",
    "low",
    "crash",
)
LONGEST = 2000  # characters of a message
# How Python, C++ and XLA say that memory ran out.
STARVED = re.compile("MemoryError|bad_alloc|Cannot allocate memory|RESOURCE_EXHAUSTED")


class Verdict(NamedTuple):
    """The answer for one source.

    Attributes:
      ok: it was traced and may be trained.
      failure: one of `FAILURES`, None if it is ok.
      message: what a model that wrote the source should know to mend it, at most 2,000 characters.
      params: trainable parameters.
      flops: of the forward pass of one example.
      depth: layers.
      width: the most features of a layer.
      seconds: from the moment a process had it to the answer.
      isolation: the level it really ran under, such as `landlock+seccomp`.
      identity: SHA-256 of the canonical programs; equal for sources that compute the same.
      programs: `init`, `step`, `evaluate`, and perhaps `test`, as bytes of `jax.export`, still not
        to be trusted.
      layout: name and shape of each array of weights, in order, see `inheritance.Layout`; to be
        matched by, no more, since the candidate says them. Empty where there are too many.
    """

    ok: bool
    failure: str | None
    message: str = ""
    params: int = 0
    flops: float = 0.0
    depth: int = 0
    width: int = 0
    seconds: float = 0.0
    isolation: str = ""
    identity: str = ""
    programs: dict[str, bytes] = {}  # noqa: RUF012 - nobody changes it
    layout: tuple[tuple[str, tuple[int, ...]], ...] = ()


class Rejected(Exception):  # noqa: N818 - it is a verdict, not an error of ours
    """A source fails, for a reason that a model can be told.

    Attributes:
      failure: one of `FAILURES`.
      message: how to mend it.
    """

    def __init__(self, failure: str, message: str) -> None:
        if failure not in FAILURES:
            raise ValueError(f"`failure` must be one of {', '.join(FAILURES)}, not {failure!r}.")
        super().__init__(f"{failure}: {message}")
        self.failure = failure
        self.message = shortened(message)


def shortened(message: str) -> str:
    """Start and end of a message that is too long."""
    half = LONGEST // 2 - 10
    return message if len(message) <= LONGEST else f"{message[:half]}\n[...]\n{message[-half:]}"


def told(error: BaseException, source: str, filename: str) -> str:
    """An exception of candidate code, with the line of the source it comes from.

    Args:
      error: as caught.
      source: the candidate.
      filename: under which the source was compiled.

    Returns:
      For instance ``TypeError: got int (line 7: `x = nn.Dense(10)(3)`)``.
    """
    kind = type(error).__name__
    try:
        text = f"{kind}: {error}" if str(error) else kind
    except Exception:  # its `__str__` is the candidate's
        text = kind
    line = _line(error.__traceback__, filename)
    lines = source.splitlines()
    if line and line <= len(lines):
        text = f"{shortened(text)} (line {line}: `{lines[line - 1].strip()[:200]}`)"
    return shortened(text)


def _line(trace: TracebackType | None, filename: str) -> int | None:
    """The innermost line of the source on the way to an exception."""
    frames = [frame for frame in traceback.extract_tb(trace) if frame.filename == filename]
    return frames[-1].lineno if frames else None
