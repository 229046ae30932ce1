"""A traversal of the super-tree replayed from its roll-outs, with trees, dicts and lists."""

import numpy as np
from reference import expressions as slow


class Level:
    """What one level knows: sums and numbers of the scores of each child, and rules trained."""

    def __init__(self, node):
        self.node, self.totals, self.counts, self.trained, self.rounds = node, {}, {}, 0, 0

    def credit(self, child, score):
        if np.isfinite(score):
            self.totals[child] = self.totals.get(child, 0.0) + float(score)
            self.counts[child] = self.counts.get(child, 0) + 1


def child_of(symbols, node, child):
    """The node in which hole `child // K` is filled with symbol `child % K`."""
    row, token = divmod(child, len(symbols))
    assert slow.names(node)[row] == "_"
    symbol = symbols[token]
    return slow.replaced(node, row, (symbol.name, *[("_",)] * symbol.arity))


def ask(symbols, level, pool, rolls):
    """Sorts the roll-outs of one ask, `(child, tape, good, print)`.

    Returns:
      The tapes to be trained by print, and which children wait for them.
    """
    fresh, waiting = {}, []
    for child, tape, good, answer in rolls:
        new, seen = child_of(symbols, level.node, child), answer.tobytes()
        assert slow.expands(new, slow.decoded(symbols, tape))
        if good and seen in pool:
            level.credit(child, pool[seen])
        elif good:
            fresh.setdefault(seen, tape)
            waiting.append((child, seen))
    return fresh, waiting


def tell(level, pool, fresh, waiting, score):
    """Scores what was asked and hands the scores to the children."""
    for seen, tape in fresh.items():
        pool[seen] = score(tape)
        level.trained += bool(np.isfinite(pool[seen]))
    for child, seen in waiting:
        level.credit(child, pool[seen])
    level.rounds += 1


def best(symbols, level):
    """The child with the best mean of those that still have holes, the first of equals."""
    children = []
    for child, total in level.totals.items():
        node = child_of(symbols, level.node, child)
        if "_" in slow.names(node):
            children.append((round(total / level.counts[child], 4), -child, node))
    return max(children)[2]
