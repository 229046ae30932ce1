"""The supernet of NAS-Bench-201 cells against a cell in plain numpy, loops and all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.cells import INTO, mixed_cell

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.nn.network import count_params
from jaxnas.oneshot.supernet import MixedCell, supernet

pytestmark = pytest.mark.usefixtures("quick_compile")

BATCH, LENGTH, CHANNELS = 2, 7, 3


@pytest.fixture(scope="module")
def cell():
    """One cell with its weights, compiled: `(mix) -> output`, and its kernels by edge."""
    x = jax.random.normal(jax.random.key(0), (BATCH, LENGTH, CHANNELS))
    module, uniform = MixedCell(CHANNELS), jnp.full((6, 5), 0.2)
    weights = module.init(jax.random.key(1), x, uniform, train=True)
    assert set(weights) == {"params"}  # no statistics, no scales
    kernels = {}
    for source in range(3):
        nodes = [node for node, sources in INTO.items() if source in sources]
        for size in (1, 3):
            kernel = np.asarray(weights["params"][f"conv{size}_{source}"]["kernel"], np.float64)
            for node, piece in zip(nodes, np.split(kernel, len(nodes), axis=-1), strict=True):
                kernels[source, node, size] = piece
    run = jax.jit(lambda mix: module.apply(weights, x, mix, train=True))
    return np.asarray(x, np.float64), kernels, run


@pytest.mark.parametrize("shift", range(5))
def test_one_hot_weights_make_the_discrete_cell(cell, shift):
    """Over the five shifts each operation stands on each edge once."""
    x, kernels, run = cell
    mix = np.eye(5)[[(edge + shift) % 5 for edge in range(6)]]
    np.testing.assert_allclose(run(mix), mixed_cell(x, mix, kernels), atol=1e-4)


def test_a_mixture_is_the_weighted_sum_of_all_operations(cell):
    x, kernels, run = cell
    for seed in range(3):
        mix = np.random.default_rng(seed).dirichlet(np.ones(5), 6)
        np.testing.assert_allclose(run(mix), mixed_cell(x, mix, kernels), atol=1e-4)


def test_the_output_is_linear_in_the_weights_of_the_last_node(cell):
    _, _, run = cell
    rng = np.random.default_rng(5)
    mixes = rng.dirichlet(np.ones(5), (2, 6))
    mixes[1, :3] = mixes[0, :3]  # edges into earlier nodes stay
    for share in (0.25, 0.7):
        between = share * mixes[0] + (1 - share) * mixes[1]
        wanted = share * run(mixes[0]) + (1 - share) * run(mixes[1])
        np.testing.assert_allclose(run(between), wanted, atol=1e-4)


def test_nothing_is_what_nothing_weighs(cell):
    _, _, run = cell
    assert not np.asarray(run(np.zeros((6, 5)))).any()
    assert not np.asarray(run(np.eye(5)[[0] * 6])).any()


def test_a_gradient_reaches_an_edge_exactly_when_it_can_matter(cell):
    """Edges out of a node that reads zeros get no gradient but for what zeros become; `none` never."""
    _, _, run = cell
    mix = np.random.default_rng(1).dirichlet(np.ones(5), 6)
    slope = np.asarray(jax.grad(lambda mix: (run(mix) ** 2).sum())(jnp.asarray(mix)))
    assert not slope[:, nb.NONE].any()
    assert bool((np.abs(slope[:, 1:]) > 0).all())
    mix[[nb.EDGES.index((0, 1))]] = np.eye(5)[0]  # node 1 is zero
    slope = np.asarray(jax.grad(lambda mix: (run(mix) ** 2).sum())(jnp.asarray(mix)))
    for edge in ((1, 2), (1, 3)):
        np.testing.assert_allclose(slope[nb.EDGES.index(edge)], 0, atol=1e-6)
    assert np.abs(slope[nb.EDGES.index((0, 3)), 1:]).min() > 0


def test_the_supernet_has_the_published_number_of_parameters():
    net = supernet(classes=10, channels=16, layers=5)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert count_params({"params": shapes}) == 1_686_106
    shapes = jax.eval_shape(
        supernet(classes=100).init, jax.random.key(0), jnp.zeros((1, 32, 32, 3))
    )
    assert count_params({"params": shapes}) == 1_686_106 + 90 * 65


@pytest.mark.parametrize("shape", [(3, 12, 1), (2, 8, 8, 3)], ids=["1-D", "2-D"])
def test_logits_have_a_column_per_class_and_the_space_is_that_of_the_cells(shape):
    net = supernet(classes=7, channels=4, layers=1)
    x = jnp.zeros(shape)
    weights = jax.eval_shape(net.init, jax.random.key(0), x)
    logits = jax.eval_shape(net.logits, weights, jnp.zeros((6, 5)), x)
    assert logits.shape == (shape[0], 7)
    assert logits.dtype == jnp.float32
    assert net.edges == 6
    assert net.ops == nb.OPS
    assert net.ops[net.skip] == "skip_connect"
    assert {net.ops[i] for i in net.learned} == {"nor_conv_1x1", "nor_conv_3x3"}
