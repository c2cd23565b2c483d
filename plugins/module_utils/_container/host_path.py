# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resolve paths of the host, and follow only links that nobody but the administrator can have made.

A container can put links to any path of the host into its volumes. So a path of the host must not lead through a
directory that a container can write to, nor through a link of another user (docs/behaviour.md, section 9).
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from .._errors import RootfsError, show
from .._fs.descriptors import opened
from .lookup import Found, look_up

_OTHERS_WRITE = 0o022


class HostPaths:
    """Resolves paths of the host; ``writable`` are the directories that containers can write to.

    ``/`` is ignored, because nothing can protect the host from a container that can write to all of it.
    """

    def __init__(self, writable: t.Iterable[str] = ()) -> None:
        self._texts = [os.path.normpath(path) for path in writable]
        self._writable: dict[tuple[int, int], str] = {}
        for path in self._texts:
            # a missing directory contains no links
            with contextlib.suppress(OSError):
                self._writable[_identity(os.stat(path))] = path
        self._writable.pop(_identity(os.stat("/")), None)

    @contextlib.contextmanager
    def open(self, path: str) -> t.Iterator[Found]:
        """Resolve an absolute path. Raises ``RootfsError`` if anybody but the administrator controls where it leads."""
        if not path.startswith("/"):
            raise RootfsError(f"the path {show(path)} is not absolute")
        self._require_apart(path)

        def guard(above: int, name: bytes, fd: int) -> None:
            self._require_trusted(path, above, name, fd)

        flags = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
        with opened(os.open("/", flags)) as root, look_up(root, os.fsencode(path), guard) as found:
            yield found

    @contextlib.contextmanager
    def open_above(self, path: str) -> t.Iterator[Found]:
        """Resolve the directory above the last component. The caller opens the last one without following it."""
        above, name = os.path.split(os.path.normpath(path))
        self._require_apart(path)
        with self.open(above) as found:
            if not found.missing:
                self._require_trusted(path, found.fd, os.fsencode(name), -1)
            yield found

    def _require_apart(self, path: str) -> None:
        """Compare the texts of paths, because missing directories cannot be compared by identity."""
        clean = os.path.normpath(path)
        for place in self._texts:
            if place != "/" and clean.startswith(place + "/"):
                raise _below_writable(path, place)

    def _require_trusted(self, path: str, above: int, name: bytes, fd: int) -> None:
        status = os.fstat(above)
        place = self._writable.get(_identity(status))
        if place is not None:
            raise _below_writable(path, place)
        if fd < 0:
            return
        entry = os.fstat(fd)
        if not stat.S_ISLNK(entry.st_mode):
            return
        if not is_closed(status) or entry.st_uid not in (0, os.geteuid()):
            raise RootfsError(
                f"the path {show(path)} leads through the link {show(name)}, which another user can change;"
                " choose another path"
            )


def is_closed(status: os.stat_result) -> bool:
    """Return whether only root and the caller can replace their files in a directory with this ``status``."""
    if status.st_uid not in (0, os.geteuid()):
        return False
    # as in /tmp, nobody can rename or remove files of others
    return bool(status.st_mode & stat.S_ISVTX) or not status.st_mode & _OTHERS_WRITE


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _below_writable(path: str, place: str) -> RootfsError:
    return RootfsError(
        f"the path {show(path)} leads through {show(place)}, which a container can write to and so redirect to any"
        " path of the node; choose a path outside of it"
    )
