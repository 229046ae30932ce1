"""Calls of language models in the ledger: one row for every attempt, and what they add up to.

The table is made by the first call that is written, so a ledger without one is of a run that asked
no model, whichever version made it; one that lacks a column gets it then. Calls are written as they
end and are never taken back: a chunk that is lost and made again has paid for its calls, and they
stand beside those it then makes.
"""

import math
import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

TABLE = """
CREATE TABLE IF NOT EXISTS calls (id INTEGER PRIMARY KEY, step INTEGER, request TEXT,
  attempt INTEGER, model TEXT, outcome TEXT, status INTEGER, seconds REAL, prompt INTEGER,
  completion INTEGER, money REAL, message TEXT, forced INTEGER)
"""


class Call(NamedTuple):
    """One attempt to ask a language model; it holds no text of the dialogue and no key.

    Attributes:
      step: the first of the chunk that was under way, counted from 1.
      request: content address of the request.
      attempt: 1 for the first try at it.
      model: the model as configured.
      outcome: `ok`, or what went wrong.
      status: the HTTP status of a failure, if there was one.
      seconds: how long it took.
      prompt: tokens read; `None` where nobody said.
      completion: tokens written; `None` where nobody said.
      money: in the currency of the prices; `None` where tokens or prices are unknown.
      message: what went wrong, in words.
      forced: tokens written that a grammar or schema put in the place of the model's own; `None`
        where nobody said, or nothing constrained it.
    """

    step: int
    request: str
    attempt: int
    model: str
    outcome: str
    status: int | None
    seconds: float
    prompt: int | None
    completion: int | None
    money: float | None
    message: str = ""
    forced: int | None = None


class Spent(NamedTuple):
    """What calls add up to; what nobody said is counted, not guessed.

    Attributes:
      calls: attempts, failed ones among them.
      answered: those that were.
      prompt: tokens read.
      completion: tokens written.
      bound: those among them of which it is known who chose them.
      forced: those among these that a grammar or schema put in the place of the model's own.
      uncounted: answered calls whose tokens are unknown.
      money: of the calls whose price is known.
      unpriced: answered calls whose price is unknown.
      seconds: of all calls, side by side or not.
    """

    calls: int
    answered: int
    prompt: int
    completion: int
    bound: int
    forced: int
    uncounted: int
    money: float
    unpriced: int
    seconds: float


def prepare(db: sqlite3.Connection) -> None:
    """Makes the table where there is none, and the column that older versions did not have."""
    db.execute(TABLE)
    if "forced" not in [column[1] for column in db.execute("PRAGMA table_info(calls)")]:
        db.execute("ALTER TABLE calls ADD COLUMN forced INTEGER")


def spent(calls: Iterable[Call]) -> Spent:
    """Adds up calls; for those of one step, give only these."""
    rows = list(calls)
    answered = [row for row in rows if row.outcome == "ok"]
    return Spent(
        len(rows),
        len(answered),
        sum(row.prompt or 0 for row in rows),
        sum(row.completion or 0 for row in rows),
        sum(row.completion or 0 for row in rows if row.forced is not None),
        sum(row.forced or 0 for row in rows),
        sum(row.prompt is None or row.completion is None for row in answered),
        math.fsum(row.money or 0.0 for row in rows),
        sum(row.money is None for row in answered),
        math.fsum(row.seconds for row in rows),
    )
