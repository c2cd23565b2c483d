# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A web server on loopback that does what it should, or whatever fault a test asks for."""

from __future__ import annotations

import contextlib
import email.utils
import http.server
import re
import socket
import ssl
import struct
import threading
import time
import typing as t

_RANGE = re.compile(r"bytes=(\d+)-(\d*)\Z")
# How long a server that stalls waits for its test to end, in seconds.
_LONGEST_STALL = 20.0

Headers = t.Dict[str, str]


class Asked(t.NamedTuple):
    """One request: ``range`` as it was asked for, ``sent`` bytes of body."""

    path: str
    headers: Headers
    range: tuple[int, int] | None
    status: int
    sent: int


class Web:
    """One file and its server; ``data``, ``etag``, ``modified`` and the switches may change at any time.

    ``faults`` are used up, one by each request after the first ``healthy`` ones: see ``_Handler``. ``handle`` may
    answer a request in some other way; true then. ``asked`` lists the requests that were answered.
    """

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.etag: str | None = '"version-1"'
        self.modified: str | None = None
        self.ranges = True
        self.extra: Headers = {}
        self.encoding: t.Callable[[bytes], bytes] | None = None
        self.chunked = False
        self.faults: list[str] = []
        self.healthy = 0
        self.handle: t.Callable[[_Handler], bool] = lambda _handler: False
        self.asked: list[Asked] = []
        self.over = threading.Event()
        self.url = ""

    @property
    def sent(self) -> int:
        """Bytes of all bodies."""
        return sum(asked.sent for asked in self.asked)

    def fault(self) -> str:
        """What is to go wrong now."""
        if self.healthy:
            self.healthy -= 1
            return ""
        return self.faults.pop(0) if self.faults else ""


@contextlib.contextmanager
def serving(data: bytes, tls: ssl.SSLContext | None = None, name: str = "image.tar") -> t.Iterator[Web]:
    """A server of ``data``, for that long."""
    web = Web(data)
    server = _Server(("127.0.0.1", 0), web)
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "http" if tls is None else "https"
    web.url = f"{scheme}://127.0.0.1:{server.server_port}/{name}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield web
    finally:
        web.over.set()
        server.shutdown()
        server.server_close()
        thread.join()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address: tuple[str, int], web: Web) -> None:
        super().__init__(address, _Handler)
        self.web = web

    def handle_error(self, request: t.Any, client_address: t.Any) -> None:
        """Clients hang up, and that is no news."""


class _Handler(http.server.BaseHTTPRequestHandler):
    """Faults: ``reset``, ``reset-middle``, ``short``, ``stall``, ``drip``, ``whole``, ``no-range``, ``other-start``,
    ``other-total``, ``other-length``, ``beyond``, ``multipart``, ``part`` (a smaller one), or a status.
    """

    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_args: t.Any) -> None:
        """Quietly."""

    def do_GET(self) -> None:
        """The file, or what is to go wrong."""
        web = self.server.web
        self.close_connection = True
        if web.handle(self):
            return
        fault = web.fault()
        if fault == "reset":
            self._reset()
        elif fault.isdecimal():
            self.status(int(fault))
        else:
            self._file(web, fault)

    def status(self, status: int, body: bytes = b"", **headers: str) -> None:
        """An answer with little in it."""
        self._note(status, len(body))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _file(self, web: Web, fault: str) -> None:
        data = web.data
        match = _RANGE.match(self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        part = match is not None and web.ranges and fault != "whole"
        if condition is not None and condition not in (web.etag, web.modified):
            part = False
        headers = {"Date": email.utils.formatdate(usegmt=True), **web.extra}
        if web.etag is not None:
            headers["ETag"] = web.etag
        if web.modified is not None:
            headers["Last-Modified"] = web.modified
        body = data
        if part and match is not None:
            start = int(match.group(1))
            end = min(int(match.group(2) or len(data)) + 1, len(data))
            if start >= len(data):
                self.status(416, Content_Range=f"bytes */{len(data)}")
                return
            if fault == "part":
                end = min(end, start + 1000)
            body = data[start:end]
            said = [start, end - 1, len(data)]
            if fault == "other-start":
                said[0] += 1
            elif fault == "beyond":
                said[1] = len(data)
            elif fault == "other-total":
                said[2] += 1
            headers["Content-Range"] = "bytes {}-{}/{}".format(*said)
            if fault == "no-range":
                del headers["Content-Range"]
            elif fault == "multipart":
                del headers["Content-Range"]
                headers["Content-Type"] = "multipart/byteranges; boundary=x"
            elif fault == "unknown-total":
                headers["Content-Range"] = f"bytes {start}-{end - 1}/*"
        if web.encoding is not None:
            body = web.encoding(body)
        if web.chunked:
            headers["Transfer-Encoding"] = "chunked"
            sent = b"".join(
                b"%x\r\n%s\r\n" % (len(piece), piece)
                for piece in (body[: len(body) // 2], body[len(body) // 2 :])
                if piece
            )
            sent += b"0\r\n\r\n"
        else:
            length = len(body) - 1 if fault == "other-length" else len(body)
            headers["Content-Length"] = str(length)
            sent = body
        half = len(sent) // 2
        # noted before it goes out, so that a test which has all of it sees this too
        self._note(206 if part else 200, half if fault in _BREAKS else len(body))
        self.send_response(206 if part else 200)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if fault not in _BREAKS:
            self.wfile.write(sent)
            return
        self.wfile.write(sent[:half])
        self.wfile.flush()
        if fault == "reset-middle":
            self._reset()
        elif fault == "stall":
            web.over.wait(_LONGEST_STALL)
        elif fault == "drip":
            end_at = time.monotonic() + _LONGEST_STALL
            for byte in sent[half:]:
                if web.over.wait(0.1) or time.monotonic() > end_at:
                    return
                self.wfile.write(bytes([byte]))

    def _note(self, status: int, sent: int) -> None:
        match = _RANGE.match(self.headers.get("Range", ""))
        asked = None
        if match is not None:
            asked = (int(match.group(1)), int(match.group(2) or -1))
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.web.asked.append(Asked(self.path, headers, asked, status, sent))

    def _reset(self) -> None:
        """End the connection as a crash does."""
        linger = struct.pack("ii", 1, 0)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.connection.close()


_BREAKS = ("reset-middle", "short", "stall", "drip")


# What a hostile server does with a connection of its own; the event is set when its test is over.
Talk = t.Callable[[socket.socket, threading.Event], None]


@contextlib.contextmanager
def talking(talk: Talk) -> t.Iterator[int]:
    """A server that is no HTTP server: each connection gets a thread that talks. Gives its port."""
    over = threading.Event()
    threads: list[threading.Thread] = []

    def serve(connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            # one that does not read either is no reason to wait for long
            connection.settimeout(_LONGEST_STALL)
            talk(connection, over)

    def accept(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                connection, _address = listener.accept()
                thread = threading.Thread(target=serve, args=(connection,), daemon=True)
                thread.start()
                threads.append(thread)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=accept, args=(listener,), daemon=True)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            listener.shutdown(socket.SHUT_RDWR)
            for each in (thread, *threads):
                each.join()


def endless(first: bytes, again: bytes, pause: float = 0.0, ask: bool = True) -> Talk:
    """What comes once, and what comes again and again behind it, until the client hangs up.

    It waits for a request first, unless ``ask`` is false.
    """

    def talk(connection: socket.socket, over: threading.Event) -> None:
        asked = b""
        while ask and b"\r\n\r\n" not in asked:
            piece = connection.recv(65536)
            if not piece:
                return
            asked += piece
        connection.sendall(first)
        while not over.is_set():
            connection.sendall(again)
            if pause:
                over.wait(pause)

    return talk
