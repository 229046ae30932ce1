"""Graph attention over lists of edges against a matrix of nodes by nodes, and what must hold."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.sparse import BCOO
from reference import gat as reference

from jaxnas.nn.gat import GAT, segment_softmax
from jaxnas.nn.network import count_params

pytestmark = pytest.mark.usefixtures("quick_compile")
NODES, FEATURES, CLASSES = 11, 6, 3
ALONE = 10  # the last node has no neighbours


def drawn(seed=0):
    """Features, and edges both ways between the nodes that are not alone."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(NODES, FEATURES)) * (rng.random((NODES, FEATURES)) < 0.5)
    pairs = np.argwhere(np.triu(rng.random((ALONE, ALONE)) < 0.4, 1)).T
    edges = np.concatenate([pairs, pairs[::-1]], axis=1)
    return jnp.asarray(x, jnp.float32), jnp.asarray(edges, jnp.int32)


@functools.partial(jax.jit, static_argnums=0)
def initial(module, key, x, edges):
    """Variables in which nothing is zero, so that nothing can be left out unseen."""
    variables = module.init(key, x, edges, train=False)
    return jax.tree.map(lambda v: v + 0.1 * jnp.cos(jnp.arange(v.size)).reshape(v.shape), variables)


def started(module, x, edges, seed=1):
    return initial(module, jax.random.key(seed), x, edges)


@functools.partial(jax.jit, static_argnums=0)
def logits_of(module, variables, x, edges):
    return module.apply(variables, x, edges, train=False)


@pytest.mark.parametrize(
    "options",
    [{}, {"layers": 3, "heads": 2, "hidden": 5, "out_heads": 3, "residual": True}, {"layers": 1}],
    ids=["paper", "deep", "shallow"],
)
def test_logits_equal_those_of_masked_attention_on_a_matrix(options):
    x, edges = drawn()
    module = GAT(CLASSES, **options)
    variables = started(module, x, edges)
    logits = logits_of(module, variables, x, edges)
    expected = reference.gat(variables["params"], x, edges, residual=options.get("residual", False))
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


def test_residuals_project_only_where_widths_differ():
    x, edges = drawn()
    params = started(GAT(CLASSES, layers=3, residual=True), x, edges)["params"]
    projected = [n for n in range(3) if "kernel_residual" in params[f"layer_{n}"]]
    assert projected == [2]


def test_sparse_features_give_the_logits_and_gradients_of_dense_ones():
    x, edges = drawn()
    module = GAT(CLASSES)
    variables = started(module, x, edges)

    def both(x):
        return jax.jit(
            jax.value_and_grad(lambda v: jnp.sin(module.apply(v, x, edges, train=False)).sum())
        )(variables)

    dense, sparse = both(x), both(BCOO.fromdense(x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), dense, sparse)


def test_parameters_are_counted_by_hand():
    """Cora: 8 heads of 1433 x 8 + 2 x 8, then 64 x 7 + 2 x 7, and a bias of 64 and of 7.

    PPI: 4 heads of 50 x 256, 4 of 1024 x 256, 6 of 1024 x 121 whose mean is as wide as a
    projection of 1024 x 121.
    """

    def counted(module, features):
        x, edges = jnp.zeros((2, features)), jnp.zeros((2, 0), jnp.int32)
        return count_params(
            jax.eval_shape(lambda: module.init(jax.random.key(0), x, edges, train=False))
        )

    paper = 8 * (1433 * 8 + 2 * 8) + 64 * 7 + 2 * 7
    assert (paper, counted(GAT(7), 1433)) == (92_302, 92_302 + 64 + 7)
    ppi = GAT(121, hidden=256, heads=4, out_heads=6, layers=3, residual=True)
    first = 4 * (50 * 256 + 2 * 256) + 1024
    second = 4 * (1024 * 256 + 2 * 256) + 1024
    third = 6 * (1024 * 121 + 2 * 121) + 121 + 1024 * 121
    assert counted(ppi, 50) == first + second + third


def test_renaming_nodes_renames_logits():
    x, edges = drawn()
    module = GAT(CLASSES)
    variables = started(module, x, edges)
    order = jax.random.permutation(jax.random.key(3), NODES)
    place = jnp.argsort(order)  # where each node went
    shuffled = jax.random.permutation(jax.random.key(4), place[edges], axis=1)
    renamed = logits_of(module, variables, x[order], shuffled.astype(jnp.int32))
    before = logits_of(module, variables, x, edges)
    np.testing.assert_allclose(renamed, before[order], rtol=1e-5, atol=1e-6)


def test_only_nodes_two_edges_away_are_looked_at():
    x = jnp.ones((5, FEATURES))
    path = np.array([[0, 1, 2, 3], [1, 2, 3, 4]])
    edges = jnp.asarray(np.concatenate([path, path[::-1]], 1), jnp.int32)
    module = GAT(CLASSES)
    variables = started(module, x, edges)
    slope = jax.jit(jax.jacobian(lambda x: logits_of(module, variables, x, edges)[0]))(x)
    touched = np.abs(slope).sum((0, 2)) > 0
    np.testing.assert_array_equal(touched, [True, True, True, False, False])


def test_gradients_are_finite_where_a_node_is_alone_and_scores_are_huge():
    x, edges = drawn()
    module = GAT(CLASSES)
    variables = started(module, x, edges)

    def loss(variables, x):
        logits = module.apply(variables, x, edges, train=True, rngs={"dropout": jax.random.key(0)})
        return -jax.nn.log_softmax(logits)[:, 0].sum()

    slopes = jax.jit(jax.grad(loss, (0, 1)))(variables, x.at[ALONE].set(1e4))
    assert all(jnp.isfinite(s).all() for s in jax.tree.leaves(slopes))
    assert jnp.abs(slopes[1][ALONE]).sum() > 0


def test_weights_of_a_segment_are_a_softmax_however_large_the_scores():
    rng = np.random.default_rng(0)
    segments = jnp.asarray(rng.integers(0, 5, 40), jnp.int32)
    scores = jnp.asarray(rng.normal(size=(40, 2)), jnp.float32)
    weights = segment_softmax(scores, segments, 7)
    for segment in range(5):
        rows = np.asarray(segments) == segment
        power = np.exp(np.asarray(scores)[rows])
        np.testing.assert_allclose(weights[rows], power / power.sum(0), rtol=1e-5)
    offset = jnp.asarray([1e4, -1e4])  # beyond what a float32 can raise to a power
    moved = segment_softmax(scores + offset, segments, 7)
    np.testing.assert_allclose(moved, weights, rtol=1e-2)
    np.testing.assert_allclose(jax.ops.segment_sum(moved, segments, 7)[:5], 1, rtol=1e-5)


def test_segments_without_rows_leave_gradients_finite():
    segments = jnp.array([0, 0, 3], jnp.int32)
    slope = jax.grad(lambda s: (segment_softmax(s, segments, 5)[:, 0] ** 2).sum())(jnp.eye(3, 1))
    assert jnp.isfinite(slope).all()
    p = float(jax.nn.sigmoid(1.0))
    expected = 2 * p * p * (1 - p) - 2 * (1 - p) * p * (1 - p)
    np.testing.assert_allclose(slope[:, 0], [expected, -expected, 0], rtol=1e-5)


@pytest.mark.parametrize("sparse", [False, True])
def test_dropout_keeps_the_mean_and_drops_inputs_and_coefficients(sparse):
    """One linear layer whose scores are all equal: its mean over masks is its output without."""
    x, edges = drawn()
    module = GAT(CLASSES, layers=1, dropout=0.3)
    variables = started(module, x, edges)
    layer = variables["params"]["layer_0"]
    flat = {k: jnp.zeros_like(layer[k]) for k in ("kernel_source", "kernel_target")}
    variables = {"params": {"layer_0": {**layer, **flat}}}
    given = BCOO.fromdense(x) if sparse else x

    @jax.jit
    def dropped(keys):
        return jax.vmap(
            lambda key: module.apply(variables, given, edges, train=True, rngs={"dropout": key})
        )(keys)

    samples = dropped(jax.random.split(jax.random.key(5), 4_000))
    kept = logits_of(module, variables, x, edges)
    error = 5 * samples.std(0) / 4_000**0.5
    assert (jnp.abs(samples.mean(0) - kept) < error).all()
    # A node alone has one coefficient: it is lost, with all of its inputs, with probability .3,
    # or all its words are lost one by one.
    words = int((x[ALONE] != 0).sum())
    nothing = 0.3 + 0.7 * 0.3**words
    lost = jnp.isclose(samples[:, ALONE], layer["bias"], atol=1e-6).all(-1).mean()
    assert abs(float(lost) - nothing) < 5 * (nothing * (1 - nothing) / 4_000) ** 0.5


def test_candidates_in_a_batch_share_one_graph():
    x, edges = drawn()
    module = GAT(CLASSES)
    stack = jax.tree.map(
        lambda *v: jnp.stack(v), *(started(module, x, edges, seed) for seed in range(3))
    )
    keys = jax.random.split(jax.random.key(0), 3)
    given = BCOO.fromdense(x)

    def slope(variables, key):
        def loss(v):
            logits = module.apply(v, given, edges, train=True, rngs={"dropout": key})
            return (logits**2).sum()

        return jax.grad(loss)(variables)

    together = jax.jit(jax.vmap(slope))(stack, keys)
    one_by_one = jax.jit(lambda s, k: jax.lax.map(lambda a: slope(*a), (s, k)))(stack, keys)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-4, 1e-5), together, one_by_one)
