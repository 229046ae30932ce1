"""Training one network for long, as searches that can be stopped, recorded and resumed.

A step is one batch. The batches of an epoch follow from the key of the order and the number of the
epoch, so nothing but the state is needed to go on.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxnas.core import Search
from jaxnas.data.dataset import Dataset
from jaxnas.nn.network import Network
from jaxnas.train.batches import compute_dtype, epoch_order, on_device
from jaxnas.train.recipe import Recipe, steps_per_epoch
from jaxnas.train.update import State, accuracy, batch, start, update


class InTraining(NamedTuple):
    """A network in training.

    Attributes:
      network: its variables, momentum, step, and where it diverged.
      order: key from which the shuffled order of every epoch is drawn.
    """

    network: State
    order: Key[Array, ""]


class Training(NamedTuple):
    """A training, to be run as `per_epoch` steps of `train` and one of `evaluate`, again and again.

    Attributes:
      train: a step is one batch; `info` holds `train_loss`, `train_accuracy` (of the batch, %),
        `learning_rate` and `diverged` (the step from which on nothing moves, -1 if none).
      evaluate: a step measures `valid_accuracy` and `test_accuracy` (%) and changes nothing.
      per_epoch: batches in an epoch.
    """

    train: Search
    evaluate: Search
    per_epoch: int


def training(network: Network, dataset: Dataset, recipe: Recipe) -> Training:
    """The training of a network on a data set.

    Args:
      network: what is trained.
      dataset: on what; a split without examples is not evaluated.
      recipe: how.

    Raises:
      ValueError: if the recipe's batch is larger than the training set.

    Example:
      >>> from jaxnas.cells.nas_bench_201_net import fixed_network
      >>> from jaxnas.core import run_scan
      >>> from jaxnas.data.toy import waves
      >>> network = fixed_network(np.full(6, 3), classes=4, channels=4, layers=1)
      >>> train, evaluate, per_epoch = training(network, waves(n=64), Recipe(epochs=1, batch=32))
      >>> state, info = run_scan(train, jax.random.key(0), per_epoch)
      >>> info["train_loss"].shape
      (2,)
    """
    per_epoch = steps_per_epoch(recipe, dataset)
    data, size, dtype = on_device(dataset, dataset.train), len(dataset.train.y), compute_dtype()
    judged = {
        f"{name}_accuracy": on_device(dataset, split)
        for name, split in (("valid", dataset.valid), ("test", dataset.test))
        if len(split.y)
    }

    def init(key: Key[Array, ""]) -> InTraining:
        key_start, key_order = jax.random.split(key)
        return InTraining(start(network, recipe, key_start, data), key_order)

    def step(key: Key[Array, ""], state: InTraining) -> tuple[InTraining, dict[str, Any]]:
        key_augment, key_drop = jax.random.split(key)
        epoch, at = jnp.divmod(state.network.step, per_epoch)
        order = epoch_order(jax.random.fold_in(state.order, epoch), size, recipe.batch)
        examples = batch(recipe, data, order[at], key_augment, dtype)
        moved, told = update(
            network,
            recipe,
            state.network,
            examples,
            key_drop,
            epochs=recipe.epochs,
            per_epoch=per_epoch,
        )
        info = {
            "train_loss": told.loss,
            "train_accuracy": told.accuracy,
            "learning_rate": told.rate,
            "diverged": moved.diverged,
        }
        return state._replace(network=moved), info

    def measure(key: Key[Array, ""], state: InTraining) -> tuple[InTraining, dict[str, Any]]:
        del key
        told = {n: accuracy(network, state.network, part, dtype) for n, part in judged.items()}
        return state, told

    def best(state: InTraining) -> Any:
        return state.network.variables

    return Training(Search(init, step, best), Search(init, measure, best), per_epoch)
