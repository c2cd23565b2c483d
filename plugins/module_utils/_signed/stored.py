# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The signatures that a manifest stores: classic payloads and bundles as its layers (docs/behaviour.md, section 12)."""

from __future__ import annotations

import typing as t

from .._errors import ImageError
from .._image import documents
from .._image.descriptor import Descriptor, parse_descriptor
from .._image.digest import Digest
from .._image.media_types import SIMPLE_SIGNING, is_bundle
from .._signature.bundle import MEDIA_TYPES
from .._signature.strict import PAYLOAD_LIMIT
from .._signature.verify import Bundle, Classic, Signature, Unjudged

_SIGNATURE = "dev.cosignproject.cosign/signature"
_CERTIFICATE = "dev.sigstore.cosign/certificate"
NOTATION = "application/vnd.cncf.notary.signature"
_ATTESTATIONS = ("application/vnd.dsse.envelope.v1+json", "application/vnd.in-toto+json")
_WHERE = "a manifest of signatures"

# Returns the verified bytes of a descriptor, or ``None`` if they are missing. Raises ``ImageError``.
Reader = t.Callable[[Descriptor], t.Optional[bytes]]


def subject_of(manifest: documents.Object) -> Digest | None:
    """Return the digest that a manifest refers to. Raises ``ImageError``."""
    subject = documents.mapping(manifest, "subject", _WHERE)
    return parse_descriptor(subject, f"the subject of {_WHERE}").digest if subject else None


def signatures_in(manifest: documents.Object, read: Reader) -> t.Iterator[Signature]:
    """Yield the signatures that a manifest stores, also those that are not judged; nothing for an image.

    Raises ``ImageError`` for a manifest that is not valid, and what ``read`` raises but ``ImageError``.
    """
    if documents.text(manifest, "artifactType", _WHERE) == NOTATION or _config_type(manifest) == NOTATION:
        yield Unjudged("notation")
        return
    for item in documents.objects(manifest, "layers", _WHERE):
        media_type = item.get("mediaType")
        if media_type in _ATTESTATIONS:
            yield Unjudged("attestations")
        elif media_type == SIMPLE_SIGNING or (isinstance(media_type, str) and is_bundle(media_type)):
            yield _signature(parse_descriptor(item, f"a layer of {_WHERE}"), read)


def _config_type(manifest: documents.Object) -> t.Any:
    return documents.mapping(manifest, "config", _WHERE).get("mediaType")


def _signature(descriptor: Descriptor, read: Reader) -> Signature:
    is_classic = descriptor.media_type == SIMPLE_SIGNING
    if not is_classic and descriptor.media_type not in MEDIA_TYPES:
        return Unjudged("another version of bundles")
    if descriptor.size > PAYLOAD_LIMIT:
        return Unjudged(f"payloads of more than {PAYLOAD_LIMIT} bytes, a fixed limit")
    signature = descriptor.annotations.get(_SIGNATURE)
    if is_classic and signature is None:
        return Unjudged("payloads without a signature")
    try:
        data = read(descriptor)
    except ImageError:
        return Unjudged("payloads that do not match their digest")
    if data is None:
        return Unjudged("payloads that are missing")
    return (
        Bundle(data)
        if signature is None or not is_classic
        else Classic(data, signature, _CERTIFICATE in descriptor.annotations)
    )
