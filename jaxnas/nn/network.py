"""The two pure functions every candidate network is reduced to."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Key, PyTree


class Network(NamedTuple):
    """A network as two pure functions.

    Attributes:
      init: `(key, x) -> variables`; `x` gives only shapes and dtype.
      apply: `(variables, x, train, rngs) -> (outputs, variables)`; the returned variables carry
        updated statistics when `train` is true.
    """

    init: Callable[[Key[Array, ""], Array], PyTree]
    apply: Callable[..., tuple[Any, PyTree]]


def from_linen(module: nn.Module, *args: Any) -> Network:
    """Wraps a Linen module called as `module(x, *args, train=...)`.

    Args:
      module: the module.
      *args: passed on at every call, e.g. a traced genotype.
    """

    def init(key: Key[Array, ""], x: Array) -> PyTree:
        shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, *args, train=False))
        return fill(key, shapes)

    def apply(variables: PyTree, x: Array, train: bool, rngs: Any = None) -> tuple[Any, PyTree]:
        if not train:
            return module.apply(variables, x, *args, train=False, rngs=rngs), variables
        y, updates = module.apply(
            variables, x, *args, train=True, rngs=rngs, mutable=["batch_stats"]
        )
        return y, {**variables, **updates}

    return Network(init, apply)


def from_nnx(make: Callable[[Any], Any]) -> Network:
    """Wraps a constructor of an NNX module, `make(nnx.Rngs) -> module`, called as `module(x)`.

    Dropout and batch norm follow `module.train()` and `module.eval()`.
    """
    from flax import nnx

    graph = nnx.graphdef(nnx.eval_shape(lambda: make(nnx.Rngs(0))))

    def init(key: Key[Array, ""], x: Array) -> PyTree:
        del x
        _, params, rest = nnx.split(make(nnx.Rngs(key)), nnx.Param, ...)
        return {"params": nnx.to_pure_dict(params), "rest": nnx.to_pure_dict(rest)}

    def apply(variables: PyTree, x: Array, train: bool, rngs: Any = None) -> tuple[Any, PyTree]:
        del rngs
        states = nnx.split(nnx.eval_shape(lambda: make(nnx.Rngs(0))), nnx.Param, ...)[1:]
        for state, part in zip(states, ("params", "rest"), strict=True):
            nnx.replace_by_pure_dict(state, variables[part])
        module = nnx.merge(graph, *states, copy=True)
        module.train() if train else module.eval()
        y = module(x)
        rest = nnx.split(module, nnx.Param, ...)[2]
        return y, {**variables, "rest": nnx.to_pure_dict(rest)}

    return Network(init, apply)


def fill(key: Key[Array, ""], shapes: PyTree) -> PyTree:
    """Initial values for a tree of shapes, by the name of each leaf, from one random draw.

    Leaves named `kernel...` are uniform within `1 / sqrt(fan-in)`, scales and variances are one,
    biases and means zero. Each module named `stacked...` on the way adds a leading axis, of layers
    or edges, which is no part of the fan-in. Tracing an initialiser per leaf costs more than a
    training step of a supernet does; one draw that is cut into pieces costs nothing.
    """
    paths, tree = jax.tree_util.tree_flatten_with_path(shapes)
    names = [str(path[-1].key) for path, _ in paths]
    kernels = [name.startswith("kernel") for name in names]
    sizes = [math.prod(x.shape) * k for k, (_, x) in zip(kernels, paths, strict=True)]
    draw = jax.random.uniform(key, (sum(sizes),), jnp.float32, -1.0, 1.0)
    leaves, start = [], 0
    for name, size, (path, x) in zip(names, sizes, paths, strict=True):
        if size:
            piece = draw[start : start + size].reshape(x.shape)
            stacked = sum(str(part.key).startswith("stacked") for part in path)
            fan_in = math.prod(x.shape[stacked:-1])
            leaves.append((piece / math.sqrt(fan_in)).astype(x.dtype))
        else:
            leaves.append(jnp.full(x.shape, float(name in ("scale", "var")), x.dtype))
        start += size
    return jax.tree.unflatten(tree, leaves)


def count_params(variables: PyTree) -> int:
    """Number of trainable parameters; works on shapes as well as on arrays."""
    return sum(math.prod(x.shape) for x in jax.tree.leaves(variables["params"]))


def cross_entropy(logits: Float[Array, "B K"], labels: Array) -> Float[Array, ""]:
    """Mean cross-entropy of integer labels, in float32."""
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, labels[:, None].astype(jnp.int32), -1)[:, 0]
    return (jax.nn.logsumexp(logits, -1) - picked).mean()
