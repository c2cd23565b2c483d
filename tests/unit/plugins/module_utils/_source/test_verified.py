# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Tests of the verified reader."""

from __future__ import annotations

import hashlib
import io

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._source.verified import (
    DigestMismatchError,
    SizeMismatchError,
    VerifiedReader,
)

DATA = b"content" * 1000
DIGESTS = ["sha256:" + hashlib.sha256(DATA).hexdigest(), "sha512:" + hashlib.sha512(DATA).hexdigest()]


@pytest.mark.parametrize("digest", [*DIGESTS, None])
@pytest.mark.parametrize("size", [len(DATA), None])
def test_bytes_that_match_are_given(digest: str | None, size: int | None) -> None:
    reader = VerifiedReader(io.BytesIO(DATA), digest, size)
    assert reader.read(10) == DATA[:10]
    assert b"".join(reader.chunks()) == DATA[10:]
    assert reader.count == len(DATA)


@pytest.mark.parametrize("digest", [*DIGESTS, None])
@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"?", b""])
def test_another_size_is_an_error_at_the_end(digest: str | None, data: bytes) -> None:
    reader = VerifiedReader(io.BytesIO(data), digest, len(DATA))
    with pytest.raises(SizeMismatchError) as caught:
        reader.drain()
    assert caught.value.size == len(data)


@pytest.mark.parametrize("digest", DIGESTS)
@pytest.mark.parametrize("size", [len(DATA), None])
def test_another_digest_is_an_error_at_the_end(digest: str, size: int | None) -> None:
    data = DATA[:-1] + b"?"
    reader = VerifiedReader(io.BytesIO(data), digest, size)
    assert reader.read(len(data)) == data
    with pytest.raises(DigestMismatchError) as caught:
        reader.read()
    algorithm = digest.partition(":")[0]
    assert caught.value.found == hashlib.new(algorithm, data).hexdigest()
