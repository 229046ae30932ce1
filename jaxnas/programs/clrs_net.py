"""The network of Ibarz et al. (LoG 2022, arXiv:2209.11142) for one algorithm of CLRS-30.

Each step encodes inputs and hints, passes messages and decodes: the hints after the step, and the
outputs. What it predicted of the hints is what it reads in the next step, as probabilities that
gradients flow through, in training as in use: the true hints are read before the first step only.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key, PyTree

from jaxnas.data.clrs import Examples
from jaxnas.data.clrs_probes import POINTERS, Probe, Spec, shape, staged
from jaxnas.programs.clrs_codecs import Decoder, Encoder, Features, log_sinkhorn
from jaxnas.programs.gmpnn import TripletGMPNN, Triplets

Values = Mapping[str, Array]
SOFT_STEPS, HARD_STEPS = 25, 50  # of Sinkhorn's normalisation of what is already nearly normal


class Given(NamedTuple):
    """What a network may know of examples, in axes of `data.clrs.Examples`.

    Attributes:
      inputs: by name, [B, ...].
      start: hints before the first step, by name, [B, ...].
      lengths: of the runs, [B].
    """

    inputs: Values
    start: Values
    lengths: Int[Array, " B"]


def given(examples: Examples) -> Given:
    """What of examples a network may know."""
    start = {name: hint[:, 0] for name, hint in examples.hints.items()}
    return Given(examples.inputs, start, examples.lengths)


class Step(nn.Module):
    """One step: encode, pass messages, decode.

    Attributes:
      probes: of the algorithm.
      triplets: the triplet function of the processor.
      hidden: number of features.
      triplet_features: of a triplet.
    """

    probes: Spec
    triplets: Triplets
    hidden: int = 128
    triplet_features: int = 8

    @nn.compact
    def __call__(
        self, values: Values, state: Float[Array, "B N D"], key: Key[Array, ""] | None = None
    ) -> tuple[Float[Array, "B N D"], dict[str, Array]]:
        """New states of the nodes, and predictions of hints and outputs by name.

        Args:
          values: of inputs and hints, pointers as weights of all nodes.
          state: of the nodes.
          key: of the noise on permutations, in training.
        """
        batch, nodes, _ = state.shape
        blank = (jnp.zeros((batch, *[nodes] * i, self.hidden)) for i in (1, 2, 0))
        features = Features(*blank)
        for probe in self.probes:
            if probe.stage != "output":
                name = f"encode_{probe.name}"
                features = Encoder(probe, self.hidden, name=name)(values[probe.name], features)
        processor = TripletGMPNN(
            self.triplets, self.hidden, self.triplet_features, name="processor"
        )
        new, messages = processor(*features, state)
        # Decoders see what came in beside what came out.
        features = Features(
            jnp.concatenate([features.nodes, state, new], -1),
            jnp.concatenate([features.edges, messages], -1),
            features.graph,
        )
        predicted = [probe for probe in self.probes if probe.stage != "input"]
        decoders = {p.name: Decoder(p, self.hidden, name=f"decode_{p.name}") for p in predicted}
        return new, {name: decoder(features, key) for name, decoder in decoders.items()}


def start(step: Step, key: Key[Array, ""]) -> PyTree:
    """Parameters before training; sizes of graphs do not matter to them.

    Args:
      step: the network.
      key: of the initial weights.
    """
    nodes = 2
    read = [probe for probe in step.probes if probe.stage != "output"]
    values = {p.name: jnp.zeros((1, *shape(p, nodes, predicted=True))) for p in read}
    return step.init(key, values, jnp.zeros((1, nodes, step.hidden)))["params"]


def unroll(
    step: Step, params: Any, known: Given, steps: int, key: Key[Array, ""] | None = None
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Predictions of the outputs at the end of each run, and of the hints after every step.

    Args:
      step: the network.
      params: its parameters.
      known: what it may know.
      steps: the hints' axis, `T`; a step leads from each to the next.
      key: of the noise on permutations in training; none in use.

    Returns:
      Outputs by name, [B, ...], and hints by name, [B, T - 1, ...].
    """
    inputs, hints, outputs = (staged(step.probes, stage) for stage in ("input", "hint", "output"))
    batch, nodes = known.inputs["pos"].shape
    read = {p.name: weights(p, known.inputs[p.name], nodes) for p in inputs}
    blank = {p.name: jnp.zeros((batch, *shape(p, nodes, predicted=True))) for p in outputs}

    # What a step keeps for its gradient is some 40 MB at 16 nodes: it is computed again instead.
    @jax.checkpoint
    def once(params: Any, state: Array, seen: Values, i: Array) -> tuple[Array, Any]:
        noise = None if key is None else jax.random.fold_in(key, i)
        return step.apply({"params": params}, read | dict(seen), state, noise)

    def body(carry: Any, i: Array) -> tuple[Any, Any]:
        state, seen, last = carry
        state, predicted = once(params, state, seen, i)
        runs = (known.lengths > i + 1) | (i == 0)
        last = {
            name: jnp.where(_like(runs, old), predicted[name], old) for name, old in last.items()
        }
        told = {p.name: predicted[p.name] for p in hints}
        return (state, {p.name: soft(p, told[p.name]) for p in hints}, last), told

    state = jnp.zeros((batch, nodes, step.hidden))
    seen = {p.name: weights(p, known.start[p.name], nodes) for p in hints}
    count = jnp.arange(max(steps - 1, 1))
    (_, _, last), told = jax.lax.scan(body, (state, seen, blank), count)
    return last, {name: jnp.moveaxis(hint, 0, 1) for name, hint in told.items()}


def weights(probe: Probe, value: Array, nodes: int) -> Float[Array, "..."]:
    """A true value as the network reads it: pointers as one-hot weights of the nodes."""
    return jax.nn.one_hot(value, nodes) if probe.kind in POINTERS else jnp.asarray(value)


def soft(probe: Probe, predicted: Array) -> Array:
    """A prediction as the network reads it: probabilities of what is true."""
    if probe.kind == "scalar":
        return predicted
    if probe.kind == "mask":
        return nn.sigmoid(predicted)
    if probe.kind == "permutation_pointer":
        return jnp.exp(log_sinkhorn(predicted, SOFT_STEPS))
    return nn.softmax(predicted, axis=-1)


def hard(probe: Probe, predicted: Array) -> Array:
    """A prediction in the form of the truth, for scores: pointers as numbers of nodes."""
    if probe.kind == "scalar":
        return predicted
    if probe.kind == "mask":
        return (predicted > 0).astype(jnp.float32)
    if probe.kind == "permutation_pointer":
        predicted = log_sinkhorn(predicted, HARD_STEPS)
    best = predicted.argmax(-1)
    return best if probe.kind in POINTERS else jax.nn.one_hot(best, predicted.shape[-1])


def _like(flags: Array, value: Array) -> Array:
    """Flags of examples, with as many axes as their values."""
    return flags.reshape(flags.shape + (1,) * (value.ndim - 1))
