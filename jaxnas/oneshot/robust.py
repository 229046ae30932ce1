"""R-DARTS: a search that turns back when its loss becomes sharp in the architecture.

Zela, Elsken, Saikia, Marrakchi, Brox & Hutter, "Understanding and Robustifying Differentiable
Architecture Search", ICLR 2020, arXiv:1909.09656, sections 4.3 and 5.2. After every epoch the
dominant eigenvalue of the architecture's Hessian is measured; when its mean over some epochs has
grown too much, the search goes back a few epochs and ends there (early stopping), or goes on from
there under stronger L2 of the weights (adaptive regularisation).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxnas.core import Leg, Search
from jaxnas.oneshot.bilevel import Schedule, State


@dataclass(frozen=True)
class Rule:
    """When to turn back, and what to do then; defaults as in the paper.

    Attributes:
      window: epochs a mean is taken over.
      lag: epochs between the two means, and how far the search goes back.
      first: epoch from which it is looked at.
      ratio: growth of the mean that is too much.
      factor: by which L2 of the weights grows; 0 to stop instead.
      most: largest L2; when it would be passed the search stops.
    """

    window: int = 5
    lag: int = 4
    first: int = 10
    ratio: float = 1.3
    factor: float = 0.0
    most: float = 0.0243


class Watched(NamedTuple):
    """State of a search that is watched.

    Attributes:
      search: its own state.
      past: that state at the end of the last epochs, leaves `[lag, ...]`, the oldest first.
      eigenvalues: `[window + lag]` magnitudes of the last epochs, NaN where there was none.
      epoch: epochs seen, those that were taken back included.
      stopped: the epoch at whose end it stopped, -1 while it runs.
    """

    search: State
    past: State
    eigenvalues: Float[Array, " n"]
    epoch: Int[Array, ""]
    stopped: Int[Array, ""]


def robust_legs(
    search: Search,
    per_epoch: int,
    schedule: Schedule,
    measure: Callable[[Key[Array, ""], State], Array],
    signs: Callable[[State], dict[str, Array]],
    rule: Rule,
) -> list[Leg]:
    """A gradient search, watched.

    Args:
      search: from `bilevel`.
      per_epoch: its steps per epoch.
      schedule: how its weights are trained.
      measure: from `curvature`.
      signs: from `signs_of`.
      rule: when to turn back.

    Returns:
      Two legs for each epoch, the second one of a single step; epochs that may be taken back are
      provided for. What has ended stands still, and what a step would have told is then NaN.
    """
    train = Search(
        lambda key: _start(search.init(key), rule),
        lambda key, state: _unless_ended(search, signs, per_epoch * schedule.epochs, key, state),
        lambda state: search.best(state.search),
    )
    look = train._replace(step=lambda key, state: _look(measure, schedule, rule, key, state))
    again, decay = 0, schedule.weight_decay * rule.factor
    while rule.factor > 1 and decay and decay <= rule.most * (1 + 1e-6):
        again, decay = again + 1, decay * rule.factor
    return [Leg(train, per_epoch), Leg(look, 1)] * (schedule.epochs + again * rule.lag)


def _start(state: State, rule: Rule) -> Watched:
    past = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (rule.lag, *leaf.shape)), state)
    unseen = jnp.full(rule.window + rule.lag, jnp.nan, jnp.float32)
    return Watched(state, past, unseen, jnp.int32(0), jnp.int32(-1))


def _unless_ended(
    search: Search,
    signs: Callable[[State], dict[str, Array]],
    steps: int,
    key: Key[Array, ""],
    state: Watched,
) -> tuple[Watched, dict[str, Array]]:
    after, info = search.step(key, state.search)
    ended = (state.stopped >= 0) | (state.search.step >= steps)
    current = _choose(ended, state.search, after)
    told = signs(current)
    info = {name: jnp.where(ended, jnp.nan, info[name]) for name in info if name not in told}
    return state._replace(search=current), info | told


def _look(
    measure: Callable[..., Array],
    schedule: Schedule,
    rule: Rule,
    key: Key[Array, ""],
    state: Watched,
) -> tuple[Watched, dict[str, Array]]:
    value = measure(key, state.search)
    seen = jnp.append(state.eigenvalues[1:], jnp.abs(value))
    now, then = seen[-rule.window :].mean(), seen[: rule.window].mean()
    epoch = state.epoch + 1
    moved = state.search.step > state.past.step[-1]  # what has ended is not judged again
    sharp = moved & (epoch >= rule.first) & (now > rule.ratio * then)  # false for NaN
    back = jax.tree.map(lambda leaf: leaf[0], state.past)
    decay = state.search.decay * rule.factor
    may = (rule.factor > 1) & (schedule.weight_decay * decay <= rule.most * (1 + 1e-6))
    back = back._replace(decay=jnp.where(may, decay, state.search.decay))
    current = _choose(sharp, back, state.search)
    past = jax.tree.map(lambda old, new: jnp.concatenate([old[1:], new[None]]), state.past, current)
    past, seen = _choose(moved, (past, seen), (state.past, state.eigenvalues))
    return Watched(
        current,
        past,
        jnp.where(sharp, jnp.nan, seen),
        epoch,
        jnp.where(sharp & ~may, epoch, state.stopped),
    ), {
        "curvature": jnp.where(moved, value, jnp.nan),
        "turned_back": sharp.astype(jnp.int32),
        "decay": schedule.weight_decay * current.decay,
    }


def _choose(condition: Array, a: Any, b: Any) -> Any:
    return jax.tree.map(lambda x, y: jnp.where(condition, x, y), a, b)
