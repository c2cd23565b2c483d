# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""One file on a web server: requests, redirects, retries that resume (docs/behaviour.md, section 1).

A file is known by its size and by what the server says of its version. Every answer is held against
that, so that no two versions are ever mixed.
"""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import http.cookiejar
import netrc
import os
import random
import re
import socket
import ssl
import threading
import typing as t
import urllib.error
import urllib.request
from dataclasses import dataclass, field

from ansible.module_utils import urls

from .._errors import SourceChangedError, SourceError, os_phrase, show
from .clock import Allowance, Clock, StalledError
from .connection import send
from .credentials import credentials
from .url import Url

_MOST_REDIRECTS = 10
_REDIRECTS = (301, 302, 303, 307, 308)
# What may be better a moment later, and what may be wrong with a redirect that was followed a while ago.
_PASSING = (408, 425, 429, 500, 502, 503, 504)
_STALE = (401, 403, 404, 410)

# Seconds before the first retry, doubled for each one after it, and the most of them.
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 30.0
# Bytes after which a download counts as going on, so that its retries are given back.
_PROGRESS = 1024 * 1024
# What all requests for a file may take, in timeouts, beyond one series of retries and the slowest body that is allowed.
_ALLOWANCE = 100
# A part that is smaller than this, though more was asked for, is a fault.
_LEAST_PART = 64 * 1024
# Cookies that a server may set before they are forgotten.
_MOST_COOKIES = 64
# The most that a server may send of a file without saying its size.
_LONGEST = 2**40

# A date is a strong validator only where the file did not change just before (RFC 9110, section 8.8.2.2).
_DATE_IS_STRONG = 60
_CONTENT_RANGE = re.compile(r"bytes (\d{1,19})-(\d{1,19})/(\d{1,19}|\*)\Z")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e\x80-\xff]*\Z")
_OURS = ("accept-encoding", "if-range", "range", "content-length", "transfer-encoding")


@dataclass(frozen=True)
class HttpOptions:
    """Options for requests to a server.

    ``timeout`` is in seconds, see ``Clock``; ``retries`` is how often a request that failed is tried again.
    ``ca_path``, ``client_cert`` and ``client_key`` are paths of PEM files.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    force_basic_auth: bool = False
    client_cert: str | None = None
    client_key: str | None = None
    ca_path: str | None = None
    validate_certs: bool = True
    use_proxy: bool = True
    agent: str = "ansible-httpget"
    headers: t.Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: float = 30.0
    retries: int = 5

    def check(self) -> None:
        """Require that all options are valid. Raises ``SourceError``, which names the option."""
        for name, value in self.headers.items():
            if not _HEADER_NAME.match(name) or not _HEADER_VALUE.match(value):
                raise SourceError(
                    f"the option headers holds {show(name)}, whose name or value cannot stand in a request; correct it"
                )
            if name.lower() in _OURS:
                raise SourceError(f"the option headers holds {show(name)}, which the module sets itself; leave it out")
        if self.timeout <= 0 or self.retries < 0:
            raise SourceError("the options timeout and url_retries are more than 0, and 0 or more; correct them")
        if not _HEADER_VALUE.match(self.agent):
            raise SourceError("the option http_agent cannot stand in a request; correct it")
        for option in ("ca_path", "client_cert", "client_key"):
            path = getattr(self, option)
            if path is None:
                continue
            try:
                with open(path, "rb"):
                    pass
            except OSError as error:
                raise SourceError(
                    f"the option {option}: {show(path)} cannot be read: {os_phrase(error)}; check the path"
                ) from error


class PassingError(Exception):
    """A failure that a retry may cure; ``wait`` is how many seconds the server asks for."""

    def __init__(self, phrase: str, wait: float = 0.0) -> None:
        super().__init__(phrase)
        self.phrase = phrase
        self.wait = wait


class _RangeRefusedError(Exception):
    """The server answered 416: the file ends before the range begins, or it is empty."""


class NoRangesError(Exception):
    """The server does not serve ranges of this file; ``response`` is the whole, where it came at once."""

    def __init__(self, response: Response | None) -> None:
        super().__init__()
        self.response = response


class Response:
    """An answer whose body is read in order. Raises ``PassingError`` for whatever interrupts it."""

    def __init__(self, raw: http.client.HTTPResponse, clock: Clock) -> None:
        self.status = raw.status
        self.headers = raw.headers
        self._raw = raw
        self._clock = clock

    def read(self, count: int) -> bytes:
        """Return the bytes that have arrived, at most ``count``; empty at the end of the body."""
        clock = self._clock
        try:
            with clock.waiting():
                data = self._raw.read1(count)
            clock.receive(len(data))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise PassingError(_phrase(error, clock.timeout)) from error
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


class RemoteFile:
    """A file on a web server. ``size`` is ``None`` until it is known, ``ranges`` whether parts can be had."""

    def __init__(self, url: Url, options: HttpOptions) -> None:
        self.name = url.shown
        self.options = options
        self.size: int | None = None
        self.ranges = True
        self.encoding: str | None = None
        self.allowance = Allowance(_ALLOWANCE * options.timeout + options.retries * (options.timeout + _LONGEST_PAUSE))
        self._url = url
        self._located = url
        self._etag: str | None = None
        self._modified: str | None = None
        self._condition: str | None = None
        self._known = False
        self._whole: Response | None = None
        self._trusted: dict[tuple[bool, bool], ssl.SSLContext] = {}
        self._cookies = http.cookiejar.CookieJar()

    def first(self, count: int) -> bytes:
        """Return the first ``count`` bytes, fewer only at the end, and learn size and version.

        Empty if the server does not serve ranges: ``ranges`` is then false. Raises ``SourceError``.
        """
        with contextlib.closing(Download(self, 0, count)) as download:
            try:
                return download.read_all()
            except NoRangesError as error:
                self.ranges = False
                self._whole = error.response
                return b""

    def ask_whole(self) -> tuple[Response, int | None]:
        """Request the whole file; return it, and its length if the server tells.

        Raises ``PassingError``, ``SourceError``, ``SourceChangedError``.
        """
        response, self._whole = self._whole, None
        if response is None:
            response = self._open({})
        try:
            return response, self._check_whole(response)
        except BaseException:
            response.close()
            raise

    def ask_part(self, start: int, end: int) -> tuple[Response, int]:
        """Request the bytes from ``start`` on; return the answer and its end, at or before ``end``.

        Raises ``PassingError``, ``NoRangesError``, ``SourceError``, ``SourceChangedError``.
        """
        headers = {"Range": f"bytes={start}-{end - 1}"}
        if self._condition is not None:
            headers["If-Range"] = self._condition
        try:
            response = self._open(headers)
        except _RangeRefusedError:
            if self._known:
                raise self._changed("it is shorter") from None
            raise NoRangesError(None) from None
        if response.status == 200 and not self._known:
            raise NoRangesError(response)
        try:
            if response.status == 206:
                return response, self._check_part(response, start, end)
            if response.status != 200:
                raise self.problem(f"the server answered {response.status}", "check the URL")
            self._check_version(response, _length(response))
        except BaseException:
            response.close()
            raise
        response.close()
        # the same file, though not the part of it: a server that cannot judge the condition
        self._condition = None
        raise PassingError("it sent the whole file instead of a part")

    def _check_part(self, response: Response, start: int, end: int) -> int:
        said = response.headers.get("Content-Range", "")
        match = _CONTENT_RANGE.match(said.strip())
        encoded = _encoding(response) is not None
        if not self._known and (encoded or (match and match.group(3) == "*")):
            raise NoRangesError(None)
        if match is None or encoded:
            raise self._wrong_range(start, end, said)
        first, last = int(match.group(1)), int(match.group(2))
        total = self.size if match.group(3) == "*" else int(match.group(3))
        length = _length(response)
        if (
            first != start
            or not first <= last < end
            or (total is not None and last >= total)
            or (length is not None and length != last - first + 1)
        ):
            raise self._wrong_range(start, end, said)
        self._check_version(response, total)
        return last + 1

    def _check_whole(self, response: Response) -> int | None:
        if response.status != 200:
            raise self.problem(f"the server answered {response.status}", "check the URL")
        encoding = _encoding(response)
        if encoding not in (None, "gzip", "zstd"):
            raise self.problem(
                f"the server encodes it as {show(encoding or '')} although the file as it is was asked for",
                "switch that off on the server",
            )
        length = _length(response)
        self._check_version(response, length)
        self.encoding = encoding
        return length

    def _check_version(self, response: Response, size: int | None) -> None:
        """Remember the version, or compare it with the known one. Raises ``SourceChangedError``."""
        etag = response.headers.get("ETag")
        modified = response.headers.get("Last-Modified")
        if not self._known:
            self._known = True
            self.size = size
            self._etag, self._modified = etag, modified
            self._condition = _condition(etag, modified, response.headers.get("Date"))
            return
        if size is not None and self.size is not None and size != self.size:
            raise self._changed(f"it has {size} bytes and had {self.size}")
        if etag and self._etag and etag != self._etag:
            raise self._changed("its ETag is another one")
        if modified and self._modified and modified != self._modified:
            raise self._changed("its Last-Modified is another one")

    def _open(self, headers: dict[str, str]) -> Response:
        """Ask, and follow redirects. Raises ``PassingError`` and ``SourceError``."""
        clock = Clock(self.options.timeout, self.allowance)
        if len(self._cookies) > _MOST_COOKIES:
            self._cookies.clear()
        with clock.waiting():
            return self._follow(headers, clock)

    def _follow(self, headers: dict[str, str], clock: Clock) -> Response:
        url = self._located
        redirects = 0
        while True:
            answer = self._request(url, headers, clock)
            if isinstance(answer, Response):
                self._located = url
                return answer
            status = answer.code
            if status in _REDIRECTS:
                redirects += 1
                location = answer.headers.get("Location")
                if location is None or redirects > _MOST_REDIRECTS:
                    raise self.problem(
                        (
                            "it redirects to nowhere"
                            if location is None
                            else f"it redirects more than {_MOST_REDIRECTS} times"
                        ),
                        "give the archive's own URL",
                    )
                url = url.redirected(location)
            elif status in _STALE and url is self._located is not self._url:
                # where it was redirected to a while ago may have been for that while only
                url = self._located = self._url
            elif status == 416:
                raise _RangeRefusedError
            else:
                # another try may be sent to another mirror
                self._located = self._url
                raise self._refused(url, status, answer.headers)

    def _request(self, url: Url, headers: dict[str, str], clock: Clock) -> Response | t.Any:
        """Send one request; return the answer, or the closed ``HTTPError`` of an unsuccessful status."""
        home = url.origin == self._url.origin
        try:
            given, handlers = self._prepare(url, headers, home)
            trust = self._trust(url.origin[0] == "https", home)
            raw = send(url.text, given, clock, trust, handlers)
        except urllib.error.HTTPError as error:
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                error.close()
            return error
        except netrc.NetrcParseError as error:
            raise self.problem("the .netrc of the user who runs the module is damaged", "correct it") from error
        except ValueError as error:
            # for example the Location of a redirect
            raise self.problem("the server sent an invalid answer", "check the URL") from error
        except (OSError, http.client.HTTPException) as error:
            raise self._failure(url, error) from error
        return Response(raw, clock)

    def _prepare(
        self, url: Url, headers: dict[str, str], home: bool
    ) -> tuple[dict[str, str], list[urllib.request.BaseHandler]]:
        """Return a request's headers and urllib's handlers. Raises ``netrc.NetrcParseError``."""
        options = self.options
        handlers: list[urllib.request.BaseHandler] = [
            urllib.request.ProxyHandler(None if options.use_proxy else {}),
            urllib.request.HTTPCookieProcessor(self._cookies),
        ]
        given = {"User-Agent": options.agent}
        if home:
            # The user's headers and credentials are sent to the origin that they were given for, and no other.
            login, answering = credentials(
                url,
                options.username or self._url.username,
                options.password or self._url.password,
                options.force_basic_auth,
            )
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
        return PassingError(_phrase(reason, self.options.timeout))

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

    def _refused(self, url: Url, status: int, headers: t.Mapping[str, str]) -> SourceError | PassingError:
        """Return the error for an unsuccessful status."""
        said = f"the server answered {status} {http.client.responses.get(status, '')}".rstrip()
        if status in _PASSING:
            after = headers.get("Retry-After") or ""
            return PassingError(said, float(after) if after.isdecimal() else 0.0)
        if url is not self._url:
            said += f" for '{url.shown}', to which it redirects"
        advice = "check the URL"
        if status in (401, 403):
            advice = "check url_username, url_password and headers"
            if url.origin != self._url.origin:
                advice = "credentials are sent to the URL's own origin only, so give the URL that it redirects to"
        elif status == 407:
            advice = "give the proxy's user and password in the environment, or set use_proxy: false"
        return self.problem(said, advice)

    def _wrong_range(self, start: int, end: int, said: str) -> SourceError:
        return self.problem(
            f"the bytes {start}-{end - 1} were asked for, and the server answered with the Content-Range {show(said)}",
            "check the server, or at the proxy before it",
        )

    def _untrusted(self, url: Url, phrase: str) -> SourceError:
        return self.problem(
            f"the certificate of {show(url.origin[1])} is not trusted: {phrase}",
            "give the authority's certificate as ca_path",
        )

    def _changed(self, how: str) -> SourceChangedError:
        return SourceChangedError(
            f"'{self.name}' changed while it was read ({how}); run again when the file is whole, and see that all mirrors"
            " of it serve the same"
        )

    def problem(self, what: str, advice: str) -> SourceError:
        """Return an error that names the file."""
        return SourceError(f"src '{self.name}' cannot be fetched: {what}; {advice}")


class Download:
    """The bytes from ``start`` to ``end`` in order, resumed where they break off; the whole file without an end.

    One that is no longer wanted is told so by ``cancel``, from any thread.
    """

    def __init__(self, file: RemoteFile, start: int, end: int | None) -> None:
        self.position = start
        self._file = file
        self._end = end
        self._response: Response | None = None
        # where the answer at hand ends, which may be before the download does
        self._stop: int | None = None
        self._tries = 0
        self._since = 0
        self._cancelled = threading.Event()

    def read(self, count: int) -> bytes:
        """Return at most ``count`` bytes; empty at the end. Raises ``SourceError``, at first ``NoRangesError``."""
        while self._end is None or self.position < self._end:
            self._check_allowance()
            try:
                data = self._receive(count)
            except PassingError as error:
                self._pause(error)
                continue
            if not data and self._stop is None:
                self._end = self.position
                break
            self._count(len(data))
            if self.position == self._stop:
                self._finish_answer()
            if data:
                return data
        return b""

    def _check_allowance(self) -> None:
        allowance = self._file.allowance
        if allowance.is_spent:
            raise self._file.problem(
                f"its answers together took more than {allowance.seconds:g} seconds, and one for each KiB",
                "check the server and the network, or raise timeout",
            )

    def _receive(self, count: int) -> bytes:
        """Return at most ``count`` bytes of the current answer, empty at its end. Raises ``PassingError``."""
        if self._response is None:
            self._response = self._connect()
        if self._cancelled.is_set():
            raise PassingError("it was given up")
        stop = self._stop
        wanted = count if stop is None else min(count, stop - self.position)
        data = self._response.read(wanted) if wanted else b""
        if not data and stop is not None and self.position < stop:
            raise PassingError(f"it broke off {stop - self.position} bytes too early")
        return data

    def _count(self, received: int) -> None:
        self.position += received
        self._since += received
        if self._since >= _PROGRESS and self._file.ranges:
            self._tries = 0
        if self.position > _LONGEST:
            raise self._file.problem(f"it has more than {_LONGEST} bytes, a fixed limit", "check the URL")

    def read_all(self) -> bytes:
        """Return everything that remains. Raises ``SourceError``, ``NoRangesError``."""
        return b"".join(iter(lambda: self.read(_PROGRESS), b""))

    def cancel(self) -> None:
        """Wake and end a ``read`` in another thread."""
        self._cancelled.set()
        response = self._response
        if response is not None:
            response.hang_up()

    def close(self) -> None:
        """Close the connection."""
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def _connect(self) -> Response:
        if self._end is not None:
            response, self._stop = self._file.ask_part(self.position, self._end)
            if self._file.size is not None:
                self._end = min(self._end, self._file.size)
            return response
        response, self._stop = self._file.ask_whole()
        try:
            # where there are no ranges, what was read before is passed over
            passed = 0
            while passed < self.position:
                data = response.read(min(self.position - passed, _PROGRESS))
                if not data:
                    raise PassingError("it broke off earlier than before")
                passed += len(data)
        except BaseException:
            response.close()
            raise
        return response

    def _finish_answer(self) -> None:
        """Close an answer that was read to its end; the next part follows if it was shorter than requested."""
        self.close()
        if self._end is None:
            self._end = self.position
        elif self.position < self._end and self._since < _LEAST_PART:
            self._pause(PassingError(f"it sends parts of only {self._since} bytes"))
        self._since = 0

    def _pause(self, error: PassingError) -> None:
        """Wait before the next try, longer each time. Raises ``SourceError`` after the last one."""
        self.close()
        retries = self._file.options.retries
        if self._cancelled.is_set() or self._tries >= retries:
            raise self._file.problem(
                f"{error.phrase} ({self._tries + 1} tries)",
                "check the server and the network, or raise url_retries and timeout",
            ) from error
        pause = min(max(_FIRST_PAUSE * 2 ** min(self._tries, 10), error.wait), _LONGEST_PAUSE)
        self._tries += 1
        self._since = 0
        # a fleet must not come back all at once
        pause *= random.uniform(0.75, 1.25)
        self._file.allowance.spend(pause)
        self._cancelled.wait(pause)


def _length(response: Response) -> int | None:
    said = response.headers.get("Content-Length", "").strip()
    return int(said) if said.isdecimal() and len(said) < 20 else None


def _encoding(response: Response) -> str | None:
    said = response.headers.get("Content-Encoding", "").strip().lower()
    return {"": None, "identity": None, "x-gzip": "gzip"}.get(said, said)


def _condition(etag: str | None, modified: str | None, date: str | None) -> str | None:
    """Return the value for ``If-Range``: a strong ETag, or a date that is strong by now."""
    if etag is not None and etag.startswith('"'):
        return etag
    if modified is None or date is None:
        return None
    try:
        before = email.utils.parsedate_to_datetime(modified).timestamp()
        now = email.utils.parsedate_to_datetime(date).timestamp()
    except (TypeError, ValueError, IndexError, OverflowError):
        return None
    return modified if now - before >= _DATE_IS_STRONG else None


def _phrase(error: t.Any, timeout: float) -> str:
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
