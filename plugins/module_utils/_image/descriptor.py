# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Descriptors, and the documents behind them, verified before a byte is believed (image-spec, descriptor.md)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from .._errors import ImageError, show
from . import documents
from .digest import blob_name, check_digest, digest_of
from .media_types import INDEXES, MANIFESTS
from .platform import Platform, platform_of
from .._source.source import DOCUMENT_LIMIT, Source


@dataclass(frozen=True)
class Descriptor:
    """What a document says of a blob: type, digest and ``size`` in bytes; ``data`` is the blob itself, inline."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None
    annotations: dict[str, str]
    data: bytes | None


def parse_descriptor(value: documents.Object, where: str) -> Descriptor:
    """Check the fields of a descriptor. Raises ``ImageError`` that says where it stands."""
    digest = documents.text(value, "digest", where)
    if digest is None:
        raise ImageError(f"{where} has no digest; fetch the image again")
    check_digest(digest, where)
    size = documents.number(value, "size", where)
    if size is None or size < 0:
        raise ImageError(f"{where} gives {digest} the size {size}; fetch the image again")
    platform = documents.mapping(value, "platform", where)
    return Descriptor(
        media_type=documents.text(value, "mediaType", where) or "",
        digest=digest,
        size=size,
        platform=platform_of(platform, where) if platform else None,
        annotations=documents.string_mapping(value, "annotations", where),
        data=_inline(documents.text(value, "data", where), digest, where),
    )


def blob_size(source: Source, descriptor: Descriptor) -> int | None:
    """The size of a descriptor's blob as the source holds it; ``None`` where it does not."""
    if descriptor.data is not None:
        return len(descriptor.data)
    return source.size_of(blob_name(descriptor.digest))


def read_document(source: Source, descriptor: Descriptor, where: str) -> bytes:
    """The document behind a descriptor, size and digest verified. Raises ``ImageError``, ``SourceError``."""
    if descriptor.size > DOCUMENT_LIMIT:
        raise ImageError(
            f"{where} {descriptor.digest} has {descriptor.size} bytes, more than {DOCUMENT_LIMIT}, a fixed limit"
        )
    data = descriptor.data
    if data is None:
        data = source.document(blob_name(descriptor.digest))
    if len(data) != descriptor.size:
        raise ImageError(
            f"{where} {descriptor.digest} has {len(data)} bytes, its descriptor says {descriptor.size};"
            " fetch the image again"
        )
    found = digest_of(data, descriptor.digest)
    if found != descriptor.digest:
        raise ImageError(f"{where} {descriptor.digest} has content of the digest {found}; fetch the image again")
    return data


def check_kind(value: documents.Object, descriptor: Descriptor, where: str) -> None:
    """Refuse a document that two readers could read as two things (CVE-2021-41190). Raises ``ImageError``."""
    if value.get("manifests") is not None and value.get("layers") is not None:
        raise ImageError(f"{where} {descriptor.digest} carries both manifests and layers; do not use this image")
    own = documents.text(value, "mediaType", where)
    if not own:
        return
    same = any(own in kinds and descriptor.media_type in kinds for kinds in (INDEXES, MANIFESTS))
    if not same and own != descriptor.media_type:
        raise ImageError(
            f"{where} {descriptor.digest} calls itself {show(own)}, its descriptor says"
            f" {show(descriptor.media_type)}; do not use this image"
        )


def _inline(data: str | None, digest: str, where: str) -> bytes | None:
    if data is None:
        return None
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"{where} gives {digest} inline data that is not base64; fetch the image again") from error
