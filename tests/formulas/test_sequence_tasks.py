"""Streams hold every item once, in order, beside the one before it."""

import numpy as np
import pytest

from jaxnas.data.dataset import DataError
from jaxnas.data.sequences import Pieces
from jaxnas.formulas.sequence_tasks import _cut, _notes, _words, find


def test_words_stream_in_order_and_targets_are_one_word_later():
    text = np.arange(100, dtype=np.int32)
    stream = _words(text, 3, 10)
    assert stream.inputs.shape == (4, 10, 3)
    flat = [x.reshape(40, 3)[:33] for x in stream]
    np.testing.assert_array_equal(flat[0].T.reshape(-1), text[:99])
    np.testing.assert_array_equal(flat[1], flat[0] + 1)
    assert stream.weight.sum() == 99
    assert not stream.weight.reshape(40, 3)[33:].any()
    assert not stream.first.any()


def test_a_cut_vocabulary_keeps_the_frequent_words():
    np.testing.assert_array_equal(_cut(np.array([0, 5, 3, 2]), 4, 1), [0, 1, 3, 2])
    with pytest.raises(ValueError, match="`words` must be above 7"):
        _cut(np.array([0]), 4, 7)


def test_pieces_stand_whole_and_each_begins_from_silence():
    rng = np.random.default_rng(0)
    lengths = np.array([5, 3, 7, 2], np.int32)
    notes = rng.integers(0, 2, (4, 8, 88)).astype(np.uint8)
    stream = _notes(Pieces(notes, lengths), 2, 4)
    inputs, targets, first, weight = (x.reshape(-1, 2, *x.shape[3:]) for x in stream)
    assert weight.sum() == lengths.sum()
    assert first.sum() == 4
    found = []
    for t, b in zip(*np.nonzero(first), strict=True):
        length = next(n for n in range(1, 9) if t + n == len(first) or first[t + n, b]
                      or not weight[t + n, b])  # fmt: skip
        piece = targets[t : t + length, b]
        np.testing.assert_array_equal(inputs[t, b], 0)
        np.testing.assert_array_equal(inputs[t + 1 : t + length, b], piece[:-1])
        found.append(piece)
    for n, length in enumerate(lengths):
        assert any(np.array_equal(piece, notes[n, :length]) for piece in found)


def test_chorales_keep_all_their_frames():
    try:
        task = find("jsb", streams=16, segment=32)
    except DataError as error:
        pytest.skip(str(error))
    assert [int(s.weight.sum()) for s in (task.train, task.valid, task.test)] == [13807, 4602, 4725]
    assert [int(s.first.sum()) for s in (task.train, task.valid, task.test)] == [229, 76, 77]


def test_settings_that_leave_nothing_are_refused():
    with pytest.raises(ValueError, match="`name` must be one of ptb, jsb, toy, but got 'wiki'"):
        find("wiki")
    with pytest.raises(ValueError, match="`streams` and `segment` must be at least 1"):
        find("toy", segment=0)
    with pytest.raises(ValueError, match="`tokens` leave"):
        find("toy", tokens=10, streams=20, words=12)
