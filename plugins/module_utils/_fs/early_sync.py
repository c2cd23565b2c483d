# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Sync a file system while it is being written to, so that the last sync has little left to do."""

from __future__ import annotations

import threading
import types
import typing as t

from .syscalls import has_syncfs, syncfs

# Bytes of layers between two syncs. Small images are left to the last sync.
_STEP = 128 * 1024 * 1024


class EarlySync:
    """Syncs the file system of ``fd`` after every ``_STEP`` bytes, in a thread that ends with the context.

    The caller must still sync at the end. Leaving the context raises ``OSError`` if an early sync failed, because the
    kernel reports each write error only once.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._due = threading.Event()
        self._over = False
        self._thread: threading.Thread | None = None
        self._error: OSError | None = None
        self._bytes = 0

    def __enter__(self) -> EarlySync:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._over = True
            self._due.set()
            self._thread.join()
        if self._error is not None and error is None:
            raise self._error

    def following(self, chunks: t.Iterable[bytes]) -> t.Iterator[bytes]:
        """Yield the chunks; each counts as written when the next one is requested."""
        for chunk in chunks:
            yield chunk
            self._bytes += len(chunk)
            if self._bytes >= _STEP:
                self._bytes = 0
                self._begin()

    def _begin(self) -> None:
        # without syncfs, all file systems of the machine would be synced
        if not has_syncfs():
            return
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="early-sync", daemon=True)
            self._thread.start()
        self._due.set()

    def _run(self) -> None:
        try:
            while True:
                self._due.wait()
                self._due.clear()
                if self._over:
                    return
                syncfs(self._fd)
        except OSError as error:
            self._error = error
