"""Triplet-GMPNN: gated message passing on all pairs of nodes, edges hearing of triplets.

Ibarz et al., A Generalist Neural Algorithmic Learner, LoG 2022, arXiv:2209.11142; the triplets are
those of Dudzik & Velickovic, Graph Neural Networks are Dynamic Programmers, NeurIPS 2022. Its
triplet function can be replaced, which is what EvoPrompting searches (Chen, Dohan & So, NeurIPS
2023, arXiv:2302.14838). As in the published code every node hears of every other, whatever edges
the graph has: those are features. That code, too, has a further network on each message.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from flax.linen.initializers import constant
from jaxtyping import Array, Float

# A function of (z, edge features, graph features, number of triplet features, size of messages).
Triplets = Callable[[Array, Array, Array, int, int], Array]
GATE = -3.0  # the gate starts almost closed


class TripletGMPNN(nn.Module):
    """One step of message passing.

    Attributes:
      triplets: makes a message for each edge from what it sees; called in a compact module, so that
        layers made in it have parameters.
      hidden: features of a node, and of the messages.
      triplet_features: of a triplet.
    """

    triplets: Triplets
    hidden: int = 128
    triplet_features: int = 8

    @nn.compact
    def __call__(
        self,
        nodes: Float[Array, "B N D"],
        edges: Float[Array, "B N N D"],
        graph: Float[Array, "B D"],
        state: Float[Array, "B N D"],
    ) -> tuple[Float[Array, "B N D"], Float[Array, "B N N F"]]:
        """New states of the nodes, and messages of the edges.

        Args:
          nodes: features of the nodes.
          edges: of all pairs, those that send first.
          graph: of the whole.
          state: of the nodes, before.

        Raises:
          ValueError: if the triplet function makes no message for each edge.
        """
        z = jnp.concatenate([nodes, state], axis=-1)
        sent = self._linear("sender", z)[:, :, None] + self._linear("receiver", z)[:, None]
        seen = self._linear("edge", edges) + self._linear("graph", graph)[:, None, None]
        messages = nn.relu(sent + seen)
        messages = self._linear("message_1", nn.relu(self._linear("message_0", messages)))
        heard = messages.max(axis=1)
        new = nn.relu(self._linear("out_node", z) + self._linear("out_message", heard))
        new = nn.LayerNorm(epsilon=1e-5, name="norm")(new)
        gate = nn.relu(self._linear("gate_node", z) + self._linear("gate_message", heard))
        gate = nn.sigmoid(self._linear("gate", gate, bias=GATE))
        told = Messages(self.triplets, self.triplet_features, self.hidden, name="triplets")
        return gate * new + (1 - gate) * state, nn.relu(told(z, edges, graph))

    def _linear(self, name: str, x: Array, bias: float = 0.0) -> Array:
        return linear(self.hidden, name, bias=bias)(x)


class Messages(nn.Module):
    """Holds the parameters of a triplet function.

    Attributes:
      triplets: the function.
      features: of a triplet.
      size: features of a message.
    """

    triplets: Triplets
    features: int
    size: int

    @nn.compact
    def __call__(
        self, z: Float[Array, "B N Z"], edges: Float[Array, "B N N D"], graph: Float[Array, "B D"]
    ) -> Float[Array, "B N N F"]:
        """Its messages, if they are some."""
        told = self.triplets(z, edges, graph, self.features, self.size)
        wanted = edges.shape[:-1]
        if not hasattr(told, "shape") or told.shape[:-1] != wanted or told.ndim != 4:
            said = f"shape {told.shape}" if hasattr(told, "shape") else f"a {type(told).__name__}"
            raise ValueError(
                f"`triplets` must return messages [B, N, N, features] = [{wanted[0]}, {wanted[1]}, "
                f"{wanted[2]}, features], but returned {said}; reduce the axis that is left over."
            )
        return told


def linear(
    features: int, name: str | None = None, *, bias: float = 0.0, inputs: int | None = None
) -> nn.Dense:
    """A dense layer with the initial weights of Haiku, in which the network was published.

    Args:
      features: of its output.
      name: of the layer.
      bias: initial.
      inputs: by whose number the initial weights are scaled; `None` are those it has.
    """

    def kernel(key: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> Array:
        cut = jax.random.truncated_normal(key, -2, 2, shape, dtype)
        return cut / jnp.sqrt(inputs or shape[0])

    return nn.Dense(features, kernel_init=kernel, bias_init=constant(bias), name=name)
