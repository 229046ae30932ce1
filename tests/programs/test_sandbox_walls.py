"""Hostile sources with the rules lifted, so that the walls themselves are tried, level by level."""

import contextlib
import os
import signal
import socket
import sys
import time
from pathlib import Path
from unittest import mock

import pytest

from jaxnas.programs.sandbox import isolation, processes, seccomp
from jaxnas.programs.sandbox.pool import Limits, Pool
from jaxnas.programs.sandbox.program import Task

GOOD = """
import flax.linen as nn
class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(10)(x)
"""
IN_CALL = """
import flax.linen as nn
class Model(nn.Module):
    @nn.compact
    def __call__(self, x):
{}
        return nn.Dense(10)(x)
"""
TASK = Task(shape=(40,), classes=10, batch=8)
LIMITS = Limits(seconds=30.0, memory=1 << 30)
# Levels of `isolation`, and what is left of them where the kernel filters no system calls.
BARE = ["process without filter", "landlock without filter"]
every_wall = pytest.mark.parametrize(
    "wall", [*isolation.LEVELS, *BARE], indirect=True, scope="module"
)


@pytest.fixture(scope="module", params=isolation.LEVELS)
def wall(request):
    return request.param


@pytest.fixture(scope="module")
def pool(wall):
    """One warm pool for all trials of a wall."""
    level, _, without = wall.partition(" ")
    if reason := isolation.survey()[level]:
        pytest.skip(reason)
    if not without and not seccomp.works():
        pytest.skip("this kernel takes no filter of system calls")
    filtered = mock.patch.object(seccomp, "works", return_value=not without)
    os.environ["JAXNAS_TEST_KEY"] = SECRET
    with filtered, Pool(TASK, level, 1, LIMITS) as pool:
        assert pool._check(GOOD).ok
        yield pool
        assert pool._check(GOOD).ok
    del os.environ["JAXNAS_TEST_KEY"]


SECRET = "sk-a-key-nobody-may-see"


def strays(pool):
    """Everything that was started in the pool's folder: what is forked keeps its environment."""
    mark, found = f"HOME={pool._folder.name}".encode(), set()
    for pid in processes.parents():
        with contextlib.suppress(OSError):
            if mark in Path(f"/proc/{pid}/environ").read_bytes():
                found.add(pid)
    return found


@pytest.fixture
def attempt(pool):
    """Has a hostile source checked; nothing may be left of it, and the next one finds all well."""

    def attempt(source, **limits):
        before, begin = strays(pool), time.monotonic()
        verdict = pool._check(source, rules=False, **limits)
        assert time.monotonic() - begin < limits.get("seconds", 30) + 5
        assert strays(pool) == before
        assert pool._check("x = (").failure == "parse"
        assert len(verdict.message) <= 2000
        assert verdict.isolation == pool.isolation
        return verdict

    return attempt


ENDS = {
    "a loop on import": ("while True: pass", {"time"}),
    "a loop in the call": (IN_CALL.format("        while True: pass"), {"time"}),
    "a loop that ignores SIGTERM": (
        "import signal\nfor s in (15, 2, 1, 24): signal.signal(s, signal.SIG_IGN)\nwhile True: pass",
        {"time"},
    ),
    "a trace that explodes": (
        IN_CALL.format("        for _ in range(10**9): x = x * 1.5 + x.sum()"),
        {"time", "memory"},
    ),
    "a program that doubles": (
        IN_CALL.format(
            "        f = lambda x: x + 1\n"
            "        for _ in range(60): f = (lambda g: lambda x: g(g(x)))(f)\n        x = f(x)"
        ),
        {"time", "memory"},
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_what_never_ends_is_killed_at_the_deadline(attempt, name):
    source, failures = ENDS[name]
    assert attempt(source, seconds=0.5).failure in failures


EXITS = {
    "os._exit": "import os; os._exit(0)",
    "os._exit with a status": "import os; os._exit(7)",
    "abort": "import os; os.abort()",
    "a wrong address": "import ctypes; ctypes.string_at(0)",
    "SystemExit": "raise SystemExit(0)",
    "KeyboardInterrupt": "raise KeyboardInterrupt",
    "its own kill": "import os; os.kill(os.getpid(), 9)",
    "no end of recursion": "def f(): f()\nf()",
}


@pytest.mark.parametrize("name", EXITS)
def test_what_ends_its_process_has_crashed(attempt, name):
    assert attempt(EXITS[name]).failure in {"crash", "import", "shape"}


@pytest.mark.parametrize(
    "call",
    [
        "jax.pure_callback(lambda x: x, x, x)",
        "jax.experimental.io_callback(lambda x: x, x, x)",
        "(jax.debug.print('{}', x), x)[1]",
        "jax.ffi.ffi_call('unknown', jax.ShapeDtypeStruct(x.shape, x.dtype))(x)",
    ],
)
def test_programs_that_call_the_host_are_forbidden(attempt, call):
    source = f"import jax, jax.experimental\n{IN_CALL.format(f'        x = {call}')}"
    assert attempt(source).failure == "forbidden"


@pytest.mark.parametrize(
    "source",
    [
        "import numpy; numpy.ones(3 << 30, 'int8')",
        "bytearray(3 << 30)",
        "import jax.numpy as jnp; jnp.ones(3 << 28)",
        "import mmap\nm = mmap.mmap(-1, 3 << 30)\nwhile True: m.write(b'x' * (1 << 22))",
        "x = b'x' * (1 << 20)\nwhile True: x = x + x",
    ],
)
def test_three_gigabytes_are_refused(attempt, source):
    assert attempt(source, memory=512 << 20).failure == "memory"


@pytest.mark.parametrize(
    "source",
    [
        "while True: print('x' * 1000, flush=True)",
        "import os\nwhile True: os.write(2, b'x' * 65536)",
        IN_CALL.format("        print('x' * 10_000_000)"),
    ],
)
def test_floods_of_output_are_stopped(attempt, source):
    assert attempt(source).failure == "forbidden"


CHANNEL = {
    "garbage": ("os.write(3, b'x' * 99); os._exit(0)", "crash"),
    "half a message": ("os.write(3, b'jxn1'); os._exit(0)", "crash"),
    "a huge message": ("os.write(3, b'jxn1' + b'\\xff' * 8); os._exit(0)", "crash"),
    "no end of bytes": ("\nwhile True: os.write(3, b'x' * 65536)", "memory"),
    "an end": ("os.close(3)\nwhile True: pass", "crash"),
    "a lie about types": (
        """
import json, struct
text = json.dumps({'failure': None, 'params': '1', 'flops': 'inf'}).encode()
os.write(3, struct.pack('!4sII', b'jxn1', len(text), 0) + text); os._exit(0)""",
        "crash",
    ),
    "a nested header": (
        """
import struct
text = b'[' * 100_000
os.write(3, struct.pack('!4sII', b'jxn1', len(text), 0) + text); os._exit(0)""",
        "crash",
    ),
}


@pytest.mark.parametrize("name", CHANNEL)
def test_the_channel_of_answers_may_say_anything(attempt, name):
    source, failure = CHANNEL[name]
    assert attempt(f"import os; {source}").failure == failure


BOMB = """
import os, time
for _ in range(20):
    if os.fork() == 0:
        os.setsid()
        for _ in range(3): os.fork()
        time.sleep(100)
        os._exit(0)
{}
"""
LEAVE = """
import subprocess, sys
subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(100)'], start_new_session=True)
{}
"""


@every_wall
@pytest.mark.parametrize("source", [BOMB, LEAVE])
@pytest.mark.parametrize("end", ["while True: pass", "os._exit(0)", GOOD])
def test_nothing_stays_of_a_fork_bomb(attempt, source, end, wall):
    verdict = attempt("import os" + source.format(end), seconds=0.5)
    if "without" not in wall:
        assert verdict.failure in {"import", "crash"}
        assert "PermissionError" in verdict.message


def test_threads_without_end_are_stopped(attempt):
    source = "import threading\nwhile True: threading.Thread(target=threading.Event().wait).start()"
    assert not attempt(source, seconds=0.5).ok


@every_wall
def test_the_environment_holds_no_keys(attempt):
    verdict = attempt("import os\nraise ValueError(dict(os.environ))")
    assert "JAX_PLATFORMS" in verdict.message
    assert SECRET not in verdict.message


@every_wall
@pytest.mark.parametrize("path", ["secret", "/proc/{parent}/environ", "/proc/{parent}/cmdline"])
def test_files_cannot_be_read(attempt, tmp_path, wall, path):
    if wall.startswith("process"):
        pytest.skip("a process can read what its user can: use a better level")
    (tmp_path / "secret").write_text(SECRET)
    where = str(tmp_path / path).format(parent=os.getpid())
    verdict = attempt(f"raise ValueError(open({where!r}).read())")
    assert SECRET not in verdict.message
    assert "Error: [Errno" in verdict.message
    for folder in (tmp_path, Path.home()):
        verdict = attempt(f"import os; raise ValueError('secret' in os.listdir({str(folder)!r}))")
        assert "Error: [Errno" in verdict.message or "False" in verdict.message


WRITES = (
    """
import os
for work in (
    lambda: open({new!r}, 'w').write('x'),
    lambda: open({old!r}, 'a').write('x'),
    lambda: open({old!r}, 'w'),
    lambda: os.truncate({old!r}, 0),
    lambda: os.unlink({old!r}),
    lambda: os.rename({old!r}, {new!r}),
    lambda: os.link({old!r}, {new!r}),
    lambda: os.symlink({old!r}, {new!r}),
    lambda: os.mkdir({new!r}),
    lambda: os.chmod({old!r}, 0),
    lambda: os.utime({old!r}, (0, 0)),
    lambda: open('here', 'w'),
    lambda: open('/tmp/jaxnas-stray', 'w'),
    lambda: open('/dev/shm/jaxnas-stray', 'w'),
):
    try: work()
    except OSError: pass
"""
    + GOOD
)


def test_no_file_is_written_anywhere(attempt, pool, tmp_path):
    old = tmp_path / "old"
    old.write_text("text")
    before = old.stat()
    assert attempt(WRITES.format(new=str(tmp_path / "new"), old=str(old))).ok
    after = old.stat()
    assert (old.read_text(), after.st_mode) == ("text", before.st_mode)
    assert after.st_mtime_ns == before.st_mtime_ns
    assert os.listdir(tmp_path) == ["old"]
    assert os.listdir(pool._folder.name) == []
    assert not Path("/tmp/jaxnas-stray").exists()
    assert not Path("/dev/shm/jaxnas-stray").exists()


@every_wall
@pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
def test_no_socket_reaches_anything(attempt, kind, wall):
    if "without" in wall and (wall.startswith("process") or kind == socket.SOCK_DGRAM):
        pytest.skip("an unfiltered process has the network; Landlock takes TCP alone")
    with socket.socket(type=kind) as ear:
        ear.bind(("127.0.0.1", 0))
        ear.settimeout(0.1)
        if kind == socket.SOCK_STREAM:
            ear.listen()
        verdict = attempt(
            f"import socket\ns = socket.socket(type={int(kind)})\n"
            f"s.connect({ear.getsockname()!r})\ns.send(b'x')\n" + GOOD
        )
        with pytest.raises(TimeoutError):
            ear.accept() if kind == socket.SOCK_STREAM else ear.recv(1)
    assert verdict.failure == "import"


@every_wall
@pytest.mark.parametrize("who", ["os.getppid()", "{parent}", "-1"])
def test_no_signal_reaches_others(attempt, who, wall):
    if wall == "process without filter":
        pytest.skip("an unfiltered process can signal all processes of its user")
    target = who.format(parent=os.getpid())
    verdict = attempt(f"import os\nos.kill({target}, 9)\nraise ValueError('it went through')")
    assert not verdict.ok
    if "without" not in wall:
        assert "PermissionError" in verdict.message


@pytest.mark.skipif(sys.platform != "linux", reason="F_SETSIG is Linux's")
def test_no_pipe_sends_signals_to_others(attempt):
    got = []
    before = signal.signal(signal.SIGUSR1, lambda *_: got.append(1))
    source = f"""
import fcntl, os
r, w = os.pipe()
fcntl.fcntl(r, fcntl.F_SETOWN, {os.getpid()})
fcntl.fcntl(r, fcntl.F_SETSIG, {int(signal.SIGUSR1)})
fcntl.fcntl(r, fcntl.F_SETFL, fcntl.fcntl(r, fcntl.F_GETFL) | os.O_ASYNC)
os.write(w, b"x")
"""
    try:
        verdict = attempt(source)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert "PermissionError" in verdict.message
    assert not got


@every_wall
def test_limits_cannot_be_raised(attempt):
    source = (
        "import resource as r\nfor w in (r.RLIMIT_DATA, r.RLIMIT_FSIZE):"
        " r.setrlimit(w, (r.RLIM_INFINITY,) * 2)"
    )
    assert attempt(source + GOOD).failure == "import"


def test_a_zygote_forks_from_one_thread(pool):
    assert pool._check(GOOD).ok
    assert pool._keepers[0].threads == 1
