r"""Programs that differ from their parent by one edit, which is all that a model is asked for.

Small models rarely write a whole network that runs, but nearly always one line that fits. Where
replies are held to a grammar, it is that of the edits of this very parent; elsewhere the edit comes
as JSON (`llm.structured`).

Example:
    >>> from jaxnas.llm import scripted
    >>> from jaxnas.programs.edit_replies import from_client
    >>> from jaxnas.programs.proposal import Proposal
    >>> parent = '''import flax.linen as nn
    ... class Model(nn.Module):
    ...     @nn.compact
    ...     def __call__(self, x):
    ...         return nn.Dense(10)(x)
    ... '''
    >>> said = '{"edit": "insert after", "line": 4, "layer": "x = nn.relu(nn.Dense(32)(x))"}'
    >>> write = from_client(scripted([said]), (40,))
    >>> (child,) = write([Proposal([], [parent], 0.6, seed=1, wish="Add a layer.")])
    >>> print(child.split("\n")[4].strip())
    x = nn.relu(nn.Dense(32)(x))
"""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxnas.llm import Client, Reply, structured
from jaxnas.programs.asking import replies
from jaxnas.programs.grammars import edit_grammar, edit_schema
from jaxnas.programs.imports import with_imports
from jaxnas.programs.line_edits import apply_edit, places
from jaxnas.programs.page import spoilt
from jaxnas.programs.proposal import Proposal, Proposer

NOTHING = "the parent has no line that can be edited"
IN_WORDS = (
    "Answer with one edit and nothing else: `delete line N`, `insert after line N: x = layer` or "
    "`replace line N: x = layer`, where the layer is one line of Flax that goes on with x."
)
AS_JSON = (
    "Answer with one edit as JSON and nothing else: `edit` is what to do with the line of number "
    "`line`, `layer` the new line, such as `x = nn.relu(nn.Dense(64)(x))`, empty to delete."
)


def from_client(
    client: Client, shape: Sequence[int], *, max_tokens: int = 128, constrained: bool = False
) -> Proposer:
    """Edits by a language model of the first parent of each proposal, which says what for in `wish`.

    Args:
      client: what is asked, one request for each proposal, and one more where JSON does not fit.
      shape: of one example: `(L,)` for a signal, `(H, W, C)` for an image.
      max_tokens: the most tokens of a reply.
      constrained: whether replies are held to a grammar; else they are JSON.

    Returns:
      The proposer. A parent without a line to edit is not shown to the model.

    Raises:
      ModelError: by the proposer, see `asking.replies`.
      BudgetError: likewise, if the budget is spent.
      ValueError: likewise, for a shape of another kind.
    """
    asked, is_spatial = client if constrained else structured(client), len(shape) > 1

    def form(one: Proposal) -> Mapping[str, Any]:
        if constrained:
            return {"grammar": edit_grammar(one.parents[0], shape)}
        return {"schema": edit_schema(one.parents[0], is_spatial=is_spatial)}

    def propose(proposals: Sequence[Proposal]) -> list[str]:
        can = [bool(places(p.parents[0], is_spatial=is_spatial)[1]) for p in proposals]
        wishes = [
            _shown(one, IN_WORDS if constrained else AS_JSON)
            for one, editable in zip(proposals, can, strict=True)
            if editable
        ]
        told = iter(replies(asked, wishes, max_tokens=max_tokens, form=form))
        return [
            _child(one.parents[0], next(told), is_spatial)
            if editable
            else spoilt(one.parents[0], NOTHING)
            for one, editable in zip(proposals, can, strict=True)
        ]

    return propose


def _shown(one: Proposal, how: str) -> Proposal:
    """A proposal that shows its parent with numbered lines, others before it as they are."""
    first, *others = one.parents
    lines = enumerate(first.rstrip("\n").split("\n"), 1)
    numbered = "\n".join(f"{number:2d} {line}" for number, line in lines)
    blocks = [f"```python\n{text.strip()}\n```" for text in (*others[::-1], numbered)]
    words = "\n\n".join(filter(None, [*blocks, one.wish, how]))
    return one._replace(messages=({"role": "user", "content": words},))


def _child(parent: str, reply: Reply, is_spatial: bool) -> str:
    """The parent with the edit of a reply, or the reply `spoilt` where there is none."""
    said = reply.parsed
    edit = f"{said['edit']} line {said['line']}: {said['layer']}" if said else reply.text
    if said and said["edit"] == "delete":
        edit = f"delete line {said['line']}"
    try:
        return with_imports(apply_edit(parent, edit, is_spatial=is_spatial))
    except (ValueError, SyntaxError) as error:
        return spoilt(reply.text, str(error))
