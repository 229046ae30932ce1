"""DARTS.

Paper: Liu et al., ICLR 2019, arXiv:1806.09055. `jaxnas run darts --preset paper --seeds 3`; the
benchmark's authors report 39.77 validation and 54.30 test accuracy on CIFAR-10, skips everywhere.
"""

from dataclasses import dataclass

from jaxnas.oneshot.darts import darts
from jaxnas.recipes.gradient import GradientConfig, alphas, one_method, presets, system
from jaxnas.recipes.system import System


@dataclass(frozen=True)
class Config(GradientConfig):
    """Settings as in `GradientConfig`; the order of the method is its `order`."""


PRESETS = presets(Config)


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    return system(config, lambda bench: one_method(bench, darts(bench.choices, **alphas(config))))
