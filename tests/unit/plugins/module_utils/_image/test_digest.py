# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Digests (docs/behaviour.md, section 1)."""

from __future__ import annotations

import copy
import hashlib
import json

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import ImageError
from ansible_collections.hypervisor.oci.plugins.module_utils._image.digest import Digest, sha256_of

SHA256 = "sha256:" + "0a" * 32
SHA512 = "sha512:" + "0a" * 64


@pytest.mark.parametrize("digest", [SHA256, SHA512])
def test_what_can_be_verified(digest: str) -> None:
    checked = Digest(digest, "it")
    assert checked == digest
    assert str(checked) == digest
    assert str(checked).__class__ is str
    algorithm, _colon, encoded = digest.partition(":")
    assert (checked.algorithm, checked.hex) == (algorithm, encoded)
    assert checked.blob_name == f"blobs/{algorithm}/{encoded}"
    assert checked.new_hash().name == algorithm
    found = hashlib.new(algorithm, b"data").hexdigest()
    assert checked.of(b"data") == f"{algorithm}:{found}"


def test_a_digest_is_frozen() -> None:
    digest = Digest(SHA256)
    with pytest.raises(AttributeError):
        digest.hex = "0b" * 32  # type: ignore[misc]
    with pytest.raises(AttributeError):
        digest.other = "x"  # type: ignore[attr-defined]
    assert copy.deepcopy(digest) == digest
    assert json.dumps([digest]) == json.dumps([SHA256])


def test_sha256() -> None:
    assert sha256_of(b"data") == "sha256:" + hashlib.sha256(b"data").hexdigest()


@pytest.mark.parametrize(
    ("digest", "message"),
    [
        ("", "it has an invalid digest: ''"),
        ("0a" * 32, "has an invalid digest: "),
        ("sha256:", "has an invalid digest: "),
        ("sha256:../../../etc/passwd", "has an invalid digest: "),
        (SHA256 + "\n", r"an invalid digest: 'sha256:[0a]+\\n'"),
        (SHA256 + "\0", "has an invalid digest: "),
        ("sha256:" + "0A" * 32, "expected 64 lower-case hexadecimal digits"),
        ("sha256:" + "0g" * 32, "expected 64 lower-case hexadecimal digits"),
        (SHA256[:-1], "expected 64 lower-case hexadecimal digits"),
        (SHA256 + "0", "expected 64 lower-case hexadecimal digits"),
        ("sha512:" + "0a" * 32, "expected 128 lower-case hexadecimal digits"),
        ("md5:" + "0a" * 16, "unsupported algorithm 'md5': expected sha256 or sha512"),
        ("sha256+b64u:LCa0a2j_xo", r"unsupported algorithm 'sha256\+b64u': expected"),
        ("SHA256:" + "0a" * 32, "has an invalid digest: "),
    ],
)
def test_what_cannot(digest: str, message: str) -> None:
    with pytest.raises(ImageError, match=message) as caught:
        Digest(digest, "it")
    assert caught.value.message.startswith("it has ")
