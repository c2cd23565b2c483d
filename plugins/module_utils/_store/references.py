# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Who refers to the snapshots of a store (docs/behaviour.md, section 16)."""

from __future__ import annotations

import hashlib
import json
import os
import typing as t

from .._dest.search import dest_of_state
from .._errors import RootfsError
from .._fs.btrfs import is_same_file_system
from .._fs.descriptors import opened
from .._fs.directories import open_existing
from .snapshot import is_name
from .store import Store, write_file

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LARGEST = 16 * 1024 * 1024

# What is known of the record that a reference names: it is there, it is not, or its file system cannot be reached.
PRESENT = "present"
GONE = "gone"
UNKNOWN = "unknown"


class Reference(t.NamedTuple):
    """The trees of one dest: the path of its record, and the names of their snapshots."""

    record: str
    snapshots: tuple[str, ...]

    @property
    def file(self) -> str:
        """The name of the file that holds it."""
        return hashlib.sha256(os.fsencode(self.record)).hexdigest() + ".json"


class Found(t.NamedTuple):
    """What a reference has led to: ``state`` is one of the words above, ``dest`` the path if it can be told."""

    state: str
    dest: str | None
    exists: bool


def refer(store: Store, reference: Reference) -> None:
    """Note which snapshots the trees of a dest need, durably."""
    write_file(store.folders["d"], reference.file, json.dumps(reference._asdict()).encode("ascii"))


def read_reference(folder: int, name: str) -> Reference | None:
    """Read the reference in a file; return ``None`` if it is damaged or lies in the file of another one."""
    try:
        with os.fdopen(os.open(name, _READ, dir_fd=folder), "rb") as file:
            value = json.loads(file.read(_LARGEST))
        found = Reference(str(value["record"]), tuple(map(str, value["snapshots"])))
        is_ours = found.record.startswith("/") and "\0" not in found.record and found.file == name
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if is_ours and all(map(is_name, found.snapshots)) else None


def follow(reference: Reference, store: int) -> Found:
    """Look whether the record of a dest is there, and its dest: on its own file system, that of the folder ``store``."""
    folder, name = os.path.split(reference.record)
    dest = None
    try:
        dest = dest_of_state(folder)
        fd, missing = open_existing(os.fsencode(folder))
    except (OSError, RootfsError):
        return Found(UNKNOWN, dest, False)
    with opened(fd):
        if not is_same_file_system(fd, store):
            return Found(UNKNOWN, dest, False)
        exists = dest is not None and os.path.isdir(dest) and not os.path.islink(dest)
        if missing:
            return Found(GONE, dest, exists)
        try:
            os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return Found(GONE, dest, exists)
        except OSError:
            return Found(UNKNOWN, dest, exists)
    return Found(PRESENT, dest, exists)
