# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find what nobody needs of a store, and remove it (docs/behaviour.md, section 16)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
import typing as t
from dataclasses import dataclass

from .._fs.descriptors import opened
from .._fs.lock import await_lock
from .contents import Contents, Stored, read_contents
from .references import GONE, Reference, follow
from .store import FOLDERS, JOURNAL, Store, remove_tree

_DAY = 86_400
_SNAPSHOTS, _RECORDS, _DRAFTS, _REFERENCES = FOLDERS


@dataclass(frozen=True)
class Collection:
    """What is to be removed: references whose dests are gone, snapshots from the top, and leftovers in a folder.

    ``unsure`` names files of references that cannot be read: while there are any, nothing else is removed.
    """

    references: tuple[Reference, ...] = ()
    snapshots: tuple[Stored, ...] = ()
    leftovers: tuple[tuple[str, str], ...] = ()
    unsure: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.references or self.snapshots or self.leftovers)


def plan_collection(folders: t.Mapping[str, int], contents: Contents, days: float, is_used: bool) -> Collection:
    """Plan what to remove; ``days`` is the age from which snapshots go. What a run at work may need stays if ``is_used``.

    A reference is dropped only if the file system of its dest is there, and the record is not. What is unsure stays.
    """
    unsure = tuple(name for name, reference in contents.references.items() if reference is None)
    if unsure:
        return Collection(unsure=unsure)
    known = [reference for reference in contents.references.values() if reference is not None]
    gone = tuple(reference for reference in known if follow(reference, folders[_REFERENCES]).state == GONE)
    referred = {name for reference in known if reference not in gone for name in reference.snapshots}
    oldest = time.time() - days * _DAY
    young = {snapshot.name for snapshot in contents.snapshots.values() if snapshot.used > oldest}
    kept = contents.with_lower(referred | young)
    removed = [snapshot for name, snapshot in contents.snapshots.items() if name not in kept]
    # one that is interrupted leaves none without those below it
    removed.sort(key=lambda snapshot: len(contents.with_lower([snapshot.name])), reverse=True)
    return Collection(gone, tuple(removed), () if is_used else _leftovers(contents, referred))


def _leftovers(contents: Contents, referred: t.AbstractSet[str]) -> tuple[tuple[str, str], ...]:
    """Return what interrupted runs have left: folders and names."""
    without_record = sorted(contents.names - contents.snapshots.keys() - referred)
    return (
        *contents.unfinished,
        *((_RECORDS, name) for name in contents.damaged),
        *((_SNAPSHOTS, name) for name in without_record),
    )


def carry_out(folders: t.Mapping[str, int], collection: Collection) -> Collection:
    """Remove all of a plan; return what is gone. The caller holds the lock alone. Raises ``OSError``."""
    for reference in collection.references:
        os.unlink(reference.file, dir_fd=folders[_REFERENCES])
    for snapshot in collection.snapshots:
        os.unlink(f"{snapshot.key}.json", dir_fd=folders[_RECORDS])
        with contextlib.suppress(FileNotFoundError):
            os.unlink(snapshot.name + JOURNAL, dir_fd=folders[_RECORDS])
    if collection.snapshots:
        # no record may come back without its snapshot
        os.fsync(folders[_RECORDS])
    snapshots = [snapshot for snapshot in collection.snapshots if remove_tree(folders[_SNAPSHOTS], snapshot.name)]
    leftovers = [(folder, name) for folder, name in collection.leftovers if _remove(folders[folder], name)]
    return Collection(collection.references, tuple(snapshots), tuple(leftovers), collection.unsure)


def _remove(folder: int, name: str) -> bool:
    try:
        os.unlink(name, dir_fd=folder)
        return True
    except IsADirectoryError:
        return remove_tree(folder, name)


def collect(store: Store, days: float) -> Collection:
    """Remove what nobody needs at the end of a run, unless another run uses the store."""
    with _opened_lock(store.folders) as lock:
        store.unlock()
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return Collection()
        return carry_out(store.folders, plan_collection(store.folders, read_contents(store.folders), days, False))


@contextlib.contextmanager
def exclusive_lock(folders: t.Mapping[str, int], timeout: float) -> t.Iterator[None]:
    """Wait until no run uses a store, and keep others from it. Raises ``RootfsError`` if that takes so many seconds."""
    with _opened_lock(folders) as lock:
        await_lock(lock, timeout, "uses the store")
        yield


def _opened_lock(folders: t.Mapping[str, int]) -> opened:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    return opened(os.open("lock", flags, 0o600, dir_fd=folders[_REFERENCES]))
