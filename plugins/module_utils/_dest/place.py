# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Where ``dest`` lies, and the private folder that belongs to it (docs/behaviour.md, section 7).

Beside a dest that can be exchanged lies ``.NAME.oci_rootfs``, which holds the record, the tree on its way
and old trees. A dest that is a mount point has its folder elsewhere: what is inside of the mount belongs
to the container.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
import typing as t
from dataclasses import dataclass

from .._errors import RootfsError, show
from .._fs.directories import make_directories, make_private, open_existing, open_or_none, open_private, remove_if_empty
from .record import Record, from_json, to_json
from .._fs.syscalls import mount_id

# What a system cannot live without, and what no container's root should ever be.
_TOP = "bin boot dev etc home lib lib32 lib64 libx32 lost+found media mnt opt proc root run sbin srv sys tmp usr var"
_BELOW = {
    "usr": ("bin", "lib", "lib64", "local", "sbin", "share"),
    "var": ("cache", "lib", "log", "run", "spool", "tmp", "lib/lxc", "lib/machines"),
}
_FORBIDDEN = frozenset(
    [
        "/",
        *(f"/{name}" for name in _TOP.split()),
        *(f"/{top}/{name}" for top, names in _BELOW.items() for name in names),
    ]
)

_RECORD = b"record.json"
# the folders of unfinished transfers, see uploads.py
UPLOADS = b"uploads.json"
_NEW_RECORD = b"record.json.new"
_LONGEST_NAME = 230
_POLL_SECONDS = 0.1


class Access(t.NamedTuple):
    """Who may enter a directory that is made; ``group`` of -1 leaves the group of whoever runs."""

    mode: int
    group: int = -1


# Containers' files lie there, too, which their mapped roots reach; the private folders are closed themselves.
_STATES = Access(0o755)


@dataclass(frozen=True)
class DestPath:
    """A dest, resolved: ``parent`` is the directory above it, which may not be there yet."""

    parent: str
    name: str
    inside: bool

    @property
    def path(self) -> str:
        """The resolved path."""
        return os.path.join(self.parent, self.name)

    @property
    def state_name(self) -> bytes:
        """The name of the private folder."""
        if self.inside:
            digest = hashlib.sha256(os.fsencode(self.path)).hexdigest()[:16]
            return b"%s-%s" % (os.fsencode(self.name)[:100], digest.encode())
        name = os.fsencode(self.name)
        if len(name) > _LONGEST_NAME:
            name = hashlib.sha256(name).hexdigest().encode()
        return b".%s.oci_rootfs" % name

    @property
    def state_parent(self) -> str:
        """The directory that holds the private folder."""
        if not self.inside:
            return self.parent
        if os.geteuid() == 0:
            return "/var/lib/hypervisor.oci"
        home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
        return os.path.join(os.path.realpath(home), "hypervisor.oci")


def resolve_dest(dest: str) -> DestPath:
    """Resolve ``dest``. Raises ``RootfsError`` for what must never be one."""
    if not dest.startswith("/") or "\0" in dest:
        raise RootfsError(f"dest {dest!r} is not an absolute path; give one")
    path = dest.rstrip("/")
    name = os.path.basename(path)
    parent = os.path.realpath(os.path.dirname(path) or "/")
    resolved = os.path.join(parent, name)
    if name in ("", ".", "..") or resolved in _FORBIDDEN:
        raise RootfsError(
            f"dest {dest!r} is a directory of the system itself; choose one that belongs to the container alone"
        )
    fd, missing = open_existing(os.fsencode(parent))
    try:
        inside = False
        below = None if missing else open_or_none(fd, os.fsencode(name))
        if below is not None:
            try:
                # btrfs subvolumes have a device number of their own without being mounts
                inside = mount_id(below) != mount_id(fd)
            finally:
                os.close(below)
        if not inside:
            _require_never_mounted(DestPath(parent, name, True))
        return DestPath(parent, name, inside)
    finally:
        os.close(fd)


def _require_never_mounted(place: DestPath) -> None:
    """What filled a mount must not be made anew on the file system below it."""
    state = os.path.join(place.state_parent, os.fsdecode(place.state_name))
    if os.path.lexists(os.path.join(state, os.fsdecode(_RECORD))):
        raise RootfsError(
            f"{show(place.path)} was provisioned as a mount point, and nothing is mounted there now;"
            f" mount it and run again, or remove {state} to give that record up"
        )


class Dest:
    """The open directories of a place, with its lock held; ``close`` gives all back.

    ``parent`` is the directory above dest, ``state`` the private folder. ``state`` is ``-1`` where a dry run
    found none.
    """

    def __init__(self, place: DestPath, parent: int, state: int, writable: bool) -> None:
        self.place = place
        self.parent = parent
        self.state = state
        self.name = os.fsencode(place.name)
        self.writable = writable
        # directories above that were made for this dest: they go where nothing comes of it
        self.made: list[str] = []
        # what went wrong beside what was done, for the result
        self.warnings: list[str] = []

    @property
    def path(self) -> str:
        """The resolved path of dest, for messages."""
        return self.place.path

    def warn(self, text: str) -> None:
        """Tell the user something, once."""
        if text not in self.warnings:
            self.warnings.append(text)

    def warn_kept(self, path: str, why: str) -> None:
        """Tell that all or some of ``path`` is still there, although it is no longer needed, and why."""
        self.warn(
            f"{show(path)} is no longer needed, but could not be removed completely: {why}; the next run tries again"
        )

    def open_dest(self) -> int | None:
        """A descriptor of dest, the caller's to close; ``None`` where it is missing."""
        if self.parent < 0:
            return None
        return open_or_none(self.parent, self.name)

    def load(self) -> Record:
        """The record; an empty one where there is none. Raises ``RootfsError``."""
        data = self.read(_RECORD)
        if data is None:
            return Record()
        where = os.path.join(self.place.state_parent, os.fsdecode(self.place.state_name))
        return from_json(data, where)

    def save(self, record: Record) -> None:
        """Replace the record, durably: it is on disk when this returns."""
        self.write(_RECORD, to_json(record))

    def read(self, name: bytes) -> bytes | None:
        """What a file of the private folder holds; ``None`` where it is missing."""
        if self.state < 0:
            return None
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(name, flags, dir_fd=self.state)
        except FileNotFoundError:
            return None
        with os.fdopen(fd, "rb") as file:
            return file.read()

    def write(self, name: bytes, data: bytes) -> None:
        """Replace a file of the private folder, durably."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(_NEW_RECORD, flags, 0o600, dir_fd=self.state)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.rename(_NEW_RECORD, name, src_dir_fd=self.state, dst_dir_fd=self.state)
        os.fsync(self.state)

    def forget(self) -> None:
        """Remove the record; ``close`` removes the folder."""
        for name in (_NEW_RECORD, _RECORD):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=self.state)
        os.fsync(self.state)

    def close(self) -> None:
        """Let go of the lock; a private folder that holds nothing goes too."""
        if self.state >= 0:
            if self.writable:
                self._remove_empty_state()
            os.close(self.state)
        if self.parent >= 0:
            os.close(self.parent)

    def _remove_empty_state(self) -> None:
        # a failed run may have left it; a disk that is read-only or fails has told so before
        with contextlib.suppress(OSError):
            os.unlink(_NEW_RECORD, dir_fd=self.state)
        _remove_empty(self.place.state_parent, self.place.state_name)
        if self.place.inside:
            above, name = os.path.split(self.place.state_parent)
            _remove_empty(above, os.fsencode(name))


@contextlib.contextmanager
def lock_dest(place: DestPath, timeout: float, parent_mode: int, dry_run: bool, group: int = -1) -> t.Iterator[Dest]:
    """Open a place and lock it against other runs; a dry run makes nothing and shares the lock.

    Directories above dest that are missing are made, the last with ``parent_mode`` and ``group``, and removed
    again where the run leaves nothing there. Raises ``RootfsError`` where another run keeps the lock for longer
    than ``timeout`` seconds.
    """
    access = Access(parent_mode, group)
    parent, made = _open_or_make(place.parent, access, dry_run)
    try:
        site = Dest(place, parent, -1, False)
        site.made = made
        try:
            if parent >= 0:
                states = _STATES if place.inside else access
                site.state = _lock_state(site, made, states, timeout, dry_run)
                site.writable = not dry_run
            yield site
        finally:
            site.close()
    finally:
        for path in reversed(made):
            above, name = os.path.split(path)
            _remove_empty(above, os.fsencode(name))


def _open_or_make(path: str, access: Access, dry_run: bool) -> tuple[int, list[str]]:
    """A descriptor (``-1`` in a dry run that would have to make it) and the paths that were made."""
    while True:
        fd, missing = open_existing(os.fsencode(path))
        if not missing:
            return fd, []
        try:
            if dry_run:
                return -1, []
            made = make_directories(fd, missing, access.mode, access.group)
            break
        except (FileExistsError, FileNotFoundError):
            # another run makes or removes the same directories: once more
            continue
        finally:
            os.close(fd)
    paths = []
    for _part in missing:
        paths.append(path)
        path = os.path.dirname(path)
    return made, paths[::-1]


def _lock_state(site: Dest, made: list[str], access: Access, timeout: float, dry_run: bool) -> int:
    """The private folder, locked; ``-1`` where a dry run finds none. Adds what it made above to ``made``."""
    place = site.place
    deadline = time.monotonic() + timeout
    while True:
        above, more = _open_or_make(place.state_parent, access, dry_run)
        made += more
        if above < 0:
            return -1
        try:
            if dry_run:
                state = open_private(above, place.state_name)
                if state is None:
                    return -1
            else:
                try:
                    state = make_private(above, place.state_name)
                except FileNotFoundError:
                    # another run removed it, or the directory above: once more
                    continue
            try:
                _lock(state, deadline, timeout, place.path, dry_run)
                there = os.stat(place.state_name, dir_fd=above, follow_symlinks=False)
                if os.path.samestat(there, os.fstat(state)):
                    if not place.inside:
                        # what was above may have been removed and made anew meanwhile
                        os.close(site.parent)
                        site.parent = os.dup(above)
                    return state
            except FileNotFoundError:
                pass
            except BaseException:
                os.close(state)
                raise
            # the run before removed the folder while this one waited: once more
            os.close(state)
        finally:
            os.close(above)


def _lock(state: int, deadline: float, timeout: float, path: str, shared: bool) -> None:
    how = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        try:
            fcntl.flock(state, how | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            left = deadline - time.monotonic()
            if left <= 0:
                raise RootfsError(
                    f"another run works on {show(path)} and was not done after {timeout:g} seconds;"
                    " wait for it or raise lock_timeout"
                ) from None
            time.sleep(min(_POLL_SECONDS, left))


def _remove_empty(above: str, name: bytes) -> None:
    """What cannot be removed stays until the next run: the work is done, or its own error is to be told."""
    with contextlib.suppress(OSError, RootfsError):
        fd, missing = open_existing(os.fsencode(above))
        try:
            if not missing:
                remove_if_empty(fd, name)
        finally:
            os.close(fd)
