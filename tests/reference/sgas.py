"""SGAS with plain lists, as the paper tells it."""

import math


def softmax(row):
    powers = [math.exp(a - max(row)) for a in row]
    return [p / sum(powers) for p in powers]


def intersection(p, q):
    return sum(min(a, b) for a, b in zip(p, q, strict=True))


def unit(values):
    low, high = min(values), max(values)
    return [(v - low) / (high - low) if high > low else 1.0 for v in values]


class Sgas:
    """Decisions over the epochs of one search.

    Attributes:
      fixed: operation of an edge that is decided, `None` for one that is open, -1 for removed.
    """

    def __init__(self, names, nodes, kinds, keep, criterion, first, every):
        self.names, self.nodes, self.kinds, self.keep = names, nodes, kinds, keep
        self.criterion, self.first, self.every = criterion, first, every
        self.fixed, self.past, self.epoch = [None] * len(nodes), [], 0
        self.decided_at = []

    def end_of_epoch(self, alphas):
        rows = [softmax(list(map(float, row))) for row in alphas]
        none = self.names.index("none")
        importance = [1 - row[none] for row in rows]
        shares = [
            [0.0 if k == none else p / ei for k, p in enumerate(row)]
            for row, ei in zip(rows, importance, strict=True)
        ]
        entropy = [-sum(p * math.log(p) for p in q if p > 0) for q in shares]
        certainty = [1 - h / math.log(len(self.names) - 1) for h in entropy]
        last = self.past[-4:]
        stability = [
            sum(intersection(old[e], shares[e]) for old in last) / len(last) if last else 0.0
            for e in range(len(rows))
        ]
        if self.epoch >= self.first and (self.epoch - self.first) % self.every == 0:
            size = len(rows) // self.kinds
            for kind in range(self.kinds):
                self.decide(range(kind * size, (kind + 1) * size), importance, certainty,
                            stability, shares)  # fmt: skip
            self.decided_at.append(self.epoch)
        self.past.append(shares)
        self.epoch += 1

    def decide(self, edges, importance, certainty, stability, shares):
        columns = [importance, certainty] + ([stability] if self.criterion == 2 else [])
        units = [unit([column[e] for e in edges]) for column in columns]
        score = {e: math.prod(u[i] for u in units) for i, e in enumerate(edges)}
        still_open = [e for e in edges if self.fixed[e] is None]
        if not still_open:
            return
        edge = max(still_open, key=lambda e: (score[e], -e))
        self.fixed[edge] = max(range(len(shares[edge])), key=lambda k: (shares[edge][k], -k))
        siblings = [e for e in edges if self.nodes[e] == self.nodes[edge]]
        if self.keep and sum((self.fixed[e] or 0) >= 0 and self.fixed[e] is not None
                             for e in siblings) >= self.keep:  # fmt: skip
            for e in siblings:
                if self.fixed[e] is None:
                    self.fixed[e] = -1
