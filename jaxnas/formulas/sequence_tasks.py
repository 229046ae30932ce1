"""Sequences that recurrent nodes are judged by: words of Penn Treebank, chords of chorales.

Both become streams that run side by side, cut into segments through which gradients flow; state is
carried from segment to segment. The full sets with a softmax over 10,000 words need an accelerator;
`tokens` and `words` make a smaller language of the same text: the most frequent words stay, all
others are `<unk>`. Perplexities of a cut vocabulary do not compare with published ones.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxnas.data.sequences import Pieces, jsb_chorales, penn_treebank


class Stream(NamedTuple):
    """Sequences side by side; `K` segments of `T` steps, `B` streams.

    Attributes:
      inputs: `[K, T, B]` int32 words, or `[K, T, B, 88]` notes.
      targets: the same, one step later.
      first: `[K, T, B]` whether memory is cleared before the step.
      weight: `[K, T, B]` 1, or 0 where a stream is over.
    """

    inputs: Shaped[np.ndarray, "K T B *in"]
    targets: Shaped[np.ndarray, "K T B *in"]
    first: Bool[np.ndarray, "K T B"]
    weight: Float[np.ndarray, "K T B"]


class SequenceTask(NamedTuple):
    """What nodes are judged by: predict the next item.

    Attributes:
      name: of the task.
      kind: `words`, one of `size` by softmax, or `notes`, `size` that sound or not.
      size: of the vocabulary.
      train: what is learned from.
      valid: what a search sees.
      test: what is reported.
      label: what the loss is.
    """

    name: str
    kind: str
    size: int
    train: Stream
    valid: Stream
    test: Stream
    label: str


TASKS = ("ptb", "jsb", "toy")


def find(
    name: str, *, streams: int = 20, segment: int = 35, words: int = 10_000, tokens: int = 0
) -> SequenceTask:
    """A task by name.

    Args:
      name: `ptb`, `jsb`, or `toy` (words from a small made-up language, for trying things out).
      streams: sequences side by side, the batch, `B`.
      segment: steps through which gradients flow, `T`.
      words: size of the vocabulary.
      tokens: how much of the training text is used, and a tenth of it of each other; 0 for all.

    Raises:
      ValueError: for an unknown name, or numbers that leave nothing.
    """
    if name not in TASKS:
        raise ValueError(f"`name` must be one of {', '.join(TASKS)}, but got {name!r}.")
    if min(streams, segment) < 1 or words < 2:
        raise ValueError(
            f"`streams` and `segment` must be at least 1 and `words` 2, but got {streams}, "
            f"{segment} and {words}."
        )
    if name == "jsb":
        sets = [_notes(pieces, streams, segment) for pieces in jsb_chorales()]
        return SequenceTask("JSB chorales", "notes", 88, *sets, "nats per frame")
    texts, unknown, title = _ptb() if name == "ptb" else _toy(words)
    lengths = [tokens, tokens // 10, tokens // 10] if tokens else [len(text) for text in texts]
    sets = [
        _words(_cut(text[:length], words, unknown), streams, segment)
        for text, length in zip(texts, lengths, strict=True)
    ]
    label = f"nats per word, of {words}"
    return SequenceTask(title, "words", words, *sets, label)


def _ptb() -> tuple[list[np.ndarray], int, str]:
    corpus = penn_treebank()
    unknown = corpus.vocabulary.index("<unk>")
    return [corpus.train, corpus.valid, corpus.test], unknown, "Penn Treebank"


def _toy(words: int) -> tuple[list[np.ndarray], int, str]:
    """A word mostly follows from the two before it."""
    rng = np.random.default_rng(0)
    text = [0, 1]
    for draw in rng.random(6000):
        text.append(int(words * draw) if draw < 0.1 else (text[-1] + text[-2] + 1) % words)
    numbers = np.array(text, np.int32)
    return [numbers[:4000], numbers[4000:5000], numbers[5000:]], 0, "toy language"


def _cut(text: np.ndarray, words: int, unknown: int) -> np.ndarray:
    # Words are numbered by frequency, so the frequent ones are the low numbers.
    if unknown >= words:
        raise ValueError(f"`words` must be above {unknown}, to hold `<unk>`, but got {words}.")
    return np.where(text < words, text, unknown).astype(np.int32)


def _words(text: np.ndarray, streams: int, segment: int) -> Stream:
    steps = (len(text) - 1) // streams
    if steps < 1:
        raise ValueError(f"`tokens` leave {len(text)} words for {streams} streams; take more.")
    inputs, targets = (
        text[shift : shift + steps * streams].reshape(streams, steps).T for shift in (0, 1)
    )
    clear = np.zeros((steps, streams), bool)
    return _segments(Stream(inputs, targets, clear, np.ones(clear.shape, np.float32)), segment)


def _notes(pieces: Pieces, streams: int, segment: int) -> Stream:
    """Whole pieces one after another, each in the stream that is shortest so far."""
    rows: list[list[int]] = [[] for _ in range(streams)]
    for n, _ in enumerate(pieces.lengths):
        min(rows, key=lambda row: sum(pieces.lengths[row])).append(n)
    steps = max(int(pieces.lengths[row].sum()) for row in rows)
    inputs = np.zeros((steps, streams, 88), np.float32)
    targets, first = inputs.copy(), np.zeros((steps, streams), bool)
    weight = np.zeros((steps, streams), np.float32)
    for b, row in enumerate(rows):
        t = 0
        for n in row:
            end = t + int(pieces.lengths[n])
            targets[t:end, b] = pieces.notes[n, : end - t]
            inputs[t + 1 : end, b] = targets[t : end - 1, b]
            first[t, b], weight[t:end, b], t = True, 1, end
    return _segments(Stream(inputs, targets, first, weight), segment)


def _segments(stream: Stream, segment: int) -> Stream:
    """Cut along time, filled up with steps that count nothing."""

    def cut(x: np.ndarray) -> np.ndarray:
        fill = -len(x) % segment
        return np.pad(x, [(0, fill)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, segment, *x.shape[1:])

    return Stream(*map(cut, stream))
