# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unpack an image into a staging directory, and put it into dest."""

from __future__ import annotations

import contextlib
import os
import time
import typing as t
from dataclasses import replace

from .._dest.dest import INVENTORY, JOURNAL
from .._dest.record import Binding, Record, Tree, bind, change_time, random_name
from .._errors import RootfsError
from .._fs.descriptors import opened
from .._fs.stack import opened_tree
from .._fs.syscalls import syncfs
from .._rootfs.apply import Unstackable
from .._rootfs.probe import require_storable
from .._source.source import Partials, Spooled
from .._unpack import Kept, Steps, Unpacked, unpack
from .cache import open_cache
from .carry_out import kept_warning, remove_finished_transfers
from .describe import identity_facts, image_outcome
from .guard import judge_policy, judge_reach, require_room
from .origin import Arrival
from .outcome import Outcome, UploadRequest
from .plan import Unpack, WantedImage
from .target import Target

if t.TYPE_CHECKING:
    from .._cache.blobs import BlobCache
    from .layers import Shared


def unpack_image(target: Target, plan: Unpack) -> Outcome | UploadRequest | None:
    """Return the outcome, or the blobs to upload first; ``None`` while another run uploads to the same dest."""
    with _open_shared(target, plan.wanted) as shared:
        try:
            return _unpack_image(target, plan, shared)
        except Unstackable:
            target.dest.warn(
                "the image holds a character device 0:0, which an overlay would take for its own; its tree does not share layers"
            )
    return _unpack_image(target, plan, None)


def _unpack_image(target: Target, plan: Unpack, shared: Shared | None) -> Outcome | UploadRequest | None:
    source, image = plan.wanted.source, plan.wanted.image
    with open_cache(target, source) as cache:
        if not target.dest.location.is_mount:
            # before blobs are uploaded
            require_storable(target.dest.state, target.options.unpack, target.dest.warn)
        # what is shared is neither sent nor unpacked
        needed = image if shared is None else shared.needed(image)
        require_room(target, needed, source.spooled_size or 0, cache)
        arrival = Arrival(source, needed, cache)
        return target.options.origin.unpacked(target, arrival, lambda: _unpack(target, plan, cache, shared))


@contextlib.contextmanager
def _open_shared(target: Target, wanted: WantedImage) -> t.Iterator[Shared | None]:
    """Open the store if the tree is to share its layers. Raises ``RootfsError``."""
    form = wanted.fingerprint.get("form")
    if not form or not wanted.image.layers:
        yield None
        return
    # imported late: most nodes have no store
    from .layers import open_shared

    with open_shared(target, wanted.image, form) as shared:
        yield shared


def _unpack(target: Target, plan: Unpack, cache: BlobCache | None, shared: Shared | None) -> Outcome:
    record, tree = _stage(target, plan, cache, shared)
    replacement = target.replacement
    try:
        judge_policy(target, tree)
        warnings = judge_reach(target, tree)
        if target.options.state == "present":
            record = replacement.commit(record)
    except BaseException:
        _abandon(target)
        raise
    if not target.options.origin.is_offered:
        remove_finished_transfers(target.dest)
    warnings += map(kept_warning, replacement.path_of_kept(record))
    if cache is not None:
        cache.prune()
        warnings += cache.warnings
    if shared is not None:
        from .layers import finish_sharing

        finish_sharing(target, shared, record)
    return image_outcome(target, plan, tree, warnings)


def _stage(target: Target, plan: Unpack, cache: BlobCache | None, shared: Shared | None) -> tuple[Record, Tree]:
    """Unpack into a new staging directory and make it durable; after any error nothing of it is left."""
    replacement, record = target.replacement, plan.record
    if record.next is not None:
        record = replacement.discard_next(record)
    try:
        if shared is None:
            record, staging = replacement.stage(record)
            with opened(staging) as fd:
                tree = _unpack_into(fd, target, plan.wanted, cache)
        else:
            record, tree = _stage_shared(target, record, plan.wanted, cache, shared)
        tree = replace(tree, signers=plan.signers or {})
        record = replacement.staged(record, tree)
        return record, tree
    except BaseException:
        # also an interrupted run leaves nothing
        _abandon(target)
        raise


def _stage_shared(
    target: Target, record: Record, wanted: WantedImage, cache: BlobCache | None, shared: Shared
) -> tuple[Record, Tree]:
    """Make the snapshots of the image that are missing, and a tree of them."""
    from .layers import build, carry_over_quota, opening_tree, refer_to

    with _open_blobs(target, wanted, target.dest.state) as (blobs, partials):
        kept = Kept(cache, partials)
        stacked = shared.store.driver.name == "overlay"
        steps = Steps(blobs, wanted.image, target.options.unpack, kept, stacked)
        snapshots, told = build(target, shared, steps, kept)
        record, staging = target.replacement.stage(record, opening_tree(shared, snapshots))
        with opened(staging) as fd:
            carry_over_quota(target, fd)
            binding = bind(fd)
            with opened_tree(fd, target.dest.path) as root:
                unpacked = steps.finish(root, told)
            tree = _to_tree(fd, target, wanted, unpacked, binding)
    tree = replace(tree, snapshots=tuple(snapshot.name for snapshot in snapshots), store=shared.store.path)
    refer_to(target, shared, record, tree)
    return record, tree


def _unpack_into(fd: int, target: Target, wanted: WantedImage, cache: BlobCache | None) -> Tree:
    """Unpack the image into the empty directory ``fd``, and return its tree."""
    if target.dest.location.is_mount:
        # the private folder is elsewhere
        require_storable(fd, target.options.unpack, target.dest.warn)
    binding = bind(fd)
    with _open_blobs(target, wanted, fd) as (blobs, partials):
        unpacked = unpack(blobs, wanted.image, fd, target.options.unpack, Kept(cache, partials))
    return _to_tree(fd, target, wanted, unpacked, binding)


@contextlib.contextmanager
def _open_blobs(target: Target, wanted: WantedImage, fd: int) -> t.Iterator[tuple[Spooled, Partials | None]]:
    # the spool is a file without a name, so it is not part of the tree
    with contextlib.closing(Spooled(wanted.source, fd)) as blobs, target.options.origin.partials(
        target, wanted.source, wanted.image
    ) as partials:
        yield blobs, partials


def _to_tree(fd: int, target: Target, wanted: WantedImage, unpacked: Unpacked, binding: Binding) -> Tree:
    """Make the unpacked tree durable, and describe it."""
    finished = change_time(fd)
    syncfs(fd)
    user, report = unpacked.user, unpacked.report
    result = {
        **identity_facts(wanted.image),
        "image": {**wanted.image.config.to_facts(), **user.to_facts()},
        "report": {**report.to_dict(), "inventory": unpacked.inventory.to_result()},
        "warnings": [*report.warnings, *([user.warning] if user.warning else [])],
    }
    mtime = os.fstat(fd).st_mtime_ns
    papers = random_name()
    if not unpacked.inventory.is_shown:
        target.dest.write((papers + INVENTORY).encode(), unpacked.inventory.to_bytes())
    if unpacked.journal is not None:
        target.dest.write((papers + JOURNAL).encode(), unpacked.journal)
    selection, made = wanted.selection, int(time.time())
    return Tree(binding, wanted.fingerprint, result, "", mtime, selection, papers=papers, made=made, finished=finished)


def _abandon(target: Target) -> None:
    """Remove the staging of a failed run; the first error is the one to report, whatever fails here."""
    with contextlib.suppress(OSError, RootfsError):
        target.replacement.abandon(target.dest.load())
