"""A filter in the kernel that refuses what a program needs only to do harm (seccomp-bpf).

Refused are new processes (threads may start), other programs, every socket (Landlock would leave
UDP), signals to others, every way of changing files, and doors into other processes. A refused call
fails with EPERM; nothing can take the filter off again. Pure ctypes; x86-64 and 64-bit ARM.
"""

import ctypes
import os
import platform
import struct
from typing import NamedTuple

# Calls that always fail, with their numbers on x86-64 and ARM; a dash where there is none.
REFUSED = """
fork 57 -              vfork 58 -             execve 59 221          execveat 322 281
unshare 272 97         setns 308 268          ptrace 101 117         process_vm_readv 310 270
tkill 200 130          pidfd_getfd 438 438    kcmp 312 272           process_vm_writev 311 271
rt_sigqueueinfo 129 138                       rt_tgsigqueueinfo 297 240
pidfd_send_signal 424 424                     setpriority 141 140    ioprio_set 251 30
socket 41 198          socketpair 53 199      io_uring_setup 425 425 bpf 321 280
perf_event_open 298 241                       userfaultfd 323 282    keyctl 250 219
add_key 248 217        request_key 249 218    memfd_create 319 279   memfd_secret 447 447
shmget 29 194          semget 64 190          msgget 68 186          mq_open 240 180
mount 165 40           umount2 166 39         open_tree 428 428      fsopen 430 430
open_by_handle_at 304 265                     creat 85 -             truncate 76 45
ftruncate 77 46        fallocate 285 47       unlink 87 -            unlinkat 263 35
rename 82 -            renameat 264 38        renameat2 316 276      mkdir 83 -
mkdirat 258 34         rmdir 84 -             link 86 -              linkat 265 37
symlink 88 -           symlinkat 266 36       mknod 133 -            mknodat 259 33
chmod 90 -             fchmod 91 52           fchmodat 268 53        fchmodat2 452 452
chown 92 -             fchown 93 55           lchown 94 -            fchownat 260 54
utime 132 -            utimes 235 -           utimensat 280 88       futimesat 261 -
setxattr 188 5         lsetxattr 189 6        fsetxattr 190 7        removexattr 197 14
"""
EPERM, ENOSYS = 1, 38
CLONE_THREAD = 0x10000
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PR_SET_NAME, PR_GET_NAME = 15, 16  # threads are named by prctl
PR_SET_SECCOMP, FILTER = 22, 2
LOAD, EQUAL, ANY, RETURN = 0x20, 0x15, 0x45, 0x06  # BPF instructions
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16  # offsets of what the filter is shown


class Machine(NamedTuple):
    """A processor's names for calls.

    Attributes:
      audit: by which the kernel tells the filter the architecture.
      column: in `REFUSED`.
      others: numbers of calls whose arguments decide; None where there is none.
    """

    audit: int
    column: int
    others: dict[str, int | None]


_OTHERS = (
    "clone",
    "clone3",
    "open",
    "openat",
    "openat2",
    "kill",
    "tgkill",
    "prctl",
    "prlimit64",
)
MACHINES = {
    "x86_64": Machine(
        0xC000003E, 1, dict(zip(_OTHERS, (56, 435, 2, 257, 437, 62, 234, 157, 302), strict=True))
    ),
    "aarch64": Machine(
        0xC00000B7,
        2,
        dict(zip(_OTHERS, (220, 435, None, 56, 437, 129, 131, 167, 261), strict=True)),
    ),
}


def works() -> bool:
    """Whether this kernel and processor take the filter: an empty one is refused as a bad address."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_SECCOMP, FILTER, None, 0, 0)
    return ctypes.get_errno() == 14  # EFAULT


def program(machine: Machine, pid: int) -> bytes:
    """The filter of one process.

    Args:
      machine: one of `MACHINES`.
      pid: of the process, the only one that it may send signals to.

    Returns:
      Instructions of 8 bytes.
    """
    rows = [_ins(LOAD, ARCHITECTURE), _ins(EQUAL, machine.audit, 1, 0), _ins(RETURN, KILL)]
    rows += [_ins(LOAD, NUMBER), _ins(0x35, 0x40000000, 0, 1), _ins(RETURN, ERRNO | EPERM)]  # x32
    words = REFUSED.split()
    for row in range(0, len(words), 3):
        if (number := words[row + machine.column]) != "-":
            rows += _when(int(number), [_ins(RETURN, ERRNO | EPERM)])
    calls = machine.others
    # glibc starts threads by clone where there is no clone3, whose flags a filter cannot see.
    for name in ("clone3", "openat2"):
        rows += _when(calls[name], [_ins(RETURN, ERRNO | ENOSYS)])
    rows += _when(calls["clone"], _only_if(0, ANY, CLONE_THREAD))
    rows += _when(calls["open"], _never_if(1, WRITES))
    rows += _when(calls["openat"], _never_if(2, WRITES))
    rows += _when(calls["kill"], _only_if(0, EQUAL, pid))
    rows += _when(calls["tgkill"], _only_if(0, EQUAL, pid))
    rows += _when(calls["prlimit64"], _only_if(0, EQUAL, 0, pid))
    rows += _when(calls["prctl"], _only_if(0, EQUAL, PR_SET_NAME, PR_GET_NAME))
    return b"".join([*rows, _ins(RETURN, ALLOW)])


def install() -> None:
    """Filters this process from here on; it must have given up new privileges.

    Raises:
      OSError: if the kernel refuses.
    """
    code = program(MACHINES[platform.machine()], os.getpid())
    rows = ctypes.create_string_buffer(code, len(code))
    pointer = struct.pack("HL", len(code) // 8, ctypes.addressof(rows))  # sock_fprog
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_SECCOMP, FILTER, ctypes.c_char_p(pointer), 0, 0):
        raise OSError(ctypes.get_errno(), "seccomp refused the filter")


def _ins(code: int, value: int, yes: int = 0, no: int = 0) -> bytes:
    """One instruction; `yes` and `no` say how many to skip."""
    return struct.pack("HBBI", code, yes, no, value)


def _when(number: int | None, rows: list[bytes]) -> list[bytes]:
    """Instructions for one call, which end the filter."""
    return [] if number is None else [_ins(EQUAL, number, 0, len(rows)), *rows]


def _only_if(argument: int, test: int, *values: int) -> list[bytes]:
    """Allows a call if one of the tests of its argument holds."""
    tests = [_ins(test, value, len(values) - i, 0) for i, value in enumerate(values)]
    return [
        _ins(LOAD, ARGUMENT + 8 * argument),
        *tests,
        _ins(RETURN, ERRNO | EPERM),
        _ins(RETURN, ALLOW),
    ]


def _never_if(argument: int, bits: int) -> list[bytes]:
    """Refuses a call if its argument has one of the bits."""
    return [
        _ins(LOAD, ARGUMENT + 8 * argument),
        _ins(ANY, bits, 0, 1),
        _ins(RETURN, ERRNO | EPERM),
        _ins(RETURN, ALLOW),
    ]
