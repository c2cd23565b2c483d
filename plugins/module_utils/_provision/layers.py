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
from .._errors import OciError, RootfsError, os_phrase, show
from .._fs.descriptors import opened_or_none
from .._fs.directories import DIRECTORY
from .._fs.syscalls import is_subvolume
from .._image.image import Image, Layer
from .._store.chain import chain_ids, key_of
from .._store.driver import driver_of
from .._store.collection import collect
from .._store.references import Reference, refer
from .._rootfs.told import Told
from .._store.snapshot import Snapshot
from .._store.store import Store
from .._unpack import DamagedEntry, Kept, OtherOrder, Steps, is_full
from .target import Target


@dataclass(frozen=True)
class Shared:
    """The open store, and the snapshots of an image's lowest layers that are there, the lowest first."""

    store: Store
    snapshots: tuple[Snapshot, ...]

    def needed(self, image: Image) -> Image:
        """Return the image with the layers alone that have to be unpacked."""
        if not self.snapshots or not self.store.is_too_deep(len(image.layers)):
            return replace(image, layers=image.layers[len(self.snapshots) :])
        return replace(image, layers=())


@contextlib.contextmanager
def open_shared(target: Target, image: Image, form: str) -> t.Iterator[Shared]:
    """Open the store of a run whose trees have a form. Raises ``RootfsError``."""
    path = os.path.realpath(target.options.store_dir)
    dest = target.dest.path
    if os.path.commonpath([path, dest]) in (path, dest):
        raise RootfsError(f"store_dir {show(path)} and dest {show(dest)} lie in each other; choose another store_dir")
    with contextlib.closing(Store(path, driver_of(form))) as store:
        yield Shared(store, _find(target, store, image.layers))


class _Part(t.NamedTuple):
    """What one snapshot adds to those below it: a layer, or all layers of a tree that is too deep for a driver."""

    key: str
    layers: tuple[Layer, ...]

    @property
    def diff_id(self) -> str:
        """The layer's diff_id; of all layers, their chain ID."""
        return chain_ids(layer.diff_id for layer in self.layers)[-1]

    @property
    def proof(self) -> str:
        """What proves which blobs gave it; empty if only their content can."""
        # an old archive names no digest of a blob
        if any(layer.digest_is_diff_id for layer in self.layers):
            return ""
        digests = [str(layer.digest) for layer in self.layers]
        return digests[0] if len(digests) == 1 else chain_ids(digests)[-1]


def _parts(target: Target, store: Store, layers: t.Sequence[Layer]) -> list[_Part]:
    options = _options(target, store)
    keys = [key_of(chain, options) for chain in chain_ids(layer.diff_id for layer in layers)]
    if store.is_too_deep(len(layers)):
        return [_Part(keys[-1], tuple(layers))]
    return [_Part(key, (layer,)) for key, layer in zip(keys, layers)]


def _options(target: Target, store: Store) -> dict[str, t.Any]:
    """Return what snapshots of the same layers differ by."""
    return {"driver": store.driver.name, **target.options.unpack.to_fingerprint()}


class Built(t.NamedTuple):
    """The snapshots of an image, the lowest first, and what unpacking its own blobs has told, or would have."""

    snapshots: tuple[Snapshot, ...]
    told: Told


def build(target: Target, shared: Shared, steps: Steps, kept: Kept) -> Built:
    """Make the snapshots that are missing, and return all of the image. Raises ``OciError`` and ``OSError``."""
    while True:
        try:
            snapshots = list(_find(target, shared.store, steps.layers))
            parts = _parts(target, shared.store, steps.layers)
            libraries = [snapshot.gzip.get(part.proof) for snapshot, part in zip(snapshots, parts)]
            for part in parts[len(snapshots) :]:
                with shared.store.turn(part.key, target.options.lock_timeout):
                    made, library = _make(_Place(target, shared.store, steps, kept), snapshots, part)
                snapshots.append(made)
                libraries.append(library)
            told = snapshots[-1].told
            # other blobs of the same layers may be compressed in another way
            report = {**told.report, "gzip": next(filter(None, libraries), None)}
            return Built(tuple(snapshots), replace(told, report=report))
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
    for part in _parts(target, store, layers) if layers else ():
        snapshot = _proven(target, store, part)
        if snapshot is None:
            break
        found.append(snapshot)
    return tuple(found)


def _proven(target: Target, store: Store, part: _Part) -> Snapshot | None:
    snapshot = store.find(part.key)
    if snapshot is None or part.proof not in snapshot.digests:
        return None
    used, unpack = snapshot.told.budget, target.options.unpack
    if used["size"] + used["holes"] > unpack.max_size or used["entries"] > unpack.max_entries:
        # unpacking gives the error
        return None
    return snapshot


def _make(place: _Place, below: t.Sequence[Snapshot], part: _Part) -> tuple[Snapshot, str | None]:
    """Unpack layers onto the snapshots below them, unless another run has just done so.

    Returns the snapshot, and the library that inflated the layers if they are compressed by gzip.
    """
    store = place.store
    made = _proven(place.target, store, part)
    if made is not None:
        return made, made.gzip.get(part.proof)
    while True:
        with store.draft() as name:
            try:
                told, journal = _apply(place, below, part, name)
            except DamagedEntry:
                continue
            except (OciError, OSError) as error:
                if not is_full(error) or not place.kept.make_room(store.folders["w"]):
                    raise
                continue
            digests = tuple(filter(None, [part.proof]))
            library = told.report["gzip"]
            gzip = {digest: library for digest in digests if library}
            # the blobs were verified, so they may prove a snapshot that others have made
            known = store.find(part.key)
            if known is not None:
                return store.prove(known, digests, gzip), library
            above = below[-1].name if below else ""
            options = _options(place.target, store)
            made = Snapshot(part.key, "", above, part.diff_id, digests, told, options, gzip)
            return store.publish(name, made, journal), library


def _apply(place: _Place, below: t.Sequence[Snapshot], part: _Part, draft: str) -> tuple[Told, bytes | None]:
    """Unpack layers into a draft on top of the snapshots below them."""
    told = None
    if below:
        # which library inflates these layers, not those below
        told = replace(below[-1].told, report={**below[-1].told.report, "gzip": None})
    with place.store.opened_draft(draft, below) as fd:
        return place.steps.apply(part.layers, fd, told)


def refer_to(target: Target, shared: Shared, record: Record, tree: Tree | None) -> None:
    """Note in the store what the trees of dest need: those of the record, and before it names a new one, that."""
    trees = [tree, record.tree, record.next, *record.generations]
    names = {name for each in trees if each is not None for name in each.snapshots}
    path = os.path.join(target.dest.location.state_path, os.fsdecode(RECORD))
    refer(shared.store, Reference(path, tuple(sorted(names))))


def opening_tree(shared: Shared, snapshots: t.Sequence[Snapshot]) -> MakeTree:
    """Return what makes a tree of snapshots, the lowest first, at a name in a folder, and opens it."""

    def make(folder: int, name: bytes) -> int:
        shared.store.make_tree(snapshots, folder, name)
        return os.open(name, DIRECTORY, dir_fd=folder)

    return make


def carry_over_quota(target: Target, fd: int) -> None:
    """Give a new subvolume what an administrator has set on the one at dest. Raises ``RootfsError``."""
    dest = target.dest
    with opened_or_none(dest.open_dest()) as former:
        if former is None or not is_subvolume(former) or not is_subvolume(fd):
            return
        # imported late: only trees on btrfs need it
        from .._fs.btrfs_quota import carry_over

        try:
            carry_over(former, fd)
        except OSError as error:
            raise RootfsError(
                f"the properties and the quota group of the subvolume {show(dest.path)} cannot be given to its new tree:"
                f" {os_phrase(error)}; remove them (btrfs property, btrfs qgroup), or leave store_dir out"
            ) from error


def finish_sharing(target: Target, shared: Shared, record: Record) -> None:
    """Refer to what dest needs now, and remove what nobody needs. What cannot be removed stays for the next run."""
    try:
        refer_to(target, shared, record, None)
        collect(shared.store, target.options.store_max_age)
    except OSError:
        target.dest.warn(f"not all that store_dir {show(shared.store.path)} no longer needs could be removed")
