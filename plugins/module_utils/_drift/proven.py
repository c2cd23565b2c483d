# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Files that were touched since their tree was finished, and of which the content was compared (docs/behaviour.md, section 17).

Each is known by its number and by the times that it had: another touch makes it a suspect again.
"""

from __future__ import annotations

import struct
import typing as t
import zlib

_MAGIC = b"oci-proven-1\n"
_FILE = struct.Struct("<Iqq")
_TIMES = range(-(2**63), 2**63)
# More are not remembered.
_MOST = 1_000_000

# The times of modification and of change of a file, in nanoseconds.
Times = t.Tuple[int, int]
# By the numbers of files.
Proven = t.Mapping[int, Times]


def to_bytes(proven: Proven) -> bytes:
    """Return the files as they are kept beside the record."""
    # whoever may write to a file may set a time that is none: it stays a suspect
    sound = (item for item in proven.items() if all(time in _TIMES for time in item[1]))
    kept = sorted(sound)[:_MOST]
    return _MAGIC + zlib.compress(b"".join(_FILE.pack(number, *times) for number, times in kept))


def from_bytes(data: bytes) -> dict[int, Times]:
    """Parse what was kept; nothing is proven by what is damaged or too large."""
    if not data.startswith(_MAGIC):
        return {}
    decompressor = zlib.decompressobj()
    try:
        files = decompressor.decompress(data[len(_MAGIC) :], _MOST * _FILE.size)
    except zlib.error:
        return {}
    if not decompressor.eof or len(files) % _FILE.size:
        return {}
    return {number: (modified, changed) for number, modified, changed in _FILE.iter_unpack(files)}
