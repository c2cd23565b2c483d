# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Removing a tree that is on disk: never through a link, never onto another mount, at any depth.

What is removed may have been written to by a container, so nothing is known about it
(docs/behaviour.md, section 7).
"""

from __future__ import annotations

import os
import stat
import typing as t

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    RootfsError,
    show,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.directories import (
    some_names_in,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.syscalls import (
    mount_id,
)

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

# Below this level a directory is moved up to the top first, so that depth costs no descriptors and no stack.
_DEEPEST = 64
# Names that are held of a directory, however many it has.
_BATCH = 4096
# Passes over a directory before a tree counts as one that something fills again and again.
_MOST_PASSES = 100_000


def remove_tree(parent: int, name: bytes) -> None:
    """Remove C(name) in the directory C(parent) with all that it holds; nothing where it is missing.

    Raises C(RootfsError) where a mount point is in the way, and C(OSError).
    """
    if _unlink(parent, name):
        return
    fd = _open(parent, name, mount_id(parent))
    try:
        empty_directory(fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def empty_directory(fd: int, keep: frozenset[bytes] = frozenset()) -> None:
    """Remove all that a directory holds but the names in C(keep). Raises as C(remove_tree) does."""
    mount = mount_id(fd)
    for name in _names(fd, keep):
        _remove(fd, name, fd, mount, 1)


def _names(fd: int, keep: frozenset[bytes] = frozenset()) -> t.Iterator[bytes]:
    """The names in a directory from which each is taken away before the next, few of them held at a time."""
    for _pass in range(_MOST_PASSES):
        names = some_names_in(fd, _BATCH, keep)
        if not names:
            return
        yield from names


def _remove(parent: int, name: bytes, top: int, mount: int, depth: int) -> None:
    if _unlink(parent, name):
        return
    fd = _open(parent, name, mount)
    try:
        for below in _names(fd):
            if depth < _DEEPEST:
                _remove(fd, below, top, mount, depth + 1)
            elif not _unlink(fd, below):
                # the next pass over the top takes it from there
                os.rename(below, os.urandom(16).hex(), src_dir_fd=fd, dst_dir_fd=top)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def _unlink(parent: int, name: bytes) -> bool:
    """False for a directory, which is still there."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    except PermissionError:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return False
        raise
    return True


def _open(parent: int, name: bytes, mount: int) -> int:
    """A directory of the same mount, made removable where its owner closed it to himself."""
    if os.geteuid() != 0:
        path = os.open(name, _PATH, dir_fd=parent)
        try:
            os.chmod(f"/proc/self/fd/{path}", 0o700)
        finally:
            os.close(path)
    fd = os.open(name, _DIRECTORY, dir_fd=parent)
    if mount_id(fd) != mount:
        os.close(fd)
        raise RootfsError(
            f"the directory {show(name)} is a mount point inside of what is to be removed; unmount it and run again"
        )
    return fd
