"""DrNAS over NAS-Bench-201 cells.

Paper: Chen et al., ICLR 2021, arXiv:2006.10355. `jaxnas run drnas --preset paper --seeds 3`; the
paper reports 94.36 / 73.51 / 46.34 test accuracy (with progressive learning).
"""

from dataclasses import dataclass

from jaxnas.oneshot.drnas import drnas
from jaxnas.recipes.gradient import SPACE, GradientConfig, presets, system
from jaxnas.recipes.system import System


@dataclass(frozen=True)
class Config(GradientConfig):
    """Settings, beyond those of `GradientConfig`.

    Attributes:
      regulariser: `l2` or `kl`.
      strength: the factor of either.
    """

    regulariser: str = "l2"
    strength: float = 1e-3


PRESETS = presets(Config)


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    relaxation = drnas(
        **SPACE,
        regulariser=config.regulariser,
        strength=config.strength,
        learning_rate=config.alpha_learning_rate,
    )
    return system(config, relaxation)
