"""DARTS over NAS-Bench-201 cells.

Paper: Liu et al., ICLR 2019, arXiv:1806.09055. `jaxnas run darts --preset paper --seeds 3`; the
benchmark's authors report 39.77 validation and 54.30 test accuracy on CIFAR-10, skips everywhere.
"""

from dataclasses import dataclass

from jaxnas.oneshot.darts import darts
from jaxnas.recipes.gradient import SPACE, GradientConfig, presets, system
from jaxnas.recipes.system import System


@dataclass(frozen=True)
class Config(GradientConfig):
    """Settings, beyond those of `GradientConfig`.

    Attributes:
      order: `first`, `second` (finite differences) or `exact` (Hessian-vector product).
      alpha_weight_decay: L2 penalty on the architecture.
    """

    order: str = "first"
    alpha_weight_decay: float = 1e-3


PRESETS = presets(Config)


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    relaxation = darts(
        **SPACE,
        learning_rate=config.alpha_learning_rate,
        weight_decay=config.alpha_weight_decay,
    )
    return system(config, relaxation, config.order)
