# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Replay journals: what a tree was like when it was finished (docs/behaviour.md, section 17)."""

from __future__ import annotations

import bisect
import itertools
import os
import stat
import struct
import sys
import typing as t
import zlib
from array import array

from .._rootfs import journal as events

# Events of all journals together, and bytes of them without compression.
_MOST_EVENTS = 16_000_000
_MOST_BYTES = 1024 * 1024 * 1024
_PIECE = 256 * 1024
_FEED = 64 * 1024
_LONGEST_NAMES = 64 * 1024 * 1024
_DIRECTORY_KINDS = (events.MAKE_DIRECTORY, events.LOWER_DIRECTORY)

TYPES = {
    events.MAKE_DIRECTORY: stat.S_IFDIR,
    events.FILE: stat.S_IFREG,
    events.SYMLINK: stat.S_IFLNK,
    events.FIFO: stat.S_IFIFO,
    events.CHARACTER_DEVICE: stat.S_IFCHR,
    events.BLOCK_DEVICE: stat.S_IFBLK,
}

# Names in a directory, each with the number of its object.
Names = t.Dict[str, int]


class JournalError(ValueError):
    """A journal that cannot be read."""


class Recorded:
    """A tree as it was. Objects have numbers: ``kinds``, ``styles`` and so on are told by them.

    ``top`` is the number of the root, ``folders`` has the names in each directory. ``styles`` are the places in ``table`` of
    type and permissions, user and group; ``times`` are in nanoseconds; ``sources`` count the entries of all layers, from 1
    on, 0 for what no entry describes; ``layers`` says how many entries come before each layer. ``linked`` are objects that may have
    several names. ``sizes`` of devices are their numbers.
    """

    def __init__(self) -> None:
        self.kinds = bytearray()
        self.styles = array("I")
        self.sizes = array("Q")
        self.times = array("q")
        self.sources = array("I")
        self.table: list[tuple[int, int, int]] = []
        self.texts: dict[int, str] = {}
        self.xattrs: dict[int, bytes] = {}
        self.linked: set[int] = set()
        self.folders: dict[int, Names] = {}
        self.layers: list[int] = []
        # the root, which no event makes
        self.top = 0
        self._add_root()

    def _add_root(self) -> None:
        self.kinds.append(events.MAKE_DIRECTORY)
        self.table.append((stat.S_IFDIR | 0o755, 0, 0))
        for column in (self.styles, self.sizes, self.times, self.sources):
            column.append(0)
        self.folders[self.top] = {}

    def attributes(self, number: int) -> tuple[int, int, int]:
        """Return the type and permissions, the user and the group of an object."""
        return self.table[self.styles[number]]

    def layer_of(self, number: int) -> int:
        """Return the place of the layer that an object comes from, the lowest is 0; -1 if no entry describes it."""
        return bisect.bisect_left(self.layers, self.sources[number]) - 1


def replay(journals: t.Iterable[bytes]) -> Recorded:
    """Return the tree that the journals of its layers, the lowest first, or the one of all make. Raises ``JournalError``."""
    recorded = Recorded()
    size = 0
    for data in journals:
        reader = _Reader(data, size)
        replaying = _Replay(recorded)
        try:
            for chunk in reader.chunks():
                replaying.take(chunk)
        except (IndexError, KeyError, ValueError, OverflowError, struct.error, zlib.error) as error:
            raise JournalError(f"{type(error).__name__}: {error}") from error
        size = reader.size
    return recorded


_Style = t.Tuple[int, int, int]


class _Chunk(t.NamedTuple):
    kinds: bytes
    places: array[int]
    names: list[str]
    styles: list[_Style]
    style_of: array[int]
    deltas: array[int]
    sizes: array[int]
    times: array[int]


class _Reader:
    """Reads the chunks of a journal, within bounds of memory."""

    def __init__(self, data: bytes, size: int) -> None:
        if not data.startswith(events.MAGIC):
            raise JournalError("it has another form")
        self._data = memoryview(data)[len(events.MAGIC) :]
        self._decompressor = zlib.decompressobj()
        self._buffer = b""
        self.size = size

    def chunks(self) -> t.Iterator[_Chunk]:
        """Yield the chunks. Raises ``JournalError``, ``struct.error`` and others."""
        while True:
            head = self._read(events.CHUNK_HEADER.size, True)
            if not head:
                return
            count, length, added = events.CHUNK_HEADER.unpack(head)
            if not count or length > _LONGEST_NAMES or count > _LONGEST_NAMES or added > count:
                raise JournalError("a chunk is too large")
            body = self._read(added * events.STYLE.size + count * events.EVENT_SIZE + length)
            cut = _Cut(body)
            styles = t.cast("list[_Style]", list(events.STYLE.iter_unpack(cut(added * events.STYLE.size))))
            kinds = cut(count)
            places, style_of, deltas = (_numbers("I", cut(4 * count)) for _column in range(3))
            sizes = _numbers("Q", _from_planes(cut(8 * count)))
            times = _numbers("q", _from_planes(cut(8 * count)))
            names = os.fsdecode(cut(length)).split("\0")
            if len(names) != count or max(kinds) > events.LAST_KIND:
                raise JournalError("a chunk is damaged")
            yield _Chunk(kinds, places, names, styles, style_of, deltas, sizes, times)

    def _read(self, count: int, or_nothing: bool = False) -> bytes:
        parts = [self._buffer]
        held = len(self._buffer)
        while held < count and not self._decompressor.eof:
            fed = self._decompressor.unconsumed_tail
            if not fed:
                fed, self._data = bytes(self._data[:_FEED]), self._data[_FEED:]
            part = self._decompressor.decompress(fed, _PIECE)
            if not part and not fed:
                break
            self.size += len(part)
            if self.size > _MOST_BYTES:
                raise JournalError(f"it holds more than {_MOST_BYTES} bytes")
            parts.append(part)
            held += len(part)
        joined = b"".join(parts)
        if held < count:
            if or_nothing and not held and self._decompressor.eof:
                return b""
            raise JournalError("it ends early")
        self._buffer = joined[count:]
        return joined[:count]


class _Cut:
    """Cuts bytes off, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._place = 0

    def __call__(self, count: int) -> bytes:
        """Return the next ``count`` bytes."""
        start = self._place
        self._place += count
        return self._data[start : self._place]


def _numbers(kind: str, data: bytes) -> array[int]:
    numbers = array(kind)
    numbers.frombytes(data)
    if sys.byteorder == "big":
        numbers.byteswap()
    return numbers


def _from_planes(data: bytes) -> bytes:
    count = len(data) // 8
    mixed = bytearray(len(data))
    for place in range(8):
        mixed[place::8] = data[place * count : (place + 1) * count]
    return bytes(mixed)


class _Replay:
    """Replays one journal on what is recorded."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        # objects and names of directories, by their numbers in this journal
        self._directories = [recorded.top, -1]
        self._names: list[Names] = [recorded.folders[recorded.top], {}]
        self._styles: list[tuple[int, int, int]] = []
        self._offset = len(recorded.table)
        self._last_entry = 0
        self._linking = -1
        self._last = -1

    def take(self, chunk: _Chunk) -> None:
        """Replay a chunk."""
        recorded = self._recorded
        base = len(recorded.kinds)
        if base + len(chunk.kinds) > _MOST_EVENTS:
            raise JournalError(f"it has more than {_MOST_EVENTS} events")
        self._extend(chunk)
        names = self._names
        for number, (kind, place, name) in enumerate(zip(chunk.kinds, chunk.places, chunk.names), base):
            if kind == events.FILE or events.FIFO <= kind <= events.BLOCK_DEVICE:
                names[place][name] = self._last = number
            elif kind == events.FINISH_DIRECTORY:
                self._last = self._finish(self._directories[place], number)
            elif kind == events.SYMLINK:
                name, _slash, recorded.texts[number] = name.partition("/")
                names[place][name] = self._last = number
            elif kind == events.LINK_FROM:
                self._linking = names[place][name]
                if self._linking in recorded.folders:
                    raise JournalError("a directory has two names")
                recorded.linked.add(self._linking)
            elif kind == events.LINK:
                names[place][name] = self._linking
                if self._linking < 0:
                    raise JournalError("a link is to nothing")
            elif kind == events.MAKE_DIRECTORY:
                names[place][name] = number
                # until an entry describes it
                recorded.sources[number] = 0
                self._directories.append(number)
                names.append(recorded.folders.setdefault(number, {}))
            elif kind == events.XATTRS:
                recorded.xattrs[self._last] = name.encode("ascii")
            else:
                self._others(kind, place, name, chunk.sizes[number - base])

    def _others(self, kind: int, place: int, name: str, size: int) -> None:
        recorded = self._recorded
        if kind == events.LOWER_DIRECTORY:
            found = self._names[place][name]
            self._directories.append(found)
            self._names.append(recorded.folders[found])
        elif kind == events.REMOVE:
            # what is aside is not in the tree
            self._names[place].pop(name, None)
        elif kind == events.LAYER:
            recorded.layers.append(size)

    def _extend(self, chunk: _Chunk) -> None:
        recorded = self._recorded
        kinds = {kind: TYPES.get(kind, 0) for kind in set(chunk.kinds)}
        kinds[events.FINISH_DIRECTORY] = stat.S_IFDIR
        self._styles.extend(chunk.styles)
        if any(mode > 0o7777 for mode, _uid, _gid in chunk.styles):
            raise JournalError("a mode has more than permissions")
        # with the type, so that one comparison is enough
        known: dict[tuple[int, int], int] = {}
        for pair in set(zip(chunk.kinds, chunk.style_of)):
            mode, uid, gid = self._styles[pair[1]]
            if pair[0] == events.SYMLINK:
                # links have no mode of their own
                mode = 0o777
            known[pair] = len(recorded.table)
            recorded.table.append((kinds[pair[0]] | mode, uid, gid))
        recorded.styles.extend([known[pair] for pair in zip(chunk.kinds, chunk.style_of)])
        entries = array("I", [entry & 0xFFFFFFFF for entry in _sums(self._last_entry, chunk.deltas)])
        self._last_entry = entries[-1]
        recorded.sources.extend(entries)
        recorded.kinds.extend(chunk.kinds)
        recorded.sizes.extend(chunk.sizes)
        recorded.times.extend(chunk.times)

    def _finish(self, directory: int, event: int) -> int:
        """Give a directory the attributes of an event; return its object."""
        recorded = self._recorded
        if recorded.kinds[directory] not in _DIRECTORY_KINDS:
            raise JournalError("a place is not a directory")
        recorded.styles[directory] = recorded.styles[event]
        recorded.times[directory] = recorded.times[event]
        if recorded.sources[event]:
            recorded.sources[directory] = recorded.sources[event]
        recorded.xattrs.pop(directory, None)
        return directory


def _sums(start: int, deltas: t.Iterable[int]) -> t.Iterator[int]:
    return itertools.islice(itertools.accumulate(itertools.chain([start], deltas)), 1, None)
