# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare bytes with the size and digest that they must have, while they are read."""

from __future__ import annotations

import hashlib
import typing as t

from .range_reader import CHUNK


class Readable(t.Protocol):
    """Anything that gives bytes in order."""

    def read(self, count: int = -1) -> bytes:
        """Return at most ``count`` bytes, empty at the end. Raises ``SourceError``."""


class VerificationError(ValueError):
    """The bytes are not the expected ones; the text is a phrase, and the caller adds which bytes."""


class SizeMismatchError(VerificationError):
    """The size differs; ``size`` is how many bytes were read."""

    def __init__(self, size: int) -> None:
        super().__init__(f"it has {size} bytes")
        self.size = size


class DigestMismatchError(VerificationError):
    """The digest differs; ``found`` is the hexadecimal digest of the bytes."""

    def __init__(self, found: str) -> None:
        super().__init__(f"its content has the digest {found}")
        self.found = found


class VerifiedReader:
    """Read bytes in order, count and hash them, and raise ``VerificationError`` at the end if they do not match.

    ``digest``, a checked one such as ``sha256:…``, and ``size`` in bytes are ``None`` if they are not known. The bytes
    are verified only after ``read`` has returned an empty result.
    """

    def __init__(self, blob: Readable, digest: str | None, size: int | None) -> None:
        self.count = 0
        self._blob = blob
        self._size = size
        self._expected = ""
        self._hash: hashlib._Hash | None = None
        if digest is not None:
            algorithm, _colon, self._expected = digest.partition(":")
            self._hash = hashlib.new(algorithm)

    def read(self, count: int = CHUNK) -> bytes:
        """Return at most ``count`` bytes, which is more than 0; empty at the verified end.

        Raises ``VerificationError`` and ``SourceError``.
        """
        data = self._blob.read(count)
        if not data:
            self._verify()
            return data
        self.count += len(data)
        if self._hash is not None:
            self._hash.update(data)
        return data

    def chunks(self) -> t.Iterator[bytes]:
        """Yield the remaining bytes. Raises ``VerificationError`` and ``SourceError``."""
        while chunk := self.read():
            yield chunk

    def drain(self) -> None:
        """Read the remaining bytes only to verify them. Raises ``VerificationError`` and ``SourceError``."""
        for _chunk in self.chunks():
            pass

    def _verify(self) -> None:
        if self._size is not None and self.count != self._size:
            raise SizeMismatchError(self.count)
        if self._hash is not None and self._hash.hexdigest() != self._expected:
            raise DigestMismatchError(self._hash.hexdigest())
