"""The network of a pair of cells: against plain loops, and what drop-path and the heads do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import darts_cells as slow

from jaxnas.cells import darts_space, nasnet_space
from jaxnas.cells.darts_net import FixedCell, drop_path, network
from jaxnas.nn import chain
from jaxnas.nn.network import fill

pytestmark = pytest.mark.usefixtures("quick_compile")


def drawn(*shape, seed=1):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def started(module, *args, **more):
    """Variables of a module, without running it."""
    start = jax.eval_shape(lambda: module.init(jax.random.key(0), *args, **more))
    return jax.jit(lambda: fill(jax.random.key(0), start))()


def without_norms(params):
    return {name: part for name, part in params.items() if not name.startswith("Norm")}


@pytest.mark.parametrize("reduction", [False, True])
@pytest.mark.parametrize(
    ("space", "name", "size"),
    [
        (darts_space, "DARTS_V2", (8,)),
        (nasnet_space, "AmoebaNet", (6,)),
        pytest.param(nasnet_space, "NASNet", (4, 6), marks=pytest.mark.slow),
    ],
)
def test_a_cell_equals_the_same_cell_in_plain_loops(space, name, size, reduction):
    genotype = space.from_text(name)
    entries, concat = genotype[2:] if reduction else genotype[:2]
    before, last = drawn(2, *(2 * n for n in size), 3), drawn(2, *size, 5, seed=2)
    cell = FixedCell(entries, concat, 4, reduction, True)
    variables = started(cell, before, last, train=True)
    run = jax.jit(lambda v, *x: cell.apply(v, *x, train=True, mutable=["batch_stats"])[0])
    y = run(variables, before, last)
    params = {
        name: {inner: p for inner, p in part.items() if not inner.startswith("Norm")}
        for name, part in variables["params"].items()
    }
    states = [
        slow.entrance(np.asarray(before, np.float64), params["input_0"], True),
        slow.entrance(np.asarray(last, np.float64), params["input_1"], False),
    ]
    for n in range(0, len(entries), 2):
        node = 0.0
        for i in (n, n + 1):
            op, source = entries[i]
            own = params.get(f"entry_{i}_{op}", {})
            own = {k: without_norms(v) if "Reduce" in k else v for k, v in own.items()}
            stride = 2 if reduction and source < 2 else 1
            node = node + slow.operation(op, states[source], own, stride, False)
        states.append(node)
    wanted = np.concatenate([states[i] for i in concat], -1)
    np.testing.assert_allclose(y, wanted, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("space", "name", "loops"),
    [
        (darts_space, "DARTS_V1", {"stacked_2_5", "stacked_8_12", "stacked_15_19"}),
        (nasnet_space, "NASNet", {"stacked_2_5", "stacked_9_12", "stacked_16_19"}),
    ],
)
def test_cells_are_one_loop_from_where_both_inputs_have_the_shape_of_the_outputs(
    space, name, loops
):
    """Both outputs of NASNet differ in width, so there one cell more stands alone."""
    net = network(space.from_text(name), classes=2, channels=2, layers=20)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 16, 1)))
    names = set(shapes["params"]["chain"])
    assert {n for n in names if n.startswith("stacked")} == loops
    inside = {i for n in loops for i in range(*add(map(int, n.split("_")[1:])))}
    assert {n for n in names if n.startswith("cell")} == {
        f"cell_{i}" for i in {*range(20)} - inside
    }


def add(bounds):
    first, last = bounds
    return first, last + 1


def test_a_loop_over_equal_cells_computes_what_one_after_the_other_does():
    genotype = darts_space.from_text("DARTS_V2")
    cell = FixedCell(*genotype[:2], 3, False, False)
    pair = drawn(2, 8, 12), drawn(2, 8, 12, seed=2)

    class Chain(chain.nn.Module):
        @chain.nn.compact
        def __call__(self, *pair):
            loop = FixedCell(*genotype[:2], 3, False, False, name="stacked")
            return chain._chained(loop, 3, pair, (), False)

    variables = started(Chain(), *pair)
    ys = jax.jit(Chain().apply)(variables, *pair)
    one = jax.jit(lambda v, *pair: cell.apply(v, *pair, train=False))
    for n in range(3):
        own = jax.tree.map(lambda v, n=n: v[n], jax.device_get(variables))
        own = {kind: part["stacked"] for kind, part in own.items()}
        pair = pair[1], one(own, *pair)
    for a, b in zip(ys, pair, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def tiny():
    """A network of sequences with an auxiliary classifier and drop-path, and its variables."""
    net = network(
        darts_space.from_text("DARTS_V2"),
        classes=5,
        channels=4,
        layers=3,
        auxiliary=True,
        drop_path=0.5,
    )
    x = drawn(6, 32, 1)
    return jax.jit(net.apply, static_argnums=2), jax.jit(net.init)(jax.random.key(0), x), x


def test_training_gives_both_logits_and_new_statistics_evaluation_the_first(tiny):
    apply, variables, x = tiny
    rngs = {"dropout": jax.random.key(0)}
    (logits, side), new = apply(variables, x, True, rngs)
    assert logits.shape == side.shape == (6, 5)
    evaluated, same = apply(variables, x, False)
    assert evaluated.shape == (6, 5)
    new, same, variables = jax.device_get((new, same, variables))  # compare without compiling
    jax.tree.map(np.testing.assert_array_equal, same, variables)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), new, variables)
    assert all(jax.tree.leaves(moved["batch_stats"]))
    assert not any(jax.tree.leaves([moved["params"], moved["progress"]]))


def test_drop_path_grows_from_nothing_with_the_progress_of_training(tiny):
    apply, variables, x = tiny

    def logits(done, n):
        rngs = {"dropout": jax.random.key(n)}
        now = {**variables, "progress": {"done": jnp.float32(done)}}
        return apply(now, x, True, rngs)[0][0]

    assert set(variables["progress"]) == {"done"}
    assert float(variables["progress"]["done"]) == 0
    np.testing.assert_array_equal(logits(0, 0), logits(0, 1))
    assert float(jnp.abs(logits(1, 0) - logits(1, 1)).max()) > 1e-3


def test_drop_path_zeroes_whole_examples_and_keeps_the_mean():
    x = drawn(2000, 3, 2)
    y = drop_path(jax.random.key(0), x, jnp.float32(0.3))
    kept = np.asarray(y != 0).all((1, 2))
    assert (np.asarray(y != 0).any((1, 2)) == kept).all()
    assert abs(kept.mean() - 0.7) < 4 * (0.21 / 2000) ** 0.5
    np.testing.assert_allclose(y[kept], x[kept] / 0.7, rtol=1e-5)


def test_drop_path_spares_the_identity():
    entries = (("skip_connect", 0), ("skip_connect", 1)) * 4
    cell = FixedCell(entries, (2, 3, 4, 5), 4, False, False)
    x = drawn(8, 6, 4)
    variables = started(cell, x, x, train=True)
    how = {"train": True, "rngs": {"dropout": jax.random.key(3)}, "mutable": ["batch_stats"]}
    run = jax.jit(lambda rate: cell.apply(variables, x, x, rate, **how)[0])
    ways = [run(rate) for rate in (jnp.float32(0.9), None)]
    np.testing.assert_array_equal(*ways)


def test_without_drop_path_there_is_no_progress_and_no_key_is_needed():
    net = network(darts_space.from_text("DARTS_V1"), classes=3, channels=2, layers=2)
    x = jnp.zeros((2, 8, 8, 3))
    variables = jax.eval_shape(net.init, jax.random.key(0), x)
    assert set(variables) == {"params", "batch_stats"}
    logits, _ = jax.eval_shape(lambda v: net.apply(v, x, True), variables)
    assert logits.shape == (2, 3)


@pytest.mark.parametrize(("size", "stride"), [(8, 3), (7, 2)])
def test_the_auxiliary_classifier_pools_as_the_papers_do(size, stride):
    """Windows of five at stride 3 on CIFAR's maps of 8 points, at stride 2 on ImageNet's of 7."""
    x = np.asarray(drawn(2, size, size, 3))
    wanted = [[x[:, i : i + 5, j : j + 5].mean((1, 2)) for j in (0, stride)] for i in (0, stride)]
    np.testing.assert_allclose(
        chain._ends(jnp.asarray(x)), np.moveaxis(np.array(wanted), 2, 0), atol=1e-6
    )


def test_the_imagenet_stem_divides_the_size_by_eight_before_the_first_cell():
    net = chain.ChainNet(
        lambda *_, name: _Shapes(name=name), classes=2, channels=4, layers=3, stem="imagenet"
    )
    image = jnp.zeros((1, 64, 64, 3))
    said = jax.eval_shape(lambda: net.init(jax.random.key(0), image, train=False))
    shapes = [seen.shape for seen in said["seen"]["cell_0"]["inputs"]]
    assert shapes == [(1, 16, 16, 4), (1, 8, 8, 4)]


class _Shapes(chain.nn.Module):
    @chain.nn.compact
    def __call__(self, before, last, train):
        self.variable("seen", "inputs", lambda: (before, last))
        return last


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"stem": "svhn"}, "`stem` must be one of cifar, imagenet, but got 'svhn'"),
        ({"drop_path": 1.0}, "`drop_path` must be at least 0 and below 1, but got 1.0"),
        ({"layers": 0}, "`layers` must be at least 1, but got 0"),
    ],
)
def test_settings_that_make_no_network_are_refused(wrong, words):
    with pytest.raises(ValueError, match=words):
        network(darts_space.from_text("DARTS_V1"), classes=10, **wrong)
