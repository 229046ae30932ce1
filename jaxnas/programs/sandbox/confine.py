"""What a process gives up before it runs code that nobody has read.

Resource limits hold everywhere; the rest is Linux's: no new privileges, no capabilities, death with
the parent, Landlock for files and TCP, and a filter of system calls (`seccomp`).
"""

import ctypes
import math
import os
import resource
import signal
import sys
from collections.abc import Iterable

from jaxnas.programs.sandbox import seccomp

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_CHILD_SUBREAPER = 1, 38, 36
CAPABILITY_VERSION_3 = 0x20080522
FILES, PROCESSES = 256, 4096


def confine(
    seconds: float, memory: int, *, readable: Iterable[str] = (), landlock: bool, filtered: bool
) -> None:
    """Gives up all that a candidate has no use for; there is no way back.

    Args:
      seconds: of processor time, on two cores.
      memory: bytes of private memory.
      readable: files and folders, with all below them, that Landlock leaves readable.
      landlock: closes all other files, and TCP.
      filtered: refuses new processes, sockets, signals and writing (`seccomp`).

    Raises:
      OSError: if the kernel refuses what was asked for.
    """
    _limit(seconds, memory)
    if sys.platform == "linux":
        prctl(PR_SET_NO_NEW_PRIVS, 1)
        _drop_capabilities()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if landlock:
        _landlock(readable)
    if filtered:
        seccomp.install()


def prctl(option: int, value: int) -> None:
    """Sets an attribute of this process.

    Raises:
      OSError: if the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0):
        raise OSError(ctypes.get_errno(), f"prctl {option}")


def _limit(seconds: float, memory: int) -> None:
    """RLIMIT_DATA, not AS: XLA reserves addresses that it never uses."""
    wanted = {
        resource.RLIMIT_CPU: 2 * math.ceil(seconds) + 1,
        resource.RLIMIT_DATA: memory,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: FILES,
        resource.RLIMIT_NPROC: PROCESSES,
    }
    for which, most in wanted.items():
        hard = resource.getrlimit(which)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (most, most))


def _drop_capabilities() -> None:
    """Root without capabilities may neither trace its parent nor raise its limits."""
    libc = ctypes.CDLL(None, use_errno=True)
    header, none = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    if libc.capset(header, none):
        raise OSError(ctypes.get_errno(), "capset")


def _landlock(readable: Iterable[str]) -> None:
    from landlockpy import AccessFS, Ruleset, Scope

    folder = AccessFS.READ_FILE | AccessFS.READ_DIR
    with Ruleset(scoped=Scope.SIGNAL | Scope.ABSTRACT_UNIX_SOCKET) as rules:
        for path in filter(os.path.exists, readable):
            # The kernel refuses a rule by which a file could be listed.
            rules.allow_path(path, folder if os.path.isdir(path) else AccessFS.READ_FILE)
        rules.restrict()
