# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Open a store to look at it, and read what it holds (docs/behaviour.md, section 16)."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import typing as t
from dataclasses import dataclass

from .._cache.folder import open_folders
from .._errors import RootfsError, os_phrase, show
from .._fs.descriptors import opened
from .._fs.directories import names_in
from .chain import chain_ids
from .references import Reference, read_reference
from .snapshot import from_json, read_bounded
from .store import FOLDERS, JOURNAL

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_RECORD = re.compile(r"([0-9a-f]{64})\.json\Z")
_LOCKS = re.compile(r"(?:lock|[0-9a-f]{64}\.lock)\Z")
_MOST_NAMES = 1_000_000

# The names of the folders: names, records, drafts, references.
_SNAPSHOTS, _RECORDS, _DRAFTS, _REFERENCES = FOLDERS


class Stored(t.NamedTuple):
    """A recorded snapshot, without what unpacking has told.

    ``size`` and ``entries`` are those of its layer and all below it: bytes when decompressed. ``used`` is when a run used it
    last, in seconds since the epoch.
    """

    key: str
    name: str
    parent: str
    diff_id: str
    digests: tuple[str, ...]
    options: dict[str, t.Any]
    size: int
    entries: int
    used: float


@dataclass(frozen=True)
class Contents:
    """All that a store holds. ``damaged`` are files of records that cannot be read, ``names`` names of snapshots.

    ``references`` are by their files; one that cannot be read is ``None``. ``unfinished`` are folders and names that only
    a run at work may have.
    """

    snapshots: dict[str, Stored]
    damaged: tuple[str, ...]
    names: frozenset[str]
    references: dict[str, Reference | None]
    unfinished: tuple[tuple[str, str], ...]

    def chain_id(self, snapshot: Stored) -> str | None:
        """Return the chain ID of a snapshot; ``None`` if one below it has no record."""
        diff_ids: list[str] = []
        seen: set[str] = set()
        current: Stored | None = snapshot
        while current is not None and current.name not in seen:
            seen.add(current.name)
            diff_ids.append(current.diff_id)
            if not current.parent:
                return chain_ids(reversed(diff_ids))[-1]
            current = self.snapshots.get(current.parent)
        return None

    def with_lower(self, names: t.Iterable[str]) -> set[str]:
        """Return these names with those of all snapshots below them."""
        found: set[str] = set()
        for name in names:
            while name and name not in found:
                found.add(name)
                name = self.snapshots[name].parent if name in self.snapshots else ""
        return found


@contextlib.contextmanager
def open_store(path: str) -> t.Iterator[dict[str, int]]:
    """Open the folders of a store that are there, without making any; yield their descriptors by name.

    Raises ``RootfsError``.
    """
    try:
        folders = open_folders(path, FOLDERS, True, "store_dir")
    except OSError as error:
        raise RootfsError(f"store_dir {show(path)} cannot be read: {os_phrase(error)}") from error
    with contextlib.ExitStack() as stack:
        for fd in folders.values():
            stack.callback(os.close, fd)
        yield folders


@contextlib.contextmanager
def shared_lock(folders: t.Mapping[str, int]) -> t.Iterator[bool]:
    """Keep others from collecting; yield whether a run uses the store."""
    if not _has_lock(folders):
        yield False
        return
    with opened(os.open("lock", _READ, dir_fd=folders[_REFERENCES])) as lock:
        is_used = False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            is_used = True
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield is_used


def _has_lock(folders: t.Mapping[str, int]) -> bool:
    return _REFERENCES in folders and "lock" in _names(folders, _REFERENCES)


def read_contents(folders: t.Mapping[str, int]) -> Contents:
    """Read all of a store. Raises ``RootfsError`` and ``OSError``."""
    snapshots: dict[str, Stored] = {}
    damaged: list[str] = []
    journals: list[str] = []
    unfinished = [(_DRAFTS, name) for name in _names(folders, _DRAFTS)]
    for name in _names(folders, _RECORDS):
        match = _RECORD.match(name)
        if match is None:
            if name.endswith(JOURNAL):
                journals.append(name)
            else:
                unfinished += [] if _LOCKS.match(name) else [(_RECORDS, name)]
            continue
        stored = _read(folders[_RECORDS], match.group(1))
        if stored is None or stored.name in snapshots:
            damaged.append(name)
        else:
            snapshots[stored.name] = stored
    references: dict[str, Reference | None] = {}
    for name in _names(folders, _REFERENCES):
        if _RECORD.match(name):
            references[name] = read_reference(folders[_REFERENCES], name)
        elif not _LOCKS.match(name):
            unfinished.append((_REFERENCES, name))
    names = frozenset(_names(folders, _SNAPSHOTS))
    unfinished += [(_RECORDS, name) for name in journals if name[: -len(JOURNAL)] not in names | snapshots.keys()]
    return Contents(snapshots, tuple(damaged), names, references, tuple(unfinished))


def _names(folders: t.Mapping[str, int], folder: str) -> list[str]:
    if folder not in folders:
        return []
    names = sorted(map(os.fsdecode, names_in(folders[folder])))
    if len(names) > _MOST_NAMES:
        raise RootfsError(
            f"the folder {folder} of store_dir holds more than {_MOST_NAMES} files; look at what made them"
        )
    return names


def _read(folder: int, key: str) -> Stored | None:
    try:
        with os.fdopen(os.open(f"{key}.json", _READ, dir_fd=folder), "rb") as file:
            found = from_json(read_bounded(file), key)
            used = os.fstat(file.fileno()).st_mtime
    except OSError:
        # also one that was replaced meanwhile by something that is no file
        return None
    if found is None:
        return None
    budget = found.told.budget
    size = budget["size"] + budget["holes"]
    digests = found.digests
    return Stored(key, found.name, found.parent, found.diff_id, digests, found.options, size, budget["entries"], used)
