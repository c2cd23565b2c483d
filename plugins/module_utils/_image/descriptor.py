# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Descriptors, and reading the documents that they describe, verified before use (image-spec, descriptor.md)."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from .._errors import ImageError, show
from . import documents
from .digest import Digest
from .media_types import INDEXES, MANIFESTS
from .platform import Platform, platform_of
from .._source.source import DOCUMENT_LIMIT, Source


@dataclass(frozen=True)
class Descriptor:
    """The type, digest and ``size`` in bytes of a blob; ``data`` is the blob itself if it is inline.

    ``platform`` is None if the descriptor does not give all of it.
    """

    media_type: str
    digest: Digest
    size: int
    platform: Platform | None
    annotations: dict[str, str]
    data: bytes | None


def parse_descriptor(value: documents.Object, where: str) -> Descriptor:
    """Parse a descriptor; ``where`` names it in errors. Raises ``ImageError``."""
    text = documents.text(value, "digest", where)
    if text is None:
        raise ImageError(f"{where} has no digest")
    digest = Digest(text, where)
    size = documents.number(value, "size", where)
    if size is None or size < 0:
        raise ImageError(f"{where} gives {digest} the invalid size {size}")
    platform = platform_of(documents.mapping(value, "platform", where), where)
    return Descriptor(
        media_type=documents.text(value, "mediaType", where) or "",
        digest=digest,
        size=size,
        platform=platform if platform.is_complete else None,
        annotations=documents.string_mapping(value, "annotations", where),
        data=_inline(documents.text(value, "data", where), digest, where),
    )


def blob_size(source: Source, descriptor: Descriptor) -> int | None:
    """Return the size of a descriptor's blob in the source; None if the source does not have it."""
    if descriptor.data is not None:
        return len(descriptor.data)
    return source.size_of(descriptor.digest.blob_name)


def read_document(source: Source, descriptor: Descriptor, where: str) -> bytes:
    """Read the document of a descriptor and verify its size and digest. Raises ``ImageError``, ``SourceError``."""
    if descriptor.size > DOCUMENT_LIMIT:
        raise ImageError(
            f"{where} {descriptor.digest} has {descriptor.size} bytes, more than {DOCUMENT_LIMIT}, a fixed limit"
        )
    data = descriptor.data
    if data is None:
        data = source.document(descriptor.digest.blob_name)
    found = descriptor.digest.of(data)
    # a descriptor that contradicts the content of its digest, or holds it, was built so
    action = "build" if found == descriptor.digest or descriptor.data is not None else "fetch"
    if len(data) != descriptor.size:
        raise ImageError(
            f"{where} {descriptor.digest} has {len(data)} bytes, but its descriptor says {descriptor.size};"
            f" {action} the image again"
        )
    if found != descriptor.digest:
        raise ImageError(f"{where} {descriptor.digest} has content with the digest {found}; {action} the image again")
    return data


def check_kind(value: documents.Object, descriptor: Descriptor, where: str) -> None:
    """Refuse a document that could be taken for an index or a manifest (CVE-2021-41190). Raises ``ImageError``."""
    if value.get("manifests") is not None and value.get("layers") is not None:
        raise ImageError(f"{where} {descriptor.digest} has both manifests and layers; do not use this image")
    own = documents.text(value, "mediaType", where)
    if not own:
        return
    same = any(own in kinds and descriptor.media_type in kinds for kinds in (INDEXES, MANIFESTS))
    if not same and own != descriptor.media_type:
        raise ImageError(
            f"{where} {descriptor.digest} has the mediaType {show(own)}, but its descriptor says"
            f" {show(descriptor.media_type)}; do not use this image"
        )


def _inline(data: str | None, digest: str, where: str) -> bytes | None:
    if data is None:
        return None
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ImageError(f"{where} gives {digest} inline data that is not valid base64") from error
