# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find the members of an image archive by reading its headers only (docs/behaviour.md, section 1).

Links are resolved among the archive's own members.
"""

from __future__ import annotations

import os
import posixpath
import typing as t

from .._errors import SourceError, show
from .source import clean
from .tar_header import (
    BLOCK,
    EXTENDED_LIMIT,
    EXTENDED_TYPES,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    PAX_HEADER,
    Header,
    HeaderError,
    parse_header,
    parse_pax,
    pax_number,
)

# An image has a few hundred blobs; a tar with more members is not an image.
_MOST_MEMBERS = 100_000
_MOST_LINKS = 40
_MOST_NAMES_SIZE = 32 * 1024 * 1024
# The most bytes of all extended headers of an archive, with their header blocks; most members have 1 KiB at most.
_MOST_EXTENDED_SIZE = 64 * 1024 * 1024

_FILES = (b"0", b"\0", b"7")
_HARD_LINK = b"1"
_SYMLINK = b"2"
_DIRECTORY = b"5"
# a name in which no component is empty or begins with a dot, as blobs have it


class Member(t.NamedTuple):
    """A member of the archive: ``offset`` and ``size`` of its data in bytes, and the target of a link."""

    type: bytes
    offset: int
    size: int
    link: str


class TarIndex:
    """Members by cleaned name. If a name occurs twice, the last one counts."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._members: dict[str, Member] = {}
        self._folders: set[str] = set()
        self._count = 0
        self._names_size = 0

    def add(self, name: bytes, member: Member) -> None:
        """Add a member. Raises ``SourceError`` beyond a fixed number of them."""
        cleaned = clean(os.fsdecode(name))
        self._count += 1
        # names are all that an archive costs in memory
        self._names_size += len(name) + len(member.link)
        if self._names_size > _MOST_NAMES_SIZE:
            raise SourceError(
                f"{show(self._archive)}: the names of its members hold more than {_MOST_NAMES_SIZE} bytes, a fixed limit;"
                " it is not an image archive"
            )
        if self._count > _MOST_MEMBERS:
            raise SourceError(
                f"{show(self._archive)} holds more than {_MOST_MEMBERS} members, a fixed limit; it is not an image archive"
            )
        if member.type == _DIRECTORY:
            self._members.pop(cleaned, None)
            if "/" not in cleaned:
                self._folders.add(cleaned)
        elif cleaned:
            self._members[cleaned] = member

    def has(self, name: str) -> bool:
        """Return whether a member that is not a directory has this name, a link to nothing too."""
        return name in self._members

    def names(self) -> list[str]:
        """Return the names of all members, of directories only those at the top, with a slash."""
        return [*self._members, *(f"{name}/" for name in self._folders)]

    def find(self, name: str) -> Member | None:
        """Return the regular file behind a name, or ``None`` if nothing has that name.

        Raises ``SourceError`` for a link that does not lead to a member, and for a device or FIFO.
        """
        asked = name
        for _link in range(_MOST_LINKS):
            member = self._members.get(name)
            if member is None:
                if name == asked:
                    return None
                raise SourceError(
                    f"{show(self._archive)}: {show(asked)} is a link to {show(name)}, which is not in the archive"
                )
            if member.type in _FILES:
                return member
            if member.type == _HARD_LINK:
                name = self._inside(asked, member.link)
            elif member.type == _SYMLINK:
                above = posixpath.dirname(name)
                name = self._inside(asked, posixpath.join(above, member.link))
            else:
                raise SourceError(
                    f"{show(self._archive)}: {show(asked)} is a device or FIFO, not a file; do not use this archive"
                )
        raise SourceError(f"{show(self._archive)}: {show(asked)} is part of a loop of links; do not use this archive")

    def _inside(self, asked: str, link: str) -> str:
        parts: list[str] = []
        for part in link.split("/"):
            if part == ".." and parts:
                parts.pop()
            elif part == ".." or (not part and not parts and link.startswith("/")):
                raise SourceError(
                    f"{show(self._archive)}: {show(asked)} is a link out of the archive, to {show(link)};"
                    " do not use this archive"
                )
            elif part not in ("", "."):
                parts.append(part)
        return "/".join(parts)


class TarStream(t.Protocol):
    """A tar that is read from its beginning. ``position`` counts the bytes that were read or skipped."""

    position: int

    def read(self, count: int) -> bytes:
        """Return ``count`` bytes, fewer only at the end. Raises ``SourceError``."""

    def skip(self, count: int) -> None:
        """Skip ``count`` bytes. Raises ``HeaderError`` at an early end."""


class TarWalk:
    """Walk through the members of an outer tar, and index them.

    Iterating yields each member with the stream at its data; what the caller does not read of it is skipped.
    Raises ``HeaderError``, and ``SourceError`` when a fixed limit is exceeded.
    """

    def __init__(self, stream: TarStream, archive: str) -> None:
        self.index = TarIndex(archive)
        self._stream = stream
        self._archive = archive
        self._header_position: int | None = None
        self._extended_size = 0
        self._pax: dict[bytes, bytes] = {}
        self._name: bytes | None = None
        self._link: bytes | None = None

    @property
    def position(self) -> int:
        """Return the byte at which the header begins that is being read, or else the stream's position."""
        if self._header_position is not None:
            return self._header_position
        return self._stream.position

    def __iter__(self) -> t.Iterator[Member]:
        stream = self._stream
        while True:
            header = self._next_header()
            if header is None:
                break
            if header.type in EXTENDED_TYPES:
                self._check_extended(header)
                content = stream.read(header.size)
                if len(content) < header.size:
                    raise HeaderError("it ends in the middle of an extended header")
                self._add_extended(header, content)
                stream.skip(-header.size % BLOCK)
                continue
            member = self._add_member(header, stream.position)
            end = member.offset + member.size + -member.size % BLOCK
            yield member
            stream.skip(end - stream.position)
        if self._pax or self._name is not None or self._link is not None:
            raise HeaderError("it ends after an extended header")

    def _next_header(self) -> Header | None:
        self._header_position = self._stream.position
        block = self._stream.read(BLOCK)
        if 0 < len(block) < BLOCK:
            raise HeaderError("it ends in the middle of a header")
        header = parse_header(block) if block else None
        self._header_position = None
        return header

    def _check_extended(self, header: Header) -> None:
        """Bound an extended header, and all of them together, before its content is read."""
        if header.size > EXTENDED_LIMIT:
            raise HeaderError(f"an extended header holds more than {EXTENDED_LIMIT} bytes, a fixed limit")
        self._extended_size += BLOCK + header.size
        if self._extended_size > _MOST_EXTENDED_SIZE:
            raise SourceError(
                f"{show(self._archive)}: its extended headers hold more than {_MOST_EXTENDED_SIZE} bytes, a fixed limit;"
                " it is not an image archive"
            )

    def _add_extended(self, header: Header, content: bytes) -> None:
        if header.type == PAX_HEADER:
            self._pax = dict(parse_pax(content))
        elif header.type == GNU_LONG_NAME:
            self._name = content.partition(b"\0")[0]
        elif header.type == GNU_LONG_LINK:
            self._link = content.partition(b"\0")[0]

    def _add_member(self, header: Header, offset: int) -> Member:
        pax = self._pax
        name = self._name or pax.get(b"path") or header.name
        link = self._link or pax.get(b"linkpath") or header.linkname
        kind = header.type
        size = header.size
        if pax.get(b"size"):
            size = pax_number(pax[b"size"], "size")
        if b"GNU.sparse.major" in pax or b"GNU.sparse.map" in pax or kind == b"S":
            raise HeaderError("a sparse member cannot be read in place")
        if kind not in _FILES:
            size = 0
        text = os.fsdecode(link) if link else ""
        member = Member(kind if kind != b"\0" else b"0", offset, size, text)
        self.index.add(name, member)
        self._pax = {}
        self._name = self._link = None
        return member


class _Seekable:
    """A tar that can be read at any offset; skipping costs nothing."""

    def __init__(self, read_at: t.Callable[[int, int], bytes], size: int) -> None:
        self.position = 0
        self._read_at = read_at
        self._size = size

    def read(self, count: int) -> bytes:
        """Return ``count`` bytes, fewer only at the end. Raises ``SourceError``."""
        count = min(count, self._size - self.position)
        data = self._read_at(self.position, count) if count else b""
        self.position += len(data)
        return data

    def skip(self, count: int) -> None:
        """Pass over ``count`` bytes. Raises ``HeaderError`` at an early end."""
        self.position += count
        if self.position > self._size:
            raise HeaderError("it ends in the middle of a member")


def index_tar(read_at: t.Callable[[int, int], bytes], size: int, archive: str) -> TarIndex:
    """Index an archive of ``size`` bytes. Raises ``SourceError``."""
    walk = TarWalk(_Seekable(read_at, size), archive)
    try:
        for _member in walk:
            pass
    except HeaderError as error:
        raise SourceError(
            f"{show(archive)} is a damaged tar near byte {walk.position}: {error}; fetch it again"
        ) from error
    return walk.index
