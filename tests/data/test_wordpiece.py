import itertools

import numpy as np
import pytest

from jaxnas.data.wordpiece import SPECIAL, WordPiece, encode, split_words, tokenize, word_piece

WORDS = ("want", "##want", "##ed", "wa", "un", "runn", "##ing", ",", "a", "b", "##b")
VOCABULARY = word_piece(SPECIAL + WORDS)
PAD, UNK, CLS, SEP = range(4)
A, B = VOCABULARY.ids["a"], VOCABULARY.ids["b"]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("UNwant\u00e9d,running", ["un", "##want", "##ed", ",", "runn", "##ing"]),
        ("unwanted running", ["un", "##want", "##ed", "runn", "##ing"]),
        ("unwantedX running", ["[UNK]", "runn", "##ing"]),
        ("", []),
    ],
)
def test_words_are_cut_as_the_release_of_bert_cuts_them(text, pieces):
    """The examples of the tests in Google's release."""
    assert tokenize(VOCABULARY, text) == pieces


@pytest.mark.parametrize(
    ("text", "lower", "words"),
    [
        (" \tHeLLo!how  \n Are yoU?  ", True, ["hello", "!", "how", "are", "you", "?"]),
        (" \tHeLLo!how  \n Are yoU?  ", False, ["HeLLo", "!", "how", "Are", "yoU", "?"]),
        ("H\u00e9llo", True, ["hello"]),
        ("H\u00e9llo", False, ["H\u00e9llo"]),
        ("ah\u535a\u63a8zz", True, ["ah", "\u535a", "\u63a8", "zz"]),
        ("$5.00 a^b `c`", True, ["$", "5", ".", "00", "a", "^", "b", "`", "c", "`"]),
        (
            "\u201cso\u201d \u2014 it\u2019s",
            True,
            ["\u201c", "so", "\u201d", "\u2014", "it", "\u2019", "s"],
        ),
        ("a\u00a0b\u3000c\u2028d\re", True, ["a", "b", "c", "d", "e"]),
        ("a\x00b\ufffdc\u200bd\x7f", True, ["abcd"]),
        ("[SEP]", False, ["[", "SEP", "]"]),
    ],
)
def test_a_text_is_cleaned_and_split_at_spaces_signs_and_cjk(text, lower, words):
    assert split_words(text, lower=lower) == words


def test_words_of_more_than_a_hundred_signs_are_unknown():
    assert tokenize(VOCABULARY, "b" * 100) == ["b"] + ["##b"] * 99
    assert tokenize(VOCABULARY, "b" * 101) == ["[UNK]"]


@pytest.mark.parametrize(("pieces", "lower"), [(("cat", "##s"), True), (("Cat", "cat"), False)])
def test_a_vocabulary_without_capitals_is_uncased(pieces, lower):
    assert word_piece(SPECIAL + pieces).lower == lower


def test_a_vocabulary_without_special_pieces_is_refused():
    with pytest.raises(ValueError, match=r"`pieces` must hold .* lacks \['\[CLS\]'"):
        word_piece(("[PAD]", "[UNK]", "a"))


def test_pairs_are_joined_and_padded():
    rows = encode(VOCABULARY, ["a a", "a"], ["b", "b zzz"], length=8)
    assert rows.dtype == np.int32
    assert rows[0].tolist() == [[CLS, A, A, SEP, B, SEP, PAD, PAD], [0, 0, 0, 0, 1, 1, 0, 0]]
    assert rows[1].tolist() == [[CLS, A, SEP, B, UNK, SEP, PAD, PAD], [0, 0, 0, 1, 1, 1, 0, 0]]


def test_single_texts_have_one_segment():
    rows = encode(VOCABULARY, ["a b a b a"], length=5)
    assert rows.tolist() == [[[CLS, A, B, A, SEP], [0] * 5]]


def test_the_number_of_padding_is_that_of_the_vocabulary():
    moved = WordPiece({**VOCABULARY.ids, "[PAD]": 77}, VOCABULARY.lower)
    assert encode(moved, ["a"], length=5)[0, 0].tolist() == [CLS, A, SEP, 77, 77]


def test_the_longer_text_loses_pieces_one_by_one():
    for length, first, second in itertools.product((5, 6, 7, 12), range(8), range(8)):
        a, b = first, second
        while a + b > length - 3:
            a, b = (a - 1, b) if a > b else (a, b - 1)
        ((ids, segments),) = encode(VOCABULARY, ["a " * first], ["b " * second], length=length)
        assert ((ids == A).sum(), (ids == B).sum(), segments.sum()) == (a, b, b + 1)


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="`second` must hold no text or 2 like `first`"):
        encode(VOCABULARY, ["a", "b"], ["a"])
    with pytest.raises(ValueError, match="`length` must be at least 5, but is 4"):
        encode(VOCABULARY, ["a"], ["b"], length=4)
    with pytest.raises(ValueError, match="`length` must be at least 4, but is 3"):
        encode(VOCABULARY, ["a"], length=3)
