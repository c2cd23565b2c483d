# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Progress messages of transfers and of runs that take long, for each host."""

from __future__ import annotations

import contextlib
import threading
import time
import typing as t

from ansible.module_utils.common.text.formatters import bytes_to_human

from ..module_utils._source.sent import upload_name
from ._processes import layer_progress, read_position

# Progress of smaller transfers, in bytes, is shown with -vv only.
LONG = 32 * 1024 * 1024
_SHOWN = 19
# Seconds between two lines about work that goes on.
_INTERVAL = 5.0

Display = t.Callable[[str, bool], None]


@contextlib.contextmanager
def reporting(tell: t.Callable[[float], None]) -> t.Iterator[None]:
    """Call ``tell`` every few seconds of the block, in a thread, with the seconds since its beginning."""
    over = threading.Event()
    started = time.monotonic()

    def report() -> None:
        while not over.wait(_INTERVAL):
            tell(time.monotonic() - started)

    thread = threading.Thread(target=report, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextlib.contextmanager
def running_module(host: str, work: str, display: Display) -> t.Iterator[None]:
    """Report every few seconds that the module does ``work``, and which layer it unpacks if it runs on this machine."""

    def tell(seconds: float) -> None:
        layer = layer_progress()
        what = work if layer is None else f"unpacking layer {layer[0]} of {layer[1]}"
        display(f"[{host}] {what}, for {seconds:.0f} s so far", True)

    with reporting(tell):
        yield


class Progress:
    """The progress of a transfer to or for ``host``; ``sizes`` has the blobs in order, by name and in bytes.

    ``display`` is called with each line, and whether it belongs to a long transfer. ``verbs`` are what the transfer does,
    and has done.
    """

    def __init__(
        self,
        host: str,
        sizes: t.Mapping[str, int],
        display: Display,
        clock: t.Callable[[], float] = time.monotonic,
        verbs: tuple[str, str] = ("sending", "sent"),
    ) -> None:
        self._host = host
        self._sizes = sizes
        self._display = display
        self._clock = clock
        self._doing, self._done = verbs
        self._number = 0
        self._sent = 0
        self._total = sum(sizes.values())
        self._started = clock()

    @contextlib.contextmanager
    def sending(self, names: t.Sequence[str], path: str = "") -> t.Iterator[None]:
        """Report that the blobs ``names`` are transferred within this block, as the file at ``path``."""
        first = self._number + 1
        self._number += len(names)
        size = sum(self._sizes[name] for name in names)
        if len(names) == 1:
            blob = upload_name(names[0]).replace("-", ":")[:_SHOWN]
            what = f"blob {first} of {len(self._sizes)}, {blob}"
        else:
            what = f"blobs {first} to {self._number} of {len(self._sizes)} together"
        self._line(
            f"{self._doing} {what}, {bytes_to_human(size)};"
            f" {bytes_to_human(self._sent)} of {bytes_to_human(self._total)} {self._done}"
        )

        def tell(seconds: float) -> None:
            done = read_position(path)
            # a connection may read a file as a whole before it sends any of it
            far = f" {bytes_to_human(done)} of" if 0 < done < size else ""
            self._display(
                f"[{self._host}] {self._doing} {what},{far} {bytes_to_human(size)}, for {seconds:.0f} s so far", True
            )

        with reporting(tell):
            yield
        self._sent += size
        if self._number == len(self._sizes):
            seconds = max(self._clock() - self._started, 0.001)
            self._line(
                f"{self._done} {bytes_to_human(self._total)} in {seconds:.1f} s,"
                f" {bytes_to_human(int(self._total / seconds))}/s"
            )

    def _line(self, text: str) -> None:
        self._display(f"[{self._host}] {text}", self._total >= LONG)
