# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decompress gzip, zstd, xz and bzip2 streams in bounded pieces, to their very end (docs/behaviour.md, section 3).

All streams, members and frames are read, a stream that ends early is an error, and no input makes a piece of output large.
"""

from __future__ import annotations

import contextlib
import importlib
import typing as t
import zlib

from .._errors import MissingLibraryError
from .magic import BZIP2, GZIP, XZ
from .members import FIRST_PIECE, DecompressError, Members, StreamLimitError, end_of_zeros, read_members
from .range_reader import CHUNK

# How many more bytes a stream may have than its content: empty members, skippable frames.
_OVERHEAD_LIMIT = 64 * 1024 * 1024
# How much content a stream may have: so much, and so many times its own bytes. Only bzip2 compresses further, and zeros
# alone, of which 100 GiB would take 100 KB and minutes.
_FREE_CONTENT = 4 * 1024**3
_MOST_RATIO = 32_768
# How many streams of little content may follow each other in xz and bzip2.
_MOST_STREAMS = 65_536
# The memory of an xz decoder: a dictionary of 128 MiB, as a window of zstd, and what it needs besides.
_XZ_DICTIONARY = 128 * 1024 * 1024
_XZ_MEMORY = _XZ_DICTIONARY + 2 * 1024 * 1024

# Optional libraries that inflate faster than zlib, the fastest first.
_INFLATERS = (("isal", "isal.isal_zlib"), ("zlib-ng", "zlib_ng.zlib_ng"))
# makes zlib expect a gzip header
_GZIP_BITS = 16 + zlib.MAX_WBITS


def decompressed(chunks: t.Iterator[bytes], kind: str) -> t.Iterator[bytes]:
    """Yield the content of a stream, in pieces of about ``CHUNK`` bytes at most; ``kind`` is as ``detect`` returns it.

    The caller bounds the content; the compressed bytes may exceed it by a fixed limit, and it them by a fixed factor.
    Raises ``DecompressError``, and ``MissingLibraryError`` if no library reads this kind.
    """
    overhead = 0
    room = _FREE_CONTENT

    def counted() -> t.Iterator[bytes]:
        nonlocal overhead, room
        for chunk in chunks:
            overhead += len(chunk)
            room += _MOST_RATIO * len(chunk)
            if overhead > _OVERHEAD_LIMIT:
                raise StreamLimitError(
                    f"its {kind} stream has more than {_OVERHEAD_LIMIT} bytes beyond its content, a fixed limit"
                )
            yield chunk

    for piece in _decoder(kind)(counted()):
        overhead -= len(piece)
        room -= len(piece)
        if room < 0:
            raise StreamLimitError(
                f"its {kind} stream holds more than {_FREE_CONTENT} bytes, and {_MOST_RATIO} times its own, a fixed limit"
            )
        yield piece


def require_library(kind: str) -> None:
    """Raise ``MissingLibraryError`` if no library reads this kind of stream."""
    with contextlib.suppress(DecompressError):
        # a decoder looks for its library before it reads anything
        next(_decoder(kind)(iter(())), b"")


def _decoder(kind: str) -> t.Callable[[t.Iterator[bytes]], t.Iterator[bytes]]:
    if kind == "zstd":
        # imported late: most images are compressed by gzip
        from .unzstd import unzstd

        return unzstd
    return {"gzip": _gunzip, "xz": _unxz, "bzip2": _bunzip2}[kind]


def gzip_library() -> tuple[str, t.Any]:
    """Return the name and module of the library that inflates: isal or zlib-ng if installed, otherwise zlib.

    All have the same interface and check the same sums; they differ only in speed.
    """
    for name, module in _INFLATERS:
        try:
            return name, importlib.import_module(module)
        except ImportError:
            continue
    return "zlib", zlib


def _gunzip(chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
    _name, library = gzip_library()
    stream = _GzipStream(library)
    try:
        for chunk in chunks:
            yield from stream.inflate(chunk)
    except library.error as error:
        raise DecompressError(f"its gzip stream is damaged ({error})") from error
    if not stream.is_between_members:
        raise DecompressError("its gzip stream ends too early")


class _GzipStream:
    """Inflate the members of a gzip stream one after the other."""

    def __init__(self, library: t.Any) -> None:
        self.is_between_members = False
        self._library = library
        self._member = library.decompressobj(_GZIP_BITS)
        self._is_fresh = True

    def inflate(self, chunk: bytes) -> t.Iterator[bytes]:
        """Yield the content of the next bytes. Raises ``DecompressError`` and the library's error."""
        position = 0
        given = b""
        has_more = False
        while True:
            if self.is_between_members:
                # zeros may follow each member
                position = end_of_zeros(chunk, position)
                if position == len(chunk):
                    return
                self._begin_member(chunk[position : position + 2])
            if not given and not has_more:
                # the library copies back what follows the end of a member, so small members get small pieces
                step = FIRST_PIECE if self._is_fresh else CHUNK
                given = chunk[position : position + step]
                if not given:
                    return
                position += len(given)
                self._is_fresh = False
            data = self._member.decompress(given, CHUNK)
            if data:
                yield data
            given = self._member.unconsumed_tail
            # the library may hold output back after it has consumed all input
            has_more = len(data) == CHUNK
            if self._member.eof:
                position -= len(self._member.unused_data)
                given, has_more = b"", False
                self.is_between_members = True

    def _begin_member(self, magic: bytes) -> None:
        if not GZIP.startswith(magic):
            raise DecompressError("its gzip stream is followed by other data")
        self._member = self._library.decompressobj(_GZIP_BITS)
        self.is_between_members, self._is_fresh = False, True


def _unxz(chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
    lzma = _standard("lzma", "xz")

    def begin() -> t.Any:
        return lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)

    try:
        yield from read_members(chunks, Members("xz", begin, lzma.LZMAError, XZ, padded=True, most=_MOST_STREAMS))
    except lzma.LZMAError as error:
        if "emory usage limit" in str(error):
            raise StreamLimitError(
                f"its xz stream needs a dictionary of more than {_XZ_DICTIONARY} bytes, a fixed limit"
            ) from error
        raise DecompressError(f"its xz stream is damaged ({error})") from error


def _bunzip2(chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
    bz2 = _standard("bz2", "bzip2")
    try:
        yield from read_members(
            chunks, Members("bzip2", bz2.BZ2Decompressor, OSError, BZIP2, padded=True, most=_MOST_STREAMS)
        )
    except (OSError, ValueError) as error:
        if isinstance(error, DecompressError):
            raise
        raise DecompressError(f"its bzip2 stream is damaged ({error})") from error


def _standard(name: str, kind: str) -> t.Any:
    """Return a module of the standard library that some builds of Python lack. Raises ``MissingLibraryError``."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingLibraryError(name, f"to read what is compressed by {kind}", error.msg) from error
