# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Decompress gzip and zstd streams in bounded pieces, to their very end (docs/behaviour.md, section 3).

All members and frames are read, a stream that ends early is an error, and no input makes a piece of output large.
"""

from __future__ import annotations

import functools
import importlib
import io
import re
import typing as t
import zlib

from .._errors import MissingLibraryError
from .range_reader import CHUNK
from .magic import GZIP, ZSTD, is_skippable

WINDOW_LOG = 27
_FIRST_PIECE = 1024
# How many more bytes a stream may have than its content: empty members, skippable frames.
_OVERHEAD_LIMIT = 64 * 1024 * 1024

# Optional libraries that inflate faster than zlib, the fastest first.
_INFLATERS = (("isal", "isal.isal_zlib"), ("zlib-ng", "zlib_ng.zlib_ng"))
_NOT_ZERO = re.compile(rb"[^\0]")
# makes zlib expect a gzip header
_GZIP_BITS = 16 + zlib.MAX_WBITS


class DecompressError(ValueError):
    """A stream is damaged; the text is a phrase, and the caller adds which stream."""


class OverheadError(DecompressError):
    """A stream has too many bytes without content."""


def decompressed(chunks: t.Iterator[bytes], kind: str) -> t.Iterator[bytes]:
    """Yield the content of a ``gzip`` or ``zstd`` stream, in pieces of about ``CHUNK`` bytes at most.

    The caller bounds the content; the compressed bytes may exceed it by a fixed limit. Raises ``DecompressError``, and
    ``MissingLibraryError`` if no library reads zstd.
    """
    overhead = 0

    def counted() -> t.Iterator[bytes]:
        nonlocal overhead
        for chunk in chunks:
            overhead += len(chunk)
            if overhead > _OVERHEAD_LIMIT:
                raise OverheadError(
                    f"its {kind} stream has more than {_OVERHEAD_LIMIT} bytes beyond its content, a fixed limit"
                )
            yield chunk

    for piece in _decoder(kind)(counted()):
        overhead -= len(piece)
        yield piece


def _decoder(kind: str) -> t.Callable[[t.Iterator[bytes]], t.Iterator[bytes]]:
    if kind == "gzip":
        return _gunzip
    library = _zstd_library()
    if hasattr(library, "DecompressionParameter"):
        return functools.partial(_unzstd_by_frames, library=library)
    return functools.partial(_unzstd_by_reader, library=library)


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
                position = _end_of_zeros(chunk, position)
                if position == len(chunk):
                    return
                self._begin_member(chunk[position : position + 2])
            if not given and not has_more:
                # the library copies back what follows the end of a member, so small members get small pieces
                step = _FIRST_PIECE if self._is_fresh else CHUNK
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


def _end_of_zeros(data: bytes, start: int) -> int:
    found = _NOT_ZERO.search(data, start)
    return len(data) if found is None else found.start()


def _zstd_library() -> t.Any:
    """Return the module of the standard library (Python 3.14), or zstandard. Raises ``MissingLibraryError``."""
    reason = ""
    for name in ("compression.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reason = error.msg
    raise MissingLibraryError("zstandard", "to read what is compressed by zstd", reason)


def _unzstd_by_frames(chunks: t.Iterator[bytes], library: t.Any) -> t.Iterator[bytes]:
    """Decompress with ``compression.zstd``, whose decompressor stops at the end of each frame."""
    parameter = library.DecompressionParameter.window_log_max

    def begin() -> t.Any:
        return library.ZstdDecompressor(options={parameter: WINDOW_LOG})

    frame = begin()
    fresh = True
    try:
        for chunk in chunks:
            position = 0
            while True:
                if frame.eof:
                    frame = begin()
                    fresh = True
                piece = b""
                if fresh or frame.needs_input:
                    # the library copies back what follows the end of a frame, so small frames get small pieces
                    step = _FIRST_PIECE if fresh else CHUNK
                    piece = chunk[position : position + step]
                    if not piece:
                        break
                    position += len(piece)
                    fresh = False
                data = frame.decompress(piece, CHUNK)
                if frame.eof:
                    position -= len(frame.unused_data)
                if data:
                    yield data
    except library.ZstdError as error:
        raise _zstd_error(error) from error
    if not fresh:
        raise DecompressError("its zstd stream ends too early")


def _unzstd_by_reader(chunks: t.Iterator[bytes], library: t.Any) -> t.Iterator[bytes]:
    """Decompress with ``zstandard``, whose reader bounds its output but takes a truncated frame for the end.

    So a ``FrameWalker`` follows the frames, and checks that the last one ends with the stream.
    """
    walker = FrameWalker()
    decompressor = library.ZstdDecompressor(max_window_size=1 << WINDOW_LOG)
    try:
        reader = decompressor.stream_reader(_Walked(chunks, walker), read_size=CHUNK, read_across_frames=True)
        while True:
            data = reader.read(CHUNK)
            if not data:
                break
            yield data
    except library.ZstdError as error:
        raise _zstd_error(error) from error
    for chunk in chunks:
        walker.feed(chunk)
    walker.finish()


def _zstd_error(error: Exception) -> DecompressError:
    if "too much memory" in str(error):
        return DecompressError(f"its zstd stream needs a window of more than {1 << WINDOW_LOG} bytes, a fixed limit")
    return DecompressError(f"its zstd stream is damaged ({error})")


class _Walked(io.RawIOBase):
    """Chunks as a file for the reader, each given to the walker first."""

    def __init__(self, chunks: t.Iterator[bytes], walker: FrameWalker) -> None:
        super().__init__()
        self._chunks = chunks
        self._walker = walker

    def readable(self) -> bool:
        return True

    def read(self, _count: int = -1) -> bytes:
        """Return the next chunk, of any size."""
        chunk = next(self._chunks, b"")
        self._walker.feed(chunk)
        return chunk


class FrameWalker:
    """Follow the frames and blocks of a zstd stream (RFC 8878) without decompressing them."""

    def __init__(self) -> None:
        self._held = b""
        self._skip = 0
        self._state = "frame"
        self._checksum = False

    def feed(self, chunk: bytes) -> None:
        """Follow the next bytes, in pieces of any size. Raises ``DecompressError``."""
        if len(chunk) <= self._skip:
            self._skip -= len(chunk)
            return
        data = self._held + chunk
        position = self._skip
        self._skip = 0
        while True:
            step = self._step(data, position)
            if step is None:
                break
            position += step
            if position >= len(data):
                self._skip = position - len(data)
                position = len(data)
                break
        self._held = data[position:]

    def finish(self) -> None:
        """Check that the stream ended with a frame. Raises ``DecompressError``."""
        if self._state != "frame" or self._skip or self._held:
            raise DecompressError("its zstd stream ends too early")

    def _step(self, data: bytes, position: int) -> int | None:
        """Return the length of the header or block at ``position``, or ``None`` if more bytes are needed."""
        if self._state == "frame":
            return self._frame_header(data[position : position + 8])
        head = data[position : position + 3]
        if len(head) < 3:
            return None
        fields = int.from_bytes(head, "little")
        last, kind, size = fields & 1, fields >> 1 & 3, fields >> 3
        length = 3 + (1 if kind == 1 else size)
        if last:
            self._state = "frame"
            length += 4 if self._checksum else 0
        return length

    def _frame_header(self, head: bytes) -> int | None:
        if len(head) < 8 and not (len(head) >= 5 and head.startswith(ZSTD)):
            return None
        if is_skippable(head):
            return 8 + int.from_bytes(head[4:8], "little")
        if not head.startswith(ZSTD):
            raise DecompressError("its zstd stream is followed by other data")
        descriptor = head[4]
        single = descriptor >> 5 & 1
        dictionary = (0, 1, 2, 4)[descriptor & 3]
        content = (1 if single else 0, 2, 4, 8)[descriptor >> 6]
        self._checksum = bool(descriptor >> 2 & 1)
        self._state = "block"
        return 5 + (0 if single else 1) + dictionary + content
