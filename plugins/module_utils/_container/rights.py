# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Count files of a tree on disk that grant rights: set-id bits, file capabilities, device nodes."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter

from .._errors import RootfsError
from .._fs.descriptors import closed_on_error, opened
from .._fs.directories import DIRECTORY

_CAPABILITY = "security.capability"
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_ABSENT = (errno.ENODATA, errno.ENOTSUP, errno.ENOENT)
# Names of subdirectories that are held at a time, about 100 MB.
_MOST_WAITING = 1_000_000


def count_rights(top: int) -> dict[str, int]:
    """Count the files below the directory ``top`` that grant rights, by kinds of ``Report``.

    No link is followed, and depth takes no descriptors. Raises ``RootfsError`` if directories are moved meanwhile, or
    if one has too many subdirectories to hold their names.
    """
    walk = _Walk()
    following: int | None = os.open(b".", DIRECTORY, dir_fd=top)
    while following is not None:
        with opened(following) as current:
            following = walk.step(current)
    return dict(walk.counts)


class _Walk:
    """A walk through a tree that holds one descriptor, and the names that it has yet to visit."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        # names that are left in the current directory and in those above it, and the identities of the latter
        self._waiting: list[list[bytes]] = []
        self._above: list[os.stat_result] = []
        self._held = 0

    def step(self, current: int) -> int | None:
        """Count the files of the directory ``current`` on the first visit; open the next one, or return ``None``."""
        if len(self._waiting) == len(self._above):
            self._waiting.append(self._count_in(current))
        names = self._waiting[-1]
        while names:
            self._held -= 1
            below = _open_below(current, names.pop())
            if below is not None:
                self._above.append(os.fstat(current))
                return below
        self._waiting.pop()
        return _open_above(current, self._above.pop()) if self._above else None

    def _count_in(self, fd: int) -> list[bytes]:
        """Count the files of one directory, and return the names of its subdirectories."""
        directories = []
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                if stat.S_ISDIR(status.st_mode):
                    directories.append(os.fsencode(entry.name))
                    self._held += 1
                    if self._held > _MOST_WAITING:
                        raise RootfsError(
                            f"more than {_MOST_WAITING} directories lie beside each other, too many to look for files"
                            " that grant rights; remove what the container does not need"
                        )
                elif stat.S_ISREG(status.st_mode):
                    self.counts["setid_files"] += bool(status.st_mode & _SET_IDS)
                    self.counts["capabilities"] += _has_capability(fd, entry.name)
                elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                    self.counts["devices_created"] += 1
        return directories


def _has_capability(fd: int, name: str) -> bool:
    try:
        os.getxattr(f"/proc/self/fd/{fd}/{name}", _CAPABILITY, follow_symlinks=False)
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise
    return True


def _open_below(fd: int, name: bytes) -> int | None:
    try:
        return os.open(name, DIRECTORY, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            # removed or replaced since its name was read
            return None
        raise


def _open_above(fd: int, expected: os.stat_result) -> int:
    with closed_on_error(os.open(b"..", DIRECTORY, dir_fd=fd)) as above:
        if not os.path.samestat(os.fstat(above), expected):
            raise RootfsError(
                "directories of the root file system are moved while they are read; stop its container and run again"
            )
    return above
