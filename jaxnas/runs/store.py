"""The folder of one run: `config.json`, written at once, and the ledger `run.sqlite`.

Every method opens the ledger, does one transaction and closes it again, so there is no state to
lose: a process killed at any moment leaves whole transactions behind, and a folder can be copied.
SQLite's rollback journal with full synchronisation means that once `record` returns, the chunk is
on disk, which the order "ledger first, checkpoint second" relies on.
"""

import fcntl
import json
import os
import sqlite3
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from jaxnas.runs import calls, ledger
from jaxnas.runs.ledger import BrokenRunError, RunLockedError
from jaxnas.runs.rows import Candidate, Curve, Result, Snapshot, Step, finite, to_json

EARLY = "ended early"  # the status of a run whose search did, see `drive`


class RunExistsError(ValueError):
    """The folder of a new run holds something already."""


def create(folder: Path | str, config: dict[str, Any]) -> "Run":
    """Makes the folder of a new run; nothing that exists is ever overwritten.

    `config.json` is written last and at once, so a folder that has one is a whole run.

    Args:
      folder: where; missing parents are made.
      config: everything needed to run it again, as plain values.

    Returns:
      The run, to be written inside `with run:`.

    Raises:
      RunExistsError: if the folder exists and is not empty.
    """
    folder, config = Path(folder), json.loads(to_json(config))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise FileExistsError
        (folder / ".lock").touch(exist_ok=False)  # of two processes only one gets past this line
    except FileExistsError:
        raise RunExistsError(
            f"`folder` must be new or empty, but {folder} exists; choose another name, or resume "
            f"the run in it."
        ) from None
    ledger.start(folder / "run.sqlite")
    _write_config(folder, config)
    return Run(folder, config)


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    partial = folder / "config.json.partial"
    partial.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(partial, folder / "config.json")


def open_run(folder: Path | str) -> "Run":
    """Opens an existing run, for reading at once and for writing inside `with run:`.

    Args:
      folder: the folder of the run.

    Returns:
      The run.

    Raises:
      BrokenRunError: if the folder is no run, or `config.json` or `run.sqlite` is damaged.
    """
    path = Path(folder) / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise BrokenRunError(
            f"`folder` must be the folder of a run, but {folder} holds no config.json."
        ) from None
    except ValueError as error:
        raise BrokenRunError(f"{path} is damaged ({error}); restore it from a copy.") from error
    if not isinstance(config, dict):
        raise BrokenRunError(f"{path} must hold a JSON object, but holds {config!r}.")
    ledger.check(path.with_name("run.sqlite"))
    return Run(Path(folder), config)


class Run:
    """One run: reading needs no lock, writing happens inside `with run:`.

    Attributes:
      folder: where it lies.
      config: what `config.json` holds.
    """

    def __init__(self, folder: Path, config: dict[str, Any]) -> None:
        self.folder = folder
        self.config = config
        self._path = folder / "run.sqlite"
        self._lock: IO[str] | None = None

    def __enter__(self) -> "Run":
        """Takes the exclusive lock.

        Raises:
          RunLockedError: if another process, or another `Run` of this one, holds it.
        """
        lock = open(self.folder / ".lock", "a", encoding="utf-8")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RunLockedError(
                f"{self.folder} is being written by another process; wait for it or stop it first."
            ) from None
        self._lock = lock
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.close()
        self._lock = None

    def record(
        self,
        steps: Iterable[Step] = (),
        snapshots: Iterable[Snapshot] = (),
        candidates: Iterable[Candidate] = (),
        meta: Mapping[str, Any] | None = None,
    ) -> None:
        """Writes one chunk of a search in one transaction: all of it or nothing."""
        with self._write() as db:
            ledger.write(db, "steps", ((*row[:2], to_json(row[2])) for row in steps))
            ledger.write(db, "snapshots", ((*row[:3], to_json(row[3])) for row in snapshots))
            rows = ((*row[:4], finite(row[4]), finite(row[5]), *row[6:]) for row in candidates)
            ledger.write(db, "candidates", rows)
            facts = ((name, to_json(value)) for name, value in (meta or {}).items())
            ledger.write(db, "meta", facts, replace=True)

    def reconfigure(self, config: Mapping[str, Any]) -> None:
        """Replaces `config.json`, for settings that may change when a run goes on."""
        self._must_be_locked()
        self.config = json.loads(to_json(dict(config)))
        _write_config(self.folder, self.config)

    def rewind(self, step: int) -> None:
        """Forgets what was recorded after `step`; calls stay, since they are paid for."""
        with self._write() as db:
            for table in ("steps", "snapshots", "candidates"):
                db.execute(f"DELETE FROM {table} WHERE step > ?", [step])

    def put_calls(self, rows: Iterable[calls.Call]) -> None:
        """Adds attempts to ask a language model, at once, whatever becomes of the chunk under way.

        May be called from any thread while the run is open for writing.
        """
        with self._write() as db:
            calls.prepare(db)
            ledger.write(db, "calls", ((None, *row) for row in rows))

    def put_results(self, results: Iterable[Result]) -> None:
        """Adds or replaces judged cells, one for each kind and seed."""
        rows = [(*row[:3], to_json(row.metrics), to_json(row.graph)) for row in results]
        with self._write() as db:
            ledger.write(db, "results", rows, replace=True)

    def put_curve(self, curve: Curve) -> None:
        """Adds or replaces a reference line."""
        with self._write() as db:
            row = (curve.name, to_json(curve.points), curve.note)
            ledger.write(db, "curves", [row], replace=True)

    def put_meta(self, **values: Any) -> None:
        """Adds or replaces facts about the run, by name."""
        self.record(meta=values)

    def last(self) -> int:
        """The last step recorded, 0 before the first."""
        ((step,),) = ledger.read(self._path, "SELECT COALESCE(MAX(step), 0) FROM steps")
        return step

    def steps(self) -> list[Step]:
        """All metrics, by step and seed."""
        rows = ledger.read(self._path, "SELECT * FROM steps ORDER BY step, seed")
        return [Step(*row[:2], json.loads(row[2])) for row in rows]

    def snapshots(self) -> list[Snapshot]:
        """All snapshots, by name, step and seed."""
        rows = ledger.read(self._path, "SELECT * FROM snapshots ORDER BY name, step, seed")
        return [Snapshot(*row[:3], json.loads(row[3])) for row in rows]

    def candidates(self) -> list[Candidate]:
        """All candidates, by step, seed and slot."""
        rows = ledger.read(self._path, "SELECT * FROM candidates ORDER BY step, seed, slot")
        return [Candidate(*row) for row in rows]

    def top(self, n: int) -> list[tuple[Candidate, int]]:
        """The `n` best different genotypes: the best measurement and the number of them."""
        rows = ledger.read(
            self._path,
            # Beside MAX, SQLite takes the other columns from the row that holds the maximum.
            "SELECT *, COUNT(*), MAX(fitness) FROM candidates WHERE fitness IS NOT NULL "
            "GROUP BY genotype ORDER BY fitness DESC, step, seed, slot LIMIT ?",
            n,
        )
        return [(Candidate(*row[:9]), row[9]) for row in rows]

    def named(self, genotype: str, seed: int) -> Candidate | None:
        """The best measurement of a genotype in one seed, if there is any."""
        query = (
            "SELECT * FROM candidates WHERE genotype = ? AND seed = ? AND fitness IS NOT NULL "
            "ORDER BY fitness DESC, step, slot LIMIT 1"
        )
        rows = ledger.read(self._path, query, genotype, seed)
        return Candidate(*rows[0]) if rows else None

    def failed(self, n: int) -> list[Candidate]:
        """The last `n` candidates without a fitness, newest first."""
        order = "ORDER BY step DESC, seed DESC, slot DESC LIMIT ?"
        query = f"SELECT * FROM candidates WHERE fitness IS NULL {order}"
        return [Candidate(*row) for row in ledger.read(self._path, query, n)]

    def barren(self) -> list[int]:
        """Seeds without an answer: no step was made, or no candidate could be measured."""
        if not self.last():
            return list(range(self.config.get("seeds", 0)))
        query = "SELECT seed FROM candidates GROUP BY seed HAVING COUNT(fitness) = 0 ORDER BY seed"
        return [seed for (seed,) in ledger.read(self._path, query)]

    def failures(self) -> dict[str, int]:
        """How many candidates failed, by reason, the most common first."""
        query = "SELECT COALESCE(failure, 'unknown') AS why, COUNT(*) AS n FROM candidates"
        rest = "WHERE fitness IS NULL GROUP BY why ORDER BY n DESC, why"
        return dict(ledger.read(self._path, f"{query} {rest}"))

    def outcomes(self) -> list[tuple[int, str | None, int]]:
        """How many candidates of each step were measured (`None`) or failed, by reason."""
        why = "CASE WHEN fitness IS NULL THEN COALESCE(failure, 'unknown') END AS why"
        query = (
            f"SELECT step, {why}, COUNT(*) FROM candidates GROUP BY step, why ORDER BY step, why"
        )
        return ledger.read(self._path, query)

    def totals(self) -> tuple[int, int]:
        """How many candidates were measured, and how many of them differed."""
        query = "SELECT COUNT(*), COUNT(DISTINCT genotype) FROM candidates"
        ((measured, distinct),) = ledger.read(self._path, query)
        return measured, distinct

    def calls(self) -> list[calls.Call]:
        """All attempts to ask a language model, in the order in which they ended."""
        if not ledger.read(self._path, "SELECT 1 FROM sqlite_master WHERE name = 'calls'"):
            return []
        rows = ledger.read(self._path, "SELECT * FROM calls ORDER BY id")
        return [calls.Call(*row[1:]) for row in rows]

    def results(self) -> list[Result]:
        """All judged cells, by kind and seed."""
        rows = ledger.read(self._path, "SELECT * FROM results ORDER BY kind, seed")
        return [Result(*row[:3], json.loads(row[3]), json.loads(row[4])) for row in rows]

    def curves(self) -> list[Curve]:
        """All reference lines, by name."""
        rows = ledger.read(self._path, "SELECT * FROM curves ORDER BY name")
        return [Curve(row[0], json.loads(row[1]), row[2]) for row in rows]

    def ended(self) -> bool:
        """Whether its search is over, early or not, so that its answers may be handed on."""
        return self.meta().get("status") in ("finished", EARLY)

    def meta(self) -> dict[str, Any]:
        """All facts about the run."""
        rows = ledger.read(self._path, "SELECT name, value FROM meta ORDER BY name")
        return {name: json.loads(value) for name, value in rows}

    @contextmanager
    def _write(self) -> Generator[sqlite3.Connection]:
        self._must_be_locked()
        with ledger.connect(self._path) as db, db:
            yield db

    def _must_be_locked(self) -> None:
        if self._lock is None:
            raise RunLockedError(f"{self.folder} is open for reading; write it inside `with run:`.")
