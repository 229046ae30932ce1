r"""Random edits of a network's source: what a language model has to beat.

An edit inserts, deletes or replaces a layer, widens or narrows one, changes an activation, or the
kernel and stride of a convolution. Edits know whether an activation has spatial axes at a place, and
leave the last layer alone, so most results run; all of them parse. Names, comments and layout of
the source are not kept.

Example:
    >>> from jaxnas.programs.edits import edited
    >>> source = '''
    ... class Model(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         x = nn.relu(nn.Dense(100)(x))
    ...         return nn.Dense(10)(x)
    ... '''
    >>> print(edited(source, seed=10), end="")
    class Model(nn.Module):
    <BLANKLINE>
        @nn.compact
        def __call__(self, x):
            x = nn.relu(nn.Dense(50)(x))
            return nn.Dense(10)(x)
"""

import ast
from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from jaxnas.programs import triplet_edits
from jaxnas.programs.triplets import NAME

ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "elu", "leaky_relu", "sigmoid")
LAYERS = {"Dense", "Conv", "ConvTranspose", "GRUCell"}
WIDTHS = (8, 16, 25, 32, 50, 64, 100)
FACTORS = (0.25, 0.5, 0.75, 1.5, 2.0)
KERNELS, STRIDES = (1, 3, 5, 7), (1, 2, 3)


class Network(NamedTuple):
    """What can be edited of a network.

    Attributes:
      body: statements of `__call__`, edited in place.
      argument: name of its input.
      head: index of the statement with the last layer.
      axes: number of spatial axes of its convolutions.
    """

    body: list[ast.stmt]
    argument: str
    head: int
    axes: int


def edited(source: str, seed: int, *, most: int = 1) -> str:
    """One to `most` random edits of a source, one after another.

    Args:
      source: defines a class with a method `__call__`, written by `nn.compact`, or a triplet
        function, for which there are the edits of `triplet_edits`.
      seed: equal seeds give equal edits.
      most: how many at most.

    Returns:
      The new source; the old one where there is nothing that can be edited.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return source
    random, changed = Random(seed), False
    for _ in range(random.randint(1, most)):
        edits = _edits(tree)
        changed |= any(edit(random) for edit in random.sample(edits, len(edits)))
    return ast.unparse(ast.fix_missing_locations(tree)) + "\n" if changed else source


def _edits(tree: ast.Module) -> list[Callable[[Random], bool]]:
    """What can be done to a source; each edit says whether it found something to do."""
    if network := _network(tree):
        return [lambda random, edit=edit: edit(random, network) for edit in OPERATORS]
    functions = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name == NAME]
    return [
        lambda random, edit=edit: edit(random, functions[-1])
        for edit in triplet_edits.OPERATORS
        if functions
    ]


def _network(tree: ast.Module) -> Network | None:
    """The last `__call__` of the source."""
    calls = [n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == "__call__"]
    if not calls or len(calls[-1].args.args) < 2:
        return None
    body = calls[-1].body
    layers = [i for i, statement in enumerate(body) if _names(statement) & LAYERS]
    kernels = [_argument(c, "kernel_size", 1) for c in _calls(body, {"Conv"})]
    sizes = [len(k.elts) if isinstance(k, ast.Tuple) else 1 for k in kernels if k]
    head = layers[-1] if layers else len(body) - 1
    return Network(body, calls[-1].args.args[1].arg, head, max(sizes, default=1))


def _insert(random: Random, network: Network) -> bool:
    at = random.randint(0, network.head)
    network.body.insert(at, _layer(random, network, at))
    return True


def _delete(random: Random, network: Network) -> bool:
    if places := _steps(network):
        del network.body[random.choice(places)]
    return bool(places)


def _replace(random: Random, network: Network) -> bool:
    if places := _steps(network):
        at = random.choice(places)
        network.body[at] = _layer(random, network, at)
    return bool(places)


def _resize(random: Random, network: Network) -> bool:
    """Another width, of one layer or of all that have it: residual connections need that."""
    calls = _calls(network.body[: network.head], LAYERS)
    features = [_argument(call, "features", 0) for call in calls]
    widths = {
        w: w.value for w in features if isinstance(w, ast.Constant) and isinstance(w.value, int)
    }
    if not widths:
        return False
    chosen, old = random.choice(list(widths.items()))
    together = random.random() < 0.5
    news = {max(1, round(old * factor)) for factor in FACTORS} - {old}
    new = random.choice(sorted(news))
    for node, width in widths.items():
        if node is chosen or (together and width == old):
            node.value = new
    return True


def _activate(random: Random, network: Network) -> bool:
    nodes = [
        node
        for node in _walk(network.body)
        if isinstance(node, ast.Attribute) and node.attr in ACTIVATIONS
    ]
    if nodes:
        node = random.choice(nodes)
        node.attr = random.choice([name for name in ACTIVATIONS if name != node.attr])
    return bool(nodes)


def _reshape(random: Random, network: Network) -> bool:
    """Another kernel or stride of a convolution."""
    calls = _calls(network.body[: network.head], {"Conv"})
    if not calls:
        return False
    call = random.choice(calls)
    name, place, sizes = random.choice([("kernel_size", 1, KERNELS), ("strides", 2, STRIDES)])
    old = _argument(call, name, place)
    was = ast.unparse(old) if old else ""
    news = [t for size in sizes if (t := _tuple(size, network.axes)) != was]
    value = ast.parse(random.choice(news), mode="eval").body
    if old is not None and len(call.args) > place:
        call.args[place] = value
    else:
        call.keywords = [k for k in call.keywords if k.arg != name] + [ast.keyword(name, value)]
    return True


OPERATORS: tuple[Callable[[Random, Network], bool], ...] = (
    _insert,
    _delete,
    _replace,
    _resize,
    _activate,
    _reshape,
)


def _steps(network: Network) -> list[int]:
    """Statements that can go: `x = layer(x)`, none that changes which axes there are."""
    return [
        i
        for i, step in enumerate(network.body[: network.head])
        if isinstance(step, ast.Assign) and _target(step) in _used(step) and not _moved(step)
    ]


def _layer(random: Random, network: Network, at: int) -> ast.stmt:
    """A random layer that goes on with what the statement before has made."""
    name, spatial = network.argument, False
    made = {name}
    for step in network.body[:at]:
        if _target(step) and _used(step) & made:
            name = _target(step)
            made.add(name)
        found = _axes(step)
        spatial = spatial if found is None else found
    width = random.choice(WIDTHS)
    kernel = _tuple(random.choice(KERNELS), network.axes)
    stride = _tuple(random.choice(STRIDES[:2]), network.axes)
    window = _tuple(2, network.axes)
    forms = [
        f"nn.{random.choice(ACTIVATIONS)}({name})",
        f"nn.LayerNorm()({name})",
        f"nn.Dense({width})({name})",
        f"{name} + nn.Dense({name}.shape[-1])({name})",
    ]
    if spatial:
        forms += [
            f"nn.Conv({width}, {kernel}, strides={stride})({name})",
            f"{name} + nn.Conv({name}.shape[-1], {kernel})({name})",
            f"nn.{random.choice(('avg', 'max'))}_pool({name}, {window}, strides={window})",
        ]
    return ast.parse(f"{name} = {random.choice(forms)}").body[0]


def _axes(step: ast.stmt) -> bool | None:
    """Whether there are spatial axes after a statement; None for as before."""
    if moved := _moved(step):
        return any(map(_spreads, moved))
    return True if _names(step) & {"Conv", "ConvTranspose", "avg_pool", "max_pool"} else None


def _moved(step: ast.stmt) -> list[ast.AST]:
    """What changes the axes: reshape, mean, expand_dims, x[..., None]."""
    return [
        node
        for node in ast.walk(step)
        if (isinstance(node, ast.Call) and _called(node) in ("reshape", "expand_dims", "mean"))
        or (isinstance(node, ast.Subscript) and "None" in ast.unparse(node.slice))
    ]


def _spreads(node: ast.AST) -> bool:
    """Whether a change of axes leaves spatial ones."""
    if not isinstance(node, ast.Call) or _called(node) == "expand_dims":
        return True
    shapes = [a for a in node.args if isinstance(a, ast.Tuple)]
    return _called(node) == "reshape" and len(shapes[0].elts if shapes else node.args) > 2


def _argument(call: ast.Call, name: str, place: int) -> ast.expr | None:
    named = [k.value for k in call.keywords if k.arg == name]
    return named[0] if named else call.args[place] if len(call.args) > place else None


def _calls(body: list[ast.stmt], names: set[str]) -> list[ast.Call]:
    return [n for n in _walk(body) if isinstance(n, ast.Call) and _called(n) in names]


def _called(call: ast.Call) -> str:
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _walk(body: list[ast.stmt]) -> Iterator[ast.AST]:
    return (node for statement in body for node in ast.walk(statement))


def _names(statement: ast.stmt) -> set[str]:
    return {_called(n) for n in ast.walk(statement) if isinstance(n, ast.Call)}


def _used(step: ast.stmt) -> set[str]:
    """Names that the value of an assignment depends on."""
    value = step.value if isinstance(step, ast.Assign) else step
    return {node.id for node in ast.walk(value) if isinstance(node, ast.Name)}


def _target(step: ast.stmt) -> str:
    one = isinstance(step, ast.Assign) and len(step.targets) == 1
    return getattr(step.targets[0], "id", "") if one else ""


def _tuple(size: int, axes: int) -> str:
    return f"({', '.join([str(size)] * axes)}{',' * (axes == 1)})"
