"""One run is one folder: `config.json`, `run.sqlite`, `state/` and `report.html`.

`store` is the ledger and needs only the standard library; `drive` runs a search into it and needs
JAX, so it is imported from its own file.
"""

from jaxnas.runs.calls import Call as Call, Spent as Spent, spent as spent
from jaxnas.runs.ledger import BrokenRunError as BrokenRunError, RunLockedError as RunLockedError
from jaxnas.runs.rows import (
    Candidate as Candidate,
    Curve as Curve,
    Result as Result,
    Snapshot as Snapshot,
    Step as Step,
)
from jaxnas.runs.store import (
    Run as Run,
    RunExistsError as RunExistsError,
    create as create,
    open_run as open_run,
)
