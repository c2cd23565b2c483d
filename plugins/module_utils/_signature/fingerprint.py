# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Fingerprints of public keys, without what verifies by them (docs/behaviour.md, section 12)."""

from __future__ import annotations

import base64
import hashlib

from .._errors import OciError

MOST_KEYS = 16


def fingerprint_of(pem: str) -> str:
    """Return the fingerprint of a canonical PEM text, as ``PublicKey.pem`` has it; cryptography is not needed.

    Raises ``OciError``.
    """
    lines = pem.strip().split("\n")
    if lines[0] != "-----BEGIN PUBLIC KEY-----" or lines[-1] != "-----END PUBLIC KEY-----":
        raise OciError(
            "an entry of signature_keys is not a public key in its canonical form; run the task by its action"
        )
    try:
        return fingerprint_of_der(base64.b64decode("".join(lines[1:-1]), validate=True))
    except ValueError as error:
        raise OciError("an entry of signature_keys is not a public key; run the task by its action") from error


def fingerprint_of_der(der: bytes) -> str:
    """Return the fingerprint of a SubjectPublicKeyInfo."""
    return "sha256:" + hashlib.sha256(der).hexdigest()
