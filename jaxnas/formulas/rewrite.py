"""Shorter forms of the same expression: rules of algebra as a table, and one order for operands.

The rules hold for all values the symbols may take, rounding aside: `log` and `sqrt` take magnitudes,
division adds a small constant to its divisor, so `x / x` is not 1 and stays. Nothing here is needed
for a search to be right (prints find what is missed); it makes results readable and names canonical.
"""

from collections.abc import Mapping

from jaxnas.formulas.tape import Grammar, Tape, Tree, flat, nested

# Patterns in the notation of `parse`; a and b stand for anything.
RULES = (
    ("neg(neg(a))", "a"),
    ("log(exp(a))", "a"),
    ("log(neg(a))", "log(a)"),
    ("sqrt(neg(a))", "sqrt(a)"),
    ("sign(sign(a))", "sign(a)"),
    ("sign(exp(a))", "1"),
    ("sign(sg)", "sg"),
    ("sign(sm1)", "sm1"),
    ("sign(sm1p)", "sm1p"),
    ("sign(g)", "sg"),
    ("sign(g3)", "sg"),
    ("sign(m1)", "sm1"),
    ("sign(neg(a))", "neg(sign(a))"),
    ("mul(1, a)", "a"),
    ("mul(a, 1)", "a"),
    ("div(a, 1)", "a"),  # in float32 1 and 1 + 1e-8 are the same
    ("pow(a, 1)", "a"),
    ("pow(1, a)", "1"),
    ("pow(g, 2)", "g2"),
    ("mul(g, g)", "g2"),
    ("mul(g, g2)", "g3"),
    ("mul(neg(a), b)", "neg(mul(a, b))"),
    ("mul(a, neg(b))", "neg(mul(a, b))"),
    ("add(a, neg(b))", "sub(a, b)"),
    ("add(neg(a), b)", "sub(b, a)"),
    ("sub(a, neg(b))", "add(a, b)"),
    ("neg(sub(a, b))", "sub(b, a)"),
    ("add(a, a)", "mul(2, a)"),
    ("div(neg(a), b)", "neg(div(a, b))"),
    ("clip5(clip5(a))", "clip5(a)"),
    ("clip4(clip4(a))", "clip4(a)"),
    ("clip3(clip3(a))", "clip3(a)"),
    ("clip0(clip0(a))", "clip0(a)"),
)
RANDOM = frozenset(("drop1", "drop3", "drop5", "noise", "ep"))
# Every round makes an expression smaller or moves a minus up, so few are needed.
_ROUNDS = 20


def canonical(grammar: Grammar, tape: Tape) -> Tape:
    """The short form in which equal expressions look equal, as far as the rules reach.

    Rules whose result is not in the grammar are left out; those that would use one random draw for
    two are not applied.
    """
    tree = nested(grammar, tape)
    for _ in range(_ROUNDS):
        shorter = _simplified(grammar, tree)
        if shorter == tree:
            break
        tree = shorter
    return flat(grammar, tree)


def _simplified(grammar: Grammar, tree: Tree) -> Tree:
    operands = [_simplified(grammar, operand) for operand in tree[1:]]
    if operands and grammar.symbols[grammar.token(tree[0])].commutes:
        operands.sort(key=repr)
    tree = (tree[0], *operands)
    for pattern, result in _PARSED:
        bound = _match(pattern, tree)
        if bound is not None:
            new = _built(result, bound)
            if all(name in grammar.index for name in _used(new)):
                return new
    return tree


def _read(text: str) -> Tree:
    name, _, rest = text.partition("(")
    if not rest:
        return (name.strip(),)
    parts, depth, start = [], 0, 0
    for i, letter in enumerate(rest[:-1]):
        depth += (letter == "(") - (letter == ")")
        if letter == "," and depth == 0:
            parts.append(rest[start:i])
            start = i + 1
    return (name.strip(), *map(_read, [part.strip() for part in [*parts, rest[start:-1]]]))


_PARSED = [(_read(pattern), _read(result)) for pattern, result in RULES]


def _match(pattern: Tree, tree: Tree) -> dict[str, Tree] | None:
    """What a and b stand for, or `None`."""
    if pattern in (("a",), ("b",)):
        return {pattern[0]: tree}
    if pattern[0] != tree[0] or len(pattern) != len(tree):
        return None
    bound: dict[str, Tree] = {}
    for one, other in zip(pattern[1:], tree[1:], strict=True):
        found = _match(one, other)
        if found is None or any(
            name in bound and (bound[name] != value or RANDOM & set(_used(value)))
            for name, value in found.items()
        ):
            return None
        bound |= found
    return bound


def _built(result: Tree, bound: Mapping[str, Tree]) -> Tree:
    if result in (("a",), ("b",)):
        return bound[result[0]]
    return (result[0], *(_built(operand, bound) for operand in result[1:]))


def _used(tree: Tree) -> list[str]:
    return [tree[0], *(name for operand in tree[1:] for name in _used(operand))]
