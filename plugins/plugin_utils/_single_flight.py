# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Let one fork fetch from a server while the others wait for its files, and share its failure.

A fork that has talked to the server knows the index of the archive, or has a token. So it keeps the ``session`` until
its own blobs are fetched, and the others leave them to it: together they send the requests of one. As its node may
hang, they wait only for as long as nothing is being fetched, and no longer than ``_PATIENCE``.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
import typing as t

from ..module_utils._errors import OciError, SourceError

# Seconds that a fork with a session may let the others wait without fetching, and between two looks.
_PATIENCE = 10.0
_POLL = 0.05


class SingleFlight:
    """The turns of the forks that share ``folder``, a private directory.

    ``path`` is the file that is being fetched; whoever fetches several sets it anew for each of them.
    """

    def __init__(self, folder: str) -> None:
        self.path = ""
        self._folder = folder
        self._session: int | None = None

    @contextlib.contextmanager
    def turn(self, path: str) -> t.Iterator[bool]:
        """Yield true when it is this fork's turn to fetch a file, and false once another fork has done it.

        Raises ``SourceError`` if another fork has tried to fetch that very file since then and failed. Raises ``OSError``.
        """
        lock = self._wait(path)
        if lock is None:
            yield False
            return
        self.path = path
        try:
            yield True
        except OciError as error:
            self._note(error.message)
            raise
        finally:
            os.close(lock)

    def end_session(self) -> None:
        """Let another fork have the session."""
        if self._session is not None:
            os.close(self._session)
            self._session = None

    def _wait(self, path: str) -> int | None:
        """Return the lock of whoever fetches, or ``None`` once the file is there."""
        began = time.time_ns()
        had_session = self._session is not None
        deadline = time.monotonic() + _PATIENCE
        while not os.path.exists(path):
            self._raise_failure(path, began)
            if self._session is None:
                self._session = self._lock("session")
            lock = self._lock("fetching")
            if lock is None:
                deadline = time.monotonic() + _PATIENCE
            elif self._session is not None or time.monotonic() > deadline:
                # the other one may have finished between the two looks
                if not os.path.exists(path):
                    return lock
                os.close(lock)
            else:
                os.close(lock)
            time.sleep(_POLL)
        if not had_session:
            self.end_session()
        return None

    def _lock(self, name: str) -> int | None:
        """Return the descriptor of a lock, or ``None`` while another fork has it."""
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
        fd = os.open(os.path.join(self._folder, name), flags, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return None
        return fd

    def _note(self, message: str) -> None:
        """Leave a failure to the forks that are waiting for the same file."""
        path = self._failure(self.path)
        with contextlib.suppress(OSError):
            with open(f"{path}.new", "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(message)
            os.rename(f"{path}.new", path)

    def _failure(self, path: str) -> str:
        """Return the file that tells why another one could not be fetched."""
        return os.path.join(self._folder, "failure-" + hashlib.sha256(os.fsencode(path)).hexdigest())

    def _raise_failure(self, path: str, began: int) -> None:
        """Raise the failure of another fork since ``began``, in nanoseconds of the clock of files."""
        try:
            with open(self._failure(path), encoding="utf-8") as file:
                if os.fstat(file.fileno()).st_mtime_ns >= began:
                    raise SourceError(file.read())
        except FileNotFoundError:
            pass
