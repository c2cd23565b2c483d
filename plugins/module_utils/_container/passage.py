# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Let the root of an id map pass a directory, and nobody else: by an ACL entry, or by the directory's group."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
import typing as t

from .._errors import RootfsError, show
from .._rootfs import acl
from .._rootfs.ids import IdMap
from .._dest.reach import MappedRoot, read_acl

_SEARCH = 1
# attempts to lock a directory, and the seconds between two of them
_ATTEMPTS = 50
_PAUSE = 0.1
_NO_MAP = IdMap("id")


def can_pass(fd: int, root: MappedRoot) -> bool:
    """Return whether the kernel lets the root of an id map pass a directory."""
    status = os.fstat(fd)
    if status.st_uid == root.uid:
        return bool(status.st_mode & stat.S_IXUSR)
    # the kernel ignores an ACL whose mask is empty
    masked_out = not status.st_mode & stat.S_IRWXG
    entries = [] if masked_out else read_acl(fd)
    entries = entries or _entries_of(status.st_mode)
    for entry in entries:
        if entry.tag == acl.USER and entry.id == root.uid:
            return bool(entry.permissions & _SEARCH)
    groups = [
        bool(entry.permissions & _SEARCH)
        for entry in entries
        if (entry.tag == acl.GROUP_OBJ and status.st_gid == root.gid)
        or (entry.tag == acl.GROUP and entry.id == root.gid)
    ]
    return any(groups) if groups else bool(status.st_mode & stat.S_IXOTH)


def let_pass(fd: int, root: MappedRoot, path: str) -> None:
    """Let the root of an id map pass a directory without changing the rights of others.

    Raises ``RootfsError`` if the file system has no ACLs and the directory's group has rights already.
    """
    if not add_entry(fd, root):
        let_pass_by_group(fd, root, path)


def let_pass_by_group(fd: int, root: MappedRoot, path: str) -> None:
    """Give a directory to the group of an id map's root, and let that group pass it.

    Raises ``RootfsError`` if the present group has rights.
    """
    mode = stat.S_IMODE(os.fstat(fd).st_mode)
    if mode & stat.S_IRWXG:
        raise RootfsError(
            f"the container's root (user {root.uid} of the node) cannot pass {show(path)}, which is open to another group;"
            f" run chown root:{root.gid} and chmod 0710 on it, or choose another path"
        )
    os.fchown(fd, -1, root.gid)
    os.fchmod(fd, mode | stat.S_IXGRP)


def add_entry(fd: int, root: MappedRoot) -> bool:
    """Add an ACL entry that lets the root of an id map pass; return false if the file system has no ACLs."""
    with _locked(fd):
        return _add_entry(fd, root)


@contextlib.contextmanager
def _locked(fd: int) -> t.Iterator[None]:
    """Serialise runs for several containers; continue without the lock if another process keeps it."""
    for _attempt in range(_ATTEMPTS):
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        time.sleep(_PAUSE)
    try:
        yield
    finally:
        fcntl.flock(fd, fcntl.LOCK_UN)


def _add_entry(fd: int, root: MappedRoot) -> bool:
    entries = read_acl(fd) or _entries_of(os.fstat(fd).st_mode)
    # rights that the mask has hidden must stay hidden when the mask grows
    kept = [entry for entry in entries if entry.tag != acl.MASK and (entry.tag, entry.id) != (acl.USER, root.uid)]
    masked = [e for e in kept if e.tag in (acl.USER, acl.GROUP_OBJ, acl.GROUP)]
    mask = _SEARCH
    for entry in masked:
        mask |= entry.permissions
    kept.append(acl.AclEntry(acl.USER, _SEARCH, root.uid))
    kept.append(acl.AclEntry(acl.MASK, mask, acl.NO_ID))
    kept.sort(key=lambda entry: (entry.tag, entry.id))
    try:
        os.setxattr(fd, acl.ACCESS, acl.to_binary(kept, _NO_MAP, _NO_MAP))
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return False
        raise
    return True


def _entries_of(mode: int) -> list[acl.AclEntry]:
    return [
        acl.AclEntry(tag, mode >> shift & 7, acl.NO_ID)
        for tag, shift in ((acl.USER_OBJ, 6), (acl.GROUP_OBJ, 3), (acl.OTHER, 0))
    ]
