# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""A blob of a repository, read in order and resumed where it breaks off (distribution-spec, pulling blobs).

Its digest says what it holds, so that any server may go on where another one stopped. It is the reader's to verify.
"""

from __future__ import annotations

import contextlib
import typing as t

from .._errors import SourceChangedError, SourceError, show
from .._remote.exchange import PassingError, RefusedError, Request, Response
from .._remote.retries import Retries
from .endpoint import Endpoint

_ACCEPT = {"Accept": "application/octet-stream, */*"}
# Bytes after which a transfer counts as going on, so that its retries are given back.
_PROGRESS = 1024 * 1024
_PIECE = 256 * 1024


class RemoteBlob:
    """A blob of ``size`` bytes: mirrors are asked first, and the registry for what they lack or break off."""

    def __init__(
        self, endpoints: t.Sequence[Endpoint], digest: str, size: int, drop: t.Callable[[Endpoint], None]
    ) -> None:
        self.name = f"blob {digest}"
        self.size = size
        self._endpoints = list(endpoints)
        self._path = f"blobs/{digest}"
        self._drop = drop
        self._position = 0
        self._since = 0
        self._response: Response | None = None
        self._select()

    @property
    def endpoint(self) -> Endpoint:
        """The server that is asked now."""
        return self._endpoints[0]

    def read_at(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``, fewer only at the end. Raises ``SourceError``."""
        if offset != self._position:
            self._hang_up()
            self._position = offset
        count = min(count, self.size - offset)
        parts = []
        while count > 0:
            data = self._read(count)
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def advise(self, in_order: bool) -> None:
        """Do nothing: a blob is read in order."""

    def cancel(self) -> None:
        """Wake and end a ``read_at`` in another thread."""
        self._retries.cancel()
        response = self._response
        if response is not None:
            response.hang_up()

    def close(self) -> None:
        """Close the connection."""
        self._hang_up()

    def _select(self) -> None:
        """Begin with the next server, which knows nothing of the faults of the one before."""
        self._ranges = True
        self._exchange = self.endpoint.exchange(self._path)
        self._retries = Retries(self._exchange)

    def _read(self, count: int) -> bytes:
        while True:
            try:
                self._exchange.check_allowance()
                data = self._receive(count)
                break
            except PassingError as error:
                self._hang_up()
                if not self._leave_mirror(error.phrase):
                    self._retries.pause(error)
            except SourceError as error:
                self._hang_up()
                if not self._leave_mirror(error.message):
                    raise
        self._position += len(data)
        self._since += len(data)
        if self._since >= _PROGRESS:
            self._since = 0
            self._retries.reset()
        return data

    def _leave_mirror(self, why: str) -> bool:
        """Go on with the next server, and return whether there is one."""
        if len(self._endpoints) == 1 or self._retries.is_cancelled:
            return False
        left = self._endpoints.pop(0)
        left.session.options.notes.add(f"the mirror {show(left.name)} does not serve {self.name}: {why}")
        self._drop(left)
        self._select()
        return True

    def _receive(self, count: int) -> bytes:
        """Return at most ``count`` bytes. Raises ``PassingError`` and ``SourceError``."""
        if self._response is None:
            self._response = self._connect()
        if self._retries.is_cancelled:
            raise PassingError("it was given up")
        data = self._response.read(min(count, _PIECE))
        if not data:
            raise PassingError(f"it broke off {self.size - self._position} bytes too early")
        if self._position + len(data) == self.size:
            self._finish()
        return data

    def _finish(self) -> None:
        """Close an answer that was read to the blob's end. Raises ``SourceChangedError`` if it goes on."""
        response = t.cast(Response, self._response)
        more = b"" if response.length is not None else response.read(1)
        self._hang_up()
        if more:
            raise self._changed("it sends more bytes than that")

    def _connect(self) -> Response:
        """Return an answer that stands at the position. Raises ``PassingError`` and ``SourceError``."""
        start = self._position
        headers = dict(_ACCEPT)
        if start and self._ranges:
            headers["Range"] = f"bytes={start}-"
        try:
            response = self._exchange.open(Request(headers))
        except RefusedError as error:
            if error.status == 416 and "Range" in headers:
                raise self._changed("it ends earlier") from error
            raise self.endpoint.refused(error, f"the {self.name}") from error
        try:
            self._check(response, start if "Range" in headers else 0)
            if response.status == 200:
                response.skip(start)
        except BaseException:
            response.close()
            raise
        return response

    def _check(self, response: Response, start: int) -> None:
        if response.encoding is not None:
            raise self._exchange.problem("the server encodes it although it was asked for as it is", "switch that off")
        if response.status == 206 and start:
            if response.range != (start, self.size - 1, self.size):
                # whatever it has sent is not what was asked for, so ranges of this server are not to be relied on
                self._ranges = False
                raise PassingError("it answered with another range of bytes")
            wanted = self.size - start
        elif response.status == 200:
            wanted = self.size
        else:
            raise self._exchange.problem(f"the server answered {response.status}", "check the registry")
        if response.length not in (None, wanted):
            raise self._changed(f"it sends {response.length} bytes instead of {wanted}")

    def _changed(self, how: str) -> SourceChangedError:
        return SourceChangedError(
            f"{self.endpoint.name} does not serve the {self.name} of {self.size} bytes that its manifest names: {how};"
            " push the image again"
        )

    def _hang_up(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()


def read_blob(blob: RemoteBlob) -> bytes:
    """Return all of a small blob. Raises ``SourceError``."""
    with contextlib.closing(blob):
        return blob.read_at(0, blob.size)
