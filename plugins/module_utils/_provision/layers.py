# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unpack an image by way of the store: what it holds already is not unpacked again (docs/behaviour.md, section 16)."""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass, replace

from .._dest.dest_path import RECORD
from .._dest.record import Record, Tree
from .._dest.replacement import MakeTree
from .._errors import OciError, RootfsError, show
from .._fs.btrfs import file_system_of
from .._fs.directories import DIRECTORY
from .._image.image import Image, Layer
from .._store.chain import chain_ids, key_of
from .._store.references import Reference, collect, refer
from .._store.snapshot import Snapshot
from .._store.store import Store
from .._unpack import DamagedEntry, Kept, OtherOrder, Steps, is_full
from .target import Target

DRIVER = "btrfs"


@dataclass(frozen=True)
class Shared:
    """The open store, and the snapshots of an image's lowest layers that are there, the lowest first."""

    store: Store
    snapshots: tuple[Snapshot, ...]

    def needed(self, image: Image) -> Image:
        """Return the image with the layers alone that have to be unpacked."""
        return replace(image, layers=image.layers[len(self.snapshots) :])


@contextlib.contextmanager
def open_shared(target: Target, image: Image) -> t.Iterator[Shared]:
    """Open the store of a run. Raises ``RootfsError``."""
    path = os.path.realpath(target.options.store_dir)
    dest = target.dest.path
    if os.path.commonpath([path, dest]) in (path, dest):
        raise RootfsError(f"store_dir {show(path)} and dest {show(dest)} lie in each other; choose another store_dir")
    with contextlib.closing(Store(path)) as store:
        yield Shared(store, _find(target, store, image.layers))


def keys_of(target: Target, layers: t.Sequence[Layer]) -> list[str]:
    """Return the key of each layer's snapshot."""
    options = target.options.unpack.to_fingerprint()
    return [key_of(chain, options) for chain in chain_ids(layer.diff_id for layer in layers)]


def build(target: Target, shared: Shared, steps: Steps, kept: Kept) -> tuple[Snapshot, ...]:
    """Make the snapshots that are missing, and return all of the image. Raises ``OciError`` and ``OSError``."""
    while True:
        try:
            snapshots = list(_find(target, shared.store, steps.layers))
            keys = keys_of(target, steps.layers)
            for layer, key in list(zip(steps.layers, keys))[len(snapshots) :]:
                with shared.store.turn(key, target.options.lock_timeout):
                    snapshots.append(_make(_Place(target, shared.store, steps, kept), snapshots, layer, key))
            return tuple(snapshots)
        except OtherOrder:
            steps.sort_by_content()


@dataclass(frozen=True)
class _Place:
    target: Target
    store: Store
    steps: Steps
    kept: Kept


def _find(target: Target, store: Store, layers: t.Sequence[Layer]) -> tuple[Snapshot, ...]:
    """Return the snapshots that this image may use: those whose diff_ids its own blobs were verified to give."""
    found: list[Snapshot] = []
    for layer, key in zip(layers, keys_of(target, layers)):
        snapshot = _proven(target, store, layer, key)
        if snapshot is None:
            break
        found.append(snapshot)
    return tuple(found)


def _proven(target: Target, store: Store, layer: Layer, key: str) -> Snapshot | None:
    snapshot = store.find(key)
    # an old archive names no digest of a blob, so only its content proves what it is
    if snapshot is None or layer.digest_is_diff_id or layer.digest not in snapshot.digests:
        return None
    used, unpack = snapshot.told.budget, target.options.unpack
    if used["size"] + used["holes"] > unpack.max_size or used["entries"] > unpack.max_entries:
        # unpacking gives the error
        return None
    return snapshot


def _make(place: _Place, below: t.Sequence[Snapshot], layer: Layer, key: str) -> Snapshot:
    """Unpack a layer onto the snapshots below it, unless another run has just done so."""
    store = place.store
    made = _proven(place.target, store, layer, key)
    if made is not None:
        return made
    parent = below[-1] if below else None
    while True:
        with store.draft(parent) as (name, fd):
            try:
                told, journal = place.steps.apply(layer, fd, None if parent is None else parent.told)
            except DamagedEntry:
                continue
            except (OciError, OSError) as error:
                if not is_full(error) or not place.kept.make_room(fd):
                    raise
                continue
            # the blob was verified, so it may prove a snapshot that other blobs have made
            known = store.find(key)
            if known is not None:
                return store.prove(known, layer.digest)
            above = "" if parent is None else parent.name
            return store.publish(name, Snapshot(key, "", above, layer.diff_id, (layer.digest,), told), journal)


def refer_to(target: Target, shared: Shared, record: Record, tree: Tree | None) -> None:
    """Note in the store what the trees of dest need: those of the record, and before it names a new one, that."""
    trees = [tree, record.tree, record.next, *record.generations]
    names = {name for each in trees if each is not None for name in each.snapshots}
    path = os.path.join(target.dest.location.state_path, os.fsdecode(RECORD))
    file_system = (file_system_of(target.dest.state) or b"").hex()
    refer(shared.store, Reference(path, file_system, tuple(sorted(names))))


def opening_tree(shared: Shared, snapshot: Snapshot) -> MakeTree:
    """Return what makes a tree of a snapshot at a name in a folder, and opens it."""

    def make(folder: int, name: bytes) -> int:
        shared.store.make_tree(snapshot, folder, name)
        return os.open(name, DIRECTORY, dir_fd=folder)

    return make


def finish_sharing(target: Target, shared: Shared, record: Record) -> None:
    """Refer to what dest needs now, and remove what nobody needs. What cannot be removed stays for the next run."""
    try:
        refer_to(target, shared, record, None)
        collect(shared.store, target.options.store_max_age)
    except OSError:
        target.dest.warn(f"not all that store_dir {show(shared.store.path)} no longer needs could be removed")
