"""PC-DARTS.

Paper: Xu et al., ICLR 2020, arXiv:1907.05737. `jaxnas run pc_darts --preset paper --seeds 3`;
reported on NAS-Bench-201 by others: 93.41 / 67.48 / 41.31 test accuracy.
"""

from dataclasses import dataclass

from jaxnas.oneshot.pc_darts import pc_darts
from jaxnas.recipes.gradient import GradientConfig, alphas, one_method, presets, system
from jaxnas.recipes.system import System


@dataclass(frozen=True)
class Config(GradientConfig):
    """Settings, beyond those of `GradientConfig`.

    Attributes:
      partial: one in so many channels goes through the operations.
    """

    partial: int = 4


PRESETS = presets(
    Config,
    default={"warm_epochs": 3},
    tiny={"warm_epochs": 1},
    paper={
        "epochs": 50,
        "warm_epochs": 15,
        "batch": 256,
        "learning_rate": 0.1,
        "final_learning_rate": 0.0,
        "alpha_learning_rate": 6e-4,
    },
)


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    return system(
        config,
        lambda bench: one_method(bench, pc_darts(bench.choices, **alphas(config)), config.partial),
    )
