"""The filter of system calls, run by a slow interpreter of its instructions for both processors."""

import fcntl
import os
import re
import struct
from pathlib import Path

import pytest

from jaxnas.programs.sandbox import seccomp

PID = 4711
ALLOW, EPERM, ENOSYS, KILL = 0x7FFF0000, 0x50001, 0x50026, 0x80000000
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
both = pytest.mark.parametrize("name", seccomp.MACHINES)


def run(name, number, *arguments, audit=None):
    """What the kernel would do, after linux/filter.h."""
    machine = seccomp.MACHINES[name]
    code = [*struct.iter_unpack("HBBI", seccomp.program(machine, PID))]
    padded = [*arguments, *[0] * 6][:6]
    data = struct.pack("IIQ6Q", number, audit or machine.audit, 0, *padded)
    at = value = 0
    while True:
        op, yes, no, k = code[at]
        at += 1
        if op == 0x06:
            return k
        if op == 0x20:
            (value,) = struct.unpack_from("I", data, k)
        else:
            test = {0x15: value == k, 0x35: value >= k, 0x45: value & k != 0}[op]
            at += yes if test else no


def number(name, call):
    tables = seccomp.REFUSED + seccomp.ABSENT + seccomp.JUDGED
    return seccomp.numbers(tables, seccomp.MACHINES[name])[call]


@both
def test_refused_calls_fail_and_others_pass(name):
    refused = seccomp.numbers(seccomp.REFUSED, seccomp.MACHINES[name])
    assert {"socket", "execve", "unlinkat", "ptrace"} <= set(refused)
    assert {run(name, n) for n in refused.values()} == {EPERM}
    read, mmap = {"x86_64": (0, 9), "aarch64": (63, 222)}[name]
    assert run(name, read) == run(name, mmap) == ALLOW
    assert run(name, number(name, "clone3")) == run(name, number(name, "openat2")) == ENOSYS


@both
def test_threads_may_start_and_processes_may_not(name):
    clone = number(name, "clone")
    assert run(name, clone, 0x3D0F00) == ALLOW  # what pthread_create asks for
    assert run(name, clone, 17) == run(name, clone, 0x4111) == EPERM  # fork, vfork


@both
def test_files_open_for_reading_alone(name):
    openat = number(name, "openat")
    assert run(name, openat, 0, 0, os.O_RDONLY | os.O_CLOEXEC | os.O_DIRECTORY) == ALLOW
    for flag in (os.O_WRONLY, os.O_RDWR, os.O_CREAT, os.O_TRUNC, os.O_RDWR | os.O_TMPFILE):
        assert run(name, openat, 0, 0, flag) == EPERM
    assert run("x86_64", 2, 0, os.O_WRONLY) == EPERM


@both
@pytest.mark.parametrize("call", ["kill", "tgkill"])
def test_signals_go_to_oneself(name, call):
    assert run(name, number(name, call), PID, 9) == ALLOW
    for other in (0, 1, PID + 1, 2**64 - 1, 2**64 - PID):
        assert run(name, number(name, call), other, 9) == EPERM


@both
def test_a_descriptor_sends_no_signals_and_holds_no_locks(name):
    call = number(name, "fcntl")
    for command in (fcntl.F_DUPFD_CLOEXEC, fcntl.F_GETFD, fcntl.F_SETFD, fcntl.F_SETFL):
        assert run(name, call, 5, command) == ALLOW
    for command in (fcntl.F_SETOWN, fcntl.F_SETSIG, 15, fcntl.F_SETLK, fcntl.F_SETLEASE):
        assert run(name, call, 5, command) == EPERM


@both
def test_limits_and_attributes_are_ones_own(name):
    limit, attribute = number(name, "prlimit64"), number(name, "prctl")
    assert run(name, limit, 0) == run(name, limit, PID) == ALLOW
    assert run(name, limit, 1) == EPERM
    assert run(name, attribute, 15) == run(name, attribute, 16) == ALLOW
    assert run(name, attribute, 1) == run(name, attribute, 22) == EPERM


def test_other_tables_of_calls_are_closed():
    assert run("x86_64", 0x40000000) == EPERM
    assert run("x86_64", 0, audit=0x40000003) == KILL  # 32 bits


@both
def test_numbers_are_those_of_the_kernel(name):
    if not HEADERS[name].exists():
        pytest.skip(f"{HEADERS[name]} is not here")
    defined = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[name].read_text())
    known = {call: int(number) for call, number in defined}
    tables = seccomp.REFUSED + seccomp.ABSENT + seccomp.JUDGED
    ours = seccomp.numbers(tables, seccomp.MACHINES[name])
    new = {"fchmodat2", "setxattrat", "removexattrat", "file_setattr", "memfd_secret"}
    assert {call: known.get(call) for call in ours if call not in new or call in known} == {
        call: number for call, number in ours.items() if call not in new or call in known
    }
