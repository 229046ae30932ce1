"""Training what was found, for long, as the papers do.

`jaxnas train darts DARTS_V2 --data cifar10 --preset paper`: DARTS's evaluation (Liu et al., ICLR
2019, arXiv:1806.09055, section 3.2) and, with `--preset imagenet`, its recipe for ImageNet on
whatever images there are; for NAS-Bench-201 the benchmark's recipe (Dong & Yang, ICLR 2020,
arXiv:2001.00326, table 1). DARTS reports 2.76 +- 0.09 % test error on CIFAR-10 for DARTS_V2. At
full length nothing has been run here yet.

The `paper` presets train on the whole official training set; then only the test split is left to
evaluate on, and nothing is chosen by it.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax

from jaxnas.core import Leg
from jaxnas.data.catalog import load
from jaxnas.data.dataset import Dataset, on_everything
from jaxnas.nn.network import Network
from jaxnas.recipes import spaces
from jaxnas.recipes.settings import changed
from jaxnas.train.long import training
from jaxnas.train.recipe import Recipe

NAME = "train"  # as `recipe` in the run's config.json
CPU_EVERY = 50


@dataclass(frozen=True)
class Config(Recipe):
    """What is trained, beyond how (`Recipe`).

    Attributes:
      space: a name in `spaces.SPACES`.
      genotype: its text.
      data: data set.
      channels: of the first stage.
      layers: cells (`darts`), or cells per stage (`nas_bench_201`).
      stem: of a pair of cells, `cifar` or `imagenet` for large images; empty for the space's own.
      drop_path: rate at which paths are dropped at the end of training; rises from zero.
      whole: whether the held-out validation split is trained on too, so that only test is left.
      every: steps between two records and checkpoints; 0 for an epoch (on CPU with images: at
        most 50 steps).
    """

    space: str = ""
    genotype: str = ""
    data: str = "mnist1d"
    channels: int = 16
    layers: int = 5
    stem: str = ""
    drop_path: float = 0.0
    whole: bool = False
    every: int = 0


_CELL = Config(space="nas_bench_201")
_DARTS = Config(
    space="darts",
    channels=16,
    layers=8,
    epochs=50,
    batch=96,
    learning_rate=0.025,
    nesterov=False,
    weight_decay=3e-4,
    clip=5.0,
    auxiliary=0.4,
    drop_path=0.2,
    cutout=16,
)
_IMAGENET = dataclasses.replace(
    _DARTS,
    data="cifar100",
    channels=48,
    layers=14,
    epochs=250,
    batch=128,
    learning_rate=0.1,
    schedule="exponential",
    weight_decay=3e-5,
    smoothing=0.1,
    drop_path=0.0,
    cutout=0,
    jitter=True,
    whole=True,
)
_PAIRS = {
    "tiny": dataclasses.replace(_DARTS, channels=4, layers=3, epochs=2),
    "default": _DARTS,
    "paper": dataclasses.replace(
        _DARTS, data="cifar10", channels=36, layers=20, epochs=600, whole=True
    ),
    "imagenet": _IMAGENET,
}
PRESETS: dict[str, dict[str, Config]] = {
    "nas_bench_201": {
        "tiny": dataclasses.replace(_CELL, channels=4, layers=1, epochs=2, batch=64),
        "default": dataclasses.replace(_CELL, layers=1, epochs=40, batch=128),
        "paper": dataclasses.replace(_CELL, data="cifar10", whole=True),
    },
    "darts": _PAIRS,
    "nasnet": {name: dataclasses.replace(c, space="nasnet") for name, c in _PAIRS.items()},
}


def configure(
    space: str, genotype: str, preset: str, settings: Mapping[str, str], data: str | None = None
) -> Config:
    """A preset with a genotype put in and some settings changed.

    Args:
      space: a name in `spaces.SPACES`.
      genotype: its text.
      preset: a name in `PRESETS[space]`.
      settings: new values by name, as text.
      data: data set, `None` for the preset's.

    Raises:
      ValueError: for anything unknown, a text that is no genotype, or a value that does not fit.
    """
    found = spaces.find(space)
    if preset not in PRESETS[space]:
        known = ", ".join(PRESETS[space])
        raise ValueError(f"Unknown preset {preset!r} of {NAME} {space}; there are {known}.")
    config = changed(PRESETS[space][preset], settings, f"{NAME} {space}")
    text = spaces.function(found.write)(spaces.function(found.read)(genotype))
    return dataclasses.replace(config, space=space, genotype=text, data=data or config.data)


class Prepared(NamedTuple):
    """A training ready to run.

    Attributes:
      legs: an epoch of training, one step of evaluation, and again.
      every: steps between two records and checkpoints.
      mode: how chunks are run, see `core.relay`.
      seeds: how seeds are carried, see `core.over_seeds`.
      genotype: of the space.
      dataset: what is trained on.
      score: the metric that counts, `valid_accuracy` or `test_accuracy`.
      labels: facts for the run's ledger.
    """

    legs: list[Leg]
    every: int
    mode: str
    seeds: str
    genotype: Any
    dataset: Dataset
    score: str
    labels: dict[str, Any]


def build(config: Config) -> Prepared:
    """The training of a configuration.

    Raises:
      ValueError: for settings that cannot be, or data that are missing.
    """
    for name in ("epochs", "channels", "layers"):
        if getattr(config, name) < 1:
            raise ValueError(f"`{name}` must be at least 1, but got {getattr(config, name)}.")
    dataset = load(config.data)
    if config.whole:
        dataset = on_everything(dataset)
    train, evaluate, per_epoch = training(network(config, dataset), dataset, config)
    filled = jax.default_backend() == "cpu" and dataset.train.x.ndim == 4
    score = "valid_accuracy" if len(dataset.valid.y) else "test_accuracy"
    return Prepared(
        [Leg(train, per_epoch), Leg(evaluate, 1)] * config.epochs,
        config.every or (min(per_epoch, CPU_EVERY) if filled else per_epoch),
        "step" if filled else "scan",
        "map" if filled else "vmap",
        spaces.function(spaces.find(config.space).read)(config.genotype),
        dataset,
        score,
        _labels(config, dataset, score),
    )


def network(config: Config, dataset: Dataset) -> Network:
    """The network that a configuration trains.

    Raises:
      ValueError: for settings that its space has no use for.
    """
    space = spaces.find(config.space)
    return spaces.function(space.network)(
        spaces.function(space.read)(config.genotype),
        **shape(config, dataset),
        **_options(
            config,
            space,
            auxiliary=config.auxiliary > 0,
            drop_path=config.drop_path,
            stem=config.stem,
        ),
    )


def shape(config: Config, dataset: Dataset) -> dict[str, int]:
    """The size of a network."""
    classes = len(dataset.classes)
    return {"classes": classes, "channels": config.channels, "layers": config.layers}


def _options(config: Config, space: spaces.Space, **values: Any) -> dict[str, Any]:
    for name, value in values.items():
        if value and name not in space.options:
            raise ValueError(
                f"`{name}` must be left out for {config.space}, whose networks have none, but got "
                f"{getattr(config, name)!r}."
            )
    return {name: value for name, value in values.items() if value}


def _labels(config: Config, dataset: Dataset, score: str) -> dict[str, str]:
    note = f"; {dataset.note}" if dataset.note else ""
    trained = "; trained on the whole official training set" if config.whole else ""
    how = f"({config.epochs} epochs, C={config.channels} L={config.layers}{trained}{note})"
    label = f"{dataset.name} {{}} accuracy, % {how}"
    names = {"valid_accuracy": "validation", "test_accuracy": "test"}
    return {
        "fitness_label": label.format(names[score]),
        "reported_label": label.format("test"),
        "cost_label": "steps",
    }
