# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar of a layer as a stream of entries and their data (docs/behaviour.md, section 3).

Python's ``tarfile`` is not used for layers: it ends silently at a bad checksum, keeps times as floats and xattrs
as text, and takes twice the time. ``TarWalk``, which indexes archives, would take 1.27 times the CPU time although it
does less (tests/bench/tar_walk.py, 92,000 files of 3 KB).
"""

from __future__ import annotations

import typing as t

from .._errors import LayerError
from .budget import Budget
from .entry import DIRECTORY, FILE, Entry
from .pax import PaxFields
from .sparse import SparseMap, check_map, old_gnu_map, pax_map
from .._report import Report
from .._source.tar_header import (
    BLOCK,
    EXTENDED_LIMIT,
    EXTENDED_TYPES,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    PAX_HEADER,
    ZERO_BLOCK,
    Header,
    HeaderError,
    parse_header,
    parse_pax,
)

_SPARSE = b"S"
# NUL marks a file in old archives, 7 a contiguous file
_KINDS = {bytes([flag]): bytes([flag]) for flag in b"0123456"}
_KINDS.update({b"\0": FILE, b"7": FILE, _SPARSE: FILE})
# the largest id: chown takes the one above as "leave it"
_LAST_ID = 2**32 - 2
_NANOSECONDS = 10**9
_NOTHING: dict[bytes, bytes] = {}


class _Extended:
    """The extended headers in front of one entry; ``held`` is their size in bytes, header blocks included."""

    __slots__ = ("name", "link", "pax", "held")

    def __init__(self) -> None:
        self.name: bytes | None = None
        self.link: bytes | None = None
        self.pax: PaxFields | None = None
        self.held = 0

    def names(self, header: Header) -> tuple[bytes, bytes]:
        """Return the entry's name and link target. GNU's long names win over pax records, as in Go's reader."""
        name = self.name
        link = self.link
        if self.pax is not None:
            name = self.pax.path if name is None else name
            link = self.pax.linkpath if link is None else link
        return (header.name if name is None else name, header.linkname if link is None else link)


def _raw_name(block: bytes | None) -> bytes:
    """Return the name field of a header that cannot be parsed, for a message."""
    return b"" if block is None else block[:100].partition(b"\0")[0]


class TarReader:
    """Iterate over the entries of one layer; ``data`` yields the content of the current entry.

    Data that the caller does not read is skipped. All bytes after the end of the tar are read too, so that the
    stream below can verify the layer. Raises ``LayerError``, which names the layer and the entry.
    """

    def __init__(self, chunks: t.Iterable[bytes], layer: str, report: Report, budget: Budget) -> None:
        self._chunks = iter(chunks)
        self._layer = layer
        self._report = report
        self._budget = budget
        self._chunk = b""
        self._position = 0
        self._unread = 0
        self._padding = 0
        self._entry_name: bytes | None = None

    def __iter__(self) -> t.Iterator[Entry]:
        try:
            while True:
                self._skip(self._unread + self._padding)
                self._unread = self._padding = 0
                entry = self._next_entry()
                if entry is None:
                    break
                yield entry
        except HeaderError as error:
            raise self._located(error) from error
        for _rest in self._chunks:
            pass

    def whole(self) -> bytes | None:
        """Return the content of the current entry if all of it lies in the current chunk."""
        end = self._position + self._unread
        if end > len(self._chunk):
            return None
        content = self._chunk[self._position : end]
        self._position = end
        self._unread = 0
        return content

    def data(self) -> t.Iterator[bytes | memoryview]:
        """Yield the content of the current entry in pieces, each valid until the next one is taken."""
        while self._unread:
            start = self._position
            available = len(self._chunk) - start
            if not available:
                try:
                    self._refill()
                except HeaderError as error:
                    raise self._located(error) from error
                continue
            take = min(available, self._unread)
            self._position = start + take
            self._unread -= take
            if take == len(self._chunk):
                yield self._chunk
            else:
                yield memoryview(self._chunk)[start : start + take]

    def _located(self, error: HeaderError) -> LayerError:
        return LayerError(str(error), self._layer, self._entry_name, "build the image again with a sound tar writer")

    def _next_entry(self) -> Entry | None:
        extended: _Extended | None = None
        while True:
            block = self._header_block()
            try:
                header = None if block is None else parse_header(block)
            except HeaderError:
                long_name = None if extended is None else extended.name
                self._entry_name = long_name or _raw_name(block)
                raise
            if block is None or header is None:
                if extended is not None:
                    raise HeaderError("the tar ends after an extended header")
                if block is not None:
                    self._expect_second_zero_block()
                return None
            if header.type not in EXTENDED_TYPES:
                return self._entry(block, header, extended)
            if extended is None:
                extended = _Extended()
            self._read_extended(header, extended)

    def _read_extended(self, header: Header, extended: _Extended) -> None:
        # errors name the extended header until the entry's own name is known
        self._entry_name = extended.name or header.name
        size = BLOCK + header.size
        extended.held += size
        if extended.held > EXTENDED_LIMIT:
            raise HeaderError(f"its extended headers hold more than {EXTENDED_LIMIT} bytes, a fixed limit")
        self._budget.add_extended(size, self._layer, self._entry_name)
        content = self._exactly(header.size)
        self._skip(-header.size % BLOCK)
        if header.type == PAX_HEADER:
            pax = self._parse_pax(content, header)
            extended.pax = pax
            self._entry_name = extended.name or pax.path or header.name
        elif header.type == GNU_LONG_NAME:
            self._entry_name = extended.name = content.partition(b"\0")[0]
        elif header.type == GNU_LONG_LINK:
            extended.link = content.partition(b"\0")[0]
        else:
            self._report.count("pax_global_headers")

    def _parse_pax(self, content: bytes, header: Header) -> PaxFields:
        try:
            records = parse_pax(content)
            self._budget.add_records(len(records), self._layer, self._entry_name)
            pax = PaxFields(records)
        except HeaderError:
            # the next header names the entry that these records belong to
            self._entry_name = _raw_name(self._header_block()) or header.name
            raise
        for kind in pax.left_out:
            self._report.count(kind)
        return pax

    def _entry(self, block: bytes, header: Header, extended: _Extended | None) -> Entry:
        name, mode, uid, gid, size, mtime, flag, link, major, minor = header
        mtime *= _NANOSECONDS
        xattrs = acls = _NOTHING
        if extended is not None:
            name, link = extended.names(header)
            pax = extended.pax
            if pax is not None:
                size = size if pax.size is None else pax.size
                uid = uid if pax.uid is None else pax.uid
                gid = gid if pax.gid is None else pax.gid
                mtime = mtime if pax.mtime is None else pax.mtime
                xattrs = pax.xattrs
                acls = pax.acls
        self._entry_name = name
        self._budget.add_entry(self._layer, name)
        if uid > _LAST_ID or gid > _LAST_ID:
            raise HeaderError(f"the owner {uid}:{gid} is beyond what a system can hold")
        kind = _KINDS.get(flag)
        if kind is None:
            raise HeaderError(f"entries of type {flag.decode('latin-1')!r} are not supported")
        if flag == b"\0" and name.endswith(b"/"):
            kind = DIRECTORY
        sparse = None
        if kind == FILE:
            self._unread = size
            self._padding = -size % BLOCK
            if flag == _SPARSE or extended is not None:
                sparse = self._sparse_map(block, header, extended)
        device = (major, minor)
        fields = (name, kind, mode, uid, gid, mtime, size, link, device, xattrs, acls, None)  # fmt: skip
        # Entry(...) would take twice the time, for every entry
        entry = tuple.__new__(Entry, fields)
        return entry if sparse is None else self._sparse_entry(entry, sparse)

    def _sparse_entry(self, entry: Entry, sparse: SparseMap) -> Entry:
        self._unread -= sparse.map_bytes
        check_map(sparse.regions, sparse.size, self._unread)
        # holes take no bytes of the stream, but count towards max_size with the file's apparent size
        self._budget.add_hole(sparse.size - self._unread, self._layer, entry.name)
        return entry._replace(name=sparse.name or entry.name, size=sparse.size, regions=sparse.regions)

    def _sparse_map(self, block: bytes, header: Header, extended: _Extended | None) -> SparseMap | None:
        if header.type == _SPARSE:
            return old_gnu_map(block, self._block)
        pax = None if extended is None else extended.pax
        if pax is None or not pax.sparse:
            return None
        return pax_map(pax.sparse, self._block)

    # The readers below share the chunk and the position in it. Every entry pays for them.

    def _header_block(self) -> bytes | None:
        """Return the next block, or None at the end of the stream."""
        start = self._position
        end = start + BLOCK
        if end <= len(self._chunk):
            self._position = end
            return self._chunk[start:end]
        if start == len(self._chunk):
            chunk = next(self._chunks, None)
            while chunk is not None and not chunk:
                chunk = next(self._chunks, None)
            if chunk is None:
                return None
            self._chunk = chunk
            self._position = 0
        return self._exactly(BLOCK)

    def _block(self) -> bytes:
        return self._exactly(BLOCK)

    def _exactly(self, count: int) -> bytes:
        start = self._position
        end = start + count
        if end <= len(self._chunk):
            self._position = end
            return self._chunk[start:end]
        parts = [self._chunk[start:]]
        missing = count - len(parts[0])
        self._position = len(self._chunk)
        while missing:
            self._refill()
            part = self._chunk[:missing]
            self._position = len(part)
            missing -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _skip(self, count: int) -> None:
        while count:
            available = len(self._chunk) - self._position
            if available >= count:
                self._position += count
                return
            count -= available
            self._refill()

    def _refill(self) -> None:
        chunk = next(self._chunks, None)
        if chunk is None:
            self._position = len(self._chunk)
            raise HeaderError("the tar ends in the middle of an entry")
        self._chunk = chunk
        self._position = 0

    def _expect_second_zero_block(self) -> None:
        block = self._header_block()
        if block is not None and block != ZERO_BLOCK:
            raise HeaderError("a single zero block between two entries")
