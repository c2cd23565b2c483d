# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""POSIX ACLs: the text form of tar archives and the binary form of the kernel, with mapped ids.

The binary form is version 2 of the kernel's ``posix_acl_xattr``: a 32-bit version, then tag, permissions
(16 bits each) and id (32 bits) of every entry, little-endian (docs/behaviour.md, section 6).
"""

from __future__ import annotations

import functools
import struct
import typing as t

from .ids import IdMap

ACCESS = "system.posix_acl_access"
DEFAULT = "system.posix_acl_default"

_VERSION = struct.Struct("<I")
_ENTRY = struct.Struct("<HHI")
NO_ID = 0xFFFFFFFF

USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_ALL_TAGS = (USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER)
_TAGS = {
    ("user", False): USER_OBJ,
    ("user", True): USER,
    ("group", False): GROUP_OBJ,
    ("group", True): GROUP,
    ("mask", False): MASK,
    ("other", False): OTHER,
}
_SHORT = {"u": "user", "g": "group", "m": "mask", "o": "other"}
_BITS = {"r": 4, "w": 2, "x": 1, "-": 0}


class AclError(ValueError):
    """An invalid ACL; the text is a phrase."""


class AclEntry(t.NamedTuple):
    """One entry of an ACL; ``id`` is ``NO_ID`` for tags without one."""

    tag: int
    permissions: int
    id: int


def parse_binary(value: bytes) -> list[AclEntry]:
    """Parse an xattr's value. Raises ``AclError``."""
    body = value[_VERSION.size :]
    if len(value) < _VERSION.size or len(body) % _ENTRY.size:
        raise AclError("the ACL has an invalid length")
    if _VERSION.unpack_from(value)[0] != 2:
        raise AclError("the ACL does not have version 2")
    return [AclEntry(*fields) for fields in _ENTRY.iter_unpack(body)]


def parse_text(text: bytes) -> list[AclEntry]:
    """Parse the text form: ``user:ID:rwx`` or ``user:NAME:rwx:ID``. Raises ``AclError``."""
    entries = []
    lines = text.decode("utf-8", "replace").replace("\n", ",").split(",")
    for line in lines:
        line = line.partition("#")[0].strip()
        if line:
            entries.append(_parse_line(line))
    return sorted(entries, key=lambda entry: (entry.tag, entry.id))


def require_valid(entries: t.Sequence[AclEntry]) -> None:
    """Require what the kernel requires of an ACL (``posix_acl_valid``); an empty one is valid. Raises ``AclError``."""
    tags = [entry.tag for entry in entries]
    if not tags:
        return
    for tag, name in ((USER_OBJ, "user::"), (GROUP_OBJ, "group::"), (OTHER, "other::")):
        if tags.count(tag) != 1:
            raise AclError(f"it has {tags.count(tag)} entries {name} instead of one")
    if tags.count(MASK) > 1:
        raise AclError("it has more than one mask")
    if MASK not in tags and (USER in tags or GROUP in tags):
        raise AclError("it names users or groups, but does not have the mask that this needs")
    if any(entry.tag not in _ALL_TAGS or entry.permissions > 7 for entry in entries):
        raise AclError("it has an entry with an unknown tag or unknown permissions")
    if sorted(tags) != tags:
        raise AclError("its entries are not in order")


def is_extended(value: bytes) -> bool:
    """Return whether an xattr's value says more than a mode can, so that a file system must store it."""
    return len(value) > _VERSION.size + 3 * _ENTRY.size


def group_limit_of(entries: t.Sequence[AclEntry]) -> int:
    """Return the permissions that the group may keep without this access ACL."""
    limits = [entry.permissions for entry in entries if entry.tag in (GROUP_OBJ, MASK)]
    return functools.reduce(int.__and__, limits, 7) if GROUP_OBJ in [entry.tag for entry in entries] else 0


def to_binary(entries: t.Iterable[AclEntry], uids: IdMap, gids: IdMap) -> bytes:
    """Return the xattr's value with mapped ids. Raises ``UnmappedError``."""
    parts = [_VERSION.pack(2)]
    for tag, permissions, number in entries:
        if tag == USER:
            number = uids.to_host(number)
        elif tag == GROUP:
            number = gids.to_host(number)
        else:
            number = NO_ID
        parts.append(_ENTRY.pack(tag, permissions, number))
    return b"".join(parts)


def group_bits_without(value: bytes, mode: int) -> int:
    """Return the mode for a file that loses this access ACL: the group gets ``group::``, masked."""
    permissions = {entry.tag: entry.permissions for entry in parse_binary(value)}
    group = permissions.get(GROUP_OBJ, 0) & permissions.get(MASK, 7)
    return (mode & ~0o070) | ((group & 7) << 3)


def _parse_line(line: str) -> AclEntry:
    fields = line.split(":")
    kind = _SHORT.get(fields[0], fields[0])
    # other::r-- may also be written other:r--
    if kind in ("mask", "other") and len(fields) == 2:
        fields.insert(1, "")
    if len(fields) not in (3, 4):
        raise AclError(f"the ACL line {line[:80]!r} is malformed")
    tag = _TAGS.get((kind, bool(fields[1])))
    bits = [_BITS.get(letter) for letter in fields[2]]
    if tag is None or None in bits or len(bits) > 3:
        raise AclError(f"the ACL line {line[:80]!r} is malformed")
    number = NO_ID
    if tag in (USER, GROUP):
        digits = fields[3] if len(fields) == 4 and fields[3] else fields[1]
        number = _id_of(digits)
        if number >= NO_ID:
            raise AclError(f"the ACL line {line[:80]!r} has no valid id, and names are not looked up")
    permissions = 0
    for bit in bits:
        permissions |= bit or 0
    return AclEntry(tag, permissions, number)


def _id_of(digits: str) -> int:
    """Parse an id; return ``NO_ID`` if it is not a number."""
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10):
        return NO_ID
    return int(digits)
