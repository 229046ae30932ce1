"""A triplet function as programs that train it on one algorithm of CLRS-30.

EvoPrompting (Chen, Dohan & So, NeurIPS 2023, arXiv:2302.14838, section 4.2) searches the triplet
function of a Triplet-GMPNN: 2,000 steps of Adam on articulation points, Graham scan or Kruskal's
trees, else as Ibarz et al., LoG 2022, arXiv:2209.11142, train on one algorithm.

Around a function stands training as three pure functions of their data:

    init(key) -> state
    step(state, batches, which, key, learning_rate) -> (state, loss)
    evaluate(state, known) -> outputs      test(state, known) -> outputs

A step gets a batch for each size of graphs and learns from one of them, so that all sizes are one
program; the graphs of a test set, where there is one, have a size and so a program of their own.
Keys are raw `uint32[2]` key data. What is right goes to `step` alone: how much of other examples a
network gets right is counted outside. `clrs_trace` makes programs of a source, `clrs_training`
trains them.
"""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import ShapeDtypeStruct as Shape
from jaxtyping import Array, Float, Int, PyTree, UInt32

from jaxnas.core.keys import generated
from jaxnas.data.clrs import Examples
from jaxnas.data.clrs_probes import POINTERS, shape, spec, staged
from jaxnas.programs import clrs_net, clrs_scores
from jaxnas.programs.gmpnn import Triplets

Leaves = tuple[Array, ...]
Predict = Callable[[PyTree, clrs_net.Given], Mapping[str, Array]]


class Setting(NamedTuple):
    """What a triplet function is traced for, in plain values.

    Attributes:
      algorithm: one of `data.clrs_probes.ALGORITHMS`.
      nodes: of the graphs to train on, one number for each size.
      steps: length of the hints' axis for each size.
      valid: nodes, and length of the hints' axis, of the graphs to be judged on.
      test: likewise of the test set; `None` where there is none.
      batch: examples of a step.
      eval_batch: examples that are judged at a time.
      test_batch: likewise of the test set, whose graphs are larger.
      hidden: features of a node.
      triplet_features: of a triplet.
      clip: the largest norm of a gradient.
      platforms: kinds of devices the programs are for.
    """

    algorithm: str
    nodes: tuple[int, ...]
    steps: tuple[int, ...]
    valid: tuple[int, int]
    test: tuple[int, int] | None = None
    batch: int = 32
    eval_batch: int = 64
    test_batch: int = 8
    hidden: int = 128
    triplet_features: int = 8
    clip: float = 1.0
    platforms: tuple[str, ...] = ("cpu", "cuda", "tpu")


class Built(NamedTuple):
    """Training as pure functions.

    Attributes:
      init: `(key data) -> state`.
      step: `(state, batches, which, key data, learning rate) -> (state, loss)`.
      evaluate: `(state, known) -> outputs`, of graphs like those of the validation set.
      test: likewise of the test set; `None` where there is none.
    """

    init: Callable[[UInt32[Array, " 2"]], PyTree]
    step: Callable[..., tuple[PyTree, Float[Array, ""]]]
    evaluate: Predict
    test: Predict | None = None


def build(triplets: Triplets, setting: Setting) -> Built:
    """The whole network around a triplet function, with its training.

    Args:
      triplets: the function.
      setting: what for.
    """
    net = _net(triplets, setting)
    optimizer = optax.chain(optax.clip_by_global_norm(setting.clip), optax.scale_by_adam())

    def init(key: UInt32[Array, " 2"]) -> PyTree:
        params = clrs_net.start(net, generated(key))
        return params, optimizer.init(_joined(params))

    def objective(params: Any, examples: Examples, key: Array) -> Float[Array, ""]:
        steps = next(iter(examples.hints.values())).shape[1]
        known = clrs_net.given(examples)
        predicted = clrs_net.unroll(net, params, known, steps, jax.random.wrap_key_data(key))
        return clrs_scores.loss(net.probes, examples, *predicted)

    def step(
        state: PyTree,
        batches: Sequence[Examples],
        which: Int[Array, ""],
        key: UInt32[Array, " 2"],
        learning_rate: Float[Array, ""],
    ) -> tuple[PyTree, Float[Array, ""]]:
        params, memory = state
        sizes = [
            lambda of=batch: jax.value_and_grad(objective)(params, of, key) for batch in batches
        ]
        loss, gradient = jax.lax.switch(which, sizes)
        # As one vector: clipping and Adam are a few operations then, instead of as many a layer.
        change, memory = optimizer.update(_joined(gradient), memory)
        params = _cut(_joined(params) - learning_rate * jnp.asarray(change), params)
        return (params, memory), loss

    def predicting(steps: int) -> Predict:
        return lambda state, known: clrs_net.unroll(net, state[0], known, steps)[0]

    test = predicting(setting.test[1]) if setting.test else None
    return Built(init, step, predicting(setting.valid[1]), test)


def _joined(tree: PyTree) -> Float[Array, " P"]:
    return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(tree)])


def _cut(vector: Float[Array, " P"], like: PyTree) -> PyTree:
    """A vector in the form of a tree."""
    shapes, form = jax.tree.flatten(like)
    ends = itertools.accumulate(leaf.size for leaf in shapes)
    return form.unflatten(
        vector[end - leaf.size : end].reshape(leaf.shape)
        for leaf, end in zip(shapes, ends, strict=True)
    )


def size(triplets: Triplets, setting: Setting) -> int:
    """Parameters of the whole network, counted without making them.

    Args:
      triplets: the function.
      setting: what for; graphs do not matter.
    """
    shapes = jax.eval_shape(partial(clrs_net.start, _net(triplets, setting)), jax.random.key(0))
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(shapes))


def _net(triplets: Triplets, setting: Setting) -> clrs_net.Step:
    return clrs_net.Step(
        spec(setting.algorithm), triplets, setting.hidden, setting.triplet_features
    )


def leaves(tree: Any) -> tuple[Any, ...]:
    """A tree without its form."""
    return tuple(jax.tree.leaves(tree))


def forms(setting: Setting, state: Sequence[Any]) -> dict[str, tuple[tuple[Any, ...], Any]]:
    """Shapes of what the functions of `Built` take and give as exported programs.

    State, examples and what is known of them are tuples of their leaves there.

    Args:
      setting: what they are for.
      state: shapes of the leaves of a state.

    Returns:
      By name, the arguments and the result.
    """
    key, rate, which = (Shape(s, t) for s, t in (((2,), "uint32"), ((), "float32"), ((), "int32")))
    sizes = zip(setting.nodes, setting.steps, strict=True)
    batches = [blank(setting.algorithm, setting.batch, n, steps) for n, steps in sizes]
    kept, loss = tuple(state), Shape((), "float32")

    def predicting(batch: int, nodes: int, steps: int) -> tuple[tuple[Any, ...], Any]:
        known = jax.eval_shape(clrs_net.given, blank(setting.algorithm, batch, nodes, steps))
        told = {
            p.name: Shape((batch, *shape(p, nodes, predicted=True)), "float32")
            for p in staged(spec(setting.algorithm), "output")
        }
        return (kept, leaves(known)), told

    test = {"test": predicting(setting.test_batch, *setting.test)} if setting.test else {}
    return {
        "init": ((key,), kept),
        "step": ((kept, tuple(map(leaves, batches)), which, key, rate), (kept, loss)),
        "evaluate": predicting(setting.eval_batch, *setting.valid),
    } | test


def blank(algorithm: str, batch: int, nodes: int, steps: int) -> Examples:
    """Shapes of examples.

    Args:
      algorithm: one of `data.clrs_probes.ALGORITHMS`.
      batch: number of examples.
      nodes: of each graph.
      steps: length of the hints' axis.
    """
    probes = spec(algorithm)

    def shapes(stage: str, *leading: int) -> dict[str, Any]:
        return {
            p.name: Shape(
                (*leading, *shape(p, nodes)), jnp.int32 if p.kind in POINTERS else jnp.float32
            )
            for p in staged(probes, stage)
        }

    lengths: Any = Shape((batch,), jnp.int32)
    hints = shapes("hint", batch, steps)
    return Examples(shapes("input", batch), hints, shapes("output", batch), lengths)
