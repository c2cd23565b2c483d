# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the signatures in an archive or layout (docs/behaviour.md, section 12).

``cosign save`` lists a manifest of signatures without a name beside its only image, ``regctl image copy --digest-tags
--referrers`` writes the registry's tags, and ``oras copy -r`` lists every manifest that refers to another one.
"""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from .._errors import ImageError, SourceChangedError, SourceError
from .._image import documents
from .._image.descriptor import Descriptor, blob_size, parse_descriptor, read_document
from .._image.digest import digest_of_tag
from .._image.media_types import INDEXES, MANIFESTS
from .._signature.verify import Bundle, Signature, Unjudged
from .._source.source import Source
from . import stored

_MOST_DOCUMENTS = 10_000
_REF = "org.opencontainers.image.ref.name"


class StoredSignatures:
    """The signatures of a source: of each subject, and those that do not say whose they are."""

    def __init__(self) -> None:
        self._by_subject: dict[str, list[Signature]] = {}
        self._others: list[Signature] = []

    def add(self, subject: str | None, signatures: t.Iterable[Signature]) -> None:
        """Add signatures of a document with the digest ``subject``, or of one that is not known."""
        known = self._others if subject is None else self._by_subject.setdefault(subject, [])
        known.extend(signatures)

    def join(self, other: StoredSignatures) -> None:
        """Add all signatures of another source."""
        for subject, signatures in other._by_subject.items():
            self.add(subject, signatures)
        self.add(None, other._others)

    def of(self, digest: str) -> list[Signature]:
        """Return what may be a signature of the document with this digest, bundles first."""
        found = [*self._by_subject.get(digest, ()), *self._others]
        return sorted(found, key=lambda signature: not isinstance(signature, Bundle))


def find_signatures(source: Source) -> StoredSignatures:
    """Return all signatures of an archive or layout. Raises ``ImageError`` and ``SourceError`` for its list."""
    found = StoredSignatures()
    if source.size_of("index.json") is None:
        return found
    seen: set[str] = set()
    pending = _items(documents.parse_object(source.document("index.json"), "index.json"), None, "index.json")
    while pending:
        item = pending.pop()
        try:
            pending += _visit(source, item, found, seen)
        except SourceChangedError:
            raise
        except (ImageError, SourceError):
            # a damaged neighbour does not hide the other signatures
            found.add(item.subject, [Unjudged("manifests that are damaged")])
    return found


@dataclass(frozen=True)
class _Item:
    """A descriptor in the index ``where``; ``subject`` is the digest that the tags above it name."""

    value: documents.Object
    subject: str | None
    where: str


def _items(index: documents.Object, subject: str | None, where: str) -> list[_Item]:
    """Return the items of an index in reverse, to be taken from the end of a list."""
    return [_Item(value, subject, where) for value in documents.objects(index, "manifests", where)[::-1]]


def _visit(source: Source, item: _Item, found: StoredSignatures, seen: set[str]) -> list[_Item]:
    """Add the signatures of a manifest, or return the items of a nested index. Raises ``ImageError``, ``SourceError``."""
    if item.value.get("mediaType") not in (*MANIFESTS, *INDEXES):
        return []
    descriptor = parse_descriptor(item.value, f"a descriptor in {item.where}")
    subject = digest_of_tag(descriptor.annotations.get(_REF, "")) or item.subject
    is_index = descriptor.media_type in INDEXES
    if descriptor.digest in seen or len(seen) >= _MOST_DOCUMENTS or not (is_index or _may_hold_signatures(descriptor)):
        return []
    if blob_size(source, descriptor) is None:
        return []
    seen.add(descriptor.digest)
    where = f"{'the index' if is_index else 'the manifest'} {descriptor.digest}"
    value = documents.parse_object(read_document(source, descriptor, where), where)
    if is_index:
        return _items(value, subject, where)
    found.add(*_signatures_in(source, value, subject))
    return []


def _may_hold_signatures(descriptor: Descriptor) -> bool:
    """Return false for images that are listed with their platform, which need not be read."""
    platform = descriptor.platform
    return platform is None or platform.is_unknown or not platform.architecture


def _signatures_in(
    source: Source, manifest: documents.Object, tagged: str | None
) -> tuple[str | None, list[Signature]]:
    """Return whose signatures a manifest holds, and the signatures; its own subject comes before that of a tag."""

    def read(descriptor: Descriptor) -> bytes | None:
        return None if blob_size(source, descriptor) is None else read_document(source, descriptor, "the signature")

    return stored.subject_of(manifest) or tagged, list(stored.signatures_in(manifest, read))
