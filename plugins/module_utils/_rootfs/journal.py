# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Note what is written while layers are applied, for later runs to compare the tree with (docs/behaviour.md, section 17).

The journal is what happened, in order: it costs no walk through the finished tree, and a layer on top of another one has a
journal of its own. ``_drift`` replays it. It is compressed while it grows, and holds no content.
"""

from __future__ import annotations

import hashlib
import operator
import os
import struct
import sys
import typing as t
import zlib
from array import array

from . import acl, capability
from .attributes import Attributes

if t.TYPE_CHECKING:
    from .root import Directory

# The first bytes of a journal; changed when its form changes.
MAGIC = b"oci-drift-1\n"

# What happened. Each has a place, the number of a directory, and most have a name in it.
LAYER = 0  # a layer begins: ``size`` entries come before it
MAKE_DIRECTORY = 1  # the next number is that of a new directory
LOWER_DIRECTORY = 2  # the next number is that of a directory of lower layers
FINISH_DIRECTORY = 3  # the place itself has these attributes
FILE = 4
SYMLINK = 5  # the name is followed by a slash and the text
FIFO = 6
CHARACTER_DEVICE = 7  # ``size`` is the device number
BLOCK_DEVICE = 8
LINK_FROM = 9  # the file that the next ``LINK`` is another name of
LINK = 10
REMOVE = 11
XATTRS = 12  # what was noted before has these xattrs: the name is their digests
LAST_KIND = XATTRS

# The numbers of the root, and of the files of a layer that only its hard links use.
TOP = 0
ASIDE_PLACE = 1

# One chunk: how many events, bytes of names, new styles; their columns follow, little-endian, 64-bit ones in planes.
CHUNK_HEADER = struct.Struct("<III")
STYLE = struct.Struct("<III")
# Bytes of one event without its name: kind, place, style, entry, size, time.
EVENT_SIZE = 1 + 4 + 4 + 4 + 8 + 8

# How many events wait to be compressed.
_MOST_WAITING = 2048
# Pairs of permissions and owner that are remembered.
_MOST_STYLES = 10_000
# A journal that is larger is given up: its names alone are made to cost memory.
_MOST_BYTES = 64 * 1024 * 1024
_LEVEL = 1
_NOTHING = Attributes(0, 0, 0, 0, {})
_FIRST_TIME, _LAST_TIME = -(2**63), 2**63 - 1
_DIGEST_SIZE = 8


class Journal:
    """Notes what is written to a tree; ``entry`` is the number of the current entry, counted through all layers.

    ``owner`` is who owns all files if the image's owners are not written.
    """

    def __init__(self, owner: tuple[int, int] | None = None) -> None:
        self.entry = 0
        self.owner = owner
        # columns of the events that wait to be compressed: arrays, since objects that wait would keep Python's collector busy
        self._kinds = bytearray()
        self._places, self._style_of, self._entries = array("I"), array("I"), array("I")
        self._sizes, self._times = array("Q"), array("q")
        self._names: list[bytes] = []
        columns = (self._kinds, self._places, self._names, self._style_of, self._entries, self._sizes, self._times)
        self._adders: tuple[t.Callable[[t.Any], None], ...] = tuple(column.append for column in columns)
        self._styles: dict[tuple[int, int, int], int] = {}
        self._new_styles: list[tuple[int, int, int]] = []
        self._style_count = 0
        self._last_entry = 0
        self._next = ASIDE_PLACE + 1
        self._compressor = zlib.compressobj(_LEVEL)
        self._parts: list[bytes] = [MAGIC]
        self._size = 0
        self._given_up = False

    def note(self, kind: int, place: int, name: bytes, attributes: Attributes = _NOTHING, size: int = 0) -> None:
        """Note what happened to a name in a directory, see the constants above."""
        mode, uid, gid, mtime, _xattrs = attributes
        style = self._styles.get((mode, uid, gid))
        if style is None:
            style = self._add_style((mode, uid, gid))
        add_kind, add_place, add_name, add_style, add_entry, add_size, add_time = self._adders
        add_kind(kind)
        add_place(place)
        add_name(name)
        add_style(style)
        add_entry(self.entry)
        add_size(size)
        try:
            add_time(mtime)
        except OverflowError:
            add_time(_FIRST_TIME if mtime < 0 else _LAST_TIME)
        if len(self._kinds) >= _MOST_WAITING:
            self._flush()

    def _add_style(self, key: tuple[int, int, int]) -> int:
        if len(self._styles) >= _MOST_STYLES:
            # an image may have as many as files; those that come again are noted again
            self._styles.clear()
        style = self._styles[key] = self._style_count
        self._style_count += 1
        self._new_styles.append(key if self.owner is None else (key[0], *self.owner))
        return style

    def begin_layer(self, entries: int) -> None:
        """Note that a layer begins, with how many entries came before."""
        self.entry = entries
        self.note(LAYER, TOP, b"", size=entries)

    def directory(self, kind: int, parent: int, name: bytes) -> int:
        """Note a new directory, or one of lower layers, and return its number."""
        number = self._next
        self._next += 1
        self.note(kind, parent, name)
        return number

    def link(self, source: int, old: bytes, place: int, name: bytes) -> None:
        """Note another name of a file."""
        self.note(LINK_FROM, source, old)
        self.note(LINK, place, name)

    def finish_directory(self, directory: Directory, attributes: Attributes) -> None:
        """Note the attributes of a finished directory, but its xattrs."""
        self.entry = directory.source
        self.note(FINISH_DIRECTORY, directory.number, b"", attributes)

    def xattrs(self, place: int, xattrs: t.Mapping[str, bytes]) -> None:
        """Note the xattrs of what was noted last."""
        self.note(XATTRS, place, digests_of(xattrs))

    def finish(self) -> bytes | None:
        """Return the journal; ``None`` if it was too large to be kept."""
        self._flush()
        if self._given_up:
            return None
        self._parts.append(self._compressor.flush())
        return b"".join(self._parts)

    def _flush(self) -> None:
        """Compress the events that wait."""
        columns = (self._kinds, self._places, self._names, self._style_of, self._entries, self._sizes, self._times)
        if self._kinds and not self._given_up:
            self._compress()
        for column in columns:
            del column[:]
        self._new_styles.clear()

    def _compress(self) -> None:
        entries = self._entries
        deltas = [delta & 0xFFFFFFFF for delta in map(operator.sub, entries, (self._last_entry, *entries[:-1]))]
        self._last_entry = entries[-1]
        names = b"\0".join(self._names)
        chunk = b"".join(
            [
                CHUNK_HEADER.pack(len(self._kinds), len(names), len(self._new_styles)),
                *(STYLE.pack(*style) for style in self._new_styles),
                self._kinds,
                little_endian(self._places),
                little_endian(self._style_of),
                little_endian(array("I", deltas)),
                in_planes(little_endian(self._sizes)),
                in_planes(little_endian(self._times)),
                names,
            ]
        )
        part = self._compressor.compress(chunk)
        self._size += len(part)
        self._parts.append(part)
        if self._size > _MOST_BYTES:
            self._given_up = True
            self._parts.clear()


def as_found(status: os.stat_result, attributes: Attributes) -> Attributes:
    """Return attributes with the mode and owner that a file has, which an ACL changes, and without xattrs."""
    return attributes._replace(mode=status.st_mode & 0o7777, uid=status.st_uid, gid=status.st_gid, xattrs={})


def digests_of(xattrs: t.Mapping[str, bytes]) -> bytes:
    """Return the digests of a file's xattrs in hexadecimal: of its capability, of its ACLs, and of the others.

    Each is empty (zeros) if there is none.
    """
    kinds: tuple[list[str], list[str], list[str]] = ([], [], [])
    for name in sorted(xattrs):
        kinds[0 if name == capability.NAME else 1 if name in (acl.ACCESS, acl.DEFAULT) else 2].append(name)
    return b"".join(_digest({name: xattrs[name] for name in names}) for names in kinds)


def _digest(xattrs: t.Mapping[str, bytes]) -> bytes:
    if not xattrs:
        return b"0" * (2 * _DIGEST_SIZE)
    found = hashlib.blake2b(digest_size=_DIGEST_SIZE)
    for name, value in xattrs.items():
        data = os.fsencode(name)
        found.update(b"%d %b %d %b " % (len(data), data, len(value), value))
    return found.hexdigest().encode()


NO_XATTRS = digests_of({})


def little_endian(numbers: array[int]) -> bytes:
    """Return numbers as bytes, the same on all machines."""
    if sys.byteorder == "big":
        numbers = numbers[:]
        numbers.byteswap()
    return numbers.tobytes()


def in_planes(data: bytes) -> bytes:
    """Return 64-bit numbers with all their lowest bytes first: the upper ones are mostly alike, and compress well."""
    return b"".join(data[place::8] for place in range(8))
