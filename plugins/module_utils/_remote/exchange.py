# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One request with its redirects: who is trusted, who gets credentials, and what a failure means.

Bodies, parts of files and retries are not known here (docs/behaviour.md, section 1).
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import http.cookiejar
import netrc
import os
import re
import socket
import ssl
import time
import typing as t
import urllib.error
import urllib.request
from dataclasses import dataclass, field

from ansible.module_utils import urls

from .._errors import SourceError, os_phrase, show
from .clock import Allowance, Clock, StalledError
from .connection import send
from .credentials import credentials
from .options import HttpOptions
from .url import Url

_MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
# What may be better a moment later, and what may be wrong with a redirect that was followed a while ago.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_STALE = (401, 403, 404, 410)

# Seconds of one pause at most; a server that asks for a longer one is not waited for.
LONGEST_PAUSE = 60.0
# What all requests of an exchange may take, in timeouts, beyond one series of retries and the slowest body that is allowed.
_ALLOWANCE = 100
# Cookies that a server may set before they are forgotten.
_MOST_COOKIES = 64
# What is read of the body of a refusal, and at once of what is passed over, in bytes.
_REFUSAL = 16 * 1024
_PIECE = 256 * 1024
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")

Handlers = t.List[urllib.request.BaseHandler]


class PassingError(Exception):
    """A failure that a retry may cure; ``wait`` is how many seconds the server asks for."""

    def __init__(self, phrase: str, wait: float = 0.0) -> None:
        super().__init__(phrase)
        self.phrase = phrase
        self.wait = wait


class RefusedError(Exception):
    """An unsuccessful status that no retry cures, with its headers and the beginning of its body.

    ``url`` is where it came from, and ``redirected`` whether a redirect led there.
    """

    def __init__(self, url: Url, status: int, answer: t.Any, body: bytes, redirected: bool) -> None:
        super().__init__(status)
        self.url = url
        self.status = status
        self.headers = answer
        self.body = body
        self.redirected = redirected

    @property
    def phrase(self) -> str:
        """What the server answered, with its host where a redirect led there."""
        said = in_words(self.status)
        return f"{said} for '{self.url.shown}', to which it redirects" if self.redirected else said


def in_words(status: int) -> str:
    """Return a phrase for a status."""
    return f"the server answered {status} {http.client.responses.get(status, '')}".rstrip()


class Response:
    """An answer whose body is read in order. Raises ``PassingError`` for whatever interrupts it."""

    def __init__(self, raw: http.client.HTTPResponse, clock: Clock) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self._raw = raw
        self._clock = clock

    @property
    def length(self) -> int | None:
        """The length of the body in bytes, if the server says a plausible one."""
        said = (self.headers.get("Content-Length") or "").strip()
        return int(said) if said.isdecimal() and len(said) < 20 else None

    @property
    def encoding(self) -> str | None:
        """The encoding of the body, in lower case; ``None`` if it comes as it is."""
        said = (self.headers.get("Content-Encoding") or "").strip().lower()
        return {"": None, "identity": None, "x-gzip": "gzip"}.get(said, said)

    @property
    def range(self) -> tuple[int, int, int | None] | None:
        """The first and last byte that the body holds, and the size of the whole file, ``None`` for ``*``.

        ``None`` if the server does not say which bytes these are.
        """
        match = _CONTENT_RANGE.match((self.headers.get("Content-Range") or "").strip())
        if match is None:
            return None
        first, last, total = match.groups()
        return int(first), int(last), None if total == "*" else int(total)

    def skip(self, count: int) -> None:
        """Pass over bytes that were read before, since the server sends the whole file."""
        while count:
            data = self.read(min(count, _PIECE))
            if not data:
                raise PassingError("it broke off earlier than before")
            count -= len(data)

    def read(self, count: int) -> bytes:
        """Return the bytes that have arrived, at most ``count``; empty at the end of the body."""
        clock = self._clock
        try:
            with clock.waiting():
                data = self._raw.read1(count)
            clock.receive(len(data))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PassingError(phrase_of(error, clock.timeout)) from error
        return data

    def hang_up(self) -> None:
        """Wake whoever waits for this answer in another thread."""
        with contextlib.suppress(OSError, ValueError, AttributeError):
            connection = socket.socket(fileno=os.dup(self._raw.fileno()))
            with connection:
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the connection, even if the body was not read."""
        with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            self._raw.close()


class Login(t.Protocol):
    """What an origin wants to know about its client. It is asked for the origin of the exchange alone."""

    def authorize(self) -> bool:
        """Obtain what the next request needs, and return whether that took a request. Raises ``SourceError``."""

    def prepare(self, url: Url) -> tuple[dict[str, str], Handlers]:
        """Return headers, and urllib's handlers that answer challenges. Raises ``netrc.NetrcParseError``."""

    def renew(self, headers: t.Any) -> bool:
        """Answer a 401, and return whether a second request may succeed. Raises ``SourceError``."""


class UrlLogin:
    """The user and password of a URL, of the options, or of a .netrc."""

    def __init__(self, options: HttpOptions, url: Url) -> None:
        self._options = options
        self._username = options.username or url.username
        self._password = options.password or url.password

    def authorize(self) -> bool:
        """Return false: nothing has to be obtained."""
        return False

    def prepare(self, url: Url) -> tuple[dict[str, str], Handlers]:
        """Return headers, and urllib's handlers that answer challenges. Raises ``netrc.NetrcParseError``."""
        return credentials(url, self._username, self._password, self._options.force_basic_auth)

    def renew(self, headers: t.Any) -> bool:
        """Return false: urllib's handlers have answered what they could."""
        return False


@dataclass(frozen=True)
class Request:
    """What is asked for; ``data`` is the body of a POST. With ``stays``, redirects to other origins are errors."""

    headers: t.Mapping[str, str] = field(default_factory=dict, repr=False)
    method: str = "GET"
    data: bytes | None = field(default=None, repr=False)
    stays: bool = False


class Exchange:
    """All requests for one URL; where it redirects to is remembered, and asked for again when that stops working.

    ``name`` stands for it in messages, and ``advice`` says where to look. ``allowance`` bounds all requests together.
    """

    def __init__(
        self, url: Url, options: HttpOptions, name: str, login: Login | None = None, advice: str = "check the URL"
    ) -> None:
        self.options = options
        self.allowance = Allowance(_ALLOWANCE * options.timeout + options.retries * (options.timeout + LONGEST_PAUSE))
        self._url = url
        self._located = url
        self._name = name
        self._advice = advice
        self._login = login or UrlLogin(options, url)
        self._trusted: dict[tuple[bool, bool], ssl.SSLContext] = {}
        self._cookies = http.cookiejar.CookieJar()

    def open(self, request: Request) -> Response:
        """Ask, follow redirects and answer a challenge. Raises ``PassingError``, ``RefusedError``, ``SourceError``."""
        clock = Clock(self.options.timeout, self.allowance)
        if len(self._cookies) > _MOST_COOKIES:
            self._cookies.clear()
        fresh = self._located is self._url and self._login.authorize()
        while True:
            try:
                with clock.waiting():
                    return self._follow(request, clock)
            except RefusedError as error:
                # a challenge of another host is not for these credentials
                if error.status != 401 or error.redirected or fresh or not self._login.renew(error.headers):
                    raise
                fresh = True

    def problem(self, what: str, advice: str) -> SourceError:
        """Return an error that names the file."""
        return SourceError(f"src '{self._name}' cannot be fetched: {what}; {advice}")

    def check_allowance(self) -> None:
        """Raise ``SourceError`` once the answers have taken all the time that they may take together."""
        if self.allowance.is_spent:
            raise self.problem(
                f"its answers together took more than {self.allowance.seconds:g} seconds, and one for each KiB",
                "check the server and the network, or raise timeout",
            )

    def note_wait(self, error: PassingError) -> None:
        """Tell the user that the server wants to be left alone for a while."""
        host = self._located.origin[1]
        self.options.notes.add(
            f"{host}: {error.phrase}, so the run waited {error.wait:.0f} seconds as Retry-After says"
        )

    def _follow(self, request: Request, clock: Clock) -> Response:
        url = self._located
        redirects = 0
        while True:
            answer = self._send(url, request, clock)
            if isinstance(answer, Response):
                self._located = url
                return answer
            status = answer.code
            if status in _REDIRECTS:
                redirects += 1
                url = self._redirected(url, answer.headers.get("Location"), redirects, request)
            elif status in _STALE and url is self._located is not self._url:
                # where it was redirected to a while ago may have been for that while only
                url = self._located = self._url
            elif status in _PASSING:
                self._located = self._url
                raise self._passing(status, answer.headers)
            else:
                # another try may be sent to another mirror
                self._located = self._url
                raise RefusedError(url, status, answer.headers, answer.beginning, url is not self._url)

    def _redirected(self, url: Url, location: str | None, redirects: int, request: Request) -> Url:
        if location is None or redirects > _MOST_REDIRECTS:
            nowhere = "it redirects to nowhere"
            what = nowhere if location is None else f"it redirects more than {_MOST_REDIRECTS} times"
            raise self.problem(what, "give the archive's own URL" if location is not None else self._advice)
        target = url.redirected(location)
        if request.stays and target.origin != self._url.origin:
            raise self.problem(f"it redirects to {target.shown}, which gets no credentials", self._advice)
        return target

    def _send(self, url: Url, request: Request, clock: Clock) -> Response | t.Any:
        """Send one request; return the answer, or the closed ``HTTPError`` of an unsuccessful status."""
        home = url.origin == self._url.origin
        try:
            headers, handlers = self._prepare(url, request.headers, home)
            trust = self._trust(url.origin[0] == "https", home)
            sent = urllib.request.Request(url.text, request.data, dict(headers), method=request.method)
            raw = send(sent, clock, trust, handlers)
        except urllib.error.HTTPError as error:
            t.cast(t.Any, error).beginning = _beginning(error)
            return error
        except netrc.NetrcParseError as error:
            raise self.problem("the .netrc of the user who runs the module is damaged", "correct it") from error
        except ValueError as error:
            # for example the Location of a redirect
            raise self.problem("the server sent an invalid answer", self._advice) from error
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(url, error) from error
        return Response(raw, clock)

    def _prepare(self, url: Url, headers: t.Mapping[str, str], home: bool) -> tuple[dict[str, str], Handlers]:
        """Return a request's headers and urllib's handlers. Raises ``netrc.NetrcParseError``."""
        options = self.options
        handlers: Handlers = [
            urllib.request.ProxyHandler(None if options.use_proxy else {}),
            urllib.request.HTTPCookieProcessor(self._cookies),
        ]
        given = {"User-Agent": options.agent}
        if home:
            # The user's headers and credentials are sent to the origin that they were given for, and no other.
            login, answering = self._login.prepare(url)
            given.update({**options.headers, **headers, **login})
            handlers += answering
        else:
            given.update(headers)
        given["Accept-Encoding"] = "identity"
        return given, handlers

    def _failure(self, url: Url, error: OSError | http.client.HTTPException) -> SourceError | PassingError:
        """Return the error for a request that got no answer."""
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        if isinstance(reason, ssl.SSLCertVerificationError):
            return self._untrusted(url, reason.verify_message)
        if isinstance(reason, ssl.SSLError) and not isinstance(
            reason, (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError)
        ):
            return self.problem(
                f"no TLS connection can be made: {_ssl_phrase(reason)}",
                "check the URL, ca_path, client_cert and client_key",
            )
        self._located = self._url
        return PassingError(phrase_of(reason, self.options.timeout))

    def _trust(self, secure: bool, home: bool) -> ssl.SSLContext:
        """Say who is trusted. Authorities are loaded once: that takes longer than a request."""
        options = self.options
        kind = (secure, home)
        if kind not in self._trusted:
            self._trusted[kind] = (
                urls.make_context(
                    cafile=options.ca_path,
                    validate_certs=options.validate_certs,
                    client_cert=options.client_cert if home else None,
                    client_key=options.client_key if home else None,
                )
                if secure
                else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            )
        return self._trusted[kind]

    def _passing(self, status: int, headers: t.Any) -> SourceError | PassingError:
        said = in_words(status)
        after = headers.get("Retry-After") or ""
        wait = _seconds(after, headers.get("Date"))
        if wait > LONGEST_PAUSE:
            return self.problem(
                f"{said} and wants to be asked again after {wait:.0f} seconds (Retry-After: {show(after)}), more than the"
                f" {LONGEST_PAUSE:.0f} that are waited for",
                "run again later",
            )
        return PassingError(said, wait)

    def _untrusted(self, url: Url, phrase: str) -> SourceError:
        return self.problem(
            f"the certificate of {show(url.origin[1])} is not trusted: {phrase}",
            "give the authority's certificate as ca_path",
        )


def _beginning(error: urllib.error.HTTPError) -> bytes:
    """Return the first bytes of a refusal's body that are there within the time left, and close it."""
    data = b""
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        while len(data) < _REFUSAL and (piece := t.cast(t.Any, error.fp).read1(_REFUSAL - len(data))):
            data += piece
    with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
        error.close()
    return data


def _seconds(after: str, date: str | None) -> float:
    """Return the seconds of a Retry-After, which holds a number or a date; 0 when it says nothing of use."""
    after = after.strip()
    if after.isdecimal() and len(after) < 10:
        return float(after)
    try:
        until = email.utils.parsedate_to_datetime(after).timestamp()
        now = email.utils.parsedate_to_datetime(date).timestamp() if date else time.time()
    except (TypeError, ValueError, IndexError, OverflowError):
        return 0.0
    return max(0.0, until - now)


def phrase_of(error: t.Any, timeout: float) -> str:
    """Return the reason for a failed request, without any part of the URL."""
    if isinstance(error, StalledError):
        return str(error)
    if isinstance(error, socket.timeout):
        return f"no connection was made within {timeout:g} seconds"
    if isinstance(error, http.client.IncompleteRead):
        return "it broke off too early"
    if isinstance(error, socket.gaierror):
        return f"its host name cannot be resolved ({os_phrase(error)})"
    if isinstance(error, (http.client.RemoteDisconnected, ConnectionResetError)):
        return "it closed the connection"
    if isinstance(error, ssl.SSLError):
        return f"the TLS connection failed ({_ssl_phrase(error)})"
    if isinstance(error, OSError):
        return f"it cannot be reached or read ({os_phrase(error)})"
    return "it does not speak HTTP as it should"


def _ssl_phrase(error: ssl.SSLError) -> str:
    return (error.reason or error.strerror or "unknown").lower().replace("_", " ")
