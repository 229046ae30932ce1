"""`run.sqlite`: one short connection for every use, and SQLite's errors in plain words."""

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from jaxnas.runs.calls import Call
from jaxnas.runs.rows import TABLES, to_json

SCHEMA = 1
_COLUMNS = {
    "steps": 3,
    "snapshots": 4,
    "candidates": 9,
    "results": 5,
    "curves": 3,
    "meta": 2,
    "calls": 1 + len(Call._fields),
}


class RunLockedError(ValueError):
    """Another process is writing the run."""


class BrokenRunError(ValueError):
    """The folder is no run, or its files cannot be read."""


def start(path: Path) -> None:
    """Makes an empty ledger."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(TABLES)
        with db:
            write(db, "meta", [("schema", to_json(SCHEMA))])


@contextmanager
def connect(path: Path) -> Generator[sqlite3.Connection]:
    """Opens the ledger for one use.

    Raises:
      BrokenRunError: if the file is missing or damaged.
      RunLockedError: if another process keeps it busy for longer than half a minute.
      OSError: if the disk is full or refuses to write.
    """
    # Never `mode=ro`: after a kill in the middle of a transaction a reader must roll it back.
    uri = path.resolve().as_uri() + "?mode=rw"
    try:
        with closing(sqlite3.connect(uri, uri=True, timeout=30)) as db:
            yield db
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        raise _explained(error, path) from error


def write(
    db: sqlite3.Connection, table: str, rows: Iterable[tuple[Any, ...]], *, replace: bool = False
) -> None:
    """Inserts rows; `replace` lets a row take the place of one with the same primary key."""
    verb, marks = "REPLACE" if replace else "INSERT", ",".join("?" * _COLUMNS[table])
    db.executemany(f"{verb} INTO {table} VALUES ({marks})", rows)


def read(path: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    """All rows a query gives."""
    with connect(path) as db:
        return db.execute(query, values).fetchall()


def check(path: Path) -> None:
    """Looks for damage.

    Raises:
      BrokenRunError: if there is any, or if the ledger was written by another version.
    """
    ((verdict,),) = read(path, "PRAGMA quick_check(1)")
    if verdict != "ok":
        raise BrokenRunError(f"{path} is damaged ({verdict}); restore it from a copy.")
    found = dict(read(path, "SELECT name, value FROM meta")).get("schema")
    if found != to_json(SCHEMA):
        raise BrokenRunError(
            f"{path} has schema {found}, but this version reads {SCHEMA}; open it with the version "
            f"of jaxnas that its config.json names."
        )


def _explained(error: sqlite3.DatabaseError, path: Path) -> Exception:
    name = getattr(error, "sqlite_errorname", "")
    if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return RunLockedError(f"{path} stays busy ({error}); wait for its writer or stop it.")
    if name.startswith(("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_READONLY")):
        return OSError(
            f"{path} cannot be written ({error}); check space and permissions, then resume: whole "
            f"chunks recorded so far are kept."
        )
    return BrokenRunError(f"{path} is damaged or missing ({error}); restore it from a copy.")
