"""What a program computes, as a number: equal for all sources that compute the same.

A jaxpr is read backwards from its results. The label of a value is a hash of the operation that
makes it and of the labels of its operands, so names, order of independent statements, dead code
and repetitions leave no trace. Weights and random keys are numbered in the order in which they are
first needed; which of a key's children is drawn from does not matter, only whether it is the same.
"""

import hashlib
import math
import re
import sys
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

# Whose result is that of their body; the body of `reduce` or of a pooling is but a part of it.
CALLS = {"jit", "pjit", "closed_call", "core_call", "checkpoint"}
CALLS |= {"custom_jvp_call", "custom_vjp_call", "custom_vjp_call_jaxpr"}
IGNORED = {"name", "sharding", "out_sharding", "unroll", "_split_transpose", "debug_info"}
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def identity(
    init: ClosedJaxpr,
    logits: Sequence[ClosedJaxpr],
    gradients: Sequence[ClosedJaxpr],
    params: int,
) -> str:
    """What makes two candidates one.

    Args:
      init: `(key) -> leaves`, the trained ones first.
      logits: `(leaves, x) -> logits`, for each shape of examples that are judged.
      gradients: `(leaves, x, y, key) -> (loss, accuracy, gradients, other leaves)`, for each shape
        of examples that are trained on.
      params: how many leaves are trained, `P`.

    Returns:
      SHA-256 in hexadecimal.
    """
    symbols = Symbols()
    leaves = [Symbol(symbols, ("leaf", i)) for i in range(len(init.jaxpr.outvars))]
    begin = Reader.of(init, [Fixed("first key")], symbols)
    judges = [Reader.of(one, [*leaves, Fixed("x")], symbols) for one in logits]
    batch = [*leaves, *map(Fixed, ("x", "y", "key"))]
    trains = [Reader.of(one, batch, symbols) for one in gradients]
    with _deep():
        labels = [judge.result(0) for judge in judges]
        labels += [train.result(i) for train in trains for i in range(2)]
        # By now all leaves that matter are numbered.
        order = sorted(range(len(leaves)), key=lambda i: symbols.numbers.get(("leaf", i), math.inf))
        for i in order:
            labels += [str(i < params), leaves[i].label(), begin.result(i)]
            labels += [train.result(2 + i) for train in trains]
    return digest(*labels)


@contextmanager
def _deep() -> Generator[None]:
    """Lets a chain of operations be as long as it is: frames of Python take no C stack."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        yield
    finally:
        sys.setrecursionlimit(before)


def digest(*parts: Any) -> str:
    """SHA-256 of some values as text."""
    return hashlib.sha256("\0".join([str(p) for p in parts]).encode()).hexdigest()


class Symbols:
    """Numbers in the order of first use."""

    def __init__(self) -> None:
        self.numbers: dict[Any, int] = {}

    def number(self, what: Any) -> int:
        """The number of something, a new one if it is new."""
        return self.numbers.setdefault(what, len(self.numbers))


class Symbol:
    """An input that is numbered when it is first read."""

    def __init__(self, symbols: Symbols, what: Any) -> None:
        self.symbols, self.what = symbols, what

    def label(self) -> str:
        """Its number, as text."""
        return f"#{self.symbols.number(self.what)}"


class Fixed:
    """An input with a label of its own."""

    def __init__(self, text: str) -> None:
        self.text = text

    def label(self) -> str:
        """The label."""
        return self.text


class Reader:
    """Labels the values of a jaxpr, each when it is first asked for.

    Args:
      jaxpr: what is read.
      consts: its constants, in order.
      inputs: for each of its inputs something with `label()`.
      symbols: numbers of what is numbered, shared by all programs of one candidate.
      depth: loops around it.
    """

    def __init__(
        self,
        jaxpr: Jaxpr,
        consts: Sequence[Any],
        inputs: Sequence[Any],
        symbols: Symbols,
        depth: int = 0,
    ) -> None:
        self.symbols, self.depth = symbols, depth
        self.inputs = dict(zip(jaxpr.invars, inputs, strict=True))
        self.inputs |= {v: Fixed(_value(c)) for v, c in zip(jaxpr.constvars, consts, strict=True)}
        self.constants = set(jaxpr.constvars)
        self.makers = {v: (eqn, i) for eqn in jaxpr.eqns for i, v in enumerate(eqn.outvars)}
        self.results = jaxpr.outvars
        self.known: dict[Var, str] = {}
        self.calls: dict[int, Callable[[int], str]] = {}

    @staticmethod
    def of(
        closed: ClosedJaxpr, inputs: Sequence[Any], symbols: Symbols, depth: int = 0
    ) -> "Reader":
        """A reader of a whole program."""
        return Reader(closed.jaxpr, closed.consts, inputs, symbols, depth)

    def result(self, i: int) -> str:
        """The label of the result in place `i`."""
        return self.read(self.results[i])

    def read(self, var: Var | Literal) -> str:
        """The label of a value."""
        if isinstance(var, Literal):
            return _value(var.val)
        if var not in self.known:
            self.known[var] = self._made(var)
        return self.known[var]

    def _made(self, var: Var) -> str:
        if var in self.inputs:
            given = self.inputs[var]
            label = given.label()
            return label if isinstance(given, Outer) else f"{label}:{var.aval.str_short()}"
        eqn, i = self.makers[var]
        if id(eqn) not in self.calls:
            self.calls[id(eqn)] = _READERS.get(eqn.primitive.name, _plain)(self, eqn)
        return self.calls[id(eqn)](i)

    def is_constant(self, var: Var | Literal) -> bool:
        """Whether a value is the same whatever key, weights and data are."""
        if isinstance(var, Literal) or var in self.constants:
            return True
        if var in self.inputs:
            given = self.inputs[var]
            return isinstance(given, Outer) and given.reader.is_constant(given.var)
        return all(self.is_constant(v) for v in self.makers[var][0].invars)

    def inside(
        self, closed: ClosedJaxpr | Jaxpr, inputs: Sequence[Any], loops: int = 0
    ) -> "Reader":
        """A reader of a jaxpr within this one, and within so many loops more."""
        depth = self.depth + loops
        if isinstance(closed, ClosedJaxpr):
            return Reader.of(closed, inputs, self.symbols, depth)
        return Reader(closed, (), inputs, self.symbols, depth)


class Outer:
    """An input of an inner jaxpr that is a value of the outer one, perhaps in the role of a loop."""

    def __init__(self, reader: Reader, var: Any, role: str = "") -> None:
        self.reader, self.var, self.role = reader, var, role

    def label(self) -> str:
        """Label of the outer value; a role is that in the loop at this depth."""
        value = self.reader.read(self.var)
        return f"{self.role} of loop {self.reader.depth} from {value}" if self.role else value


def _value(x: Any) -> str:
    if hasattr(x, "dtype") and jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
        x = jax.random.key_data(x)
    x = np.asarray(x)
    return digest(x.dtype, x.shape, x.tobytes().hex())


def _plain(reader: Reader, eqn: JaxprEqn) -> Callable[[int], str]:
    """An operation without a body, or with one that its name and its parameters' text tell."""
    body = eqn.params.get("jaxpr", eqn.params.get("call_jaxpr"))
    if eqn.primitive.name in CALLS and _same_ends(body, eqn):
        return reader.inside(body, [Outer(reader, v) for v in eqn.invars]).result
    params = [(k, _text(v)) for k, v in sorted(eqn.params.items()) if k not in IGNORED]
    label = digest(eqn.primitive.name, params, [reader.read(v) for v in eqn.invars])
    return lambda i: digest(label, i)


def _same_ends(body: Any, eqn: JaxprEqn) -> bool:
    if not isinstance(body, ClosedJaxpr | Jaxpr):
        return False
    inner = body.jaxpr if isinstance(body, ClosedJaxpr) else body
    return len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(eqn.outvars)


def _text(value: Any) -> str:
    return _ADDRESS.sub("", repr(value))


def _fold_in(reader: Reader, eqn: JaxprEqn) -> Callable[[int], str]:
    key, data = eqn.invars
    if not isinstance(data, Literal) or reader.is_constant(key):
        return _plain(reader, eqn)
    child = reader.symbols.number((reader.read(key), int(data.val)))
    return lambda i: f"key #{child}"


def _scan(reader: Reader, eqn: JaxprEqn) -> Callable[[int], str]:
    p = eqn.params
    consts, carry = p["num_consts"], p["num_carry"]
    inputs = [
        Outer(
            reader, v, "" if i < consts else f"carry {i - consts}" if i < consts + carry else "xs"
        )
        for i, v in enumerate(eqn.invars)
    ]
    body = reader.inside(p["jaxpr"], inputs, 1)
    label = digest("scan", p["length"], p["reverse"], [body.result(i) for i in range(carry)])
    return lambda i: digest(label, i if i < carry else body.result(i))


def _while(reader: Reader, eqn: JaxprEqn) -> Callable[[int], str]:
    p = eqn.params
    first, second = p["cond_nconsts"], p["cond_nconsts"] + p["body_nconsts"]
    outer = [Outer(reader, v) for v in eqn.invars]
    carry = [Outer(reader, v, f"carry {i}") for i, v in enumerate(eqn.invars[second:])]
    test = reader.inside(p["cond_jaxpr"], outer[:first] + carry, 1).result(0)
    body = reader.inside(p["body_jaxpr"], outer[first:second] + carry, 1)
    label = digest("while", test, [body.result(i) for i in range(len(carry))])
    return lambda i: digest(label, i)


def _cond(reader: Reader, eqn: JaxprEqn) -> Callable[[int], str]:
    index = reader.read(eqn.invars[0])
    inputs = [Outer(reader, v) for v in eqn.invars[1:]]
    branches = [reader.inside(b, inputs) for b in eqn.params["branches"]]
    return lambda i: digest("cond", index, [b.result(i) for b in branches])


_READERS = {"random_fold_in": _fold_in, "scan": _scan, "while": _while, "cond": _cond}
