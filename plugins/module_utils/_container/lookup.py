# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Resolve paths of a container in a tree on disk, as if chrooted (docs/behaviour.md, section 9).

A container may have written to the tree, so the kernel never follows a link: links are resolved here, inside of the
tree.
"""

from __future__ import annotations

import contextlib
import os
import stat
import typing as t
from dataclasses import dataclass

from .._errors import RootfsError, show
from .._fs.descriptors import closed_on_error, opened
from .._fs.directories import DIRECTORY, open_existing, open_made
from .._fs.stack import opened_tree

_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
# Called with a directory, the name of a component in it, and a descriptor of that one, or -1 if it is missing.
Guard = t.Callable[[int, bytes, int], None]

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# As many links as the kernel follows in one lookup; each level takes a descriptor.
_MOST_LINKS = 40
_DEEPEST = 200


@dataclass(frozen=True)
class Found:
    """A resolved path: ``parts`` lead to the ``O_PATH`` descriptor ``fd`` with ``mode``; ``missing`` do not exist below it."""

    parts: tuple[bytes, ...]
    missing: tuple[bytes, ...]
    fd: int
    mode: int

    @property
    def path(self) -> bytes:
        """The absolute path inside the tree, without links."""
        return b"/" + b"/".join((*self.parts, *self.missing))

    @property
    def is_directory(self) -> bool:
        """Whether the path leads to an existing directory."""
        return not self.missing and stat.S_ISDIR(self.mode)


@contextlib.contextmanager
def opened_root(path: str, writing: bool = False) -> t.Iterator[int]:
    """Open a root, or the source of a mount, at a path of the host; a stack's overlay is mounted for this process alone.

    Raises ``RootfsError``, also if the stack is to be written to while its container runs.
    """
    with opened_place(path) as fd, opened_tree(fd, path, writing) as root:
        yield root


@contextlib.contextmanager
def opened_place(path: str) -> t.Iterator[int]:
    """Open the directory of a root, with a stack as it lies there. Raises ``RootfsError``."""
    existing, missing = open_existing(os.fsencode(os.path.realpath(path)))
    with opened(existing) as fd:
        if missing:
            raise RootfsError(f"{show(path)} does not exist; provision it first")
        yield fd


@contextlib.contextmanager
def look_up(root: int, path: bytes, guard: Guard | None = None) -> t.Iterator[Found]:
    """Resolve ``path`` from the directory ``root``. Raises ``RootfsError`` for loops of links and paths through files.

    ``guard`` is called for each component before it is entered or followed, and may raise ``RootfsError``.
    """
    with contextlib.closing(_Walk(root, path, guard)) as walk:
        missing = walk.run()
        fd = walk.fd
        yield Found(walk.parts, missing, fd, os.fstat(fd).st_mode)


class _Walk:
    """The way along ``path``, with a descriptor of each directory on it."""

    def __init__(self, root: int, path: bytes, guard: Guard | None) -> None:
        self._path = path
        self._guard = guard
        self._links = 0
        self._pending = path.split(b"/")[::-1]
        self._opened = [(b"", os.open(b".", DIRECTORY, dir_fd=root))]

    @property
    def fd(self) -> int:
        """A descriptor of where the walk is."""
        return self._opened[-1][1]

    @property
    def parts(self) -> tuple[bytes, ...]:
        """The components that lead there."""
        return tuple(name for name, _fd in self._opened[1:])

    def close(self) -> None:
        """Close all descriptors."""
        while self._opened:
            os.close(self._opened.pop()[1])

    def run(self) -> tuple[bytes, ...]:
        """Walk along the path while it exists; return the missing components."""
        while self._pending:
            part = self._pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                self._go_up(max(len(self._opened) - 1, 1))
                continue
            fd = self._open(part)
            if fd is None:
                return _rest(self._path, [part, *self._pending[::-1]])
            with closed_on_error(fd):
                is_link = self._inspect(part, fd)
            if not is_link:
                self._opened.append((part, fd))
                if len(self._opened) > _DEEPEST:
                    raise RootfsError(f"{show(self._path)} is more than {_DEEPEST} levels deep")
                continue
            with opened(fd):
                self._follow(os.readlink(b"", dir_fd=fd))
        return ()

    def _open(self, part: bytes) -> int | None:
        try:
            return os.open(part, _PATH, dir_fd=self.fd)
        except FileNotFoundError:
            if self._guard is not None:
                self._guard(self.fd, part, -1)
            return None
        except NotADirectoryError as error:
            raise RootfsError(f"{show(self._path)} leads through a file; choose another path") from error

    def _inspect(self, part: bytes, fd: int) -> bool:
        """Have the guard check a component; return whether it is a link."""
        if self._guard is not None:
            self._guard(self.fd, part, fd)
        return stat.S_ISLNK(os.fstat(fd).st_mode)

    def _follow(self, target: bytes) -> None:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise RootfsError(f"{show(self._path)} leads through a loop of symbolic links; choose another path")
        if target[:1] == b"/":
            self._go_up(1)
        self._pending += target.split(b"/")[::-1]

    def _go_up(self, count: int) -> None:
        """Go back until ``count`` directories are open."""
        while len(self._opened) > count:
            os.close(self._opened.pop()[1])


def _rest(path: bytes, parts: list[bytes]) -> tuple[bytes, ...]:
    rest = tuple(part for part in parts if part not in (b"", b"."))
    if b".." in rest:
        raise RootfsError(f"{show(path)} leads back from a directory that does not exist; choose another path")
    if len(rest) > _DEEPEST:
        raise RootfsError(f"{show(path)} is more than {_DEEPEST} levels deep")
    return rest


def make_missing(found: Found, is_directory: bool) -> None:
    """Make the missing components, with the owner of the directory above; the last is a file unless ``is_directory``."""
    if not found.missing:
        return
    if not stat.S_ISDIR(found.mode):
        raise RootfsError(f"{show(found.path)} leads through a file; choose another path")
    with contextlib.ExitStack() as stack:

        def keep(fd: int) -> int:
            return stack.enter_context(opened(fd))

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
    """Make a directory with the ``owner`` of the one above, and open it."""
    os.mkdir(name, 0o755, dir_fd=above)
    with closed_on_error(open_made(above, name, 0o755)) as fd:
        os.fchmod(fd, 0o755)
        os.fchown(fd, owner.st_uid, owner.st_gid)
    return fd
