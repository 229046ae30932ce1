"""Random search over NAS-Bench-201 cells.

Paper: Bergstra & Bengio, JMLR 2012. `jaxnas run random_search --preset paper --seeds 100`.
"""

from dataclasses import dataclass

from jaxnas.evolve.random_search import random_search
from jaxnas.recipes.blackbox import BlackBoxConfig, system
from jaxnas.recipes.system import System


@dataclass(frozen=True)
class Config(BlackBoxConfig):
    """Settings, as in `BlackBoxConfig`."""


PRESETS = {
    "tiny": Config(evaluations=20),
    "default": Config(),
    "paper": Config(evaluations=2000),
}


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    return system(config, lambda problem: random_search(problem.sample, batch=config.batch))
