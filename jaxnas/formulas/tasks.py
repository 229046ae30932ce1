"""The tasks that optimizers are searched for, by name.

To add one, write a file that returns a `Task`, and its search and finals here.
"""

import difflib
from collections.abc import Callable
from typing import NamedTuple

from jaxnas.data import graphs
from jaxnas.formulas.finals import Final
from jaxnas.formulas.finetuning import EPOCHS, finetuning
from jaxnas.formulas.mnistnet import mnistnet
from jaxnas.formulas.node_classification import node_classification
from jaxnas.formulas.training import Task


class Kind(NamedTuple):
    """A task of the paper; 0 stands for the paper's numbers.

    Attributes:
      search: `(steps, seeds) -> Task` that rules are judged by in a search.
      finals: `(steps, seeds, transfer) -> {name: Final}` that found rules are tried on.
    """

    search: Callable[[int, int], Task]
    finals: Callable[[int, int, bool], dict[str, Final]]


def find(name: str) -> Kind:
    """The task of that name.

    Raises:
      ValueError: if there is none.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"`task` must be one of {', '.join(TASKS)}, but got {name!r}.{hint}")
    return TASKS[name]


def _seeded(task: Task, seeds: int) -> Task:
    return task._replace(seeds=seeds or task.seeds)


def _mnistnet(steps: int, seeds: int) -> Task:
    return _seeded(mnistnet(steps=steps or 100), seeds)


def _mnistnet_finals(steps: int, seeds: int, transfer: bool) -> dict[str, Final]:
    """1,000 steps, and the 100 of the search on other networks; rates are chosen on 100."""
    long, short = steps or 1000, min(steps or 100, 100)
    base = _seeded(mnistnet(steps=short), seeds)
    finals = {
        "long": Final(base, _seeded(mnistnet(steps=long), seeds)),
        "held_out": Final(base, base),
    }
    if transfer:
        others = {
            "relu": mnistnet(steps=short, relu=True),
            "two_layers": mnistnet(steps=short, hidden=(20, 20)),
            "forty_units": mnistnet(steps=short, hidden=(40,)),
        }
        for name, task in others.items():
            finals[name] = Final(_seeded(task, seeds), _seeded(task, seeds))
    return finals


def _nodes(name: str) -> Kind:
    """Node classification in a graph of `data.graphs`; both rates and score are of all steps."""

    def search(steps: int, seeds: int) -> Task:
        return _seeded(node_classification(getattr(graphs, name)(), steps=steps or 1000), seeds)

    def finals(steps: int, seeds: int, transfer: bool) -> dict[str, Final]:
        del transfer
        graph, count = getattr(graphs, name)(), steps or 1000
        proxy = node_classification(graph, steps=count)
        task = node_classification(graph, steps=count, final=True)
        return {"held_out": Final(proxy, _seeded(task, seeds))}

    return Kind(search, finals)


def _glue(name: str) -> Kind:
    """Fine-tuning on a task of GLUE, whose development set is all there is to be judged by."""

    def search(steps: int, seeds: int) -> Task:
        return _seeded(finetuning(name, steps=steps), seeds)

    def finals(steps: int, seeds: int, transfer: bool) -> dict[str, Final]:
        del transfer
        task = finetuning(name, steps=steps)
        return {"held_out": Final(task, _seeded(task, seeds))}

    return Kind(search, finals)


TASKS: dict[str, Kind] = {
    "mnistnet": Kind(_mnistnet, _mnistnet_finals),
    **{name: _nodes(name) for name in ("cora", "citeseer", "pubmed")},
    **{f"glue_{name}": _glue(name) for name in EPOCHS},
}
