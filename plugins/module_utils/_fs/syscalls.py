# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""System calls that Python has no function for, called through the C library."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import struct

# System call numbers by machine, for C libraries without a wrapper; every kernel has the call since 3.15.
_RENAMEAT2 = {
    "x86_64": 316,
    "aarch64": 276,
    "riscv64": 276,
    "loongarch64": 276,
    "armv7l": 382,
    "armv6l": 382,
    "armv8l": 382,
    "i386": 353,
    "i686": 353,
    "ppc64le": 357,
    "ppc64": 357,
    "s390x": 347,
}
_RENAME_NOREPLACE = 1
_RENAME_EXCHANGE = 2

# the same number on all machines that Python has names for, but alpha
_OPENAT2 = 547 if platform.machine() == "alpha" else 437
_OPEN_HOW = struct.Struct("=QQQ")
_RESOLVE_NO_XDEV = 0x01
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08

_AT_EMPTY_PATH = 0x1000
_STATX_BTIME = 0x800
_STATX_SIZE = 256
# stx_mask is the first field of struct statx; stx_btime is at offset 80
_STATX_MASK = struct.Struct("=I")
_STATX_BIRTH = struct.Struct("=qI")
_STATX_BIRTH_OFFSET = 80

# mallopt(3): how much freed memory is kept, and from which size on allocations are mapped one by one
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_KEPT = 8 * 1024 * 1024
# the most that a 32-bit C library accepts
_SINGLE = 512 * 1024

# ioctls of <linux/fs.h>; they read and write 32 bits, although their numbers encode the size of a long
_LONG = struct.calcsize("l")
_FLAGS = struct.Struct("=I")
_FS_IOC_GETFLAGS = 2 << 30 | _LONG << 16 | ord("f") << 8 | 1
_FS_IOC_SETFLAGS = 1 << 30 | _LONG << 16 | ord("f") << 8 | 2
_FS_PROTECTING = 0x10 | 0x20  # immutable, append-only
# attributes by which an administrator prepares a directory, by the letters of chattr
_FS_PREPARED = {
    "c": 0x4,
    "S": 0x8,
    "d": 0x40,
    "A": 0x80,
    "m": 0x400,
    "E": 0x800,
    "j": 0x4000,
    "D": 0x10000,
    "T": 0x20000,
    "C": 0x800000,
    "x": 0x2000000,
    "P": 0x20000000,
    "F": 0x40000000,
}

# ioctls of <linux/btrfs.h>
_SUBVOLUME_FLAGS = struct.Struct("=Q")
# the inode number of the root of every subvolume
_SUBVOLUME_INODE = 256
_BTRFS_IOC_SUBVOL_GETFLAGS = 2 << 30 | 8 << 16 | 0x94 << 8 | 25
_BTRFS_IOC_SUBVOL_SETFLAGS = 1 << 30 | 8 << 16 | 0x94 << 8 | 26
_BTRFS_SUBVOL_RDONLY = 2

# powerpc, mips, sparc and alpha encode the direction of an ioctl differently
if platform.machine().startswith(("ppc", "mips", "sparc", "alpha")):
    _FS_IOC_GETFLAGS = 2 << 29 | _LONG << 16 | ord("f") << 8 | 1
    _FS_IOC_SETFLAGS = 4 << 29 | _LONG << 16 | ord("f") << 8 | 2
    _BTRFS_IOC_SUBVOL_GETFLAGS = 2 << 29 | 8 << 16 | 0x94 << 8 | 25
    _BTRFS_IOC_SUBVOL_SETFLAGS = 4 << 29 | 8 << 16 | 0x94 << 8 | 26

_libc = ctypes.CDLL(None, use_errno=True)


def keep_freed_memory() -> None:
    """Have the C library keep up to ``_KEPT`` bytes of freed memory in each thread, if it supports that.

    Otherwise it returns freed memory to the system at once, and each chunk of a layer costs a page fault per 4 KiB.
    """
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(ctypes.c_int(_M_TRIM_THRESHOLD), ctypes.c_int(_KEPT))
        _libc.mallopt(ctypes.c_int(_M_MMAP_THRESHOLD), ctypes.c_int(_SINGLE))


def exchange(first_dir: int, first: bytes, second_dir: int, second: bytes) -> None:
    """Swap two names atomically. Raises ``OSError``, with ``ENOSYS`` or ``EINVAL`` if that is not supported."""
    _renameat2(first_dir, first, second_dir, second, _RENAME_EXCHANGE)


def rename_new(old_dir: int, old: bytes, new_dir: int, new: bytes) -> None:
    """Rename, but never replace anything. Raises ``OSError`` as ``exchange`` does."""
    _renameat2(old_dir, old, new_dir, new, _RENAME_NOREPLACE)


def has_syncfs() -> bool:
    """Return whether the C library can sync a single file system."""
    return hasattr(_libc, "syncfs")


def syncfs(fd: int) -> None:
    """Write out a whole file system. Raises ``OSError``, which means that data was lost."""
    if not has_syncfs():
        os.sync()
        return
    if _libc.syncfs(ctypes.c_int(fd)) != 0:
        raise last_error()


def open_beneath(top: int, path: bytes, flags: int) -> int:
    """Open a relative path below the directory ``top``, through no link and no mount (openat2).

    Raises ``OSError``: ``ELOOP`` for a link, ``EXDEV`` for a mount or a way out, ``ENOSYS`` or ``EPERM`` before Linux 5.6 and
    where a filter forbids the call.
    """
    how = _OPEN_HOW.pack(flags, 0, _RESOLVE_NO_XDEV | _RESOLVE_NO_MAGICLINKS | _RESOLVE_NO_SYMLINKS | _RESOLVE_BENEATH)
    fd = _libc.syscall(
        ctypes.c_long(_OPENAT2),
        ctypes.c_int(top),
        ctypes.c_char_p(path),
        ctypes.c_char_p(how),
        ctypes.c_size_t(len(how)),
    )
    if fd < 0:
        raise last_error()
    return int(fd)


def birth_time(fd: int) -> str | None:
    """Return when the file was made, as ``seconds.nanoseconds``, or ``None`` if that is unknown."""
    if not hasattr(_libc, "statx"):
        return None
    buffer = ctypes.create_string_buffer(_STATX_SIZE)
    failed = _libc.statx(
        ctypes.c_int(fd), ctypes.c_char_p(b""), ctypes.c_int(_AT_EMPTY_PATH), ctypes.c_uint(_STATX_BTIME), buffer
    )
    if failed or not _STATX_MASK.unpack_from(buffer, 0)[0] & _STATX_BTIME:
        return None
    seconds, nanoseconds = _STATX_BIRTH.unpack_from(buffer, _STATX_BIRTH_OFFSET)
    return f"{seconds}.{nanoseconds:09d}"


def mount_id(fd: int) -> int:
    """Return the ID of the mount that ``fd`` lies on. Raises ``OSError``."""
    with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
        for line in info:
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    raise OSError(errno.ENOSYS, "the kernel does not tell mounts apart")


def inode_flags(fd: int) -> int | None:
    """Return the attributes (see chattr) of a regular file or directory, or ``None`` if its file system has none.

    Never call it for a device, whose driver would interpret the ioctl as another one.
    """
    buffer = bytearray(8)
    try:
        fcntl.ioctl(fd, _FS_IOC_GETFLAGS, buffer)
    except OSError:
        return None
    return int(_FLAGS.unpack_from(buffer)[0])


def set_inode_flags(fd: int, flags: int) -> None:
    """Set the attributes of a regular file or directory. Raises ``OSError``."""
    buffer = bytearray(8)
    _FLAGS.pack_into(buffer, 0, flags)
    fcntl.ioctl(fd, _FS_IOC_SETFLAGS, buffer)


def without_protection(flags: int) -> int:
    """Return the attributes without the immutable and the append-only one."""
    return flags & ~_FS_PROTECTING


def lost_attributes(old: int, new: int) -> str:
    """Return the letters of chattr for the attributes that the directory ``old`` has and ``new`` does not have."""
    flags = (inode_flags(old) or 0) & ~(inode_flags(new) or 0)
    return "".join(letter for letter, flag in _FS_PREPARED.items() if flags & flag)


def copy_attributes(old: int, new: int) -> None:
    """Give a directory the attributes by which an administrator has prepared another one. Raises ``OSError``."""
    wanted, found = inode_flags(old) or 0, inode_flags(new) or 0
    prepared = sum(_FS_PREPARED.values())
    if (wanted ^ found) & prepared:
        set_inode_flags(new, found & ~prepared | wanted & prepared)


def is_read_only_subvolume(fd: int) -> bool:
    """Return whether a directory is the root of a read-only btrfs subvolume."""
    return bool((_subvolume_flags(fd) or 0) & _BTRFS_SUBVOL_RDONLY)


def is_subvolume(fd: int) -> bool:
    """Return whether a directory is the root of a btrfs subvolume."""
    return _subvolume_flags(fd) is not None


def is_subvolume_root(status: os.stat_result) -> bool:
    """Return whether a directory is the root of a subvolume by its inode number, which other objects have elsewhere."""
    return status.st_ino == _SUBVOLUME_INODE


def _subvolume_flags(fd: int) -> int | None:
    buffer = bytearray(_SUBVOLUME_FLAGS.size)
    try:
        fcntl.ioctl(fd, _BTRFS_IOC_SUBVOL_GETFLAGS, buffer)
    except OSError:
        # another file system, or a directory inside of a subvolume
        return None
    return int(_SUBVOLUME_FLAGS.unpack(buffer)[0])


def set_subvolume_writable(fd: int) -> None:
    """Make a btrfs subvolume writable. Raises ``OSError``."""
    fcntl.ioctl(fd, _BTRFS_IOC_SUBVOL_SETFLAGS, _SUBVOLUME_FLAGS.pack(0))


def _renameat2(old_dir: int, old: bytes, new_dir: int, new: bytes, flags: int) -> None:
    arguments = (
        ctypes.c_int(old_dir),
        ctypes.c_char_p(old),
        ctypes.c_int(new_dir),
        ctypes.c_char_p(new),
        ctypes.c_uint(flags),
    )
    if hasattr(_libc, "renameat2"):
        failed = _libc.renameat2(*arguments)
    else:
        call = _RENAMEAT2.get(platform.machine())
        # a 32-bit Python on a 64-bit kernel uses the numbers of another machine
        if call is None or struct.calcsize("P") * 8 != _bits(platform.machine()):
            raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
        failed = _libc.syscall(ctypes.c_long(call), *arguments)
    if failed:
        raise last_error()


def _bits(machine: str) -> int:
    return 64 if "64" in machine or machine == "s390x" else 32


def last_error() -> OSError:
    """Return the error of the last call through the C library in this thread."""
    code = ctypes.get_errno()
    return OSError(code, os.strerror(code))
