# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An archive on a web server, read in place by ranges, or as a stream (docs/behaviour.md, section 1).

The archive is indexed through small windows, which grow while small members follow each other. They are kept, because
they contain the documents. A blob is one request, read to its end.
"""

from __future__ import annotations

import contextlib
import itertools
import typing as t
from collections import OrderedDict

from .archive import Archive, require_tar
from .compressed import StreamedArchive, inflated
from .._remote.http import Download, RemoteFile
from .._remote.options import HttpOptions
from .magic import detect
from .range_reader import CHUNK, RangeReader
from .tar_header import BLOCK
from .._remote.url import parse_url

if t.TYPE_CHECKING:
    from .source import Source
    from .tar_index import Member

_FIRST_WINDOW = 8 * 1024
# After a jump over a blob: a header, and perhaps a document.
_WINDOW = 2 * 1024
_LARGEST_WINDOW = 64 * 1024
# A gap up to this size is read too: another request would cost more.
_NEAR = 8 * 1024
# The most bytes of all windows in memory.
_KEPT = 8 * 1024 * 1024


def open_remote(src: str, options: HttpOptions, max_size: int) -> Source:
    """Open the archive at a URL; its content decides which form it has. Raises ``SourceError``."""
    file = RemoteFile(parse_url(src), options)
    head = file.first(_FIRST_WINDOW)
    if not file.ranges or detect(head) is not None:
        return RemoteStream(file, max_size)
    require_tar(file.name, head)
    return RemoteArchive(file, RemoteAccess(file, head))


class RemoteArchive(Archive):
    """A plain tar on a server that serves ranges."""

    def __init__(self, file: RemoteFile, access: RemoteAccess) -> None:
        self._remote = access
        super().__init__(file.name, access)

    def _reader(self, member: Member) -> RangeReader:
        stream = self._remote.stream(member.offset, member.size)
        return RangeReader(stream, 0, member.size, owned=True)


class RemoteStream(StreamedArchive):
    """A compressed tar, or any tar on a server without ranges."""

    def __init__(self, file: RemoteFile, max_size: int) -> None:
        self._file = file
        if file.ranges:
            form, why = "compressed archive", "is compressed as a whole"
        else:
            form, why = "stream", "comes from a server that does not serve ranges of bytes"
        super().__init__(file.name, form, why, max_size)

    def _chunks(self) -> t.Iterator[bytes]:
        file = self._file
        with contextlib.closing(Download(file, 0, file.size if file.ranges else None)) as download:
            chunks = iter(lambda: download.read(CHUNK), b"")
            head, chunks = _peeked(chunks)
            if file.encoding is not None:
                # the server's own compression, around that of the file
                head, chunks = _peeked(inflated(chunks, file.encoding, file.name))
            kind = detect(head)
            if kind is None:
                require_tar(file.name, head)
                yield from chunks
            else:
                yield from inflated(chunks, kind, file.name)


def _peeked(chunks: t.Iterator[bytes]) -> tuple[bytes, t.Iterator[bytes]]:
    """Return the first block, shorter only at the end, and an iterator over all chunks."""
    parts: list[bytes] = []
    size = 0
    while size < BLOCK:
        part = next(chunks, b"")
        if not part:
            break
        parts.append(part)
        size += len(part)
    head = b"".join(parts)
    return head[:BLOCK], itertools.chain((head,), chunks)


class RemoteAccess:
    """A remote file, read through windows: bytes near those already read cost no further request."""

    def __init__(self, file: RemoteFile, head: bytes) -> None:
        self.name = file.name
        self.size = file.size or 0
        self._file = file
        self._windows: OrderedDict[int, bytes] = OrderedDict({0: head})
        self._kept = len(head)
        self._end = len(head)
        self._step = len(head)

    def read_at(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset``, fewer only at the end. Raises ``SourceError``."""
        count = max(0, min(count, self.size - offset))
        found = self._held(offset, count)
        if len(found) < count:
            offset += len(found)
            count -= len(found)
            start, length = self._plan(offset, count)
            with contextlib.closing(Download(self._file, start, start + length)) as download:
                data = download.read_all()
            self._keep(start, data)
            found += data[offset - start : offset - start + count]
        return found

    def stream(self, offset: int, size: int) -> RemoteRange:
        """Return the bytes of a member, to be read once and in order."""
        return RemoteRange(self._file, offset, size, self._held(offset, size))

    def advise(self, in_order: bool) -> None:
        """Do nothing: windows grow with the reads."""

    def cancel(self) -> None:
        """Do nothing: no other thread reads windows."""

    def close(self) -> None:
        """Do nothing: nothing is open between requests."""

    def _plan(self, offset: int, count: int) -> tuple[int, int]:
        """Return the offset and length of the next window."""
        if self._end <= offset <= self._end + _NEAR:
            start = self._end
            self._step = min(2 * self._step, _LARGEST_WINDOW)
        else:
            start = offset
            self._step = _WINDOW
        stop = max(start + self._step, offset + count)
        return start, min(stop, self.size) - start

    def _held(self, offset: int, count: int) -> bytes:
        """Return the bytes from ``offset`` that the windows hold, read across adjacent windows."""
        parts = []
        while count:
            # the newest first: nearly always it is the right one
            for start, data in reversed(self._windows.items()):
                if start <= offset < start + len(data):
                    part = data[offset - start : offset - start + count]
                    break
            else:
                break
            parts.append(part)
            offset += len(part)
            count -= len(part)
        return b"".join(parts)

    def _keep(self, start: int, data: bytes) -> None:
        self._windows[start] = data
        self._end = start + len(data)
        self._kept += len(data)
        while self._kept > _KEPT and len(self._windows) > 1:
            _start, dropped = self._windows.popitem(last=False)
            self._kept -= len(dropped)


class RemoteRange:
    """A part of a remote file, read in order by one request; ``prefix`` is its beginning, if already known."""

    def __init__(self, file: RemoteFile, offset: int, size: int, prefix: bytes) -> None:
        self.name = file.name
        self.size = size
        self._file = file
        self._offset = offset
        self._prefix = prefix
        self._transfer: Download | None = None

    def read_at(self, offset: int, count: int) -> bytes:
        """Return ``count`` bytes from ``offset`` of the part, fewer only at its end. Raises ``SourceError``."""
        parts = [self._prefix[offset : offset + count]]
        offset += len(parts[0])
        count -= len(parts[0])
        if not count:
            return parts[0]
        download = self._at(self._offset + offset)
        while count:
            part = download.read(count)
            if not part:
                break
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def advise(self, in_order: bool) -> None:
        """Do nothing: a part is always read in order."""

    def cancel(self) -> None:
        """Wake and end a ``read_at`` in another thread."""
        if self._transfer is not None:
            self._transfer.cancel()

    def close(self) -> None:
        """Close the connection."""
        if self._transfer is not None:
            self._transfer.close()

    def _at(self, position: int) -> Download:
        download = self._transfer
        if download is None or download.position != position:
            self.close()
            end = self._offset + self.size
            download = self._transfer = Download(self._file, position, end)
        return download
