# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Blobs that stay on the node, by digest, verified on every use (docs/behaviour.md, section 7).

The folder holds complete blobs as ``sha256/HEX`` and ``sha512/HEX``, unfinished ones as ``partial/RANDOM``, and
``proofs``, which say which scope has added which blob: no other scope may use it. A blob gets its name by a rename, so
concurrent runs see it complete or not at all. Blobs that a run reads or writes are locked and are not pruned.

The cache never fails a run that can do without it: errors become warnings. Only a folder that other users can write to
is refused.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import time
import typing as t

from .folder import READ, open_folders, remove_unused
from .scope import PROOFS, Proofs
from .._errors import SourceError, os_phrase, show
from .._fs.descriptors import closed_on_error
from .._source.range_reader import FileAccess, RangeReader
from .._source.verified import VerificationError, VerifiedReader

_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_PARTIAL = "partial"
_ALGORITHMS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+\Z")
# A writer locks its file right after it created it: an older one without a lock is abandoned.
_ABANDONED_SECONDS = 60
_DAY = 24 * 60 * 60


class BlobCache:
    """The blobs in one folder that ``scope`` may use, see ``scope.py``; all of them if that is ``None``.

    ``max_size`` is how many bytes may stay after ``prune``, ``max_age`` how many days after its last use a blob is
    removed, 0 for never. If ``dry``, nothing is created or changed. ``warnings`` are for the user, ``damaged`` counts
    damaged blobs. Raises ``RootfsError`` if other users can write to the folder.
    """

    def __init__(self, path: str, scope: str | None, max_size: int, max_age: int, dry: bool) -> None:
        self.path = path
        self._scope = scope
        self.warnings: list[str] = []
        self.damaged = 0
        self._max_size = max_size
        self._max_age = max_age
        self._dry = dry
        self._folders: dict[str, int] = {}
        # not read again in this run, even if they cannot be removed
        self._discarded: set[str] = set()
        try:
            self._folders = open_folders(path, (*_ALGORITHMS, _PARTIAL, PROOFS), dry)
        except OSError as error:
            self._give_up("cannot be used", error)

    def has(self, digest: str, size: int | None) -> bool:
        """Return whether the scope may use a blob of this digest and size in bytes; it is not read."""
        _folder, name = self._place(digest)
        return self._is_proved(name) and self._is_there(digest, size)

    def _is_there(self, digest: str, size: int | None) -> bool:
        """Return whether a blob exists, whichever scope added it."""
        folder, name = self._place(digest)
        if folder is None or size is None or digest in self._discarded:
            return False
        try:
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False
        return stat.S_ISREG(status.st_mode) and status.st_size == size

    def _is_proved(self, name: str) -> bool:
        proofs = self._proofs()
        return self._scope is None or (proofs is not None and proofs.has(name))

    def _proofs(self) -> Proofs | None:
        fd = self._folders.get(PROOFS)
        return None if fd is None or self._scope is None else Proofs(fd, self._scope)

    def prove(self, digest: str) -> None:
        """Record that the scope has added all of a blob that exists."""
        proofs = self._proofs()
        _folder, name = self._place(digest)
        if proofs is None or self._dry or not name:
            return
        try:
            proofs.add(name)
        except OSError as error:
            self.failed(error)

    def open_blob(self, digest: str, size: int | None) -> CachedBlob | None:
        """Open a blob, which the caller verifies; return ``None`` if it is missing.

        A blob of another size is read: if it is damaged, it is discarded and counted. If it has its digest, the image's
        descriptor is wrong, and the blob stays for other images.
        """
        blob = self._open_entry(digest)
        if blob is None:
            return None
        if blob.length != size:
            with contextlib.closing(blob):
                if not blob.is_intact():
                    self.discard(blob)
            return None
        if not self._dry:
            blob.touch()
        return blob

    def is_intact(self, digest: str, size: int | None) -> bool:
        """Read a blob, and return whether it exists and has its digest. It is not changed."""
        blob = self._open_entry(digest)
        if blob is None:
            return False
        with contextlib.closing(blob):
            return blob.length == size and blob.is_intact()

    def discard(self, blob: CachedBlob) -> None:
        """Remove a damaged blob, and count it; keep one with which another run has replaced it."""
        self.damaged += 1
        self._discarded.add(blob.digest)
        folder, name = self._place(blob.digest)
        if folder is None or self._dry:
            return
        with contextlib.suppress(OSError):
            there = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if blob.is_file(there):
                os.unlink(name, dir_fd=folder)

    def writer(self, digest: str, size: int | None) -> BlobWriter | None:
        """Return a writer for a blob that is being verified, or ``None`` if it is not to be kept."""
        folder, name = self._place(digest)
        if folder is None or self._dry or size is None or size > self._max_size:
            return None
        partial = self._folders[_PARTIAL]
        try:
            return BlobWriter(self, partial, folder, name)
        except OSError as error:
            self.failed(error)
            return None

    def keeping(self, blob: RangeReader, digest: str, size: int | None) -> KeptBlob | RangeReader:
        """Return a reader of ``blob`` that also writes it to the cache, if it is to be kept and is missing."""
        if not self._dry and self._is_there(digest, size):
            return KeptBlob(blob, None, lambda: self.prove(digest))
        writer = self.writer(digest, size)
        if writer is None:
            return blob
        return KeptBlob(blob, writer, lambda: self.prove(digest))

    def prune(self) -> None:
        """Remove expired blobs, then the least recently used ones until the rest is small enough."""
        if self._dry or not self._folders:
            return
        with contextlib.suppress(OSError):
            self._remove_abandoned()
            entries = sorted(self._entries())
            total = sum(size for _used, size, _folder, _name in entries)
            oldest = time.time() - self._max_age * _DAY if self._max_age else 0.0
            for used, size, folder, name in entries:
                if (used < oldest or total > self._max_size) and remove_unused(folder, name):
                    total -= size
            proofs = self._proofs()
            if proofs is not None:
                left = {name for _used, _size, _folder, name in self._entries()}
                proofs.prune(left.__contains__)

    def room(self, fd: int) -> int:
        """Return how many bytes ``make_room`` could free on the disk of ``fd``."""
        if not self._shares_disk(fd):
            return 0
        with contextlib.suppress(OSError):
            return sum(size for _used, size, _folder, _name in self._entries())
        return 0

    def make_room(self, fd: int) -> bool:
        """Remove all blobs that no other run uses, and keep no more, if the cache is on the full disk of ``fd``.

        Return whether anything was removed.
        """
        if self._dry or not self._shares_disk(fd):
            return False
        removed = False
        with contextlib.suppress(OSError):
            for _used, _size, folder, name in self._entries():
                removed = remove_unused(folder, name) or removed
        self.close()
        if removed:
            self.warnings.append(
                f"the cache {show(self.path)} was emptied, because the file system that it shares with dest was full"
            )
        return removed

    def failed(self, error: OSError) -> None:
        """Stop using the cache after a failed write."""
        self._give_up("does not take blobs any more", error)

    def close(self) -> None:
        """Close the folders."""
        folders, self._folders = self._folders, {}
        for fd in folders.values():
            os.close(fd)

    def _shares_disk(self, fd: int) -> bool:
        folders = list(self._folders.values())
        return bool(folders) and os.fstat(folders[0]).st_dev == os.fstat(fd).st_dev

    def _give_up(self, what: str, error: OSError) -> None:
        # one warning is enough, however many blobs follow
        if not self.warnings:
            self.warnings.append(f"the cache {show(self.path)} {what} and was left alone: {os_phrase(error)}")

    def _open_entry(self, digest: str) -> CachedBlob | None:
        folder, name = self._place(digest)
        if folder is None or digest in self._discarded or not self._is_proved(name):
            return None
        try:
            fd = os.open(name, READ, dir_fd=folder)
        except OSError:
            return None
        with closed_on_error(fd):
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
                with contextlib.suppress(OSError):
                    fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
                path = os.path.join(self.path, *digest.split(":"))
                return CachedBlob(path, fd, digest)
        os.close(fd)
        return None

    def _place(self, digest: str) -> tuple[int | None, str]:
        algorithm, _colon, encoded = digest.partition(":")
        if len(encoded) != _ALGORITHMS.get(algorithm) or not _HEX.match(encoded):
            return None, ""
        return self._folders.get(algorithm), encoded

    def _entries(self) -> t.Iterator[tuple[float, int, int, str]]:
        """Yield the time of last use, size, folder and name of each blob."""
        for algorithm, length in _ALGORITHMS.items():
            folder = self._folders.get(algorithm)
            if folder is None:
                continue
            for name in os.listdir(folder):
                if len(name) != length or not _HEX.match(name):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                    yield status.st_mtime, status.st_size, folder, name

    def _remove_abandoned(self) -> None:
        folder = self._folders[_PARTIAL]
        for name in os.listdir(folder):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=folder, follow_symlinks=False)
                if status.st_mtime < time.time() - _ABANDONED_SECONDS:
                    remove_unused(folder, name)


class CachedBlob(RangeReader):
    """A blob of the cache, locked until it is closed."""

    def __init__(self, path: str, fd: int, digest: str) -> None:
        access = FileAccess(path, fd)
        super().__init__(access, 0, access.size, owned=True)
        self.digest = digest
        self._fd = fd
        self._status = os.fstat(fd)

    def touch(self) -> None:
        """Record that the blob was used."""
        with contextlib.suppress(OSError):
            os.utime(self._fd)

    def is_file(self, status: os.stat_result) -> bool:
        """Return whether ``status`` belongs to the open file."""
        return os.path.samestat(status, self._status)

    def is_intact(self) -> bool:
        """Read the blob and return whether it has its digest."""
        blob = RangeReader(self._access, 0, self.length)
        try:
            VerifiedReader(blob, self.digest, self.length).drain()
        except (SourceError, VerificationError):
            return False
        return True


class KeptBlob:
    """A blob that is read from its source and written to the cache at the same time; the reader verifies it.

    ``writer`` is ``None`` if the cache already has it; ``prove`` records that the scope has added it.
    """

    def __init__(self, blob: RangeReader, writer: BlobWriter | None, prove: t.Callable[[], None]) -> None:
        self._blob = blob
        self._writer = writer
        self._prove = prove

    def read(self, count: int = -1) -> bytes:
        """Return at most ``count`` bytes; empty at the end. Raises ``SourceError``."""
        data = self._blob.read(count)
        if self._writer is not None:
            self._writer.write(data)
        return data

    def keep(self) -> None:
        """Keep the blob, which was read to its end and has its digest."""
        if self._writer is None or self._writer.commit():
            self._prove()

    def cancel(self) -> None:
        """Wake and end a ``read`` in another thread."""
        self._blob.cancel()

    def close(self) -> None:
        """Close the blob; discard it unless it was kept."""
        self._blob.close()
        if self._writer is not None:
            self._writer.close()


class BlobWriter:
    """Write one blob into the cache. ``size`` counts the bytes given so far."""

    def __init__(self, cache: BlobCache, partial: int, folder: int, name: str) -> None:
        self.size = 0
        self._cache = cache
        # its own descriptors, because the cache may be closed before the blob is complete
        self._partial = os.dup(partial)
        self._folder = os.dup(folder)
        self._name = name
        self._temporary = os.urandom(16).hex()
        self._fd = -1
        try:
            self._fd = os.open(self._temporary, _CREATE, 0o600, dir_fd=self._partial)
            with contextlib.suppress(OSError):
                fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            self.close()
            raise

    def write(self, data: bytes) -> None:
        """Write the next bytes; if that fails, give the blob up with a warning."""
        self.size += len(data)
        if self._fd < 0:
            return
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        except OSError as error:
            self._cache.failed(error)
            self._drop()

    def commit(self) -> bool:
        """Add the complete and verified blob to the cache. Return false if it was given up."""
        if self._fd < 0:
            return False
        try:
            os.fsync(self._fd)
            os.rename(self._temporary, self._name, src_dir_fd=self._partial, dst_dir_fd=self._folder)
        except OSError as error:
            self._cache.failed(error)
            self._drop()
            return False
        os.close(self._fd)
        self._fd = -1
        return True

    def close(self) -> None:
        """Discard the blob unless it was committed."""
        self._drop()
        for fd in (self._partial, self._folder):
            if fd >= 0:
                os.close(fd)
        self._partial = self._folder = -1

    def _drop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            with contextlib.suppress(OSError):
                os.unlink(self._temporary, dir_fd=self._partial)
