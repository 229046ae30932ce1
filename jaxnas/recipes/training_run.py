"""From the configuration of a training to a finished run folder, and on from where one stopped."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnas.core import legs_over_seeds
from jaxnas.recipes import spaces
from jaxnas.recipes.conduct import Outcome, spread
from jaxnas.recipes.search_spaces import connected
from jaxnas.recipes.settings import renewed
from jaxnas.recipes.training import NAME, Config, Prepared, build
from jaxnas.runs.drive import Display, Driven, drive
from jaxnas.runs.environment import environment
from jaxnas.runs.rows import Result
from jaxnas.runs.store import Run, create, open_run


def start(
    config: Config,
    folder: Path | str,
    *,
    preset: str = "custom",
    seeds: int = 1,
    key: int = 0,
    progress: Any = None,
) -> Outcome:
    """Trains a network from the beginning into a new folder.

    Args:
      config: what and how.
      folder: where; must be new or empty.
      preset: what the configuration is called in reports.
      seeds: how many trainings side by side, `S`.
      key: the random key, a whole number.
      progress: `(total steps, label) -> Display`, or `None` to run silently.

    Raises:
      ValueError: for settings that cannot be, or a folder that holds something.
    """
    if seeds < 1:
        raise ValueError(f"`seeds` must be at least 1, but got {seeds}.")
    prepared = build(config)
    facts = {"recipe": NAME, "preset": preset, "seeds": seeds, "key": key}
    run = create(folder, facts | {"config": dataclasses.asdict(config)} | environment())
    return conduct(run, config, prepared, progress)


def resume(
    folder: Path | str, settings: Mapping[str, str] | None = None, *, progress: Any = None
) -> Outcome:
    """Continues a training from its last checkpoint, bit for bit as if it had never stopped.

    Args:
      folder: of the run.
      settings: as for `conduct.resume`; of a training none can change.
      progress: see `start`.

    Raises:
      ValueError: if the folder is no training, or was made by settings this version does not know,
        or a setting cannot change.
    """
    run = open_run(folder)
    config = renewed(stored(run), settings or {}, NAME)
    return conduct(run, config, build(config), progress)


def stored(run: Run) -> Config:
    """The configuration of a training.

    Raises:
      ValueError: if the run is none, or was made by settings this version does not know.
    """
    if run.config.get("recipe") != NAME:
        raise ValueError(
            f"`folder` must hold a training, made by `jaxnas {NAME}`, but {run.folder} is a run of "
            f"{run.config.get('recipe')}."
        )
    try:
        return Config(**run.config["config"])
    except TypeError as error:
        raise ValueError(
            f"{run.folder} was made by other settings than this version has ({error}); resume it "
            f"with jaxnas {run.config.get('jaxnas')}."
        ) from None


def conduct(run: Run, config: Config, prepared: Prepared, progress: Any = None) -> Outcome:
    """Trains from the last checkpoint to the end; a finished training is only read.

    Args:
      run: where to.
      config: what and how.
      prepared: built from it.
      progress: see `start`.
    """
    seeds, key = run.config["seeds"], jax.random.key(run.config["key"])
    steps = sum(leg.steps for leg in prepared.legs)
    with run:
        run.put_meta(**prepared.labels)
        shown: Display | None = progress(steps, f"{NAME} {config.space}") if progress else None
        driven = drive(
            run,
            legs_over_seeds(prepared.legs, prepared.seeds),
            spread(jax.random.split(key, seeds)),
            every=prepared.every,
            mode=prepared.mode,
            averaged=True,
            progress=shown,
        )
        trained = _results(run, config, prepared, driven)
        run.put_results(trained)
    return Outcome(run, trained, [], driven.state, len(trained), driven.seconds)


def _results(run: Run, config: Config, prepared: Prepared, driven: Driven) -> list[Result]:
    """The last evaluation of every seed, as rows of the ledger."""
    drawn = spaces.function(spaces.find(config.space).graph)(prepared.genotype)
    diverged = np.asarray(driven.state.network.diverged)
    rows = []
    for row in run.steps()[-len(diverged) :]:
        told = {name: -np.inf if v is None else v for name, v in row.metrics.items()}
        metrics = {"fitness": told[prepared.score], "test": told["test_accuracy"]}
        metrics["connected"] = int(connected(drawn))
        if diverged[row.seed] >= 0:
            metrics["diverged_at_step"] = int(diverged[row.seed])
        rows.append(Result("found", row.seed, config.genotype, metrics, drawn))
    return rows
