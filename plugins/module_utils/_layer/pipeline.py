# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run stages in threads: some read, hash and decompress while the caller parses and writes.

zlib, zstd, hashlib and system calls release the interpreter's lock, so two threads keep two cores busy.
A short queue between stages bounds memory.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import typing as t

# Chunks queued between two stages: enough to bridge a burst, with little memory.
_DEPTH = 4
# Seconds between checks of a waiting stage for whether the other one has stopped.
_PATIENCE = 0.05


@contextlib.contextmanager
def read_ahead(
    chunks: t.Iterable[bytes],
    *steps: t.Callable[[t.Iterator[bytes]], t.Iterable[bytes]],
    cancel: t.Callable[[], None] = lambda: None,
) -> t.Iterator[t.Iterator[bytes]]:
    """Yield the chunks as the last of ``steps`` returns them; the source and each step run in a thread of their own.

    No thread outlives the context. At its end ``cancel`` is called, to wake a source that waits for input.
    An exception in a source or step is raised in its consumer, after the chunks before it.
    """
    stages = [_Stage(chunks)]
    for step in steps:
        stages.append(_Stage(step(stages[-1].taken())))
    threads = [threading.Thread(target=stage.run, name="read-ahead", daemon=True) for stage in stages]
    started = []
    try:
        for thread in threads:
            thread.start()
            started.append(thread)
        yield stages[-1].taken()
    finally:
        for stage in stages:
            stage.stop()
        cancel()
        for thread in started:
            thread.join()


class _Stage:
    def __init__(self, chunks: t.Iterable[bytes]) -> None:
        self._chunks = chunks
        self._queue: queue.Queue[bytes | BaseException | None] = queue.Queue(_DEPTH)
        self._stopped = threading.Event()

    def run(self) -> None:
        """Queue all chunks, then None or the exception raised. This is the body of the thread."""
        try:
            for chunk in self._chunks:
                if not self._put(chunk):
                    return
            self._put(None)
        except BaseException as error:
            # the consumer raises it
            self._put(error)

    def taken(self) -> t.Iterator[bytes]:
        """Yield the queued chunks to the consumer, until the end or until stopped."""
        while True:
            try:
                item = self._queue.get(timeout=_PATIENCE)
            except queue.Empty:
                if self._stopped.is_set():
                    return
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item

    def stop(self) -> None:
        """Stop: the consumer takes no more chunks."""
        self._stopped.set()

    def _put(self, item: bytes | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_PATIENCE)
                return True
            except queue.Full:
                continue
        return False
