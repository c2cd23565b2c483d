# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Where the members of an outer tar lie: headers are read, data is only seeked over.

Links are resolved among the archive's own members (docs/behaviour.md, section 1).
"""

from __future__ import annotations

import os
import posixpath
import re
import typing as t

from .._errors import SourceError, show
from .tar_header import (
    BLOCK,
    EXTENDED_LIMIT,
    GNU_LONG_LINK,
    GNU_LONG_NAME,
    PAX_GLOBAL,
    PAX_HEADER,
    Header,
    HeaderError,
    parse_header,
    parse_pax,
    pax_number,
)

# An image has a few hundred blobs; a tar with more members than this is none.
_MOST_MEMBERS = 100_000
_MOST_LINKS = 40
_MOST_NAMES_SIZE = 32 * 1024 * 1024
# What all extended headers of an archive may hold, each with its own block: a member has one of 1 KiB at most, usually.
_MOST_EXTENDED_SIZE = 64 * 1024 * 1024

_FILES = (b"0", b"\0", b"7")
_HARD_LINK = b"1"
_SYMLINK = b"2"
_DIRECTORY = b"5"
# a name in which no component is empty or begins with a dot, as blobs have it
_CLEAN = re.compile(r"(?:[^/.][^/]*/)*[^/.][^/]*\Z")


class Member(t.NamedTuple):
    """A member of the archive: ``offset`` and ``size`` of its data in bytes, and what a link says."""

    type: bytes
    offset: int
    size: int
    link: str


class TarIndex:
    """Members by cleaned name; where a name comes twice, the last one counts."""

    def __init__(self, archive: str) -> None:
        self._archive = archive
        self._members: dict[str, Member] = {}
        self._count = 0
        self._names_size = 0

    def add(self, name: bytes, member: Member) -> None:
        """Note a member. Raises ``SourceError`` beyond a fixed number of them."""
        cleaned = clean(os.fsdecode(name))
        self._count += 1
        # names are all that is kept of an archive
        self._names_size += len(name) + len(member.link)
        if self._names_size > _MOST_NAMES_SIZE:
            raise SourceError(
                f"{show(self._archive)}: the names of its members hold more than {_MOST_NAMES_SIZE} bytes, a fixed limit;"
                " it is no image archive"
            )
        if self._count > _MOST_MEMBERS:
            raise SourceError(
                f"{show(self._archive)} holds more than {_MOST_MEMBERS} members, a fixed limit; it is no image archive"
            )
        if member.type == _DIRECTORY:
            self._members.pop(cleaned, None)
        elif cleaned:
            self._members[cleaned] = member

    def names(self) -> list[str]:
        """The names of all members but directories."""
        return list(self._members)

    def find(self, name: str) -> Member | None:
        """The regular file behind a name, ``None`` where there is none of that name.

        Raises ``SourceError`` for a link that does not lead to a member, and for a device or FIFO.
        """
        asked = name
        for _link in range(_MOST_LINKS):
            member = self._members.get(name)
            if member is None:
                if name == asked:
                    return None
                raise SourceError(
                    f"{show(self._archive)}: {show(asked)} is a link to {show(name)}, which is no member of the archive"
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
        raise SourceError(
            f"{show(self._archive)}: {show(asked)} is part of a loop of links; do not use this archive"
        )

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


class Indexer:
    """Takes the headers of an outer tar one by one, extended headers included."""

    def __init__(self, archive: str) -> None:
        self._index = TarIndex(archive)
        self._archive = archive
        self._extended_size = 0
        self._pax: dict[bytes, bytes] = {}
        self._name: bytes | None = None
        self._link: bytes | None = None

    def check_extended(self, header: Header) -> None:
        """Bound an extended header, and all of them, before its content is read.

        Raises ``HeaderError``, and ``SourceError`` where there are too many of them.
        """
        if header.size > EXTENDED_LIMIT:
            raise HeaderError(
                f"an extended header holds more than {EXTENDED_LIMIT} bytes, a fixed limit"
            )
        self._extended_size += BLOCK + header.size
        if self._extended_size > _MOST_EXTENDED_SIZE:
            raise SourceError(
                f"{show(self._archive)}: its extended headers hold more than {_MOST_EXTENDED_SIZE} bytes, a fixed limit;"
                " it is no image archive"
            )

    def extended(self, header: Header, content: bytes) -> None:
        """Note an extended header. Raises ``HeaderError``."""
        if header.type == PAX_HEADER:
            self._pax = dict(parse_pax(content))
        elif header.type == GNU_LONG_NAME:
            self._name = content.partition(b"\0")[0]
        elif header.type == GNU_LONG_LINK:
            self._link = content.partition(b"\0")[0]

    def member(self, header: Header, offset: int) -> tuple[bytes, int]:
        """Note a member whose data begins at ``offset``; returns its name and its data's size."""
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
        self._index.add(name, member)
        self._pax = {}
        self._name = self._link = None
        return name, size

    def finish(self) -> TarIndex:
        """The index, at the archive's end. Raises ``HeaderError`` where a member was announced and did not come."""
        if self._pax or self._name is not None or self._link is not None:
            raise HeaderError("it ends behind an extended header")
        return self._index


EXTENDED_TYPES = (PAX_HEADER, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK)


def index_tar(
    read_at: t.Callable[[int, int], bytes], size: int, archive: str
) -> TarIndex:
    """Index an archive of ``size`` bytes. Raises ``SourceError``."""
    indexer = Indexer(archive)
    position = 0
    try:
        while position < size:
            block = read_at(position, BLOCK)
            if len(block) < BLOCK:
                raise HeaderError("it ends in the middle of a header")
            header = parse_header(block)
            if header is None:
                break
            position += BLOCK
            if header.type in EXTENDED_TYPES:
                indexer.check_extended(header)
                indexer.extended(header, read_at(position, header.size))
                position += header.size + -header.size % BLOCK
                if position > size:
                    raise HeaderError("it ends in the middle of an extended header")
                continue
            _name, length = indexer.member(header, position)
            position += length + -length % BLOCK
            if position > size:
                raise HeaderError("it ends in the middle of a member")
        return indexer.finish()
    except HeaderError as error:
        raise SourceError(
            f"{show(archive)} is a damaged tar near byte {position}: {error}; fetch it again"
        ) from error


def clean(name: str) -> str:
    """A member's name without ``./``, doubled or trailing slashes."""
    if _CLEAN.match(name) is not None:
        return name
    return "/".join(part for part in name.split("/") if part not in ("", "."))
