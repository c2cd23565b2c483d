# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Describe a dest as its record knows it, and change nothing (docs/behaviour.md, section 14)."""

from __future__ import annotations

import os
import stat
import time
import typing as t

from .._dest.dest import PARTIALS, Dest, view_dest
from .._dest.dest_path import resolve_dest
from .._dest.exchange import ExchangedDest
from .._dest.mounted import MountedDest
from .._dest.record import Record, Tree
from .._dest.uploads import load_upload_folders
from .._errors import RootfsError, os_phrase, show
from .._fs.descriptors import opened_or_none
from .._fs.walk import walk

if t.TYPE_CHECKING:
    from .audit import Audit

# Files with several names that are told from each other; a container may make more of them.
_MOST_LINKED = 1_000_000

_Facts = t.Dict[str, t.Any]

# What a tree's result has that says which image it is.
_IDENTITY = ("manifest_digest", "config_digest", "ref", "platform")
_WHOLE = (*_IDENTITY, "layers", "image", "report")


def describe_dest(dest: str, sizes: bool, how: Audit | None = None) -> _Facts:
    """Return what is known of a dest; with ``sizes``, also how much its trees take on disk. Raises ``RootfsError``.

    ``how`` says how the tree at dest is compared with its image.
    """
    location = resolve_dest(dest)
    try:
        with view_dest(location) as (opened_dest, is_busy):
            found = {"dest": location.path, "busy": is_busy, **_describe(opened_dest, sizes)}
            if how is not None:
                found["drift"] = _drift_of(opened_dest, is_busy, how)
            return found
    except OSError as error:
        raise RootfsError(f"{show(dest)} cannot be read: {os_phrase(error)}") from error


def _describe(dest: Dest, sizes: bool) -> _Facts:
    record = dest.load()
    strategy = _strategy(dest)
    is_there = _exists(dest)
    current = strategy.current(record) if is_there else None
    staged = record.next if record.next is not None and strategy.has_staged(record) else None
    found: _Facts = {
        "exists": is_there,
        "provisioned": current is not None,
        **{name: None if current is None else current.result.get(name) for name in _WHOLE},
        **_describe_tree(current),
        "staged": None if staged is None else _describe_other(dest, staged, sizes),
        "earlier": [_describe_other(dest, tree, sizes) for tree in record.generations],
        "unfinished": _unfinished(dest, record, staged),
    }
    if sizes:
        found["size"] = _size_at_dest(dest)
    return found


def _strategy(dest: Dest) -> MountedDest | ExchangedDest:
    return MountedDest(dest, True) if dest.location.is_mount else ExchangedDest(dest, True, 0)


def _drift_of(dest: Dest, is_busy: bool, how: Audit) -> _Facts | None:
    """Return what differs from the image; ``None`` if there is no tree of this collection."""
    # imported late: most tasks compare nothing
    from .audit import audit, is_at_work

    record = dest.load()
    strategy = _strategy(dest)
    current = strategy.current(record) if _exists(dest) else None
    if current is None:
        return None
    if is_busy:
        return is_at_work(how).to_result()
    return audit(dest, record, current, strategy, how).to_result()


def _exists(dest: Dest) -> bool:
    with opened_or_none(dest.open_dest()) as fd:
        return fd is not None


def _describe_tree(tree: Tree | None) -> _Facts:
    if tree is None:
        return {"options": None, "made": None, "signed_by": None, "store": None, "store_dir": None}
    made = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(tree.made)) if tree.made else None
    return {
        "options": tree.fingerprint.get("options"),
        "made": made,
        "signed_by": sorted(tree.signers),
        "store": tree.form,
        "store_dir": tree.store or None,
    }


def _describe_other(dest: Dest, tree: Tree, sizes: bool) -> _Facts:
    """Describe a tree in the private folder."""
    found: _Facts = {
        "path": os.path.join(dest.location.state_path, tree.name),
        **{name: tree.result.get(name) for name in _IDENTITY},
        **_describe_tree(tree),
        "failed": tree.failed,
    }
    if sizes:
        with opened_or_none(_open_in(dest.state, tree.name)) as fd:
            found["size"] = None if fd is None else _size_of(fd)
    return found


def _unfinished(dest: Dest, record: Record, staged: Tree | None) -> _Facts:
    """Return what the next run that may change something finishes, undoes or goes on with."""
    phase = record.phase if record.next is not None and staged is None else ""
    return {
        "phase": "removing" if record.removing else phase or None,
        "transfers": len(load_upload_folders(dest)),
        "partial_blobs": dest.has(PARTIALS),
        "to_remove": [os.path.join(dest.location.state_path, tree.name) for tree in record.trash],
    }


def _size_at_dest(dest: Dest) -> int | None:
    with opened_or_none(dest.open_dest()) as fd:
        return None if fd is None else _size_of(fd)


def _open_in(folder: int, name: str) -> int | None:
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    except FileNotFoundError:
        return None


def _size_of(top: int) -> int:
    """Return the bytes that a tree takes on disk; a file with several names counts once."""
    total = os.fstat(top).st_blocks
    device = os.fstat(top).st_dev
    linked: set[int] = set()
    for seen in walk(top, "to add up its size"):
        status = seen.status
        if status.st_dev != device:
            # what is mounted there
            continue
        if status.st_nlink > 1 and not stat.S_ISDIR(status.st_mode):
            if status.st_ino in linked:
                continue
            if len(linked) < _MOST_LINKED:
                linked.add(status.st_ino)
        total += status.st_blocks
    return total * 512
