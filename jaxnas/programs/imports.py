"""Imports that programs need and that prompts and replies leave out."""

import ast
import re

USUAL = {
    "jax": "import jax",
    "jnp": "import jax.numpy as jnp",
    "nn": "import flax.linen as nn",
    "lax": "from jax import lax",
    "math": "import math",
    "partial": "from functools import partial",
}
_FUTURES = re.compile(r"(from __future__ .*\n)*")


def with_imports(source: str) -> str:
    """A program with those of the usual imports that it uses and has not."""
    tree = ast.parse(source)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    bound = {
        (alias.asname or alias.name).split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    missing = [f"{line}\n" for name, line in USUAL.items() if name in names - bound]
    first = _FUTURES.match(source)
    end = first.end() if first else 0
    return source[:end] + "".join(missing) + source[end:]


def without_imports(source: str) -> str:
    """A program without the usual imports, and without empty lines around it."""
    lines = [line for line in source.split("\n") if line.rstrip() not in USUAL.values()]
    return "\n".join(lines).strip("\n")
