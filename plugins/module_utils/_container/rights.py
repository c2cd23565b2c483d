# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Count files of a tree on disk that grant rights: set-id bits, file capabilities, device nodes."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter

from .._fs.walk import walk

_CAPABILITY = "security.capability"
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_ABSENT = (errno.ENODATA, errno.ENOTSUP, errno.ENOENT)


def count_rights(top: int) -> dict[str, int]:
    """Count the files below the directory ``top`` that grant rights, by kinds of ``Report``.

    No link is followed, and depth takes no descriptors. Raises ``RootfsError`` if directories are moved meanwhile, or
    if one has too many subdirectories to hold their names.
    """
    counts: Counter[str] = Counter()
    for seen in walk(top, "to look for files that grant rights"):
        mode = seen.status.st_mode
        if stat.S_ISREG(mode):
            counts["setid_files"] += bool(mode & _SET_IDS)
            counts["capabilities"] += _has_capability(seen.fd, seen.name)
        elif stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            counts["devices_created"] += 1
    return dict(counts)


def _has_capability(fd: int, name: bytes) -> bool:
    try:
        os.getxattr(b"/proc/self/fd/%d/%b" % (fd, name), _CAPABILITY, follow_symlinks=False)
    except OSError as error:
        if error.errno in _ABSENT:
            return False
        raise
    return True
