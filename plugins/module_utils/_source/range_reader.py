# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read files at any offset, and ranges of them in order, so that a blob is read in place."""

from __future__ import annotations

import os
import stat
import typing as t

from .._errors import SourceError, os_phrase, show

# How many bytes are read, hashed and decompressed at a time. From 64 KiB to 4 MiB the time is the same; memory grows.
CHUNK = 256 * 1024

# Do not wait for the other end of a FIFO, and do not make a terminal the controlling one.
OPEN_FLAGS = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY


class RandomAccess(t.Protocol):
    """Bytes that can be read at any offset: of a file, or of a URL."""

    name: str
    size: int

    def read_at(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes, fewer only at the end. Raises ``SourceError``."""

    def advise(self, in_order: bool) -> None:
        """Announce whether the next reads are in order, so that reading ahead pays, or jump."""

    def cancel(self) -> None:
        """Wake and end a ``read_at`` in another thread, if it can wait for long."""

    def close(self) -> None:
        """Close the file."""


class FileAccess:
    """A regular file. Raises ``SourceError`` for anything else."""

    def __init__(self, path: str, fd: int | None = None) -> None:
        self.name = path
        if fd is None:
            fd = open_regular(path)
        self._fd = fd
        self.size = os.fstat(fd).st_size

    def read_at(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``, fewer only at the end. Raises ``SourceError``."""
        try:
            data = os.pread(self._fd, count, offset)
            if len(data) == count or not data:
                return data
            parts = [data]
            missing = count - len(data)
            while missing:
                data = os.pread(self._fd, missing, offset + count - missing)
                if not data:
                    break
                parts.append(data)
                missing -= len(data)
            return b"".join(parts)
        except OSError as error:
            raise SourceError(
                f"{show(self.name)} cannot be read: {os_phrase(error)}; check the disk that it lies on"
            ) from error

    def advise(self, in_order: bool) -> None:
        """Tell the kernel: on a cold disk, indexing is a fifth faster without reading ahead."""
        advice = os.POSIX_FADV_NORMAL if in_order else os.POSIX_FADV_RANDOM
        os.posix_fadvise(self._fd, 0, 0, advice)

    def cancel(self) -> None:
        """Do nothing: a file never waits for long."""

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)


class RangeReader:
    """Read ``length`` bytes from ``offset`` in order; each reader has its own position.

    An ``owned`` file is closed with its reader; any other belongs to the source. Raises ``SourceError`` if the file is
    too short.
    """

    def __init__(self, access: RandomAccess, offset: int, length: int, owned: bool = False) -> None:
        if offset < 0 or length < 0 or offset + length > access.size:
            raise SourceError(
                f"{show(access.name)} ends before the {length} bytes that should be at {offset}; fetch it again"
            )
        self.length = length
        self.remaining = length
        self._access = access
        self._next = offset
        self._owned = owned

    def read(self, count: int = -1) -> bytes:
        """Return at most ``count`` bytes, all that remain for ``-1``; empty at the end. Raises ``SourceError``."""
        if count < 0 or count > self.remaining:
            count = self.remaining
        if not count:
            return b""
        data = self._access.read_at(self._next, count)
        if len(data) != count:
            raise SourceError(
                f"{show(self._access.name)} became shorter while it was read; run again when the file is complete"
            )
        self._next += count
        self.remaining -= count
        return data

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes, at most those that remain, without reading them."""
        self._next += count
        self.remaining -= count

    def cancel(self) -> None:
        """Wake and end a ``read`` in another thread."""
        self._access.cancel()

    def close(self) -> None:
        """Close the file if it was opened for this reader alone."""
        if self._owned:
            self._owned = False
            self._access.close()


def open_regular(path: str, dir_fd: int | None = None) -> int:
    """Open a regular file and return its descriptor. Raises ``SourceError``."""
    try:
        fd = os.open(path, OPEN_FLAGS, dir_fd=dir_fd)
    except OSError as error:
        raise SourceError(f"{show(path)} cannot be opened: {os_phrase(error)}; check src") from error
    return as_regular(fd, path)


def as_regular(fd: int, path: str) -> int:
    """Return the descriptor of a regular file; close any other. Raises ``SourceError``."""
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise SourceError(f"{show(path)} is not a regular file; check src")
    return fd
