"""Size of a candidate: operations, layers, features. None of it depends on a device."""

import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from flax import linen as nn
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn

# What counts as a layer of its own. Activations and pooling are functions in Flax: pooling is seen
# in the jaxpr, activations are not counted (nor are functional ones in LLMatic's own count).
WIDE = (nn.Conv, nn.ConvLocal, nn.ConvTranspose, nn.Dense, nn.DenseGeneral, nn.Einsum)
LAYERS = (
    *WIDE,
    nn.BatchNorm,
    nn.Bidirectional,
    nn.Dropout,
    nn.Embed,
    nn.GroupNorm,
    nn.InstanceNorm,
    nn.LayerNorm,
    nn.MultiHeadDotProductAttention,
    nn.PReLU,
    nn.RMSNorm,
    nn.RNN,
    nn.RNNCellBase,
)
POOLING = ("reduce_window", "reduce_window_max", "reduce_window_min", "reduce_window_sum")


class Layers(NamedTuple):
    """What was seen of a module while it was called.

    Attributes:
      paths: of its layers; the parts of a recurrent or attention layer are not layers.
      widths: features of its convolutions and dense layers, also of parts.
    """

    paths: set[Any]
    widths: list[int]


@contextmanager
def watched() -> Generator[Layers]:
    """Notes the layers of all modules called inside."""
    seen, inside = Layers(set(), [0]), []

    def note(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ):
        module = context.module
        if isinstance(module, WIDE):
            features = getattr(module, "features", getattr(module, "shape", 0))
            seen.widths.append(_product(features))
        if not isinstance(module, LAYERS) or context.method_name != "__call__":
            return call(*args, **kwargs)
        if not inside:
            seen.paths.add((type(module), module.path))
        inside.append(module)
        try:
            return call(*args, **kwargs)
        finally:
            inside.pop()

    with nn.intercept_methods(note):
        yield seen


def _product(features: Any) -> int:
    return math.prod(features) if isinstance(features, tuple | list) else int(features)


def pools(closed: ClosedJaxpr) -> int:
    """Pooling operations in a program."""
    return sum(eqn.primitive.name in POOLING for eqn in equations(closed.jaxpr))


def flops(jaxpr: Jaxpr) -> float:
    """Operations of all matrix products and convolutions, a multiply and an add as two.

    A scan counts as often as it runs, a `while` once, of a `cond` its dearest branch.

    Args:
      jaxpr: a program.
    """
    return math.fsum(_flops(eqn) for eqn in jaxpr.eqns)


def _flops(eqn: JaxprEqn) -> float:
    name = eqn.primitive.name
    operands: list[Any] = [v.aval for v in eqn.invars]
    results: list[Any] = [v.aval for v in eqn.outvars]
    if name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        return 2.0 * results[0].size * math.prod(operands[0].shape[i] for i in contracted)
    if name == "conv_general_dilated":
        kernel, numbers = operands[1], eqn.params["dimension_numbers"]
        return 2.0 * results[0].size * kernel.size / kernel.shape[numbers.rhs_spec[0]]
    if name == "cond":
        return max(flops(branch.jaxpr) for branch in eqn.params["branches"])
    times = eqn.params["length"] if name == "scan" else 1
    return times * math.fsum(flops(body) for body in _bodies(eqn))


def _bodies(eqn: JaxprEqn) -> Iterator[Jaxpr]:
    for value in eqn.params.values():
        for each in value if isinstance(value, tuple | list) else (value,):
            if isinstance(each, ClosedJaxpr):
                yield each.jaxpr
            elif isinstance(each, Jaxpr):
                yield each


def equations(jaxpr: Jaxpr) -> Iterator[JaxprEqn]:
    """All operations of a program, also those within others."""
    for eqn in jaxpr.eqns:
        yield eqn
        for body in _bodies(eqn):
            yield from equations(body)
