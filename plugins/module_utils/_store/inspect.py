# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Describe a store, check it, and remove what nobody needs (docs/behaviour.md, section 16)."""

from __future__ import annotations

import os
import time
import typing as t
from dataclasses import dataclass

from .._errors import RootfsError, os_phrase, show
from .._fs.descriptors import opened_or_none
from .._fs.directories import DIRECTORY
from .._fs.extents import Extents, measure_extents
from .collection import Collection, carry_out, exclusive_lock, plan_collection
from .contents import Contents, Stored, open_store, read_contents, shared_lock
from .references import GONE, UNKNOWN, Found, Reference, follow
from .store import FOLDERS
from .verify import find_problems

_Facts = t.Dict[str, t.Any]
_SNAPSHOTS = FOLDERS[0]
_MOST_PROBLEMS = 1000


@dataclass(frozen=True)
class Inspection:
    """What a task asks of a store. ``max_age`` is in days, ``lock_timeout`` in seconds."""

    store_dir: str
    sizes: bool = False
    verify: bool = False
    prune: bool = False
    max_age: float = 7
    lock_timeout: float = 300


@dataclass(frozen=True)
class Inspected:
    """The result of an inspection: values for the user, whether something has changed, and warnings."""

    facts: _Facts
    changed: bool = False
    warnings: tuple[str, ...] = ()


def inspect_store(asked: Inspection, check_mode: bool) -> Inspected:
    """Do what a task asks; in check mode, predict what pruning would remove. Raises ``RootfsError``."""
    path = os.path.realpath(asked.store_dir)
    if not os.path.isabs(asked.store_dir) or path == "/":
        raise RootfsError(f"store_dir is {show(asked.store_dir)}; give the absolute path of a folder")
    for name, value in (("store_max_age", asked.max_age), ("lock_timeout", asked.lock_timeout)):
        if not value >= 0:
            raise RootfsError(f"{name} is {value:g}; give 0 or more")
    try:
        with open_store(path) as folders:
            pruned, left = Collection(), Collection()
            if asked.prune and not check_mode and set(FOLDERS) <= folders.keys():
                with exclusive_lock(folders, asked.lock_timeout):
                    left = plan_collection(folders, read_contents(folders), asked.max_age, False)
                    pruned = carry_out(folders, left)
            with shared_lock(folders) as is_used:
                contents = read_contents(folders)
                if asked.prune and check_mode:
                    left = pruned = plan_collection(folders, contents, asked.max_age, is_used)
                view = _View(path, folders, contents, is_used)
                facts = _describe(view, asked)
    except OSError as error:
        raise RootfsError(f"store_dir {show(path)} could not be worked on: {os_phrase(error)}") from error
    if asked.prune:
        facts["pruned"] = _describe_pruned(pruned)
    return Inspected(facts, bool(pruned), tuple(_warnings(left, pruned)))


@dataclass(frozen=True)
class _View:
    path: str
    folders: t.Mapping[str, int]
    contents: Contents
    is_used: bool


def _describe(view: _View, asked: Inspection) -> _Facts:
    contents = view.contents
    found = {
        name: (reference, follow(reference, view.folders[FOLDERS[3]]))
        for name, reference in contents.references.items()
        if reference is not None
    }
    users: dict[str, list[str]] = {}
    for reference, followed in found.values():
        for name in reference.snapshots:
            users.setdefault(name, []).append(followed.dest or reference.record)
    facts: _Facts = {
        "store_dir": view.path,
        "exists": view.folders.keys() >= set(FOLDERS),
        "busy": view.is_used,
        "snapshots": [
            _describe_snapshot(view, snapshot, sorted(users.get(snapshot.name, [])), asked.sizes)
            for snapshot in sorted(contents.snapshots.values(), key=lambda each: (each.size, each.name))
        ],
        "references": sorted(
            (_describe_reference(reference, followed) for reference, followed in found.values()),
            key=lambda each: str(each["record"]),
        ),
        **_describe_sharing(contents, [reference for reference, followed in found.values() if followed.state != GONE]),
    }
    if asked.verify:
        facts["problems"] = find_problems(view.folders, contents, view.is_used)[:_MOST_PROBLEMS]
    return facts


def _describe_snapshot(view: _View, snapshot: Stored, users: list[str], sizes: bool) -> _Facts:
    found: _Facts = {
        "name": snapshot.name,
        "parent": snapshot.parent or None,
        "chain_id": view.contents.chain_id(snapshot),
        "diff_id": snapshot.diff_id,
        "digests": list(snapshot.digests),
        "options": snapshot.options,
        "driver": snapshot.options.get("driver"),
        "layer_size": _layer_size(view.contents, snapshot),
        "tree_size": snapshot.size,
        "entries": snapshot.entries,
        "used": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(snapshot.used)),
        "dests": users,
    }
    extents: Extents | None = None
    with opened_or_none(_open_tree(view, snapshot.name)) as fd:
        if fd is not None:
            extents = measure_extents(fd) if sizes else None
    if sizes:
        found["exclusive"], found["shared"] = extents if extents is not None else (None, None)
    return found


def _open_tree(view: _View, name: str) -> int | None:
    """Open the tree of a snapshot; return ``None`` if it is not there, or not a directory, as the check tells."""
    try:
        return os.open(name, DIRECTORY, dir_fd=view.folders[_SNAPSHOTS])
    except (OSError, KeyError):
        return None


def _describe_reference(reference: Reference, found: Found) -> _Facts:
    return {
        "dest": found.dest,
        "record": reference.record,
        "state": found.state,
        "exists": None if found.dest is None or found.state == UNKNOWN else found.exists,
        "snapshots": list(reference.snapshots),
    }


def _describe_sharing(contents: Contents, references: t.Sequence[Reference]) -> _Facts:
    """Add up the recorded sizes: of the store, and of trees of their own."""
    tops = 0
    for reference in references:
        lower = {contents.snapshots[name].parent for name in reference.snapshots if name in contents.snapshots}
        tops += sum(
            contents.snapshots[name].size
            for name in reference.snapshots
            if name in contents.snapshots and name not in lower
        )
    used = contents.with_lower(name for reference in references for name in reference.snapshots)
    return {
        "size": sum(_layer_size(contents, snapshot) for snapshot in contents.snapshots.values()),
        "needed_size": sum(
            _layer_size(contents, snapshot) for name, snapshot in contents.snapshots.items() if name in used
        ),
        "unshared_size": tops,
    }


def _layer_size(contents: Contents, snapshot: Stored) -> int:
    parent = contents.snapshots.get(snapshot.parent)
    return snapshot.size - (parent.size if parent else 0)


def _describe_pruned(pruned: Collection) -> _Facts:
    return {
        "snapshots": [snapshot.name for snapshot in pruned.snapshots],
        "references": [reference.record for reference in pruned.references],
        "leftovers": [f"{folder}/{name}" for folder, name in pruned.leftovers],
    }


def _warnings(planned: Collection, gone: Collection) -> t.Iterator[str]:
    for name in planned.unsure:
        yield (
            f"the reference {show(name)} of store_dir cannot be read, so nothing was removed; remove it from the folder"
            f" {FOLDERS[3]} if no dest of this node needs it"
        )
    stay = [snapshot.name for snapshot in planned.snapshots if snapshot not in gone.snapshots]
    stay += [name for folder, name in planned.leftovers if (folder, name) not in gone.leftovers]
    if stay:
        yield f"not all of store_dir could be removed: {', '.join(show(os.fsencode(name)) for name in stay[:10])}; something is mounted or nested there"
