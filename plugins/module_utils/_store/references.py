# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who refers to the snapshots of a store, and which of them nobody needs any more."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
import typing as t

from .._errors import RootfsError
from .._fs.btrfs import file_system_of
from .._fs.descriptors import opened
from .._fs.directories import names_in, open_existing
from .store import JOURNAL, Store, remove_subvolume, write_file

_DAY = 86_400
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LARGEST = 16 * 1024 * 1024


class Reference(t.NamedTuple):
    """The trees of one dest: the path of its record, the file system of that, and the names of their snapshots."""

    record: str
    file_system: str
    snapshots: tuple[str, ...]


def refer(store: Store, reference: Reference) -> None:
    """Note which snapshots the trees of a dest need, durably."""
    write_file(store.folders["d"], _name_of(reference.record), json.dumps(reference._asdict()).encode("ascii"))


def collect(store: Store, days: float) -> int:
    """Remove snapshots that no dest refers to and no run has used for so many days; return how many.

    A reference is dropped only if the file system of its dest is there, and the record is not. What is unsure stays. Nothing
    is done while another run uses the store.
    """
    with contextlib.ExitStack() as stack:
        lock = os.open("lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=store.folders["d"])
        stack.enter_context(opened(lock))
        store.unlock()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return 0
        return _collect(store, days)


def _collect(store: Store, days: float) -> int:
    needed = _referred(store)
    if needed is None:
        return 0
    known = {snapshot.name: (snapshot, used) for snapshot, used in store.all()}
    for name in list(needed):
        while name in known and known[name][0].parent:
            name = known[name][0].parent
            needed.add(name)
    removed = 0
    now = time.time()
    parents = {snapshot.parent for snapshot, _used in known.values()}
    for name, (snapshot, used) in known.items():
        if name in needed or name in parents or now - used < days * _DAY:
            continue
        os.unlink(f"{snapshot.key}.json", dir_fd=store.folders["r"])
        os.fsync(store.folders["r"])
        removed += remove_subvolume(store.folders["s"], name)
    _remove_leftovers(store)
    return removed


def _remove_leftovers(store: Store) -> None:
    """Remove what interrupted runs have left: nobody else uses the store."""
    known = {snapshot.name for snapshot, _used in store.all()}
    for name in map(os.fsdecode, names_in(store.folders["s"])):
        if name not in known:
            remove_subvolume(store.folders["s"], name)
    for name in map(os.fsdecode, names_in(store.folders["w"])):
        remove_subvolume(store.folders["w"], name)
    for name in map(os.fsdecode, names_in(store.folders["r"])):
        snapshot, is_journal, _rest = name.partition(JOURNAL)
        if not name.endswith(".json") and not (is_journal and snapshot in known):
            os.unlink(name, dir_fd=store.folders["r"])


def _referred(store: Store) -> set[str] | None:
    """Return the names of snapshots that a dest needs; ``None`` if a reference cannot be read."""
    needed: set[str] = set()
    for name in map(os.fsdecode, names_in(store.folders["d"])):
        if not name.endswith(".json"):
            continue
        reference = _read(store, name)
        if reference is None:
            return None
        if _is_gone(reference):
            os.unlink(name, dir_fd=store.folders["d"])
        else:
            needed.update(reference.snapshots)
    return needed


def _read(store: Store, name: str) -> Reference | None:
    try:
        with os.fdopen(os.open(name, _READ, dir_fd=store.folders["d"]), "rb") as file:
            value = json.loads(file.read(_LARGEST))
        return Reference(str(value["record"]), str(value["file_system"]), tuple(map(str, value["snapshots"])))
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _is_gone(reference: Reference) -> bool:
    """Return whether the record of a dest is missing on its own file system, which is there."""
    try:
        fd, missing = open_existing(os.fsencode(os.path.dirname(reference.record)))
    except (OSError, RootfsError):
        return False
    with opened(fd):
        if (file_system_of(fd) or b"").hex() != reference.file_system:
            return False
        if missing:
            return True
        try:
            os.stat(os.path.basename(reference.record), dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return True
        except OSError:
            return False
    return False


def _name_of(record: str) -> str:
    return hashlib.sha256(os.fsencode(record)).hexdigest() + ".json"
