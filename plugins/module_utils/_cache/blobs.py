# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Blobs that stay on the node: by digest, verified whenever they are read (docs/behaviour.md, section 7).

Below the folder lie ``sha256/HEX`` and ``sha512/HEX``, whole blobs, ``partial/RANDOM``, what is being
written, and ``proofs``, who has brought which blob: for all others it is not there. Names come into
being by renaming, so that runs at the same time see whole blobs or none. What
is read or written is locked; nothing of it is pruned.

The cache never fails a run that can do without it: what goes wrong here becomes a warning. Only a folder
that others can write to is refused.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
import typing as t

from .scope import PROOFS, Proofs
from .._errors import RootfsError, SourceError, os_phrase, show
from .._source.range_reader import OPEN_FLAGS, FileAccess, RangeReader
from .._source.verified import VerificationError, VerifiedReader

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = OPEN_FLAGS | os.O_NOFOLLOW
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

_PARTIAL = "partial"
_ALGORITHMS = {"sha256": 64, "sha512": 128}
_HEX = re.compile(r"[0-9a-f]+\Z")
_OTHERS_WRITE = 0o022
# A writer locks its file just after it made it: one without a lock that is older than this is abandoned.
_ABANDONED_SECONDS = 60
_DAY = 24 * 60 * 60


class BlobCache:
    """The blobs in one folder that ``scope`` has brought once, see ``_cache_scope``.

    ``max_size`` is the most bytes that stay after ``prune``, ``max_age`` the days since the last use after
    which a blob goes, 0 for never. Where ``dry``, nothing is made or touched. ``warnings`` are for the user,
    ``damaged`` counts entries that were found to be so.

    Raises ``RootfsError`` where others could write to the folder.
    """

    def __init__(self, path: str, scope: str, max_size: int, max_age: int, dry: bool) -> None:
        self.path = path
        self._scope = scope
        self.warnings: list[str] = []
        self.damaged = 0
        self._max_size = max_size
        self._max_age = max_age
        self._dry = dry
        self._folders: dict[str, int] = {}
        # not to be read again in this run, even where they cannot be removed
        self._discarded: set[str] = set()
        try:
            self._open()
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
        return proofs is not None and proofs.has(name)

    def _proofs(self) -> Proofs | None:
        fd = self._folders.get(PROOFS)
        return None if fd is None else Proofs(fd, self._scope)

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

        A file of another size is damaged: it is discarded and counted.
        """
        blob = self._open_entry(digest)
        if blob is None:
            return None
        if blob.length != size:
            self.discard(blob)
            blob.close()
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
                if (used < oldest or total > self._max_size) and _remove(folder, name):
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
        """Where the full disk of ``fd`` is the cache's too: remove all that no other run uses, and keep no more.

        Whether anything was removed.
        """
        if self._dry or not self._shares_disk(fd):
            return False
        removed = False
        with contextlib.suppress(OSError):
            for _used, _size, folder, name in self._entries():
                removed = _remove(folder, name) or removed
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
        # one word of it is enough, however many blobs follow
        if not self.warnings:
            self.warnings.append(f"the cache {show(self.path)} {what} and was left alone: {os_phrase(error)}")

    def _open(self) -> None:
        """The folder and those in it, each checked; all are made where they are missing, but for a dry run."""
        current = os.open("/", _DIRECTORY)
        shown = ""
        try:
            parts = os.path.realpath(self.path).split("/")[1:]
            for number, part in enumerate(parts, 1):
                _require_safe(current, shown or "/", False)
                last = number == len(parts)
                shown = f"{shown}/{part}"
                below = self._folder(current, part, 0o700 if last else 0o755)
                if below is None:
                    return
                os.close(current)
                current = below
            _require_safe(current, shown, True)
            folders: dict[str, int] = {}
            for name in (*_ALGORITHMS, _PARTIAL, PROOFS):
                fd = self._folder(current, name, 0o700)
                if fd is not None:
                    folders[name] = fd
                    _require_safe(fd, f"{shown}/{name}", True)
            self._folders = folders
        finally:
            os.close(current)

    def _folder(self, above: int, name: str, mode: int) -> int | None:
        while True:
            try:
                return os.open(name, _DIRECTORY, dir_fd=above)
            except FileNotFoundError:
                if self._dry:
                    return None
            # another run may make it at the same time
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, mode, dir_fd=above)

    def _open_entry(self, digest: str) -> CachedBlob | None:
        folder, name = self._place(digest)
        if folder is None or digest in self._discarded or not self._is_proved(name):
            return None
        try:
            fd = os.open(name, _READ, dir_fd=folder)
        except OSError:
            return None
        try:
            status = os.fstat(fd)
            if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
                os.close(fd)
                return None
            with contextlib.suppress(OSError):
                fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            path = os.path.join(self.path, *digest.split(":"))
            return CachedBlob(path, fd, digest)
        except BaseException:
            os.close(fd)
            raise

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
                    _remove(folder, name)


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
    """A blob on its way from its source to whoever verifies it, and into the cache.

    ``writer`` is ``None`` where the cache has it already; ``prove`` notes that the source has it, too.
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
    """A blob on its way into the cache. ``size`` is what was written so far, in bytes."""

    def __init__(self, cache: BlobCache, partial: int, folder: int, name: str) -> None:
        self.size = 0
        self._cache = cache
        # descriptors of its own: the cache may be closed meanwhile
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


def _require_safe(fd: int, path: str, own: bool) -> None:
    """Require that other users cannot change a directory or the way to it. Raises ``RootfsError``."""
    status = os.fstat(fd)
    owners = (os.geteuid(),) if own else (0, os.geteuid())
    open_to_all = status.st_mode & _OTHERS_WRITE
    if not own and status.st_mode & stat.S_ISVTX:
        # as /tmp: nobody can rename or remove what is another's
        open_to_all = 0
    if status.st_uid in owners and not open_to_all:
        return
    raise RootfsError(
        f"cache_dir is refused: other users can change {show(path)}; choose a folder that is, with all above it,"
        " the running user's or root's and closed to writing by others"
    )


def _remove(folder: int, name: str) -> bool:
    """Remove a file unless a run reads or writes it."""
    try:
        fd = os.open(name, _READ, dir_fd=folder)
    except OSError as error:
        if error.errno != errno.ELOOP:
            return False
        # no blob is a link
        os.unlink(name, dir_fd=folder)
        return True
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(name, dir_fd=folder)
        return True
    except OSError:
        return False
    finally:
        os.close(fd)
