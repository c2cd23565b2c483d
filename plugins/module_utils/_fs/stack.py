# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A stack: what an overlay is mounted from, in the place of a tree (docs/behaviour.md, section 16).

Its directory holds ``upper`` and ``work``, a file ``lower`` with the names of its snapshots, the top first, separated by
colons, and a link ``store`` to the directory that they lie in. An xattr, which neither images nor containers can set, tells it
from a tree.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
import typing as t
from dataclasses import dataclass

from .._errors import RootfsError, show
from .descriptors import opened
from .directories import DIRECTORY, open_existing
from .overlay import Lowers, is_mounted, open_overlay, open_read_only

_MARK = "trusted.hypervisor_oci_stack"
_NO_MARK = (errno.ENODATA, errno.ENOTSUP, errno.EPERM, errno.EACCES)
_NAMES = re.compile(r"[0-9a-z]{1,16}(?::[0-9a-z]{1,16})*\Z")
_MOST_BYTES = 16_384
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_OVERLAY = "trusted.overlay."
# The kernel ends the mounts of a namespace a moment after its last process.
_LOOKS, _PAUSE = 20, 0.05


@dataclass(frozen=True)
class Stack:
    """What a stack says: the path of the folder of its snapshots, and their names, the top first."""

    store: str
    names: tuple[str, ...]


def is_stack(fd: int) -> bool:
    """Return whether a directory is a stack. Raises ``OSError``."""
    try:
        return os.getxattr(fd, _MARK) == b"1"
    except OSError as error:
        if error.errno in _NO_MARK:
            return False
        raise


def make_stack(folder: int, name: bytes, lowers: Lowers, store: str) -> None:
    """Make a stack of snapshots, whose folder is at the path ``store``. Raises ``OSError``."""
    os.mkdir(name, 0o700, dir_fd=folder)
    with opened(os.open(name, DIRECTORY, dir_fd=folder)) as fd:
        os.fchmod(fd, 0o700)
        make_upper(fd, lowers)
        os.symlink(store, "store", dir_fd=fd)
        with os.fdopen(os.open("lower", _NEW, 0o600, dir_fd=fd), "wb") as file:
            file.write(":".join(lowers.names).encode("ascii") + b"\n")
        os.setxattr(fd, _MARK, b"1")


def make_upper(fd: int, lowers: Lowers) -> None:
    """Make ``upper``, with the attributes of the topmost lower directory, and ``work``. Raises ``OSError``."""
    for part in ("work", "upper"):
        os.mkdir(part, 0o700, dir_fd=fd)
    with opened(os.open("upper", DIRECTORY, dir_fd=fd)) as upper:
        if lowers.names:
            with opened(os.open(lowers.names[0], DIRECTORY, dir_fd=lowers.folder)) as top:
                _dress(upper, top)


def _dress(fd: int, like: int) -> None:
    """Give a new directory the attributes of another one: the root of an overlay has those of its upper directory."""
    status = os.fstat(like)
    os.fchown(fd, status.st_uid, status.st_gid)
    os.fchmod(fd, status.st_mode & 0o7777)
    for name in os.listxattr(like):
        # labels are given by the system
        if not name.startswith((_OVERLAY, "security.selinux")):
            os.setxattr(fd, name, os.getxattr(like, name))
    os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def read_stack(fd: int, path: str) -> Stack:
    """Return what the stack ``fd`` at ``path`` says. Raises ``RootfsError``."""
    try:
        with os.fdopen(os.open("lower", _READ, dir_fd=fd), "rb") as file:
            text = file.read(_MOST_BYTES).decode("ascii", "replace").rstrip("\n")
        store = os.readlink("store", dir_fd=fd)
    except OSError as error:
        raise _damaged(path) from error
    if not _NAMES.match(text) or not store.startswith("/"):
        raise _damaged(path)
    return Stack(store, tuple(text.split(":")))


def require_whole(fd: int, path: str) -> None:
    """Require that all snapshots of a stack are there. Raises ``RootfsError``."""
    with _opened_lowers(fd, path):
        pass


@contextlib.contextmanager
def opened_tree(fd: int, path: str, writing: bool = False) -> t.Iterator[int]:
    """Yield the directory ``fd`` at ``path`` itself, or the root of its overlay if it is a stack.

    For ``writing``, nothing else may have the stack mounted. Raises ``RootfsError`` and ``OSError``.
    """
    if not is_stack(fd):
        yield fd
        return
    if writing:
        require_unmounted(fd, path)
    with contextlib.ExitStack() as stack:
        lowers = stack.enter_context(_opened_lowers(fd, path))
        yield stack.enter_context(opened(open_overlay(lowers, fd) if writing else open_read_only(lowers, fd)))


@contextlib.contextmanager
def opened_upper(fd: int) -> t.Iterator[int | None]:
    """Yield the upper directory of the stack ``fd``, ``None`` for another directory. Raises ``OSError``."""
    if not is_stack(fd):
        yield None
        return
    with opened(os.open("upper", DIRECTORY, dir_fd=fd)) as upper:
        yield upper


def require_unmounted(fd: int, path: str) -> None:
    """Require that no overlay of a stack is mounted. Raises ``RootfsError`` and ``OSError``."""
    for _look in range(_LOOKS):
        if not is_mounted(fd):
            return
        time.sleep(_PAUSE)
    raise RootfsError(
        f"{show(path)} is in use: the overlay of its layers is mounted; stop the container, or unmount it, and run again"
    )


@contextlib.contextmanager
def _opened_lowers(fd: int, path: str) -> t.Iterator[Lowers]:
    stack = read_stack(fd, path)
    folder, missing = open_existing(os.fsencode(stack.store))
    with opened(folder):
        if missing:
            raise RootfsError(
                f"the store {show(stack.store)} of {show(path)} is not there; mount it, or provision the image again"
            )
        for name in stack.names:
            try:
                os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError as error:
                raise RootfsError(
                    f"the snapshot {name} of the tree {show(path)} is no longer in its store {show(stack.store)}; provision its"
                    " image again with recreate: true"
                ) from error
        yield Lowers(folder, stack.names)


def _damaged(path: str) -> RootfsError:
    return RootfsError(f"the stack of layers at {show(path)} is damaged; provision its image again with recreate: true")
