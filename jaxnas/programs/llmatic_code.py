"""LLMatic on networks in Flax: a candidate is a page of source, traced and trained by its judge.

Descriptors are the paper's: width over depth (the most features of a layer, by the number of
layers) and the FLOPs of one example. Instructions have the substance of the paper's appendix A,
thirteen, and three more to make the sixteen that it speaks of.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, UInt8

from jaxnas.core import Asked, Measured
from jaxnas.evolve.archive import Axis
from jaxnas.programs.llmatic import Candidates
from jaxnas.programs.page import page, text
from jaxnas.programs.proposal import Proposal

MUTATIONS = (
    "Add a layer to improve the network above.",
    "Delete a layer to improve the network above.",
    "Improve the network above.",
    "Make the network above drastically smaller to improve it.",
    "Make the network above drastically larger to improve it.",
    "Add a dense layer to improve the network above.",
    "Add a convolutional layer to improve the network above.",
    "Add a pooling layer to improve the network above.",
    "Add a residual connection to improve the network above.",
    "Add several residual connections to improve the network above.",
    "Add a dropout layer to improve the network above.",
    "Add a normalisation layer to improve the network above.",
    "Add a recurrent layer to improve the network above.",
    "Make the layers of the network above wider to improve it.",
    "Make the layers of the network above narrower to improve it.",
    "Make the network above deeper to improve it.",
)
PUBLISHED = 13  # of them are in the published code
CROSSOVER = "Combine the two networks above into a third one that performs better than both."
CREATION = "Write a new network that performs better than the one above."
_SEED = """import flax.linen as nn


class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
{channels}        x = nn.relu(nn.Conv(features=1, kernel_size={kernel})(x))
        x = x.reshape((x.shape[0], -1))
        return nn.relu(nn.Dense(features={classes})(x))
"""

Page = UInt8[Array | np.ndarray, " L"]


def seed(shape: Sequence[int], classes: int) -> str:
    """The network that all others come from: one 1x1 convolution and one dense layer, with ReLU.

    Args:
      shape: of one example; `(40,)` has no channels, `(32, 32, 3)` three.
      classes: outputs.
    """
    spatial = max(len(shape) - 1, 1)
    channels = "        x = x[..., None]\n" if len(shape) == 1 else ""
    kernel = "(1,)" if spatial == 1 else f"({', '.join(['1'] * spatial)})"
    return _SEED.format(channels=channels, kernel=kernel, classes=classes)


def networks(
    shape: Sequence[int],
    classes: int,
    *,
    axes: tuple[Axis, Axis],
    mutations: Sequence[str] = MUTATIONS,
) -> Candidates:
    """Sources as candidates of LLMatic.

    Args:
      shape: of one example.
      classes: outputs.
      axes: width over depth, and FLOPs.
      mutations: instructions.
    """
    shown = f"x is float32 [batch, {', '.join(map(str, shape))}]"
    introduction = (
        "You write neural networks in Flax. Answer with one Python code block and nothing else: "
        f"a class `Model(nn.Module)`, called as `Model()(x)`, where {shown} and the result "
        f"[batch, {classes}] logits. Only jax, jax.numpy as jnp and flax.linen as nn are there. Dropout "
        "and normalisation need `def __call__(self, x, train=False)`, then they are "
        "`nn.Dropout(0.2, deterministic=not train)(x)` and "
        "`nn.BatchNorm(use_running_average=not train)(x)`."
    )

    def write(instruction: str, parents: Sequence[Page], heat: float, number: int) -> Proposal:
        sources = [text(parent) for parent in parents]
        blocks = [f"```python\n{source.strip()}\n```" for source in sources]
        messages: list[Mapping[str, str]] = [
            {"role": "system", "content": introduction},
            {"role": "user", "content": "\n\n".join([*blocks, instruction])},
        ]
        return Proposal(messages, sources, heat, number, instruction)

    return Candidates(
        seed=page(seed(shape, classes)),
        mutations=tuple(mutations),
        crossover=CROSSOVER,
        creation=CREATION,
        axes=axes,
        write=write,
        read=page,
        describe=_describe,
    )


def _describe(asked: Asked, measured: Measured) -> Array:
    """Of what could not be traced NaN, which no archive keeps."""
    del asked
    extra: Any = measured.extra
    width, depth, flops = (
        jnp.asarray(extra[name], jnp.float32) for name in ("width", "depth", "flops")
    )
    ratio = jnp.where(depth > 0, width / jnp.maximum(depth, 1), jnp.nan)
    return jnp.stack([ratio, jnp.where(depth > 0, flops, jnp.nan)], 1)
