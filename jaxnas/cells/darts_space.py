"""The DARTS cell space and its reduced forms: four nodes, two inputs each, seven operations.

Liu, Simonyan & Yang, "DARTS: Differentiable Architecture Search", ICLR 2019, arXiv:1806.09055. S1
to S4 are those of Zela et al., "Understanding and Robustifying Differentiable Architecture
Search", ICLR 2020, arXiv:1909.09656; `s5` is the space without `none`.

For searches a genotype is `[2, 8, 2]` int8: normal and reduction cell; eight entries, two per node;
operation (index in `OPS`) and state it reads. As text and as a `Genotype` it is read and written by
`cell_text`.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxnas.cells import cell_text, darts_net
from jaxnas.cells.cell_text import SHORT, Genotype

OPS = (
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
    "noise",
)
NODES = 4
EDGES = tuple((j, i) for i in range(2, NODES + 2) for j in range(i))  # (state read, node)
CONCAT = tuple(range(2, NODES + 2))
DTYPE = jnp.int8
NAMED = {
    "DARTS_V1": "N[S3<1 S3<0 SK<0 S3<1 SK<0 S3<1 S3<0 SK<2] cat[2, 3, 4, 5] "
    "R[MP<0 MP<1 SK<2 MP<0 MP<0 SK<2 SK<2 AP<0] cat[2, 3, 4, 5]",
    "DARTS_V2": "N[S3<0 S3<1 S3<0 S3<1 S3<1 SK<0 SK<0 D3<2] cat[2, 3, 4, 5] "
    "R[MP<0 MP<1 SK<2 MP<1 MP<0 SK<2 SK<2 MP<1] cat[2, 3, 4, 5]",
    "PC_DARTS_cifar": "N[S3<1 SK<0 S3<0 D3<1 S5<0 S3<1 AP<0 D3<1] cat[2, 3, 4, 5] "
    "R[S5<1 MP<0 S5<1 S5<2 S3<0 S3<3 S3<1 S3<2] cat[2, 3, 4, 5]",
    "DrNAS_cifar10": "N[S3<0 S5<1 S3<1 S3<2 SK<0 S3<1 S3<2 D5<3] cat[2, 3, 4, 5] "
    "R[MP<0 S5<1 D5<2 S5<1 S5<1 D5<3 SK<4 S5<1] cat[2, 3, 4, 5]",
}
RULES = cell_text.Rules(OPS, nodes=NODES, distinct=True, named=NAMED)
S1 = (
    "SK,D3 SK,D5 SK,D5 SK,S3 SK,D3 MP,SK SK,S3 SK,S3 SK,D3 SK,S3 MP,SK SK,D3 D3,D5 D3,D5",
    "MP,AP MP,D3 MP,AP MP,AP SK,D5 MP,AP MP,S3 SK,D3 SK,D5 MP,AP MP,AP SK,D5 SK,D5 SK,D5",
)


def _everywhere(*ops: str) -> tuple[tuple[tuple[str, ...], ...], ...]:
    return ((ops,) * len(EDGES),) * 2


# Operations of each edge of the normal and of the reduction cell.
SPACES = {
    "darts": _everywhere(*OPS[:8]),
    "s5": _everywhere(*OPS[1:8]),
    "s1": tuple(
        tuple(tuple(SHORT[op] for op in edge.split(",")) for edge in cell.split()) for cell in S1
    ),
    "s2": _everywhere("skip_connect", "sep_conv_3x3"),
    "s3": _everywhere("none", "skip_connect", "sep_conv_3x3"),
    "s4": _everywhere("noise", "sep_conv_3x3"),
}


def edge_ops(space: str) -> tuple[tuple[tuple[str, ...], ...], ...]:
    """Operations of every edge of the normal and of the reduction cell, `[2][14][K]`.

    Raises:
      ValueError: for a space there is not.
    """
    if space not in SPACES:
        raise ValueError(f"`space` must be one of {', '.join(SPACES)}, but got {space!r}.")
    return SPACES[space]


def from_text(text: str, space: str | None = None) -> Genotype:
    """Reads a genotype in either notation of `cell_text`, or by its name in `NAMED`.

    Args:
      text: the genotype.
      space: if given, every operation must be one that its edge has in this space.

    Raises:
      ValueError: naming the token that is wrong, where it stands and what was expected.
    """
    genotype = cell_text.read(text, RULES)
    for cell, edges in zip(genotype[::2], edge_ops(space) if space else (), strict=False):
        for n, (op, source) in enumerate(cell):
            node = n // 2 + 2
            ops = edges[EDGES.index((source, node))]
            if op not in ops:
                raise ValueError(
                    f"In {space} the edge from state {source} to node {node} chooses from "
                    f"{', '.join(ops)}, but the genotype has {op!r} there."
                )
    return genotype


def encode(genotype: Genotype) -> np.ndarray:
    """The genotype as `[2, 8, 2]` int8.

    Raises:
      ValueError: if an output is not that of all four nodes, which the array cannot say.
    """
    for concat in genotype[1::2]:
        if tuple(sorted(concat)) != CONCAT:
            raise ValueError(
                f"In the array form both outputs are nodes {CONCAT}, but got {concat}."
            )
    cells = genotype.normal, genotype.reduce
    return np.array([[(OPS.index(op), s) for op, s in cell] for cell in cells], np.int8)


def decode(genotype: Int[Array, "2 8 2"] | np.ndarray) -> Genotype:
    """The inverse of `encode`."""
    normal, reduction = (
        tuple((OPS[int(op)], int(s)) for op, s in cell) for cell in np.asarray(genotype)
    )
    return Genotype(normal, CONCAT, reduction, CONCAT)


def to_text(genotype: Int[Array, "2 8 2"] | np.ndarray) -> str:
    """The long notation of an array, see `cell_text.to_text`."""
    return cell_text.to_text(decode(genotype))


def params(genotype: Int[Array, "2 8 2"] | np.ndarray, **how: Any) -> int:
    """Trainable parameters of the network of an array, see `darts_net.params`."""
    return darts_net.params(decode(genotype), **how)


def strongest(
    ops: Float[Array, "28 K"], edges: Float[Array, " 28"], space: str = "darts"
) -> Int[Array, "2 8 2"]:
    """The genotype of the strongest edges and operations (DARTS, section 2.4).

    An edge is as strong as its best operation but `none`, times its own factor. Each node keeps
    its two strongest edges, the earlier at a tie, in the order of the states they read.

    Args:
      ops: strength of every operation on every edge, the normal cell first.
      edges: factor of every edge.
      space: name in `SPACES`.
    """
    names = sum(edge_ops(space), ())
    table = jnp.array([[OPS.index(op) for op in edge] for edge in names], DTYPE)
    real = jnp.where(table == OPS.index("none"), -jnp.inf, ops)
    best = jnp.take_along_axis(table, real.argmax(-1)[:, None], 1)[:, 0]
    strength = real.max(-1) * edges
    entries = []
    for first in range(0, len(names), len(EDGES)):
        for node in CONCAT:
            start = first + EDGES.index((0, node))
            states = jnp.sort(jax.lax.top_k(strength[start : start + node], 2)[1])
            entries.append(jnp.stack([best[start + states], states.astype(DTYPE)], -1))
    return jnp.concatenate(entries).reshape(2, 2 * NODES, 2)


def sample(key: Key[Array, ""], n: int, space: str = "darts") -> Int[Array, "N 2 8 2"]:
    """Draws `n` genotypes: two different inputs per node and an operation on each, uniformly."""
    names = sum(edge_ops(space), ())
    draws = jax.random.uniform(key, (n, len(names), len(names[0])))
    # Strengths that are all alike to chance make every choice as likely as any other.
    return jax.vmap(lambda ops: strongest(ops, jnp.ones(len(names)), space))(draws)


def mutate(
    key: Key[Array, ""], genotype: Int[Array, "2 8 2"], space: str = "darts"
) -> Int[Array, "2 8 2"]:
    """Changes one operation or one input, with equal chances, of an entry drawn uniformly.

    The two inputs of a node stay different, so those of the first node cannot change: there it is
    always the operation. Where the new input's edge does not have the operation (S1), one that it
    has is drawn.
    """
    key_entry, key_kind, key_state, key_op = jax.random.split(key, 4)
    kind, entry = jnp.divmod(jax.random.randint(key_entry, (), 0, 4 * NODES), 2 * NODES)
    node, (op, state) = entry // 2, genotype[kind, entry]
    states = jnp.arange(NODES + 1)
    free = (states < node + 2) & (states != state) & (states != genotype[kind, entry ^ 1, 1])
    rewire = jax.random.bernoulli(key_kind) & free.any()
    state = jnp.where(rewire, _drawn(key_state, free), state)

    allowed = np.array(
        [[[op in edge and op != "none" for op in OPS] for edge in cell] for cell in edge_ops(space)]
    )
    start = jnp.array([EDGES.index((0, i)) for i in CONCAT])[node]
    here = jnp.asarray(allowed)[kind, start + state]
    drawn = _drawn(key_op, here & (jnp.arange(len(OPS)) != op))
    op = jnp.where(rewire & here[op], op, drawn)
    return genotype.at[kind, entry].set(jnp.stack([op, state]).astype(DTYPE))


def _drawn(key: Key[Array, ""], mask: Array) -> Int[Array, ""]:
    """The index of one of the true places."""
    return jax.random.categorical(key, jnp.where(mask, 0.0, -jnp.inf))
