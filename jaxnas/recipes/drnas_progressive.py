"""DrNAS with progressive learning.

Paper: Chen et al., ICLR 2021, arXiv:2006.10355. `jaxnas run drnas_progressive --preset paper --seeds
3`; the paper reports 94.36 / 73.51 / 46.34 test accuracy, without variance.
"""

from dataclasses import dataclass

from jaxnas.core import Leg
from jaxnas.oneshot.drnas_progressive import progressive_stages
from jaxnas.recipes import drnas
from jaxnas.recipes.gradient import Bench, presets, refuse, system
from jaxnas.recipes.system import System


@dataclass(frozen=True)
class Config(drnas.Config):
    """Settings, beyond those of `drnas`; `warm_epochs` come at the start of every stage.

    Attributes:
      partials: in each stage one in so many channels goes through the operations.
      keeps: operations per edge in each stage.
    """

    partials: tuple[int, ...] = (4, 2)
    keeps: tuple[int, ...] = (5, 3)


PRESETS = presets(
    Config,
    default={"warm_epochs": 1},
    tiny={"warm_epochs": 0},
    paper={"warm_epochs": 10},
)


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    refuse(config, "drnas_progressive", "robust", "strengths")
    if list(config.partials) != sorted(config.partials, reverse=True):
        raise ValueError(
            f"`partials` must not grow from stage to stage, since channels are added and never "
            f"taken away, but got {config.partials}."
        )

    def legs(bench: Bench) -> list[Leg]:
        method = drnas.relaxation(config, bench.choices)
        nets = [bench.net(partial) for partial in config.partials]
        stages = progressive_stages(
            nets,
            bench.train,
            bench.valid,
            method,
            bench.schedule,
            keeps=config.keeps,
            warm_epochs=config.warm_epochs,
        )
        pairs = zip(stages, nets, strict=True)
        return [leg for stage, net in pairs for leg in bench.watch(stage, net, method)]

    return system(config, legs)
