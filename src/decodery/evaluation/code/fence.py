"""Puts the present process behind a fence: namespaces of Linux, limits of resources, another user.

Runs without the package: `scripts.py` sends this file's text to a fresh interpreter.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import resource
import signal
import sys

NOBODY = 65534
OPEN_FILES = 64
FILES = 1024
WORK = "/tmp"
"""The folder in which a program runs behind namespaces, the only one that it can write to."""
# From linux/sched.h, sys/mount.h, linux/mount.h and linux/prctl.h.
CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x20000, 0x4000000, 0x8000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_BIND, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 4096, 0x4000, 0x40000, 2
MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE = 442, -100, 0x8000
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID = 1, 2
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 36, 38
# What an interpreter needs besides its own folder. A missing one is left out.
SYSTEM = (
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/lib32",
    "/nix/store",
    "/etc/ld.so.cache",
    "/dev/null",
    "/dev/urandom",
)


class _MountAttributes(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace"))


def libc(name: str, *arguments: object) -> None:
    """Calls a function of the C library; raises OSError if it returns a negative number."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def enter_namespaces(root: str, interpreter: list[str], file_bytes: int) -> None:
    """Moves the process into namespaces of its own, in which the next child is the first process.

    There is no network, no process of the outside, and no file but those of the system's libraries and of the
    folders `interpreter`, read-only. The files that it makes lie in memory, take at most `file_bytes`
    together and end with it. `root` is an empty folder to mount them on. Raises OSError where the kernel
    does not permit it.
    """
    user, group = os.getuid(), os.getgid()
    flags = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET
    libc("unshare", flags | (CLONE_NEWUSER if user else 0))
    if user:
        for name, line in (
            ("setgroups", "deny"),
            ("uid_map", f"{user} {user} 1"),
            ("gid_map", f"{group} {group} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(line)
    libc("mount", b"none", b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None)
    options = f"size={file_bytes},nr_inodes={FILES},mode=755".encode()
    libc("mount", b"tmpfs", root.encode(), b"tmpfs", ctypes.c_ulong(MS_NOSUID | MS_NODEV), options)
    for path in (*SYSTEM, *interpreter):
        _show(path, root)
    os.makedirs(root + WORK, exist_ok=True)
    os.chmod(root + WORK, 0o1777)
    os.chdir(root)
    libc("pivot_root", b".", b".")
    libc("umount2", b".", MNT_DETACH)
    os.chdir(WORK)


def _show(path: str, root: str) -> None:
    """Makes a file or folder visible below the new root, read-only."""
    place = root + path
    if not os.path.exists(path) or os.path.lexists(place):
        return
    if os.path.islink(path):
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.symlink(os.readlink(path), place)
        return
    if os.path.isdir(path):
        os.makedirs(place)
    else:
        os.makedirs(os.path.dirname(place), exist_ok=True)
        open(place, "w").close()
    libc("mount", path.encode(), place.encode(), None, ctypes.c_ulong(MS_BIND | MS_REC), None)
    attributes = _MountAttributes(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID, 0, 0, 0)
    libc(
        "syscall",
        ctypes.c_long(MOUNT_SETATTR),
        ctypes.c_int(AT_FDCWD),
        place.encode(),
        ctypes.c_uint(AT_RECURSIVE),
        ctypes.byref(attributes),
        ctypes.c_size_t(ctypes.sizeof(attributes)),
    )


def become_subreaper() -> None:
    """Makes this process the parent of descendants that lose theirs."""
    libc("prctl", PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """Has Linux kill the process when its parent ends. A change of the user undoes this."""
    libc("prctl", PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def limit(limits: dict[str, float], drop: bool) -> None:
    """Limits the resources of the process and of those that it starts, in a session of its own.

    `limits` has the fields of `CodeLimits`. `drop` makes the user root the user nobody, since root is not
    bound by the limit of processes and owns the system's files.
    """
    os.setsid()
    if drop:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    if sys.platform == "linux":
        libc("prctl", PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        end_with_parent()
    for name, most in (
        ("RLIMIT_CPU", math.ceil(limits["cpu_seconds"])),
        ("RLIMIT_AS", int(limits["memory_bytes"])),
        ("RLIMIT_FSIZE", int(limits["file_bytes"])),
        ("RLIMIT_NPROC", int(limits["processes"])),
        ("RLIMIT_NOFILE", OPEN_FILES),
        ("RLIMIT_CORE", 0),
    ):
        # macOS refuses some of them.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(getattr(resource, name), (most, most))
