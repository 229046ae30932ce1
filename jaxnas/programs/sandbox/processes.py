"""Who descends from whom, by /proc."""

import contextlib
import os
import signal
from collections.abc import Iterable
from pathlib import Path


def parents() -> dict[int, int]:
    """The parent of every process there is; empty where there is no /proc."""
    found = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        with contextlib.suppress(OSError, ValueError, IndexError):
            after_name = Path(f"/proc/{name}/stat").read_bytes().rpartition(b")")[2]
            found[int(name)] = int(after_name.split()[1])
    return found


def descendants(pid: int) -> list[int]:
    """All that a process started, directly or not, and that is still there; eldest first."""
    above = parents()
    found = [pid]
    for each in found:
        found += [child for child, parent in above.items() if parent == each]
    return found[1:]


def kill(pids: Iterable[int]) -> None:
    """Ends processes; those that have gone are no error."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def resident(pid: int) -> int:
    """Bytes of memory that a process really holds, shared ones too; 0 if that cannot be told."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0
