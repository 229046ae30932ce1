"""SGAS+PT: edges are decided in the order of SGAS, their operations by perturbation.

Wang, Cheng, Chen, Tang & Hsieh, "Rethinking Architecture Selection in Differentiable NAS", ICLR
2021, arXiv:2108.04392; section 2.7.3.1 of Wang's dissertation. The order of the edges, the removal of
others and the growing batch are those of SGAS (Li et al., CVPR 2020, arXiv:1912.00195) by its first
criterion; of an edge the operation stays whose removal lowers the validation accuracy most.
"""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

from jaxtyping import Array, Int, Key

from jaxnas.core import Leg, Search
from jaxnas.oneshot.bilevel import Relaxation, Schedule, State, bilevel, steps_per_epoch
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.darts_pt import operation_decision
from jaxnas.oneshot.discretise import judge_mixes
from jaxnas.oneshot.sgas import at_step, decisions, most_urgent, stages_of, urgency, without_spare
from jaxnas.oneshot.supernet import Choices, Supernet
from jaxnas.train.batches import Data


def sgas_pt_legs(
    net: Supernet,
    train: Data,
    valid: Data,
    schedule: Schedule,
    *,
    growth: int = 8,
    first: int = 9,
    every: int = 5,
    criterion: int = 1,
    **settings: Any,
) -> list[Leg]:
    """A whole search: stages of training, each followed by a decision.

    Args:
      net: the supernet.
      train: the half that trains the weights.
      valid: the half that trains the architecture, and that decisions are judged on.
      schedule: how the weights are trained.
      growth: examples the batch grows by after a decision.
      first: epoch, counted from 0, at whose end the first decision falls.
      every: epochs between decisions.
      criterion: 1; the second looks back on epochs of magnitudes.
      **settings: of `darts`.

    Raises:
      ValueError: if there are too few epochs for the decisions, or for another criterion.
    """
    if criterion != 1:
        raise ValueError(
            f"`criterion` must be 1 where operations are chosen by perturbation (`selection`), but "
            f"got {criterion}."
        )
    method = darts(net.choices, **settings)

    @cache
    def searches(batch: int) -> tuple[Search, Search, int]:
        grown = dataclasses.replace(schedule, batch=batch)
        search = bilevel(net, train, valid, method, grown)
        decide = decision(net.choices, method, judge_mixes(net, valid, batch))
        return search, search._replace(step=decide), steps_per_epoch(train, grown)

    legs = []
    for n, (start, end) in enumerate(stages_of(net.choices, schedule.epochs, first, every)):
        search, decide, per_epoch = searches(schedule.batch + n * growth)
        legs.append(Leg(search, per_epoch * (end - start), at_step(per_epoch * start)))
        if n < decisions(net.choices):
            legs.append(Leg(decide, 1))
    return legs


def decision(
    choices: Choices, relaxation: Relaxation, judge: Callable[..., tuple[Array, Array]]
) -> Callable[[Key[Array, ""], State], tuple[State, dict[str, Array]]]:
    """A step that decides the most urgent edge of every kind; `info` as in `operation_decision`."""

    def pick(key: Key[Array, ""], state: State) -> Int[Array, " kinds"]:
        del key
        return most_urgent(choices, state.mask, urgency(choices, state.alphas)[0])

    decide = operation_decision(choices, relaxation, judge, pick)

    def step(key: Key[Array, ""], state: State) -> tuple[State, dict[str, Array]]:
        state, info = decide(key, state)
        state = state._replace(mask=without_spare(choices, state.mask))
        return state, info | {"weights": relaxation.strength(state.alphas, state.mask).ops}

    return step
