"""Ctrl-C ends a command at once or, where a library loses it, with the next step of the run."""

import contextlib
import signal
import threading
from collections.abc import Generator

STOPPED = threading.Event()  # by Ctrl-C


@contextlib.contextmanager
def stoppable() -> Generator[None]:
    """Inside, Ctrl-C ends the command at once, or with the next step of the run.

    What is raised while a library calls back, or collects garbage, is printed and lost.
    """

    def stop(*_: object) -> None:
        STOPPED.set()
        raise KeyboardInterrupt

    STOPPED.clear()
    main_thread = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, stop) if main_thread else None
    try:
        yield
    finally:
        if main_thread:
            signal.signal(signal.SIGINT, before or signal.SIG_DFL)
