# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare the tree at dest with what is recorded of it (docs/behaviour.md, section 17)."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from dataclasses import dataclass

from .._dest.dest import JOURNAL, PROVEN, Dest
from .._dest.made import read_made
from .._dest.mounts import is_below, read_mounts
from .._dest.record import Tree, change_time
from .._drift.compare import Compared, compare
from .._drift.exclusions import Exclusions, Rules, normal
from .._drift.findings import CONTENT, Drift
from .._drift.objects import Looks
from .._drift.options import Verifying
from .._drift.proven import Proven, from_bytes, to_bytes
from .._drift.recorded import JournalError, Recorded, replay
from .._errors import RootfsError, show
from .._fs.descriptors import opened, opened_or_none
from .._fs.directories import open_existing, open_private
from .._fs.stack import opened_tree, opened_upper
from .._report import Report
from .._rootfs.attributes import Policy
from .._rootfs.ids import parse_id_maps
from .._store.store import JOURNAL as SNAPSHOT_JOURNAL
from .._unpack_options import UnpackOptions

_RECREATE = "set recreate: true to have the tree unpacked again"
_LARGEST_JOURNAL = 128 * 1024 * 1024
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Basis:
    """What a tree is compared with: what was recorded, with which options it was made, and what is left out."""

    recorded: Recorded
    options: UnpackOptions
    rules: Rules
    looks: Looks


def read_basis(dest: Dest, tree: Tree, exclusions: Exclusions, apart: t.Iterable[str] = ()) -> Basis | str:
    """Return what the tree at dest is compared with, or why it cannot be compared. Raises ``RootfsError``.

    ``apart`` are names at the top that do not belong to the tree.
    """
    journals = _journals(dest, tree)
    if journals is None or not tree.finished:
        return f"nothing is recorded of its files; {_RECREATE}"
    try:
        recorded = replay(journals)
    except JournalError as error:
        raise RootfsError(
            f"what is recorded of the files of {show(dest.path)} is damaged: {error}; {_RECREATE}"
        ) from error
    options = options_of(tree)
    paths = {*_known_paths(dest, tree, exclusions), *(f"/{name}" for name in apart)}
    made = list(filter(None, map(normal, read_made(dest, tree)))) if exclusions.mount_points else []
    rules = Rules(exclusions, paths, made)
    proven = from_bytes(dest.read((tree.papers + PROVEN).encode()) or b"") if tree.papers else {}
    return Basis(recorded, options, rules, Looks(recorded, Policy(Report(), options), tree.finished, proven))


def compare_metadata(dest: Dest, basis: Basis, verifying: Verifying) -> Compared:
    """Compare all but contents. Raises ``RootfsError`` and ``OSError``."""
    deadline = time.monotonic() + verifying.timeout
    what = (basis.recorded, basis.rules, basis.looks, deadline)
    with opening(dest) as top, _opened_upper(dest, verifying) as upper:
        if upper is None:
            return compare(top, *what)
        # imported late: most trees are no stacks
        from .._drift.upper import compare_upper

        return compare_upper((top, upper), *what)


@contextlib.contextmanager
def _opened_upper(dest: Dest, verifying: Verifying) -> t.Iterator[int | None]:
    """Open the upper directory of a stack if it is enough; contents are those of snapshots, too."""
    if verifying.level == CONTENT:
        yield None
        return
    with opened_or_none(dest.open_dest()) as fd:
        if fd is None:
            yield None
            return
        with opened_upper(fd) as upper:
            yield upper


def now_at(dest: Dest) -> int:
    """Return the time that files of dest would get now, in nanoseconds; 0 if none can be made there."""
    with contextlib.suppress(OSError), opened_or_none(dest.open_dest()) as fd:
        if fd is not None:
            # not in the tree, where a file may need a name for a moment
            is_beside = os.fstat(fd).st_dev == os.fstat(dest.state).st_dev
            return change_time(dest.state if is_beside else fd)
    return 0


def note_proven(dest: Dest, tree: Tree, basis: Basis, proven: Proven) -> None:
    """Remember files that were touched, and whose content is the image's, if that is not known yet."""
    known = basis.looks.proven
    if tree.papers and any(known.get(number) != times for number, times in proven.items()):
        known.update(proven)
        dest.write((tree.papers + PROVEN).encode(), to_bytes(known))


def not_verifiable(verifying: Verifying, why: str) -> Drift:
    """Return the result for a tree of which nothing is recorded."""
    return Drift(level=verifying.level, not_verifiable=why)


@contextlib.contextmanager
def opening(dest: Dest, writing: bool = False) -> t.Iterator[int]:
    """Open the tree at dest, which nobody else has mounted if it is a stack and for ``writing``.

    Raises ``RootfsError`` if it is gone.
    """
    fd = dest.open_dest()
    if fd is None:
        raise RootfsError(f"{show(dest.path)} is gone; run again")
    with opened(fd), opened_tree(fd, dest.path, writing) as top:
        yield top


def options_of(tree: Tree) -> UnpackOptions:
    """Return the options that a tree was made with; limits are those of the record. Raises ``RootfsError``."""
    made = tree.fingerprint.get("options") or {}
    try:
        uids, gids = parse_id_maps(made["uid_map"], made["gid_map"])
        return UnpackOptions(
            max_size=2**63,
            max_entries=2**31,
            devices=str(made["devices"]),
            preserve=bool(made["preserve"]),
            xattrs=tuple(map(str, made["xattrs"])),
            drop_acls=bool(made["drop_acls"]),
            keep_dirlinks=bool(made["keep_dirlinks"]),
            uids=uids,
            gids=gids,
        )
    except (KeyError, TypeError) as error:
        raise RootfsError(f"the record of the tree does not tell its options; {_RECREATE}") from error


def _journals(dest: Dest, tree: Tree) -> list[bytes] | None:
    """Return the journals of a tree's layers, or the one of all; ``None`` if there is none."""
    if tree.snapshots:
        return _journals_in_store(tree)
    data = dest.read((tree.papers + JOURNAL).encode()) if tree.papers else None
    return None if data is None else [data]


def _journals_in_store(tree: Tree) -> list[bytes] | None:
    found = []
    above, missing = open_existing(os.fsencode(tree.store))
    with opened(above), opened_or_none(None if missing or not tree.store else open_private(above, b"r")) as folder:
        if folder is None:
            return None
        for name in tree.snapshots:
            try:
                journal = os.open(name + SNAPSHOT_JOURNAL, _READ, dir_fd=folder)
            except FileNotFoundError:
                return None
            with os.fdopen(journal, "rb") as file:
                found.append(file.read(_LARGEST_JOURNAL))
    return found


def _known_paths(dest: Dest, tree: Tree, exclusions: Exclusions) -> t.Iterator[str]:
    """Yield the paths in the tree that its exclusions and mounts leave out."""
    for mount in read_mounts():
        if is_below(mount.point, dest.path):
            yield mount.point[len(dest.path) :]
    if exclusions.volumes:
        volumes = (tree.result.get("image") or {}).get("volumes") or ()
        yield from filter(None, map(normal, map(str, volumes)))
