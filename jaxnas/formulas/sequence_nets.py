"""Trains networks of many different nodes in one program.

A network is an embedding (of words; notes go in as they are), layers of one kind of node, and a
linear output. Nodes differ in their trees, not in the shapes of their weights: every gate is a slot
of `W`, `U` and `b`, and a node with fewer gates leaves slots alone. So the products of all nodes are
one batched product, the optimizer sees one tree of arrays, and only what happens between gates is
written out node by node, in the body of one `scan` over time.

A run depends on its node and its key alone: in whatever group a node is trained, its first weights,
its data and its numbers are the same. Letters: `M` nodes, `G` gates, `H` hidden, `D` inputs, `B`
streams, `T` steps of a segment, `K` segments, `S` seeds.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.core import compiled
from jaxnas.formulas.recurrent import MEMORIES, Node, node
from jaxnas.formulas.sequence_tasks import SequenceTask, Stream
from jaxnas.formulas.tape import Grammar


class Size(NamedTuple):
    """Of a network and its training.

    Attributes:
      hidden: nodes in a layer, and length of a word's embedding.
      layers: how many.
      epochs: passes over the training streams.
      learning_rate: of Adam, after clipping gradients to norm 1.
    """

    hidden: int = 100
    layers: int = 1
    epochs: int = 10
    learning_rate: float = 3e-3


class Trained(NamedTuple):
    """How runs went; `M` nodes, `S` seeds.

    Attributes:
      curve: `[M, S, epochs]` validation loss after each epoch; NaN from where a run diverged.
      train: `[M, S, epochs]` mean training loss of each epoch.
      test: `[M, S]` test loss at the epoch that was best on validation; NaN if not asked for.
    """

    curve: Float[Array, "M S epochs"]
    train: Float[Array, "M S epochs"]
    test: Float[Array, "M S"]


def train(
    task: SequenceTask,
    grammar: Grammar,
    tapes: Int[np.ndarray, "M L"],
    size: Size,
    keys: Key[Array, " S"],
    *,
    test: bool = True,
) -> Trained:
    """Trains nodes of one size, all in one program.

    Args:
      task: what they predict.
      grammar: of the nodes.
      tapes: `[M, L]` the nodes.
      size: of all networks.
      keys: one for each seed; all nodes share them.
      test: whether the best epoch is tried on the test streams.
    """
    nodes = [node(grammar, tape) for tape in tapes]
    gates = max(1, *(len(one.gates) for one in nodes))
    run = jax.vmap(partial(_run, task, nodes, size, test), out_axes=1)
    return compiled(run)(start(task, gates, size, keys))


def parameters(task: SequenceTask, cell: Node, hidden: int, layers: int = 1) -> int:
    """Weights of a network that are used."""
    count = task.size * hidden + hidden * task.size + task.size
    count -= task.size * hidden * (task.kind == "notes")
    for layer in range(layers):
        inputs = task.size if task.kind == "notes" and layer == 0 else hidden
        w, u = cell.reads.sum(0)
        count += int(w) * inputs * hidden + int(u) * hidden**2 + len(cell.gates) * hidden
    return count


def hidden_for(task: SequenceTask, cell: Node, budget: int, layers: int = 1) -> int:
    """The number of nodes in a layer whose weights come nearest to a number of parameters."""
    most = 1
    while parameters(task, cell, most, layers) < budget:
        most += 1
    near = [n for n in (most - 1, most) if n]
    return min(near, key=lambda n: abs(parameters(task, cell, n, layers) - budget))


def start(task: SequenceTask, gates: int, size: Size, keys: Key[Array, " S"]) -> dict[str, PyTree]:
    """First weights of one network for each seed.

    A slot depends on its key and its place, not on how many there are, and is compiled once for all
    groups.
    """
    split = jax.vmap(lambda key: jax.random.split(key, 2 + size.layers))(keys)
    embed, out = _ends(task.size, size.hidden, split[:, :2])
    layers = []
    for layer in range(size.layers):
        inputs = task.size if task.kind == "notes" and layer == 0 else size.hidden
        slots = [_slot(inputs, size.hidden, split[:, 2 + layer], g) for g in range(gates)]
        w, u = (jnp.stack(parts, axis=2) for parts in zip(*slots, strict=True))
        layers.append({"w": w, "u": u, "b": jnp.zeros((len(keys), gates, size.hidden))})
    weights: dict[str, PyTree] = {"layers": layers, "out": out}
    return weights | ({"embed": embed} if task.kind == "words" else {})


@partial(jax.jit, static_argnums=(0, 1))
@partial(jax.vmap, in_axes=(None, None, 0))
def _ends(items: int, hidden: int, keys: Key[Array, " 2"]) -> tuple[Array, dict[str, Array]]:
    embed = 0.1 * jax.random.normal(keys[0], (items, hidden))
    dense = jax.nn.initializers.lecun_normal()(keys[1], (hidden, items))
    return embed, {"w": dense, "b": jnp.zeros(items)}


@partial(jax.jit, static_argnums=(0, 1))
@partial(jax.vmap, in_axes=(None, None, 0, None))
def _slot(inputs: int, hidden: int, key: Key[Array, ""], place: Any) -> tuple[Array, Array]:
    key = jax.random.fold_in(key, place)
    key_w, key_u = jax.random.split(key)
    w = jax.nn.initializers.lecun_normal()(key_w, (inputs, hidden))
    return w, jax.nn.initializers.orthogonal()(key_u, (hidden, hidden))


class Carry(NamedTuple):
    """What one layer keeps between steps.

    Attributes:
      h: `[M, B, H]`.
      c: `[M, MEMORIES, B, H]`.
    """

    h: Float[Array, "M B H"]
    c: Float[Array, "M C B H"]


def rest(nodes: Sequence[Node], size: Size, streams: int) -> list[Carry]:
    """Every layer before the first step."""
    shape = (streams, size.hidden)
    h, c = jnp.zeros((len(nodes), *shape)), jnp.zeros((len(nodes), MEMORIES, *shape))
    return [Carry(h, c)] * size.layers


def layer(
    nodes: Sequence[Node], weights: dict[str, Array], carry: Carry, inputs: Array, first: Array
) -> tuple[Carry, Array]:
    """A layer of each kind of node over one segment.

    Args:
      nodes: `M` of them.
      weights: `w` `[M, D, G, H]`, `u` `[M, H, G, H]`, `b` `[M, G, H]`.
      carry: from the segment before.
      inputs: `[M, T, B, D]`, or `[T, B, D]` for all nodes alike.
      first: `[T, B]` whether memory is cleared before the step.

    Returns:
      What is carried on, and the outputs `[M, T, B, H]`.
    """
    which = "mtbd" if inputs.ndim == 4 else "tbd"
    xw = jnp.einsum(f"{which},mdgh->tmgbh", inputs, weights["w"])
    bias = weights["b"][:, :, None]

    def step(carry: Carry, at: tuple[Array, Array]) -> tuple[Carry, Array]:
        xw, first = at
        h, c = (jnp.where(first[:, None], 0.0, x) for x in carry)
        uh = jnp.einsum("mbh,mhgk->mgbk", h, weights["u"])
        parts = (_apart(xw, 2), _apart(uh, 2), _apart(bias, 2), _apart(h, 1), _apart(c, 2))
        told = [one.step(*own) for one, *own in zip(nodes, *parts, strict=True)]
        after = Carry(jnp.stack([h for h, _ in told]), jnp.stack([c for _, c in told]))
        return after, after.h

    carry, outputs = jax.lax.scan(step, carry, (xw, first))
    return carry, outputs.swapaxes(0, 1)


def _apart(x: Array, levels: int) -> Any:
    """Lists of parts along the first axes. Unlike indexing its gradient is one concatenation."""
    parts = [one[0] for one in jax.lax.split(x, [1] * x.shape[0])]
    return [_apart(part, levels - 1) for part in parts] if levels > 1 else parts


def losses(
    task: SequenceTask,
    nodes: Sequence[Node],
    weights: dict[str, PyTree],
    carry: list[Carry],
    segment: Stream,
) -> tuple[Float[Array, " M"], list[Carry]]:
    """Summed loss of each network over one segment, and what is carried on."""
    segment = jax.tree.map(jnp.asarray, segment)
    x: Array = segment.inputs
    if task.kind == "words":
        x = weights["embed"][:, x]
    after = []
    for slots, before in zip(weights["layers"], carry, strict=True):
        kept, x = layer(nodes, slots, before, x, segment.first)
        after.append(kept)
    logits = jnp.einsum("mtbh,mhv->mtbv", x, weights["out"]["w"])
    logits += weights["out"]["b"][:, None, None]
    if task.kind == "words":
        targets = jnp.broadcast_to(segment.targets, logits.shape[:-1])
        nll = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
    else:
        nll = optax.sigmoid_binary_cross_entropy(logits, segment.targets[None]).sum(-1)
    return (nll * segment.weight).sum((1, 2)), after


def _run(task: SequenceTask, nodes: Sequence[Node], size: Size, test: bool, one: PyTree) -> Trained:
    """All nodes for one seed, from the same first weights."""
    weights = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(nodes), *x.shape)), one)
    tx = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(size.learning_rate))
    streams = jax.tree.map(jnp.asarray, (task.train, task.valid, task.test))
    fresh = rest(nodes, size, streams[0].first.shape[-1])

    def loss(weights: PyTree, carry: Any, segment: Stream) -> tuple[Array, Any]:
        summed, carry = losses(task, nodes, weights, carry, segment)
        mean = summed / jnp.maximum(segment.weight.sum(), 1)
        return mean.sum(), (summed, carry)  # nodes share no weights, so their gradients do not mix

    def learn(state: Any, segment: Stream) -> tuple[Any, Array]:
        weights, moments, carry = state
        (_, (summed, carry)), gradient = jax.value_and_grad(loss, has_aux=True)(
            weights, carry, segment
        )
        updates, moments = jax.vmap(tx.update)(gradient, moments, weights)
        return (optax.apply_updates(weights, updates), moments, carry), summed

    def look(weights: PyTree, stream: Stream) -> Array:
        def body(carry: Any, segment: Stream) -> tuple[Any, Array]:
            summed, carry = losses(task, nodes, weights, carry, segment)
            return carry, summed

        return jax.lax.scan(body, fresh, stream)[1].sum(0) / stream.weight.sum()

    def epoch(state: Any, _: Any) -> tuple[Any, Any]:
        weights, moments, best, lowest = state
        (weights, moments, _), summed = jax.lax.scan(learn, (weights, moments, fresh), streams[0])
        valid = look(weights, streams[1])
        better = valid < lowest
        best = jax.tree.map(lambda new, old: jax.vmap(jnp.where)(better, new, old), weights, best)
        state = (weights, moments, best, jnp.where(better, valid, lowest))
        return state, (valid, summed.sum(0) / streams[0].weight.sum())

    state = (weights, jax.vmap(tx.init)(weights), weights, jnp.full(len(nodes), jnp.inf))
    (_, _, best, _), (valid, learned) = jax.lax.scan(epoch, state, None, length=size.epochs)
    tested = look(best, streams[2]) if test else jnp.full(len(nodes), jnp.nan)
    return Trained(valid.T, learned.T, tested)
