# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A store of snapshots: find them, make them, and make trees of them.

The folder ``s`` has the snapshots under short names, ``r`` their records under their keys, ``w`` drafts, ``d`` who refers to
them. A snapshot is synced under its name before its record appears by one rename, and never written again; so a crash leaves
at most a snapshot without a record, which the next collection removes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import typing as t
from dataclasses import replace

from .._cache.folder import open_folders
from .._errors import RootfsError, os_phrase, show
from .._fs.btrfs import destroy_subvolume
from .._fs.descriptors import opened
from .._fs.lock import await_lock
from .._fs.removal import try_remove_tree
from .._fs.syscalls import syncfs
from .driver import Driver
from .snapshot import Snapshot, from_json, read_bounded

# Where the journals of a snapshot's layers lie, after the snapshot's name.
JOURNAL = ".journal"

FOLDERS = ("s", "r", "w", "d")
_LETTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
_NAME_LENGTH = 6
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC


class Store:
    """An open store, which ``close`` closes. While it is open, nothing of it is collected. Raises ``RootfsError``."""

    def __init__(self, path: str, driver: Driver) -> None:
        self.path = path
        self.driver = driver
        self._stack = contextlib.ExitStack()
        try:
            self.folders = open_folders(path, FOLDERS, False, "store_dir")
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

    def is_too_deep(self, layers: int) -> bool:
        """Return whether a tree of so many layers is one snapshot."""
        return layers > self.driver.deepest

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

    def _is_there(self, snapshot: Snapshot) -> bool:
        try:
            os.stat(snapshot.name, dir_fd=self.folders["s"], follow_symlinks=False)
        except FileNotFoundError:
            return False
        return True

    def prove(self, snapshot: Snapshot, digests: t.Sequence[str], gzip: t.Mapping[str, str]) -> Snapshot:
        """Record that other blobs were verified to give the snapshot, see there."""
        new = tuple(digest for digest in digests if digest not in snapshot.digests)
        if not new:
            return snapshot
        snapshot = replace(snapshot, digests=(*snapshot.digests, *new), gzip={**snapshot.gzip, **gzip})
        self._record(snapshot)
        return snapshot

    # -- making

    @contextlib.contextmanager
    def turn(self, key: str, timeout: float) -> t.Iterator[None]:
        """Let only one run make the snapshot with this key. Raises ``RootfsError`` if that takes ``timeout`` seconds."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        with opened(os.open(f"{key}.lock", flags, 0o600, dir_fd=self.folders["r"])) as lock:
            await_lock(lock, timeout, f"makes a layer in {show(self.path)}")
            yield

    @contextlib.contextmanager
    def draft(self) -> t.Iterator[str]:
        """Yield the name of a new draft, for ``opened_draft``, and remove it at the end unless it was published."""
        name = os.urandom(16).hex()
        try:
            yield name
        finally:
            remove_tree(self.folders["w"], name)

    def opened_draft(self, name: str, below: t.Sequence[Snapshot]) -> opened:
        """Make the tree of a draft on top of snapshots, the lowest first, and open its root for a ``with`` block."""
        return opened(self.driver.open_draft(self.folders, name, _names(below)))

    def publish(self, draft: str, snapshot: Snapshot, journal: bytes | None = None) -> Snapshot:
        """Make a finished draft, which is closed, the snapshot, under a new name, durably, with its journal if there is one."""
        syncfs(self.folders["w"])
        while True:
            name = "".join(_LETTERS[byte % len(_LETTERS)] for byte in os.urandom(_NAME_LENGTH))
            try:
                os.stat(name, dir_fd=self.folders["s"], follow_symlinks=False)
            except FileNotFoundError:
                break
        self.driver.publish(self.folders, draft, name)
        snapshot = replace(snapshot, name=name)
        syncfs(self.folders["s"])
        if journal is not None:
            write_file(self.folders["r"], name + JOURNAL, journal)
        self._record(snapshot)
        return snapshot

    def make_tree(self, snapshots: t.Sequence[Snapshot], folder: int, name: bytes) -> None:
        """Make a tree of snapshots, the lowest first, at ``name`` in a folder. Raises ``RootfsError``."""
        try:
            self.driver.make_tree(self.folders, _names(snapshots), folder, name)
        except OSError as error:
            raise RootfsError(
                f"no tree of the snapshots of {show(self.path)} can be made for dest: {os_phrase(error)}; leave store_dir out, or"
                " choose one on the same file system"
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


def _names(snapshots: t.Sequence[Snapshot]) -> list[str]:
    """Return the names of snapshots, the top first."""
    return [snapshot.name for snapshot in reversed(snapshots)]


def remove_tree(folder: int, name: str) -> bool:
    """Remove a snapshot or a draft, at once where it is a subvolume; return whether it is gone."""
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return destroy_subvolume(folder, name.encode()) or not try_remove_tree(folder, name.encode())
