"""The contract every room is built on."""

from jaxnas.core.loop import (
    Leg as Leg,
    compiled as compiled,
    legs_over_seeds as legs_over_seeds,
    over_seeds as over_seeds,
    relay as relay,
    run_chunks as run_chunks,
    run_host as run_host,
    run_scan as run_scan,
    step_key as step_key,
)
from jaxnas.core.types import (
    Asked as Asked,
    Exhausted as Exhausted,
    Incumbent as Incumbent,
    Measured as Measured,
    Problem as Problem,
    Search as Search,
    Searcher as Searcher,
    close as close,
)
