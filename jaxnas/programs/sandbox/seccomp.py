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

# Calls with their numbers on x86-64 and ARM; a dash where there is none. These always fail:
REFUSED = """
fork 57 -                  vfork 58 -                 execve 59 221
execveat 322 281           unshare 272 97             setns 308 268
ptrace 101 117             process_vm_readv 310 270   process_vm_writev 311 271
kcmp 312 272               pidfd_getfd 438 438        pidfd_send_signal 424 424
tkill 200 130              rt_sigqueueinfo 129 138    rt_tgsigqueueinfo 297 240
setpriority 141 140        ioprio_set 251 30          sched_setaffinity 203 122
sched_setattr 314 274      sched_setscheduler 144 119 sched_setparam 142 118
move_pages 279 239         migrate_pages 256 238      perf_event_open 298 241
socket 41 198              socketpair 53 199          io_uring_setup 425 425
bpf 321 280                userfaultfd 323 282        keyctl 250 219
add_key 248 217            request_key 249 218        memfd_create 319 279
memfd_secret 447 447       shmget 29 194              shmat 30 196
shmctl 31 195              semget 64 190              semop 65 193
semctl 66 191              semtimedop 220 192         msgget 68 186
msgsnd 69 189              msgrcv 70 188              msgctl 71 187
mq_open 240 180            mq_unlink 241 181          mount 165 40
umount2 166 39             open_tree 428 428          fsopen 430 430
open_by_handle_at 304 265  creat 85 -                 truncate 76 45
ftruncate 77 46            fallocate 285 47           unlink 87 -
unlinkat 263 35            rename 82 -                renameat 264 38
renameat2 316 276          mkdir 83 -                 mkdirat 258 34
rmdir 84 -                 link 86 -                  linkat 265 37
symlink 88 -               symlinkat 266 36           mknod 133 -
mknodat 259 33             chmod 90 -                 fchmod 91 52
fchmodat 268 53            fchmodat2 452 452          chown 92 -
fchown 93 55               lchown 94 -                fchownat 260 54
utime 132 -                utimes 235 -               utimensat 280 88
futimesat 261 -            setxattr 188 5             lsetxattr 189 6
fsetxattr 190 7            removexattr 197 14         lremovexattr 198 15
fremovexattr 199 16        setxattrat 463 463         removexattrat 466 466
file_setattr 469 469
"""
# These fail as if they were not there, since a filter cannot see their arguments; the C library
# then starts threads by `clone`. Of the others the arguments decide.
ABSENT = "clone3 435 435 openat2 437 437"
JUDGED = """
clone 56 220  open 2 -  openat 257 56  kill 62 129  tgkill 234 131  prlimit64 302 261  prctl 157 167
fcntl 72 25
"""
EPERM, EFAULT, ENOSYS = 1, 14, 38
CLONE_THREAD = 0x10000
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
PR_SET_NAME, PR_GET_NAME = 15, 16  # threads are named by prctl
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC; by the others a descriptor sends
# signals to whom it is told, or files are locked.
FCNTL = (0, 1, 2, 3, 4, 1030)
PR_SET_SECCOMP, FILTER = 22, 2
LOAD, EQUAL, AT_LEAST, ANY, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06  # BPF instructions
ALLOW, KILL, ERRNO = 0x7FFF0000, 0x80000000, 0x00050000
NUMBER, ARCHITECTURE, ARGUMENT = 0, 4, 16  # offsets of what the filter is shown
X32 = 0x40000000  # the second table of calls of x86-64


class Machine(NamedTuple):
    """A processor.

    Attributes:
      audit: by which the kernel tells the filter the architecture.
      column: in the tables above.
    """

    audit: int
    column: int


MACHINES = {"x86_64": Machine(0xC000003E, 1), "aarch64": Machine(0xC00000B7, 2)}


def works() -> bool:
    """Whether this kernel and processor take the filter: an empty one is refused as a bad address."""
    if platform.system() != "Linux" or platform.machine() not in MACHINES:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_SECCOMP, FILTER, None, 0, 0)
    return ctypes.get_errno() == EFAULT


def program(machine: Machine, pid: int) -> bytes:
    """The filter of one process.

    Args:
      machine: one of `MACHINES`.
      pid: of the process, the only one that it may send signals to.

    Returns:
      Instructions of 8 bytes.
    """
    refused = [_ins(RETURN, ERRNO | EPERM)]
    absent = [_ins(RETURN, ERRNO | ENOSYS)]
    judged = {
        "clone": _only_if(0, ANY, CLONE_THREAD),
        "open": _never_if(1, WRITES),
        "openat": _never_if(2, WRITES),
        "kill": _only_if(0, EQUAL, pid),
        "tgkill": _only_if(0, EQUAL, pid),
        "prlimit64": _only_if(0, EQUAL, 0, pid),
        "fcntl": _only_if(1, EQUAL, *FCNTL),
        "prctl": _only_if(0, EQUAL, PR_SET_NAME, PR_GET_NAME),
    }
    rows = [_ins(LOAD, ARCHITECTURE), _ins(EQUAL, machine.audit, 1, 0), _ins(RETURN, KILL)]
    rows += [_ins(LOAD, NUMBER), _ins(AT_LEAST, X32, 0, 1), *refused]
    for name, number in numbers(REFUSED + ABSENT + JUDGED, machine).items():
        ending = judged.get(name, absent if name in ABSENT.split() else refused)
        rows += [_ins(EQUAL, number, 0, len(ending)), *ending]
    return b"".join([*rows, _ins(RETURN, ALLOW)])


def numbers(table: str, machine: Machine) -> dict[str, int]:
    """The calls of a table that a processor has."""
    words = table.split()
    rows = [words[i : i + 3] for i in range(0, len(words), 3)]
    return {row[0]: int(row[machine.column]) for row in rows if row[machine.column] != "-"}


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
