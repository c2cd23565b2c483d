# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""From an image to a root file system in an empty directory: layers in order, the user, the metadata."""

from __future__ import annotations

import contextlib
import errno
import os
import typing as t
from dataclasses import dataclass, replace

from ._errors import (
    ImageError,
    LayerError,
    MissingLibraryError,
    OciError,
    RootfsError,
    SourceError,
)
from ._image.image import Image, Layer, open_layer
from ._layer.budget import Budget
from ._layer.pipeline import read_ahead
from ._layer.stream import LayerStream, drain
from ._report import Report
from ._rootfs.apply import Applier
from ._rootfs.attributes import Policy
from ._fs.early_sync import EarlySync
from ._fs.removal import empty_directory
from ._rootfs.root import Root
from ._fs.syscalls import keep_freed_memory
from ._rootfs.users import ResolvedUser, resolve_user
from ._source.decompress import gzip_library
from ._source.range_reader import RangeReader
from ._source.source import Opener
from ._unpack_options import UnpackOptions

if t.TYPE_CHECKING:
    from ._cache.blobs import BlobCache, CachedBlob, KeptBlob


@dataclass(frozen=True)
class Unpacked:
    """What came of it: the counts, and the image's user as the tree itself resolves it."""

    report: Report
    user: ResolvedUser


class _OtherOrder(Exception):
    """The layers stand in another order than the diff_ids."""


class _DamagedEntry(Exception):
    """A blob of the cache was not what its name says."""


# What bytes can cause that are not those of the blob, in the end.
_CONTENT_ERRORS = (
    ImageError,
    LayerError,
    MissingLibraryError,
    RootfsError,
    SourceError,
    OSError,
)


def unpack(
    source: Opener,
    image: Image,
    fd: int,
    options: UnpackOptions,
    cache: BlobCache | None = None,
) -> Unpacked:
    """Apply all layers to the empty directory behind ``fd`` and give it its final metadata.

    Layers are paired with diff_ids by position. Where a layer's content turns out to belong to another
    place in the list, the work starts over with the layers sorted by content (docs/behaviour.md,
    section 2); it also does where a blob of the cache is damaged, or where the cache has taken the room
    (section 7). Raises ``LayerError``, ``ImageError``, ``RootfsError``, ``MissingLibraryError``, ``OSError``.
    """
    keep_freed_memory()
    layers: t.Sequence[Layer] = image.layers
    # mknod and mkdir would otherwise drop bits that the image wants
    umask = os.umask(0)
    try:
        while True:
            try:
                return _unpack(source, image, layers, fd, options, cache)
            except _OtherOrder:
                empty_directory(fd)
                layers = _by_content(source, image, options, cache)
            except _DamagedEntry:
                empty_directory(fd)
            except (OciError, OSError) as error:
                if cache is None or not _is_full(error) or not cache.make_room(fd):
                    raise
                empty_directory(fd)
    finally:
        os.umask(umask)


def _unpack(
    source: Opener,
    image: Image,
    layers: t.Sequence[Layer],
    fd: int,
    options: UnpackOptions,
    cache: BlobCache | None,
) -> Unpacked:
    report = Report()
    budget = Budget(options.max_size, options.max_entries)
    policy = Policy(report, options)
    at_hand = ""
    root = Root(fd, policy.for_missing_parent(), lambda: budget.add_implied(at_hand))
    applier = Applier(root, policy, budget, options)
    diff_ids = {layer.diff_id for layer in layers}
    with contextlib.closing(root), EarlySync(fd) as early_sync:
        for layer in layers:
            at_hand = layer.digest
            with _blob_of(layer, source, cache) as blob:
                stream = LayerStream(layer, blob, budget)
                first, steps = stream.stages()
                with read_ahead(first, *steps, cancel=blob.cancel) as chunks:
                    applier.apply_layer(early_sync.following(chunks), layer.digest)
                if stream.diff_id != layer.diff_id and stream.diff_id not in diff_ids:
                    raise LayerError(
                        f"its content has the diff_id {stream.diff_id}, which is not in the image config",
                        layer.digest,
                        advice="the archive is damaged: fetch the image again",
                    )
                if cache is not None:
                    _note_cached(layer, stream, blob, report)
            if stream.compression == "gzip":
                report.gzip = gzip_library()[0]
            if stream.mislabelled:
                report.count("media_types_wrong")
            if stream.diff_id != layer.diff_id:
                raise _OtherOrder
        user = resolve_user(image.config.user, root)
        applier.finish()
        lost = report.counted("xattrs_unsupported")
        if lost:
            report.warnings.append(
                f"the file system of dest cannot hold {lost} extended attributes of the image, which were left out"
            )
    if cache is not None and cache.damaged:
        report.count("cache_entries_damaged", cache.damaged)
    return Unpacked(report, user)


@contextlib.contextmanager
def _blob_of(
    layer: Layer, source: Opener, cache: BlobCache | None
) -> t.Iterator[CachedBlob | KeptBlob | RangeReader]:
    """A layer's blob from the cache, or from the source on its way into the cache.

    Raises ``_DamagedEntry`` where what went wrong within was the cache's fault; the blob is gone from there then.
    """
    if cache is None or layer.data is not None:
        with contextlib.closing(open_layer(source, layer)) as blob:
            yield blob
        return
    # of a blob that is compressed in an old archive, the cache could only have what is inside
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
                raise _DamagedEntry from error
        return
    kept = cache.keeping(open_layer(source, layer), layer.digest, layer.size)
    with contextlib.closing(kept):
        yield kept


def _note_cached(
    layer: Layer,
    stream: LayerStream,
    blob: CachedBlob | KeptBlob | RangeReader,
    report: Report,
) -> None:
    """A layer came whole: its blob may stay in the cache, or was there."""
    # a run without a cache need not read all of that code
    from ._cache.blobs import CachedBlob, KeptBlob

    if isinstance(blob, KeptBlob) and _has_its_digest(layer, stream):
        blob.keep()
    elif isinstance(blob, CachedBlob):
        report.count("blobs_from_cache")


def _has_its_digest(layer: Layer, stream: LayerStream) -> bool:
    """Whether the blob that was read is what its digest says: an old archive has only that of the content."""
    return not layer.digest_is_diff_id or (
        stream.compression == "none" and stream.diff_id == layer.digest
    )


def _is_full(error: BaseException | None) -> bool:
    """Whether there was no room on the disk, whatever was made of that error on its way."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__
    return False


def _by_content(
    source: Opener, image: Image, options: UnpackOptions, cache: BlobCache | None
) -> list[Layer]:
    budget = Budget(options.max_size, options.max_entries)
    found = {}
    for layer in image.layers:
        with _blob_of(layer, source, cache) as blob:
            found[drain(LayerStream(layer, blob, budget))] = layer
    ordered = []
    for position in image.layers:
        if position.diff_id not in found:
            raise ImageError(
                f"no layer of the image yields the diff_id {position.diff_id} of its config; fetch the image again"
            )
        ordered.append(replace(found[position.diff_id], diff_id=position.diff_id))
    return ordered
