# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""File capabilities: the xattr ``security.capability`` for the host (docs/behaviour.md, section 6).

Version 2 is a magic number and two pairs of sets, 20 bytes. Version 3 adds the root's uid, 24 bytes. All numbers are
little-endian. The kernel honours version 3 only in a user namespace whose root has that uid.
"""

from __future__ import annotations

import struct

from .ids import IdMap

NAME = "security.capability"

_MAGIC = struct.Struct("<I")
_REVISION = 0xFF000000
_V2 = 0x02000000
_V3 = 0x03000000
_V2_SIZE = 20
_V3_SIZE = 24


class CapabilityError(ValueError):
    """An invalid file capability; the text is a phrase."""


def for_host(value: bytes, uids: IdMap) -> bytes:
    """Return the value to write: version 2 without a map; with one, version 3 and the root id of the host.

    Raises ``CapabilityError``, and ``UnmappedError`` if the map does not contain the root id.
    """
    magic = _MAGIC.unpack_from(value)[0] if len(value) >= _MAGIC.size else 0
    revision = magic & _REVISION
    root = 0
    if revision == _V3 and len(value) == _V3_SIZE:
        root = _MAGIC.unpack_from(value, _V2_SIZE)[0]
    elif revision != _V2 or len(value) != _V2_SIZE:
        raise CapabilityError(f"its security.capability has neither version 2 nor version 3 ({len(value)} bytes)")
    flags = magic & ~_REVISION
    sets = value[_MAGIC.size : _V2_SIZE]
    if not uids.ranges:
        return _MAGIC.pack(_V2 | flags) + sets
    return _MAGIC.pack(_V3 | flags) + sets + _MAGIC.pack(uids.to_host(root))
