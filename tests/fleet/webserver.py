# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An ordinary web server for the tests of a fleet: byte ranges, ETag, and a log of what it served.

    webserver.py ADDRESS PORT FOLDER LOG [DIE_AFTER [AUTHORIZATION]]

``LOG`` gets a line of JSON for each answer: ``path``, ``status``, ``range``, the address of the ``client``, and the bytes of
its body that were ``sent``. With a ``DIE_AFTER`` above 0 the program dies, with all connections, as soon as it has sent that
many bytes of bodies. With ``AUTHORIZATION`` a request must have that value in the header of this name.
"""

from __future__ import annotations

import email.utils
import http.server
import json
import os
import re
import sys
import threading
import typing as t

_PIECE = 1 << 16


class Server(http.server.ThreadingHTTPServer):
    """Serves the regular files of one folder."""

    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], folder: str, log: str, die_after: int = 0, authorization: str = ""
    ) -> None:
        super().__init__(address, Handler)
        self.folder = folder
        self.die_after = die_after
        self.authorization = authorization
        self._log = log
        self._sent = 0
        self._lock = threading.Lock()

    def count(self, size: int) -> None:
        """So many bytes went out."""
        with self._lock:
            self._sent += size
            if self.die_after and self._sent >= self.die_after:
                os._exit(1)

    def note(self, **values: t.Any) -> None:
        """A line of the log."""
        with self._lock, open(self._log, "a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")


class Handler(http.server.BaseHTTPRequestHandler):
    """GET and HEAD, whole files or one range of them."""

    protocol_version = "HTTP/1.1"
    timeout = 60
    server: Server

    def do_GET(self) -> None:
        """With a body."""
        self._answer(True)

    def do_HEAD(self) -> None:
        """Without."""
        self._answer(False)

    def log_message(self, format: str, *args: t.Any) -> None:  # noqa: A002
        """Nothing on standard error: the log is in JSON."""

    def _answer(self, with_body: bool) -> None:
        wanted = self.server.authorization
        if wanted and self.headers.get("Authorization") != wanted:
            self._refuse()
            return
        name = self.path.split("?")[0].lstrip("/")
        path = os.path.join(self.server.folder, name)
        if not re.fullmatch(r"[\w.-]+", name) or not os.path.isfile(path):
            self.send_error(404)
            return
        with open(path, "rb") as file:
            status = os.fstat(file.fileno())
            tag = f'"{status.st_mtime_ns:x}-{status.st_size:x}"'
            asked = self.headers.get("Range")
            if self.headers.get("If-Range", tag) != tag:
                asked = None
            part = byte_range(asked, status.st_size)
            if part is None:
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{status.st_size}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            start, end = part
            self.send_response(206 if asked else 200)
            self.send_header("Content-Length", str(end - start))
            if asked:
                shown = f"bytes {start}-{end - 1}/{status.st_size}"
                self.send_header("Content-Range", shown)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("ETag", tag)
            self.send_header("Last-Modified", email.utils.formatdate(status.st_mtime, usegmt=True))
            self.end_headers()
            sent = self._send(file, start, end) if with_body else 0
        self._note(name, 206 if asked else 200, sent)

    def _refuse(self) -> None:
        """Ask for a user and a password."""
        self.send_response(401)
        self.send_header("WWW-Authenticate", 'Basic realm="images"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        self._note("", 401, 0)

    def _note(self, name: str, status: int, sent: int) -> None:
        asked = self.headers.get("Range")
        self.server.note(path=name, status=status, range=asked, sent=sent, client=self.client_address[0])

    def _send(self, file: t.BinaryIO, start: int, end: int) -> int:
        """The bytes that the client has taken; it may go away at any time."""
        file.seek(start)
        sent = 0
        while sent < end - start:
            piece = file.read(min(_PIECE, end - start - sent))
            try:
                self.wfile.write(piece)
            except OSError:
                self.close_connection = True
                break
            sent += len(piece)
            self.server.count(len(piece))
        return sent


def byte_range(asked: str | None, size: int) -> tuple[int, int] | None:
    """Start and end of what ``Range`` asks of a file; all of it without one, nothing if it cannot be satisfied."""
    if asked is None:
        return 0, size
    match = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.strip())
    if match is None or match.groups() == ("", ""):
        return None
    first, last = match.groups()
    if not first:
        return max(0, size - int(last)), size
    start, end = int(first), min(int(last) + 1 if last else size, size)
    return (start, end) if start < end else None


def main(arguments: t.Sequence[str]) -> None:
    """The command line."""
    address, port, folder, log, *rest = arguments
    limit = int(rest[0]) if rest else 0
    Server((address, int(port)), folder, log, limit, *rest[1:]).serve_forever()


if __name__ == "__main__":
    main(sys.argv[1:])
