# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Judge which users of the node can reach a tree, before it holds files that grant rights (docs/behaviour.md, section 7).

A tree is closed when some directory above it lets nobody pass but root, the user who runs the module, and the
container's own mapped root. Everything else counts as reachable: search permission for others, for a group, or
for somebody that an ACL names, and a directory that an ordinary user owns, since the owner can open it.
"""

from __future__ import annotations

import errno
import os
import stat
import typing as t
from dataclasses import dataclass

from .._errors import RootfsError, show
from .._fs.descriptors import opened
from .._rootfs import acl
from .._rootfs.ids import IdMap, UnmappedError

FAIL, WARN, ALLOW = "fail", "warn", "allow"
CHOICES = [FAIL, WARN, ALLOW]

_ABOVE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_SEARCH = 0o1
_EVERY_USER = "every user"
# The counts of a report that stand for rights, and the files that they count.
_RIGHTS = {
    "setid_files": "setuid or setgid files",
    "capabilities": "files with capabilities",
    "devices_created": "device nodes",
}


class MappedRoot(t.NamedTuple):
    """The host's ids of a container's root."""

    uid: int
    gid: int


def mapped_root(uids: IdMap, gids: IdMap) -> MappedRoot | None:
    """Return the host's ids of the root of an id map; ``None`` without a map, or if it does not map root."""
    if not uids.ranges or not gids.ranges:
        return None
    try:
        return MappedRoot(uids.to_host(0), gids.to_host(0))
    except UnmappedError:
        return None


@dataclass(frozen=True)
class Way:
    """A way to a tree that others can take: ``who`` can pass ``folder``, and all the other folders above the tree."""

    folder: str
    who: str


@dataclass(frozen=True)
class Spot:
    """Where a tree lies: below the open directory ``above``, whose path is ``folder``.

    ``option`` is the name of the option that gave ``path``.
    """

    option: str
    path: str
    above: int
    folder: str


@dataclass(frozen=True)
class ReachRule:
    """What to do with a tree that others can reach: ``fail``, ``warn`` or ``allow``."""

    choice: str = FAIL
    root: MappedRoot | None = None

    def judge(self, spot: Spot, rights: t.Mapping[str, int] | None, filling: bool) -> list[str]:
        """Return warnings about the ``rights`` that the files of a tree grant to users who can reach it.

        ``None`` stands for rights that are unknown until the image is unpacked. Raises ``RootfsError`` if this run is
        ``filling`` the tree and the choice is ``fail``.
        """
        found = None if rights is None else _phrase(rights)
        if self.choice == ALLOW or found == "" or spot.above < 0:
            return []
        way = find_way(spot.above, spot.folder, self.root)
        if way is None:
            return []
        seen = f"{way.who} can reach {show(spot.path)} through {show(way.folder)}"
        advice = f"{self._advice(way)}, choose another {spot.option}, or set reachable: warn or allow"
        if found is None:
            return [
                f"{seen}; an image with setuid or setgid files, capabilities or device nodes would"
                f" {'be refused' if self.choice == FAIL else 'cause a warning'} there: {advice}"
            ]
        if filling and self.choice == FAIL:
            raise RootfsError(f"{seen}, and the image has {found}; {advice}")
        return [f"{seen}, and the image has {found}; {advice}"]

    def _advice(self, way: Way) -> str:
        folder = show(way.folder)
        if self.root is None:
            return f"close {folder} to all but root (chown root:root, chmod 0700)"
        return f"close {folder} to all but the container's root" f" (chown root:{self.root.gid}, chmod 0710)"


def _phrase(rights: t.Mapping[str, int]) -> str:
    return ", ".join(f"{rights[kind]} {words}" for kind, words in _RIGHTS.items() if rights.get(kind))


def find_way(fd: int, path: str, root: MappedRoot | None = None) -> Way | None:
    """Return how others can pass from ``/`` to the directory ``fd``, whose path is ``path``; ``None`` if they cannot.

    The way names the nearest folder that lets only some users pass, otherwise the nearest one.
    """
    found: Way | None = None
    for current, folder in _upwards(fd, path):
        who = _who_passes(current, root)
        if who is None:
            return None
        if found is None or (found.who == _EVERY_USER and who != _EVERY_USER):
            found = Way(folder, who)
    return found


def everyone_passes(fd: int) -> bool:
    """Return whether the mode bits let every user pass from ``/`` to the directory ``fd``."""
    return all(os.fstat(current).st_mode & _SEARCH for current, _path in _upwards(fd, ""))


def _upwards(fd: int, path: str) -> t.Iterator[tuple[int, str]]:
    """Yield the directory ``fd``, and then each one above it up to ``/``, with its path."""
    following = os.dup(fd)
    is_top = False
    while not is_top:
        with opened(following) as current:
            yield current, path
            following = os.open(b"..", _ABOVE, dir_fd=current)
            is_top = os.path.samestat(os.fstat(current), os.fstat(following))
        path = os.path.dirname(path)
    os.close(following)


def _who_passes(fd: int, root: MappedRoot | None) -> str | None:
    """Return who can pass a directory, as a phrase; ``None`` if only root, this user and the container's root can."""
    status = os.fstat(fd)
    uids = {0, os.geteuid(), *(root[:1] if root else ())}
    gids = {0, *(root[1:] if root else ())}
    if status.st_mode & stat.S_IXOTH:
        return _EVERY_USER
    if status.st_uid not in uids:
        return f"user {status.st_uid}, the owner,"
    try:
        entries = read_acl(fd) or _of_mode(status.st_mode)
    except acl.AclError:
        # a file system in user space may answer anything
        return _EVERY_USER
    for entry in entries:
        if not entry.permissions & _SEARCH:
            continue
        if entry.tag == acl.USER and entry.id not in uids:
            return f"user {entry.id}"
        group = status.st_gid if entry.tag == acl.GROUP_OBJ else entry.id
        if entry.tag in (acl.GROUP_OBJ, acl.GROUP) and group not in gids:
            return f"group {group}"
    return None


def _of_mode(mode: int) -> list[acl.AclEntry]:
    return [acl.AclEntry(acl.GROUP_OBJ, mode >> 3 & 7, acl.NO_ID)]


def read_acl(fd: int) -> list[acl.AclEntry]:
    """Return the entries of a directory's access ACL as its mask limits them; empty without an ACL."""
    try:
        # a descriptor that is open for passing only has no attributes of its own to read
        value = os.getxattr(f"/proc/self/fd/{fd}", acl.ACCESS)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return []
        raise
    entries = acl.parse_binary(value)
    mask = next((entry.permissions for entry in entries if entry.tag == acl.MASK), 7)
    masked = (acl.USER, acl.GROUP_OBJ, acl.GROUP)
    return [
        (entry._replace(permissions=entry.permissions & mask) if entry.tag in masked else entry) for entry in entries
    ]
