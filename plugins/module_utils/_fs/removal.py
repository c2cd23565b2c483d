# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remove trees of any depth without following links or entering other mounts.

A container may have written to the tree, so nothing in it can be trusted. What cannot be removed stays, and does not
keep the rest from being removed (docs/behaviour.md, section 7).
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from .._errors import RootfsError, os_advice, os_phrase, show
from .descriptors import opened
from .directories import some_names_in
from .protection import unprotect, unprotected
from .syscalls import is_subvolume_root, mount_id

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

# Directories below this level are moved to the top first, so that depth costs neither descriptors nor stack.
_DEEPEST = 64
# Names that are held of a directory, however many it has.
_BATCH = 4096
# Passes over a directory before a tree counts as one that something fills again and again.
_MOST_PASSES = 100_000
# How many files that cannot be removed an error names, and after how many a removal gives up.
_MOST_SHOWN = 5
_MOST_LEFT = 1000

_ADVICE = {
    errno.EBUSY: "find out what keeps it busy (a swap file? a mount?)",
    errno.EPERM: "look at its attributes (lsattr), or remove it as root",
    errno.EACCES: "remove it as root",
}
_UNMOUNT = "unmount it"


class _TooMuch(Exception):
    """Too many files cannot be removed to try the rest."""


class Remains:
    """Files of a tree that could not be removed, by their paths below its root, and the reasons."""

    def __init__(self) -> None:
        self.count = 0
        self._shown: list[tuple[bytes, str]] = []
        self._advice: list[str] = []

    def __bool__(self) -> bool:
        return self.count > 0

    def add(self, path: bytes, why: str, advice: str) -> None:
        """Add a file."""
        self.count += 1
        if len(self._shown) < _MOST_SHOWN:
            self._shown.append((path, why))
            if advice not in self._advice:
                self._advice.append(advice)
        if self.count >= _MOST_LEFT:
            raise _TooMuch

    def describe(self, top: str | bytes) -> str:
        """Return a phrase that names the files and the reasons; ``top`` is the path of the tree."""
        above = os.fsencode(top)
        text = ", ".join(f"{show(os.path.join(above, path) if path else above)} ({why})" for path, why in self._shown)
        rest = self.count - len(self._shown)
        return text + (f" and {rest} more" if rest > 0 else "")

    @property
    def advice(self) -> str:
        """What the user can do about them."""
        return ", ".join(self._advice)


def remove_tree(parent: int, name: bytes) -> None:
    """Remove ``name`` in the directory ``parent`` with its content, if it exists.

    Raises ``RootfsError`` if something cannot be removed, after everything else has been removed.
    """
    remains = try_remove_tree(parent, name)
    if remains:
        raise _error(remains, name)


def empty_directory(fd: int, keep: frozenset[bytes] = frozenset()) -> None:
    """Remove the content of a directory except the names in ``keep``. Raises ``RootfsError`` as ``remove_tree`` does."""
    remains = try_empty_directory(fd, keep)
    if remains:
        raise _error(remains, b"")


def try_remove_tree(parent: int, name: bytes) -> Remains:
    """Remove as much of ``name`` in ``parent`` as possible, and return the rest."""
    removal = _Removal(-1, mount_id(parent))
    with contextlib.suppress(_TooMuch):
        removal.remove(parent, name, b"", 0)
    return removal.remains


def try_empty_directory(fd: int, keep: frozenset[bytes] = frozenset()) -> Remains:
    """Remove as much as possible of a directory's content except the names in ``keep``, and return the rest."""
    removal = _Removal(fd, mount_id(fd))
    with contextlib.suppress(_TooMuch):
        removal.empty(fd, b"", 0, keep)
    return removal.remains


def _error(remains: Remains, top: bytes) -> RootfsError:
    return RootfsError(f"cannot be removed: {remains.describe(top)}; {remains.advice}, and run again")


class _Removal:
    """One removal. Directories that lie too deep are moved to ``top``; other mounts than ``mount`` are not entered.

    Paths are relative to the root of the tree; ``depth`` counts the levels below it.
    """

    def __init__(self, top: int, mount: int) -> None:
        self.remains = Remains()
        self._top = top
        self._mount = mount

    def empty(self, fd: int, path: bytes, depth: int, keep: frozenset[bytes] = frozenset()) -> None:
        """Remove the content of a directory, a batch of names at a time."""
        left = set(keep)
        for _pass in range(_MOST_PASSES):
            try:
                names = some_names_in(fd, _BATCH, frozenset(left))
            except OSError as error:
                self._note(path, error)
                return
            if not names:
                return
            for name in names:
                below = os.path.join(path, name)
                gone = self.remove(fd, name, below, depth + 1) if depth <= _DEEPEST else self._move_up(fd, name, below)
                if not gone:
                    left.add(name)

    def remove(self, parent: int, name: bytes, path: bytes, depth: int) -> bool:
        """Remove one name; return false if it stays. With ``depth`` 0 it is the tree itself, and ``parent`` lies outside of it."""
        before = self.remains.count
        try:
            if _unlink(parent, name, depth > 0):
                return True
            fd = _open(parent, name)
        except OSError as error:
            return self._note(path, error)
        try:
            with opened(fd):
                if mount_id(fd) != self._mount:
                    self.remains.add(path, "a mount point", _UNMOUNT)
                    return False
                if depth == 0:
                    self._top = fd
                _unprotect_subvolume(fd)
                self.empty(fd, path, depth)
        except OSError as error:
            return self._note(path, error)
        if self.remains.count > before:
            return False
        try:
            _rmdir(parent, name, depth > 0)
        except OSError as error:
            return self._note(path, error)
        return True

    def _move_up(self, fd: int, name: bytes, path: bytes) -> bool:
        """Remove one name, or move a directory to the top, where a later pass removes it."""
        try:
            if not _unlink(fd, name, True):
                _move(fd, name, self._top)
        except OSError as error:
            return self._note(path, error)
        return True

    def _note(self, path: bytes, error: OSError) -> bool:
        advice = _ADVICE.get(error.errno or 0) or os_advice(error)
        self.remains.add(path, os_phrase(error), advice or "look at its file system")
        return False


def _unlink(parent: int, name: bytes, inside: bool) -> bool:
    """Unlink a file; return false for a directory. ``inside`` tells that ``parent`` is part of the tree."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    except PermissionError:
        if stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return False
        if inside:
            unprotect(parent)
        with unprotected(parent, name):
            os.unlink(name, dir_fd=parent)
    return True


def _rmdir(parent: int, name: bytes, inside: bool) -> None:
    try:
        os.rmdir(name, dir_fd=parent)
    except FileNotFoundError:
        pass
    except PermissionError:
        if inside:
            unprotect(parent)
        with unprotected(parent, name):
            os.rmdir(name, dir_fd=parent)


def _move(parent: int, name: bytes, top: int) -> None:
    new = os.urandom(16).hex()
    try:
        os.rename(name, new, src_dir_fd=parent, dst_dir_fd=top)
    except PermissionError:
        for directory in (parent, top):
            unprotect(directory)
        with unprotected(parent, name):
            os.rename(name, new, src_dir_fd=parent, dst_dir_fd=top)


def _open(parent: int, name: bytes) -> int:
    """Open a directory, made writable first if its owner has no rights there."""
    if os.geteuid() != 0:
        with opened(os.open(name, _PATH, dir_fd=parent)) as path:
            os.chmod(f"/proc/self/fd/{path}", 0o700)
    return os.open(name, _DIRECTORY, dir_fd=parent)


def _unprotect_subvolume(fd: int) -> None:
    """Make a read-only subvolume writable, so that its content can be removed."""
    if is_subvolume_root(os.fstat(fd)):
        unprotect(fd)
