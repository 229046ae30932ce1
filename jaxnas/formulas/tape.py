"""Expressions as tapes of integers, over a grammar that is a table.

A tape holds one expression in Polish notation: `tape[0]` is the root, each symbol is followed by
its operands in order, and `END` fills the rest. A subtree is thus a slice, and a partly written
expression is a tape in which `HOLE` stands for what is still missing. Sizes are bounded by the
length of the tape, so whole populations are arrays `[N, L]`.
"""

import ast
import difflib
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

END, HOLE = -1, -2
Tape = Int[np.ndarray, " L"]
Tree = tuple[Any, ...]  # (symbol's name, operand, ...)

_INFIX = {"add": ast.Add, "sub": ast.Sub, "mul": ast.Mult, "div": ast.Div, "pow": ast.Pow}
_WORDY = 100  # letters a node; longer text is refused unread
_NAMES: dict[type, str] = {operator: name for name, operator in _INFIX.items()}


class Symbol(NamedTuple):
    """One operator or leaf.

    Attributes:
      name: what it is called in text, in lower case; `add sub mul div pow neg` print as infix.
      arity: how many operands it takes; 0 for a leaf.
      apply: `(inputs, row, *operands) -> value`; `inputs` are the grammar's own, `row` is the place
        on the tape, so that every random node draws for itself.
      latex: template with `{}` for each operand.
      binds: how tightly the result binds in LaTeX: 1 sums, 2 products, 3 signs and powers, 4 the rest.
      wants: how tightly each operand must bind to go without parentheses.
      commutes: whether its two operands may change places.
      code: template of the same value in Python, where rules are exported; `{row}` is the row.
    """

    name: str
    arity: int
    apply: Callable[..., Any]
    latex: str
    binds: int = 4
    wants: tuple[int, ...] = (0, 0, 0)
    commutes: bool = False
    code: str = ""


def unary(name: str, value: Callable[[Any], Any], latex: str, code: str = "", **how: Any) -> Symbol:
    """An operator of one operand that looks at nothing else; `how` are fields of `Symbol`."""
    return Symbol(name, 1, lambda inputs, row, a: value(a), latex, code=code, **how)


def binary(name: str, value: Callable[..., Any], latex: str, code: str = "", **how: Any) -> Symbol:
    """An operator of two operands that looks at nothing else; `how` are fields of `Symbol`."""
    return Symbol(name, 2, lambda inputs, row, a, b: value(a, b), latex, code=code, **how)


class Grammar:
    """What expressions may be made of.

    Args:
      name: of the grammar.
      symbols: its operators and leaves, `K` of them; a token is a position in it.
      nodes: most nodes an expression may have, `L`.
      roots: names that no expression starts with, where traversal is constrained.
      below: names that may not stand directly below a name, where traversal is constrained.

    Raises:
      ValueError: without leaves, for a name that stands twice, a rule about an unknown name, or
        rules that leave nothing to start with or no leaf to end with.
    """

    def __init__(
        self,
        name: str,
        symbols: Iterable[Symbol],
        *,
        nodes: int,
        roots: Iterable[str] = (),
        below: Mapping[str, Iterable[str]] | None = None,
    ) -> None:
        self.name, self.symbols, self.nodes = name, tuple(symbols), nodes
        if not any(symbol.arity == 0 for symbol in self.symbols):
            raise ValueError(f"`symbols` of {name!r} hold no leaf; add one of arity 0.")
        if nodes < 1:
            raise ValueError(f"`nodes` must be at least 1, but got {nodes}.")
        if len(self.index) < len(self.symbols):
            raise ValueError(f"`symbols` of {name!r} name something twice.")
        self.allowed = np.ones((len(self.symbols) + 1, len(self.symbols)), bool)
        for parent, children in [("", roots), *(below or {}).items()]:
            row = self.token(parent) if parent else -1
            self.allowed[row, [self.token(child) for child in children]] = False
        self._check_rules()

    def _check_rules(self) -> None:
        if not self.allowed[-1, self.arity < self.nodes].any():
            raise ValueError(f"`roots` of {self.name!r} forbid all that fit; leave one of them.")
        leaves = self.arity == 0
        for symbol, allowed in zip(self.symbols, self.allowed, strict=False):
            if symbol.arity and not allowed[leaves].any():
                raise ValueError(
                    f"`below` of {self.name!r} forbids every leaf below {symbol.name!r}; leave one."
                )

    @cached_property
    def arity(self) -> np.ndarray:
        """`[K]` operands of each symbol."""
        return np.array([symbol.arity for symbol in self.symbols], np.int32)

    @cached_property
    def index(self) -> dict[str, int]:
        """Position of each name."""
        return {symbol.name: k for k, symbol in enumerate(self.symbols)}

    def token(self, name: str) -> int:
        """Position of a symbol, upper or lower case.

        Raises:
          ValueError: if there is none, with the nearest name.
        """
        if name.lower() not in self.index:
            near = difflib.get_close_matches(name.lower(), self.index, n=1, cutoff=0.0)
            raise ValueError(f"{self.name} has no {name!r}; the nearest is {near[0]!r}.")
        return self.index[name.lower()]


def size(tape: Tape) -> int:
    """How many nodes an expression has."""
    return int((np.asarray(tape) != END).sum())


def nested(grammar: Grammar, tape: Tape) -> Tree:
    """An expression as `(name, operand, ...)`; a hole is called `_`, an empty tape nothing.

    Raises:
      ValueError: if the tape is not one whole expression.
    """
    symbols = list(map(int, np.asarray(tape)[: size(tape)]))
    if not symbols:
        return ("",)
    stack: list[Tree] = []
    for token in reversed(symbols):
        if token == HOLE:
            stack.append(("_",))
            continue
        if not 0 <= token < len(grammar.symbols) or len(stack) < grammar.arity[token]:
            raise ValueError(f"`tape` is no expression of {grammar.name}: {symbols}.")
        operands = [stack.pop() for _ in range(grammar.arity[token])]
        stack.append((grammar.symbols[token].name, *operands))
    if len(stack) != 1:
        raise ValueError(f"`tape` is no expression of {grammar.name}: {symbols}.")
    return stack[0]


def flat(grammar: Grammar, tree: Tree) -> Tape:
    """The tape of a nested expression.

    Raises:
      ValueError: for an unknown name, or more nodes than the grammar's tapes hold.
    """
    names = list(_names(tree))
    if len(names) > grammar.nodes:
        raise ValueError(
            f"The expression has {len(names)} nodes, but tapes of {grammar.name} hold "
            f"{grammar.nodes}."
        )
    tokens = [grammar.token(name) for name in names]
    return np.array(tokens + [END] * (grammar.nodes - len(tokens)), np.int32)


def _names(tree: Tree) -> Iterable[str]:
    yield tree[0]
    for operand in tree[1:]:
        yield from _names(operand)


def translated(grammar: Grammar, other: Grammar, tapes: Any) -> Any:
    """Tapes of one grammar as tapes of another that has the same symbols and no shorter tapes."""
    tokens = np.array([other.token(symbol.name) for symbol in grammar.symbols], np.int32)
    tapes = jnp.asarray(tapes)
    moved = jnp.where(tapes < 0, tapes, jnp.asarray(tokens)[jnp.maximum(tapes, 0)])
    room = [(0, 0)] * (tapes.ndim - 1) + [(0, other.nodes - grammar.nodes)]
    return jnp.pad(moved, room, constant_values=END)


def depth(tree: Tree) -> int:
    """Nodes on the longest way from root to leaf."""
    return 1 + max(map(depth, tree[1:]), default=0)


def parse(grammar: Grammar, text: str) -> Tape:
    """Reads infix text such as `m1 + rmsprop * exp(adam)`; `Add(M1, G)` is read as well.

    Raises:
      ValueError: for text that is no expression, an unknown operator or leaf (with its position and
        the nearest known name), a wrong number of operands, or too many nodes or letters.
    """
    if len(text) > _WORDY * grammar.nodes:
        raise ValueError(
            f"{text[:20]!r}... cannot be read: it has {len(text)} characters, but no expression of "
            f"{grammar.nodes} nodes needs more than {_WORDY * grammar.nodes}."
        )
    try:
        root = ast.parse(text.strip(), mode="eval").body
        return flat(grammar, _read(grammar, root, text))
    except (SyntaxError, RecursionError, MemoryError) as error:
        at = ""
        if isinstance(error, SyntaxError):
            at = f" at position {_line_start(text, error.lineno or 1) + (error.offset or 1)}"
        raise ValueError(f"{text!r} is no expression{at}: {error.args[0]}.") from None
    except ValueError as error:
        raise ValueError(f"{text!r} cannot be read: {error}") from None


def _line_start(text: str, line: int) -> int:
    """How many characters stand before a line of the stripped text, counted from 1."""
    bare = text.lstrip()
    return len(text) - len(bare) + sum(len(one) + 1 for one in bare.split("\n")[: line - 1])


def _read(grammar: Grammar, node: ast.AST, text: str) -> Tree:
    name, operands = _parts(node)
    line, read = getattr(node, "lineno", 1), getattr(node, "col_offset", 0)
    start = _line_start(text, line)
    within = text[start:].encode()[:read].decode()  # Python counts bytes
    at = f"at position {start + len(within) + 1}"
    try:
        symbol = grammar.symbols[grammar.token(name)]
    except ValueError as error:
        raise ValueError(f"{at}, {error}") from None
    if symbol.arity != len(operands):
        raise ValueError(f"{at}, {symbol.name} takes {symbol.arity} operands, not {len(operands)}.")
    return (symbol.name, *(_read(grammar, operand, text) for operand in operands))


def _parts(node: ast.AST) -> tuple[str, list[ast.expr]]:
    match node:
        case ast.BinOp(left, operator, right) if type(operator) in _NAMES:
            return _NAMES[type(operator)], [left, right]
        case ast.UnaryOp(ast.USub(), operand):
            return "neg", [operand]
        case ast.Call(ast.Name(name), operands, []):
            return name, operands
        case ast.Name(name):
            return name, []
        case ast.Constant(value) if type(value) in (int, float):
            return repr(value).removesuffix(".0"), []
    return ast.unparse(node)[:20] if isinstance(node, ast.expr) else "?", []


def to_text(grammar: Grammar, tape: Tape) -> str:
    """Infix text that `parse` reads back, with `_` for holes."""
    return ast.unparse(_written(nested(grammar, tape)))


def _written(tree: Tree) -> ast.expr:
    name, operands = tree[0], [_written(operand) for operand in tree[1:]]
    if name in _INFIX and len(operands) == 2:
        return ast.BinOp(operands[0], _INFIX[name](), operands[1])
    if name == "neg":
        return ast.UnaryOp(ast.USub(), operands[0])
    return ast.Call(ast.Name(name), operands, []) if operands else ast.Name(name)


def to_latex(grammar: Grammar, tape: Tape) -> str:
    """LaTeX, to be set between dollars."""
    return _latex(grammar, nested(grammar, tape))


def _latex(grammar: Grammar, tree: Tree) -> str:
    symbol = grammar.symbols[grammar.token(tree[0])]
    parts = []
    for want, operand in zip(symbol.wants, tree[1:], strict=False):
        inner = _latex(grammar, operand)
        binds = grammar.symbols[grammar.token(operand[0])].binds
        parts.append(inner if binds >= want else rf"\left({inner}\right)")
    return symbol.latex.format(*parts) if parts else symbol.latex


def to_code(grammar: Grammar, tree: Tree, row: int = 0) -> str:
    """The value as a Python expression, by the `code` of each symbol; `row` is that of the root."""
    parts, below = [], row + 1
    for operand in tree[1:]:
        parts.append(to_code(grammar, operand, below))
        below += len(list(_names(operand)))
    return grammar.symbols[grammar.token(tree[0])].code.format(*parts, row=row)
