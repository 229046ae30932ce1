"""SDARTS, by random and by adversarial perturbation.

Paper: Chen & Hsieh, ICML 2020, arXiv:2002.05283. `jaxnas run sdarts --preset paper --seeds 3`.
"""

from dataclasses import dataclass

from jaxnas.core import Leg
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.sdarts import sdarts
from jaxnas.recipes.gradient import Bench, GradientConfig, alphas, one_method, presets, system
from jaxnas.recipes.system import System


@dataclass(frozen=True)
class Config(GradientConfig):
    """Settings, beyond those of `GradientConfig`.

    Attributes:
      form: `random` (RS) or `adversarial` (ADV).
      epsilon: radius of the perturbation at the first and the last step.
    """

    form: str = "random"
    epsilon: tuple[float, ...] = (0.03, 0.3)


PRESETS = presets(Config)


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """

    def legs(bench: Bench) -> list[Leg]:
        method = darts(bench.choices, **alphas(config))
        return one_method(bench, sdarts(method, form=config.form, epsilon=config.epsilon))

    return system(config, legs)
