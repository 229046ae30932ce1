"""WordPiece: text as the word pieces that BERT was trained on.

J. Devlin et al., BERT, NAACL 2019, arXiv:1810.04805; Y. Wu et al., arXiv:1609.08144. A text is
cleaned, split at white space, punctuation and CJK characters, and every word is cut greedily into
the longest pieces of the vocabulary, all but the first marked by `##`. What stands in a text is
text: `[SEP]` written there is three signs, no separator.
"""

import unicodedata
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
LONGEST_WORD = 100
# Han as Unicode has it; Hangul, Hiragana and Katakana have their own spaces or none.
CJK = (
    (0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F),
)  # fmt: skip


class WordPiece(NamedTuple):
    """A vocabulary.

    Attributes:
        ids: Number of each piece.
        lower: Whether text is lower-cased and loses its accents.
    """

    ids: dict[str, int]
    lower: bool


def word_piece(pieces: Sequence[str]) -> WordPiece:
    """A vocabulary from its pieces, one a line in `vocab.txt`.

    It is taken to be uncased if no piece but the bracketed ones has a capital letter.

    Args:
        pieces: In the order of their numbers.

    Returns:
        The vocabulary.

    Raises:
        ValueError: If one of [PAD], [UNK], [CLS], [SEP] is missing.

    Example:
        >>> vocabulary = word_piece(("[PAD]", "[UNK]", "[CLS]", "[SEP]", "un", "##aff", "##able"))
        >>> tokenize(vocabulary, "Unaffable")
        ['un', '##aff', '##able']
    """
    ids = {piece: number for number, piece in enumerate(pieces)}
    missing = [piece for piece in SPECIAL if piece not in ids]
    if missing:
        raise ValueError(f"`pieces` must hold {', '.join(SPECIAL)}, but lacks {missing}.")
    lower = all(piece == piece.lower() for piece in ids if piece[:1] != "[")
    return WordPiece(ids, lower)


def encode(
    vocabulary: WordPiece, first: Sequence[str], second: Sequence[str] = (), *, length: int = 128
) -> np.ndarray:
    """`[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]` of every example, padded.

    What is too long loses pieces from its end, one by one from the longer text, from `b` where
    both are equal.

    Args:
        vocabulary: The pieces.
        first: N texts.
        second: N texts, or none.
        length: Pieces a row, special ones included.

    Returns:
        [N, 2, length] int32: piece numbers, and segments (1 from the first piece of `b` to its
        [SEP], else 0).

    Raises:
        ValueError: If `length` leaves no room, or the numbers of texts differ.
    """
    if len(second) not in (0, len(first)):
        raise ValueError(
            f"`second` must hold no text or {len(first)} like `first`, but holds {len(second)}."
        )
    special = 3 if second else 2
    room = length - special
    if room < 2:
        raise ValueError(f"`length` must be at least {special + 2}, but is {length}.")
    pad, _, start, end = (vocabulary.ids[piece] for piece in SPECIAL)
    rows = np.zeros((len(first), 2, length), np.int32)
    rows[:, 0] = pad
    for row, text in enumerate(first):
        a, b = (
            [vocabulary.ids[piece] for piece in tokenize(vocabulary, part)]
            for part in (text, second[row] if second else "")
        )
        b = b[: max(room // 2, room - len(a))]
        a = a[: room - len(b)]
        ids = [start, *a, end] + ([*b, end] if second else [])
        rows[row, 0, : len(ids)] = ids
        rows[row, 1, len(a) + 2 : len(ids)] = 1
    return rows


def tokenize(vocabulary: WordPiece, text: str) -> list[str]:
    """The pieces of a text, without special ones."""
    words = split_words(text, lower=vocabulary.lower)
    return [piece for word in words for piece in _pieces(vocabulary, word)]


def split_words(text: str, *, lower: bool) -> list[str]:
    """Words and signs of a text: cleaned, split, and lower-cased without accents if asked."""
    text = "".join(f" {sign} " if _is_cjk(sign) else sign for sign in text if not _is_junk(sign))
    if lower:
        marked = unicodedata.normalize("NFD", text)
        text = "".join(sign for sign in marked if unicodedata.category(sign) != "Mn").lower()
    spaced = (f" {sign} " if _is_punctuation(sign) else sign for sign in text)
    return "".join(spaced).split()


def _pieces(vocabulary: WordPiece, word: str) -> list[str]:
    """The longest pieces from the left; a word with any part unknown is unknown."""
    pieces: list[str] = []
    start, end = 0, len(word)
    while start < len(word) <= LONGEST_WORD and end > start:
        piece = "##" * (start > 0) + word[start:end]
        if piece in vocabulary.ids:
            pieces.append(piece)
            start, end = end, len(word)
        else:
            end -= 1
    return pieces if start == len(word) else ["[UNK]"]


def _is_cjk(sign: str) -> bool:
    return any(low <= ord(sign) <= high for low, high in CJK)


def _is_junk(sign: str) -> bool:
    """Control and private characters, but not white space."""
    return sign not in "\t\n\r" and (sign == "\ufffd" or unicodedata.category(sign)[0] == "C")


def _is_punctuation(sign: str) -> bool:
    """All of ASCII that is no letter, digit or space, such as `$`; else as Unicode says."""
    if sign.isascii():
        return sign.isprintable() and not sign.isalnum() and sign != " "
    return unicodedata.category(sign)[0] == "P"
