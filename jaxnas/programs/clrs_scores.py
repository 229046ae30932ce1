"""What predictions of probes lose, and how right they are.

Velickovic et al., ICML 2022, arXiv:2205.15659, section 3.3: a loss for each kind, averaged over
what is asked and over the steps that a run has, and summed over all hints and outputs. Only outputs
are scored: by F1 for masks, whose classes are rarely equal, else by the share that is right.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int

from jaxnas.data.clrs import Examples
from jaxnas.data.clrs_probes import POINTERS, Probe, Spec, staged
from jaxnas.programs.clrs_net import hard, weights

MASKED = -1.0
Values = Mapping[str, Array]


def loss(probes: Spec, examples: Examples, outputs: Values, hints: Values) -> Float[Array, ""]:
    """Sum of the mean losses of all hints and outputs.

    Args:
      probes: of the algorithm.
      examples: the truth.
      outputs: predicted at the end of each run, [B, ...].
      hints: predicted after each step, [B, T - 1, ...].
    """
    total = jnp.float32(0)
    for probe in staged(probes, "output"):
        total += _mean(*losses(probe, examples.outputs[probe.name], outputs[probe.name]))
    for probe in staged(probes, "hint"):
        truth, predicted = examples.hints[probe.name][:, 1:], hints[probe.name]
        each, asked = losses(probe, truth, predicted[:, : truth.shape[1]])
        runs = jnp.arange(1, truth.shape[1] + 1) < examples.lengths[:, None]
        total += _mean(each, asked * runs.reshape(runs.shape + (1,) * (each.ndim - 2)))
    return total


def losses(probe: Probe, truth: Array, predicted: Array) -> tuple[Array, Array]:
    """Losses of the single values, and which of them are asked for.

    Args:
      probe: whose.
      truth: as `data.clrs` has it, with any axes in front.
      predicted: logits, or numbers of a scalar; of a permutation logarithms.
    """
    if probe.kind == "scalar":
        return (predicted - truth) ** 2, jnp.ones(predicted.shape)
    if probe.kind == "mask":
        return optax.sigmoid_binary_cross_entropy(predicted, truth), truth != MASKED
    logs = predicted if probe.kind == "permutation_pointer" else jax.nn.log_softmax(predicted)
    right = weights(probe, truth, predicted.shape[-1]) == 1
    return -jnp.where(right, logs, 0).sum(-1), right.any(-1)


def tallies(probes: Spec, examples: Examples, outputs: Values) -> Float[Array, "outputs 2"]:
    """Numerator and denominator of each output's score, to be summed over batches.

    Args:
      probes: of the algorithm.
      examples: the truth.
      outputs: predicted at the end of each run.
    """
    found = {p.name: hard(p, outputs[p.name]) for p in staged(probes, "output")}
    rows = []
    for probe in staged(probes, "output"):
        truth, guess = examples.outputs[probe.name], found[probe.name]
        if probe.kind == "permutation_pointer":
            first = f"{probe.name}_mask"
            truth = _fused(truth, examples.outputs[first])
            guess = _fused(guess, found[first])
        elif probe.name.endswith("_mask") and any(p.kind == "permutation_pointer" for p in probes):
            continue  # it was judged with its permutation
        rows.append(jnp.stack(_tally(probe, truth, guess)))
    return jnp.stack(rows)


def score(tally: Float[Array, "outputs 2"]) -> Float[Array, ""]:
    """Mean score of the outputs, %.

    Args:
      tally: sums of `tallies` over all batches.
    """
    above, below = tally.T
    return 100 * jnp.where(below > 0, above / jnp.maximum(below, 1), 1.0).mean()


def _tally(probe: Probe, truth: Array, guess: Array) -> tuple[Array, Array]:
    if probe.kind == "scalar":
        return ((guess - truth) ** 2).sum(), jnp.float32(truth.size)
    if probe.kind == "mask":
        asked = truth != MASKED
        both = (guess * truth * asked).sum()
        # F1: twice what both have, over what either has, counted once for each.
        return 2 * both, ((guess + truth) * asked).sum()
    if probe.kind in POINTERS:
        return (guess == truth).sum(dtype=jnp.float32), jnp.float32(truth.size)
    asked = (truth != MASKED).all(-1)
    right = (guess.argmax(-1) == truth.argmax(-1)) & asked
    return right.sum(dtype=jnp.float32), asked.sum(dtype=jnp.float32)


def _fused(pointers: Int[Array, "B N"], first: Float[Array, "B N"]) -> Int[Array, "B N"]:
    """An order of nodes as predecessors, the first its own."""
    return jnp.where(first > 0.5, jnp.arange(pointers.shape[-1]), pointers)


def _mean(each: Array, asked: Array) -> Float[Array, ""]:
    return jnp.where(asked, each, 0).sum() / jnp.maximum(asked.sum(), 1e-12)
