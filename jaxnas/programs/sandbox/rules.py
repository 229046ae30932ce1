"""What a source may say: hygiene for models that mean well, no wall against those that do not.

The walls are the process and its isolation. These rules keep out what cannot be meant by a network
(files, processes, the inside of the interpreter, work done on import), and say how to mend it.
"""

import ast
import re
from collections.abc import Callable, Iterator

from jaxnas.programs.sandbox.verdict import Rejected

BYTES, NODES, DEPTH, TOLD = 32 << 10, 5_000, 60, 5
MODULES = frozenset(
    "jax jax.numpy jax.nn jax.nn.initializers jax.lax jax.random flax flax.linen "
    "flax.linen.initializers numpy math functools itertools typing dataclasses collections.abc "
    "__future__".split()
)
# Doors out of modules that are allowed, by their full names.
CLOSED = frozenset(
    "jax.config jax.core jax.debug jax.distributed jax.dlpack jax.experimental jax.export "
    "jax.extend jax.ffi jax.interpreters jax.io_callback jax.lib jax.monitoring jax.profiler "
    "jax.pure_callback jax.stages jax.clear_caches jax.devices jax.local_devices jax.device_put "
    "flax.core flax.serialization flax.training flax.traverse_util flax.errors flax.config "
    "numpy.load numpy.save numpy.savez numpy.savez_compressed numpy.savetxt numpy.loadtxt "
    "numpy.genfromtxt numpy.fromfile numpy.memmap numpy.lib numpy.ctypeslib numpy.f2py "
    "numpy.testing numpy.show_config jax.numpy.load jax.numpy.save jax.numpy.savez "
    "jax.numpy.fromfile typing.get_type_hints dataclasses.make_dataclass".split()
)
BUILTINS = frozenset(
    "exec eval compile open __import__ input breakpoint globals locals vars setattr delattr exit "
    "quit help dir memoryview".split()
)
# Of the names between double underscores, what a module of Flax is made of.
DUNDER = re.compile(r"__\w+__")
SPECIAL = frozenset("__call__ __init__ __post_init__ __name__ __main__ __future__ __doc__".split())
AT_IMPORT = frozenset("partial functools.partial TypeVar typing.TypeVar".split())


def check(source: str) -> None:
    """Returns if a source keeps the rules.

    Raises:
      Rejected: `parse` if it is too long or no Python, else `forbidden`, with the lines to mend.
    """
    tree = _parse(source)
    nodes = list(ast.walk(tree))
    if len(nodes) > NODES:
        raise Rejected("parse", f"It has {len(nodes)} syntax nodes; write at most {NODES}.")
    names = _imported(nodes)
    found = [(line, text) for line, text in _broken(tree, nodes, names)]
    if found:
        told = [f"line {line}: {text}" for line, text in sorted(set(found))[:TOLD]]
        raise Rejected("forbidden", "\n".join(told))


def _parse(source: str) -> ast.Module:
    if len(source.encode()) > BYTES:
        raise Rejected("parse", f"It has over {BYTES} bytes; write a shorter one.")
    try:
        return ast.parse(source)
    except SyntaxError as error:
        line = (error.text or "").strip()[:200]
        where = f"line {error.lineno}" + (f": `{line}`" if line else "")
        raise Rejected("parse", f"SyntaxError: {error.msg} ({where})") from None
    except (ValueError, MemoryError, RecursionError) as error:
        raise Rejected("parse", f"It cannot be parsed: {error or 'nested too deep'}.") from None


def _imported(nodes: list[ast.AST]) -> dict[str, str]:
    """What each name bound by an import stands for, in full."""
    names: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                names[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f"{node.module}.{a.name}" for a in node.names}
    return names


def _broken(
    tree: ast.Module, nodes: list[ast.AST], names: dict[str, str]
) -> Iterator[tuple[int, str]]:
    """Line and message of everything that breaks a rule."""
    for statement in tree.body:
        if text := _work_on_import(statement):
            yield statement.lineno, text
    documentation = {id(text) for node in nodes if (text := _docstring(node))}
    for node in nodes:
        line = getattr(node, "lineno", 0)
        for rule in RULES:
            if id(node) not in documentation and (text := rule(node, names)):
                yield line, text


def _docstring(node: ast.AST) -> ast.AST | None:
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return node.value
    return None


def _work_on_import(statement: ast.stmt) -> str:
    """Definitions, imports and constants stand at the top; a main block is never run."""
    definitions = ast.FunctionDef | ast.ClassDef | ast.Import | ast.ImportFrom | ast.Pass
    if isinstance(statement, definitions) or _docstring(statement) or _is_main(statement):
        return ""
    if isinstance(statement, ast.Assign | ast.AnnAssign):
        calls = [n for n in ast.walk(statement) if isinstance(n, ast.Call)]
        if all(ast.unparse(call.func) in AT_IMPORT for call in calls):
            return ""
    return (
        "only imports, classes, functions and constants may stand outside of classes; "
        "remove this statement or move it into the class"
    )


def _is_main(statement: ast.stmt) -> bool:
    main = 'if __name__ == "__main__":'
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == main[3:-1].replace(
        '"', "'"
    )


def _import(node: ast.AST, names: dict[str, str]) -> str:
    wanted: list[str] = []
    if isinstance(node, ast.Import):
        wanted = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        module = "." * node.level + (node.module or "")
        if node.names[0].name == "*":
            return f"`from {module} import *` hides what is used; name it"
        full = [f"{module}.{alias.name}" for alias in node.names]
        wanted = [*(name for name in full if _is_closed(name)), module]
    for name in wanted:
        if name not in MODULES or _is_closed(name):
            return f"`{name}` may not be imported; use jax, jax.numpy, flax.linen, math, functools"
    return ""


def _is_closed(name: str) -> bool:
    parts = name.split(".")
    heads = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
    return bool(heads & CLOSED) or any(part.startswith("_") for part in parts[1:])


def _attribute(node: ast.AST, names: dict[str, str]) -> str:
    if not isinstance(node, ast.Attribute):
        return ""
    root, dotted = node.value, [node.attr]
    while isinstance(root, ast.Attribute):
        dotted.append(root.attr)
        root = root.value
    if isinstance(root, ast.Name) and root.id in names:
        name = ".".join([names[root.id], *reversed(dotted)])
        if _is_closed(name):
            return f"`{name}` may not be used in a network; remove it"
    own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    if node.attr.startswith("_") and not own and node.attr not in SPECIAL:
        return f"`.{node.attr}` is private; use public attributes alone"
    return ""


def _name(node: ast.AST, names: dict[str, str]) -> str:
    """Names between double underscores wherever the grammar has a name, and what runs code."""
    if isinstance(node, ast.Name) and node.id in BUILTINS:
        return f"`{node.id}` may not be used in a network; remove it"
    here = [getattr(node, field, None) for field in ("id", "attr", "arg")]
    here += getattr(node, "kwd_attrs", [])
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        here += DUNDER.findall(node.value)
    for name in here:
        if isinstance(name, str) and DUNDER.fullmatch(name) and name not in SPECIAL:
            return f"`{name}` reaches into the interpreter; remove it"
    return ""


def _getattr(node: ast.AST, names: dict[str, str]) -> str:
    """Attributes by name are known when they are constants; `getattr` itself is passed nowhere."""
    if isinstance(node, ast.Call) and _calls(node, "getattr", "hasattr"):
        constant = len(node.args) > 1 and isinstance(node.args[1], ast.Constant)
        value = node.args[1].value if constant else None
        if not isinstance(value, str) or value.startswith("_"):
            return "`getattr` takes the name of a public attribute, written out"
    return ""


def _calls(node: ast.Call, *functions: str) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id in functions


def _scope(node: ast.AST, names: dict[str, str]) -> str:
    if isinstance(node, ast.Global):
        return "`global` may not be used; pass values as arguments"
    return ""


def _endless(node: ast.AST, names: dict[str, str]) -> str:
    if isinstance(node, ast.While) and isinstance(node.test, ast.Constant) and node.test.value:
        if not any(isinstance(n, ast.Break | ast.Return | ast.Raise) for n in ast.walk(node)):
            return "this loop never ends; use `for` over a range"
    return ""


RULES: tuple[Callable[[ast.AST, dict[str, str]], str], ...] = (
    _import,
    _attribute,
    _name,
    _getattr,
    _scope,
    _endless,
)
