# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One request, over connections that ask the clock before they wait for the server (docs/behaviour.md, section 1).

The standard library's timeout starts anew with every byte. So it reads here through a reader that has only as
many seconds as the clock still gives, whatever it is that is read: interim answers, headers, a body, trailers,
or the answer of a proxy.
"""

from __future__ import annotations

import functools
import http.client
import io
import socket
import typing as t
import urllib.request

if t.TYPE_CHECKING:
    import ssl

    from .clock import Clock


def send(
    request: urllib.request.Request,
    clock: Clock,
    context: ssl.SSLContext,
    handlers: t.Iterable[urllib.request.BaseHandler],
) -> t.Any:
    """Send a request and return its ``HTTPResponse``, of which the headers have been read.

    ``handlers`` are urllib's, for proxies and credentials. Redirects are not followed. Raises what urllib raises:
    ``HTTPError`` for an unsuccessful status, ``OSError``, ``HTTPException`` and ``ValueError``.
    """
    opener = urllib.request.OpenerDirector()
    for handler in (
        _PlainHandler(clock),
        _SecureHandler(clock, context),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        *handlers,
    ):
        opener.add_handler(handler)
    return opener.open(request, timeout=clock.timeout)


class _Reader(io.RawIOBase):
    """All that a server sends, each time within the seconds that are left."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, clock: Clock) -> None:
        super().__init__()
        # it counts among the socket's users: the socket is closed with the last one
        self._raw = raw
        self._sock = sock
        self._clock = clock

    def readable(self) -> bool:
        """Return true, as ``io.BufferedReader`` wants it."""
        return True

    def readinto(self, buffer: t.Any) -> int:
        """Read the bytes that have arrived. Raises ``StalledError`` and ``OSError``."""
        self._sock.settimeout(self._clock.left())
        try:
            count = self._sock.recv_into(buffer)
        except socket.timeout as error:
            raise self._clock.stalled() from error
        self._clock.hear(count)
        return count

    def fileno(self) -> int:
        """Return the socket's descriptor."""
        return self._raw.fileno()

    def close(self) -> None:
        """Close the socket."""
        super().close()
        self._raw.close()


class _Response(http.client.HTTPResponse):
    """The standard library's, reading through ``_Reader``."""

    def __init__(self, sock: socket.socket, *rest: t.Any, clock: Clock, **options: t.Any) -> None:
        super().__init__(sock, *rest, **options)
        raw = self.fp.detach()
        self.fp = io.BufferedReader(_Reader(raw, sock, clock))


class _Timed(http.client.HTTPConnection):
    """A connection that waits by the clock."""

    _clock: Clock

    def bound_by(self, clock: Clock) -> None:
        """Set the clock, before the connection is made."""
        self._clock = clock
        self.response_class: t.Any = functools.partial(_Response, clock=clock)
        # the standard library's own hook, in all releases
        self._create_connection = functools.partial(_connect, clock)

    def connect(self) -> None:
        """Connect to the server, or through its proxy; a TLS handshake has the seconds that are left then."""
        super().connect()
        t.cast(socket.socket, self.sock).settimeout(self._clock.left())


class _Secure(http.client.HTTPSConnection, _Timed):
    """The same over TLS, which begins when ``_Timed`` has connected."""


def _bounded(kind: type[_Timed], clock: Clock, *names: t.Any, **options: t.Any) -> _Timed:
    connection = kind(*names, **options)
    connection.bound_by(clock)
    return connection


class _PlainHandler(urllib.request.HTTPHandler):
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def http_open(self, req: urllib.request.Request) -> t.Any:
        """Connect and send the request."""
        connection = functools.partial(_bounded, _Timed, self._clock)
        return self.do_open(t.cast(t.Any, connection), req)


class _SecureHandler(urllib.request.HTTPSHandler):
    def __init__(self, clock: Clock, context: ssl.SSLContext) -> None:
        super().__init__(context=context)
        self._clock = clock
        self._trust = context

    def https_open(self, req: urllib.request.Request) -> t.Any:
        """Connect and send the request."""
        connection = functools.partial(_bounded, _Secure, self._clock)
        return self.do_open(t.cast(t.Any, connection), req, context=self._trust)


def _connect(clock: Clock, address: tuple[str, int], *_rest: t.Any) -> socket.socket:
    """Connect to a host by the first of its addresses that answers; they share what is left of the time."""
    failure: OSError = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    found = socket.getaddrinfo(*address, type=socket.SOCK_STREAM)
    for index, (family, kind, protocol, _name, target) in enumerate(found):
        connection = socket.socket(family, kind, protocol)
        try:
            connection.settimeout(clock.left() / (len(found) - index))
            connection.connect(target)
            return connection
        except OSError as error:
            failure = error
            connection.close()
    raise failure
