# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Open paths of a tree that somebody else may change meanwhile: below its root, through no link and no mount."""

from __future__ import annotations

import errno
import os
import stat

from .descriptors import closed_on_error, opened
from .directories import DIRECTORY
from .syscalls import mount_id, open_beneath

# Errors of kernels without the call, and of filters that forbid it.
_NO_CALL = (errno.ENOSYS, errno.EPERM, errno.EINVAL)
# The kernel takes paths of less than 4,096 bytes.
_LONGEST = 2048
# Errors that say that a path is not, or no longer, what it was: gone, another type, behind a link or a mount.
ELSEWHERE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENXIO, errno.EAGAIN, errno.ESTALE)

_FILE = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_THROUGH = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Beneath:
    """Opens what lies below the directory ``top``, which the caller closes.

    Paths begin with a slash, and are those in the tree. Methods raise ``OSError`` with one of ``ELSEWHERE`` if a path leads
    through a link or a mount, or is gone.
    """

    def __init__(self, top: int) -> None:
        self.top = top
        self._mount: int | None = None
        self._has_call = True

    def directory(self, path: str) -> int:
        """Open a directory; the caller closes it."""
        return self._open(os.fsencode(path).strip(b"/"), DIRECTORY)

    def file(self, parent: int, name: str, flags: int = os.O_RDONLY) -> int:
        """Open a regular file in an open directory, and nothing else; the caller closes it."""
        # a FIFO does not block, and a device is never opened: its type is looked at first
        with opened(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)) as seen:
            status = os.fstat(seen)
            if not stat.S_ISREG(status.st_mode):
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
            # by the descriptor, so that it is the same object
            return os.open(f"/proc/self/fd/{seen}", flags | (_FILE & ~os.O_NOFOLLOW))

    def _open(self, path: bytes, flags: int) -> int:
        if not path:
            return os.open(b".", flags, dir_fd=self.top)
        if len(path) > _LONGEST:
            cut = path.rfind(b"/", 0, _LONGEST)
            with opened(self._open(path[:cut], _THROUGH)) as above:
                return Beneath(above)._open(path[cut + 1 :], flags)
        if self._has_call:
            try:
                return open_beneath(self.top, path, flags)
            except OSError as error:
                if error.errno not in _NO_CALL:
                    raise
                self._has_call = False
        return self._step_by_step(path.split(b"/"), flags)

    def _step_by_step(self, parts: list[bytes], flags: int) -> int:
        fd = os.open(b".", _THROUGH, dir_fd=self.top)
        for place, part in enumerate(parts):
            with opened(fd):
                last = place == len(parts) - 1
                fd = os.open(part, flags if last else _THROUGH, dir_fd=fd)
        with closed_on_error(fd):
            self._require_own(fd)
        return fd

    def _require_own(self, fd: int) -> None:
        """Raise ``EXDEV`` for what lies on another mount."""
        if self._mount is None:
            self._mount = mount_id(self.top)
        if mount_id(fd) != self._mount:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
