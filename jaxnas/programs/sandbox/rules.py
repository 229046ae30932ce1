"""What a source may say: hygiene for models that mean well, no wall against those that do not.

The walls are the process and its isolation. These rules keep out what cannot be meant by a network
(files, processes, the inside of the interpreter, work done on import), and say how to mend it.
"""

import ast
import re
from collections.abc import Callable, Iterator

from jaxnas.programs.sandbox.verdict import Rejected

BYTES, NODES, TOLD = 32 << 10, 5_000, 5
words = str.split
MODULES = words(
    "jax jax.numpy jax.nn jax.nn.initializers jax.lax jax.random flax flax.linen numpy math "
    "flax.linen.initializers functools itertools typing dataclasses collections.abc __future__"
)
# Doors out of them.
DOORS = {
    "jax": "config core debug distributed dlpack experimental export extend ffi interpreters lib "
    "monitoring profiler stages io_callback pure_callback clear_caches devices local_devices",
    "jax.numpy": "load save savez fromfile",
    "flax": "core serialization training traverse_util errors config",
    "numpy": "load save savez savez_compressed savetxt loadtxt genfromtxt fromfile memmap lib "
    "ctypeslib f2py testing show_config",
    "typing": "get_type_hints",
    "dataclasses": "make_dataclass",
}
CLOSED = {f"{module}.{name}" for module, names in DOORS.items() for name in names.split()}
BUILTINS = words(
    "exec eval compile open __import__ __builtins__ input breakpoint globals locals vars setattr "
    "delattr exit quit help dir"
)
# Of the names between double underscores, what a module of Flax is made of.
SPECIAL = words("__call__ __init__ __post_init__ __name__ __main__ __future__ __doc__")
DUNDER = re.compile(r"__\w+__")
MAIN = "__name__ == '__main__'"
AT_IMPORT = words("partial functools.partial TypeVar typing.TypeVar")


def check(source: str) -> None:
    """Returns if a source keeps the rules.

    Raises:
      Rejected: `parse` if it is too long or no Python, else `forbidden`, with the lines to mend.
    """
    tree = _parse(source)
    nodes = list(ast.walk(tree))
    if len(nodes) > NODES:
        raise Rejected("parse", f"It has {len(nodes)} syntax nodes; write at most {NODES}.")
    if found := set(_broken(tree, nodes)):
        told = [f"line {line}: {text}" for line, text in sorted(found)[:TOLD]]
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


def _broken(tree: ast.Module, nodes: list[ast.AST]) -> Iterator[tuple[int, str]]:
    """Line and message of everything that breaks a rule."""
    for statement in tree.body:
        if text := _work_on_import(statement):
            yield statement.lineno, text
    names = _imported(nodes)
    documentation = {id(text) for node in nodes if (text := _docstring(node))}
    for node in nodes:
        for rule in RULES if id(node) not in documentation else ():
            if text := rule(node, names):
                yield getattr(node, "lineno", 0), text


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
    return isinstance(statement, ast.If) and ast.unparse(statement.test) == MAIN


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
    if not (isinstance(node, ast.While) and isinstance(node.test, ast.Constant)):
        return ""
    ends = any(isinstance(n, ast.Break | ast.Return | ast.Raise) for n in ast.walk(node))
    return "" if ends or not node.test.value else "this loop never ends; use `for` over a range"


RULES: tuple[Callable[[ast.AST, dict[str, str]], str], ...] = (
    _import,
    _attribute,
    _name,
    _getattr,
    _scope,
    _endless,
)
