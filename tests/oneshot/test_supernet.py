"""The supernet of NAS-Bench-201 cells against a cell in plain numpy, loops and all."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference.cells import INTO, mixed_cell, partial_cell

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.nn.network import count_params
from jaxnas.oneshot.nas_bench_201 import CHOICES, MixedCell, strongest, supernet
from jaxnas.oneshot.supernet import Mix, masked_softmax, shuffle

pytestmark = pytest.mark.usefixtures("quick_compile")

BATCH, LENGTH, CHANNELS = 2, 7, 3


def mixed(ops):
    return Mix(ops, jnp.ones(len(ops)))


@pytest.fixture(scope="module")
def cell():
    """One cell with its weights, compiled: `(mix) -> output`, and its kernels by edge."""
    x = jax.random.normal(jax.random.key(0), (BATCH, LENGTH, CHANNELS))
    module, uniform = MixedCell(CHANNELS), mixed(jnp.full((6, 5), 0.2))
    weights = jax.jit(lambda key: module.init(key, x, uniform, train=True))(jax.random.key(1))
    assert set(weights) == {"params"}  # no statistics, no scales
    kernels = {}
    for source in range(3):
        nodes = [node for node, sources in INTO.items() if source in sources]
        for size in (1, 3):
            stacked = weights["params"][f"stacked_conv{size}_{source}"]["kernel"]
            for node, piece in zip(nodes, np.asarray(stacked, np.float64), strict=True):
                kernels[source, node, size] = piece
    run = jax.jit(lambda mix: module.apply(weights, x, mixed(jnp.asarray(mix)), train=True))
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
    logits = jax.eval_shape(net.logits, weights, mixed(jnp.zeros((6, 5))), x, jax.random.key(0))
    assert logits.shape == (shape[0], 7)
    assert logits.dtype == jnp.float32
    assert net.choices.shape == (6, 5)
    assert net.choices.ops[0] == nb.OPS


def test_the_genotype_is_the_leading_operation_of_every_edge():
    leaders = [3, 0, 1, 4, 2, 2]
    assert strongest(mixed(jnp.eye(5)[jnp.array(leaders)] + 0.1)).tolist() == leaders
    assert strongest(mixed(jnp.eye(5)[jnp.array(leaders)])).dtype == nb.DTYPE
    into = [nb.EDGES[e][1] - 1 for e in range(6)]
    assert list(CHOICES.nodes) == into


@pytest.mark.parametrize("partial", [2, 4])
def test_partial_channels_go_around_and_are_shuffled_with_the_others(partial):
    """One cell against numpy: a part goes through the operations, then all are dealt in turn."""
    channels, part = 4, 4 // partial
    x = jax.random.normal(jax.random.key(0), (BATCH, LENGTH, channels))
    rng = np.random.default_rng(0)
    ops, edges = rng.dirichlet(np.ones(5), 6), rng.uniform(0.2, 1, 6)
    module = MixedCell(channels, partial=partial)
    mix = Mix(jnp.asarray(ops, jnp.float32), jnp.asarray(edges, jnp.float32))
    weights = jax.jit(lambda key: module.init(key, x, mix, train=True))(jax.random.key(1))
    kernels = {}
    for source in range(3):
        for size in (1, 3):
            stacked = weights["params"][f"stacked_conv{size}_{source}"]["kernel"]
            assert stacked.shape == (3 - source, size, part, part)
            for n, kernel in enumerate(np.asarray(stacked, np.float64)):
                kernels[source, source + 1 + n, size] = kernel
    wanted = partial_cell(np.asarray(x, np.float64), ops, edges, kernels, partial)
    got = jax.jit(lambda mix: module.apply(weights, x, mix, train=True))(mix)
    np.testing.assert_allclose(got, wanted, atol=1e-4)


@pytest.mark.parametrize(("channels", "groups"), [(8, 4), (12, 3), (6, 1)])
def test_a_shuffle_is_a_permutation_that_deals_the_groups_in_turn(channels, groups):
    x = jnp.arange(channels, dtype=jnp.float32)[None]
    dealt = [g * (channels // groups) + i for i in range(channels // groups) for g in range(groups)]
    assert shuffle(x, groups)[0].tolist() == dealt
    assert sorted(dealt) == list(range(channels))


@pytest.mark.parametrize(("partial", "params"), [(4, 174_106), (2, 476_506)])
def test_partial_supernets_have_the_published_number_of_parameters(partial, params):
    net = supernet(classes=10, partial=partial)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    assert count_params({"params": shapes}) == params


def test_channels_that_cannot_be_divided_are_refused():
    with pytest.raises(ValueError, match=r"`partial` must divide .* 6 channels .* by 4"):
        supernet(classes=10, channels=6, partial=4)


def test_a_masked_softmax_is_a_softmax_of_what_is_left():
    rng = np.random.default_rng(0)
    alphas, mask = 50 * rng.normal(size=(40, 5)), rng.random((40, 5)) < 0.5
    mask[0], mask[1] = False, True
    wanted = np.zeros((40, 5))
    for row in range(40):
        total = np.exp(alphas[row][mask[row]] - alphas[row].max()).sum()
        for k in range(5):
            if mask[row, k]:
                wanted[row, k] = np.exp(alphas[row, k] - alphas[row].max()) / total
    got = masked_softmax(jnp.asarray(alphas, jnp.float32), jnp.asarray(mask))
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert not np.asarray(got)[~mask].any()
    slope = jax.grad(lambda a: (masked_softmax(a, jnp.asarray(mask)) ** 2).sum())
    assert bool(jnp.isfinite(slope(jnp.asarray(alphas, jnp.float32))).all())
