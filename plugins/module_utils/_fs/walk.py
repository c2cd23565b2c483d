# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Walk through a tree by descriptor, of any depth, without following links."""

from __future__ import annotations

import errno
import os
import stat
import typing as t

from .._errors import RootfsError
from .descriptors import closed_on_error, opened
from .directories import DIRECTORY

# Names of subdirectories that are held at a time, about 100 MB.
_MOST_WAITING = 1_000_000


class Seen(t.NamedTuple):
    """A file, link or directory: its ``name`` in the directory ``fd`` at ``path``, and its status.

    ``path`` begins at the top of the walk, with a slash before each component; it is empty for the top itself. ``fd`` is
    valid until the next one is seen.
    """

    fd: int
    path: bytes
    name: bytes
    status: os.stat_result


def walk(top: int, what_for: str) -> t.Iterator[Seen]:
    """Yield everything below the directory ``top``; what is removed meanwhile is left out.

    Raises ``RootfsError`` if directories are moved meanwhile, or if one has too many subdirectories to hold their names;
    the message says ``what_for`` the tree is read.
    """
    way = _Way(what_for)
    following: int | None = os.open(b".", DIRECTORY, dir_fd=top)
    while following is not None:
        with opened(following) as current:
            if way.is_new():
                yield from way.read(current)
            following = way.step(current)


class _Way:
    """Where a walk is: it holds no descriptor, but the names that it has yet to visit."""

    def __init__(self, what_for: str) -> None:
        self._what_for = what_for
        # names that are left in the current directory and in those above it; the identities and names of the latter
        self._waiting: list[list[bytes]] = []
        self._above: list[tuple[os.stat_result, bytes]] = []
        self._path = b""
        self._held = 0

    def is_new(self) -> bool:
        """Return whether the current directory has not been read."""
        return len(self._waiting) == len(self._above)

    def read(self, fd: int) -> t.Iterator[Seen]:
        """Yield what the current directory holds, and note its subdirectories."""
        directories: list[bytes] = []
        self._waiting.append(directories)
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except FileNotFoundError:
                    continue
                name = os.fsencode(entry.name)
                if stat.S_ISDIR(status.st_mode):
                    self._hold(directories, name)
                yield Seen(fd, self._path, name, status)

    def step(self, current: int) -> int | None:
        """Open the next directory, or return ``None`` at the end."""
        names = self._waiting[-1]
        while names:
            self._held -= 1
            name = names.pop()
            below = _open_below(current, name)
            if below is not None:
                self._above.append((os.fstat(current), self._path))
                self._path += b"/" + name
                return below
        self._waiting.pop()
        if not self._above:
            return None
        expected, self._path = self._above.pop()
        return self._open_above(current, expected)

    def _hold(self, directories: list[bytes], name: bytes) -> None:
        directories.append(name)
        self._held += 1
        if self._held > _MOST_WAITING:
            raise RootfsError(
                f"more than {_MOST_WAITING} directories lie beside each other, too many {self._what_for}; remove what the"
                " container does not need"
            )

    def _open_above(self, fd: int, expected: os.stat_result) -> int:
        with closed_on_error(os.open(b"..", DIRECTORY, dir_fd=fd)) as above:
            if not os.path.samestat(os.fstat(above), expected):
                raise RootfsError(
                    "directories of the root file system are moved while they are read; stop its container and run again"
                )
        return above


def _open_below(fd: int, name: bytes) -> int | None:
    try:
        return os.open(name, DIRECTORY, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            # removed or replaced since its name was read
            return None
        raise
