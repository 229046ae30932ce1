"""From a configuration to a finished run folder: build, drive, judge, compare, report."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
from jaxtyping import Array, Key, PyTree

from jaxnas.core import legs_over_seeds
from jaxnas.recipes import load
from jaxnas.recipes.settings import changed, renewed
from jaxnas.recipes.system import System, judged
from jaxnas.runs.drive import Display, drive
from jaxnas.runs.environment import environment
from jaxnas.runs.rows import Result
from jaxnas.runs.store import Run, create, open_run


class Outcome(NamedTuple):
    """A finished run.

    Attributes:
      run: its folder and ledger.
      found: what each seed found, judged; none of a seed of which no candidate could be measured.
      random: random cells judged alike.
      state: the last state, leaves `[S, ...]`.
      evaluations: candidates measured in all.
      seconds: time spent on the search.
      early: why the search ended before its last step; empty if it did not.
    """

    run: Run
    found: list[Result]
    random: list[Result]
    state: PyTree
    evaluations: int
    seconds: float
    early: str = ""

    @property
    def best(self) -> Result:
        """The found cell of highest fitness.

        Raises:
          ValueError: if nothing was found.
        """
        if not self.found:
            raise ValueError(f"{self.run.folder} found nothing: no candidate could be measured.")
        return max(self.found, key=lambda result: result.metrics["fitness"])


def configure(recipe: str, preset: str, settings: Mapping[str, str]) -> Any:
    """A recipe's preset with some settings changed.

    Args:
      recipe: a name in `RECIPES`.
      preset: `tiny`, `default` or `paper`.
      settings: new values by name, as text.

    Raises:
      ValueError: for an unknown recipe, preset or setting, or a value that does not fit.
    """
    module = load(recipe)
    if preset not in module.PRESETS:
        known = ", ".join(module.PRESETS)
        raise ValueError(f"Unknown preset {preset!r} of {recipe}; there are {known}.")
    return changed(module.PRESETS[preset], settings, recipe)


def start(
    recipe: str,
    config: Any,
    folder: Path | str,
    *,
    preset: str = "custom",
    seeds: int = 1,
    key: int = 0,
    progress: Any = None,
) -> Outcome:
    """Runs a system from the beginning into a new folder.

    Args:
      recipe: a name in `RECIPES`.
      config: its `Config`.
      folder: where; must be new or empty.
      preset: what the configuration is called in reports.
      seeds: how many searches side by side, `S`.
      key: the random key, a whole number.
      progress: `(total steps, label) -> Display`, or `None` to run silently.

    Raises:
      ValueError: for settings that cannot be, or a folder that holds something.
    """
    if seeds < 1:
        raise ValueError(f"`seeds` must be at least 1, but got {seeds}.")
    system = load(recipe).build(config)
    facts = {"recipe": recipe, "preset": preset, "seeds": seeds, "key": key}
    run = create(folder, facts | {"config": dataclasses.asdict(config)} | environment())
    return _conduct(run, system, progress)


def resume(
    folder: Path | str, settings: Mapping[str, str] | None = None, *, progress: Any = None
) -> Outcome:
    """Continues a run from its last checkpoint, bit for bit as if it had never stopped.

    Args:
      folder: of the run.
      settings: new values by name, as text, of those that may change (`settings.renewable`), such
        as the limits of what a language model may cost; they are kept in `config.json`.
      progress: see `start`.

    Raises:
      ValueError: if the folder is no run, or was made by settings this version does not know, or
        a setting cannot change.
    """
    run = open_run(folder)
    module = load(run.config["recipe"])
    try:
        stored = run.config["config"].items()
        config = module.Config(**{k: tuple(v) if isinstance(v, list) else v for k, v in stored})
    except TypeError as error:
        raise ValueError(
            f"{run.folder} was made by other settings than this version has ({error}); resume it "
            f"with jaxnas {run.config.get('jaxnas')}."
        ) from None
    config = renewed(config, settings or {}, run.config["recipe"])
    system = module.build(config)
    if settings:
        with run:
            run.reconfigure(run.config | {"config": dataclasses.asdict(config)})
    return _conduct(run, system, progress)


def _conduct(run: Run, system: System, progress: Any) -> Outcome:
    seeds, key = run.config["seeds"], jax.random.key(run.config["key"])
    key_search, key_judge, key_random = jax.random.split(key, 3)
    keys = spread(jax.random.split(key_search, seeds))
    legs = legs_over_seeds(system.legs, system.seeds)
    steps = sum(leg.steps for leg in legs)
    with run:
        run.put_meta(**system.labels)
        if system.attach:
            system.attach(run)
        shown: Display | None = progress(steps, run.config["recipe"]) if progress else None
        driven = drive(
            run,
            legs,
            keys,
            every=system.every,
            mode=system.mode,
            to_text=system.space.to_text,
            failures=system.failures,
            saved=system.saved,
            progress=shown,
        )
        # What the others answer is what they began with.
        fruitful = [seed for seed in range(seeds) if seed not in run.barren()]
        best = driven.search.best(driven.state)
        told = {"found": judged(system, key_judge, "found", best, fruitful)}
        for kind, genotypes in (system.baseline or _nothing)(key_random, seeds).items():
            told[kind] = judged(system, key_judge, kind, genotypes)
        run.put_results([row for one in told.values() for row in one.rows])
        found, random = told["found"].rows, told["random"].rows if "random" in told else []
        curves = [curve for one in told.values() for curve in one.curves]
        for curve in [*curves, *([system.curve(random)] if system.curve else [])]:
            run.put_curve(curve)
        run.put_meta(**(system.notes(driven.state) if system.notes else {}))
    # What a searcher asked for is in the ledger; a gradient search measures only its answers.
    evaluations = run.totals()[0] or len(found) + len(random)
    return Outcome(run, found, random, driven.state, evaluations, driven.seconds, driven.early)


def _nothing(key: Key[Array, ""], seeds: int) -> dict[str, PyTree]:
    del key, seeds
    return {}


def spread(keys: Key[Array, " S"]) -> Key[Array, " S"]:
    """Shards seeds over the devices there are, when they divide evenly."""
    devices = jax.devices()
    if len(devices) == 1 or keys.shape[0] % len(devices):
        return keys
    mesh = jax.make_mesh((len(devices),), ("seed",), axis_types=(jax.sharding.AxisType.Auto,))
    return jax.device_put(keys, jax.NamedSharding(mesh, jax.P("seed")))
