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


def count_rights(top: int) -> dict[str, int]:
    """Count the files below the directory ``top`` that grant rights, by kinds of ``Report``.

    No link is followed, and depth takes no descriptors. Raises ``RootfsError`` if directories are moved meanwhile.
    """
    counts: Counter[str] = Counter()
    # names that are left in the current directory and in those above it, and the identities of the latter
    waiting: list[list[bytes]] = []
    above: list[os.stat_result] = []
    following: int | None = os.open(b".", DIRECTORY, dir_fd=top)
    while following is not None:
        with opened(following) as current:
            if len(waiting) == len(above):
                waiting.append(_count_in(current, counts))
            following = _open_next(current, waiting, above)
    return dict(counts)


def _open_next(current: int, waiting: list[list[bytes]], above: list[os.stat_result]) -> int | None:
    """Open the next subdirectory, or the directory above after the last one; return ``None`` at the end."""
    while waiting[-1]:
        below = _open_below(current, waiting[-1].pop())
        if below is not None:
            above.append(os.fstat(current))
            return below
    waiting.pop()
    return _open_above(current, above.pop()) if above else None


def _count_in(fd: int, counts: Counter[str]) -> list[bytes]:
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
            elif stat.S_ISREG(status.st_mode):
                counts["setid_files"] += bool(status.st_mode & _SET_IDS)
                counts["capabilities"] += _has_capability(fd, entry.name)
            elif stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode):
                counts["devices_created"] += 1
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
