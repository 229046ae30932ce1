"""What ran, where and when: the part of `config.json` that no recipe has to know."""

import platform
import shlex
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

import jax

from jaxnas import __version__


def environment() -> dict[str, Any]:
    """Names the versions, the devices, the time and the command of this process.

    Returns:
      The entries `jaxnas`, `jax`, `python`, `backend`, `devices`, `created` and `command` of
      `config.json`; the command without the folder of the program.
    """
    return {
        "jaxnas": __version__,
        "jax": jax.__version__,
        "python": platform.python_version(),
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "created": datetime.now().astimezone().isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }
