"""DARTS-PT: perturbation-based selection on a supernet trained by any relaxation, or by none.

Paper: Wang et al., ICLR 2021, arXiv:2108.04392. `jaxnas run darts_pt --preset paper --seeds 3`, and
with `--set order=fixed` for alphas held at their start; the paper reports 88.11 and 93.80 test
accuracy on CIFAR-10.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from jaxnas.core import Leg
from jaxnas.oneshot.bilevel import Relaxation
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.darts_pt import perturbation_legs
from jaxnas.oneshot.drnas import drnas
from jaxnas.oneshot.pc_darts import pc_darts
from jaxnas.oneshot.sdarts import sdarts
from jaxnas.recipes.gradient import (
    Bench,
    GradientConfig,
    alphas,
    one_method,
    presets,
    refuse,
    system,
)
from jaxnas.recipes.system import System


@dataclass(frozen=True)
class Config(GradientConfig):
    """Settings, beyond those of `GradientConfig`.

    Attributes:
      base: relaxation that trains the supernet: `darts`, `sdarts`, `drnas` or `pc_darts`.
      partial: one in so many channels goes through the operations.
      tune_epochs: epochs of tuning in all.
      tune_between: of them after each decision.
      tune_learning_rate: of the weights while they are tuned, at the first step.
      tune_final_learning_rate: the same at the last step.
    """

    base: str = "darts"
    partial: int = 1
    tune_epochs: int = 25
    tune_between: int = 5
    tune_learning_rate: float = 0.0025
    tune_final_learning_rate: float = 0.0025


PRESETS = presets(
    Config,
    default={"tune_epochs": 12, "tune_between": 2},
    tiny={"tune_epochs": 6, "tune_between": 1},
)
BASES: dict[str, Callable[..., Relaxation]] = {
    "darts": darts,
    "sdarts": lambda choices, **settings: sdarts(darts(choices, **settings)),
    "drnas": lambda choices, weight_decay, **settings: drnas(
        choices, strength=weight_decay, **settings
    ),
    "pc_darts": pc_darts,
}


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    if config.base not in BASES:
        raise ValueError(f"`base` must be one of {', '.join(BASES)}, but got {config.base!r}.")

    refuse(config, "darts_pt", "robust")

    def legs(bench: Bench) -> list[Leg]:
        relaxation = BASES[config.base](bench.choices, **alphas(config))
        tuning = replace(
            bench.schedule,
            epochs=config.tune_epochs,
            learning_rate=config.tune_learning_rate,
            final_learning_rate=config.tune_final_learning_rate,
        )
        net = bench.net(config.partial)
        decisions = perturbation_legs(
            net,
            bench.train,
            bench.valid,
            relaxation,
            tuning,
            between=config.tune_between,
        )
        trained = one_method(bench, relaxation, config.partial)
        return [*trained, *bench.watch(decisions, net, relaxation)]

    return system(config, legs)
