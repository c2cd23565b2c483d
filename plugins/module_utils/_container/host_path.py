# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Paths of the host: links on the way are followed where nobody but the administrator can have made them.

A container's volumes are the container's: it can put a link to any place of the host into one. So no path of the host
may lead through what a container can write to, and none through a link of another user (docs/behaviour.md, section 9).
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t

from .._errors import RootfsError, show
from .lookup import Found, look_up

_OTHERS_WRITE = 0o022


class HostPaths:
    """Resolves paths of the host; ``writable`` are the directories that containers can write to.

    ``/`` does not count as one: a container that has it is not held back by anything.
    """

    def __init__(self, writable: t.Iterable[str] = ()) -> None:
        self._texts = [os.path.normpath(path) for path in writable]
        self._writable: dict[tuple[int, int], str] = {}
        for path in self._texts:
            # one that is missing has nothing in it yet
            with contextlib.suppress(OSError):
                self._writable[_identity(os.stat(path))] = path
        self._writable.pop(_identity(os.stat("/")), None)

    @contextlib.contextmanager
    def open(self, path: str) -> t.Iterator[Found]:
        """Resolve an absolute path. Raises ``RootfsError`` where others than the administrator decide where it leads."""
        if not path.startswith("/"):
            raise RootfsError(
                f"the path {show(path)} is not absolute; write it from / on"
            )
        self._require_apart(path)

        def guard(above: int, name: bytes, fd: int) -> None:
            self._require_trusted(path, above, name, fd)

        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with look_up(root, os.fsencode(path), guard) as found:
                yield found
        finally:
            os.close(root)

    @contextlib.contextmanager
    def open_above(self, path: str) -> t.Iterator[Found]:
        """As ``open``, for the directory that holds the last component, which is the caller's to open without following."""
        above, name = os.path.split(os.path.normpath(path))
        self._require_apart(path)
        with self.open(above) as found:
            if not found.missing:
                self._require_trusted(path, found.fd, os.fsencode(name), -1)
            yield found

    def _require_apart(self, path: str) -> None:
        """By their texts, since what is missing has no identity."""
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
                " choose a path without it"
            )


def is_closed(status: os.stat_result) -> bool:
    """Whether only root and the caller can replace what the directory with this ``status`` holds of theirs."""
    if status.st_uid not in (0, os.geteuid()):
        return False
    # as /tmp: nobody can rename or remove what is another's
    return bool(status.st_mode & stat.S_ISVTX) or not status.st_mode & _OTHERS_WRITE


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _below_writable(path: str, place: str) -> RootfsError:
    return RootfsError(
        f"the path {show(path)} leads through {show(place)}, to which a container can write, so the container could lead"
        " it to any place of the node; choose a path outside of that"
    )
