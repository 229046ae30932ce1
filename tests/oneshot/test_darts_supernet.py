"""The DARTS supernet against a mixed cell in plain loops, and its published sizes."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import darts_cells as slow

from jaxnas.cells import darts_space as ds
from jaxnas.nn.network import count_params, fill
from jaxnas.oneshot.darts_space import MixedCell, supernet
from jaxnas.oneshot.supernet import Mix

pytestmark = pytest.mark.usefixtures("quick_compile")


def size_of(classes=10, **how):
    net = supernet(classes=classes, **how)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    return count_params({"params": shapes})


@pytest.mark.parametrize(
    ("how", "size"),
    [
        ({"space": "s5"}, 1_930_618),
        pytest.param({"space": "darts"}, 1_930_618, marks=pytest.mark.slow),  # is seen below
        ({"space": "s1"}, 405_146),
        ({"space": "s2"}, 665_466),
        ({"space": "s3"}, 665_466),
        ({"space": "s4"}, 624_506),
        ({"partial": 4}, 299_578),
        # Seconds of tracing for another depth.
        *(
            pytest.param(
                {"space": "s5", "channels": 36, "layers": 20, "partial": partial},
                size,
                marks=pytest.mark.slow,
            )
            for partial, size in ((6, 2_221_750), (4, 2_986_462))
        ),
    ],
)
def test_the_supernet_has_the_published_number_of_parameters(how, size):
    assert size_of(**how) == size


def test_a_hundred_classes_add_the_published_number():
    assert size_of(classes=100, space="s2") == 665_466 + 23_130


@cache
def cell_of(space, reduction, partial, shape, channels):
    rng = np.random.default_rng(0)
    reduced, (batch, *size) = reduction, shape
    before = [n * (2 if reduced else 1) for n in size]
    s0, s1 = (jnp.asarray(rng.normal(size=(batch, *n, 5)), jnp.float32) for n in (before, size))
    ops = ds.SPACES[space]
    mix = Mix(
        jnp.asarray(rng.dirichlet(np.ones(len(ops[0][0])), 28), jnp.float32),
        jnp.asarray(rng.uniform(0.2, 1.5, 28), jnp.float32),
    )
    cell = MixedCell(ops, partial, channels, reduction, reduced)
    start = jax.eval_shape(lambda: cell.init(jax.random.key(0), s0, s1, mix, train=True))
    variables = jax.jit(lambda: fill(jax.random.key(0), start))()
    assert set(variables) == {"params"}  # no statistics
    assert all(path[-1].key == "kernel" for path, _ in jax.tree.leaves_with_path(variables))
    run = jax.jit(lambda mix: cell.apply(variables, s0, s1, mix, train=True))
    rows = slice(14 * reduction, 14 * (1 + reduction))

    def reference(mix):
        return slow.mixed_cell(
            np.asarray(s0, np.float64),
            np.asarray(s1, np.float64),
            variables["params"],
            ops[reduction],
            np.asarray(mix.ops[rows], np.float64),
            np.asarray(mix.edges[rows], np.float64),
            reduction=reduction,
            reduced=reduced,
            partial=partial,
        )

    return run, reference, mix


CELLS = [
    ("darts", False, 1, (2, 5), 2),
    ("darts", True, 2, (2, 6), 4),
    ("s1", True, 1, (2, 6), 2),
    ("s1", False, 2, (1, 4, 4), 4),
]


@pytest.mark.parametrize(("space", "reduction", "partial", "shape", "channels"), CELLS)
def test_a_cell_equals_the_same_cell_in_plain_loops(space, reduction, partial, shape, channels):
    """With a mixture of all operations, and with one operation on every edge alone."""
    run, reference, mix = cell_of(space, reduction, partial, shape, channels)
    np.testing.assert_allclose(run(mix), reference(mix), rtol=2e-3, atol=2e-3)
    size = mix.ops.shape[1]
    for shift in range(1, size, 2):
        alone = mix._replace(ops=jnp.eye(size)[(jnp.arange(28) + shift) % size])
        np.testing.assert_allclose(run(alone), reference(alone), rtol=2e-3, atol=2e-3)


def test_nothing_is_what_nothing_weighs():
    run, _, mix = cell_of(*CELLS[0])
    assert not np.asarray(run(mix._replace(ops=jnp.zeros((28, 8))))).any()
    assert not np.asarray(run(mix._replace(ops=jnp.eye(8)[jnp.zeros(28, int)]))).any()  # `none`
    assert not np.asarray(run(mix._replace(edges=jnp.zeros(28)))).any()


@pytest.mark.parametrize("shape", [(2, 16, 1), (2, 8, 8, 3)], ids=["1-D", "2-D"])
def test_logits_have_a_column_per_class_and_the_choices_are_those_of_the_space(shape):
    net = supernet(classes=7, channels=4, layers=3, space="s3", partial=2)
    x = jnp.zeros(shape)
    weights = jax.eval_shape(net.init, jax.random.key(0), x)
    mix = Mix(jnp.zeros((28, 3)), jnp.ones(28))
    logits = jax.eval_shape(net.logits, weights, mix, x, jax.random.key(0))
    assert logits.shape == (2, 7)
    assert logits.dtype == jnp.float32
    ops, nodes, kinds, keep = net.choices
    assert (kinds, keep) == (2, 2)
    assert ops == (("none", "skip_connect", "sep_conv_3x3"),) * 28
    assert nodes[:14] == (0, 0, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 3)
    assert nodes[14:] == tuple(n + 4 for n in nodes[:14])


def test_noise_is_drawn_anew_with_every_key():
    net = supernet(classes=3, channels=2, layers=1, space="s4")
    x = jnp.ones((2, 8, 1))
    weights = jax.jit(net.init)(jax.random.key(0), x)
    logits = jax.jit(net.logits)
    for op, differs in ((0, True), (1, False)):
        mix = Mix(jnp.eye(2)[jnp.full(28, op)], jnp.ones(28))
        a, b = (logits(weights, mix, x, jax.random.key(n)) for n in (0, 1))
        assert bool((a != b).any()) == differs


def test_kernels_start_by_the_fan_in_of_one_edge_of_one_layer():
    """Layers and edges stand on leading axes that are no part of it."""
    net = supernet(classes=3, channels=8, layers=13, space="s2")
    weights = jax.jit(net.init)(jax.random.key(0), jnp.zeros((1, 16, 1)))
    (name,) = [n for n in weights if n.startswith("stacked_10")]
    operation = weights[name]["stacked_0_sep_conv_3x3"]["SeparableConv_0"]
    depth, point = (operation[n]["kernel"] for n in ("Depthwise_0", "Conv_0"))
    assert depth.shape == (3, 4, 3, 1, 32)
    assert point.shape == (3, 4, 1, 32, 32)
    assert 0.97 / 3**0.5 < float(jnp.abs(depth).max()) <= 1 / 3**0.5
    assert 0.97 / 32**0.5 < float(jnp.abs(point).max()) <= 1 / 32**0.5


def test_what_is_derived_is_the_space_s_own():
    net = supernet(classes=3, channels=4, layers=2, space="s1")
    ops = jnp.tile(jnp.array([0.4, 0.6]), (28, 1))
    genotype = ds.decode(jax.jit(net.derive)(Mix(ops, jnp.ones(28))))
    assert genotype.normal[:2] == (("dil_conv_3x3", 0), ("dil_conv_5x5", 1))
    assert genotype.reduce[-2:] == (("avg_pool_3x3", 0), ("avg_pool_3x3", 1))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"channels": 18, "partial": 4}, "`partial` .*18 .*4"),
        ({"space": "s9"}, "`space` must be one of .*'s9'"),
    ],
)
def test_settings_that_make_no_supernet_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        supernet(classes=10, **wrong)
