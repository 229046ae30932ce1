"""The official strings: all of them there and back, and hostile ones refused by name."""

import re

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnas.cells import nas_bench_201 as nb
from jaxnas.data.tables import parse_cell

ALL = np.asarray(nb.from_code(jnp.arange(nb.SIZE)))
GOOD = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_1x1~2|"


def test_every_cell_survives_its_text():
    texts = [nb.to_text(cell) for cell in ALL]
    assert len(set(texts)) == 15_625
    np.testing.assert_array_equal([nb.from_text(text) for text in texts], ALL)


def test_the_text_is_the_official_one():
    assert nb.to_text(np.array([3, 3, 3, 1, 3, 2])) == GOOD
    assert nb.from_text(f"  {GOOD}\n").tolist() == [3, 3, 3, 1, 3, 2]
    assert nb.from_text(GOOD).dtype == np.int8
    assert nb.to_text(jnp.array([3, 3, 3, 1, 3, 2], jnp.int8)) == GOOD


def test_the_reader_of_the_releases_agrees():
    for cell in ALL[::97]:
        assert parse_cell(nb.to_text(cell)) == tuple(cell.tolist())


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "''"),
        ("   \n", "3 nodes"),
        ("None", "'None'"),
        ("nan", "'nan'"),
        (GOOD.replace("+", ""), "has 1"),
        (f"{GOOD}+|none~0|none~1|none~2|none~3|", "has 4"),
        (GOOD.replace("+", "\uff0b"), "has 1"),  # a fullwidth plus is no plus
        ("|none~0|+|none~0|+|none~0|none~1|none~2|", "'|none~0|'"),
        ("|none~0|none~1|+|none~0|none~1|+|none~0|none~1|none~2|", "Node 1"),
        ("none~0+|none~0|none~1|+|none~0|none~1|none~2|", "'none~0'"),
        ("|+|none~0|none~1|+|none~0|none~1|none~2|", "'|'"),
        ("||+|none~0|none~1|+|none~0|none~1|none~2|", "''"),
        (GOOD.replace("nor_conv_1x1~2", "nor_conv_1x1"), "'nor_conv_1x1~2'"),
        (GOOD.replace("nor_conv_1x1~2", "nor_conv_1x1~1"), "'nor_conv_1x1~1'"),
        (GOOD.replace("nor_conv_1x1~2", "nor_conv_1x1~02"), "'nor_conv_1x1~02'"),
        (GOOD.replace("nor_conv_1x1~2", "nor_conv_1x1~2~2"), "'nor_conv_1x1~2~2'"),
        (GOOD.replace("nor_conv_1x1~2", "nor_conv_1x1~\u0662"), "~\u0662"),  # Arabic two
        (GOOD.replace("skip_connect", "skip_conect"), "'skip_conect'"),
        (GOOD.replace("skip_connect", "SKIP_CONNECT"), "'SKIP_CONNECT'"),
        (GOOD.replace("skip_connect", "sk\u0456p_connect"), "p_connect'"),  # Cyrillic i
        (GOOD.replace("skip_connect", "None"), "'None'"),
        (GOOD.replace("skip_connect", "\N{SNOWMAN}"), "\N{SNOWMAN}"),
        (GOOD.replace("skip_connect~0", " skip_connect~0"), "' skip_connect'"),
        (GOOD.replace("|skip_connect~0", "|\nskip_connect~0"), "Node 3"),
    ],
)
def test_a_text_that_is_no_cell_is_refused_and_the_culprit_named(text, named):
    with pytest.raises(ValueError, match=re.escape(named)):
        nb.from_text(text)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("nor_conv_3x2", "nor_conv_3x3"),
        ("skip_conect", "skip_connect"),
        ("avg_pool_3", "avg_pool_3x3"),
        ("None", "none"),
    ],
)
def test_a_misspelt_operation_is_answered_with_the_one_meant(wrong, meant):
    with pytest.raises(ValueError, match=f"Did you mean '{meant}'") as caught:
        nb.from_text(GOOD.replace("skip_connect", wrong))
    assert all(op in str(caught.value) for op in nb.OPS)
    assert "node 3, input 0" in str(caught.value)


def test_an_operation_like_no_other_gets_no_hint():
    with pytest.raises(ValueError, match="zzzz") as caught:
        nb.from_text(GOOD.replace("skip_connect", "zzzz"))
    assert "Did you mean" not in str(caught.value)
