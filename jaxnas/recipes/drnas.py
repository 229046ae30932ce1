"""DrNAS.

Paper: Chen et al., ICLR 2021, arXiv:2006.10355. `jaxnas run drnas --preset paper --seeds 3`; the
paper reports 94.36 / 73.51 / 46.34 test accuracy (with progressive learning).
"""

from dataclasses import dataclass

from jaxnas.oneshot.bilevel import Relaxation
from jaxnas.oneshot.drnas import drnas
from jaxnas.oneshot.supernet import Choices
from jaxnas.recipes.gradient import GradientConfig, one_method, presets, system
from jaxnas.recipes.system import System


@dataclass(frozen=True)
class Config(GradientConfig):
    """Settings, beyond those of `GradientConfig`; `alpha_weight_decay` is the regulariser's factor.

    Attributes:
      regulariser: `l2` (decay of eta) or `kl` (divergence from the uniform Dirichlet).
    """

    regulariser: str = "l2"


PRESETS = presets(Config)


def relaxation(config: Config, choices: Choices) -> Relaxation:
    """The method of a configuration."""
    return drnas(
        choices,
        regulariser=config.regulariser,
        strength=config.alpha_weight_decay,
        learning_rate=config.alpha_learning_rate,
    )


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    return system(config, lambda bench: one_method(bench, relaxation(config, bench.choices)))
