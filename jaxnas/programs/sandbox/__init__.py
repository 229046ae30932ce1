"""Runs source that nobody has read: a child process traces it, the parent gets an XLA program.

`Pool` is the door. What it gives back are `Verdict`s; the layers from the outside in are `pool`
(processes that are warm), `isolation` and `confine` (what they may do), `child` (the only place
where candidate code runs), `rules` (hygiene) and `program` (what is traced).
"""

from jaxnas.programs.sandbox.pool import Limits as Limits, Pool as Pool
from jaxnas.programs.sandbox.verdict import (
    FAILURES as FAILURES,
    Rejected as Rejected,
    Verdict as Verdict,
)
