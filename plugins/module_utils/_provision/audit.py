# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare a tree with its image for whoever only wants to know, and change nothing (docs/behaviour.md, section 17)."""

from __future__ import annotations

import contextlib
import time
import typing as t
from dataclasses import dataclass

from .._dest.dest import Dest
from .._dest.record import Record, Tree
from .._dest.replacement import Replacement
from .._drift.compare import Compared
from .._drift.findings import CONTENT, Drift
from .._drift.options import Verifying
from .._errors import OciError, RootfsError, SourceError, show
from .._image.digest import Digest
from .._image.image import Image, Layer
from .._image.platform import parse_platform
from .._image.selection import select_image
from .._registry.open import open_any
from .._source.range_reader import RangeReader
from .._source.source import DEFAULT_MAX_SIZE, Spooled
from .._unpack import DamagedEntry, Kept
from .reread import Reread
from .verify import Basis, compare_metadata, not_verifiable, opening, options_of, read_basis

if t.TYPE_CHECKING:
    from .._cache.blobs import BlobCache
    from .._remote.options import HttpOptions

_BUSY = "another run is at work on it"
_NO_SOURCE = "contents need the image's layers; give src"
_NOT_CACHED = "cache_dir does not have all of the image's layers; give src"


@dataclass(frozen=True)
class Audit:
    """What to compare, and where the layers are: ``src`` and ``cache_dir`` are empty if there is none."""

    verifying: Verifying
    src: str = ""
    http: HttpOptions | None = None
    max_size: int = DEFAULT_MAX_SIZE
    cache_dir: str = ""


def is_at_work(how: Audit) -> Drift:
    """Return the result while another run changes the tree."""
    return not_verifiable(how.verifying, _BUSY)


def audit(dest: Dest, record: Record, tree: Tree, replacement: Replacement, how: Audit) -> Drift:
    """Return what differs. Raises ``RootfsError``, ``OSError``."""
    began = time.monotonic()
    basis = read_basis(dest, tree, how.verifying.exclusions, replacement.names_apart(record))
    if isinstance(basis, str):
        return not_verifiable(how.verifying, basis)
    compared = compare_metadata(dest, basis, how.verifying)
    drift = compared.drift
    if how.verifying.level == CONTENT:
        drift.level = CONTENT
        compared = _with_contents(dest, tree, basis, compared, how, began + how.verifying.timeout)
    if dest.load() != record:
        return is_at_work(how)
    return compared.drift


def _with_contents(dest: Dest, tree: Tree, basis: Basis, compared: Compared, how: Audit, until: float) -> Compared:
    # imported late: metadata needs no layers
    from .._drift.content import compare_contents

    if not how.src and not how.cache_dir:
        compared.drift.not_verifiable = _NO_SOURCE
        return compared
    try:
        with _opened_cache(how) as cache:
            while True:
                try:
                    with _layers(dest, tree, how, cache) as layers, opening(dest) as top:
                        compare_contents(top, compared, basis.looks, layers, until)
                    return compared
                except DamagedEntry:
                    # it is not read from the cache again
                    compared = compare_metadata(dest, basis, how.verifying)
                    compared.drift.level = CONTENT
    except OciError as error:
        compared.drift.not_verifiable = f"its layers cannot be read: {error.message}"
        return compared


@contextlib.contextmanager
def _opened_cache(how: Audit) -> t.Iterator[BlobCache | None]:
    if not how.cache_dir:
        yield None
        return
    # imported late: most tasks use no cache
    from .._cache.blobs import BlobCache

    # whoever compares gets to know no content, and the tree had these layers: every scope will do
    with contextlib.closing(BlobCache(how.cache_dir, None, 0, 0, True)) as cache:
        yield cache


@contextlib.contextmanager
def _layers(dest: Dest, tree: Tree, how: Audit, cache: BlobCache | None) -> t.Iterator[Reread]:
    """Open the layers of a tree's image. Raises ``OciError`` if neither the cache nor the source has them."""
    recorded = _recorded_layers(tree)
    if cache is not None and all(cache.has(layer.digest, layer.size) for layer in recorded):
        yield Reread(_NoSource(), recorded, options_of(tree), Kept(cache))
        return
    if not how.src:
        raise SourceError(_NOT_CACHED)
    made = tree.fingerprint
    digest = str(made.get("manifest_digest") or made.get("config_digest"))
    platform = None
    with contextlib.suppress(OciError):
        platform = parse_platform(str(made.get("platform")))
    with contextlib.closing(open_any(how.src, how.http, how.max_size, digest)) as source:
        wanted = None if source.pinned == digest else digest
        image = select_image(source, None, wanted, platform)
        _require_same(image, tree, how.src)
        options = options_of(tree)
        with contextlib.closing(Spooled(source, dest.state)) as blobs:
            yield Reread(blobs, image.layers, options, Kept(cache))


class _NoSource:
    """The source of layers that are all in the cache."""

    def open(self, name: str) -> RangeReader:
        """Raise ``SourceError``: it was there a moment ago."""
        raise SourceError(_NOT_CACHED)


def _recorded_layers(tree: Tree) -> tuple[Layer, ...]:
    """Return the layers that a tree was made of. Raises ``OciError``."""
    try:
        return tuple(
            Layer(Digest(str(item["digest"])), item["size"], str(item["media_type"]), Digest(str(item["diff_id"])), "")
            for item in tree.result["layers"]
        )
    except (KeyError, TypeError) as error:
        raise RootfsError("the record of the tree does not tell its layers") from error


def _require_same(image: Image, tree: Tree, src: str) -> None:
    diff_ids = [str(layer.diff_id) for layer in image.layers]
    if diff_ids != [layer.get("diff_id") for layer in tree.result.get("layers", [])]:
        raise OciError(f"{show(src)} has an image of that digest with other layers")
