# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the records of a node (docs/behaviour.md, section 14)."""

from __future__ import annotations

import errno
import os
import re
import typing as t

from .._errors import OciError, RootfsError, os_phrase, show
from .._fs.descriptors import opened, opened_or_none
from .._fs.directories import DIRECTORY, open_existing, open_private
from .dest_path import RECORD, DestPath, resolve_dest
from .record import dest_of

# Folders below the one that is searched, and how many of them are looked at in all.
_DEPTH = 2
_MOST_FOLDERS = 100_000
_ENDS = b".oci_rootfs"
_HASH = re.compile(r"[0-9a-f]{64}\Z")
_LARGEST_RECORD = 256 * 1024 * 1024


def find_dests(folders: t.Iterable[str]) -> list[str]:
    """Return the dests whose records lie in these folders, or up to two levels below them, sorted.

    Trees that are known are not entered, and a record counts only where its dest would have it. Raises ``RootfsError``.
    """
    search = _Search()
    for folder in map(os.path.realpath, folders):
        try:
            fd, missing = open_existing(os.fsencode(folder))
            with opened(fd):
                if not missing:
                    search.look_in(fd, folder, _DEPTH)
        except OSError as error:
            raise RootfsError(f"{show(folder)} cannot be searched: {os_phrase(error)}") from error
    return sorted(search.found)


def dest_of_state(path: str) -> str | None:
    """Return the dest that a private folder belongs to; ``None`` if its name does not tell and it has no record.

    Raises ``OSError``.
    """
    parent, name = os.path.split(path)
    if not name.startswith(".") or not name.endswith(os.fsdecode(_ENDS)):
        return None
    stem = name[1 : -len(_ENDS)]
    if _HASH.match(stem) is None:
        return os.path.join(parent, stem)
    # a long name was hashed
    fd, missing = open_existing(os.fsencode(parent))
    with opened(fd):
        dest = None if missing else _dest_in(fd, os.fsencode(name))
    return dest if dest is not None and os.path.dirname(dest) == parent else None


class _Search:
    def __init__(self) -> None:
        self.found: set[str] = set()
        self._left = _MOST_FOLDERS

    def look_in(self, fd: int, path: str, depth: int) -> None:
        """Add the dests that have their records in a folder, and look into those below it."""
        names = _folders_in(fd)
        self._left -= len(names)
        if self._left < 0:
            raise RootfsError(f"there are more than {_MOST_FOLDERS} folders to search; name fewer in folders")
        private = [name for name in names if name.endswith(_ENDS)]
        for name in private:
            self._add(fd, path, name)
        for name in names:
            below = os.path.join(path, os.fsdecode(name))
            if name in private or below in self.found:
                continue
            # a mount point has its record here
            self._add(fd, path, name)
            with opened_or_none(_open_below(fd, name) if depth else None) as folder:
                if folder is not None:
                    self.look_in(folder, below, depth - 1)

    def _add(self, fd: int, path: str, name: bytes) -> None:
        dest = _dest_in(fd, name)
        if dest is None:
            return
        try:
            location = resolve_dest(dest)
        except OciError:
            # not one of ours, such as a file that a container made
            return
        if _lies_in(location, path, name):
            self.found.add(location.path)


def _lies_in(location: DestPath, path: str, name: bytes) -> bool:
    return (location.state_parent, location.state_name) == (path, name)


def _folders_in(fd: int) -> list[bytes]:
    with os.scandir(fd) as entries:
        return [os.fsencode(entry.name) for entry in entries if entry.is_dir(follow_symlinks=False)]


def _open_below(fd: int, name: bytes) -> int | None:
    try:
        return os.open(name, DIRECTORY, dir_fd=fd)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            # removed or replaced meanwhile
            return None
        raise


def _dest_in(fd: int, name: bytes) -> str | None:
    """Return which dest the record in a private folder is for."""
    try:
        state = open_private(fd, name)
    except RootfsError:
        # of somebody else
        return None
    with opened_or_none(state) as folder:
        if folder is None:
            return None
        try:
            record = os.open(RECORD, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ELOOP):
                return None
            raise
        with os.fdopen(record, "rb") as file:
            return dest_of(file.read(_LARGEST_RECORD))
