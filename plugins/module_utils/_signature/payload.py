# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The payload that cosign signs in its classic form (cosign, SIGNATURE_SPEC.md; docs/behaviour.md, section 12)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from .._errors import ImageError
from .._image.digest import Digest
from .strict import MalformedError, as_object, as_text, check_fields, parse_strict_object

_TYPE = "cosign container image signature"
_DIGEST = "docker-manifest-digest"
_REFERENCE = "docker-reference"
# The most characters of the name of an image, which the record keeps.
_LONGEST_REFERENCE = 1024
_ALGORITHMS = ("sha256", "sha384", "sha512")


@dataclass(frozen=True)
class Document:
    """A manifest or index: its ``digest``, and its bytes, which have this digest."""

    digest: Digest
    data: bytes


@dataclass(frozen=True)
class Claim:
    """What signed bytes say: hexadecimal ``digests`` of a document by algorithm, and the ``reference`` that names it.

    Bundles name none: then the reference is empty.
    """

    digests: dict[str, str]
    reference: str = ""

    def is_about(self, document: Document) -> bool:
        """Return whether the document's own algorithm is there with its digest, and no known one with another digest."""
        if self.digests.get(document.digest.algorithm) != document.digest.hex:
            return False
        known = [algorithm for algorithm in _ALGORITHMS if algorithm in self.digests]
        return all(hashlib.new(name, document.data).hexdigest() == self.digests[name] for name in known)


def parse_payload(data: bytes) -> Claim:
    """Parse a classic payload; unknown fields are refused. Raises ``MalformedError``."""
    value = parse_strict_object(data)
    check_fields(value, "the payload", ("critical", "optional"))
    if value["optional"] is not None:
        as_object(value["optional"], "the field optional")
    critical = as_object(value["critical"], "the field critical")
    check_fields(critical, "the field critical", ("identity", "image", "type"))
    if as_text(critical["type"], "the type") != _TYPE:
        raise MalformedError(f"its type is not {_TYPE!r}")
    image = as_object(critical["image"], "the image")
    check_fields(image, "the image", (_DIGEST,))
    identity = as_object(critical["identity"], "the identity")
    check_fields(identity, "the identity", (_REFERENCE,))
    digest = _to_digest(as_text(image[_DIGEST], "the digest"))
    reference = as_text(identity[_REFERENCE], "the reference")
    if len(reference) > _LONGEST_REFERENCE:
        raise MalformedError(f"its reference has more than {_LONGEST_REFERENCE} characters, a fixed limit")
    _name, at, named = reference.partition("@")
    if at and named != digest:
        raise MalformedError("its reference names another digest than the one that is signed")
    return Claim({digest.algorithm: digest.hex}, reference)


def _to_digest(text: str) -> Digest:
    try:
        return Digest(text)
    except ImageError as error:
        raise MalformedError("its digest is not valid") from error
