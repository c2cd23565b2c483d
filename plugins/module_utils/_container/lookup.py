# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Where a path of the container leads in a tree that is on disk, as if chrooted (docs/behaviour.md, section 9).

The tree may have been written to by a container, so no component is followed by the kernel: links are
resolved here, and nothing outside of the tree is ever reached.
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t
from dataclasses import dataclass

from .._errors import RootfsError, show
from .._fs.directories import DIRECTORY, open_existing, open_made

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# Sees the directory, the name of a component in it, and a descriptor of that one (-1 where it is missing).
Guard = t.Callable[[int, bytes, int], None]

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# As many links as the kernel follows in one lookup, and levels that cost a descriptor each.
_MOST_LINKS = 40
_DEEPEST = 200


@dataclass(frozen=True)
class Found:
    """``parts`` lead to ``fd``, an ``O_PATH`` descriptor of what has ``mode``; ``missing`` is not there below it."""

    parts: tuple[bytes, ...]
    missing: tuple[bytes, ...]
    fd: int
    mode: int

    @property
    def path(self) -> bytes:
        """The absolute path inside, without links in it."""
        return b"/" + b"/".join((*self.parts, *self.missing))

    @property
    def is_directory(self) -> bool:
        """Whether the whole path is there and leads to a directory."""
        return not self.missing and stat.S_ISDIR(self.mode)


@contextlib.contextmanager
def opened_root(path: str) -> t.Iterator[int]:
    """A descriptor of a root, or of a mount's source, at a path of the host's. Raises ``RootfsError``."""
    fd, missing = open_existing(os.fsencode(os.path.realpath(path)))
    try:
        if missing:
            raise RootfsError(f"there is nothing at {show(path)}; provision it first")
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def look_up(root: int, path: bytes, guard: Guard | None = None) -> t.Iterator[Found]:
    """Follow ``path`` from the directory ``root``. Raises ``RootfsError`` for loops and ways through files.

    ``guard`` sees each component before it is entered or followed, and may raise ``RootfsError``.
    """
    opened: list[tuple[bytes, int]] = [(b"", os.open(b".", DIRECTORY, dir_fd=root))]
    try:
        missing = _walk(opened, path, guard)
        fd = opened[-1][1]
        parts = tuple(name for name, _fd in opened[1:])
        yield Found(parts, missing, fd, os.fstat(fd).st_mode)
    finally:
        for _name, fd in opened:
            os.close(fd)


def _walk(
    opened: list[tuple[bytes, int]], path: bytes, guard: Guard | None
) -> tuple[bytes, ...]:
    """Extend ``opened`` as far as there is something; returns the rest."""
    pending = path.split(b"/")[::-1]
    links = 0
    while pending:
        part = pending.pop()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if len(opened) > 1:
                os.close(opened.pop()[1])
            continue
        try:
            fd = os.open(part, _PATH, dir_fd=opened[-1][1])
        except FileNotFoundError:
            if guard is not None:
                guard(opened[-1][1], part, -1)
            return _rest(path, [part, *pending[::-1]])
        except NotADirectoryError as error:
            raise RootfsError(
                f"{show(path)} leads through a file; choose another path"
            ) from error
        if guard is not None:
            try:
                guard(opened[-1][1], part, fd)
            except BaseException:
                os.close(fd)
                raise
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            opened.append((part, fd))
            if len(opened) > _DEEPEST:
                raise RootfsError(f"{show(path)} is over {_DEEPEST} levels deep")
            continue
        try:
            target = os.readlink(b"", dir_fd=fd)
        finally:
            os.close(fd)
        links += 1
        if links > _MOST_LINKS:
            raise RootfsError(
                f"{show(path)} leads through a loop of symbolic links; choose another path"
            )
        if target[:1] == b"/":
            while len(opened) > 1:
                os.close(opened.pop()[1])
        pending += target.split(b"/")[::-1]
    return ()


def _rest(path: bytes, parts: list[bytes]) -> tuple[bytes, ...]:
    rest = tuple(part for part in parts if part not in (b"", b"."))
    if b".." in rest:
        raise RootfsError(
            f"{show(path)} leads back from a directory that is not there; choose another path"
        )
    if len(rest) > _DEEPEST:
        raise RootfsError(f"{show(path)} is over {_DEEPEST} levels deep")
    return rest


def make_missing(found: Found, is_directory: bool) -> None:
    """Make what is missing: directories, the last one a file unless ``is_directory``, with the owner of what is above."""
    if not found.missing:
        return
    if not stat.S_ISDIR(found.mode):
        raise RootfsError(
            f"{show(found.path)} leads through a file; choose another path"
        )
    with contextlib.ExitStack() as opened:

        def keep(fd: int) -> int:
            opened.callback(os.close, fd)
            return fd

        fd = keep(os.open(b".", DIRECTORY, dir_fd=found.fd))
        owner = os.fstat(fd)
        *above, last = found.missing
        for part in [*above, last] if is_directory else above:
            fd = keep(_make_directory(fd, part, owner))
        if not is_directory:
            file = keep(os.open(last, _NEW_FILE, 0o644, dir_fd=fd))
            os.fchmod(file, 0o644)
            os.fchown(file, owner.st_uid, owner.st_gid)


def _make_directory(above: int, name: bytes, owner: os.stat_result) -> int:
    """Make a directory with the owner of what is above, and open it."""
    os.mkdir(name, 0o755, dir_fd=above)
    fd = open_made(above, name, 0o755)
    try:
        os.fchmod(fd, 0o755)
        os.fchown(fd, owner.st_uid, owner.st_gid)
    except OSError:
        os.close(fd)
        raise
    return fd
