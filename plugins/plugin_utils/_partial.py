# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What earlier runs fetched of blobs, whole or in part, so that a run goes on at the byte (docs/behaviour.md, section 7).

A file is named after the source, the credentials and the digest, so nobody else's blob is ever continued. It proves
nothing: whoever uses it hashes all of it again. A file that is whole may have a second name in the staging folder of a
run, so a file is never cut or overwritten, but removed and made anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import stat
import time
import typing as t
from dataclasses import dataclass

from ..module_utils._errors import RootfsError, SourceChangedError, SourceError, os_phrase, show
from ..module_utils._fs.descriptors import closed_on_error, opened
from ..module_utils._fs.directories import make_private
from ..module_utils._source.range_reader import CHUNK
from ..module_utils._source.verified import SizeMismatchError, VerificationError, VerifiedReader

if t.TYPE_CHECKING:
    from ..module_utils._source.range_reader import RangeReader

_FOLDER = "hypervisor.oci"
_NAME = re.compile(r"[0-9a-f]{64}\Z")
# Bounds of the folder: what all files hold in bytes, and how many seconds after its last byte a file stays.
_MOST = 10 * 1024**3
_LONGEST = 7 * 24 * 3600
# Seconds without a byte after which another run counts as stuck, and between two looks.
_PATIENCE = 10.0
_POLL = 0.1
# What a guess at the credentials behind a name costs, in rounds of a hash.
_ROUNDS = 20_000
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_FLAGS = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True)
class Blob:
    """A blob to fetch: its digest, its size in bytes, and how to open it from a byte on."""

    digest: str
    size: int
    open_at: t.Callable[[int], RangeReader]


def derive(secret: bytes, purpose: str) -> str:
    """Return 64 hexadecimal digits that stand for a secret, and from which it cannot be guessed cheaply."""
    salt = hashlib.sha256(purpose.encode("utf-8", "surrogateescape")).digest()
    return hashlib.pbkdf2_hmac("sha256", secret, salt, _ROUNDS).hex()


def open_partials() -> Partials:
    """Open the folder in the user's cache. Raises ``SourceError``, which says why it cannot be used."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(base):
        base = os.path.expanduser("~/.cache")
    path = os.path.join(base, _FOLDER)
    try:
        os.makedirs(base, 0o700, exist_ok=True)
        with opened(os.open(base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as above:
            return Partials(make_private(above, os.fsencode(_FOLDER)), path)
    except RootfsError as error:
        raise SourceError(
            f"{show(path)} is not a folder, belongs to another user or is open to others; remove it, or set"
            " XDG_CACHE_HOME"
        ) from error
    except OSError as error:
        raise SourceError(f"{show(path)} cannot be used: {os_phrase(error)}; set XDG_CACHE_HOME") from error


class Partials:
    """The folder behind ``fd``, which ``path`` names in messages."""

    def __init__(self, fd: int, path: str) -> None:
        self._fd = fd
        self.path = path

    def close(self) -> None:
        """Close the folder."""
        os.close(self._fd)

    def stage(self, name: str, blob: Blob, target: str) -> bool:
        """Fetch the rest of a blob, verify all of it, and give it the second name ``target``.

        Waits while another run fetches it. Returns false when that run comes no further, or when the blob is too large for
        the folder. What does not match its digest, or what the server does not go on with, is removed, and fetched once more
        unless all of it came from this run. Raises ``VerificationError``, ``SourceError`` and ``OSError``.
        """
        if blob.size > _MOST:
            return False
        for _turn in range(2):
            fd = self._wait(name)
            if fd is None:
                return False
            with opened(fd):
                resumed = os.fstat(fd).st_size
                self.prune(max(0, blob.size - resumed), name)
                try:
                    _complete(fd, resumed, blob)
                except (VerificationError, SourceChangedError):
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=self._fd)
                    if not resumed:
                        raise
                    continue
                self._link(fd, target)
                return True
        return False

    def read(self, name: str, most: int) -> bytes | None:
        """Return the content of a small file, and let it stay for longer; ``None`` if it cannot be read."""
        try:
            with opened(os.open(name, _READ, dir_fd=self._fd)) as fd:
                status = os.fstat(fd)
                if not stat.S_ISREG(status.st_mode) or status.st_size > most:
                    return None
                os.utime(fd)
                with open(os.dup(fd), "rb") as file:
                    return file.read(most)
        except OSError:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Write a small file, unless that is not possible: then it is fetched again."""
        fresh = os.urandom(32).hex()
        with contextlib.suppress(OSError):
            with open(os.open(fresh, _FLAGS | os.O_EXCL, 0o600, dir_fd=self._fd), "wb") as file:
                file.write(data)
            os.rename(fresh, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)

    def prune(self, room: int = 0, kept: str = "") -> None:
        """Remove old files, and then the oldest ones until ``room`` bytes fit; never ``kept`` or what another run uses.

        Raises ``OSError``.
        """
        found = []
        for name in os.listdir(self._fd):
            with contextlib.suppress(FileNotFoundError):
                status = os.stat(name, dir_fd=self._fd, follow_symlinks=False)
                if _NAME.match(name) and stat.S_ISREG(status.st_mode):
                    found.append((status.st_mtime, status.st_size, name))
        total = sum(size for _time, size, _name in found)
        for changed, size, name in sorted(found):
            is_old = changed < time.time() - _LONGEST
            if name != kept and (is_old or total + room > _MOST or self._free() < room) and self._remove(name):
                total -= size

    def _free(self) -> int:
        status = os.fstatvfs(self._fd)
        return status.f_bavail * status.f_frsize

    def _remove(self, name: str) -> bool:
        fd = self._lock(name)
        if fd is None:
            return False
        with opened(fd):
            os.unlink(name, dir_fd=self._fd)
        return True

    def _wait(self, name: str) -> int | None:
        """Open a file once no other run has it; return ``None`` if the one that has it writes nothing for a while."""
        found, size, deadline = 0, -1, 0.0
        while True:
            fd = self._lock(name)
            if fd is not None:
                return fd
            with contextlib.suppress(FileNotFoundError):
                found = os.stat(name, dir_fd=self._fd).st_size
            if found != size:
                size, deadline = found, time.monotonic() + _PATIENCE
            elif time.monotonic() > deadline:
                return None
            time.sleep(_POLL)

    def _lock(self, name: str) -> int | None:
        """Open a file, made if it is missing; return ``None`` while another run has it."""
        fd = os.open(name, _FLAGS, 0o600, dir_fd=self._fd)
        with closed_on_error(fd):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(fd)
                return None
        return fd

    def _link(self, fd: int, target: str) -> None:
        """Give this very file another name, or copy it to another file system."""
        try:
            # by its descriptor: a new file may have the name by now
            os.link(f"/proc/self/fd/{fd}", target, src_dir_fd=self._fd)
            return
        except FileExistsError:
            return
        except OSError:
            fresh = f"{target}.new"
        with open(os.dup(fd), "rb") as source, open(fresh, "wb") as copy:
            os.fchmod(copy.fileno(), 0o600)
            source.seek(0)
            shutil.copyfileobj(source, copy, CHUNK)
        os.rename(fresh, target)


def _complete(fd: int, resumed: int, blob: Blob) -> None:
    """Fetch what is missing behind the first ``resumed`` bytes, and verify all of it.

    Raises ``VerificationError``, ``SourceError`` and ``OSError``.
    """
    if resumed > blob.size:
        raise SizeMismatchError(resumed)
    with contextlib.closing(_Resumed(fd, resumed, blob)) as resuming:
        VerifiedReader(resuming, blob.digest, blob.size).drain()


class _Resumed:
    """A blob of which the first bytes come from a file, and the others from the source, to be added to the file."""

    def __init__(self, fd: int, resumed: int, blob: Blob) -> None:
        self._fd = fd
        self._resumed = resumed
        self._position = 0
        self._blob = blob
        self._reader: RangeReader | None = None
        self._parent = os.getppid()

    def read(self, count: int = -1) -> bytes:
        """Return at most ``count`` bytes, empty at the end. Raises ``SourceError`` and ``OSError``."""
        left = self._resumed - self._position
        if left > 0:
            data = os.pread(self._fd, min(count, left), self._position)
        elif self._position < self._blob.size:
            if self._reader is None:
                self._reader = self._blob.open_at(self._position)
            if os.getppid() != self._parent:
                # ansible-playbook was killed: leave the rest, and the file, to the next run
                raise SourceError("the process that this fetch was for has ended; run again")
            data = self._reader.read(count)
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._fd, rest) :]
        else:
            return b""
        self._position += len(data)
        return data

    def close(self) -> None:
        """Close what was opened."""
        if self._reader is not None:
            self._reader.close()
