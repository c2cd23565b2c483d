# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Open and lock ``dest``, and read and write the files of its private folder (docs/behaviour.md, section 7)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import typing as t

from .._errors import RootfsError, show
from .._fs.descriptors import closed_on_error, opened
from .._fs.directories import (
    make_directories,
    make_private,
    names_in,
    open_existing,
    open_or_none,
    open_private,
    remove_if_empty,
)
from .._fs.lock import await_lock
from .dest_path import RECORD, STACKS, DestPath
from .record import Record, from_json, to_json

# The record of unfinished transfers, see uploads.py.
UPLOADS = b"uploads.json"
# The folder of blobs that came in part, see _provision/partials.py.
PARTIALS = b"partial"
# The folder in which a run tries what a stack needs, see _provision/stack_probe.py.
PROBE = b"probe"
# Where the inventory of a tree and the journal of its making lie, after the name of its papers; the paths of what else
# this collection has made in it; and which of its files were touched, and compared since.
INVENTORY = ".inventory"
JOURNAL = ".journal"
MADE = ".made"
PROVEN = ".proven"
_PAPERS = tuple(name.encode() for name in (INVENTORY, JOURNAL, MADE, PROVEN))
_NEW_FILE = b"record.json.new"


class Access(t.NamedTuple):
    """Who may enter a new directory; a ``group`` of -1 keeps the group of the running user."""

    mode: int
    group: int = -1


# Files of containers lie there, too, and their mapped roots must reach them; private folders are closed themselves.
_STATES = Access(0o755)


class Dest:
    """A locked dest: descriptors of the directory above it and of its private folder, which ``close`` closes.

    ``parent`` is the directory above, ``state`` the private folder. In a dry run both may be missing, ``-1``.
    """

    def __init__(self, location: DestPath, parent: int) -> None:
        self.location = location
        self.parent = parent
        self.state = -1
        self.name = os.fsencode(location.name)
        self.writable = False
        # directories above that were made for this dest: those that stay empty are removed
        self.made: list[str] = []
        # problems that did not keep the run from its end, for the result
        self.warnings: list[str] = []

    @property
    def path(self) -> str:
        """The resolved path of dest, for messages."""
        return self.location.path

    def warn(self, text: str) -> None:
        """Add a warning to the result, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def warn_kept(self, path: str, why: str) -> None:
        """Warn that ``path`` is no longer needed but could not be removed completely, and why."""
        self.warn(
            f"{show(path)} is no longer needed, but could not be removed completely: {why}; the next run tries again"
        )

    def open_dest(self) -> int | None:
        """Open dest; return ``None`` if it is missing. The caller closes the descriptor."""
        if self.parent < 0:
            return None
        return open_or_none(self.parent, self.name)

    def load(self) -> Record:
        """Read the record, which is empty for a new dest. Raises ``RootfsError``."""
        data = self.read(RECORD)
        if data is None:
            return Record()
        return from_json(data, self.location.state_path)

    def save(self, record: Record) -> None:
        """Replace the record, which is durable when this returns; remove papers that it no longer names."""
        self.write(RECORD, to_json(record, self.path))
        self._note_stacks(record.stacks)
        self._remove_papers(record.papers)

    def read(self, name: bytes) -> bytes | None:
        """Read a file of the private folder; return ``None`` if it is missing."""
        if self.state < 0:
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self.state)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            return file.read()

    def has(self, name: bytes) -> bool:
        """Return whether the private folder holds something of that name."""
        if self.state < 0:
            return False
        try:
            os.stat(name, dir_fd=self.state, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def write(self, name: bytes, data: bytes) -> None:
        """Replace a file of the private folder, which is durable when this returns."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_NEW_FILE, flags, 0o600, dir_fd=self.state)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(_NEW_FILE, name, src_dir_fd=self.state, dst_dir_fd=self.state)
        os.fsync(self.state)

    def forget(self) -> None:
        """Remove the record; ``close`` removes the private folder if it is empty then."""
        # papers without a record would stay for ever
        self._remove_papers(frozenset())
        for name in (_NEW_FILE, RECORD, STACKS):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.state)
        os.fsync(self.state)

    def _note_stacks(self, inodes: t.Sequence[int]) -> None:
        """List the stacks, before one of them gets into dest; no other directory may pass for one."""
        text = "".join(f"{inode}\n" for inode in inodes).encode("ascii")
        if text and self.read(STACKS) != text:
            self.write(STACKS, text)
        elif not text:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(STACKS, dir_fd=self.state)

    def _remove_papers(self, needed: t.AbstractSet[str]) -> None:
        for name in names_in(self.state):
            if name.endswith(_PAPERS) and os.fsdecode(name).partition(".")[0] not in needed:
                os.unlink(name, dir_fd=self.state)

    def close(self) -> None:
        """Release the lock, and remove the private folder if it is empty."""
        if self.state >= 0:
            if self.writable:
                self._remove_empty_state()
            os.close(self.state)
        if self.parent >= 0:
            os.close(self.parent)

    def _remove_empty_state(self) -> None:
        # a failed run may have left them; a failing disk is reported elsewhere
        with contextlib.suppress(OSError):
            os.unlink(_NEW_FILE, dir_fd=self.state)
        with contextlib.suppress(OSError):
            self._remove_probe()
        _remove_empty(self.location.state_parent, self.location.state_name)
        if self.location.is_mount:
            above, name = os.path.split(self.location.state_parent)
            _remove_empty(above, os.fsencode(name))

    def _remove_probe(self) -> None:
        if self.has(PROBE):
            # imported late: only an interrupted run has left it
            from .._fs.removal import try_remove_tree

            try_remove_tree(self.state, PROBE)


@contextlib.contextmanager
def lock_dest(location: DestPath, timeout: float, parent_mode: int, dry_run: bool, group: int = -1) -> t.Iterator[Dest]:
    """Open a dest and lock it against other runs; a dry run makes nothing and shares the lock.

    Missing directories above dest are made, the last with ``parent_mode`` and ``group``, and removed again if the run
    leaves them empty. Raises ``RootfsError`` if another run keeps the lock for longer than ``timeout`` seconds.
    """
    access = Access(parent_mode, group)
    parent, made = _open_or_make(location.parent, access, dry_run)
    try:
        dest = Dest(location, parent)
        dest.made = made
        with contextlib.closing(dest):
            if parent >= 0:
                states = _STATES if location.is_mount else access
                dest.state = _lock_state(dest, made, states, timeout, dry_run)
                dest.writable = not dry_run
            yield dest
    finally:
        for path in reversed(made):
            above, name = os.path.split(path)
            _remove_empty(above, os.fsencode(name))


@contextlib.contextmanager
def view_dest(location: DestPath) -> t.Iterator[tuple[Dest, bool]]:
    """Open a dest for reading, without waiting; yield it, and whether another run is at work there.

    Its files are replaced as a whole, so they can be read meanwhile. Raises ``RootfsError``.
    """
    parent, _made = _open_or_make(location.parent, _STATES, True)
    dest = Dest(location, parent)
    with contextlib.closing(dest):
        above, missing = open_existing(os.fsencode(location.state_parent))
        with opened(above):
            state = None if missing else open_private(above, location.state_name)
        dest.state = -1 if state is None else state
        yield dest, dest.state >= 0 and not _is_free(dest.state)


def _is_free(state: int) -> bool:
    try:
        fcntl.flock(state, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _open_or_make(path: str, access: Access, dry_run: bool) -> tuple[int, list[str]]:
    """Open a directory, made if it is missing; return a descriptor and the paths that were made.

    The descriptor is ``-1`` if a dry run finds it missing.
    """
    while True:
        fd, missing = open_existing(os.fsencode(path))
        if not missing:
            return fd, []
        with opened(fd):
            if dry_run:
                return -1, []
            try:
                made = make_directories(fd, missing, access.mode, access.group)
                break
            except (FileExistsError, FileNotFoundError):
                # another run makes or removes the same directories: try again
                continue
    paths = []
    for _part in missing:
        paths.append(path)
        path = os.path.dirname(path)
    return made, paths[::-1]


def _lock_state(dest: Dest, made: list[str], access: Access, timeout: float, dry_run: bool) -> int:
    """Open and lock the private folder; ``-1`` if a dry run finds it missing. Adds the paths made above it to ``made``."""
    location = dest.location
    began = time.monotonic()
    while True:
        above, more = _open_or_make(location.state_parent, access, dry_run)
        made += more
        if above < 0:
            return -1
        with opened(above):
            if dry_run:
                state = open_private(above, location.state_name)
                if state is None:
                    return -1
            else:
                try:
                    state = make_private(above, location.state_name)
                except FileNotFoundError:
                    # another run removed it, or the directory above: try again
                    continue
            with closed_on_error(state):
                await_lock(state, timeout, f"works on {show(location.path)}", dry_run, began)
                is_same = _is_named(above, location.state_name, state)
            if is_same:
                if not location.is_mount:
                    # the directory above may have been removed and made anew meanwhile
                    os.close(dest.parent)
                    dest.parent = os.dup(above)
                return state
            # the run before removed the folder while this one waited: try again
            os.close(state)


def _is_named(above: int, name: bytes, fd: int) -> bool:
    """Return whether ``name`` in the directory ``above`` is the open directory ``fd``."""
    try:
        return os.path.samestat(os.stat(name, dir_fd=above, follow_symlinks=False), os.fstat(fd))
    except FileNotFoundError:
        return False


def _remove_empty(above: str, name: bytes) -> None:
    """Remove an empty directory; one that cannot be removed stays for the next run."""
    with contextlib.suppress(OSError, RootfsError):
        fd, missing = open_existing(os.fsencode(above))
        with opened(fd):
            if not missing:
                remove_if_empty(fd, name)
