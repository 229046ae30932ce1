"""Programs as pages."""

import ast

import numpy as np
import pytest

from jaxnas.programs.page import LENGTH, page, pages, spoilt, text, texts


@pytest.mark.parametrize(
    "source", ["", "class Model: ...\n", "é = 'ü'\n", "x" * LENGTH, "é" * (LENGTH // 2)]
)
def test_a_text_comes_back_as_it_was(source):
    written = page(source)
    assert (written.shape, written.dtype) == ((LENGTH,), np.uint8)
    assert text(written) == source


def test_many_texts_are_rows():
    sources = ["first", "", "third"]
    assert texts(pages(sources)) == sources


@pytest.mark.parametrize("source", ["x = 1\n" * 2000, "é" * LENGTH, '"""\n' + "é" * LENGTH])
def test_what_is_too_long_is_kept_as_far_as_it_goes_and_does_not_parse(source):
    kept = text(page(source))
    reason, _, rest = kept.partition("\n")
    assert str(len(source.encode())) in reason
    assert source.startswith(rest)
    assert LENGTH - 2 <= len(kept.encode()) <= LENGTH
    with pytest.raises(SyntaxError):
        ast.parse(kept)


def test_half_of_a_surrogate_pair_is_no_text():
    assert text(page("x = '\ud800'")) == "<no program: the text is no UTF-8>\nx = '?'"


@pytest.mark.parametrize("source", ["", "x = 1", "Sure", '"""', "class Model: ...", "# no"])
def test_a_spoilt_text_never_parses(source):
    kept = spoilt(source, "the reply\nends")
    assert kept == f"<no program: the reply ends>\n{source}"
    with pytest.raises(SyntaxError):
        ast.parse(kept)
