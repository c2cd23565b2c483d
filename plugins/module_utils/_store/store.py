# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A store of snapshots on btrfs: find them, make them, and make trees of them.

The folder ``s`` has the snapshots' subvolumes under short names, ``r`` their records under their keys, ``w`` drafts, ``d`` who
refers to them. A subvolume is synced under its name before its record appears by one rename, and never written again; so a
crash leaves at most a subvolume without a record, which the next collection removes.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
import typing as t
from dataclasses import replace

from .._cache.folder import open_folders
from .._errors import RootfsError, os_phrase, show
from .._fs.btrfs import destroy_subvolume, file_system_of, make_read_only, make_snapshot, make_subvolume
from .._fs.descriptors import opened
from .._fs.directories import names_in, open_existing
from .._fs.removal import try_remove_tree
from .._fs.syscalls import syncfs
from .snapshot import Snapshot, from_json, read_bounded

# Where the journal of a snapshot's layer lies, after the snapshot's name.
JOURNAL = ".journal"

_FOLDERS = ("s", "r", "w", "d")
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAME_LENGTH = 6
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
_POLL_SECONDS = 0.1


def can_share(store: str, parent: str) -> bool:
    """Return whether a store can share layers with trees in the directory ``parent``: both on one btrfs.

    Either may be missing: then the directory above decides. Raises ``RootfsError``.
    """
    found = []
    for path in (store, parent):
        fd, _missing = open_existing(os.fsencode(os.path.realpath(path)))
        with opened(fd):
            found.append(file_system_of(fd))
    return found[0] is not None and found[0] == found[1]


class Store:
    """An open store, which ``close`` closes. While it is open, nothing of it is collected. Raises ``RootfsError``."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()
        try:
            self.folders = open_folders(path, _FOLDERS, False)
            for fd in self.folders.values():
                self._stack.callback(os.close, fd)
            lock = os.open(
                "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self.folders["d"]
            )
            self._lock = lock
            self._stack.callback(os.close, lock)
            fcntl.flock(self._lock, fcntl.LOCK_SH)
        except OSError as error:
            self._stack.close()
            raise RootfsError(f"store_dir {show(path)} cannot be used: {os_phrase(error)}") from error

    def close(self) -> None:
        """Close the folders."""
        self._stack.close()

    def unlock(self) -> None:
        """Let others collect; nothing is used after this."""
        fcntl.flock(self._lock, fcntl.LOCK_UN)

    # -- finding

    def find(self, key: str) -> Snapshot | None:
        """Return the snapshot with this key, and note that it is used; ``None`` if there is none that is whole."""
        name = f"{key}.json"
        try:
            with os.fdopen(os.open(name, _READ, dir_fd=self.folders["r"]), "rb") as file:
                snapshot = from_json(read_bounded(file), key)
                if snapshot is None or not self._is_there(snapshot):
                    return None
                os.utime(file.fileno())
                return snapshot
        except FileNotFoundError:
            return None

    def all(self) -> t.Iterator[tuple[Snapshot, float]]:
        """Yield the snapshots, and when each was used last, in seconds since the epoch."""
        for name in sorted(map(os.fsdecode, names_in(self.folders["r"]))):
            key, dot, kind = name.partition(".json")
            if not dot or kind:
                continue
            with contextlib.suppress(FileNotFoundError), os.fdopen(
                os.open(name, _READ, dir_fd=self.folders["r"]), "rb"
            ) as file:
                snapshot = from_json(read_bounded(file), key)
                if snapshot is not None:
                    yield snapshot, os.fstat(file.fileno()).st_mtime

    def _is_there(self, snapshot: Snapshot) -> bool:
        try:
            os.stat(snapshot.name, dir_fd=self.folders["s"], follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def prove(self, snapshot: Snapshot, digest: str) -> Snapshot:
        """Record that another blob was verified to give the snapshot's diff_id."""
        if digest in snapshot.digests:
            return snapshot
        snapshot = replace(snapshot, digests=(*snapshot.digests, digest))
        self._record(snapshot)
        return snapshot

    # -- making

    @contextlib.contextmanager
    def turn(self, key: str, timeout: float) -> t.Iterator[None]:
        """Let only one run make the snapshot with this key. Raises ``RootfsError`` if that takes ``timeout`` seconds."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        deadline = time.monotonic() + timeout
        with opened(os.open(f"{key}.lock", flags, 0o600, dir_fd=self.folders["r"])) as lock:
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise RootfsError(
                            f"another run makes a layer in {show(self.path)} and was not done after {timeout:g} seconds; wait"
                            " for it or raise lock_timeout"
                        ) from None
                    time.sleep(_POLL_SECONDS)
            yield

    @contextlib.contextmanager
    def draft(self, parent: Snapshot | None) -> t.Iterator[tuple[str, int]]:
        """Make a writable tree on top of a snapshot, or an empty one; yield its name and a descriptor of its root.

        It is removed at the end unless it was published.
        """
        name = os.urandom(16).hex()
        work = self.folders["w"]
        if parent is None:
            make_subvolume(work, name.encode())
        else:
            with opened(os.open(parent.name, _DIRECTORY, dir_fd=self.folders["s"])) as source:
                make_snapshot(source, work, name.encode())
        try:
            with opened(os.open(name, _DIRECTORY, dir_fd=work)) as fd:
                yield name, fd
        finally:
            remove_subvolume(work, name)

    def publish(self, draft: str, snapshot: Snapshot, journal: bytes | None = None) -> Snapshot:
        """Make a finished draft the snapshot, under a new name, durably, with the journal of its layer if there is one."""
        syncfs(self.folders["w"])
        while True:
            name = "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(_NAME_LENGTH))
            try:
                os.stat(name, dir_fd=self.folders["s"], follow_symlinks=False)
            except FileNotFoundError:
                break
        os.rename(draft, name, src_dir_fd=self.folders["w"], dst_dir_fd=self.folders["s"])
        with opened(os.open(name, _DIRECTORY, dir_fd=self.folders["s"])) as fd:
            make_read_only(fd)
        snapshot = replace(snapshot, name=name)
        syncfs(self.folders["s"])
        if journal is not None:
            write_file(self.folders["r"], name + JOURNAL, journal)
        self._record(snapshot)
        return snapshot

    def make_tree(self, snapshot: Snapshot, folder: int, name: bytes) -> None:
        """Make a tree of a snapshot at ``name`` in a folder. Raises ``RootfsError``."""
        try:
            with opened(os.open(snapshot.name, _DIRECTORY, dir_fd=self.folders["s"])) as source:
                make_snapshot(source, folder, name)
        except OSError as error:
            raise RootfsError(
                f"no snapshot of {show(self.path)} can be made for dest: {os_phrase(error)}; leave store_dir out, or choose one on"
                " the same file system"
            ) from error

    def _record(self, snapshot: Snapshot) -> None:
        write_file(self.folders["r"], f"{snapshot.key}.json", snapshot.to_json())


def write_file(folder: int, name: str, data: bytes) -> None:
    """Replace a file of a store, which is durable when this returns."""
    new = f"{name}.new"
    with os.fdopen(os.open(new, _WRITE, 0o600, dir_fd=folder), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
    os.fsync(folder)


def remove_subvolume(folder: int, name: str) -> bool:
    """Remove a subvolume of a store, if it is there; return whether it is gone."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.ENOTDIR:
            raise
    return destroy_subvolume(folder, name.encode()) or not try_remove_tree(folder, name.encode())
