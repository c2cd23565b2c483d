# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Parse one tar header, and the records of one extended header (docs/behaviour.md, section 3).

The index of an archive and the parser of layers read the same dialects through this file: v7, ustar, GNU, star, pax.
"""

from __future__ import annotations

import functools
import re
import typing as t
import zlib

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

# The type flags of extended headers, which describe the next entry.
PAX_HEADER = b"x"
PAX_GLOBAL = b"g"
GNU_LONG_NAME = b"L"
GNU_LONG_LINK = b"K"
EXTENDED_TYPES = (PAX_HEADER, PAX_GLOBAL, GNU_LONG_NAME, GNU_LONG_LINK)

# The most bytes of one extended header.
EXTENDED_LIMIT = 1024 * 1024

_BLANK_CHECKSUM = b" " * 8
_BLANKS = sum(_BLANK_CHECKSUM)
_INT64 = 2**63
# the digits of the largest number without leading zeros, of which there may be many
_MOST_DIGITS = 19

# The usual form: octal digits up to a NUL or blank, and not a device.
_USUAL = re.compile(
    rb"(?=([^\0]{0,100})).{100}([0-7]{7}[\0 ][0-7]{7}[\0 ][0-7]{7})[\0 ]"
    rb"([0-7]{11})[\0 ]([0-7]{11})[\0 ]([0-7]{6})[\0 ][\0 ]([^34])([^\0]{0,100})",
    re.DOTALL,
)


class HeaderError(ValueError):
    """A header is wrong; the text is a phrase, and the caller adds which header."""


class Header(t.NamedTuple):
    """The fields of a header, as written; a tuple, because there is one for every entry."""

    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    linkname: bytes
    devmajor: int
    devminor: int


def parse_header(block: bytes) -> Header | None:
    """Parse 512 bytes; return ``None`` for a block of zeros. Raises ``HeaderError``.

    This runs for every entry, so a header of the usual form is split in one step.
    """
    usual = _USUAL.match(block)
    if usual is None:
        return None if block == ZERO_BLOCK else _parse_unusual(block)
    name, rights, size, mtime, checksum, kind, link = usual.groups()
    # adler32's low half is the byte sum modulo 65521, which ASCII bytes alone cannot reach
    if not block.isascii() or int(checksum, 8) != _BLANKS + (
        zlib.adler32(block[156:], zlib.adler32(block[:148], 0)) & 0xFFFF
    ):
        _verify_checksum(block)
    if block[345] and block[257:263] == b"ustar\0":
        name = _with_prefix(block, name)
    mode, uid, gid = _rights(rights)
    fields = (name, mode, uid, gid, int(size, 8), int(mtime, 8), kind, link, 0, 0)
    # not Header(...): it takes twice the time, for every entry
    return tuple.__new__(Header, fields)


@functools.lru_cache(maxsize=256)
def _rights(fields: bytes) -> tuple[int, int, int]:
    """Return mode, uid and gid of a usual header. Cached, because an image has few different ones."""
    return int(fields[:7], 8) & 0o7777, int(fields[8:15], 8), int(fields[16:], 8)


def _parse_unusual(block: bytes) -> Header:
    """Parse the header of a device, or one whose numbers have another form."""
    _verify_checksum(block)
    kind = block[156:157]
    name = block[0:100].partition(b"\0")[0]
    if block[257:263] == b"ustar\0":
        name = _with_prefix(block, name)
    major = minor = 0
    if kind in (b"3", b"4"):
        major = _not_negative(block[329:337], "device major")
        minor = _not_negative(block[337:345], "device minor")
    return Header(
        name,
        _not_negative(block[100:108], "mode") & 0o7777,
        _not_negative(block[108:116], "uid"),
        _not_negative(block[116:124], "gid"),
        _not_negative(block[124:136], "size"),
        number(block[136:148], "mtime"),
        kind,
        block[157:257].partition(b"\0")[0],
        major,
        minor,
    )


def is_tar(head: bytes) -> bool:
    """Return whether a tar begins here; its first header may be wrong in a field, which its reader tells."""
    block = head[:BLOCK]
    if len(block) < BLOCK or block == ZERO_BLOCK:
        return False
    if block[257:262] == b"ustar":
        return True
    try:
        _verify_checksum(block)
    except HeaderError:
        return False
    return True


def number(field: bytes, what: str = "number") -> int:
    """Return a header field, octal or base-256, as a signed 64-bit number. Raises ``HeaderError``."""
    digits = field[:-1]
    if digits.isdigit() and field[-1] in (0, 32):
        text = digits
    elif field[:1] >= b"\x80":
        return _base_256(field, what)
    else:
        text = field.strip(b" \0").partition(b"\0")[0].rstrip(b" ")
        if not text:
            return 0
        if not text.isdigit():
            raise HeaderError(f"the {what} field {_quoted(field)} is not a number")
    try:
        return int(text, 8)
    except ValueError:
        raise HeaderError(f"the {what} field {_quoted(field)} is not an octal number") from None


def parse_pax(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the records of a pax extended header in order, with repeated keys. Raises ``HeaderError``."""
    records = []
    position = 0
    end = len(data)
    while position < end:
        space = data.find(b" ", position)
        digits = data[position:space].lstrip(b"0") if space > position else b""
        if not digits.isdigit() or len(digits) > _MOST_DIGITS:
            raise HeaderError("a pax record does not begin with its length")
        stop = position + int(digits)
        equals = data.find(b"=", space, stop)
        if stop > end or equals <= space + 1 or data[stop - 1 : stop] != b"\n":
            raise HeaderError("a pax record's length and content disagree")
        records.append((data[space + 1 : equals], data[equals + 1 : stop - 1]))
        position = stop
    return records


def pax_number(value: bytes, what: str) -> int:
    """Return a decimal pax value between 0 and 2**63 - 1. Raises ``HeaderError``."""
    digits = value.lstrip(b"0") if value.isdigit() else b""
    if not value.isdigit() or len(digits) > _MOST_DIGITS or int(digits or b"0") >= _INT64:
        raise HeaderError(f"the pax record {what} holds {_quoted(value)}")
    return int(digits or b"0")


def _with_prefix(block: bytes, name: bytes) -> bytes:
    # in star's dialect, access and change time follow a shorter prefix
    end = 476 if block[508:512] == b"tar\0" else 500
    prefix = block[345:end].partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def _verify_checksum(block: bytes) -> None:
    stored = number(block[148:156], "checksum")
    counted = block[:148] + _BLANK_CHECKSUM + block[156:]
    total = sum(counted)
    if total != stored:
        # some old writers added signed bytes
        total -= 256 * sum(1 for byte in counted if byte > 127)
    if total != stored:
        raise HeaderError("the checksum of a tar header is wrong")


def _not_negative(field: bytes, what: str) -> int:
    value = number(field, what)
    if value < 0:
        raise HeaderError(f"the {what} is negative: {value}")
    return value


def _base_256(field: bytes, what: str) -> int:
    sign_bit = 8 * len(field) - 1
    value = int.from_bytes(field, "big") & ((1 << sign_bit) - 1)
    if field[0] & 0x40:
        value -= 1 << sign_bit
    if not -_INT64 <= value < _INT64:
        raise HeaderError(f"the {what} does not fit into 64 bits")
    return value


def _quoted(field: bytes) -> str:
    return repr(field[:40])[1:]
