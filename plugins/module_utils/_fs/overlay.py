# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Mount an overlay for this process alone (docs/behaviour.md, section 16).

A mount is made in a mount namespace of its own, and taken out of it at once: nothing shows it, nothing has to unmount it, and
it ends with the last descriptor in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import typing as t
from dataclasses import dataclass

from .._errors import RootfsError
from .descriptors import closed_on_error, opened
from .directories import DIRECTORY, open_existing
from .syscalls import last_error

_CLONE_NEWNS = 0x20000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 2, 4, 8
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_MNT_DETACH = 2
# a directory that every node has, covered in the namespace alone
_POINT = b"/proc"
# What one kernel stores in an upper directory, others must read; and no container may redirect a directory of its own.
OPTIONS = "index=off,metacopy=off,redirect_dir=nofollow,nfs_export=off"
# One page, less what the kernel needs itself.
_MOST_OPTIONS = 4094

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True)
class Lowers:
    """The lower directories of an overlay: names in the directory ``folder``, the top first."""

    folder: int
    names: t.Sequence[str]


def open_overlay(lowers: Lowers, upper: int | None = None) -> int:
    """Mount an overlay and return a descriptor of its root, with which the mount ends.

    ``upper`` is a directory with ``upper`` and ``work``. Raises ``OSError`` and ``RootfsError``.
    """
    with _private_namespace() as again:
        os.fchdir(again(lowers.folder))
        options = f"lowerdir={':'.join(lowers.names)},{OPTIONS}"
        if upper is not None:
            beside = f"/proc/self/fd/{again(upper)}"
            options += f",upperdir={beside}/upper,workdir={beside}/work"
        return _mounted(options)


def open_read_only(lowers: Lowers, upper: int) -> int:
    """The same for reading alone; the upper directory may be part of another mount. Raises ``OSError`` and ``RootfsError``."""
    with _private_namespace() as again:
        os.fchdir(again(lowers.folder))
        top = f"/proc/self/fd/{again(upper)}/upper"
        return _mounted(f"lowerdir={top}:{':'.join(lowers.names)},{OPTIONS}")


def is_mounted(upper: int) -> bool:
    """Return whether the directory ``upper`` in a directory is that of an overlay in any mount namespace.

    The kernel refuses a second mount with ``index=on`` before it looks at the work directory, which would be refused, too.
    Raises ``OSError`` and ``RootfsError``.
    """
    with _private_namespace() as again:
        beside = f"/proc/self/fd/{again(upper)}"
        options = f"lowerdir={beside}/work,upperdir={beside}/upper,workdir={beside}/upper,index=on"
        try:
            os.close(_mounted(options))
        except OSError as error:
            return error.errno == errno.EBUSY
    return False


def require_overlays() -> None:
    """Mount an overlay of a file system in memory, which nobody sees. Raises ``OSError`` if that is not possible."""
    with _private_namespace():
        _mount(b"tmpfs", _POINT, b"tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, b"size=64k")
        with opened(os.open(_POINT, DIRECTORY)) as folder:
            os.fchdir(folder)
            for name in ("a", "b"):
                os.mkdir(name, 0o700)
            os.close(_mounted(f"lowerdir=a:b,{OPTIONS}"))


def _mounted(options: str) -> int:
    data = options.encode("ascii")
    if len(data) > _MOST_OPTIONS:
        raise OSError(errno.E2BIG, "too many layers for one mount")
    _mount(b"overlay", _POINT, b"overlay", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, data)
    with closed_on_error(os.open(_POINT, DIRECTORY)) as fd:
        _check(_libc.umount2(_POINT, _MNT_DETACH))
    return fd


@contextlib.contextmanager
def _private_namespace() -> t.Iterator[t.Callable[[int], int]]:
    """Enter a mount namespace of this thread's own for a block, which gets a function that opens directories again in it."""
    with contextlib.ExitStack() as stack:

        def keep(fd: int) -> int:
            return stack.enter_context(opened(fd))

        def again(fd: int) -> int:
            return keep(_opened_again(fd))

        # joining a namespace changes both
        root, here = (keep(os.open(path, DIRECTORY)) for path in ("/", "."))
        former = keep(os.open("/proc/thread-self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC))
        _check(_libc.unshare(ctypes.c_int(_CLONE_NEWNS)))
        try:
            _mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None)
            yield again
        finally:
            _check(_libc.setns(ctypes.c_int(former), ctypes.c_int(_CLONE_NEWNS)))
            os.fchdir(root)
            os.chroot(".")
            os.fchdir(here)


def _opened_again(fd: int) -> int:
    """Open a directory in the namespace of this thread, of whose mounts alone it can make others."""
    path = os.readlink(f"/proc/self/fd/{fd}")
    found, missing = open_existing(os.fsencode(path))
    with closed_on_error(found):
        if missing or not os.path.sameopenfile(fd, found):
            raise RootfsError(f"{path!r} was replaced while it was being mounted; run again")
    return found


def _mount(source: bytes | None, point: bytes, kind: bytes | None, flags: int, data: bytes | None) -> None:
    _check(_libc.mount(source, point, kind, ctypes.c_ulong(flags), data))


def _check(failed: int) -> None:
    if failed:
        raise last_error()
