"""What recipes whose candidates are programs share: who writes, who judges, curves of training."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from jaxnas.llm import Client
from jaxnas.programs import edit_replies
from jaxnas.programs.bench import Training, bench
from jaxnas.programs.inheritance import Memory
from jaxnas.programs.judge import Judge
from jaxnas.programs.lessons import Lesson
from jaxnas.programs.proposer import Proposer, from_client


def judges(
    lesson: Lesson, config: Any, *, seeds: Sequence[str], memory: Memory | None = None
) -> tuple[Judge, Judge]:
    """Who judges in the search, by one run, and who judges its answers, by others and a test set.

    Args:
      lesson: what is learned.
      config: has `learning_rate`, `together`, `deadline` and `steps` of a training, the `runs` whose
        mean judges the answers, and `level` and `workers` of the sandbox.
      seeds: sources whose random edits are samples.
      memory: of weights that are inherited in the search; answers are always trained from scratch.
    """

    def judge(runs: int, seed: int, tested: bool, memory: Memory | None = None) -> Judge:
        training = Training(
            learning_rate=config.learning_rate,
            evaluate_every=every(lesson, config.steps),
            runs=runs,
            seed=seed,
            together=config.together,
            deadline=config.deadline,
            tested=tested,
        )
        halves = bench(lesson, training, level=config.level, workers=config.workers)
        return Judge(*halves, steps=config.steps, seeds=seeds, memory=memory)

    return judge(1, 0, False, memory), judge(config.runs, 1, True)


def writer(
    wanted: str,
    grammar: str,
    *,
    edits: Sequence[int] | None,
    constrained: bool,
    max_tokens: int,
    begun: str = "",
) -> Callable[[Client], Proposer]:
    """How a language model writes programs.

    Args:
      wanted: name of the class or function.
      grammar: of a whole one; empty where there is none.
      edits: shape of one example, where the model is asked for one edit of a parent in the place of
        a whole class; else None.
      constrained: whether replies are held to a grammar.
      max_tokens: the most tokens of a reply.
      begun: see `proposer.from_client`.
    """
    if edits is not None:
        how = {"max_tokens": max_tokens, "constrained": constrained}
        return partial(edit_replies.from_client, shape=edits, **how)
    return partial(
        from_client,
        wanted=wanted,
        max_tokens=max_tokens,
        begun=begun,
        grammar=(grammar or None) if constrained else None,
    )


def every(lesson: Lesson, steps: int) -> int:
    """Steps between two looks at the validation split: a twentieth of a training, or fewer."""
    return max(1, min(lesson.evaluate_every, steps // 20))


def trace(lesson: Lesson, steps: int, extra: Any) -> dict[str, list[float]]:
    """The loss of a training of so many steps, from the `extra` of `programs.judge`."""
    loss = np.asarray(extra["curve"], float).tolist()
    ends = [float(min(steps, (n + 1) * every(lesson, steps))) for n in range(len(loss))]
    return {"x": ends, "mean": loss, "low": loss, "high": loss}
