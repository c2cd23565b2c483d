# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""ioctls of btrfs that this collection uses beyond flags: subvolumes and snapshots (<linux/btrfs.h>)."""

from __future__ import annotations

import fcntl
import os
import platform
import struct

_TYPE = 0x94
WRITE, READ, _SHIFT = (4, 2, 29) if platform.machine().startswith(("ppc", "mips", "sparc", "alpha")) else (1, 2, 30)

# struct btrfs_ioctl_vol_args: fd and name; struct btrfs_ioctl_vol_args_v2: fd, transid, flags, four unused, name
_ARGUMENTS = struct.Struct("=q4088s")
_ARGUMENTS_2 = struct.Struct("=qQQ32x4040s")
# struct btrfs_ioctl_fs_info_args: max_id, num_devices, fsid
_FS_INFO_SIZE = 1024
_FSID = slice(16, 32)
# struct btrfs_ioctl_get_subvol_info_args: treeid, name, parent_id, dirid, generation, flags, uuid
_SUBVOLUME_INFO_SIZE = 504
_UUID = slice(8 + 256 + 4 * 8, 8 + 256 + 4 * 8 + 16)


def ioctl_number(direction: int, number: int, size: int) -> int:
    """Return the number of an ioctl of btrfs, whose argument is read, written, or both."""
    return direction << _SHIFT | size << 16 | _TYPE << 8 | number


_SNAP_DESTROY = ioctl_number(WRITE, 15, 4096)
_SNAP_CREATE = ioctl_number(WRITE, 23, 4096)
_SUBVOL_CREATE = ioctl_number(WRITE, 24, 4096)
_SUBVOL_SETFLAGS = ioctl_number(WRITE, 26, 8)
_FS_INFO = ioctl_number(READ, 31, _FS_INFO_SIZE)
_SUBVOL_INFO = ioctl_number(READ, 60, _SUBVOLUME_INFO_SIZE)
_READ_ONLY = 2


def file_system_of(fd: int) -> bytes | None:
    """Return the id of the btrfs that a directory lies on, or ``None`` on another file system."""
    buffer = bytearray(_FS_INFO_SIZE)
    try:
        fcntl.ioctl(fd, _FS_INFO, buffer)
    except OSError:
        return None
    return bytes(buffer[_FSID])


def is_same_file_system(one: int, other: int) -> bool:
    """Return whether two directories lie on one file system; subvolumes of a btrfs have devices of their own."""
    if os.fstat(one).st_dev == os.fstat(other).st_dev:
        return True
    known = file_system_of(one)
    return known is not None and known == file_system_of(other)


def subvolume_number(fd: int) -> int:
    """Return the number of the subvolume that a directory lies in, which is that of its quota group. Raises ``OSError``."""
    buffer = bytearray(_SUBVOLUME_INFO_SIZE)
    fcntl.ioctl(fd, _SUBVOL_INFO, buffer)
    return int(struct.unpack_from("=Q", buffer)[0])


def subvolume_id(fd: int) -> str | None:
    """Return the UUID of the subvolume that a directory lies in, or ``None`` if it cannot be told."""
    buffer = bytearray(_SUBVOLUME_INFO_SIZE)
    try:
        fcntl.ioctl(fd, _SUBVOL_INFO, buffer)
    except OSError:
        return None
    return bytes(buffer[_UUID]).hex()


def make_subvolume(folder: int, name: bytes) -> None:
    """Make an empty subvolume. Raises ``OSError``."""
    _call(folder, _SUBVOL_CREATE, _ARGUMENTS_2.pack(0, 0, 0, name))


def make_snapshot(source: int, folder: int, name: bytes) -> None:
    """Make a writable snapshot of the subvolume ``source``. Raises ``OSError``."""
    _call(folder, _SNAP_CREATE, _ARGUMENTS_2.pack(source, 0, 0, name))


def make_read_only(fd: int) -> None:
    """Make a subvolume read-only. Raises ``OSError``."""
    fcntl.ioctl(fd, _SUBVOL_SETFLAGS, struct.pack("=Q", _READ_ONLY))


def destroy_subvolume(folder: int, name: bytes) -> bool:
    """Remove a subvolume that holds no other one; return false if it is none, or if that is not possible.

    The space becomes free a little later.
    """
    try:
        _call(folder, _SNAP_DESTROY, _ARGUMENTS.pack(0, name))
    except OSError:
        return False
    return True


def _call(fd: int, request: int, arguments: bytes) -> None:
    # Python passes only short values that cannot change
    fcntl.ioctl(fd, request, bytearray(arguments))
