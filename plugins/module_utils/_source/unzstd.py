# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Decompress zstd streams with ``compression.zstd``, ``zstandard`` or the program (RFC 8878; docs/behaviour.md, section 3)."""

from __future__ import annotations

import importlib
import io
import typing as t

from .._errors import MissingLibraryError
from .magic import ZSTD, is_skippable
from .members import DecompressError, Members, StreamLimitError, read_members
from .range_reader import CHUNK
from .zstd_program import unzstd_by_program, zstd_program

WINDOW_LOG = 27


def unzstd(chunks: t.Iterator[bytes]) -> t.Iterator[bytes]:
    """Yield the content of a zstd stream. Raises ``DecompressError``, ``MissingLibraryError``."""
    try:
        library = _zstd_library()
    except MissingLibraryError:
        program = zstd_program()
        if program is None:
            raise
        yield from _unzstd_by_program(chunks, program)
        return
    if not hasattr(library, "DecompressionParameter"):
        yield from _unzstd_by_reader(chunks, library)
        return
    options = {library.DecompressionParameter.window_log_max: WINDOW_LOG}
    try:
        yield from read_members(
            chunks, Members("zstd", lambda: library.ZstdDecompressor(options=options), library.ZstdError)
        )
    except library.ZstdError as error:
        raise _zstd_error(error) from error


def _zstd_library() -> t.Any:
    """Return the module of the standard library (Python 3.14), or zstandard. Raises ``MissingLibraryError``."""
    reason = ""
    for name in ("compression.zstd", "zstandard"):
        try:
            return importlib.import_module(name)
        except ImportError as error:
            reason = error.msg
    raise MissingLibraryError(
        "zstandard",
        "to read what is compressed by zstd; install the package python3-zstandard or, for its program, zstd",
        reason,
    )


def _unzstd_by_program(chunks: t.Iterator[bytes], program: str) -> t.Iterator[bytes]:
    """Decompress with the program, which also reads other formats than zstd; a ``FrameWalker`` refuses them."""
    walker = FrameWalker()

    def walked() -> t.Iterator[bytes]:
        for chunk in chunks:
            walker.feed(chunk)
            yield chunk
        walker.finish()

    yield from unzstd_by_program(walked(), program, 1 << WINDOW_LOG)


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
        return StreamLimitError(f"its zstd stream needs a window of more than {1 << WINDOW_LOG} bytes, a fixed limit")
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
