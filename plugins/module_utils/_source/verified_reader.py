# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Blobs that are hashed while they are read."""

from __future__ import annotations

import hashlib
import typing as t

# How many bytes are read and hashed at once.
CHUNK = 1024 * 1024


class Readable(t.Protocol):
    """Anything with a ``read`` that returns nothing at the end."""

    def read(self, count: int) -> bytes:
        """Return at most ``count`` bytes."""


class VerifiedReader:
    """Iterate over the chunks of a blob; at the end, ``matches`` tells whether it has the checked ``digest``."""

    def __init__(self, reader: Readable, digest: str) -> None:
        algorithm, _colon, self._expected = digest.partition(":")
        self._hash = hashlib.new(algorithm)
        self._reader = reader

    def __iter__(self) -> t.Iterator[bytes]:
        while chunk := self._reader.read(CHUNK):
            self._hash.update(chunk)
            yield chunk

    def matches(self) -> bool:
        """Return whether all that was read has the digest."""
        return self._hash.hexdigest() == self._expected
