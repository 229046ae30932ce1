"""Every operation of the cells against plain loops, in one and two dimensions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import darts_cells as slow

from jaxnas.nn.cell_ops import OPERATIONS, FactorizedReduce
from jaxnas.nn.ops import max_pool

pytestmark = pytest.mark.usefixtures("quick_compile")
QUIET = [op for op in OPERATIONS if op != "noise"]
TWICE = ("skip_connect", "max_pool_3x3", "dil_conv_5x5", "conv_7x1_1x7")  # also as images


def drawn(*shape):
    return jnp.asarray(np.random.default_rng(1).normal(size=shape), jnp.float32)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(
    ("op", "space"), [*((op, (9,)) for op in QUIET), *((op, (6, 8)) for op in TWICE)]
)
def test_an_operation_equals_plain_loops(op, space, stride):
    x = drawn(3, *space, 4)
    for search in (True, False):
        module = OPERATIONS[op](stride=stride, search=search)
        y, variables = module.init_with_output(jax.random.key(0), x, True)
        params = variables.get("params", {})
        norms = jax.tree.leaves(params.get("Norm_0", {}))
        assert bool(norms) == (
            not search
            and op not in ("none", "max_pool_3x3", "avg_pool_3x3")
            and op != "skip_connect"
        )
        kernels = {name: part for name, part in params.items() if not name.startswith("Norm")}
        if op == "skip_connect" and stride == 2:
            kernels = {"FactorizedReduce_0": without_norms(params["FactorizedReduce_0"])}
        wanted = slow.operation(op, np.asarray(x, np.float64), kernels, stride, search)
        np.testing.assert_allclose(y, wanted, rtol=1e-3, atol=2e-4)


def without_norms(params):
    return {name: part for name, part in params.items() if not name.startswith("Norm")}


def test_a_norm_of_a_discrete_network_keeps_statistics_and_one_of_search_mode_keeps_nothing():
    x = drawn(3, 8, 4)
    discrete = OPERATIONS["sep_conv_3x3"](stride=1).init(jax.random.key(0), x, True)
    assert set(discrete) == {"params", "batch_stats"}
    assert {"scale", "bias"} == set(discrete["params"]["Norm_0"]["batch"])
    search = OPERATIONS["sep_conv_3x3"](stride=1, search=True).init(jax.random.key(0), x, True)
    assert set(search) == {"params"}
    assert not any(name.startswith("Norm") for name in search["params"])


@pytest.mark.parametrize("space", [(8,), (7,), (6, 5)])
@pytest.mark.parametrize(("k", "stride"), [(3, 1), (3, 2), (2, 2)])
def test_max_pool_equals_plain_loops(space, k, stride):
    x = drawn(2, *space, 3)
    np.testing.assert_array_equal(max_pool(x, k, stride), slow.max_pool(np.asarray(x), stride, k))


def test_an_odd_number_of_channels_is_halved_as_well():
    x = drawn(2, 7, 5, 6)
    y, _ = FactorizedReduce(5, search=True).init_with_output(jax.random.key(0), x, True)
    assert y.shape == (2, 4, 3, 5)


def test_noise_is_standard_normal_new_for_each_key_and_fixed_without_one():
    x = jnp.full((8, 16, 16, 8), 7.0)
    noise = OPERATIONS["noise"](stride=2)
    a, b = (noise.apply({}, x, True, rngs={"dropout": jax.random.key(n)}) for n in (0, 1))
    assert a.shape == (8, 8, 8, 8)
    assert abs(float(a.mean())) < 0.06  # 4096 draws: four standard errors
    assert abs(float(a.std()) - 1) < 0.05
    assert abs(float(jnp.corrcoef(a.ravel(), b.ravel())[0, 1])) < 0.06
    np.testing.assert_array_equal(noise.apply({}, x, False), noise.apply({}, x, False))
