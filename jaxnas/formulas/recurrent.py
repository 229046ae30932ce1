"""The grammar of recurrent nodes: what `h_t` may be made of, with the memory that goes with it.

Rawal & Miikkulainen, "From Nodes to Networks: Evolving Recurrent Neural Networks", 2018,
arXiv:1803.04439. A node is a tree whose root is its output. Leaves are the linear inputs of gates:
each occurrence has weights of its own, so `sigmoid(xh) * tanh(xh)` has two gates. `keep0` passes
its operand through and remembers it; the leaf `c0` is what was remembered one step before, zero at
the start. A tree may use three such memories, and nonlinear ways to and from them; the paper's LSTM
has one.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jaxnas.formulas.evaluate import values
from jaxnas.formulas.tape import END, Grammar, Symbol, Tape, binary, parse, unary

MEMORIES = 3


class Inputs(NamedTuple):
    """What a node sees at one step; gates by their row on the tape.

    Attributes:
      x: `[..., H]` by row, `W x`.
      u: `[..., H]` by row, `U h`.
      b: `[..., H]` by row.
      h: `[..., H]` the output of the step before.
      c: `[..., H]` by number, what was remembered; a memory that is not there reads zero.
    """

    x: Mapping[int, Array]
    u: Mapping[int, Array]
    b: Mapping[int, Array]
    h: Float[Array, "*b H"]
    c: Mapping[int, Array]


def _gate(name: str, value: Callable[[Inputs, Any], Any], latex: str) -> Symbol:
    return Symbol(name, 0, value, latex)


def _memory(k: int) -> tuple[Symbol, Symbol]:
    def read(s: Inputs, row: Any) -> Array:
        return s.c[k] if k in s.c else jnp.zeros_like(s.h)

    return (
        Symbol(f"c{k}", 0, read, f"c_{k}"),
        Symbol(f"keep{k}", 1, lambda s, row, a: a, rf"c_{k}\!\leftarrow\!\left({{}}\right)"),
    )


_MEMORY = [_memory(k) for k in range(MEMORIES)]
_SYMBOLS = (
    _gate("xh", lambda s, row: s.x[row] + s.u[row] + s.b[row], "[x, h]"),
    _gate("x", lambda s, row: s.x[row] + s.b[row], "[x]"),
    _gate("hh", lambda s, row: s.u[row] + s.b[row], "[h]"),
    Symbol("h", 0, lambda s, row: s.h, "h"),
    *(leaf for leaf, _ in _MEMORY),
    binary("add", jnp.add, "{} + {}", binds=1, wants=(1, 1), commutes=True),
    binary("mul", jnp.multiply, r"{} \cdot {}", binds=2, wants=(2, 2), commutes=True),
    binary("sub", jnp.subtract, "{} - {}", binds=1, wants=(1, 2)),
    unary("tanh", jnp.tanh, r"\tanh\left({}\right)"),
    unary("sigmoid", jax.nn.sigmoid, r"\sigma\left({}\right)"),
    unary("relu", jax.nn.relu, r"\mathrm{{relu}}\left({}\right)"),
    *(keep for _, keep in _MEMORY),
    Symbol(
        "blend",
        3,
        lambda s, row, z, a, b: z * a + (1 - z) * b,
        r"\mathrm{{blend}}\left({}, {}, {}\right)",
    ),
)
# What people wrote.
BASELINES = {
    "LSTM": "sigmoid(xh) * tanh(keep0(sigmoid(xh) * c0 + sigmoid(xh) * tanh(xh)))",
    "GRU": "blend(sigmoid(xh), h, tanh(x + sigmoid(xh) * hh))",
    "RNN": "tanh(xh)",
}


def nodes(length: int = 32) -> Grammar:
    """The grammar.

    Args:
      length: most symbols of a node.
    """
    return Grammar("nodes", _SYMBOLS, nodes=length)


def baseline(grammar: Grammar, name: str) -> Tape:
    """The tape of a node that people wrote.

    Raises:
      ValueError: if there is none of that name, or it does not fit.
    """
    if name not in BASELINES:
        raise ValueError(f"`name` must be one of {', '.join(BASELINES)}, but got {name!r}.")
    return parse(grammar, BASELINES[name])


class Node(NamedTuple):
    """A node ready to be unrolled.

    Attributes:
      gates: rows of its linear inputs, in order: the slots of its weights.
      reads: `[gates, 2]` whether each gate uses `W`, and whether it uses `U`.
      memories: numbers of the memories it both writes and reads.
      step: `(xw, uh, b, h, c) -> (h, c)`: gates `[gates, ..., H]`, `h` `[..., H]`, memories
        `[MEMORIES, ..., H]`, of which those that are not used are passed through.
    """

    gates: tuple[int, ...]
    reads: Bool[np.ndarray, "gates 2"]
    memories: tuple[int, ...]
    step: Callable[..., tuple[Array, Array]]


def node(grammar: Grammar, tape: Int[np.ndarray, " L"]) -> Node:
    """Writes a tape out. Of several places that write one memory, the one nearest the front counts."""
    names = [grammar.symbols[token].name for token in tape if token != END]
    gates = tuple(row for row, name in enumerate(names) if name in ("xh", "x", "hh"))
    writes = {k: names.index(f"keep{k}") for k in range(MEMORIES) if f"keep{k}" in names}
    memories = tuple(k for k in writes if f"c{k}" in names)

    def step(xw: Any, uh: Any, b: Any, h: Array, c: Any) -> tuple[Array, Array]:
        def by_row(of: Any) -> dict[int, Array]:
            return {row: of[slot] for slot, row in enumerate(gates)}

        inputs = Inputs(by_row(xw), by_row(uh), by_row(b), h, {k: c[k] for k in memories})
        found = values(grammar, tape, inputs)
        after = [found[writes[k]] if k in memories else c[k] for k in range(MEMORIES)]
        return found[0], jnp.stack(after)

    reads = np.array([[names[r] != "hh", names[r] != "x"] for r in gates], bool).reshape(-1, 2)
    return Node(gates, reads, memories, step)


def sees_input(grammar: Grammar, tape: Int[np.ndarray, " L"]) -> bool:
    """Whether anything in the node depends on the input of the network."""
    return any(grammar.symbols[token].name in ("xh", "x") for token in tape if token != END)
