# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Count what gives rights away in a tree that is on disk: set-id bits, file capabilities, device nodes."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter

from .._errors import RootfsError
from .._fs.directories import DIRECTORY

_CAPABILITY = "security.capability"
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_ABSENT = (errno.ENODATA, errno.ENOTSUP, errno.ENOENT)


def count_rights(top: int) -> dict[str, int]:
    """Count the files below the directory ``top`` that give rights away, by the names that a report has for them.

    No link is followed, and depth costs no descriptors. Raises ``RootfsError`` when directories move meanwhile.
    """
    counts: Counter[str] = Counter()
    current = os.open(b".", DIRECTORY, dir_fd=top)
    try:
        waiting = [_count_in(current, counts)]
        above: list[os.stat_result] = []
        while waiting:
            if waiting[-1]:
                below = _open_below(current, waiting[-1].pop())
                if below is None:
                    continue
                above.append(os.fstat(current))
                waiting.append(_count_in(below, counts))
            else:
                waiting.pop()
                if not above:
                    break
                below = _open_above(current, above.pop())
            os.close(current)
            current = below
        return dict(counts)
    finally:
        os.close(current)


def _count_in(fd: int, counts: Counter[str]) -> list[bytes]:
    """Count the files of one directory; returns the names of the directories in it."""
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
            # gone since its name was read
            return None
        raise


def _open_above(fd: int, expected: os.stat_result) -> int:
    above = os.open(b"..", DIRECTORY, dir_fd=fd)
    if os.path.samestat(os.fstat(above), expected):
        return above
    os.close(above)
    raise RootfsError(
        "directories of the root file system move while they are read; stop its container and run again"
    )
