"""From source to a module: runs it in a namespace of its own and picks the class."""

import ast
from collections.abc import Generator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

from flax import linen as nn

from jaxnas.programs.sandbox.verdict import Rejected, told

FILENAME = "<candidate>"  # under which a source is compiled, so that errors can name its line


@contextmanager
def blamed(failure: str, source: str, doing: str = "") -> Generator[None]:
    """Turns what the candidate raises into a verdict that says on which of its lines.

    Args:
      failure: one of `verdict.FAILURES`.
      source: the candidate.
      doing: what it was called for, put before the message.

    Raises:
      Rejected: for anything raised inside; `memory` if it was a `MemoryError`.
    """
    try:
        yield
    except Rejected:
        raise
    except (Exception, SystemExit) as error:
        kind = "memory" if isinstance(error, MemoryError) else failure
        raise Rejected(kind, doing + told(error, source, FILENAME)) from None


def load(source: str) -> type[nn.Module]:
    """The class that a source is about: `Model`, else its one module that no other class uses.

    Args:
      source: Python that defines it.

    Raises:
      Rejected: `parse` if it is no Python or the class cannot be told, `import` if running it
        raises.
    """
    with blamed("parse", source):
        tree = ast.parse(source, FILENAME)
        code = compile(tree, FILENAME, "exec", dont_inherit=True)
    home = ModuleType("candidate")
    with blamed("import", source):
        exec(code, home.__dict__)
    name = _chosen(tree, home.__dict__)
    if name is None:
        raise Rejected("parse", "no class `Model(nn.Module)` is defined, nor one alone to take.")
    return home.__dict__[name]


def _chosen(tree: ast.Module, names: dict[str, Any]) -> str | None:
    classes = {n.name: n for n in tree.body if isinstance(n, ast.ClassDef)}
    modules = [name for name in classes if _is_module(names.get(name))]
    if "Model" in modules:
        return "Model"
    used = {name: _names(node) - {name} for name, node in classes.items()}
    alone = [name for name in modules if not any(name in others for others in used.values())]
    return alone[0] if len(alone) == 1 else None


def _is_module(value: Any) -> bool:
    return isinstance(value, type) and issubclass(value, nn.Module)


def _names(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
