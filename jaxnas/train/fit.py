"""Training candidates from scratch: one, or many of different architecture at once.

All candidates of a call see the same batches in the same order; each has its own initial weights.
A candidate is frozen at its first non-finite loss and scores `-inf`. How the work is executed is
`train.plan`'s choice and changes nothing but float rounding.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.core import compiled
from jaxnas.data.dataset import Dataset
from jaxnas.nn.network import Network
from jaxnas.train.batches import compute_dtype, epoch_order, on_device
from jaxnas.train.plan import Plan, bytes_needed, choose
from jaxnas.train.recipe import Recipe, steps_per_epoch
from jaxnas.train.update import State, accuracy, batch, start, update


class Fitted(NamedTuple):
    """What training gave, for each of `N` candidates.

    Attributes:
      valid: `[N]` accuracy on the validation split, %; `-inf` if it diverged.
      test: `[N]` accuracy on the test split, %; `-inf` if it diverged.
      loss: `[N, epochs]` mean training loss of each epoch; NaN for a candidate of no epochs.
      diverged: `[N]` the step at which the loss stopped being finite, -1 if never.
      epochs: `[N]` passes over the training set.
      variables: trained variables, leaves `[N, ...]`.
    """

    valid: Float[Array, " N"]
    test: Float[Array, " N"]
    loss: Float[Array, "N epochs"]
    diverged: Int[Array, " N"]
    epochs: Int[Array, " N"]
    variables: PyTree


def trainer(
    make: Callable[[PyTree], Network],
    dataset: Dataset,
    recipe: Recipe,
    *,
    execution: str = "auto",
) -> Callable[..., Fitted]:
    """Builds `fit_many(key, genotypes, epochs=None) -> Fitted`, compiled once per shapes.

    Args:
      make: `(genotype) -> Network`; the genotype is traced, so one program serves all.
      dataset: what is learned; moved to the device once.
      recipe: how.
      execution: see `plan.choose`.

    Returns:
      A function of a key, genotypes with leading axis `N`, and epochs (`[N]` whole numbers, -1 or
      `None` for the recipe's, 0 to judge the initial weights).

    Raises:
      ValueError: if the recipe's batch is larger than the training set, or for an unknown
        `execution`.
    """
    programs = _programs(make, dataset, recipe)
    choose(execution, 1)

    def fit_many(
        key: Key[Array, ""], genotypes: PyTree, epochs: Int[Array, " N"] | None = None
    ) -> Fitted:
        n = jax.tree.leaves(genotypes)[0].shape[0]
        budget = np.full(n, -1) if epochs is None else np.asarray(epochs)
        budget = np.where(budget < 0, recipe.epochs, budget).astype(np.int32)
        key_start, key_data = jax.random.split(key)
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key_start, jnp.arange(n))
        candidates = (keys, genotypes, jnp.asarray(budget))
        bytes_each = _bytes_each(programs, key_data, *_slice(candidates, 0, 1))
        plan = choose(execution, n, bytes_each, images=dataset.train.x.ndim > 3)
        # The last group is filled up with copies, so that one program serves all.
        filled = np.minimum(np.arange(-(-n // plan.together) * plan.together), n - 1)
        candidates = jax.tree.map(lambda leaf: leaf[filled], candidates)
        groups = [
            _fit_group(programs, key_data, *_slice(candidates, i, i + plan.together), plan)
            for i in range(0, n, plan.together)
        ]
        return _slice(_join(groups), 0, n)

    return fit_many


class _Programs(NamedTuple):
    """The compiled parts of training; every function takes all candidates of a group at once."""

    start: Callable[..., State]
    step: Callable[..., tuple[State, Array]]
    epoch: Callable[..., tuple[State, Array]]
    order: Callable[..., tuple[Array, Array]]
    judge: Callable[..., tuple[Array, Array]]


def _programs(make: Callable[[PyTree], Network], dataset: Dataset, recipe: Recipe) -> _Programs:
    train, valid, test = (
        on_device(dataset, s) for s in (dataset.train, dataset.valid, dataset.test)
    )
    size, dtype, steps = train.y.shape[0], compute_dtype(), steps_per_epoch(recipe, dataset)

    def begin(key: Key[Array, ""], genotype: PyTree) -> State:
        return start(make(genotype), recipe, key, train)

    def step(
        states: State, genotypes: PyTree, epochs: Array, key: Key[Array, ""], index: Array
    ) -> tuple[State, Array]:
        key_augment, key_drop = jax.random.split(key)
        examples = batch(recipe, train, index, key_augment, dtype)

        def one(state: State, genotype: PyTree, epochs: Array) -> tuple[State, Array]:
            state, told = update(
                make(genotype), recipe, state, examples, key_drop, epochs=epochs, per_epoch=steps
            )
            return state, told.loss

        return jax.vmap(one)(states, genotypes, epochs)

    def epoch(
        states: State, genotypes: PyTree, epochs: Array, keys: Array, order: Array
    ) -> tuple[State, Array]:
        return jax.lax.scan(
            lambda states, at: step(states, genotypes, epochs, *at), states, (keys, order)
        )

    def order(key: Key[Array, ""]) -> tuple[Array, Array]:
        key_augment, key_order = jax.random.split(key)
        return jax.random.split(key_augment, steps), epoch_order(key_order, size, recipe.batch)

    def judge(states: State, genotypes: PyTree) -> tuple[Array, Array]:
        def one(state: State, genotype: PyTree) -> tuple[Array, Array]:
            network = make(genotype)
            return accuracy(network, state, valid, dtype), accuracy(network, state, test, dtype)

        return jax.vmap(one)(states, genotypes)

    parts = (jax.vmap(begin), step, epoch, order, judge)
    return _Programs(*(compiled(part) for part in parts))


def _fit_group(
    programs: _Programs,
    key: Key[Array, ""],
    keys: Array,
    genotypes: PyTree,
    epochs: Array,
    plan: Plan,
) -> Fitted:
    states, losses = programs.start(keys, genotypes), []
    for n in range(max(1, int(epochs.max()))):
        order = programs.order(jax.random.fold_in(key, n))
        if plan.scan:
            states, loss = programs.epoch(states, genotypes, epochs, *order)
        else:
            trail = []
            for at in zip(*order, strict=True):
                states, loss = programs.step(states, genotypes, epochs, *at)
                trail.append(loss)
            loss = jnp.stack(trail)
        losses.append(loss.mean(0))
    judged = programs.judge(states, genotypes)
    # Once its budget is used up a candidate stands still, and its last epoch is repeated.
    last = jnp.minimum(jnp.arange(len(losses)), jnp.maximum(epochs[:, None] - 1, 0))
    losses = jnp.take_along_axis(jnp.stack(losses, 1), last, axis=1)
    losses = jnp.where(epochs[:, None] > 0, losses, jnp.nan)
    return Fitted(*judged, losses, states.diverged, epochs, states.variables)


def _bytes_each(
    programs: _Programs, key: Key[Array, ""], keys: Array, genotypes: PyTree, epochs: Array
) -> int:
    if jax.default_backend() == "cpu":
        return 0  # no limit is known, and one candidate at a time is fastest
    state, (augment, order) = programs.start(keys, genotypes), programs.order(key)
    return bytes_needed(programs.step, state, genotypes, epochs, augment[0], order[0])


def _slice(tree: PyTree, start: int, stop: int) -> PyTree:
    return jax.tree.map(lambda leaf: leaf[start:stop], tree)


def fit(
    network: Network, dataset: Dataset, recipe: Recipe, key: Key[Array, ""], **options: Any
) -> Fitted:
    """Trains one network; the fields of the result have no candidate axis.

    Args:
      network: what is trained.
      dataset: on what.
      recipe: how.
      key: random key.
      **options: as for `trainer`.
    """
    fitted = trainer(lambda _: network, dataset, recipe, **options)(key, jnp.zeros((1,)))
    return jax.tree.map(lambda leaf: leaf[0], fitted)


def _join(groups: list[Fitted]) -> Fitted:
    epochs = max(g.loss.shape[1] for g in groups)
    padded = [
        g._replace(loss=jnp.pad(g.loss, ((0, 0), (0, epochs - g.loss.shape[1])), mode="edge"))
        for g in groups
    ]
    return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *padded)
