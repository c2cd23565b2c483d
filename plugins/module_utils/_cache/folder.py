# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Open the folders of a cache, and remove files from them (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import typing as t

from .._errors import RootfsError, show
from .._fs.descriptors import closed_on_error, opened
from .._fs.directories import DIRECTORY
from .._source.range_reader import OPEN_FLAGS

READ = OPEN_FLAGS | os.O_NOFOLLOW

_OTHERS_WRITE = 0o022


def open_folders(path: str, names: t.Iterable[str], dry: bool, option: str = "cache_dir") -> dict[str, int]:
    """Open the folders of these names in the folder at ``path``, which is that ``option``, and return their descriptors.

    Missing folders are created; if ``dry``, they are left out. Links in ``path`` are the administrator's and are
    followed. Raises ``RootfsError`` if another user can change the folder or the way to it, and ``OSError``.
    """
    folders: dict[str, int] = {}
    with contextlib.ExitStack() as walk:
        current = walk.enter_context(opened(os.open("/", DIRECTORY)))
        shown = ""
        parts = os.path.realpath(path).split("/")[1:]
        for number, part in enumerate(parts, 1):
            _require_safe(current, shown or "/", False, option)
            shown = f"{shown}/{part}"
            below = _open_folder(current, part, 0o700 if number == len(parts) else 0o755, dry)
            if below is None:
                return {}
            walk.close()
            current = walk.enter_context(opened(below))
        _require_safe(current, shown, True, option)
        with contextlib.ExitStack() as kept:
            for name in names:
                fd = _open_folder(current, name, 0o700, dry)
                if fd is not None:
                    kept.enter_context(closed_on_error(fd))
                    _require_safe(fd, f"{shown}/{name}", True, option)
                    folders[name] = fd
    return folders


def remove_unused(folder: int, name: str) -> bool:
    """Remove a file unless a run reads or writes it; return whether it was removed."""
    try:
        fd = os.open(name, READ, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ELOOP:
            return False
        # the cache never creates a link
        os.unlink(name, dir_fd=folder)
        return True
    with opened(fd):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=folder)
            return True
        except OSError:
            return False


def _open_folder(above: int, name: str, mode: int, dry: bool) -> int | None:
    while True:
        try:
            return os.open(name, DIRECTORY, dir_fd=above)
        except FileNotFoundError:
            if dry:
                return None
        # another run may create it at the same time
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, mode, dir_fd=above)


def _require_safe(fd: int, path: str, own: bool, option: str) -> None:
    """Require that other users cannot change a directory or the way to it. Raises ``RootfsError``."""
    status = os.fstat(fd)
    owners = (os.geteuid(),) if own else (0, os.geteuid())
    open_to_all = status.st_mode & _OTHERS_WRITE
    if not own and status.st_mode & stat.S_ISVTX:
        # in a sticky directory such as /tmp, nobody can rename or remove another user's files
        open_to_all = 0
    if status.st_uid in owners and not open_to_all:
        return
    raise RootfsError(
        f"{option} is refused: other users can change {show(path)}; choose a folder that belongs to the running user or"
        " root, as do all folders above it, and that others cannot write to"
    )
