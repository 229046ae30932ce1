"""Sequences for recurrent networks: Penn Treebank words and Bach's chorales.

Penn Treebank: M. Marcus et al., Computational Linguistics 1993, in the preparation of T. Mikolov
et al., Interspeech 2010: lower case, numbers as `N`, rare words as `<unk>`, 10,000 words with the
end of a sentence. Chorales: N. Boulanger-Lewandowski, Y. Bengio and P. Vincent, ICML 2012,
arXiv:1206.6392, one frame a quarter note.
"""

import json
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxnas.data.dataset import DataError, find, not_found, require
from jaxnas.data.files import read_bytes

SPLITS = ("train", "valid", "test")
PTB_FOLDER, PTB_ZIP = "ptb", "ptb.zip"
PTB_REMEDY = (
    "Put ptb.train.txt, ptb.valid.txt and ptb.test.txt of Mikolov's simple-examples into a folder "
    "`ptb`, or zipped as ptb.zip; the texts belong to the LDC."
)
END = "<eos>"
TOKENS, WORDS = (929_589, 73_760, 82_430), 10_000
# The longest member has 5.1 MB; what claims more is no Penn Treebank.
LARGEST = 8 << 20

JSB = "jsb/jsb-chorales-quarter.json"
JSB_REMEDY = "Get jsb-chorales-quarter.json of https://github.com/czhuang/JSB-Chorales-dataset."
PIECES = (229, 76, 77)
LOWEST, HIGHEST, LONGEST = 21, 108, 160
KEYS = HIGHEST - LOWEST + 1


class Corpus(NamedTuple):
    """Running text as word numbers; every line ends with `<eos>`.

    Attributes:
        train: Word numbers, [929589] int32.
        valid: Word numbers, [73760] int32.
        test: Word numbers, [82430] int32.
        vocabulary: The words, the most frequent of the training text first, ties by alphabet.
    """

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    vocabulary: tuple[str, ...]


class Pieces(NamedTuple):
    """Pieces of music, padded with silence to the longest of all splits.

    Attributes:
        notes: Which keys sound, [N, 160, 88] uint8, 0 or 1; key 0 is MIDI note 21, key 87 is 108.
        lengths: Frames before the padding, [N] int32. A silent frame may be part of a piece.
    """

    notes: np.ndarray
    lengths: np.ndarray


class Chorales(NamedTuple):
    """The three official splits.

    Attributes:
        train: 229 pieces, 13,807 frames.
        valid: 76 pieces, 4,602 frames.
        test: 77 pieces, 4,725 frames.
    """

    train: Pieces
    valid: Pieces
    test: Pieces


def penn_treebank(path: Path | None = None) -> Corpus:
    """The words of Penn Treebank.

    Args:
        path: The folder with `ptb.train.txt` and its companions (each gzipped or not), or a zip
            archive of them; `None` looks for `ptb` and `ptb.zip` in the data folders.

    Returns:
        Three texts and their vocabulary.

    Raises:
        DataError: If they are absent, damaged, or not this preparation of the texts.
    """
    path = path or find(PTB_FOLDER) or find(PTB_ZIP)
    if path is None:
        raise not_found(f"{PTB_FOLDER} or {PTB_ZIP}", PTB_REMEDY)
    texts = [_words(path, f"ptb.{split}.txt") for split in SPLITS]
    counts = Counter(texts[0])
    vocabulary = sorted(counts, key=lambda word: (-counts[word], word))
    found = (tuple(map(len, texts)), len(set().union(*texts)), len(vocabulary))
    if found != (TOKENS, WORDS, WORDS):
        cause = f"it holds {found[0]} tokens of {found[1]} words, not {TOKENS} of {WORDS}"
        raise DataError(path, cause, PTB_REMEDY)
    number = {word: index for index, word in enumerate(vocabulary)}
    train, valid, test = (np.array([number[word] for word in text], np.int32) for text in texts)
    return Corpus(train, valid, test, tuple(vocabulary))


def jsb_chorales(path: Path | None = None) -> Chorales:
    """Bach's chorales as piano rolls.

    Args:
        path: The json file; `None` looks for it in the data folders.

    Returns:
        Three splits.

    Raises:
        DataError: If it is absent, damaged, or not the chorales.
    """
    path = path or require(JSB, JSB_REMEDY)
    raw = read_bytes(path, JSB_REMEDY)
    try:
        splits = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"it is no json ({error})", JSB_REMEDY) from error
    cause = _wrong_pieces(splits)
    if cause:
        raise DataError(path, cause, JSB_REMEDY)
    return Chorales(*(_piano_roll(splits[split]) for split in SPLITS))


def _words(path: Path, name: str) -> list[str]:
    """The words of one text; the end of a line is a word."""
    raw = read_bytes(path / name, PTB_REMEDY) if path.is_dir() else _member(path, name)
    try:
        return raw.decode("utf-8").replace("\n", f" {END} ").split()
    except UnicodeDecodeError as error:
        raise DataError(path, f"{name} is no text ({error})", PTB_REMEDY) from error


def _member(path: Path, name: str) -> bytes:
    """One file of a zip archive, unpacked no further than it can be long."""
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            raw = file.read(LARGEST + 1)
    # RuntimeError: encrypted; NotImplementedError: packed in a way Python does not know.
    except (OSError, KeyError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(path, f"{name} cannot be read ({error})", PTB_REMEDY) from error
    if len(raw) > LARGEST:
        raise DataError(path, f"{name} is longer than {LARGEST} bytes", PTB_REMEDY)
    return raw


def _wrong_pieces(splits: Any) -> str:
    """What is wrong with the pieces, or nothing."""
    if not isinstance(splits, dict) or not all(isinstance(splits.get(s), list) for s in SPLITS):
        return f"it does not map {', '.join(SPLITS)} to lists of pieces"
    counts = tuple(len(splits[split]) for split in SPLITS)
    if counts != PIECES:
        return f"it holds {counts} pieces, not {PIECES}"
    for split in SPLITS:
        for index, piece in enumerate(splits[split]):
            if not _is_piece(piece):
                notes = f"notes within {LOWEST}..{HIGHEST}"
                return f"{split} piece {index} is not 1 to {LONGEST} frames of {notes}"
    return ""


def _is_piece(piece: Any) -> bool:
    """Whether it is a list of frames, each a list of notes."""
    return (
        isinstance(piece, list)
        and 1 <= len(piece) <= LONGEST
        and all(isinstance(frame, list) and all(map(_is_note, frame)) for frame in piece)
    )


def _is_note(note: Any) -> bool:
    return type(note) is int and LOWEST <= note <= HIGHEST


def _piano_roll(pieces: list[list[list[int]]]) -> Pieces:
    """Lists of notes as an array."""
    notes = np.zeros((len(pieces), LONGEST, KEYS), np.uint8)
    for index, piece in enumerate(pieces):
        for time, frame in enumerate(piece):
            notes[index, time, [note - LOWEST for note in frame]] = 1
    return Pieces(notes, np.array([len(piece) for piece in pieces], np.int32))
