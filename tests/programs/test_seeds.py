"""The seeds have exactly the parameters the paper's have."""

import jax
import jax.numpy as jnp
import pytest

from jaxnas.programs.edits import edited
from jaxnas.programs.imports import with_imports
from jaxnas.programs.page import page, text
from jaxnas.programs.seeds import MNIST1D

SIZES = {
    "residual convolutions": 91_082,
    "strided convolutions": 5_210,
    "fixed GRU": 4_810,
    "residual perceptron": 15_210,
}


def model(source):
    names = {}
    exec(source, names)
    return names["Model"]()


@pytest.mark.parametrize("name", MNIST1D)
def test_a_seed_has_the_paper_s_number_of_parameters_and_ten_outputs(name):
    x = jnp.zeros((2, 40))
    out, variables = jax.eval_shape(model(MNIST1D[name]).init_with_output, jax.random.key(0), x)
    assert out.shape == (2, 10)
    assert set(variables) == {"params"}
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == SIZES[name]


def test_the_gru_reads_both_ways_and_every_position():
    seed, x = model(MNIST1D["fixed GRU"]), jax.random.normal(jax.random.key(1), (1, 40))
    variables = seed.init(jax.random.key(2), x)
    change = jax.jacobian(lambda x: seed.apply(variables, x))(x)
    assert (jnp.abs(change).max((0, 1, 2)) > 0).all()


def test_seeds_are_whole_sources_that_fit_a_page():
    assert len(set(MNIST1D.values())) == len(SIZES) == len(MNIST1D)
    for source in MNIST1D.values():
        assert text(page(source)) == source == with_imports(source)


@pytest.mark.parametrize("name", MNIST1D)
def test_random_edits_of_a_seed_mostly_run(name):
    x, fine = jnp.zeros((2, 40)), 0
    for number in range(40):
        try:
            child = model(edited(MNIST1D[name], number))
            out, _ = jax.eval_shape(child.init_with_output, jax.random.key(0), x)
            fine += out.shape == (2, 10)
        except Exception:
            continue
    assert fine >= 24
