# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parse the maps of sparse files in their four forms (docs/behaviour.md, section 3).

A map is a tuple of ``(offset, length)`` pairs in bytes, in order: the places in the file of the stored data. The
forms are GNU's old header with extension blocks, and pax 0.0, 0.1 and 1.0.
"""

from __future__ import annotations

import typing as t

from .._source.tar_header import BLOCK, EXTENDED_LIMIT, HeaderError, number, pax_number

Regions = t.Tuple[t.Tuple[int, int], ...]
ReadBlock = t.Callable[[], bytes]

_MOST_REGIONS = EXTENDED_LIMIT // 24


class SparseMap(t.NamedTuple):
    """A map with the file's apparent size; ``name`` is None if the entry's own name is the right one."""

    regions: Regions
    size: int
    name: bytes | None
    map_bytes: int


def old_gnu_map(header: bytes, read_block: ReadBlock) -> SparseMap:
    """Parse the map of a header with type flag ``S`` and of its extension blocks. Raises ``HeaderError``."""
    pairs = _old_gnu_pairs(header[386:482])
    size = _count(header[483:495], "real size")
    extended = header[482] != 0
    while extended:
        block = read_block()
        pairs += _old_gnu_pairs(block[:504])
        _bound(len(pairs))
        extended = block[504] != 0
    return SparseMap(tuple(pairs), size, None, 0)


def pax_map(records: list[tuple[bytes, bytes]], read_block: ReadBlock) -> SparseMap | None:
    """Parse the map in ``GNU.sparse.*`` records, given without that prefix.

    Returns None if they do not describe a sparse file. ``map_bytes`` is the size of a 1.0 map in the entry's data.
    Raises ``HeaderError``.
    """
    last = dict(records)
    version = (last.get(b"major", b""), last.get(b"minor", b""))
    name = last.get(b"name") or None
    if name is not None and b"\0" in name:
        raise HeaderError("the pax record GNU.sparse.name contains a NUL")
    size = pax_number(last.get(b"realsize") or last.get(b"size") or b"0", "sparse size")
    if version == (b"1", b"0"):
        pairs, map_bytes = _map_in_data(read_block)
        return SparseMap(pairs, size, name, map_bytes)
    if version not in ((b"", b""), (b"0", b"0"), (b"0", b"1")):
        raise HeaderError("the entry is a sparse file of an unknown format")
    if b"map" in last:
        numbers = last[b"map"].split(b",") if last[b"map"] else []
    elif b"numblocks" in last:
        numbers = [value for key, value in records if key in (b"offset", b"numbytes")]
    else:
        return None
    return SparseMap(_pairs(numbers), size, name, 0)


def check_map(regions: Regions, size: int, stored: int) -> None:
    """Check that regions are in order, inside the file, and as long as the stored data. Raises ``HeaderError``."""
    position = 0
    total = 0
    for offset, length in regions:
        if offset < position or offset + length > size:
            raise HeaderError("the map of a sparse file contradicts itself")
        position = offset + length
        total += length
    if total != stored:
        raise HeaderError(f"the map of a sparse file covers {total} bytes, but the archive holds {stored}")


def _old_gnu_pairs(fields: bytes) -> list[tuple[int, int]]:
    pairs = []
    for start in range(0, len(fields), 24):
        if fields[start] == 0:
            break
        offset = _count(fields[start : start + 12], "sparse offset")
        length = _count(fields[start + 12 : start + 24], "sparse length")
        pairs.append((offset, length))
    return pairs


def _map_in_data(read_block: ReadBlock) -> tuple[Regions, int]:
    text = b""
    wanted = 1
    numbers: list[bytes] = []
    blocks = 0
    while len(numbers) < wanted:
        text += read_block()
        blocks += 1
        lines = text.split(b"\n")
        text = lines.pop()
        if len(text) > BLOCK:
            raise HeaderError("the map of a sparse file is malformed")
        numbers += lines
        if numbers:
            wanted = 1 + 2 * pax_number(numbers[0], "sparse map")
            _bound(wanted // 2)
    return _pairs(numbers[1:wanted]), blocks * BLOCK


def _pairs(numbers: list[bytes]) -> Regions:
    _bound(len(numbers) // 2)
    if len(numbers) % 2:
        raise HeaderError("the map of a sparse file has an odd number of values")
    values = [pax_number(value, "sparse map") for value in numbers]
    return tuple(zip(values[0::2], values[1::2]))


def _count(field: bytes, what: str) -> int:
    value = number(field, what)
    if value < 0:
        raise HeaderError(f"the {what} is negative: {value}")
    return value


def _bound(regions: int) -> None:
    if regions > _MOST_REGIONS:
        raise HeaderError(f"the map of a sparse file has more than {_MOST_REGIONS} regions, a fixed limit")
