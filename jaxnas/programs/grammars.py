r"""Grammars of what a language model may answer: a whole class, or one edit of a program.

They are in GBNF (llama.cpp), which the local model and servers take: a weak model then writes valid
networks, but how far that is the grammar's doing must be said (`llm.grammar.validity`).

Example:
    >>> from jaxnas.programs.grammars import edit_grammar
    >>> source = '''class Model(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         x = nn.Dense(32)(x)
    ...         return nn.Dense(10)(x)
    ... '''
    >>> print(edit_grammar(source).splitlines()[0])
    root ::= "delete line 4" | "insert after line " [34] ": " flat | "replace line " [4] ": " flat
"""

from collections.abc import Sequence
from typing import Any

from jaxnas.programs.line_edits import Place, places

MARGIN, NEWLINE = "        ", "\n"  # of a statement in a method
ACTIVATIONS = ("relu", "gelu", "silu", "tanh", "elu", "sigmoid")


def flax_class(shape: Sequence[int], classes: int, *, most: int = 6) -> str:
    r"""Flax modules for inputs of a shape that end in a layer of `classes` outputs.

    Args:
      shape: of one example: `(L,)` for a signal, `(H, W, C)` for an image.
      classes: number of outputs.
      most: layers before the input is flattened, and again after.

    Returns:
      The grammar of classes named `Model`; imports are left to `programs.proposer`.

    Raises:
      ValueError: if the shape is of another kind.
    """
    axes = _axes(shape)
    head = "class Model(nn.Module):\n    @nn.compact\n    def __call__(self, x):\n"
    flatten = _text(f"{MARGIN}x = x.reshape((x.shape[0], -1))\n")
    some = f"{{{axes % 2},{most}}}"  # a signal that gets channels is convolved at least once
    convolved = f"({_row(MARGIN, Rule('spatial'), NEWLINE)}){some} {flatten}"
    if axes == 1:
        convolved = f"({_text(f'{MARGIN}x = x[..., None]{NEWLINE}')} {convolved})?"
    dense = f"({_row(MARGIN, Rule('flat'), NEWLINE)}){{0,{most}}}"
    tail = _text(f"{MARGIN}return nn.Dense({classes})(x)\n")
    return "\n".join(
        [f"root ::= {_text(head)} {convolved} {dense} {tail}", *_layers("x", axes), ""]
    )


def edit_grammar(source: str, shape: Sequence[int] = (1,)) -> str:
    """One edit of a program: a line is deleted, or a layer put after it or in its place.

    Args:
      source: defines a class with `__call__`.
      shape: of one example, as in `flax_class`.

    Returns:
      The grammar of what `programs.line_edits.apply_edit` takes.

    Raises:
      ValueError: if there is no line to put a layer after, or the shape is of another kind.
    """
    axes = _axes(shape)
    name, found = places(source, is_spatial=axes > 1)
    if not found:
        raise ValueError("`source` must define a class with a method `__call__` on its own lines.")
    steps = [place for place in found if place.is_step]
    forms = [_text(f"delete line {place.line}") for place in steps]
    for verb, among in (("insert after", found), ("replace", steps)):
        for kind in ("flat", "spatial"):
            chosen = [p for p in among if p.is_spatial == (kind == "spatial")]
            if chosen:
                forms.append(_row(f"{verb} line ", _numbers(chosen), ": ", Rule(kind)))
    return "\n".join([f"root ::= {' | '.join(forms)}", *_layers(name, axes), ""])


def edit_schema(source: str, *, is_spatial: bool = False) -> dict[str, Any]:
    """One edit of a program as JSON, for servers that take no grammar.

    Args:
      source: as in `edit_grammar`.
      is_spatial: as in `line_edits.places`.

    Returns:
      The schema of objects with `edit`, `line` and `layer`; which edit a line allows, and whether the
      layer runs, is left to who applies it.
    """
    name, found = places(source, is_spatial=is_spatial)
    parts = {
        "edit": {"type": "string", "enum": ["delete", "insert after", "replace"]},
        "line": {"type": "integer", "enum": [place.line for place in found]},
        "layer": {"type": "string", "pattern": f"^({name} = .{{1,100}})?$"},
    }
    return {
        "type": "object",
        "properties": parts,
        "required": list(parts),
        "additionalProperties": False,
    }


def _axes(shape: Sequence[int]) -> int:
    """Number of spatial axes: an image has two and channels, a signal one and no channels yet."""
    if len(shape) not in (1, 3):
        raise ValueError(f"`shape` must be (L,) or (H, W, C), but got {tuple(shape)}.")
    return 1 if len(shape) == 1 else 2


class Rule(str):
    """A part of a grammar that stands as it is, in a row of texts."""


def _layers(x: str, axes: int) -> list[str]:
    """Rules of a statement that goes on with a name: `flat` fits anywhere, `spatial` has axes."""
    act, width = Rule("act"), Rule("width")
    kernel, two = _tuple(Rule("[1357]"), axes), _tuple(Rule('"2"'), axes)
    strides = Rule(f"({_row(', strides=', two)})?")
    conv = ("nn.Conv(", width, ", ", kernel, strides)
    anywhere = [("nn.", act, f"({x})"), (f"nn.LayerNorm()({x})",)]
    flat = [
        *anywhere,
        ("nn.Dense(", width, f")({x})"),
        ("nn.", act, "(nn.Dense(", width, f")({x}))"),
        (f"{x} + nn.Dense({x}.shape[-1])({x})",),
    ]
    pool = Rule('("max" | "avg")')
    spatial = [
        *anywhere,
        (*conv, f")({x})"),
        ("nn.", act, "(", *conv, f")({x}))"),
        (f"{x} + nn.Conv({x}.shape[-1], ", kernel, f")({x})"),
        ("nn.", pool, f"_pool({x}, ", two, ", strides=", two, ', padding="SAME")'),
    ]
    kinds = [("flat", flat), ("spatial", spatial)]
    rules = [
        f"{kind} ::= {_text(f'{x} = ')} ({' | '.join(_row(*form) for form in forms)})"
        for kind, forms in kinds
    ]
    return [
        *rules,
        f"act ::= {' | '.join(map(_text, ACTIVATIONS))}",
        "width ::= [1-9] [0-9]? [0-9]?",
    ]


def _tuple(item: Rule, axes: int) -> Rule:
    parts = [part for _ in range(axes) for part in (", ", item)][1:]
    return Rule(_row("(", *parts, ",)" if axes == 1 else ")"))


def _row(*parts: str) -> str:
    """Texts and rules one after another."""
    return " ".join(part if isinstance(part, Rule) else _text(part) for part in parts)


def _numbers(chosen: Sequence[Place]) -> Rule:
    lines = [str(place.line) for place in chosen]
    if all(len(line) == 1 for line in lines):
        return Rule(f"[{''.join(lines)}]")
    return Rule(f"({' | '.join(map(_text, lines))})")


def _text(words: str) -> str:
    """Words as they stand in a grammar."""
    escaped = words.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
