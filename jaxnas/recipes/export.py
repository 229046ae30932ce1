"""Hands a trained network on: weights, a module that loads them, and a card that says what it is.

The three files need jaxnas, which builds the network from its genotype, but no run folder.
"""

from collections.abc import Mapping
from pathlib import Path
from string import Template
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import serialization

from jaxnas.nn.network import count_params
from jaxnas.recipes import spaces
from jaxnas.recipes.conduct import Outcome
from jaxnas.recipes.training import Config, Prepared, build, shape
from jaxnas.recipes.training_run import conduct, stored
from jaxnas.runs.rows import Result
from jaxnas.runs.store import Run, open_run
from jaxnas.train.batches import compute_dtype, on_device, take

FILES = ("weights.msgpack", "model.py", "MODEL_CARD.md")
KEPT = ("params", "batch_stats")


def export(folder: Path | str, out: Path | str, *, seed: int | None = None) -> Path:
    """Writes the network of a finished training.

    Args:
      folder: of the run.
      out: folder of the export; made if it is not there, its three files are replaced.
      seed: which of the run's seeds; `None` for the best on validation, or for the first where
        there is nothing but test to choose by.

    Returns:
      `out`.

    Raises:
      ValueError: if the folder holds no finished training, or `seed` is none of its seeds.
    """
    run = open_run(folder)
    config = stored(run)
    if run.meta().get("status") != "finished":
        raise ValueError(f"{run.folder} is not finished; continue it first: jaxnas resume.")
    if seed is not None and not 0 <= seed < run.config["seeds"]:
        raise ValueError(f"`seed` must be in 0 ... {run.config['seeds'] - 1}, but got {seed}.")
    prepared = build(config)
    outcome = conduct(run, config, prepared)
    chosen = _chosen(outcome, prepared, seed)
    variables = jax.tree.map(lambda leaf: leaf[chosen.seed], outcome.state).network.variables
    kept = {name: jax.device_get(variables[name]) for name in KEPT if name in variables}
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "weights.msgpack").write_bytes(serialization.msgpack_serialize(kept))
    (out / "model.py").write_text(_code(config, prepared), encoding="utf-8")
    card = _card(run, config, prepared, outcome, chosen)
    (out / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    return out


def _chosen(outcome: Outcome, prepared: Prepared, seed: int | None) -> Result:
    if seed is None and prepared.score == "valid_accuracy":
        return outcome.best
    return next(row for row in outcome.found if row.seed == (seed or 0))


def _built(config: Config, prepared: Prepared) -> dict[str, Any]:
    """What the network is built with, to answer and not to be trained."""
    head = {"auxiliary": True} if config.auxiliary else {}
    return shape(config, prepared.dataset) | head


def parameters(config: Config, prepared: Prepared) -> int:
    """Number of trainable parameters, without an auxiliary head."""
    build = spaces.function(spaces.find(config.space).network)
    network = build(prepared.genotype, **shape(config, prepared.dataset))
    data = on_device(prepared.dataset, prepared.dataset.test)
    x = take(data, jnp.arange(1))[0]
    return count_params(jax.eval_shape(network.init, jax.random.key(0), x))


def _code(config: Config, prepared: Prepared) -> str:
    space, dataset = spaces.find(config.space), prepared.dataset
    data = on_device(dataset, dataset.test)
    arguments = ", ".join(f"{name}={value}" for name, value in _built(config, prepared).items())
    return _fill(
        MODEL,
        genotype=repr(config.genotype),
        space=config.space,
        data=dataset.name,
        read=" import ".join(space.read.split(":")),
        build=" import ".join(space.module.split(":")),
        arguments=arguments,
        classes=repr(dataset.classes),
        mean=repr(np.asarray(data.mean).tolist()),
        std=repr(np.asarray(data.std).tolist()),
        shape=", ".join(map(str, dataset.test.x.shape[1:])),
        channel="[..., None]" if dataset.test.x.ndim == 2 else "",
    )


def _card(run: Run, config: Config, prepared: Prepared, outcome: Outcome, chosen: Result) -> str:
    dataset, space = prepared.dataset, spaces.find(config.space)
    test = np.array([row.metrics["test"] for row in outcome.found])
    held = prepared.score == "valid_accuracy"
    settings = sorted(vars(config).items())
    skipped = ("space", "genotype", "data", "channels", "layers", "every", "whole")
    return _fill(
        CARD,
        genotype=config.genotype,
        space=config.space,
        paper=space.paper,
        size=", ".join(f"{k} {v}" for k, v in _built(config, prepared).items()),
        params=f"{parameters(config, prepared):,}",
        data=dataset.name,
        note=f" ({dataset.note})" if dataset.note else "",
        source=dataset.source,
        licence=dataset.licence,
        examples=f"{len(dataset.train.y):,}",
        tested=f"{len(dataset.test.y):,}",
        split=SPLIT_HELD if held else SPLIT_WHOLE,
        valid=f"| validation ({len(dataset.valid.y):,}) | {chosen.metrics['fitness']:.2f} |\n"
        if held
        else "",
        test=f"{chosen.metrics['test']:.2f}",
        spread=f"Over {len(test)} seeds test is {test.mean():.2f} ± {test.std(ddof=1):.2f}.\n"
        if len(test) > 1
        else "",
        seed=chosen.seed,
        chosen=CHOSEN_HELD if held else CHOSEN_WHOLE,
        preset=run.config["preset"],
        recipe="\n".join(f"- {k}: {v}" for k, v in settings if k not in skipped),
        versions=", ".join(f"{k} {run.config[k]}" for k in ("jaxnas", "jax", "python")),
        devices=", ".join(map(str, run.config["devices"])),
        dtype=jnp.dtype(compute_dtype(run.config["backend"])).name,
        key=run.config["key"],
        command=run.config["command"],
    )


def _fill(template: str, **values: Any) -> str:
    texts: Mapping[str, str] = {name: str(value) for name, value in values.items()}
    return Template(template).substitute(texts)


MODEL = '''\
"""A network found in the space $space and trained on $data.

`module, variables = load()`; `module.apply(variables, prepare(x), train=False)` then gives logits,
one for each of `CLASSES`.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
from flax import serialization

from $build as build
from $read as read

GENOTYPE = $genotype
CLASSES = $classes
MEAN = jnp.array($mean, jnp.float32)
STD = jnp.array($std, jnp.float32)
WEIGHTS = Path(__file__).with_name("weights.msgpack")


def load(path=WEIGHTS):
    """The Flax module, and its variables: parameters and statistics of batch norms."""
    module = build(read(GENOTYPE), $arguments)
    variables = serialization.msgpack_restore(Path(path).read_bytes())
    return module, jax.tree.map(jnp.asarray, variables)


def prepare(x):
    """What the network reads, from examples as the data set has them: `[B, $shape]`."""
    return (jnp.asarray(x, jnp.float32)$channel - MEAN) / STD
'''

SPLIT_HELD = "the training set without its held-out validation split"
SPLIT_WHOLE = "the whole official training set, nothing held out"
CHOSEN_HELD = "the best of its run on validation unless another was asked for"
CHOSEN_WHOLE = "not chosen by any result: the first of its run unless another was asked for"

CARD = """\
# $space on $data

`$genotype`

| | |
|---|---|
| space | $space ($paper) |
| network | $size |
| parameters | $params (an auxiliary head is not counted) |
| data | $data$note |
| trained on | $examples examples: $split |

## Accuracy, %

| split | accuracy |
|---|---|
$valid| test ($tested) | $test |

${spread}These weights are of seed $seed, $chosen. Evaluated after the last epoch, inputs in $dtype.

## Use

```python
from model import load, prepare

module, variables = load()
logits = module.apply(variables, prepare(x), train=False)
```

`model.py` and `weights.msgpack` belong into one folder; they need jaxnas and nothing else.

## Training

Preset `$preset`, random key $key, with $versions on $devices.

$recipe

```
$command
```

## Data

$source. Licence: $licence.

## Citation

Cite the space: $paper; and jaxnas (CITATION.cff).
"""
