"""Both notations there and back, and hostile texts refused by name and place."""

import re

import jax
import numpy as np
import pytest

from jaxnas.cells import cell_text, darts_space, nasnet_space
from jaxnas.cells.cell_text import Genotype

SHORT = "N[S3<0 S3<1 S3<0 S3<1 S3<1 SK<0 SK<0 D3<2] cat[2, 3, 4, 5] R[MP<0 MP<1 SK<2 MP<1 MP<0 SK<2 SK<2 MP<1] cat[2, 3, 4, 5]"
LONG = (
    "Genotype(normal=[('sep_conv_3x3', 0), ('sep_conv_3x3', 1), ('sep_conv_3x3', 0), "
    "('sep_conv_3x3', 1), ('sep_conv_3x3', 1), ('skip_connect', 0), ('skip_connect', 0), "
    "('dil_conv_3x3', 2)], normal_concat=[2, 3, 4, 5], reduce=[('max_pool_3x3', 0), "
    "('max_pool_3x3', 1), ('skip_connect', 2), ('max_pool_3x3', 1), ('max_pool_3x3', 0), "
    "('skip_connect', 2), ('skip_connect', 2), ('max_pool_3x3', 1)], reduce_concat=[2, 3, 4, 5])"
)


def test_both_notations_and_the_name_say_the_same():
    wanted = darts_space.from_text("DARTS_V2")
    assert wanted.normal[:2] == (("sep_conv_3x3", 0), ("sep_conv_3x3", 1))
    assert wanted.reduce_concat == (2, 3, 4, 5)
    assert darts_space.from_text(SHORT) == darts_space.from_text(LONG) == wanted
    assert cell_text.to_text(wanted) == LONG
    assert cell_text.to_short(wanted) == SHORT


@pytest.mark.parametrize(
    "text",
    [
        LONG.replace("[2, 3, 4, 5]", "range(2, 6)"),
        LONG.replace("[2, 3, 4, 5]", "range( 2,6 )").replace("'", '"'),
        f"DARTS_V2 = {LONG}\n",
        LONG.replace("),", "),\n   ").replace("=", " = "),
        LONG.replace("[", "(").replace("]", ")"),
        LONG.replace(")]", "),]"),
        f"  {SHORT.replace(' ', '   ')}\n",
        SHORT.replace("S3<", "sep_conv_3x3<"),
    ],
)
def test_spaces_quotes_and_ranges_are_read_as_python_reads_them(text):
    assert darts_space.from_text(text) == darts_space.from_text(SHORT)


def test_python_reads_the_long_notation_as_we_do():
    wanted = darts_space.from_text("PC_DARTS_cifar")
    there = eval(cell_text.to_text(wanted), {"Genotype": lambda **parts: parts})
    assert {name: list(part) for name, part in wanted._asdict().items()} == there


@pytest.mark.parametrize("space", darts_space.SPACES)
def test_drawn_genotypes_survive_every_form(space):
    for array in np.asarray(darts_space.sample(jax.random.key(0), 20, space)):
        genotype = darts_space.decode(array)
        assert darts_space.from_text(darts_space.to_text(array), space) == genotype
        assert darts_space.from_text(cell_text.to_short(genotype)) == genotype
        np.testing.assert_array_equal(darts_space.encode(genotype), array)
        assert darts_space.encode(genotype).dtype == array.dtype == np.int8


def test_named_nasnet_cells_survive_both_notations():
    for name, nodes in (("NASNet", (4, 5, 6)), ("AmoebaNet", (3, 4, 6))):
        genotype = nasnet_space.from_text(name)
        assert genotype.reduce_concat == nodes
        assert nasnet_space.from_text(cell_text.to_text(genotype)) == genotype
        assert nasnet_space.from_text(cell_text.to_short(genotype)) == genotype


def place(text, part):
    return f"character {text.index(part) + 1}:"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ("'Genotype ( normal ='", "the end of the text")),
        ("  \n ", ("the end of the text",)),
        ("DARTS_V3", ("Unknown genotype 'DARTS_V3'", "Did you mean 'DARTS_V2'")),
        ("NASNet", ("Unknown genotype 'NASNet'", "DARTS_V1")),
        ("|skip_connect~0|", ("character 1", "'|'")),
        (SHORT.replace("D3<2", "D3<5"), (place(SHORT, "D3<2"), "states 0 to 4", "'D3<5'")),
        (SHORT.replace("D3<2", "D3<0"), (place(SHORT, "D3<2"), "node 5 must differ", "'D3<0'")),
        (SHORT.replace("D3<2", "D4<2"), ("'D4'", "'D4<2'", "node 5", place(SHORT, "D3<2"))),
        (SHORT.replace("D3<2", "S7<2"), ("'S7'", "S5")),
        (SHORT.replace("D3<2", "D3<-2"), (place(SHORT, "D3<2"), "an entry such as S3<0")),
        (SHORT.replace("D3<2", "D3<\u0662"), ("an entry such as S3<0",)),  # Arabic two
        (SHORT.replace("D3<2", "D3<2x"), ("'D3<2x'",)),
        (SHORT.replace("D3<2", ""), ("8 entries", "read 7")),
        (SHORT.replace("D3<2", "D3<2 D3<1"), ("expected ']'", "4 nodes", "'D3<1'")),
        (SHORT.replace("2, 3, 4, 5] R", "2, 3, 4, 4] R"), ("different nodes from 2 to 5",)),
        (SHORT.replace("2, 3, 4, 5] R", "2, 3, 4, 6] R"), ("different nodes from 2 to 5",)),
        (SHORT.replace("2, 3, 4, 5] R", "] R"), ("different nodes from 2 to 5",)),
        (SHORT.replace("2, 3, 4, 5] R", "2, x] R"), ("the number of a state", "'x'")),
        (SHORT.replace("] R", " R"), ("']'", "'R'")),
        (SHORT[:-1], ("']'", "the end of the text")),
        (SHORT + " N[", ("expected the end", "'N'")),
        (LONG.replace("dil_conv_3x3", "dil_conv_3x2"), ("Did you mean 'dil_conv_3x3'",)),
        (LONG.replace("dil_conv_3x3", "conv_7x1_1x7"), ("'conv_7x1_1x7'", "dil_conv_5x5")),
        (LONG.replace("'dil_conv_3x3'", "dil_conv_3x3"), ("an entry such as", "'('")),
        (LONG.replace("('dil_conv_3x3', 2)", "('dil_conv_3x3')"), ("an entry such as",)),
        (LONG.replace("reduce=", "reduction="), (", reduce =", "','")),
        (LONG.replace("Genotype", "genotype"), ("'Genotype ( normal ='", "'genotype'")),
        (LONG[:-1], ("')'", "the end of the text")),
        (LONG + "; import os", ("expected the end", "';'")),
        (LONG.replace("0)", f"{'9' * 5000})", 1), ("states 0 to 1",)),
        (LONG.replace("[2, 3, 4, 5]", "range(2, 1000000000)"), ("range(2, 6)",)),
        (LONG.replace("[2, 3, 4, 5]", "range(2, 9999)"), ("different nodes",)),
        ("(" * 100_000, ("character 1", "'('")),
        ("Genotype(normal=" + "[" * 100_000, ("an entry such as",)),
        ("Genotype\0", ("'Genotype ( normal ='",)),
    ],
)
def test_a_text_that_is_no_genotype_is_refused_and_the_culprit_named(text, words):
    with pytest.raises(ValueError, match=re.escape(words[0])) as caught:
        darts_space.from_text(text)
    assert all(word in str(caught.value) for word in words), caught.value


def test_an_operation_that_an_edge_does_not_have_is_refused():
    with pytest.raises(ValueError, match=r"In s2 .*state 2 to node 5.*'dil_conv_3x3'"):
        darts_space.from_text(SHORT.replace("MP", "S3"), "s2")
    with pytest.raises(ValueError, match=r"`space` must be one of darts.*'s6'"):
        darts_space.from_text(SHORT, "s6")


def test_an_output_that_leaves_a_node_out_has_no_array():
    genotype = darts_space.from_text(SHORT)
    with pytest.raises(ValueError, match=r"\(2, 3, 4\)"):
        darts_space.encode(Genotype(genotype.normal, (2, 3, 4), *genotype[2:]))
