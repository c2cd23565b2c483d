# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Two stages at once: one thread reads, hashes and decompresses while the caller parses and writes.

zlib, zstd, the hashes and the writing system calls all let go of the interpreter's lock, so two threads
keep two cores busy. Between them lies a short queue: memory stays bounded, and neither runs far ahead.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import typing as t

# Chunks that wait between two stages: enough to bridge a burst, little to hold.
_DEPTH = 4
# How often a stage that waits looks whether the other one is gone, in seconds.
_PATIENCE = 0.05


@contextlib.contextmanager
def read_ahead(
    chunks: t.Iterable[bytes],
    *steps: t.Callable[[t.Iterator[bytes]], t.Iterable[bytes]],
    cancel: t.Callable[[], None] = lambda: None,
) -> t.Iterator[t.Iterator[bytes]]:
    """The chunks, taken in a thread of their own, and after them each of ``steps``. No thread outlives the context.

    ``cancel`` is called at the end, to wake the source of the chunks where it waits for something.
    What a source or a step raises is raised where its chunks are consumed, in its place among them.
    """
    stages = [_Stage(chunks)]
    for step in steps:
        stages.append(_Stage(step(stages[-1].taken())))
    threads = [
        threading.Thread(target=stage.run, name="read-ahead", daemon=True)
        for stage in stages
    ]
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
        """The thread: chunk after chunk, then ``None``, or what was raised."""
        try:
            for chunk in self._chunks:
                if not self._put(chunk):
                    return
            self._put(None)
        except BaseException as error:
            # whatever it is, it belongs to the consumer
            self._put(error)

    def taken(self) -> t.Iterator[bytes]:
        """The consumer's side; ends when it is stopped, too."""
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
        """The consumer wants no more."""
        self._stopped.set()

    def _put(self, item: bytes | BaseException | None) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=_PATIENCE)
                return True
            except queue.Full:
                continue
        return False
