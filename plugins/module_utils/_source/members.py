# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decompress streams that consist of several, in bounded pieces, with the decompressors of Python's standard library."""

from __future__ import annotations

import re
import typing as t

from .range_reader import CHUNK

# A decompressor copies back what follows the end of its stream, so a new one gets a small piece first.
FIRST_PIECE = 1024

_NOT_ZERO = re.compile(rb"[^\0]")


class DecompressError(ValueError):
    """A stream is damaged; the text is a phrase, and the caller adds which stream."""


class StreamLimitError(DecompressError):
    """A stream exceeds a fixed limit."""


class Decompressor(t.Protocol):
    """What ``lzma``, ``bz2`` and ``compression.zstd`` have in common."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int) -> bytes:
        """Return at most ``max_length`` bytes."""


class Members(t.NamedTuple):
    """How the streams of one format are read: ``begin`` returns a decompressor for one, which raises ``error``.

    ``magic`` is how each begins; empty if the decompressor checks that. Zeros may follow each if it is ``padded``. With
    ``most``, there may be so many, and one more for each KiB of content: beginning one takes time.
    """

    name: str
    begin: t.Callable[[], Decompressor]
    error: type[Exception]
    magic: bytes = b""
    padded: bool = False
    most: int | None = None


def read_members(chunks: t.Iterator[bytes], members: Members) -> t.Iterator[bytes]:
    """Yield the content of all streams in pieces of at most ``CHUNK`` bytes. Raises ``DecompressError`` and their error."""
    member = members.begin()
    fresh = True
    begun = size = 0
    for chunk in chunks:
        position = 0
        while True:
            if member.eof:
                if members.padded:
                    position = end_of_zeros(chunk, position)
                if position == len(chunk):
                    break
                if members.magic and not members.magic.startswith(chunk[position : position + len(members.magic)]):
                    raise DecompressError(f"its {members.name} stream is followed by other data")
                begun += 1
                if members.most is not None and begun > members.most + size // 1024:
                    raise StreamLimitError(
                        f"its {members.name} stream consists of more than {members.most} parts, and one for each KiB of its"
                        " content, a fixed limit"
                    )
                member = members.begin()
                fresh = True
            piece = b""
            if fresh or member.needs_input:
                piece = chunk[position : position + (FIRST_PIECE if fresh else CHUNK)]
                if not piece:
                    break
                position += len(piece)
                fresh = False
            data = member.decompress(piece, CHUNK)
            if member.eof:
                position -= len(member.unused_data)
            if data:
                size += len(data)
                yield data
    if not member.eof:
        raise DecompressError(f"its {members.name} stream ends too early")


def end_of_zeros(data: bytes, start: int) -> int:
    """Return the offset of the first byte from ``start`` that is not zero."""
    found = _NOT_ZERO.search(data, start)
    return len(data) if found is None else found.start()
