# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Digests: their grammar, their hashes, and the names of their blobs in a layout (image-spec, descriptor.md)."""

from __future__ import annotations

import hashlib
import re
import typing as t

from .._errors import ImageError, show

# nearly all digests match this one, and an image may have hundreds
_USUAL = re.compile(r"sha256:[0-9a-f]{64}\Z")
_GRAMMAR = re.compile(r"([a-z0-9]+(?:[+._-][a-z0-9]+)*):([a-zA-Z0-9=_-]+)\Z")
_HEX = re.compile(r"[0-9a-f]+\Z")
# Tags by which cosign, and the fallback of the referrers API, store what belongs to another digest.
_TAG = re.compile(r"(?:.*:)?(sha256-[0-9a-f]{64}|sha512-[0-9a-f]{128})(?:\.(?:sig|att|sbom))?\Z")
_LENGTHS = {"sha256": 64, "sha512": 128}

if t.TYPE_CHECKING:
    Hash = hashlib._Hash


class Digest(str):
    """A digest that can be verified, in its OCI form ``algorithm:hex``.

    A string, as in go-digest, so that it compares with digests in records and results; ``str()`` gives a plain one.
    ``where`` names the document or option in errors. Raises ``ImageError``.
    """

    __slots__ = ()

    def __new__(cls, text: str, where: str = "the digest") -> Digest:
        if _USUAL.match(text) is None:
            _check(text, where)
        return super().__new__(cls, text)

    @property
    def algorithm(self) -> str:
        """``sha256`` or ``sha512``."""
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        """The hash in lower-case hexadecimal digits."""
        return self.partition(":")[2]

    @property
    def blob_name(self) -> str:
        """The name of the blob in a layout (image-layout.md)."""
        return f"blobs/{self.algorithm}/{self.hex}"

    def new_hash(self) -> Hash:
        """Return a new hash of the same algorithm."""
        return hashlib.new(self.algorithm)

    def of(self, data: bytes) -> Digest:
        """Return the digest of data by the same algorithm."""
        found = self.new_hash()
        found.update(data)
        return Digest(f"{self.algorithm}:{found.hexdigest()}")


def sha256_of(data: bytes) -> Digest:
    """Return the sha256 digest of data."""
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())


def digest_of_tag(name: str) -> Digest | None:
    """Return the digest to which something with the tag ``sha256-HEX.sig`` or a similar one belongs, otherwise None."""
    match = _TAG.match(name)
    return Digest(match.group(1).replace("-", ":")) if match else None


def _check(text: str, where: str) -> None:
    match = _GRAMMAR.match(text)
    if match is None:
        raise ImageError(f"{where} has an invalid digest: {show(text)}")
    algorithm, encoded = match.groups()
    length = _LENGTHS.get(algorithm)
    if length is None:
        raise ImageError(
            f"{where} has a digest of the unsupported algorithm {show(algorithm)}: expected sha256 or sha512"
        )
    if len(encoded) != length or _HEX.match(encoded) is None:
        raise ImageError(
            f"{where} has an invalid digest: {show(text)}, expected {length} lower-case hexadecimal digits"
        )
