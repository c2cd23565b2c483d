# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Keep files of a layer aside that are only targets of its hard links: AUFS's ``.wh..wh.plnk`` (docs/behaviour.md, section 5)."""

from __future__ import annotations

import os

from .._fs.descriptors import opened
from .._fs.directories import DIRECTORY, some_names_in

# The folder in layers and, while one is applied, in the root: no entry can have a name with this prefix there.
ASIDE = b".wh..wh.plnk"

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_BATCH = 1000


class Aside:
    """The files that one layer keeps aside, in a folder of the root ``top``; ``close`` removes them."""

    def __init__(self, top: int) -> None:
        self._top = top
        self._fd: int | None = None

    def create(self, name: bytes, mode: int) -> int:
        """Create a file and open it for writing; it replaces one of the same name. Raises ``OSError``."""
        if self._fd is None:
            os.mkdir(ASIDE, 0o700, dir_fd=self._top)
            self._fd = os.open(ASIDE, DIRECTORY, dir_fd=self._top)
        try:
            return os.open(name, _NEW_FILE, mode, dir_fd=self._fd)
        except FileExistsError:
            os.unlink(name, dir_fd=self._fd)
            return os.open(name, _NEW_FILE, mode, dir_fd=self._fd)

    def has(self, name: bytes) -> bool:
        """Return whether a file of this name was kept."""
        if self._fd is None:
            return False
        try:
            os.stat(name, dir_fd=self._fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def link(self, name: bytes, parent: int, new_name: bytes) -> None:
        """Link a file that was kept to a name in the directory ``parent``. Raises ``OSError``."""
        os.link(name, new_name, src_dir_fd=self._fd, dst_dir_fd=parent, follow_symlinks=False)

    def close(self) -> None:
        """Remove the folder. Raises ``OSError``."""
        if self._fd is None:
            return
        with opened(self._fd) as fd:
            self._fd = None
            while names := some_names_in(fd, _BATCH):
                for name in names:
                    os.unlink(name, dir_fd=fd)
        os.rmdir(ASIDE, dir_fd=self._top)
