r"""Random edits of a triplet function's source: what a language model has to beat on CLRS-30.

An edit takes another aggregate over the triplets, adds or drops a term of what a triplet is, puts a
hidden layer before a dense layer or takes it away, changes an activation or the number of features.
Layers that nothing reads any more go, since they would count as parameters. `edits.edited` makes
them.
"""

import ast
from collections.abc import Callable
from random import Random

ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "elu", "sigmoid")
AGGREGATES = ("max", "min", "mean", "sum")
# What can be seen of a triplet (j, i, k), and the axes it lacks.
TERMS = {
    "z": ("(2, 3)", "(1, 3)", "(1, 2)"),
    "edge_fts": ("3", "2", "1"),
    "graph_fts": ("(1, 2, 3)",),
}
FEATURES = "nb_triplet_fts"


def _aggregate(random: Random, function: ast.FunctionDef) -> bool:
    """Another way to bring together what is said over one axis."""
    names = [call.func for call in _aggregates(function) if isinstance(call.func, ast.Attribute)]
    if names:
        name = random.choice(names)
        name.attr = random.choice([other for other in AGGREGATES if other != name.attr])
    return bool(names)


def _add(random: Random, function: ast.FunctionDef) -> bool:
    """One more term, before the triplets are brought together."""
    for at, step in enumerate(function.body):
        read = {n.id for n in ast.walk(step) if isinstance(n, ast.Name)}
        if "triplets" in read and _aggregates(step):
            seen = random.choice(list(TERMS))
            axes = random.choice(TERMS[seen])
            term = f"triplets += jnp.expand_dims(nn.Dense({FEATURES})({seen}), {axes})"
            function.body.insert(at, ast.parse(term).body[0])
            return True
    return False


def _drop(random: Random, function: ast.FunctionDef) -> bool:
    """A term less, with the layers that only it read."""
    terms = [step for step in function.body if isinstance(step, ast.AugAssign)]
    if terms:
        function.body.remove(random.choice(terms))
        while unread := _unread(function):
            function.body.remove(unread)
    return bool(terms)


def _deepen(random: Random, function: ast.FunctionDef) -> bool:
    """A hidden layer, as wide as the layer that reads it."""
    if layers := _dense(function):
        layer = random.choice(layers)
        size, read = ast.unparse(layer.func), ast.unparse(layer.args[0])
        hidden = f"nn.{random.choice(ACTIVATIONS)}({size}({read}))"
        layer.args[0] = ast.parse(hidden, mode="eval").body
    return bool(layers)


def _shorten(random: Random, function: ast.FunctionDef) -> bool:
    """Without a hidden layer, the one that read it reading what it read."""
    deep = [(layer, inner) for layer in _dense(function) if (inner := _hidden(layer.args[0]))]
    if deep:
        layer, inner = random.choice(deep)
        layer.args[0] = inner.args[0]
    return bool(deep)


def _activate(random: Random, function: ast.FunctionDef) -> bool:
    names = [
        n for n in ast.walk(function) if isinstance(n, ast.Attribute) and n.attr in ACTIVATIONS
    ]
    if names:
        name = random.choice(names)
        name.attr = random.choice([other for other in ACTIVATIONS if other != name.attr])
    return bool(names)


def _resize(random: Random, function: ast.FunctionDef) -> bool:
    """Twice or half the features of a triplet, in all layers at once."""
    size = random.choice((f"2 * {FEATURES}", f"max(1, {FEATURES} // 2)"))
    used = any(isinstance(n, ast.Name) and n.id == FEATURES for n in ast.walk(function))
    if used:
        function.body.insert(0, ast.parse(f"{FEATURES} = {size}").body[0])
    return used


OPERATORS: tuple[Callable[[Random, ast.FunctionDef], bool], ...] = (
    _aggregate,
    _add,
    _drop,
    _deepen,
    _shorten,
    _activate,
    _resize,
)


def _aggregates(node: ast.AST) -> list[ast.Call]:
    """Calls such as `jnp.max(triplets, axis=1)`."""
    return [
        call
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr in AGGREGATES
        and ast.unparse(call.func.value) == "jnp"
    ]


def _dense(node: ast.AST) -> list[ast.Call]:
    """Calls of dense layers, such as `nn.Dense(8)(z)`."""
    return [
        call
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Call)
        and ast.unparse(call.func.func) == "nn.Dense"
        and len(call.args) == 1
    ]


def _hidden(value: ast.expr) -> ast.Call | None:
    """The dense layer in a value such as `nn.relu(nn.Dense(8)(z))`."""
    if not isinstance(value, ast.Call) or len(value.args) != 1:
        return None
    named = isinstance(value.func, ast.Attribute) and value.func.attr in ACTIVATIONS
    inner = [layer for layer in _dense(value) if layer is value.args[0]]
    return inner[0] if named and inner else None


def _unread(function: ast.FunctionDef) -> ast.stmt | None:
    """An assignment to a name that nothing reads."""
    read = {
        n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)
    }
    for step in function.body:
        if isinstance(step, ast.Assign) and len(step.targets) == 1:
            target = step.targets[0]
            if isinstance(target, ast.Name) and target.id not in read:
                return step
    return None
