# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unpack an image into an empty directory: apply its layers in order, resolve its user, set the root's metadata."""

from __future__ import annotations

import contextlib
import errno
import os
import typing as t
from dataclasses import dataclass, replace

from ._errors import ImageError, LayerError, MissingLibraryError, OciError, RootfsError, SourceError
from ._image.image import Image, Layer, open_layer
from ._layer.budget import Budget
from ._layer.pipeline import read_ahead
from ._layer.stream import LayerStream, drain
from ._process_name import named_after_progress
from ._inventory.inventory import Inventory
from ._report import Report
from ._rootfs.apply import Applier
from ._rootfs.attributes import Policy
from ._rootfs.candidates import Candidates
from ._fs.early_sync import EarlySync
from ._fs.removal import empty_directory
from ._rootfs.root import Root
from ._fs.syscalls import keep_freed_memory
from ._rootfs.take_inventory import Ids, take_inventory
from ._rootfs.told import Told
from ._rootfs.users import ResolvedUser, resolve_user
from ._source.decompress import gzip_library
from ._source.range_reader import RangeReader
from ._source.source import Blob, Opener, Partials
from ._unpack_options import UnpackOptions

if t.TYPE_CHECKING:
    from ._cache.blobs import BlobCache, CachedBlob, KeptBlob


@dataclass(frozen=True)
class Unpacked:
    """The result of unpacking: the report, the image's user, resolved inside the tree, and files that give rights away.

    ``journal`` is what was written, see ``_rootfs.journal``; ``None`` if it is too large, or kept with each step.
    """

    report: Report
    user: ResolvedUser
    inventory: Inventory
    journal: bytes | None


class OtherOrder(Exception):
    """The layers are listed in another order than the diff_ids."""


class DamagedEntry(Exception):
    """A blob of the cache does not match its digest."""


# What a damaged blob can cause, and with it what reading a damaged disk can.
_DAMAGE_ERRORS = (ImageError, LayerError, MissingLibraryError, RootfsError)
_CONTENT_ERRORS = (*_DAMAGE_ERRORS, SourceError, OSError)


@dataclass(frozen=True)
class Kept:
    """Where blobs are kept: the cache, and what came of them over the network in runs that failed."""

    cache: BlobCache | None = None
    partials: Partials | None = None

    def make_room(self, fd: int) -> bool:
        """Remove what is kept on the full disk of ``fd``; return whether there was anything."""
        if self.partials is not None and self.partials.make_room():
            return True
        return self.cache is not None and self.cache.make_room(fd)


def unpack(source: Opener, image: Image, fd: int, options: UnpackOptions, kept: Kept = Kept()) -> Unpacked:
    """Apply all layers to the empty directory behind ``fd`` and give it its final metadata.

    Layers are paired with diff_ids by position. If the content of a layer has the diff_id of another position,
    unpacking starts again with the layers sorted by content (docs/behaviour.md, section 2). It also starts again
    after it found a damaged blob in the cache, or evicted blobs from the cache because the disk was full (section 7).
    Raises ``LayerError``, ``ImageError``, ``RootfsError``, ``MissingLibraryError``, ``OSError``.
    """
    keep_freed_memory()
    blobs = Blobs(source, kept.cache, kept.partials)
    layers: t.Sequence[Layer] = image.layers
    # mknod and mkdir would otherwise clear mode bits that the image sets
    umask = os.umask(0)
    try:
        while True:
            try:
                return _unpack(blobs, layers, image.config.user, fd, options)
            except OtherOrder:
                empty_directory(fd)
                layers = _by_content(blobs, image.layers, options)
            except DamagedEntry:
                empty_directory(fd)
            except (OciError, OSError) as error:
                if not is_full(error) or not kept.make_room(fd):
                    raise
                empty_directory(fd)
    finally:
        os.umask(umask)


@dataclass(frozen=True)
class Blobs:
    """The blobs of an image's layers: from the cache if there is one, otherwise from the source."""

    source: Opener
    cache: BlobCache | None
    partials: Partials | None

    @contextlib.contextmanager
    def open(self, layer: Layer) -> t.Iterator[CachedBlob | KeptBlob | Blob | RangeReader]:
        """Open a layer's blob in the cache, or in the source while it is copied into the cache.

        Raises ``DamagedEntry`` if a damaged blob of the cache made the block fail; that blob has then been removed.
        """
        cache = self.cache
        if cache is None or layer.data is not None:
            with contextlib.ExitStack() as stack:
                yield stack.enter_context(self._fetching(layer))
            return
        # the cache holds blobs by their own digest, which is unknown for a compressed blob of an old archive
        known = not layer.digest_is_diff_id or cache.has(layer.digest, layer.size)
        cached = cache.open_blob(layer.digest, layer.size) if known else None
        if cached is not None:
            with contextlib.closing(cached):
                try:
                    yield cached
                except _CONTENT_ERRORS as error:
                    if cached.is_intact():
                        raise
                    cache.discard(cached)
                    raise DamagedEntry from error
            return
        with contextlib.ExitStack() as stack:
            blob = t.cast(RangeReader, stack.enter_context(self._fetching(layer)))
            yield stack.enter_context(contextlib.closing(cache.keeping(blob, layer.digest, layer.size)))

    @contextlib.contextmanager
    def _fetching(self, layer: Layer) -> t.Iterator[Blob | RangeReader]:
        """Open a layer's blob in the source, going on with what an earlier run fetched of it.

        Raises ``DamagedEntry`` if the blob made the block fail and may come right when it is read again.
        """
        opened = open_layer(self.source, layer)
        partials = self.partials
        if partials is None or layer.data is not None or layer.digest_is_diff_id:
            with contextlib.closing(opened):
                yield opened
            return
        with contextlib.closing(partials.reading(opened, layer.digest, opened.length)) as blob:
            try:
                yield blob
            except _DAMAGE_ERRORS as error:
                if not is_full(error) and partials.is_worth_a_second_try(blob):
                    raise DamagedEntry from error
                raise

    def commit(self, blob: CachedBlob | KeptBlob | Blob | RangeReader, stream: LayerStream, report: Report) -> None:
        """Keep a blob that was read to its end in the cache, or count it if it came from there."""
        if self.cache is None:
            return
        # imported late: runs without a cache do not need it
        from ._cache.blobs import CachedBlob, KeptBlob

        if isinstance(blob, KeptBlob) and _has_its_digest(stream):
            blob.keep()
        elif isinstance(blob, CachedBlob):
            report.count("blobs_from_cache")


def _unpack(blobs: Blobs, layers: t.Sequence[Layer], user: str, fd: int, options: UnpackOptions) -> Unpacked:
    diff_ids = {layer.diff_id for layer in layers}
    with contextlib.closing(_Tree(fd, options)) as tree, EarlySync(fd) as early_sync:
        with named_after_progress() as show_progress:
            for number, layer in enumerate(layers, 1):
                show_progress(number, len(layers))
                tree.apply(blobs, layer, diff_ids, early_sync)
        resolved = resolve_user(user, tree.root)
        tree.applier.finish()
        inventory = _inventory(tree.root, tree.applier.candidates, options)
    _report_losses(blobs, tree.report)
    return Unpacked(tree.report, resolved, inventory, tree.root.journal.finish())


class _Tree:
    """A tree under construction, with all that layers add to; on top of another one if that has ``told`` something."""

    def __init__(self, fd: int, options: UnpackOptions, told: Told | None = None, stacked: bool = False) -> None:
        self._digest = ""
        self.report = Report() if told is None else Report.from_dict(told.report)
        self.budget = Budget(options.max_size, options.max_entries)
        policy = Policy(self.report, options)
        keeps = None if told is None else policy.keeps
        self.root = Root(fd, policy.for_missing_parent(), self._count_directory, keeps, stacked)
        self.applier = Applier(self.root, policy, self.budget, options, stacked)
        if told is not None:
            self.budget.go_on_from(told.budget)
            self.applier.candidates.go_on_from(told.candidates)

    def _count_directory(self) -> None:
        self.budget.add_implied(self._digest)

    def apply(self, blobs: Blobs, layer: Layer, diff_ids: t.Collection[str], early_sync: EarlySync) -> None:
        """Apply a layer. Raises ``OtherOrder``, ``DamagedEntry`` and errors as ``unpack`` does."""
        self._digest = layer.digest
        with blobs.open(layer) as blob:
            stream = LayerStream(layer, blob, self.budget)
            first, steps = stream.stages()
            with read_ahead(first, *steps, cancel=blob.cancel) as chunks:
                self.applier.apply_layer(early_sync.following(chunks), layer.digest)
            _check_diff_id(stream, diff_ids)
            blobs.commit(blob, stream, self.report)
        _count_stream(stream, self.report)
        if stream.diff_id != layer.diff_id:
            raise OtherOrder

    def told(self) -> Told:
        """Return what all layers so far have told."""
        return Told(self.report.to_dict(), self.budget.to_dict(), self.applier.candidates.to_dict())

    def close(self) -> None:
        """Close all directories."""
        self.root.close()


def _inventory(root: Root, candidates: Candidates, options: UnpackOptions) -> Inventory:
    """Return the inventory of a finished tree."""
    ids = Ids.read(root, options.uids, options.gids, options.preserve)
    return take_inventory(root, candidates, ids)


class Steps:
    """Unpacks an image layer by layer, each with a new process of its own if need be, into trees that hold the lower ones.

    A step leaves a finished tree. ``layers`` are in the order of the diff_ids. All together give what ``unpack`` gives.
    ``stacked`` says that the trees are layers of overlays.
    """

    def __init__(
        self, source: Opener, image: Image, options: UnpackOptions, kept: Kept = Kept(), stacked: bool = False
    ) -> None:
        self.layers: tuple[Layer, ...] = image.layers
        self._stacked = stacked
        self._image = image
        self._options = options
        self._blobs = Blobs(source, kept.cache, kept.partials)

    def sort_by_content(self) -> None:
        """Sort the layers by the diff_ids that their content has, by reading each. Raises ``ImageError``."""
        self.layers = tuple(_by_content(self._blobs, self._image.layers, self._options))

    def apply(self, layers: t.Sequence[Layer], fd: int, told: Told | None) -> tuple[Told, bytes | None]:
        """Apply layers to the directory ``fd``, which is empty, or holds the tree of lower ones that ``told`` something.

        Returns what all have told together, and the journal of these, ``None`` if that is too large. Raises
        ``OtherOrder`` if one is not the layer of its place, ``Unstackable``, ``DamagedEntry`` if the same step may succeed on
        another copy of the lower tree, and errors as ``unpack`` does; what is in ``fd`` is then of no use.
        """
        keep_freed_memory()
        diff_ids = {layer.diff_id for layer in self.layers}
        umask = os.umask(0)
        try:
            with contextlib.closing(_Tree(fd, self._options, told, self._stacked)) as tree, EarlySync(fd) as early_sync:
                for layer in layers:
                    tree.apply(self._blobs, layer, diff_ids, early_sync)
                tree.applier.finish()
                return tree.told(), tree.root.journal.finish()
        finally:
            os.umask(umask)

    def finish(self, fd: int, told: Told) -> Unpacked:
        """Return the result of all steps, whose tree is in ``fd``."""
        report = Report.from_dict(told.report)
        policy = Policy(report, self._options)
        candidates = Candidates()
        candidates.go_on_from(told.candidates)
        # nothing is written any more
        with contextlib.closing(Root(fd, policy.for_missing_parent(), keeps=policy.keeps)) as root:
            resolved = resolve_user(self._image.config.user, root)
            inventory = _inventory(root, candidates, self._options)
        _report_losses(self._blobs, report)
        return Unpacked(report, resolved, inventory, None)


def _check_diff_id(stream: LayerStream, diff_ids: t.Collection[str]) -> None:
    layer = stream.layer
    if stream.diff_id != layer.diff_id and stream.diff_id not in diff_ids:
        raise LayerError(
            f"its content has the diff_id {stream.diff_id}, which is not in the image config",
            layer.digest,
            # a blob that is known by its own digest is what was built
            advice="fetch the image again" if layer.digest_is_diff_id else "build the image again",
        )


def _count_stream(stream: LayerStream, report: Report) -> None:
    if stream.compression == "gzip":
        report.gzip = gzip_library()[0]
    if stream.mislabelled:
        report.count("media_types_wrong")


def _report_losses(blobs: Blobs, report: Report) -> None:
    lost = report.counted("xattrs_unsupported")
    if lost:
        report.warnings.append(
            f"the file system of dest cannot hold {lost} extended attributes of the image, which were left out"
        )
    if blobs.cache is not None and blobs.cache.damaged:
        report.count("cache_entries_damaged", blobs.cache.damaged)


def _has_its_digest(stream: LayerStream) -> bool:
    """Return whether the layer's digest is that of the blob read: old archives give the digest of the tar only."""
    layer = stream.layer
    return not layer.digest_is_diff_id or (stream.compression == "none" and stream.diff_id == layer.digest)


def is_full(error: BaseException | None) -> bool:
    """Return whether an error or one of its causes says that the disk or quota is full."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def _by_content(blobs: Blobs, layers: t.Sequence[Layer], options: UnpackOptions) -> list[Layer]:
    """Return the layers in the order of the config's diff_ids, by reading each. Raises ``ImageError``."""
    budget = Budget(options.max_size, options.max_entries)
    found = {}
    for layer in layers:
        with blobs.open(layer) as blob:
            found[drain(LayerStream(layer, blob, budget))] = layer
    ordered = []
    for position in layers:
        if position.diff_id not in found:
            action = "fetch" if position.digest_is_diff_id else "build"
            raise ImageError(
                f"no layer of the image yields the diff_id {position.diff_id} of its config; {action} the image again"
            )
        ordered.append(replace(found[position.diff_id], diff_id=position.diff_id))
    return ordered
