"""The NAS-Bench-201 cell space: four nodes, six edges, five operations, 15,625 cells.

Dong & Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture Search", ICLR
2020, arXiv:2001.00326; the same space is the topology space of NATS-Bench, arXiv:2009.00437.

A genotype is `[6]` int8, one operation per edge, edges in the order 0->1, 0->2, 1->2, 0->3, 1->3,
2->3. The official index of a cell is an arbitrary order fixed by the benchmark's authors; it is
read from the table (`tabular.OfficialIndex`). `code` is our own: the genotype read in base five.
"""

import difflib
import re
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Key

OPS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
NONE, SKIP, CONV1, CONV3, POOL = range(5)
EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))  # (source, target)
NODES = 4
SIZE = len(OPS) ** len(EDGES)
DTYPE = jnp.int8
_POWERS = len(OPS) ** np.arange(len(EDGES) - 1, -1, -1)


def to_text(genotype: Int[Array, " 6"] | np.ndarray) -> str:
    """The official string of a cell.

    Example:
      >>> to_text(np.array([1, 0, 0, 3, 4, 2]))
      '|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|avg_pool_3x3~1|nor_conv_1x1~2|'
    """
    ops = [OPS[i] for i in np.asarray(genotype)]
    nodes = [
        "|".join(f"{op}~{j}" for (j, i), op in zip(EDGES, ops, strict=True) if i == node)
        for node in range(1, NODES)
    ]
    return "+".join(f"|{node}|" for node in nodes)


def from_text(text: str) -> np.ndarray:
    """Reads an official string.

    Raises:
      ValueError: naming the token that is wrong and its position.
    """
    nodes = text.strip().split("+")
    if len(nodes) != NODES - 1:
        raise ValueError(
            f"A NAS-Bench-201 cell has {NODES - 1} nodes joined by '+', but {text!r} has "
            f"{len(nodes)}; expected e.g. {to_text(np.ones(6, int))!r}."
        )
    ops: list[int] = []
    for i, node in enumerate(nodes, start=1):
        tokens = re.fullmatch(r"\|(.*)\|", node)
        found = tokens.group(1).split("|") if tokens else []
        if len(found) != i:
            raise ValueError(
                f"Node {i} of a NAS-Bench-201 cell needs {i} inputs between '|', but got {node!r}."
            )
        ops.extend(_read_edge(token, source, i) for source, token in enumerate(found))
    return np.array(ops, np.int8)


def _read_edge(token: str, source: int, node: int) -> int:
    op, _, origin = token.partition("~")
    if op not in OPS:
        close = difflib.get_close_matches(op, OPS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise ValueError(
            f"Unknown operation {op!r} in token {token!r} (node {node}, input {source}); "
            f"the operations are {', '.join(OPS)}.{hint}"
        )
    if origin != str(source):
        raise ValueError(
            f"Token {token!r} of node {node} should read from node {source}: "
            f"expected '{op}~{source}'."
        )
    return OPS.index(op)


def code(genotypes: Int[Array, "*N 6"]) -> Int[Array, "*N"]:
    """The genotype as a number in `[0, 15625)`, the first edge leading."""
    return (genotypes.astype(jnp.int32) * jnp.asarray(_POWERS, jnp.int32)).sum(-1)


def from_code(codes: Int[Array, "*N"]) -> Int[Array, "*N 6"]:
    """The inverse of `code`."""
    return (codes[..., None] // jnp.asarray(_POWERS, jnp.int32) % len(OPS)).astype(DTYPE)


def sample(key: Key[Array, ""], n: int) -> Int[Array, "N 6"]:
    """Draws `n` cells uniformly, with replacement."""
    return jax.random.randint(key, (n, len(EDGES)), 0, len(OPS), DTYPE)


def mutate(key: Key[Array, ""], genotype: Int[Array, " 6"]) -> Int[Array, " 6"]:
    """Replaces the operation of one edge by one of the four others, uniformly."""
    choice = jax.random.randint(key, (), 0, len(EDGES) * (len(OPS) - 1))
    edge, shift = choice % len(EDGES), choice // len(EDGES) + 1
    moved = (genotype + shift.astype(DTYPE)) % len(OPS)
    return jnp.where(jnp.arange(len(EDGES)) == edge, moved, genotype)


def neighbours(genotype: Int[Array, " 6"]) -> Int[Array, "24 6"]:
    """All 24 cells that differ in one edge."""
    edge, shift = np.divmod(np.arange(24), len(OPS) - 1)
    step = np.eye(len(EDGES), dtype=np.int8)[edge] * (shift + 1)[:, None]
    return ((genotype + step) % len(OPS)).astype(DTYPE)


def canonical(genotype: np.ndarray) -> str:
    """The benchmark's canonical form: cells with equal texts are one topology.

    A skip is replaced by its source, an edge that reads nothing but zero is zero (`#`), and a sum
    does not depend on its order. By this rule, which is the paper's, 6,466 of the 15,625 cells are
    distinct; adding up zeros (`a+#` is `a`) would merge a few hundred more.
    """
    nodes = ["x"]
    for node in range(1, NODES):
        terms = [
            _term(nodes[j], int(op))
            for (j, i), op in zip(EDGES, genotype, strict=True)
            if i == node
        ]
        nodes.append("+".join(sorted(terms)))
    return nodes[-1]


def _term(source: str, op: int) -> str:
    if op == NONE or source == "#":
        return "#"
    return source if op == SKIP else f"({source})@{OPS[op]}"


@lru_cache(maxsize=1)
def canonical_codes() -> np.ndarray:
    """`[15625]` for every code the smallest code that computes the same function.

    A gather from it tells equal cells inside a compiled search.
    """
    first: dict[str, int] = {}
    cells = np.asarray(from_code(jnp.arange(SIZE)))
    return np.array([first.setdefault(canonical(c), n) for n, c in enumerate(cells)], np.int32)


def params(
    genotype: np.ndarray, *, classes: int, channels: int = 16, layers: int = 5, inputs: int = 3
) -> int:
    """Exact number of trainable parameters of the 2-D network, affine batch norms included.

    Args:
      genotype: `[6]` operations.
      classes: outputs of the classifier.
      channels: channels of the first stage, `C`; doubled twice.
      layers: cells per stage, `N`.
      inputs: channels of the image.
    """
    count = [int(np.sum(np.asarray(genotype) == op)) for op in range(len(OPS))]
    widths = [channels, 2 * channels, 4 * channels]
    cell = sum(count[CONV3] * (9 * c * c + 2 * c) + count[CONV1] * (c * c + 2 * c) for c in widths)
    stem = 9 * inputs * channels + 2 * channels
    # Residual reduction: two 3x3 convolutions with batch norm, and a 1x1 shortcut without.
    reduction = sum(9 * c * 2 * c + 4 * c + 36 * c * c + 4 * c + 2 * c * c for c in widths[:2])
    head = 2 * widths[2] + widths[2] * classes + classes
    return stem + layers * cell + reduction + head


def flops(
    genotype: np.ndarray,
    *,
    classes: int,
    channels: int = 16,
    layers: int = 5,
    inputs: int = 3,
    size: int = 32,
) -> int:
    """Multiply-adds per image by the benchmark's rule: convolutions and the classifier only.

    Args:
      genotype: `[6]` operations.
      classes: outputs of the classifier.
      channels: channels of the first stage.
      layers: cells per stage.
      inputs: channels of the image.
      size: height and width of the image.
    """
    ops = np.asarray(genotype)
    per_pixel = 9 * int(np.sum(ops == CONV3)) + int(np.sum(ops == CONV1))
    stages = [(channels << s, -(-size // (1 << s))) for s in range(3)]
    cells = layers * sum(per_pixel * c * c * side * side for c, side in stages)
    stem = 9 * inputs * channels * size * size
    reduction = sum(
        (9 * (c // 2) * c + 9 * c * c + (c // 2) * c) * side * side for c, side in stages[1:]
    )
    width = stages[-1][0]
    return stem + cells + reduction + width * classes + classes
