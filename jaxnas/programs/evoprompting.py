"""EvoPrompting: a language model as the mutation and crossover of evolving programs.

Chen, Dohan and So, "EvoPrompting: Language Models for Code-Level Neural Architecture Search",
NeurIPS 2023, arXiv:2302.14838. A prompt shows a few programs with their metrics and asks with metrics
that are a little better; what the model writes to go with these is trained. Survivors score
-(size x error); the best of them are the parents of the next round and of that round only, and the
model is tuned on those that were not chosen.

Where we differ: a step is one prompt, so a killed run loses the children of one prompt; where fewer
than `survivors` are there all of them become parents, and where there is none the old ones stay.
`selection` other than `best` gives the paper's baselines. The paper's model goes on with one text; to
one that chats the same is a `dialogue`, in which it has given the examples. The usual imports are
left out of prompts, as in the paper's listing.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt8

from jaxnas.core import Asked, Measured, Searcher
from jaxnas.programs.imports import without_imports
from jaxnas.programs.page import LENGTH, pages, text, texts
from jaxnas.programs.proposal import Proposal, Proposer

STUB = "class Model(nn.Module):"
INSTRUCTION = (
    "You write neural networks in Flax. I say which metrics a network has, you answer with its code: "
    "that one class, no imports, not a word before or after it."
)
SELECTIONS = ("best", "random", "seeds")


class Tuner(NamedTuple):
    """A proposer that learns between rounds.

    Attributes:
      init: `(key) -> state`, arrays.
      tune: `(state, key, sources) -> state`, given the measured children of a round that did not
        become parents.
      proposer: `(state) -> proposer`.
      course: `(state) -> numbers`, how well it has learned, for the ledger.
    """

    init: Callable[[Key[Array, ""]], PyTree]
    tune: Callable[[PyTree, Key[Array, ""], list[str]], PyTree]
    proposer: Callable[[PyTree], Proposer]
    course: Callable[[PyTree], dict[str, Array]] = lambda state: {}


def untuned(proposer: Proposer) -> Tuner:
    """A proposer that stays as it is."""
    return Tuner(lambda key: (), lambda state, key, sources: state, lambda state: proposer)


class Settings(NamedTuple):
    """The paper's table.

    Attributes:
      rounds: after each of which, but the last, parents are chosen, T.
      prompts: of a round, m.
      samples: of a prompt, n; the candidates of a step.
      examples: parents in a prompt, drawn uniformly and with replacement, k.
      survivors: that become parents, p.
      threshold: error of validation, 0 to 1, from which on a child does not survive, alpha.
      temperatures: of which each prompt draws one.
      selection: of parents: `best` by score, `random` among the survivors, or `seeds`, the same in
        all rounds, which is few-shot prompting without evolution.
      instruction: said first, in a dialogue; empty for a model that only completes text.
      stub: the line that all programs begin with, imports left aside.
    """

    rounds: int = 10
    prompts: int = 10
    samples: int = 16
    examples: int = 2
    survivors: int = 10
    threshold: float = 0.5
    temperatures: tuple[float, ...] = (0.2, 0.6, 0.8, 1.0)
    selection: str = "best"
    instruction: str = INSTRUCTION
    stub: str = STUB


class State(NamedTuple):
    """All programs asked for, in order: the `A` rows of a book that only grows.

    Attributes:
      pages: `[A, L]` sources, the seeds first.
      size: `[A]` trainable parameters; not a number for what has no fitness.
      error: `[A]` of validation, 0 to 1; likewise.
      used: `[A]` whether it is or was a parent.
      parents: `[P]` rows of this round's parents, then -1 where there are fewer.
      asked: how many rows are written.
      key: of what is drawn between rounds.
      tuned: state of the tuner.
    """

    pages: UInt8[Array, "A L"]
    size: Float[Array, " A"]
    error: Float[Array, " A"]
    used: Bool[Array, " A"]
    parents: Int[Array, " P"]
    asked: Int[Array, ""]
    key: Key[Array, ""]
    tuned: PyTree


class Example(NamedTuple):
    """A program as a prompt shows it.

    Attributes:
      source: of a program.
      size: trainable parameters.
      error: of validation, 0 to 1.
    """

    source: str
    size: int
    error: float


def evoprompting(tuner: Tuner, seeds: Sequence[str], settings: Settings) -> Searcher:
    """Rounds of prompts; a searcher for the host, and for as many steps as `steps` says.

    A problem must give validation accuracy in % as fitness and `params` in `extra`. Duplicates are
    to be given no fitness (`distinct`). The first steps measure the seeds, the places left over
    being empty pages, which are to score `-inf`.

    Args:
      tuner: who writes programs, see `untuned`.
      seeds: sources of programs.
      settings: `Settings()` are the paper's.

    Raises:
      ValueError: if a number or a word is out of range; while it runs, if no seed has a fitness.
    """
    for name in ("rounds", "prompts", "samples", "examples", "survivors"):
        if getattr(settings, name) < 1:
            raise ValueError(f"`{name}` must be at least 1, but got {getattr(settings, name)}.")
    if settings.selection not in SELECTIONS:
        raise ValueError(
            f"`selection` must be one of {', '.join(SELECTIONS)}, but got {settings.selection!r}."
        )
    if not all(0 <= heat < math.inf for heat in settings.temperatures):
        raise ValueError(
            f"`temperatures` must be finite and not negative, but got {settings.temperatures}."
        )
    if not 0 < settings.threshold <= 1:
        raise ValueError(
            f"`threshold` must be an error above 0, up to 1, but got {settings.threshold}."
        )
    return Searcher(
        partial(_init, tuner, len(seeds), settings),
        partial(_ask, tuner, seeds, settings),
        partial(_tell, tuner, len(seeds), settings),
    )


def steps(seeds: int, settings: Settings) -> int:
    """How many steps a search takes: those that measure the seeds, and one for each prompt."""
    return -(-seeds // settings.samples) + settings.rounds * settings.prompts


def rows(seeds: int, settings: Settings) -> int:
    """How many programs a search asks for, `A`."""
    return seeds + settings.rounds * settings.prompts * settings.samples


def score(state: State) -> Float[Array, " A"]:
    """`-(size x error)`, and `-inf` for what has no fitness."""
    product = -state.size * state.error
    return jnp.where(jnp.isnan(product), -jnp.inf, product)


def best(state: State, threshold: float) -> Int[Array, ""]:
    """The row of the highest score among those that survive, seeds included.

    Args:
      state: of the search.
      threshold: see `Settings`; where nothing survives, all are looked at.
    """
    scores, alive = score(state), state.error < threshold
    return jnp.argmax(jnp.where(alive | ~alive.any(), scores, -jnp.inf))


def front(state: State) -> list[int]:
    """Rows that no other beats in size or error without being worse in the other, by size."""
    size, error = np.asarray(state.size), np.asarray(state.error)
    order = [row for row in np.lexsort((error, size)).tolist() if not np.isnan(error[row])]
    kept: list[int] = []
    for row in order:
        if not kept or error[row] < error[kept[-1]]:
            kept.append(row)
    return kept


def prompt(examples: Sequence[Example], stub: str = STUB) -> str:
    """Programs with their metrics, then the metrics wanted and the beginning of a program.

    Wanted are 90 % of the smallest size, to the next hundred, and 102 % of the highest accuracy.

    Args:
      examples: what is shown.
      stub: the line that a program begins with.
    """
    shown = [
        f"{_metrics(one.size, 1 - one.error)}{without_imports(one.source)}\n\n\n"
        for one in examples
    ]
    return "".join(shown) + _metrics(*_wanted(examples)) + stub


def dialogue(
    examples: Sequence[Example], instruction: str, stub: str = STUB
) -> list[Mapping[str, str]]:
    """The same for a model that chats: it has answered all requests but the last.

    Left to go on with one text, small models answer with another docstring.

    Args:
      examples: what is shown.
      instruction: said first.
      stub: the line that a program begins with.
    """

    def asked(size: int, accuracy: float) -> Mapping[str, str]:
        return {"role": "user", "content": f"{_metrics(size, accuracy)}Begin with `{stub}`."}

    messages: list[Mapping[str, str]] = [{"role": "system", "content": instruction}]
    for one in examples:
        answer = {"role": "assistant", "content": without_imports(one.source)}
        messages += [asked(one.size, 1 - one.error), answer]
    return [*messages, asked(*_wanted(examples))]


def _wanted(examples: Sequence[Example]) -> tuple[int, float]:
    size = (9 * min(one.size for one in examples) + 500) // 1000 * 100
    return size, 1.02 * max(1 - one.error for one in examples)


def _messages(examples: Sequence[Example], settings: Settings) -> list[Mapping[str, str]]:
    if settings.instruction:
        return dialogue(examples, settings.instruction, settings.stub)
    return [{"role": "user", "content": prompt(examples, settings.stub)}]


def _wish(examples: Sequence[Example]) -> str:
    """What is asked of who changes the first example alone."""
    first, (size, accuracy) = examples[0], _wanted(examples)
    return (
        f"The numbered network has {first.size} parameters and a validation accuracy of "
        f"{1 - first.error:.3f}. Change it so that it has {size} and {accuracy:.3f}."
    )


def _metrics(size: int, accuracy: float) -> str:
    metrics = {"num_params": f"{size}", "val_accuracy": f"{accuracy:.3f}"}
    return f'"""Metrics:\n{metrics}\n"""\n'


def _init(tuner: Tuner, seeds: int, settings: Settings, key: Key[Array, ""]) -> State:
    total = rows(seeds, settings)
    unknown = jnp.full(total, jnp.nan, jnp.float32)
    return State(
        pages=jnp.zeros((total, LENGTH), jnp.uint8),
        size=unknown,
        error=unknown,
        used=jnp.arange(total) < seeds,
        parents=jnp.full(max(settings.survivors, seeds), -1, jnp.int32),
        asked=jnp.int32(0),
        key=key,
        tuned=tuner.init(jax.random.fold_in(key, 0)),
    )


def _ask(
    tuner: Tuner, seeds: Sequence[str], settings: Settings, key: Key[Array, ""], state: State
) -> tuple[Asked, State]:
    n, at = settings.samples, int(state.asked)
    if at < len(seeds):
        sources, drawn = list(seeds[at : at + n]), np.full(settings.examples, -1)
        sources += [""] * (n - len(sources))
    else:
        drawn, wishes = _wishes(settings, key, state)
        sources = tuner.proposer(state.tuned)(wishes)
    serials = jnp.tile(jnp.asarray(drawn + 1, jnp.int32), (n, 1))
    return Asked(jnp.asarray(pages(sources)), jnp.full(n, -1, jnp.int32), serials), state


def _wishes(
    settings: Settings, key: Key[Array, ""], state: State
) -> tuple[Int[np.ndarray, " k"], list[Proposal]]:
    """The rows of the parents of one prompt, and the wish for each of its samples."""
    key_parents, key_temperature, key_seeds = jax.random.split(key, 3)
    parents = np.asarray(state.parents)
    parents = parents[parents >= 0]
    drawn = parents[jax.random.randint(key_parents, (settings.examples,), 0, len(parents))]
    hot = int(jax.random.randint(key_temperature, (), 0, len(settings.temperatures)))
    numbers = np.asarray(jax.random.randint(key_seeds, (settings.samples,), 0, 2**31 - 1))
    book, size, error = (np.asarray(x) for x in (state.pages, state.size, state.error))
    shown = [Example(text(book[row]), int(size[row]), float(error[row])) for row in drawn]
    asked = Proposal(
        messages=_messages(shown, settings),
        parents=tuple(one.source for one in shown),
        temperature=settings.temperatures[hot],
        seed=0,
        wish=_wish(shown),
    )
    return drawn, [asked._replace(seed=number) for number in numbers.tolist()]


def _tell(
    tuner: Tuner, seeds: int, settings: Settings, state: State, asked: Asked, measured: Measured
) -> State:
    state = _written(state, asked, measured)
    a_round = settings.prompts * settings.samples
    children, end = int(state.asked) - seeds, settings.rounds * a_round
    if children == 0:
        return _with_parents(state, _founders(state, seeds))
    if children < 0 or children % a_round or children == end:
        return state
    state = _with_parents(state, _chosen(state, settings))
    told = np.arange(len(state.error)) >= int(state.asked) - a_round
    told &= ~np.isnan(state.error) & ~np.asarray(state.used)
    key_tune = jax.random.fold_in(jax.random.fold_in(state.key, 1), state.asked)
    sources = texts(np.asarray(state.pages)[told])
    return state._replace(tuned=tuner.tune(state.tuned, key_tune, sources))


def _written(state: State, asked: Asked, measured: Measured) -> State:
    """The book with one more batch; empty pages are none."""
    sources = np.asarray(asked.genotypes)
    there = sources.any(1)
    fitness = np.asarray(measured.fitness)[there]
    good = np.isfinite(fitness)
    size = np.where(good, np.asarray(measured.extra["params"])[there], np.nan)
    error = np.where(good, 1 - fitness / 100, np.nan)
    end = int(state.asked) + int(there.sum())
    # By numpy: in JAX each slice of another place would be compiled.
    book = {"pages": sources[there], "size": size, "error": error}
    new = {name: np.array(getattr(state, name)) for name in book}
    for name, values in book.items():
        new[name][int(state.asked) : end] = values
    return state._replace(asked=jnp.int32(end), **{n: jnp.asarray(v) for n, v in new.items()})


def _founders(state: State, seeds: int) -> list[int]:
    found = np.flatnonzero(~np.isnan(np.asarray(state.error[:seeds]))).tolist()
    if not found:
        raise ValueError("`seeds` must hold a program that can be trained, but none has a fitness.")
    return found


def _chosen(state: State, settings: Settings) -> list[int]:
    """The next parents: rows that survived and never were parents before."""
    if settings.selection == "seeds":
        return []
    alive = (np.asarray(state.error) < settings.threshold) & ~np.asarray(state.used)
    order = np.argsort(-np.asarray(score(state)), kind="stable")
    if settings.selection == "random":
        key = jax.random.fold_in(jax.random.fold_in(state.key, 2), state.asked)
        order = np.asarray(jax.random.permutation(key, len(alive)))
    return order[alive[order]][: settings.survivors].tolist()


def _with_parents(state: State, chosen: Sequence[int]) -> State:
    """The state with these parents and no others; the old ones where there is none."""
    if not chosen:
        return state
    parents = np.full(len(state.parents), -1, np.int32)
    parents[: len(chosen)] = chosen
    used = np.array(state.used)
    used[list(chosen)] = True
    return state._replace(parents=jnp.asarray(parents), used=jnp.asarray(used))
