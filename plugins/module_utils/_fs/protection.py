# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""What keeps even root from removing or moving a file: attributes, and read-only subvolumes (docs/behaviour.md, section 7).

A container can have set them in a tree that is ours. Only regular files and directories are opened for it,
never a FIFO or device, which could wait or act.
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from .syscalls import (
    inode_flags,
    is_read_only_subvolume,
    set_inode_flags,
    set_subvolume_writable,
    without_protection,
)

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
# the root of every subvolume
_SUBVOLUME = 256


def unprotect(fd: int) -> int | None:
    """Take away what protects the regular file or directory ``fd``; return the attributes that it had.

    ``None`` if nothing was changed. Raises ``OSError`` for a user who may not do that.
    """
    if os.fstat(fd).st_ino == _SUBVOLUME and is_read_only_subvolume(fd):
        set_subvolume_writable(fd)
    flags = inode_flags(fd)
    if flags is None or without_protection(flags) == flags:
        return None
    set_inode_flags(fd, without_protection(flags))
    return flags


@contextlib.contextmanager
def unprotected(parent: int, name: bytes) -> t.Iterator[None]:
    """Take away what protects a name in a directory, for that time.

    Afterwards its attributes are as they were, where it is still somewhere: moved, or a file with another
    name outside of the tree. Raises ``OSError`` as ``unprotect`` does.
    """
    fd = _open(parent, name)
    if fd is None:
        yield
        return
    try:
        before = unprotect(fd)
        try:
            yield
        finally:
            if before is not None and os.fstat(fd).st_nlink:
                # what was asked for is done, or its own error is to be told
                with contextlib.suppress(OSError):
                    set_inode_flags(fd, before)
    finally:
        os.close(fd)


def _open(parent: int, name: bytes) -> int | None:
    """A descriptor to ask for attributes; ``None`` for what can have none, or is gone."""
    try:
        path = os.open(name, _PATH, dir_fd=parent)
    except FileNotFoundError:
        return None
    try:
        mode = os.fstat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            return None
        return os.open(f"/proc/self/fd/{path}", _READ)
    finally:
        os.close(path)
