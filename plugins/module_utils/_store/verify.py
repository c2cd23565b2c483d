# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare what a store holds with what it has recorded (docs/behaviour.md, section 16)."""

from __future__ import annotations

import os
import typing as t

from .._errors import os_phrase, show
from .._fs.descriptors import opened
from .._fs.directories import DIRECTORY
from .._fs.syscalls import is_read_only_subvolume, is_subvolume
from .chain import key_of
from .contents import Contents, Stored
from .store import FOLDERS

_SNAPSHOTS = FOLDERS[0]


def find_problems(folders: t.Mapping[str, int], contents: Contents, is_used: bool) -> list[str]:
    """Return a sentence for each fault. What a run at work may be making is not one if a run uses the store."""
    referred = {name for each in contents.references.values() if each is not None for name in each.snapshots}
    faults = [f"the record {show(name)} is damaged, or of another version" for name in contents.damaged]
    for snapshot in contents.snapshots.values():
        faults += [f"the snapshot {show(snapshot.name)} {fault}" for fault in _faults_of(folders, contents, snapshot)]
    faults += [
        f"the snapshot {show(os.fsencode(name))} has no record"
        for name in sorted(contents.names - contents.snapshots.keys())
        if not is_used or name in referred
    ]
    faults += _faults_of_references(contents)
    if not is_used:
        faults += [
            f"{show(os.fsencode(name))} in the folder {folder} was left by an interrupted run"
            for folder, name in contents.unfinished
        ]
    return faults


def _faults_of(folders: t.Mapping[str, int], contents: Contents, snapshot: Stored) -> list[str]:
    faults = []
    chain_id = contents.chain_id(snapshot)
    if chain_id is None:
        faults.append(f"lies on {show(snapshot.parent)}, which has no record, or not one of its own")
    elif key_of(chain_id, snapshot.options) != snapshot.key:
        faults.append("is recorded under the key of another layer")
    if not snapshot.digests:
        faults.append("has no verified blob")
    fault = _fault_of_tree(folders, snapshot)
    return [*faults, fault] if fault else faults


def _fault_of_tree(folders: t.Mapping[str, int], snapshot: Stored) -> str:
    """Return what is wrong with the tree of a snapshot; empty if nothing is."""
    if _SNAPSHOTS not in folders:
        return "is not there"
    try:
        with opened(os.open(snapshot.name, DIRECTORY, dir_fd=folders[_SNAPSHOTS])) as fd:
            if snapshot.options.get("driver") != "btrfs":
                return ""
            if not is_subvolume(fd):
                return "is not a subvolume"
            return "" if is_read_only_subvolume(fd) else "can be written to"
    except FileNotFoundError:
        return "is not there"
    except OSError as error:
        return f"cannot be opened: {os_phrase(error)}"


def _faults_of_references(contents: Contents) -> list[str]:
    faults = []
    for name, reference in contents.references.items():
        if reference is None:
            faults.append(f"the reference {show(name)} cannot be read")
            continue
        missing = [each for each in reference.snapshots if each not in contents.names]
        if missing:
            names = ", ".join(map(show, missing[:10])) + (", …" if len(missing) > 10 else "")
            faults.append(f"the record {show(reference.record)} refers to snapshots that are not there: {names}")
    return faults
