# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What came of a blob over the network before a run ended: the next run reads it and asks for the rest only.

Each blob is a file in a private folder, named by a hash of its digest and of whoever may have it, so that a digest which
another source names gives nothing away. The bytes are handed on like those of the network and hashed with them; whole blobs
stay until the run has succeeded (docs/behaviour.md, section 11).
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import stat
import typing as t

from .._errors import SourceChangedError
from .range_reader import CHUNK, RangeReader

_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Smaller blobs are fetched again in less time than it takes to think of them.
LEAST = 256 * 1024


class PartialBlobs:
    """The partial blobs in the private folder behind ``folder``, which is closed with this object.

    ``scope`` says whose blobs they are. ``may_help`` is called when a blob turned out to be damaged, and returns whether
    another server can be asked for it.
    """

    def __init__(self, folder: int, scope: str, may_help: t.Callable[[], bool] = lambda: False) -> None:
        self._folder = folder
        self._scope = scope
        self._may_help = may_help
        self._given_up = False

    def reading(self, blob: RangeReader, digest: str, size: int) -> PartialBlob | RangeReader:
        """Return a reader of ``blob`` that begins with what an earlier run left, and keeps what it reads."""
        if size < LEAST or self._given_up or not self._has_room(size):
            return blob
        name = self._name_of(digest)
        try:
            fd = os.open(name, _FLAGS, 0o600, dir_fd=self._folder)
        except OSError:
            return blob
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid() and status.st_nlink == 1:
                if status.st_size > size:
                    os.ftruncate(fd, 0)
                return PartialBlob(blob, fd, lambda: self._remove(name))
        except OSError:
            pass
        os.close(fd)
        return blob

    def is_worth_a_second_try(self, blob: t.Any) -> bool:
        """Forget a damaged blob, and return whether it may come whole from its beginning or from another server."""
        resumed = isinstance(blob, PartialBlob) and blob.discard()
        return self._may_help() or resumed

    def keep_only(self, digests: t.Iterable[str]) -> None:
        """Remove all blobs but these, for example those of another image that was never finished."""
        kept = set(map(self._name_of, digests))
        for name in self._names():
            if name not in kept:
                self._remove(name)

    def make_room(self) -> bool:
        """Remove all blobs and keep no more, because the disk is full; return whether there were any."""
        names = self._names()
        self._given_up = True
        for name in names:
            self._remove(name)
        return bool(names)

    def close(self) -> None:
        """Close the folder."""
        os.close(self._folder)

    def _name_of(self, digest: str) -> str:
        return hashlib.sha256(f"{self._scope} {digest}".encode()).hexdigest()

    def _names(self) -> list[str]:
        with contextlib.suppress(OSError):
            return os.listdir(self._folder)
        return []

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._folder)

    def _has_room(self, size: int) -> bool:
        """Return whether a blob leaves as much room as it takes: the tree that it becomes needs it more."""
        try:
            status = os.fstatvfs(self._folder)
        except OSError:
            return False
        return status.f_bavail * status.f_frsize > 2 * size


class PartialBlob:
    """A reader of one blob with the methods of ``RangeReader``, which writes what it reads to the open file ``fd``."""

    def __init__(self, blob: RangeReader, fd: int, remove: t.Callable[[], None]) -> None:
        self.length = blob.length
        self._blob = blob
        self._fd = fd
        self._remove = remove
        self._position = 0
        self._resumed = os.fstat(fd).st_size
        self._rereads = self._resumed > 0

    def read(self, count: int = -1) -> bytes:
        """Return at most ``count`` bytes, all that remain for ``-1``; empty at the end. Raises ``SourceError``."""
        if count < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        data = self._reread(count)
        if not data:
            try:
                data = self._blob.read(count)
            except SourceChangedError:
                # the server's blob is another one, or ends before this part does
                self.discard()
                raise
            self._write(data)
        self._position += len(data)
        return data

    def discard(self) -> bool:
        """Remove the file and keep no more of this blob; return whether some of it came from an earlier run."""
        self._remove()
        self._stop()
        return self._resumed > 0

    def cancel(self) -> None:
        """Wake and end a ``read`` in another thread."""
        self._blob.cancel()

    def close(self) -> None:
        """Close the blob and the file, which stays for the next run."""
        self._blob.close()
        self._stop()

    def _reread(self, count: int) -> bytes:
        """Return bytes of the file, empty when all of it was read; the rest is then asked for."""
        data = b""
        if self._rereads and self._fd >= 0:
            with contextlib.suppress(OSError):
                data = os.pread(self._fd, count, self._position)
        if self._rereads and not data:
            self._rereads = False
            self._blob.skip(self._position)
        return data

    def _write(self, data: bytes) -> None:
        rest = memoryview(data)
        position = self._position
        try:
            while rest and self._fd >= 0:
                count = os.pwrite(self._fd, rest, position)
                rest, position = rest[count:], position + count
        except OSError:
            # a full disk is for others to report: the blob can do without
            self._remove()
            self._stop()

    def _stop(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
