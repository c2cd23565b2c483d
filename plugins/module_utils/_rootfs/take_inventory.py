# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Take the inventory of a finished tree (docs/behaviour.md, section 13)."""

from __future__ import annotations

import errno
import os
import stat
import typing as t
from dataclasses import dataclass

from .._fs.walk import walk
from .._inventory.capability_names import decode
from .._inventory.inventory import CAPABILITIES, DEVICES, SETGID, SETUID, UNOWNED, WORLD_WRITABLE, Collector, Inventory
from . import capability
from .candidates import Candidates
from .ids import IdMap, UnmappedError
from .root import Root
from .users import parse_accounts, parse_id, read_fields

_NO_CAPABILITY = (errno.ENODATA, errno.ENOTSUP)


@dataclass(frozen=True)
class Ids:
    """The ids of the container: its maps, and the ids of the host that its own passwd and group know.

    ``known_uids`` and ``known_gids`` are ``None`` if all files belong to whoever unpacked them.
    """

    uids: IdMap
    gids: IdMap
    known_uids: frozenset[int] | None
    known_gids: frozenset[int] | None

    @classmethod
    def read(cls, root: Root, uids: IdMap, gids: IdMap, preserve: bool) -> Ids:
        """Read passwd and group of the root; root itself is always known."""
        if not preserve:
            return cls(uids, gids, None, None)
        accounts = parse_accounts(read_fields(root, b"etc/passwd"))
        groups = [parse_id(fields[2]) for fields in read_fields(root, b"etc/group") if len(fields) > 2]
        return cls(
            uids,
            gids,
            _on_host(uids, [0, *(account.uid for account in accounts)]),
            _on_host(gids, [0, *(account.gid for account in accounts), *(gid for gid in groups if gid is not None)]),
        )

    def knows(self, uid: int, gid: int) -> bool:
        """Return whether a file of these ids of the host belongs to an account and a group of the container."""
        if self.known_uids is None or self.known_gids is None:
            return True
        return uid in self.known_uids and gid in self.known_gids


def take_inventory(root: Root, candidates: Candidates, ids: Ids) -> Inventory:
    """Return the inventory of the tree, whose directories are finished. Raises ``OSError`` and ``RootfsError``."""
    look = _Look(ids)
    top = root.fd(root.top)
    look.at(top, b".", b"/", os.fstat(top))
    unknown = _unknown_owners(candidates, ids)
    if not candidates.complete or any(candidates.owned[owner] is None for owner in unknown):
        for seen in walk(top, "for an inventory"):
            look.at(seen.fd, seen.name, seen.path + b"/" + seen.name, seen.status)
        return look.collector.inventory()
    paths = candidates.paths.union(*(candidates.owned[owner] or () for owner in unknown))
    for path in sorted(paths):
        _look_at_path(look, root, path)
    return look.collector.inventory()


def _unknown_owners(candidates: Candidates, ids: Ids) -> list[tuple[int, int]]:
    return [owner for owner in candidates.owned if not ids.knows(*_owner_on_host(ids, owner))]


def _owner_on_host(ids: Ids, owner: tuple[int, int]) -> tuple[int, int]:
    return ids.uids.to_host(owner[0]), ids.gids.to_host(owner[1])


def _look_at_path(look: _Look, root: Root, path: bytes) -> None:
    """Look at a path if it still leads there by directories alone."""
    *above, name = path.split(b"/")[1:]
    directory = root.top
    for part in above:
        below = directory.children.get(part)
        if below is None:
            return
        directory = below
    fd = root.fd(directory)
    try:
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    look.at(fd, name, path, status)


class _Look:
    """Judges what is at a name by its status and capability alone."""

    def __init__(self, ids: Ids) -> None:
        self.collector = Collector()
        self._ids = ids
        self._root = _mapped(ids.uids, 0)

    def at(self, fd: int, name: bytes, path: bytes, status: os.stat_result) -> None:
        """Add a file to each kind that it belongs to."""
        mode = status.st_mode
        shown = os.fsdecode(path)
        add = self.collector.add
        if stat.S_ISREG(mode):
            if mode & stat.S_ISUID:
                add(SETUID, shown, {"uid": self._ids.uids.to_container(status.st_uid)})
            if mode & stat.S_ISGID:
                add(SETGID, shown, {"gid": self._ids.gids.to_container(status.st_gid)})
            held = _capability_of(fd, name)
            if held is not None:
                add(CAPABILITIES, shown, decode(held, self._root))
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            kind = "c" if stat.S_ISCHR(mode) else "b"
            add(DEVICES, shown, {"device": f"{kind} {os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"})
        if _is_world_writable(mode):
            add(WORLD_WRITABLE, shown, {"type": "directory" if stat.S_ISDIR(mode) else "file"})
        if not self._ids.knows(status.st_uid, status.st_gid):
            uid, gid = self._ids.uids.to_container(status.st_uid), self._ids.gids.to_container(status.st_gid)
            add(UNOWNED, shown, {"uid": uid, "gid": gid})


def _is_world_writable(mode: int) -> bool:
    if not mode & stat.S_IWOTH:
        return False
    if stat.S_ISDIR(mode):
        return not mode & stat.S_ISVTX
    # links have no mode, and what a device gives away is a kind of its own
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode)


def _capability_of(fd: int, name: bytes) -> bytes | None:
    try:
        return os.getxattr(b"/proc/self/fd/%d/%b" % (fd, name), capability.NAME, follow_symlinks=False)
    except OSError as error:
        if error.errno in _NO_CAPABILITY:
            return None
        raise


def _on_host(ids: IdMap, numbers: t.Iterable[int]) -> frozenset[int]:
    return frozenset(host for host in (_mapped(ids, number) for number in numbers) if host >= 0)


def _mapped(ids: IdMap, number: int) -> int:
    """Return an id of the host; ``-1`` if the container has no such id."""
    try:
        return ids.to_host(number)
    except UnmappedError:
        return -1
