r"""NAS-Bench-201 cells in a dialogue: how a model is shown them, and read without running a thing.

The prompt is made for small models: six words in, six words out. A reply may hold a class `Cell` with
six named edges, the benchmark's own string, or a list of six operations or of their numbers; of
several the last one counts, since models repeat what they were shown.

Example:
    >>> from jaxnas.programs.cell_replies import line, read
    >>> read("Sure!\n```python\ncell = [skip, none, none, conv3x3, pool3x3, conv1x1]\n```").tolist()
    [1, 0, 0, 3, 4, 2]
    >>> line(read("|skip_connect~0|+|none~0|none~1|+|nor_conv_3x3~0|none~1|none~2|"))
    'cell(a=skip, b=none, c=none, d=conv3x3, e=none, f=none)'
    >>> read("I would rather not.").tolist()
    [-1, -1, -1, -1, -1, -1]
"""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int8

from jaxnas.cells.nas_bench_201 import EDGES, OPS, from_text
from jaxnas.llm import Client, extract
from jaxnas.programs.asking import replies
from jaxnas.programs.proposal import Proposal, Proposer

WORDS = ("none", "skip", "conv1x1", "conv3x3", "pool3x3")
UNREADABLE = np.full(len(EDGES), -1, np.int8)
MAX_TOKENS = 60
LETTERS = "abcdef"  # names of the edges: a small model that counts unnamed ones miscounts

INTRODUCTION = (
    "You design cells of a neural network for images. A cell has the nodes 0 (input), 1, 2 and 3 "
    "(output); the outputs of edges into a node are added up. A cell is one line with the operations "
    f"of its six edges: {', '.join(f'{a} is {j}->{i}' for a, (j, i) in zip(LETTERS, EDGES, strict=True))}. The "
    "operations are: none (no edge), skip (identity), conv1x1 and conv3x3 (ReLU, convolution, batch "
    "normalisation), pool3x3 (average pooling)."
)
MUTATIONS = (
    "Use conv3x3 on one more edge to improve the cell.",
    "Use conv1x1 on one more edge to improve the cell.",
    "Set one edge to none to improve the cell.",
    "Use pool3x3 on one more edge to improve the cell.",
    "Use skip on one more edge to improve the cell.",
    "Set one edge to none and use conv3x3 on another one to improve the cell.",
    "Set one edge to none and use conv1x1 on another one to improve the cell.",
    "Set one edge to none and use pool3x3 on another one to improve the cell.",
    "Set one edge to none and use skip on another one to improve the cell.",
)  # the nine of the paper's appendix A, in our words
CROSSOVER = "Combine these two cells into a third one that is better than both."
CREATION = "Design a new cell that is better than this one."
_ANSWER = "Answer with the line of the new cell, all six edges, which must be another one."
# One exchange shown before the question: without it a small model answers with one word.
_EXAMPLE = (
    "cell(a=conv3x3, b=none, c=skip, d=pool3x3, e=skip, f=none)",
    "Use conv1x1 on one more edge to improve the cell.",
    "cell(a=conv3x3, b=none, c=skip, d=pool3x3, e=skip, f=conv1x1)",
)
_NAMES = {
    "none": ("none", "zeroize", "zero"),
    "skip": ("skip", "skipconnect", "skipconnection", "identity"),
    "conv1x1": ("conv1x1", "norconv1x1", "1x1conv"),
    "conv3x3": ("conv3x3", "norconv3x3", "3x3conv"),
    "pool3x3": ("pool3x3", "avgpool3x3", "avgpool", "averagepool3x3", "pool"),
}
_OPERATIONS = {name: WORDS.index(word) for word, names in _NAMES.items() for name in names}
_STRING = re.compile(r"\|[^|\s]+~0\|\+(?:\|[^|\s]+~\d){2}\|\+(?:\|[^|\s]+~\d){3}\|")
_LIST = re.compile(r"[\[(]([^\[\]()]+)[\])]|^([^\[\]()\n]+)$", re.MULTILINE)
_EDGE = re.compile(r"(\d)\D*(\d)$")

Cell = Int8[np.ndarray, " 6"]


def line(genotype: Cell) -> str:
    """A cell as the line that a model sees."""
    edges = zip(LETTERS, genotype, strict=True)
    return f"cell({', '.join(f'{letter}={WORDS[op]}' for letter, op in edges)})"


def write(instruction: str, parents: Sequence[Cell], temperature: float, seed: int) -> Proposal:
    """The dialogue that asks for one new cell.

    Args:
      instruction: what shall be done, see `MUTATIONS`.
      parents: one cell, or two.
      temperature: of the model.
      seed: likewise.
    """
    lines, (before, told, after) = [line(parent) for parent in parents], _EXAMPLE
    messages: list[Mapping[str, str]] = [
        {"role": "system", "content": INTRODUCTION},
        {"role": "user", "content": _question([before], told)},
        {"role": "assistant", "content": after},
        {"role": "user", "content": _question(lines, instruction)},
    ]
    return Proposal(messages, lines, temperature, seed)


def _question(lines: Sequence[str], instruction: str) -> str:
    return "\n".join([*lines, f"{instruction} {_ANSWER}"])


def read(reply: str) -> Cell:
    """The cell in a reply, or `UNREADABLE`. Never raises."""
    for reader in (_from_class, _from_string, _from_list):
        found = reader(reply)
        if found is not None:
            return np.array(found, np.int8)
    return UNREADABLE.copy()


def grammar() -> str:
    """The lines that `line` writes, in GBNF; no other reply can then be given."""
    words = " | ".join(f'"{word}"' for word in WORDS)
    edges = ' ", '.join(f'{letter}=" op' for letter in LETTERS)
    return f'root ::= "cell({edges} ")"\nop ::= {words}\n'


def from_client(
    client: Client, *, max_tokens: int = MAX_TOKENS, grammar: str | None = None
) -> Proposer:
    """Replies of a language model as they are, all of a batch under way at once.

    Args:
      client: what is asked, one request for each proposal.
      max_tokens: the most tokens of a reply.
      grammar: whose sentences replies are, see `grammar`; None leaves the model free.

    Raises:
      ModelError: by the proposer, see `asking.replies`.
      BudgetError: likewise, if the budget is spent.
    """

    def form(one: Proposal) -> Mapping[str, Any]:
        return {"grammar": grammar}

    def propose(proposals: Sequence[Proposal]) -> list[str]:
        told = replies(client, proposals, max_tokens=max_tokens, form=form)
        return [one.text for one in told]

    return propose


def random_edits() -> Proposer:
    """Another operation on one edge of the first parent: what a language model has to beat."""

    def edited(proposal: Proposal) -> str:
        rng, cell = np.random.default_rng(proposal.seed), read(proposal.parents[0])
        edge = rng.integers(len(EDGES))
        cell[edge] = (cell[edge] + rng.integers(1, len(OPS))) % len(OPS)
        return line(cell)

    return lambda proposals: [edited(proposal) for proposal in proposals]


def _from_class(reply: str) -> list[int] | None:
    """Six edges by name, such as `edge_0_1 = conv3x3`, in a class `Cell`."""
    source = extract(reply, "Cell").source
    if source is None:
        return None
    classes = [node for node in ast.parse(source).body if isinstance(node, ast.ClassDef)]
    edges: dict[tuple[int, int], int | None] = {}
    for step in ast.walk(classes[-1]):
        if isinstance(step, ast.Assign | ast.AnnAssign) and step.value is not None:
            target = step.targets[0] if isinstance(step, ast.Assign) else step.target
            try:
                name, value = _EDGE.search(ast.unparse(target)), ast.unparse(step.value)
            except RecursionError:  # nested beyond all measure
                continue
            if name:
                edges[int(name[1]), int(name[2])] = _operation(value)
    return _whole([edges.get(edge) for edge in EDGES])


def _from_string(reply: str) -> list[int] | None:
    """The benchmark's own notation."""
    for match in reversed(_STRING.findall(reply)):
        try:
            return from_text(match).tolist()
        except ValueError:
            continue
    return None


def _from_list(reply: str) -> list[int] | None:
    """Six operations with commas between them, in brackets or on a line of their own."""
    found = [_whole([_operation(word) for word in words]) for words in _lists(reply)]
    return next((ops for ops in reversed(found) if ops is not None), None)


def _lists(reply: str) -> Iterator[list[str]]:
    for bracketed, plain in _LIST.findall(reply):
        words = (bracketed or plain).strip().strip(",").split(",")
        if len(words) == len(EDGES):
            yield words


def _whole(operations: list[int | None]) -> list[int] | None:
    found = [op for op in operations if op is not None]
    return found if len(found) == len(EDGES) == len(operations) else None


def _operation(word: str) -> int | None:
    """The operation that a word or a number names; what stands before a colon is its edge, before a dot a module."""
    name = re.sub(r"[^a-z0-9]", "", re.split(r"[:=.]", word)[-1].lower())
    if re.fullmatch(r"[0-4]", name):
        return int(name)
    return _OPERATIONS.get(name)
