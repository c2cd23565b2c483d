# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""One file on a web server: requests, redirects, retries that resume (docs/behaviour.md, section 1).

A file is known by its size and by what the server says of its version. Every answer is held against
that, so that no two versions are ever mixed.
"""

from __future__ import annotations

import contextlib
import email.utils

from .._errors import SourceChangedError, SourceError, show
from .exchange import Exchange, PassingError, RefusedError, Request, Response
from .options import HttpOptions
from .retries import Retries
from .url import Url

# Bytes after which a download counts as going on, so that its retries are given back.
_PROGRESS = 1024 * 1024
# A part that is smaller than this, though more was asked for, is a fault.
_LEAST_PART = 64 * 1024
# The most that a server may send of a file without saying its size.
_LONGEST = 2**40

# A date is a strong validator only where the file did not change just before (RFC 9110, section 8.8.2.2).
_DATE_IS_STRONG = 60


class _RangeRefusedError(Exception):
    """The server answered 416: the file ends before the range begins, or it is empty."""


class NoRangesError(Exception):
    """The server does not serve ranges of this file; ``response`` is the whole, where it came at once."""

    def __init__(self, response: Response | None) -> None:
        super().__init__()
        self.response = response


class RemoteFile:
    """A file on a web server. ``size`` is ``None`` until it is known, ``ranges`` whether parts can be had."""

    def __init__(self, url: Url, options: HttpOptions) -> None:
        self.name = url.shown
        self.options = options
        self.size: int | None = None
        self.ranges = True
        self.encoding: str | None = None
        self.exchange = Exchange(url, options, url.shown)
        self._url = url
        self._etag: str | None = None
        self._modified: str | None = None
        self._condition: str | None = None
        self._known = False
        self._whole: Response | None = None

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
            self._check_version(response, response.length)
        except BaseException:
            response.close()
            raise
        response.close()
        # the same file, though not the part of it: a server that cannot judge the condition
        self._condition = None
        raise PassingError("it sent the whole file instead of a part")

    def _check_part(self, response: Response, start: int, end: int) -> int:
        found = response.range
        encoded = response.encoding is not None
        if not self._known and (encoded or (found and found[2] is None)):
            raise NoRangesError(None)
        if found is None or encoded:
            raise self._wrong_range(response, start, end)
        first, last, total = found
        total = self.size if total is None else total
        length = response.length
        if (
            first != start
            or not first <= last < end
            or (total is not None and last >= total)
            or (length is not None and length != last - first + 1)
        ):
            raise self._wrong_range(response, start, end)
        self._check_version(response, total)
        return last + 1

    def _check_whole(self, response: Response) -> int | None:
        if response.status != 200:
            raise self.problem(f"the server answered {response.status}", "check the URL")
        encoding = response.encoding
        if encoding not in (None, "gzip", "zstd"):
            raise self.problem(
                f"the server encodes it as {show(encoding or '')} although the file as it is was asked for",
                "switch that off on the server",
            )
        length = response.length
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
        try:
            return self.exchange.open(Request(headers))
        except RefusedError as error:
            if error.status == 416:
                raise _RangeRefusedError from None
            raise self._refused(error) from error

    def _refused(self, error: RefusedError) -> SourceError:
        """Return the error for an unsuccessful status."""
        advice = "check the URL"
        if error.status in (401, 403):
            advice = "check url_username, url_password and headers"
            if error.url.origin != self._url.origin:
                advice = "credentials are sent to the URL's own origin only, so give the URL that it redirects to"
        elif error.status == 407:
            advice = "give the proxy's user and password in the environment, or set use_proxy: false"
        return self.problem(error.phrase, advice)

    def _wrong_range(self, response: Response, start: int, end: int) -> SourceError:
        said = response.headers.get("Content-Range", "")
        return self.problem(
            f"the bytes {start}-{end - 1} were asked for, and the server answered with the Content-Range {show(said)}",
            "check the server, or at the proxy before it",
        )

    def _changed(self, how: str) -> SourceChangedError:
        return SourceChangedError(
            f"'{self.name}' changed while it was read ({how}); run again when the file is whole, and see that all mirrors"
            " of it serve the same"
        )

    def problem(self, what: str, advice: str) -> SourceError:
        """Return an error that names the file."""
        return self.exchange.problem(what, advice)


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
        self._retries = Retries(file.exchange)
        self._since = 0

    def read(self, count: int) -> bytes:
        """Return at most ``count`` bytes; empty at the end. Raises ``SourceError``, at first ``NoRangesError``."""
        while self._end is None or self.position < self._end:
            self._file.exchange.check_allowance()
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

    def _receive(self, count: int) -> bytes:
        """Return at most ``count`` bytes of the current answer, empty at its end. Raises ``PassingError``."""
        if self._response is None:
            self._response = self._connect()
        if self._retries.is_cancelled:
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
            self._retries.reset()
        if self.position > _LONGEST:
            raise self._file.problem(f"it has more than {_LONGEST} bytes, a fixed limit", "check the URL")

    def read_all(self) -> bytes:
        """Return everything that remains. Raises ``SourceError``, ``NoRangesError``."""
        return b"".join(iter(lambda: self.read(_PROGRESS), b""))

    def cancel(self) -> None:
        """Wake and end a ``read`` in another thread."""
        self._retries.cancel()
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
            response.skip(self.position)
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
        self._retries.pause(error)
        self._since = 0


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
