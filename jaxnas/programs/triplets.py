"""Triplet functions: the nine that EvoPrompting starts from and five that it found, as sources.

Chen, Dohan & So, EvoPrompting, NeurIPS 2023, arXiv:2302.14838, section 4.2, in Flax Linen. Such a
function makes a message for each edge (i, k), [B, N, N, features], of

    z                   nodes, features beside states, [B, N, 2 D]
    edge_fts            edges, [B, N, N, D]
    graph_fts           the graph, [B, D]
    nb_triplet_fts      features of a triplet (j, i, k)
    out_size            features of a message

It is called in a compact module, so layers are made where they are used. `SOURCES` has each as a
program of its own, under the one name that such a program must define. None calls another, since
prompts show them one by one.
"""

import inspect
from types import FunctionType

import jax.numpy as jnp
from flax import linen as nn

from jaxnas.programs.imports import with_imports

NAME = "get_triplet_msgs"
STUB = f"def {NAME}(z, edge_fts, graph_fts, nb_triplet_fts, out_size):"


def _v1(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    nodes = [nn.Dense(nb_triplet_fts)(z) for _ in range(3)]
    edges = [nn.Dense(nb_triplet_fts)(edge_fts) for _ in range(3)]
    graph = nn.Dense(nb_triplet_fts)(graph_fts)
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    triplets += jnp.expand_dims(graph, (1, 2, 3))
    return nn.Dense(out_size)(jnp.max(triplets, axis=1))


def _v2(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    nodes = [nn.Dense(nb_triplet_fts)(z) for _ in range(3)]
    edges = [nn.Dense(nb_triplet_fts)(edge_fts) for _ in range(3)]
    graph = nn.Dense(nb_triplet_fts)(graph_fts)
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    triplets += jnp.expand_dims(graph, (1, 2, 3))
    messages = nn.relu(nn.Dense(out_size)(jnp.max(triplets, axis=1)))
    return nn.Dense(out_size)(messages)


def _v3(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    nodes = [nn.Dense(nb_triplet_fts)(z) for _ in range(3)]
    edges = [nn.Dense(nb_triplet_fts)(edge_fts) for _ in range(3)]
    graph = nn.Dense(nb_triplet_fts)(graph_fts)
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    triplets += jnp.expand_dims(graph, (1, 2, 3))
    return nn.Dense(out_size)(jnp.sum(triplets, axis=1))


def _v4(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    hidden = [nn.relu(nn.Dense(nb_triplet_fts)(z)) for _ in range(3)]
    nodes = [nn.Dense(nb_triplet_fts)(x) for x in hidden]
    edges = [nn.Dense(nb_triplet_fts)(edge_fts) for _ in range(3)]
    graph = nn.Dense(nb_triplet_fts)(graph_fts)
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    triplets += jnp.expand_dims(graph, (1, 2, 3))
    return nn.Dense(out_size)(jnp.max(triplets, axis=1))


def _v5(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    nodes = [nn.Dense(nb_triplet_fts)(z) for _ in range(3)]
    hidden = [nn.relu(nn.Dense(nb_triplet_fts)(edge_fts)) for _ in range(3)]
    edges = [nn.Dense(nb_triplet_fts)(x) for x in hidden]
    graph = nn.Dense(nb_triplet_fts)(graph_fts)
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    triplets += jnp.expand_dims(graph, (1, 2, 3))
    return nn.Dense(out_size)(jnp.max(triplets, axis=1))


def _v6(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    nodes = [nn.Dense(nb_triplet_fts)(z) for _ in range(3)]
    edges = [nn.Dense(nb_triplet_fts)(edge_fts) for _ in range(3)]
    graph = nn.Dense(nb_triplet_fts)(nn.relu(nn.Dense(nb_triplet_fts)(graph_fts)))
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    triplets += jnp.expand_dims(graph, (1, 2, 3))
    return nn.Dense(out_size)(jnp.max(triplets, axis=1))


def _v7(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    nodes = [nn.Dense(nb_triplet_fts)(z) for _ in range(3)]
    edges = [nn.Dense(nb_triplet_fts)(edge_fts) for _ in range(3)]
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    return nn.Dense(out_size)(jnp.max(triplets, axis=1))


def _v8(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    nodes = jnp.expand_dims(nn.Dense(out_size)(z), axis=1)
    return jnp.tile(nodes, (1, z.shape[1], 1, 1))


def _v9(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    def gated(x, size):
        return nn.Dense(size)(x) * nn.Dense(size)(nn.relu(nn.Dense(8 * size)(x)))

    nodes = [gated(z, nb_triplet_fts) for _ in range(3)]
    edges = [gated(edge_fts, nb_triplet_fts) for _ in range(3)]
    graph = gated(graph_fts, nb_triplet_fts)
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    triplets += jnp.expand_dims(graph, (1, 2, 3))
    return gated(jnp.max(triplets, axis=1), out_size)


def _quadnodeminmax(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    nodes = [nn.Dense(nb_triplet_fts)(z) for _ in range(4)]
    triplets = sum(map(jnp.expand_dims, nodes, [(1, 2), (1, 3), (2, 3), (3, 1)]))
    return jnp.max(triplets, axis=1) - jnp.min(triplets, axis=1)


def _concatrep(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    def both(x):
        size = nb_triplet_fts
        mixed = nn.Dense(size)(nn.relu(nn.Dense(4 * size)(x)))
        return jnp.concatenate([nn.Dense(size)(x), mixed], axis=-1)

    nodes = [both(z) for _ in range(3)]
    edges = [both(edge_fts) for _ in range(3)]
    graph = both(graph_fts)
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    triplets += jnp.expand_dims(graph, (1, 2, 3))
    return nn.Dense(out_size)(jnp.max(triplets, axis=1))


def _tanhexpandtriplets(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    nodes = [nn.Dense(nb_triplet_fts)(z) for _ in range(3)]
    edges = [nn.Dense(nb_triplet_fts)(edge_fts) for _ in range(3)]
    graph = nn.Dense(nb_triplet_fts)(graph_fts)
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    for axes in [(1, 2, 3), (2, 3, 1), (3, 1, 2)]:
        triplets += jnp.expand_dims(graph, axes)
    return nn.Dense(out_size)(jnp.tanh(jnp.max(triplets, axis=1)))


def _div2mean(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    nodes = [nn.Dense(nb_triplet_fts)(z / 2) for _ in range(3)]
    edges = [nn.Dense(nb_triplet_fts)(edge_fts) for _ in range(3)]
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    return nn.Dense(out_size)(jnp.mean(triplets, axis=1))


def _maxmean(z, edge_fts, graph_fts, nb_triplet_fts, out_size):
    nodes = [nn.Dense(nb_triplet_fts)(z) for _ in range(3)]
    edges = [nn.Dense(nb_triplet_fts)(edge_fts) for _ in range(3)]
    triplets = sum(map(jnp.expand_dims, nodes, [(2, 3), (1, 3), (1, 2)]))
    triplets += sum(map(jnp.expand_dims, edges, [3, 2, 1]))
    return nn.Dense(out_size)(jnp.mean(jnp.maximum(triplets, -100.0), axis=1))


def _named(*functions: FunctionType) -> dict[str, FunctionType]:
    return {function.__name__.removeprefix("_"): function for function in functions}


def _source(function: FunctionType) -> str:
    """A program that defines this function as `NAME`."""
    text = inspect.getsource(function).replace(f"def {function.__name__}(", f"def {NAME}(", 1)
    return with_imports(f"\n\n{text}")


SEEDS = _named(_v1, _v2, _v3, _v4, _v5, _v6, _v7, _v8, _v9)
DISCOVERED = _named(_quadnodeminmax, _concatrep, _tanhexpandtriplets, _div2mean, _maxmean)
SOURCES: dict[str, str] = {name: _source(f) for name, f in (SEEDS | DISCOVERED).items()}
