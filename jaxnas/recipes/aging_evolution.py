"""Aging evolution over NAS-Bench-201 cells.

Paper: Real et al., AAAI 2019, arXiv:1802.01548. `jaxnas run aging_evolution --seeds 100`.
"""

from dataclasses import dataclass

from jaxnas.cells.nas_bench_201 import mutate
from jaxnas.evolve.regularized import regularized_evolution
from jaxnas.recipes.blackbox import BlackBoxConfig, system
from jaxnas.recipes.system import System


@dataclass(frozen=True)
class Config(BlackBoxConfig):
    """Settings, beyond those of `BlackBoxConfig`.

    Attributes:
      population: candidates alive at once.
      tournament: how many are drawn to find a parent.
    """

    population: int = 50
    tournament: int = 10


PRESETS = {
    "tiny": Config(evaluations=20, population=10, tournament=3),
    "default": Config(),
    # The paper's constants for 20,000 models of a space far larger than this one.
    "paper": Config(evaluations=2000, population=100, tournament=25),
}


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    return system(
        config,
        lambda problem: regularized_evolution(
            problem.sample,
            mutate,
            population=config.population,
            tournament=config.tournament,
            batch=config.batch,
        ),
    )
