import gzip
import json
import zipfile

import numpy as np
import pytest

from jaxnas.data import sequences
from jaxnas.data.dataset import DataError
from jaxnas.data.sequences import jsb_chorales, penn_treebank


@pytest.fixture
def words(real):
    return penn_treebank(real("ptb.zip"))


@pytest.fixture
def chorales(real):
    return jsb_chorales(real("jsb/jsb-chorales-quarter.json"))


def test_the_counts_of_penn_treebank_are_the_published_ones(words):
    assert [len(part) for part in words[:3]] == [929_589, 73_760, 82_430]
    assert len(words.vocabulary) == len(set(words.vocabulary)) == 10_000
    assert {part.dtype for part in words[:3]} == {np.dtype(np.int32)}
    assert words.train.min() == 0
    assert max(part.max() for part in words[:3]) == 9_999


def test_words_are_numbered_from_the_most_frequent(words):
    counts = np.bincount(words.train, minlength=10_000)
    assert (np.diff(counts) <= 0).all()
    assert words.vocabulary[:3] == ("the", "<unk>", "<eos>")
    assert counts[2] == 42_068  # lines of the training file


def test_a_text_reads_as_it_was_written(words, real):
    with zipfile.ZipFile(real("ptb.zip")) as archive:
        lines = archive.read("ptb.valid.txt").decode().split("\n")[:50]
    said = " ".join(words.vocabulary[i] for i in words.valid).split("<eos>")[:50]
    assert [line.split() for line in said] == [line.split() for line in lines]


def test_the_official_folder_reads_like_the_archive(words, real, tmp_path):
    with zipfile.ZipFile(real("ptb.zip")) as archive:
        for name in ("train", "valid"):
            archive.extract(f"ptb.{name}.txt", tmp_path)
        (tmp_path / "ptb.test.txt").write_bytes(gzip.compress(archive.read("ptb.test.txt")))
    again = penn_treebank(tmp_path)
    assert again.vocabulary == words.vocabulary
    for one, other in zip(again[:3], words[:3], strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_chorales_have_the_published_counts(chorales):
    assert [len(part.lengths) for part in chorales] == [229, 76, 77]
    assert [int(part.lengths.sum()) for part in chorales] == [13_807, 4_602, 4_725]
    assert max(part.lengths.max() for part in chorales) == 160
    for part in chorales:
        assert part.notes.shape == (len(part.lengths), 160, 88)
        assert part.notes.dtype == np.uint8
        sounding = part.notes.any(2)
        assert not (sounding & (np.arange(160) >= part.lengths[:, None])).any()


def test_a_frame_holds_the_notes_of_the_file(chorales, real):
    pieces = json.loads(real("jsb/jsb-chorales-quarter.json").read_text())["test"]
    for index, time in ((0, 0), (0, 6), (76, 3)):
        notes = 21 + np.flatnonzero(chorales.test.notes[index, time])
        assert notes.tolist() == pieces[index][time]


def test_the_note_unigram_of_the_chorales_scores_the_known_11_06(chorales):
    """Every key sounds independently, as often as in the training frames; nats a test frame."""
    frames = {
        name: np.concatenate([n[:t] for n, t in zip(*getattr(chorales, name), strict=True)])
        for name in ("train", "test")
    }
    p = frames["train"].mean(0).clip(1e-12, 1)
    nll = -np.where(frames["test"] == 1, np.log(p), np.log1p(-p)).sum(1).mean()
    assert abs(nll - 11.06) < 5e-3


@pytest.mark.parametrize("load", [penn_treebank, jsb_chorales])
def test_absent_sequences_say_how_to_get_them(folder, load):
    with pytest.raises(DataError, match=r"not found in .*JAXNAS_DATA"):
        load()


def test_another_preparation_of_the_words_is_refused(folder):
    (folder / "ptb").mkdir()
    for split in sequences.SPLITS:
        (folder / "ptb" / f"ptb.{split}.txt").write_text("a b \n c \n")
    with pytest.raises(DataError, match=r"it holds \(5, 5, 5\) tokens of 4 words, not \(929589"):
        penn_treebank()


def test_a_missing_or_binary_text_is_refused(folder):
    (folder / "ptb").mkdir()
    with pytest.raises(DataError, match=r"ptb\.train\.txt: it cannot be read whole"):
        penn_treebank()
    (folder / "ptb" / "ptb.train.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match=r"ptb\.train\.txt is no text"):
        penn_treebank()


def test_a_damaged_archive_of_words_is_refused(folder):
    path = folder / "ptb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ptb.train.txt", "a b \n" * 1000)
    whole = path.read_bytes()
    for raw, cause in (
        (whole[:-30], "cannot be read"),
        (b"", "cannot be read"),
        (whole[:50] + b"\xff" * 10 + whole[60:], "cannot be read"),
        (whole, r"ptb\.valid\.txt cannot be read"),
    ):
        path.write_bytes(raw)
        with pytest.raises(DataError, match=cause):
            penn_treebank()


def test_an_archive_that_unpacks_without_end_is_refused(folder):
    with zipfile.ZipFile(folder / "ptb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ptb.train.txt", b"a " * (5 << 20))
    with pytest.raises(DataError, match=r"ptb\.train\.txt is longer than 8388608 bytes"):
        penn_treebank()


def _pieces(piece):
    counts = zip(sequences.SPLITS, sequences.PIECES, strict=True)
    splits = {split: [[[60]]] * count for split, count in counts}
    return json.dumps({**splits, "valid": [[[60]]] * 75 + [piece]})


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        ("", "it is no json"),
        ("[" * 100_000, "it is no json"),
        ('{"train": [', "it is no json"),
        ("[]", "does not map train, valid, test"),
        ('{"train": [], "valid": {}, "test": []}', "does not map train, valid, test"),
        ('{"train": [], "valid": [], "test": []}', r"holds \(0, 0, 0\) pieces"),
        (_pieces([]), "valid piece 75 is not 1 to 160 frames of notes within 21..108"),
        (_pieces([[60]] * 161), "valid piece 75"),
        (_pieces([[60], 60]), "valid piece 75"),
        (_pieces([[20]]), "valid piece 75"),
        (_pieces([[109]]), "valid piece 75"),
        (_pieces([[60.0]]), "valid piece 75"),
        (_pieces([[True]]), "valid piece 75"),
        (_pieces("abc"), "valid piece 75"),
    ],
)
def test_what_is_not_the_chorales_is_refused(tmp_path, text, cause):
    path = tmp_path / "some.json"
    path.write_text(text)
    with pytest.raises(DataError, match=rf"some\.json: .*{cause}"):
        jsb_chorales(path)


def test_silence_within_a_piece_is_kept(tmp_path):
    path = tmp_path / "some.json.gz"
    path.write_bytes(gzip.compress(_pieces([[21], [], [108, 60]]).encode()))
    valid = jsb_chorales(path).valid
    assert valid.lengths[75] == 3
    assert [np.flatnonzero(frame).tolist() for frame in valid.notes[75, :4]] == [
        [0],
        [],
        [39, 87],
        [],
    ]
