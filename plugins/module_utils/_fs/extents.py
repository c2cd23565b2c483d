# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Which bytes of files others share on file systems that share extents (Documentation/filesystems/fiemap.rst)."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import typing as t

from .descriptors import opened
from .walk import walk

# FS_IOC_FIEMAP: _IOWR('f', 11, struct fiemap), the same number on all machines
_FIEMAP = 0xC020660B
# start, length, flags, mapped extents, room for extents
_HEAD = struct.Struct("=QQIII4x")
# logical offset, physical offset, length, flags
_EXTENT = struct.Struct("=QQQ16xI12x")
_ROOM = 512
_SYNC = 1
_LAST, _INLINE, _SHARED = 0x1, 0x200, 0x2000
_WITHOUT = (errno.ENOTSUP, errno.ENOTTY, errno.EINVAL)
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Files with several names that are told from each other.
_MOST_LINKED = 1_000_000


class Extents(t.NamedTuple):
    """Bytes of files that nothing else on the file system shares, and bytes that something does."""

    exclusive: int
    shared: int


def measure_extents(top: int) -> Extents | None:
    """Add up the extents of all files below a directory; ``None`` if the file system does not tell.

    A file with several names counts once. Small files that are kept in the metadata do not count. Compressed extents
    count with their length in the file. Raises ``RootfsError`` and ``OSError``.
    """
    exclusive = shared = 0
    linked: set[int] = set()
    for seen in walk(top, "to add up its size"):
        status = seen.status
        if not stat.S_ISREG(status.st_mode) or status.st_ino in linked:
            continue
        if status.st_nlink > 1 and len(linked) < _MOST_LINKED:
            linked.add(status.st_ino)
        with opened(os.open(seen.name, _READ, dir_fd=seen.fd)) as fd:
            found = _extents_of(fd)
        if found is None:
            return None
        exclusive += found.exclusive
        shared += found.shared
    return Extents(exclusive, shared)


def _extents_of(fd: int) -> Extents | None:
    exclusive = shared = start = 0
    while True:
        buffer = bytearray(_HEAD.size + _ROOM * _EXTENT.size)
        _HEAD.pack_into(buffer, 0, start, (1 << 64) - 1 - start, _SYNC, 0, _ROOM)
        try:
            fcntl.ioctl(fd, _FIEMAP, buffer)
        except OSError as error:
            if error.errno in _WITHOUT:
                return None
            raise
        count, flags, before = _HEAD.unpack_from(buffer)[3], _LAST, start
        for place in range(count):
            logical, _physical, length, flags = _EXTENT.unpack_from(buffer, _HEAD.size + place * _EXTENT.size)
            start = logical + length
            if flags & _INLINE:
                continue
            if flags & _SHARED:
                shared += length
            else:
                exclusive += length
        if flags & _LAST or start <= before:
            return Extents(exclusive, shared)
