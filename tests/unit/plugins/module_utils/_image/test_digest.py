# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Digests (docs/behaviour.md, section 1)."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.digest import (
    blob_name,
    check_digest,
    digest_of,
    new_hash,
)

SHA256 = "sha256:" + "0a" * 32
SHA512 = "sha512:" + "0a" * 64


@pytest.mark.parametrize("digest", [SHA256, SHA512])
def test_what_can_be_verified(digest: str) -> None:
    assert check_digest(digest, "it") == digest
    algorithm, _colon, encoded = digest.partition(":")
    assert blob_name(digest) == f"blobs/{algorithm}/{encoded}"
    assert new_hash(digest).name == algorithm
    found = hashlib.new(algorithm, b"data").hexdigest()
    assert digest_of(b"data", digest) == f"{algorithm}:{found}"


@pytest.mark.parametrize(
    ("digest", "message"),
    [
        ("", "it has the digest '', which is none; fetch the image again"),
        ("0a" * 32, "which is none"),
        ("sha256:", "which is none"),
        ("sha256:../../../etc/passwd", "which is none"),
        (SHA256 + "\n", r"0a\\n', which is none"),
        (SHA256 + "\0", "which is none"),
        ("sha256:" + "0A" * 32, "which is not 64 lower-case hexadecimal digits"),
        ("sha256:" + "0g" * 32, "which is not 64 lower-case hexadecimal digits"),
        (SHA256[:-1], "which is not 64 lower-case hexadecimal digits"),
        (SHA256 + "0", "which is not 64 lower-case hexadecimal digits"),
        ("sha512:" + "0a" * 32, "which is not 128 lower-case hexadecimal digits"),
        ("md5:" + "0a" * 16, "algorithm 'md5', and only sha256 and sha512 can be"),
        ("sha256+b64u:LCa0a2j_xo", r"algorithm 'sha256\+b64u', and only sha256"),
        ("SHA256:" + "0a" * 32, "which is none"),
    ],
)
def test_what_cannot(digest: str, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        check_digest(digest, "it")
    assert caught.value.message.startswith("it has ")
