"""How many candidates are trained: one after another or side by side, step by step or in scans."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax

EXECUTIONS = ("auto", "loop", "scan", "vmap", "vmap_scan")


class Plan(NamedTuple):
    """How a batch of candidates is executed.

    Attributes:
      together: candidates in one program.
      scan: an epoch as one compiled scan, or a Python loop over one compiled step.
    """

    together: int
    scan: bool


CPU_TOGETHER = 8


def choose(execution: str, candidates: int, bytes_each: int = 0, *, images: bool = True) -> Plan:
    """The plan for a batch of candidates.

    `auto` is what measures fastest (benchmarks/fit_many.py): on an accelerator all side by side in
    one scan, as many as its memory holds; on CPU sequences eight at a time, and images one after
    another, since one already fills both the cores and the caches.

    Args:
      execution: `auto`, `loop`, `scan` (one at a time), `vmap`, or `vmap_scan` (side by side).
      candidates: how many, `N`.
      bytes_each: memory one candidate needs while training; 0 where unknown.
      images: whether two axes are convolved over, not one.

    Raises:
      ValueError: for an unknown `execution`.
    """
    if execution not in EXECUTIONS:
        raise ValueError(
            f"`execution` must be one of {', '.join(EXECUTIONS)}, but got {execution!r}."
        )
    most = candidates if execution.startswith("vmap") else 1
    if execution == "auto":
        on_cpu = 1 if images else CPU_TOGETHER
        most = on_cpu if jax.default_backend() == "cpu" else candidates
    if bytes_each and (free := _free_bytes()):
        most = max(1, min(most, int(0.8 * free) // bytes_each))
    groups = -(-candidates // most)
    together = -(-candidates // groups)  # groups of one size, so that few places stay empty
    return Plan(together, execution == "auto" or execution.endswith("scan"))


def bytes_needed(f: Callable[..., Any], *args: Any) -> int:
    """Memory that one call of `f` takes on the device, 0 where no limit is known (CPU)."""
    if not _free_bytes():
        return 0
    sizes: Any = jax.jit(f).lower(*args).compile().memory_analysis()
    return sizes.temp_size_in_bytes + sizes.argument_size_in_bytes + sizes.output_size_in_bytes


def _free_bytes() -> int:
    """Memory the default device still has, 0 where it does not say (CPU)."""
    stats = jax.devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0)
