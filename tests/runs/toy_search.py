"""A small search whose state holds every kind of leaf, and a way to die while running it.

Run as a script it drives the search into a folder and kills itself at a chosen moment.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnas.core import Asked, Leg, Measured, Search, legs_over_seeds
from jaxnas.runs import Run, create, ledger, open_run
from jaxnas.runs.checkpoint import Checkpoints
from jaxnas.runs.drive import Driven, drive

SEEDS, STEPS, EVERY = 3, 20, 4


class State(NamedTuple):
    key: Any
    position: Any
    half: Any
    small: Any
    none: Any
    best: Any


def noise(key: Any, n: int) -> Any:
    """Cheap numbers below 65,521 from a key: threefry would compile for seconds."""
    return (jax.random.key_data(key)[0] % 65_521 + jnp.arange(n, dtype=jnp.uint32) * 7_919) % 65_521


def init(key: Any) -> State:
    position = {"x": noise(key, 6).reshape(2, 3) / jnp.float32(7e4)}
    half, small = jnp.ones((2,), jnp.bfloat16), jnp.arange(3, dtype=jnp.int8)
    return State(key, position, half, small, jnp.zeros((0, 2)), jnp.float32(-jnp.inf))


def step(key: Any, state: State) -> tuple[State, dict[str, Any]]:
    x = state.position["x"]
    x = x + noise(key, x.size).reshape(x.shape) / jnp.float32(7e5) - 0.05
    genotypes = (noise(key, 8).reshape(2, 4) % 5).astype(jnp.int8)
    fitness = jnp.where(genotypes[:, 0] == 0, -jnp.inf, genotypes.sum(1) + x.mean())
    best = jnp.maximum(state.best, fitness.max())
    half = state.half * jnp.bfloat16(1.01)
    new = State(jax.random.fold_in(state.key, 1), {"x": x}, half, state.small + 1, state.none, best)
    info = {
        "fitness": best,
        "loss": {"train": jnp.where(genotypes[1, 1] > 1, x[0, 0], jnp.nan), "skips": (x > 0).sum()},
        "weights": jax.nn.softmax(x),
        "asked": Asked(genotypes, jnp.full(2, -1, jnp.int32)),
        "measured": Measured(fitness, jnp.ones(2)),
    }
    return new, info


def text(genotype: np.ndarray) -> str:
    return "".join(map(str, genotype))


SEARCH = Search(init, step, lambda s: s.small)


def go(run: Run, steps: int = STEPS, **more: Any) -> Driven:
    legs = legs_over_seeds([Leg(SEARCH, steps)])
    return drive(run, legs, keys_of(SEEDS), **{"every": EVERY, "to_text": text, **more})


def keys_of(seeds: int) -> Any:
    return jax.random.split(jax.random.key(7), seeds)


def fresh(folder: Path, **more: Any) -> Driven:
    with create(folder, {"recipe": "toy"}) as run:
        return go(run, **more)


def resumed(folder: Path, **more: Any) -> Driven:
    with open_run(folder) as run:
        return go(run, **more)


def bits(tree: Any) -> list[Any]:
    def one(leaf: Any) -> Any:
        leaf = (
            jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
        )
        return str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes()

    return [one(leaf) for leaf in jax.tree.leaves(tree)]


def rows(folder: Path) -> tuple[list[Any], list[Any], list[Any]]:
    run = open_run(folder)
    return run.steps(), run.snapshots(), run.candidates()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_at(moment: str) -> None:
    """Arranges a kill in the third chunk: inside the ledger's transaction, or around saving."""
    save, write, count = Checkpoints.save, ledger.write, {"save": 0, "candidates": 0}

    def deadly_save(self: Checkpoints, at: int, state: Any) -> None:
        count["save"] += 1
        if count["save"] == 3 and moment == "between ledger and checkpoint":
            die()
        save(self, at, state)
        if count["save"] == 3 and moment == "while the checkpoint is being written":
            die()

    def deadly_write(db: Any, table: str, given: Any, **more: Any) -> None:
        write(db, table, given, **more)
        count["candidates"] += table == "candidates" and bool(db.total_changes)
        if count["candidates"] == 3 and moment == "inside the transaction":
            die()

    Checkpoints.save, ledger.write = deadly_save, deadly_write  # ty: ignore[invalid-assignment]


if __name__ == "__main__":
    die_at(sys.argv[2])
    fresh(Path(sys.argv[1]), steps=10**6 if sys.argv[2] == "never" else STEPS)
