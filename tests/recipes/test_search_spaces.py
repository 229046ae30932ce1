"""Which cells let something through, on cells written by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.cells import cell_text, darts_space, nas_bench_201
from jaxnas.recipes.search_spaces import cell_graph, connected, pair_graph


@pytest.mark.parametrize(
    ("text", "alive"),
    [
        ("|nor_conv_3x3~0|+|none~0|none~1|+|none~0|skip_connect~1|none~2|", True),
        ("|none~0|+|none~0|none~1|+|skip_connect~0|nor_conv_3x3~1|none~2|", True),
        ("|none~0|+|none~0|nor_conv_3x3~1|+|none~0|skip_connect~1|avg_pool_3x3~2|", False),
        ("|nor_conv_3x3~0|+|skip_connect~0|nor_conv_1x1~1|+|none~0|none~1|none~2|", False),
    ],
)
def test_a_cell_is_connected_if_some_path_is_without_none(text, alive):
    assert connected(cell_graph(nas_bench_201.from_text(text))) == alive


def test_a_cell_is_connected_if_the_input_is_left_in_its_canonical_form():
    genotypes = np.asarray(nas_bench_201.from_code(jnp.arange(0, nas_bench_201.SIZE, 7)))
    alive = [connected(cell_graph(genotype)) for genotype in genotypes]
    texts = [nas_bench_201.canonical(genotype) for genotype in genotypes]
    assert alive == ["x" in text.replace("3x3", "").replace("1x1", "") for text in texts]


def test_just_the_cells_at_chance_in_the_table_let_nothing_through(cell_table):
    chance = cell_table.test[::5, 0] < 10.5
    assert chance.any()
    assert [not connected(cell_graph(cell)) for cell in cell_table.ops[::5]] == chance.tolist()


@pytest.mark.parametrize("dead", [(), ("normal",), ("reduce",)])
def test_a_pair_is_connected_if_both_of_its_cells_are(dead):
    """The first node reads an input by noise, and the others read nothing but that node."""
    genotype = darts_space.from_text("DARTS_V2")
    assert isinstance(genotype, cell_text.Genotype)
    noise = (("noise", 0), ("none", 1)) + (("sep_conv_3x3", 2), ("skip_connect", 2)) * 3
    genotype = genotype._replace(**dict.fromkeys(dead, noise))
    assert connected(pair_graph(genotype)) == (not dead)
