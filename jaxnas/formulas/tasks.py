"""The tasks that optimizers are searched for, by name.

To add one, write a file that returns a `Task`, and its search and finals here.
"""

import difflib
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from types import MappingProxyType
from typing import NamedTuple

import jax

from jaxnas.data import graphs
from jaxnas.data.catalog import load
from jaxnas.data.dataset import Dataset, Split
from jaxnas.formulas.apgd import success_rates
from jaxnas.formulas.attack import Target, attack, target
from jaxnas.formulas.convnet import convnet
from jaxnas.formulas.finals import Final
from jaxnas.formulas.finetuning import EPOCHS, finetuning
from jaxnas.formulas.mnistnet import mnistnet
from jaxnas.formulas.node_classification import node_classification
from jaxnas.formulas.robust_net import robust_net
from jaxnas.formulas.training import Task


class Scale(NamedTuple):
    """How large a task is; 0 and the empty name stand for the paper's.

    Attributes:
      steps: of training.
      seeds: runs whose mean counts.
      examples: of the data set that are used.
      dataset: a name in `data.catalog`.
      batch: examples a step.
      blocks: of a pretrained encoder that are trained, the last ones.
    """

    steps: int = 0
    seeds: int = 0
    examples: int = 0
    dataset: str = ""
    batch: int = 0
    blocks: int = 0


class Kind(NamedTuple):
    """A task of the paper.

    Attributes:
      search: what rules are judged by in a search.
      finals: `(scale, transfer) -> {name: Final}` that found rules are tried on.
      baselines: rules that people wrote for this task, beyond those for all tasks.
      beside: what is reached by methods that are no rules of a grammar: their mean final scores.
    """

    search: Callable[[Scale], Final]
    finals: Callable[[Scale, bool], dict[str, Final]]
    baselines: Mapping[str, str] = MappingProxyType({})
    beside: Callable[[Scale], dict[str, float]] | None = None


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


def _final(proxy: Task, task: Task, scale: Scale) -> Final:
    seeded = task._replace(seeds=scale.seeds or task.seeds)
    return Final(seeded if proxy is task else proxy, seeded)


def _data(scale: Scale, name: str) -> Dataset:
    return load(scale.dataset or name)


def _mnistnet(scale: Scale) -> Final:
    task = _digits(scale)(steps=scale.steps or 100)
    return _final(task, task, scale)


def _digits(scale: Scale) -> Callable[..., Task]:
    data = _data(scale, "mnist")
    return partial(mnistnet, examples=scale.examples, batch=scale.batch or 128, dataset=data)


def _mnistnet_finals(scale: Scale, transfer: bool) -> dict[str, Final]:
    """1,000 steps, and the 100 of the search on other networks; rates are chosen on 100."""
    long, short = scale.steps or 1000, min(scale.steps or 100, 100)
    task = _digits(scale)
    base = task(steps=short)
    held_out = _final(base, base, scale)
    finals = {"long": _final(held_out.proxy, task(steps=long), scale), "held_out": held_out}
    if transfer:
        others = {
            "relu": task(steps=short, relu=True),
            "two_layers": task(steps=short, hidden=(20, 20)),
            "forty_units": task(steps=short, hidden=(40,)),
        }
        finals |= {name: _final(other, other, scale) for name, other in others.items()}
    return finals


def _nodes(scale: Scale, name: str, *, final: bool = False) -> Final:
    """Node classification in a graph of `data.graphs`; rates are chosen on all steps."""
    graph, steps = getattr(graphs, name)(), scale.steps or 1000
    proxy = node_classification(graph, steps=steps)
    return _final(proxy, node_classification(graph, steps=steps, final=final), scale)


def _nodes_finals(scale: Scale, transfer: bool, name: str) -> dict[str, Final]:
    del transfer
    return {"held_out": _nodes(scale, name, final=True)}


def _glue(scale: Scale, name: str) -> Final:
    """Fine-tuning on a task of GLUE, whose development set is all there is to be judged by."""
    task = finetuning(
        name,
        steps=scale.steps,
        examples=scale.examples,
        batch=scale.batch or 32,
        blocks=scale.blocks,
    )
    return _final(task, task, scale)


def _glue_finals(scale: Scale, transfer: bool, name: str) -> dict[str, Final]:
    del transfer
    return {"held_out": _glue(scale, name)}


def _convnet(scale: Scale, *, final: bool = False) -> Final:
    """Rates are chosen after one epoch, or a fifth of the steps."""
    task = partial(
        convnet,
        examples=scale.examples,
        batch=min(scale.batch or 100, scale.examples or 100),
        final=final,
        dataset=_data(scale, "cifar10"),
    )
    first = task(epochs=1, steps=-(-scale.steps // 5))
    return _final(first, task(steps=scale.steps), scale)


def _convnet_finals(scale: Scale, transfer: bool) -> dict[str, Final]:
    del transfer  # there is one network
    return {"test": _final(_convnet(scale).proxy, _convnet(scale, final=True).task, scale)}


class _Targets(NamedTuple):
    """A network under attack, on images that a search may see, and on those of the end."""

    valid: Target
    test: Target
    label: str


def _of_data(scale: Scale) -> Scale:
    """What a network depends on."""
    return scale._replace(steps=0, seeds=0, batch=0)


@lru_cache(2)
def _targets(scale: Scale, width: int = 32) -> _Targets:
    data = _data(scale, "cifar10")
    size = scale.examples or len(data.train.y)
    net = robust_net(
        jax.random.key(0), data, width=width, examples=scale.examples, batch=min(size, 128)
    )
    note = f" ({data.note})" if data.note else ""
    label = f"images of {data.name}{note}, a small network of width {width}"
    parts = (target(net, Split(s.x[:size], s.y[:size])) for s in (data.valid, data.test))
    return _Targets(*parts, label)


def _attack(scale: Scale) -> Final:
    on = _targets(_of_data(scale))
    task = attack(
        on.valid,
        steps=scale.steps or 20,
        batch=scale.batch or 400,
        label=f"validation {on.label}",
    )
    return _final(task, task, scale)


def _attack_finals(scale: Scale, transfer: bool) -> dict[str, Final]:
    """100 steps on test images; rates are chosen on validation images."""
    finals = {}
    widths = {"test": 32} | ({"wider": 64} if transfer else {})
    for name, width in widths.items():
        on = _targets(_of_data(scale), width)
        task = partial(attack, steps=scale.steps or 100, batch=scale.batch or 400, bound=0.0)
        proxy, task = task(on.valid), task(on.test, label=f"test {on.label}")
        finals[name] = _final(proxy, task, scale)
    return finals


def _attack_beside(scale: Scale) -> dict[str, float]:
    on, seeds = _targets(_of_data(scale)), scale.seeds or 25
    rates = success_rates(
        on.test,
        jax.random.key(0),
        steps=scale.steps or 100,
        batch=scale.batch or 400,
        seeds=seeds,
        rates_on=on.valid,
    )
    return {name: float(each.mean()) for name, each in rates.items()}


TASKS: dict[str, Kind] = {
    "mnistnet": Kind(_mnistnet, _mnistnet_finals),
    "convnet": Kind(_convnet, _convnet_finals),
    "attack": Kind(_attack, _attack_finals, {"PGD": "sg"}, _attack_beside),
    **{
        name: Kind(partial(_nodes, name=name), partial(_nodes_finals, name=name))
        for name in ("cora", "citeseer", "pubmed")
    },
    **{
        f"glue_{name}": Kind(partial(_glue, name=name), partial(_glue_finals, name=name))
        for name in EPOCHS
    },
}
