"""What recipes whose candidates are programs share: how often training is looked at, and its curve."""

from typing import Any

import numpy as np


def every(steps: int) -> int:
    """Steps between two looks at the validation split: some twenty of a training, 100 at most."""
    return max(1, min(100, steps // 20))


def trace(steps: int, extra: Any) -> dict[str, list[float]]:
    """The loss of a training of so many steps, from the `extra` of `programs.judge`."""
    loss = np.asarray(extra["curve"], float).tolist()
    ends = [float(min(steps, (n + 1) * every(steps))) for n in range(len(loss))]
    return {"x": ends, "mean": loss, "low": loss, "high": loss}
