# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remember which files may belong into the inventory while layers are applied.

Whiteouts, later layers and links change what an entry made, so ``take_inventory`` looks at the finished tree. The
candidates only save it from looking at every file. Where they would take too much memory, it walks through the tree.
"""

from __future__ import annotations

import os
import stat
import typing as t

from .._layer.entry import BLOCK_DEVICE, CHARACTER_DEVICE, DIRECTORY, SYMLINK, Entry
from . import capability

if t.TYPE_CHECKING:
    from .root import Directory

_SET_IDS = stat.S_ISUID | stat.S_ISGID
_INTERESTING = _SET_IDS | stat.S_IWOTH
_DEVICES = (BLOCK_DEVICE, CHARACTER_DEVICE)
_CAPABILITY = capability.NAME.encode()
_MOST_BYTES = 8 * 1024 * 1024
# What a path takes beyond its length.
_PATH_COST = 120
# Files of one owner that are remembered: most images have many files of an owner that their passwd knows.
_MOST_OWNED = 2_000


class Candidates:
    """Paths of files that may have set-id bits, capabilities, a device number, or be writable by everybody.

    ``owned`` has the files of each user and group of the container but root, by ids; ``None`` if there are too many.
    ``complete`` is false if not all are known.
    """

    def __init__(self) -> None:
        self.paths: set[bytes] = set()
        self.owned: dict[tuple[int, int], set[bytes] | None] = {}
        self.complete = True
        self._left = _MOST_BYTES
        self._last: Directory | None = None
        self._above = b""

    def to_dict(self) -> dict[str, t.Any]:
        """Return what is remembered, as values of JSON."""
        return {
            "complete": self.complete,
            "paths": _texts(self.paths),
            "owned": [[*owner, None if paths is None else _texts(paths)] for owner, paths in self.owned.items()],
        }

    def go_on_from(self, value: t.Mapping[str, t.Any]) -> None:
        """Remember what earlier layers brought, see ``to_dict``."""
        self.complete = value["complete"]
        self.paths = set(map(os.fsencode, value["paths"]))
        self.owned = {
            (uid, gid): None if paths is None else set(map(os.fsencode, paths)) for uid, gid, paths in value["owned"]
        }
        known = [self.paths, *(paths for paths in self.owned.values() if paths is not None)]
        self._left -= sum(len(path) + _PATH_COST for paths in known for path in paths)

    def note(self, parent: Directory, name: bytes, entry: Entry) -> None:
        """Remember an entry that was made at ``name`` in ``parent`` if it may belong into the inventory."""
        kind, mode = entry.type, entry.mode
        is_sticky = kind == DIRECTORY and mode & stat.S_ISVTX
        if (
            kind in _DEVICES
            or _CAPABILITY in entry.xattrs
            or (mode & _INTERESTING and kind != SYMLINK and not is_sticky)
        ):
            self._remember(self.paths, parent, name)
        if entry.uid or entry.gid:
            self._note_owner(parent, name, entry.uid, entry.gid)

    def note_link(self, parent: Directory, name: bytes) -> None:
        """Remember another name of a file."""
        self._remember(self.paths, parent, name)

    def _note_owner(self, parent: Directory, name: bytes, uid: int, gid: int) -> None:
        owned = self.owned.setdefault((uid, gid), set())
        if owned is None:
            return
        if len(owned) < _MOST_OWNED:
            self._remember(owned, parent, name)
        else:
            self.owned[uid, gid] = None

    def _remember(self, paths: set[bytes], parent: Directory, name: bytes) -> None:
        if not self.complete:
            return
        path = self._path_of(parent) + b"/" + name
        self._left -= len(path) + _PATH_COST
        if self._left < 0:
            self.complete = False
            self.paths.clear()
            self.owned.clear()
            return
        paths.add(path)

    def _path_of(self, directory: Directory) -> bytes:
        if directory is not self._last:
            parts = []
            above: Directory | None = directory
            while above is not None and above.parent is not None:
                parts.append(b"/" + above.name)
                above = above.parent
            self._last, self._above = directory, b"".join(reversed(parts))
        return self._above


def _texts(paths: t.Iterable[bytes]) -> list[str]:
    return sorted(map(os.fsdecode, paths))
