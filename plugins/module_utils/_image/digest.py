# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Digests: their grammar, their hashes, and where a layout keeps their blobs (image-spec, descriptor.md)."""

from __future__ import annotations

import hashlib
import re
import typing as t

from .._errors import ImageError, show

# what nearly every digest is, told in one step: an image may name hundreds
_USUAL = re.compile(r"sha256:[0-9a-f]{64}\Z")
_GRAMMAR = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)\Z")
_HEX = re.compile(r"[0-9a-f]+\Z")
_LENGTHS = {"sha256": 64, "sha512": 128}

if t.TYPE_CHECKING:
    Hash = hashlib._Hash


def check_digest(digest: str, where: str) -> str:
    """The digest, if it is one that can be verified. Raises ``ImageError`` that says where it stands."""
    if _USUAL.match(digest) is not None:
        return digest
    match = _GRAMMAR.match(digest)
    if match is None:
        raise ImageError(f"{where} has the digest {show(digest)}, which is none; fetch the image again")
    algorithm, encoded = match.groups()
    length = _LENGTHS.get(algorithm)
    if length is None:
        raise ImageError(
            f"{where} has a digest of the algorithm {show(algorithm)}, and only sha256 and sha512 can be verified;"
            " use an image with these"
        )
    if len(encoded) != length or _HEX.match(encoded) is None:
        raise ImageError(
            f"{where} has the digest {show(digest)}, which is not {length} lower-case hexadecimal digits;"
            " fetch the image again"
        )
    return digest


def new_hash(digest: str) -> Hash:
    """A fresh hash of the algorithm that a checked digest names."""
    return hashlib.new(digest.partition(":")[0])


def digest_of(data: bytes, like: str) -> str:
    """The digest of ``data`` by the algorithm of another, checked one."""
    digest = new_hash(like)
    digest.update(data)
    return f"{like.partition(':')[0]}:{digest.hexdigest()}"


def blob_name(digest: str) -> str:
    """The name of a checked digest's blob in a layout (image-layout.md)."""
    algorithm, _colon, encoded = digest.partition(":")
    return f"blobs/{algorithm}/{encoded}"
