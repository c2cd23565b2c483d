# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Properties and quota groups of btrfs subvolumes (<linux/btrfs.h>, <linux/btrfs_tree.h>)."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import typing as t

from .btrfs import READ, WRITE, ioctl_number, subvolume_number
from .syscalls import copy_attributes

_QUOTA_TREE = 8
_LIMIT, _RELATION = 244, 246
# struct btrfs_ioctl_search_key: tree, ranges of objectid, offset, transid and type, number of items, unused
_KEY = struct.Struct("=7Q4I4Q")
_ARGUMENTS_SIZE = 4096
# struct btrfs_ioctl_search_header: transid, objectid, offset, type, length
_HEADER = struct.Struct("=3Q2I")
# struct btrfs_qgroup_limit_item: flags, and four numbers of bytes; on disk little-endian
_LIMITS = struct.Struct("<5Q")
_LIMIT_ARGUMENTS = struct.Struct("=6Q")
_ASSIGN_ARGUMENTS = struct.Struct("=3Q")
_LAST = 2**64 - 1
_MOST_ITEMS = 64
_TREE_SEARCH = ioctl_number(READ | WRITE, 17, _ARGUMENTS_SIZE)
_QGROUP_ASSIGN = ioctl_number(WRITE, 41, _ASSIGN_ARGUMENTS.size)
_QGROUP_LIMIT = ioctl_number(READ, 43, _LIMIT_ARGUMENTS.size)


def carry_over(old: int, new: int) -> None:
    """Give the subvolume ``new`` the properties, the limits and the parent groups of another one. Raises ``OSError``."""
    for name in os.listxattr(old):
        if name.startswith("btrfs."):
            os.setxattr(new, name, os.getxattr(old, name))
    copy_attributes(old, new)
    number, former = subvolume_number(new), subvolume_number(old)
    for limits, _offset in _found(old, _LIMIT, (0, 0), (former, former)):
        fields = _LIMITS.unpack_from(limits)
        if fields[0]:
            fcntl.ioctl(new, _QGROUP_LIMIT, bytearray(_LIMIT_ARGUMENTS.pack(0, *fields)))
    for parent in _parents(old, former):
        fcntl.ioctl(new, _QGROUP_ASSIGN, bytearray(_ASSIGN_ARGUMENTS.pack(1, number, parent)))


def _parents(fd: int, number: int) -> list[int]:
    """Return the groups that a subvolume's own one belongs to: those of a higher level."""
    return [offset for _data, offset in _found(fd, _RELATION, (number, number), (0, _LAST)) if offset >> 48]


def _found(fd: int, kind: int, objects: tuple[int, int], offsets: tuple[int, int]) -> t.Iterator[tuple[bytes, int]]:
    """Yield the items of the quota tree in a range, with their offsets; none without quotas."""
    key = _KEY.pack(_QUOTA_TREE, *objects, *offsets, 0, _LAST, kind, kind, _MOST_ITEMS, 0, 0, 0, 0, 0)
    buffer = bytearray(key.ljust(_ARGUMENTS_SIZE, b"\0"))
    try:
        fcntl.ioctl(fd, _TREE_SEARCH, buffer)
    except OSError as error:
        if error.errno == errno.ENOENT:
            return
        raise
    count = _KEY.unpack_from(buffer)[9]
    place = _KEY.size
    for _item in range(count):
        _transid, _object, offset, _kind, length = _HEADER.unpack_from(buffer, place)
        place += _HEADER.size
        yield bytes(buffer[place : place + length]), offset
        place += length
