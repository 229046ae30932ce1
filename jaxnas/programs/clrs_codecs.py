"""Layers that read probes into features, and features back into probes, one for each kind.

Velickovic et al., ICML 2022, arXiv:2205.15659, and Ibarz et al., LoG 2022, arXiv:2209.11142: a
linear layer reads each input and hint, and the sums over all of a place are the features of nodes,
edges and graph. Linear layers on the features predict each hint and output. In a pointer, a node
and what it could point to meet under a maximum; a permutation is made doubly stochastic by Sinkhorn
normalisation (Mena et al., ICLR 2018), in training with Gumbel noise.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key

from jaxnas.data.clrs_probes import POINTERS, Probe
from jaxnas.programs.gmpnn import linear

TEMPERATURE = 0.1
STEPS = 10


class Features(NamedTuple):
    """What is known at the three places.

    Attributes:
      nodes: [B, N, D].
      edges: [B, N, N, E].
      graph: [B, G].
    """

    nodes: Array
    edges: Array
    graph: Array


class Encoder(nn.Module):
    """Adds what a probe says to the features of its place.

    Attributes:
      probe: whose values it reads.
      hidden: number of features.
    """

    probe: Probe
    hidden: int

    @nn.compact
    def __call__(self, value: Float[Array, "B ..."], features: Features) -> Features:
        """Features with this probe's added: pairs of nodes hear of pointers.

        Args:
          value: with pointers as weights of all nodes, [B, ..., N].
          features: so far.
        """
        place, kind = self.probe.place, self.probe.kind
        x = value if kind == "categorical" else value[..., None]
        if place == "edge" and kind == "pointer":
            # Edges share a node with the edge that points. The published code takes these means
            # after the layers: the same, since those are linear, on a hundred times more numbers.
            read = self._linear(x.mean(1)) + self._linear(x.mean(2))
            return features._replace(edges=features.edges + read)
        read = self._linear(x)
        if place == "edge" or (place == "node" and kind in POINTERS):
            return features._replace(edges=features.edges + read)
        if place == "node" or kind == "pointer":
            return features._replace(nodes=features.nodes + read)
        return features._replace(graph=features.graph + read)

    def _linear(self, x: Array) -> Array:
        # Predicted numbers come back: their weights are as if they were many.
        back = (self.probe.stage, self.probe.kind) == ("hint", "scalar")
        return linear(self.hidden, inputs=self.hidden if back else None)(x)


class Decoder(nn.Module):
    """Predicts a probe.

    Attributes:
      probe: what is predicted.
      hidden: number of features within.
    """

    probe: Probe
    hidden: int

    @nn.compact
    def __call__(self, features: Features, key: Key[Array, ""] | None = None) -> Array:
        """Logits, or numbers of a scalar; of a permutation their logarithms.

        Args:
          features: what is known.
          key: of the noise on a permutation, in training.
        """
        kind, classes = self.probe.kind, self.probe.classes
        places = {"node": self._nodes, "edge": self._edges, "graph": self._graph}
        size = self.hidden if kind in POINTERS else classes or 1
        predicted = places[self.probe.place](features, size)
        if kind == "permutation_pointer":
            return log_sinkhorn(predicted, STEPS, key)
        return predicted if classes or kind in POINTERS else predicted[..., 0]

    def _nodes(self, features: Features, size: int) -> Array:
        if self.probe.kind not in POINTERS:
            return linear(size)(features.nodes)
        own, other = linear(size)(features.nodes), linear(size)(features.nodes)
        pair = other[:, :, None] + linear(size)(features.edges)
        # The edge from j to i says whether i points to j.
        return linear(1)(jnp.maximum(own[:, :, None], pair.swapaxes(1, 2)))[..., 0]

    def _edges(self, features: Features, size: int) -> Array:
        first, second = linear(size)(features.nodes), linear(size)(features.nodes)
        pair = first[:, :, None] + second[:, None] + linear(size)(features.edges)
        if self.probe.kind != "pointer":
            return pair
        target = linear(size)(features.nodes)
        return linear(1)(jnp.maximum(pair[:, :, :, None], target[:, None, None]))[..., 0]

    def _graph(self, features: Features, size: int) -> Array:
        size = 1 if self.probe.kind == "pointer" else size
        told = linear(size)(features.nodes.max(1)) + linear(size)(features.graph)
        if self.probe.kind == "pointer":
            return told + linear(1)(features.nodes)[..., 0]
        return told


def log_sinkhorn(
    logits: Float[Array, "*B N N"], steps: int, key: Key[Array, ""] | None = None
) -> Float[Array, "*B N N"]:
    """Logarithms of a doubly stochastic matrix with an empty diagonal.

    Args:
      logits: of row i pointing to column j.
      steps: times that rows and columns are normalised in turn.
      key: of Gumbel noise on the logits; none without.
    """
    if key is not None:
        logits = logits + jax.random.gumbel(key, logits.shape)
    x = logits / TEMPERATURE - 1e6 * jnp.eye(logits.shape[-1])

    def normalised(x: Array, _: None) -> tuple[Array, None]:
        return nn.log_softmax(nn.log_softmax(x, axis=-1), axis=-2), None

    return jax.lax.scan(normalised, x, length=steps)[0]
