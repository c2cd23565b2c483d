# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ask a registry for the signatures of a document (docs/behaviour.md, section 12).

Bundles come first, by the referrers of the document or their fallback tag, and then classic signatures by their tag.
A caller that has enough signatures stops asking.
"""

from __future__ import annotations

import typing as t

from .._errors import ImageError
from .._image import documents
from .._image.descriptor import Descriptor, parse_descriptor
from .._image.digest import Digest
from .._image.media_types import MANIFESTS, is_bundle
from .._signature.verify import MOST_SIGNATURES, Classic, Signature, Unjudged
from . import stored


class Referrers(t.NamedTuple):
    """The index of what refers to a digest; it is not ``whole`` if there are more than are read."""

    data: bytes
    whole: bool = True


class SignatureRegistry(t.Protocol):
    """What a registry answers about signatures. All methods raise ``SourceError`` for what fails."""

    def manifest(self, reference: str) -> bytes | None:
        """Return the manifest or index of a tag, or of a digest and verified; ``None`` if it does not exist."""

    def blob(self, digest: Digest, size: int) -> bytes:
        """Return a verified blob. Raises ``ImageError`` if it does not match."""

    def referrers(self, digest: Digest) -> Referrers | None:
        """Return what refers to a digest, its pages joined; ``None`` if the registry does not know."""


def registry_signatures(registry: SignatureRegistry, digest: Digest) -> t.Iterator[list[Signature]]:
    """Yield the bundles, and then the classic signatures, of a document. Raises ``ImageError`` and ``SourceError``."""
    yield list(_bundles(registry, digest))
    data = registry.manifest(f"{digest.algorithm}-{digest.hex}.sig")
    if data is not None:
        yield list(_stored(registry, data))


def _bundles(registry: SignatureRegistry, digest: Digest) -> t.Iterator[Signature]:
    referrers = registry.referrers(digest)
    data = registry.manifest(f"{digest.algorithm}-{digest.hex}") if referrers is None else referrers.data
    if data is None:
        return
    if referrers is not None and not referrers.whole:
        yield Unjudged("pages of referrers beyond a fixed limit")
    where = f"the referrers of {digest}"
    asked = 0
    for item in documents.objects(documents.parse_object(data, where), "manifests", where):
        descriptor = parse_descriptor(item, f"a descriptor in {where}")
        kind = documents.text(item, "artifactType", where)
        if descriptor.media_type not in MANIFESTS:
            continue
        if kind and not is_bundle(kind):
            if kind == stored.NOTATION:
                yield Unjudged("notation")
            continue
        asked += 1
        if asked > MOST_SIGNATURES:
            yield Unjudged(f"referrers beyond {MOST_SIGNATURES}, a fixed limit")
            continue
        manifest = registry.manifest(str(descriptor.digest))
        if manifest is None:
            yield Unjudged("referrers that are missing")
            continue
        yield from _referring(registry, manifest, digest)


def _referring(registry: SignatureRegistry, data: bytes, digest: Digest) -> t.Iterator[Signature]:
    """Yield the bundles of a manifest that refers to this very digest, whatever the list of referrers says."""
    manifest = documents.parse_object(data, "a referrer")
    if stored.subject_of(manifest) == digest:
        yield from (item for item in _stored(registry, data) if not isinstance(item, Classic))
    else:
        yield Unjudged("referrers to another manifest")


def _stored(registry: SignatureRegistry, data: bytes) -> t.Iterator[Signature]:
    def read(descriptor: Descriptor) -> bytes | None:
        data = descriptor.data
        if data is None:
            return registry.blob(descriptor.digest, descriptor.size)
        if descriptor.digest.of(data) != descriptor.digest:
            raise ImageError(f"the inline data of {descriptor.digest} has another digest")
        return data

    return stored.signatures_in(documents.parse_object(data, "a manifest of signatures"), read)
