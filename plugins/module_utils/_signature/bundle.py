# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sigstore bundles, DSSE envelopes and in-toto statements (docs/behaviour.md, section 12).

See sigstore_bundle.proto of sigstore/protobuf-specs, DSSE's protocol.md, and the Statement of in-toto attestations.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from .payload import Claim
from .strict import MalformedError, Object, as_object, as_text, check_fields, decode_base64, parse_strict_object

MEDIA_TYPES = ("application/vnd.dev.sigstore.bundle.v0.3+json", "application/vnd.dev.sigstore.bundle+json;version=0.3")
PAYLOAD_TYPE = "application/vnd.in-toto+json"
PREDICATE = "https://sigstore.dev/cosign/sign/v1"
_STATEMENTS = ("https://in-toto.io/Statement/v1", "https://in-toto.io/Statement/v0.1")
_SUBJECT_TEXTS = ("name", "uri", "content", "downloadLocation", "mediaType")
_HEX = re.compile(r"[0-9a-f]+\Z")


class NotJudgedError(ValueError):
    """A signature of a kind that is not verified; the text names the kind."""


@dataclass(frozen=True)
class Envelope:
    """The decoded ``payload`` of a DSSE envelope and its only ``signature``."""

    payload: bytes
    signature: bytes

    def signed_bytes(self) -> bytes:
        """Return the bytes that are signed: DSSE's pre-authentication encoding."""
        return b"DSSEv1 %d %s %d %s" % (
            len(PAYLOAD_TYPE),
            PAYLOAD_TYPE.encode("ascii"),
            len(self.payload),
            self.payload,
        )


def parse_bundle(data: bytes) -> Envelope:
    """Parse a bundle of version 0.3. Raises ``MalformedError``, and ``NotJudgedError`` for other kinds of signatures."""
    value = parse_strict_object(data)
    media_type = as_text(value.get("mediaType"), "the mediaType")
    if media_type not in MEDIA_TYPES:
        raise NotJudgedError("another version of bundles")
    material = as_object(value.get("verificationMaterial"), "the verificationMaterial")
    if "messageSignature" in value:
        if "dsseEnvelope" in value:
            raise MalformedError("it has both a dsseEnvelope and a messageSignature")
        raise NotJudgedError("signatures of messages")
    if "publicKey" not in material:
        raise NotJudgedError("certificates")
    as_object(material["publicKey"], "the publicKey")
    return _parse_envelope(as_object(value.get("dsseEnvelope"), "the dsseEnvelope"))


def parse_statement(data: bytes) -> Claim:
    """Parse a signed statement; unknown fields are refused.

    Raises ``MalformedError``, and ``NotJudgedError`` for other predicates.
    """
    value = parse_strict_object(data)
    if as_text(value.get("predicateType"), "the predicateType") != PREDICATE:
        raise NotJudgedError("attestations")
    check_fields(value, "the statement", ("_type", "subject", "predicateType"), ("predicate",))
    if as_text(value["_type"], "the type") not in _STATEMENTS:
        raise MalformedError("it is not an in-toto statement of version 1 or 0.1")
    if value.get("predicate") is not None:
        as_object(value["predicate"], "the predicate")
    subjects = value["subject"]
    if not isinstance(subjects, list) or len(subjects) != 1:
        raise MalformedError("it does not have exactly one subject")
    subject = as_object(subjects[0], "the subject")
    check_fields(subject, "the subject", ("digest",), (*_SUBJECT_TEXTS, "annotations"))
    for name in _SUBJECT_TEXTS:
        as_text(subject.get(name, ""), f"the subject's {name}")
    if subject.get("annotations") is not None:
        as_object(subject["annotations"], "the subject's annotations")
    return Claim(_parse_digests(as_object(subject["digest"], "the subject's digest")))


def _parse_envelope(value: Object) -> Envelope:
    payload_type = as_text(value.get("payloadType"), "the payloadType")
    if payload_type != PAYLOAD_TYPE:
        raise NotJudgedError("envelopes of another payload type")
    signatures = value.get("signatures")
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise MalformedError("its envelope does not have exactly one signature")
    signature = as_object(signatures[0], "the signature")
    return Envelope(
        decode_base64(as_text(value.get("payload"), "the payload"), "the payload"),
        decode_base64(as_text(signature.get("sig"), "the signature"), "the signature"),
    )


def _parse_digests(value: Object) -> dict[str, str]:
    digests = {name: as_text(text, "a digest of the subject") for name, text in value.items()}
    if not all(map(_HEX.match, digests.values())):
        raise MalformedError("a digest of its subject is not hexadecimal")
    return digests
