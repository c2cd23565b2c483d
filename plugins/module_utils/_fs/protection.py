# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Attributes and read-only subvolumes that keep even root from removing a file (docs/behaviour.md, section 7).

A container can have set them in its tree. Only regular files and directories are opened to change them, because
opening a FIFO can block and opening a device can act.
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from .descriptors import opened
from .syscalls import (
    inode_flags,
    is_read_only_subvolume,
    is_subvolume_root,
    set_inode_flags,
    set_subvolume_writable,
    without_protection,
)

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


def unprotect(fd: int) -> int | None:
    """Remove what protects the regular file or directory ``fd``, and return the attributes that it had.

    Return ``None`` if nothing was changed. Raises ``OSError`` if the user may not change it.
    """
    if is_subvolume_root(os.fstat(fd)) and is_read_only_subvolume(fd):
        set_subvolume_writable(fd)
    flags = inode_flags(fd)
    if flags is None or without_protection(flags) == flags:
        return None
    set_inode_flags(fd, without_protection(flags))
    return flags


@contextlib.contextmanager
def unprotected(parent: int, name: bytes) -> t.Iterator[None]:
    """Remove what protects a name in a directory within the block.

    Afterwards its attributes are restored if it still exists: it was moved, or has another name outside of the tree.
    Raises ``OSError`` as ``unprotect`` does.
    """
    fd = _open(parent, name)
    if fd is None:
        yield
        return
    with opened(fd):
        before = unprotect(fd)
        try:
            yield
        finally:
            if before is not None and os.fstat(fd).st_nlink:
                # the block has succeeded, or its own error is the one to report
                with contextlib.suppress(OSError):
                    set_inode_flags(fd, before)


def _open(parent: int, name: bytes) -> int | None:
    """Open a regular file or directory for its attributes; return ``None`` if it is missing or another kind of file."""
    try:
        path = os.open(name, _PATH, dir_fd=parent)
    except FileNotFoundError:
        return None
    with opened(path):
        mode = os.fstat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return None
        return os.open(f"/proc/self/fd/{path}", _READ)
