# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A server that cuts connections: it hands requests on, and the answers to GET for blobs up to a byte only.

    cutter = Cutter(registry_port, [Cut(0), Cut(5000, hold=2.0), WHOLE])

The first answer for a blob is cut by the first of the cuts, and so on; when there are no more, answers are whole.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import typing as t
from dataclasses import dataclass

_HEAD = 64 * 1024
_PIECE = 16 * 1024


@dataclass(frozen=True)
class Cut:
    """Where an answer ends, in bytes of headers and body together; ``hold`` is how many seconds later the connection ends.

    ``rate`` is how many bytes a second are sent at most, 0 for as many as possible.
    """

    at: int
    hold: float = 0.0
    rate: int = 0


WHOLE = Cut(1 << 62)


class Cutter:
    """Listens on a ``port`` of loopback, until the process ends; ``done`` counts the cuts."""

    def __init__(self, upstream: int, cuts: t.Sequence[Cut]) -> None:
        self.done = 0
        self._upstream = upstream
        self._cuts = list(cuts)
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            client, _address = self._listener.accept()
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head and len(head) < _HEAD:
                data = client.recv(_PIECE)
                if not data:
                    return
                head += data
            cut = self._next(head)
            with socket.create_connection(("127.0.0.1", self._upstream)) as server:
                server.sendall(_closing(head))
                _pass_on(server, client, cut)

    def _next(self, head: bytes) -> Cut:
        line = head.partition(b"\r\n")[0]
        with self._lock:
            if not line.startswith(b"GET ") or b"/blobs/" not in line or not self._cuts:
                return WHOLE
            cut = self._cuts.pop(0)
            self.done += cut is not WHOLE
            return cut


def _closing(head: bytes) -> bytes:
    """Ask for an answer that ends with its connection: a connection carries one answer here."""
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"connection:")]
    return b"\r\n".join([lines[0], b"Connection: close", *lines[1:]])


def _pass_on(server: socket.socket, client: socket.socket, cut: Cut) -> None:
    left = cut.at
    while left:
        data = server.recv(min(_PIECE, left))
        if not data:
            return
        client.sendall(data)
        left -= len(data)
        if cut.rate:
            time.sleep(len(data) / cut.rate)
    time.sleep(cut.hold)
