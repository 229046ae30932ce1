"""Searches in which most candidates are trained for a few epochs and the rest is foretold.

As in Rawal & Miikkulainen, 2018, arXiv:1803.04439. A searcher is given a Meta-LSTM: as soon as it
has seen enough whole curves it asks for a short `budget`, and what counts as fitness is the lowest
loss of the curve as foretold. The cost tells which: it is what was trained.

Where we differ: a few candidates of each batch are still trained to the end. They say how well the
others are foretold, and the Meta-LSTM goes on learning from them as evolution moves on.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxnas.core import Asked, Measured, Searcher
from jaxnas.formulas.meta_lstm import Meta, fit, foretell, start


class State(NamedTuple):
    """A search that foretells; `F` curves of `E` epochs.

    Attributes:
      searcher: state of the searcher that asks.
      meta: the Meta-LSTM as it is by now.
      curves: `[F, E]` the last curves that were trained to the end; NaN where there is none yet.
      foretold: `[F]` what their lowest loss was foretold to be before they were learned from; NaN
        where nothing was.
      seen: how many such curves there were.
    """

    searcher: Any
    meta: Meta
    curves: Float[Array, "F E"]
    foretold: Float[Array, " F"]
    seen: Int[Array, ""]


def foretelling(
    searcher: Searcher,
    *,
    known: int,
    length: int,
    seeds: int = 1,
    after: int = 24,
    checked: int = 2,
    room: int = 2048,
) -> Searcher:
    """A searcher whose candidates are mostly trained for a few epochs; for the host.

    Args:
      searcher: who asks. The problem's `extra` must hold `curve` `[N, seeds, length]`, NaN from
        where a candidate was not trained, and its budgets must be epochs over all seeds.
      known: epochs for which a candidate is trained.
      length: epochs of a whole training, `E`.
      seeds: runs of a candidate.
      after: whole curves that are seen before anything is foretold.
      checked: candidates of each batch, drawn at random, that are trained to the end all the same.
      room: whole curves that are kept, `F`; beyond it the oldest are forgotten.

    Raises:
      ValueError: for numbers that leave nothing to foretell or to learn from.
    """
    if not 1 <= known < length or not 2 <= after <= room or checked < 0:
        raise ValueError(
            f"`known` must be in 1 ... {length - 1}, `after` in 2 ... {room} and `checked` not "
            f"negative, but got {known}, {after} and {checked}."
        )

    def init(key: Key[Array, ""]) -> State:
        key_search, key_meta = jax.random.split(key)
        nothing = jnp.full((room, length + 1), jnp.nan, jnp.float32)
        curves, foretold = nothing[:, :-1], nothing[:, -1]
        return State(searcher.init(key_search), start(key_meta), curves, foretold, jnp.int32(0))

    def ask(key: Key[Array, ""], state: State) -> tuple[Asked, State]:
        key_ask, key_checked = jax.random.split(key)
        asked, inner = searcher.ask(key_ask, state.searcher)
        drawn = jax.random.permutation(key_checked, len(asked.budget))
        short = (drawn >= checked) & (state.seen >= after)
        budget = jnp.where(short, known * seeds, asked.budget)
        return asked._replace(budget=budget), state._replace(searcher=inner)

    def lowest(meta: Meta, measured: Measured) -> Float[Array, "N S"]:
        begun = jnp.asarray(measured.extra.curve)[:, :, :known].reshape(-1, known)
        whole = jnp.concatenate([begun, foretell(meta, begun, length - known)], axis=1)
        return whole.min(1).reshape(-1, seeds)

    def appraise(state: State, asked: Asked, measured: Measured) -> Measured:
        foretold = -lowest(state.meta, measured).mean(1)
        short = (asked.budget == known * seeds) & jnp.isfinite(measured.fitness)
        return measured._replace(fitness=jnp.where(short, foretold, measured.fitness))

    def tell(state: State, asked: Asked, measured: Measured) -> State:
        inner = searcher.tell(state.searcher, asked, measured)
        curve = np.asarray(measured.extra.curve)
        whole = np.isfinite(curve).all(2)
        seen, new = int(state.seen), int(whole.sum())
        curves, foretold = np.array(state.curves), np.array(state.foretold)
        place = (seen + np.arange(new)) % room
        curves[place], foretold[place] = curve[whole], np.nan
        if seen >= after:
            foretold[place] = np.asarray(lowest(state.meta, measured))[whole]
        meta = fit(state.meta, curves, known) if new and seen + new >= after else state.meta
        kept = jnp.asarray(curves), jnp.asarray(foretold)
        return State(inner, meta, *kept, jnp.int32(seen + new))

    return Searcher(init, ask, tell, appraise)


def reckoning(state: State, known: int) -> dict[str, int | float]:
    """How well it foretold what was trained to the end, beside the lowest loss known by then.

    Returns:
      `curves`: whole ones seen; `checked`: those of them that are kept and were foretold before;
      `error` and `level_error`: mean distance of their lowest loss from what was foretold, and from
      the lowest of the known epochs. NaN before there is any.
    """
    curves, foretold = np.asarray(state.curves), np.asarray(state.foretold)
    checked = np.isfinite(foretold)
    truth = curves[checked].min(1)
    guesses = {"error": foretold[checked], "level_error": curves[checked, :known].min(1)}
    errors = {
        name: float(np.abs(guess - truth).mean()) if checked.any() else float("nan")
        for name, guess in guesses.items()
    }
    return {"curves": int(state.seen), "checked": int(checked.sum()), **errors}
