"""The plain network of a cell, and the one program that holds them all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.cells.nas_bench_201_net import any_network, fixed_network
from jaxnas.nn.network import count_params, cross_entropy

pytestmark = pytest.mark.usefixtures("quick_compile")
SEQUENCE, IMAGE = (3, 12, 2), (2, 8, 8, 3)
# Each operation stands on each edge once: a Latin square.
SQUARE = [[(edge + shift) % 5 for edge in range(6)] for shift in range(5)]


@pytest.mark.parametrize(
    ("cell", "channels", "layers", "classes"),
    [
        ([3, 3, 3, 1, 3, 2], 16, 5, 10),
        ([0, 1, 2, 3, 4, 2], 4, 1, 7),
        ([3] * 6, 8, 2, 3),
        ([2, 3, 2, 3, 2, 3], 6, 3, 120),
        ([0] * 6, 16, 5, 10),
    ],
)
def test_a_network_has_exactly_the_parameters_that_are_reported(cell, channels, layers, classes):
    network = fixed_network(np.array(cell), classes=classes, channels=channels, layers=layers)
    shapes = jax.eval_shape(network.init, jax.random.key(0), jnp.zeros(IMAGE))
    told = nb.params(np.array(cell), classes=classes, channels=channels, layers=layers)
    assert count_params(shapes) == told


def transplant(one_for_all, plain, cell):
    """The variables of the program of all cells, holding the weights of one plain network."""

    def change(path, leaf):
        where = [p.key for p in path]
        cells = [i for i, name in enumerate(where) if name.startswith("AnyCell")]
        if not cells:
            return follow(plain, where)
        inside = where[cells[0] + 1]
        source = int(inside[-1])
        outputs = range(source + 1, 4)
        pieces = np.split(np.asarray(leaf).copy(), len(outputs), axis=-1)
        for piece, node in zip(pieces, outputs, strict=True):
            op = cell[nb.EDGES.index((source, node))]
            if op not in (nb.CONV1, nb.CONV3):
                piece[...] = 17.0  # whatever stands here must not matter
                continue
            home = [*where[: cells[0]], where[cells[0]].replace("AnyCell", "FixedCell")]
            if inside.startswith("norm"):
                piece[...] = follow(
                    plain, [*home, f"edge_{source}_{node}_norm", *where[cells[0] + 2 :]]
                )
                continue
            kernel = follow(plain, [*home, f"edge_{source}_{node}", "kernel"])
            piece[...] = 17.0
            middle = tuple(
                slice(1, 2) if op == nb.CONV1 else slice(None) for _ in kernel.shape[:-2]
            )
            piece[middle] = kernel
        return jnp.asarray(np.concatenate(pieces, axis=-1))

    return jax.tree_util.tree_map_with_path(change, one_for_all)


def follow(tree, path):
    for name in path:
        tree = tree[name]
    return np.asarray(tree)


def both(shape):
    """Loss, logits and new statistics of the program of all cells; compiled once per shape."""

    def run(variables, genotype, x, y):
        network = any_network(genotype, classes=4, channels=4, layers=1)

        def loss(params):
            logits, new = network.apply({**variables, "params": params}, x, True)
            return cross_entropy(logits, y), (logits, new)

        (_, (logits, new)), gradient = jax.value_and_grad(loss, has_aux=True)(variables["params"])
        return logits, new, gradient, network.apply(new, x, False)[0]

    return jax.jit(run)


@pytest.fixture(scope="module", params=[SEQUENCE, IMAGE], ids=["1-D", "2-D"])
def one_program(request):
    return request.param, both(request.param)


@pytest.mark.parametrize(
    "cells",
    [[[3, 2, 4, 1, 0, 3]], pytest.param(SQUARE, marks=pytest.mark.slow)],
    ids=["one cell", "every operation on every edge"],
)
def test_both_networks_compute_the_same_in_training_evaluation_and_gradient(one_program, cells):
    shape, run = one_program
    x = jax.random.normal(jax.random.key(1), shape)
    y = jnp.arange(shape[0]) % 4
    for cell in cells:
        genotype = jnp.array(cell, jnp.int8)
        plain = fixed_network(np.array(cell), classes=4, channels=4, layers=1)
        weights = shaken(jax.jit(plain.init)(jax.random.key(2), x))
        start = jax.jit(any_network(genotype, classes=4, channels=4, layers=1).init)
        shapes = start(jax.random.key(0), x)
        ours = run(transplant(shapes, weights, cell), genotype, x, y)

        def loss(params, plain=plain, weights=weights):
            logits, new = plain.apply({**weights, "params": params}, x, True)
            return cross_entropy(logits, y), (logits, new)

        gradient_of = jax.jit(jax.value_and_grad(loss, has_aux=True))
        (_, (logits, new)), gradient = gradient_of(weights["params"])
        evaluated = jax.jit(lambda v, plain=plain: plain.apply(v, x, False)[0])(new)
        np.testing.assert_allclose(ours[0], logits, atol=2e-4)
        np.testing.assert_allclose(ours[3], evaluated, atol=2e-4)
        for name in ("Dense_0", "Conv_0", "Residual_1"):
            for a, b in zip(*map(jax.tree.leaves, (ours[2][name], gradient[name])), strict=True):
                np.testing.assert_allclose(a, b, atol=1e-4 + 2e-3 * float(jnp.abs(b).max()))
        inside_agrees(ours[2], gradient, cell)


def shaken(variables):
    """Scales, biases and statistics that are not all ones and zeros."""
    rng = np.random.default_rng(3)
    return jax.tree.map(
        lambda v: jnp.asarray(v + 0.1 * rng.random(v.shape), jnp.float32) if v.ndim == 1 else v,
        variables,
    )


def inside_agrees(ours, plain, cell):
    """Gradients of the kernels in cells: equal where used, exactly zero where masked."""
    for name in (n for n in ours if n.startswith("AnyCell")):
        for source in range(3):
            nodes = range(source + 1, 4)
            pieces = np.split(np.asarray(ours[name][f"kernel_{source}"]), len(nodes), axis=-1)
            for piece, node in zip(pieces, nodes, strict=True):
                op = cell[nb.EDGES.index((source, node))]
                wanted = np.zeros_like(piece)
                if op in (nb.CONV1, nb.CONV3):
                    kernel = plain[name.replace("Any", "Fixed")][f"edge_{source}_{node}"]["kernel"]
                    middle = slice(1, 2) if op == nb.CONV1 else slice(None)
                    wanted[(middle,) * (piece.ndim - 2)] = kernel
                np.testing.assert_allclose(
                    piece, wanted, atol=1e-4 + 2e-3 * float(np.abs(wanted).max())
                )
                assert np.all(piece[wanted == 0] == 0) or op == nb.CONV3


def test_the_program_of_all_cells_starts_as_a_plain_network_would():
    """A lone middle point starts within 1 / sqrt(C), a full kernel within 1 / sqrt(9 C)."""
    genotype = jnp.array([3, 2, 0, 1, 3, 2], jnp.int8)
    network = any_network(genotype, classes=4, channels=16, layers=1)
    kernel = np.asarray(
        jax.jit(network.init)(jax.random.key(0), jnp.zeros(IMAGE))["params"]["AnyCell_0"][
            "kernel_0"
        ]
    )
    full, point, nothing = (piece.copy() for piece in np.split(kernel, 3, axis=-1))
    assert 0.98 / 12 < np.abs(full).max() <= 1 / 12
    assert 0.95 / 4 < np.abs(point[1, 1]).max() <= 1 / 4
    assert abs(point[1, 1].std() - 1 / 4 / 3**0.5) < 0.02
    point[1, 1] = 0
    assert not point.any()
    assert not nothing.any()
