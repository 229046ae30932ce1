"""SGAS, its operations chosen by magnitude or, as SGAS+PT, by perturbation.

Paper: Li et al., CVPR 2020, arXiv:1912.00195. `jaxnas run sgas --preset paper --seeds 3`, and with
`--set selection=perturbation --set criterion=1` Wang et al., ICLR 2021, arXiv:2108.04392.
"""

from dataclasses import dataclass

from jaxnas.core import Leg
from jaxnas.oneshot.darts import darts
from jaxnas.oneshot.sgas import sgas_legs
from jaxnas.oneshot.sgas_pt import sgas_pt_legs
from jaxnas.recipes.gradient import Bench, GradientConfig, alphas, presets, refuse, system
from jaxnas.recipes.system import System


@dataclass(frozen=True)
class Config(GradientConfig):
    """Settings, beyond those of `GradientConfig`.

    Attributes:
      criterion: 1, or 2 which adds the stability of an edge.
      selection: of an edge's operation, by `magnitude` or by `perturbation`.
      first_decision: epoch, counted from 0, at whose end the first edge is decided.
      decide_every: epochs between decisions.
      batch_growth: examples a batch grows by after each decision.
    """

    criterion: int = 2
    selection: str = "magnitude"
    first_decision: int = 9
    decide_every: int = 5
    batch_growth: int = 8


PRESETS = presets(
    Config,
    default={"first_decision": 2, "decide_every": 1, "batch_growth": 0},
    tiny={"first_decision": 0, "epochs": 6},
    paper={"epochs": 50},
)

SELECTIONS = {"magnitude": sgas_legs, "perturbation": sgas_pt_legs}


def build(config: Config) -> System:
    """The system of a configuration.

    Raises:
      ValueError: for settings that cannot be.
    """
    refuse(config, "sgas", "robust", "strengths", "warm_epochs")
    if config.curvature and config.batch_growth:
        raise ValueError(
            f"`batch_growth` must be 0 where `curvature` is measured, since an epoch then changes "
            f"its length, but got {config.batch_growth}."
        )

    if config.selection not in SELECTIONS:
        known = ", ".join(SELECTIONS)
        raise ValueError(f"`selection` must be one of {known}, but got {config.selection!r}.")

    def legs(bench: Bench) -> list[Leg]:
        net = bench.net(1)
        searched = SELECTIONS[config.selection](
            net,
            bench.train,
            bench.valid,
            bench.schedule,
            growth=config.batch_growth,
            first=config.first_decision,
            every=config.decide_every,
            criterion=config.criterion,
            **alphas(config),
        )
        return bench.watch(searched, net, darts(bench.choices))  # of the same mix

    return system(config, legs)
