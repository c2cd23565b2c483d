# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A tar writer with every header byte in its caller's hands.

Entries are stated by the functions below and become bytes in ``tar``. It is made for tests, so it also writes what
no tar program would: see ``fields``, ``size``, ``pax`` and ``raw``. A name is text or bytes; text becomes UTF-8.
"""

from __future__ import annotations

import base64
import re
import typing as t
from dataclasses import dataclass, field
from urllib.parse import quote_from_bytes

if t.TYPE_CHECKING:
    from typing_extensions import Unpack

Dialect = t.Literal["v7", "ustar", "gnu", "pax"]
SparseForm = t.Literal["old-gnu", "pax-0.0", "pax-0.1", "pax-1.0"]
Text = t.Union[str, bytes]
Time = t.Union[int, str]
Value = t.Union[str, bytes, int, None]
Pairs = t.Union[t.Mapping[Text, Value], t.Sequence[t.Tuple[Text, Value]]]
Records = t.Union[Pairs, bytes]

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)

# Where each field of a header lies: offset and width. Some overlap, as the dialects do.
_FIELDS = {
    "name": (0, 100),
    "mode": (100, 8),
    "uid": (108, 8),
    "gid": (116, 8),
    "size": (124, 12),
    "mtime": (136, 12),
    "checksum": (148, 8),
    "type": (156, 1),
    "linkname": (157, 100),
    "magic": (257, 8),
    "uname": (265, 32),
    "gname": (297, 32),
    "devmajor": (329, 8),
    "devminor": (337, 8),
    "prefix": (345, 155),
    "sparse": (386, 109),
    "trailer": (500, 12),
}
_NUMBERS = ("mode", "uid", "gid", "size", "mtime", "devmajor", "devminor")
_MAGIC = {"v7": b"", "ustar": b"ustar\x0000", "gnu": b"ustar  \0", "pax": b"ustar\x0000"}
_TIME = re.compile(r"(-?)([0-9]+)(?:\.([0-9]*))?\Z")


class Attributes(t.TypedDict, total=False):
    """What every entry can be given by keyword.

    ``mtime``: seconds since the epoch, or decimal text with a fraction, "1700000000.123456789"; either negative.
    ``xattrs``: written as SCHILY.xattr records, ``libarchive_xattrs`` as LIBARCHIVE.xattr ones.
    ``acl_access``, ``acl_default``: the text of SCHILY.acl records.
    ``dialect``: of this entry; that of the whole tar where it is not given.
    ``pax``: records over the generated ones (``None`` drops one); pairs may repeat a key; bytes are the whole
    extended header as it is.
    ``size``: what the header says, whatever the data's length is.
    ``fields``: bytes or numbers for the header's own fields, over everything else. The checksum is made
    afterwards, but where ``fields`` gives that too. Keys: name, mode, uid, gid, size, mtime, checksum, type,
    linkname, magic, uname, gname, devmajor, devminor, prefix, sparse, trailer.
    """

    uid: int
    gid: int
    uname: Text
    gname: Text
    mtime: Time
    xattrs: t.Mapping[Text, Text]
    libarchive_xattrs: t.Mapping[Text, Text]
    acl_access: Text
    acl_default: Text
    dialect: Dialect
    pax: Records
    size: int
    fields: t.Mapping[str, bytes | int]


@dataclass(frozen=True)
class Entry:
    """One entry, made by the functions below; ``between`` are blocks that follow the header."""

    name: bytes
    flag: bytes
    data: bytes
    linkname: bytes
    mode: int
    device: tuple[int, int] | None
    between: bytes
    attributes: Attributes = field(repr=False)

    def render(self, dialect: Dialect = "pax") -> bytes:
        """The bytes of the entry: extended headers, header, padded data. Raises ``ValueError``."""
        return _render(self, self.attributes.get("dialect", dialect))


@dataclass(frozen=True)
class Raw:
    """Bytes that are put into the tar as they are."""

    data: bytes

    def render(self, dialect: Dialect = "pax") -> bytes:
        """The bytes, in whatever dialect."""
        return self.data


Member = t.Union[Entry, Raw]


def tar(members: t.Iterable[Member], *, dialect: Dialect = "pax", end_blocks: int = 2) -> bytes:
    """A tar of these members. Raises ``ValueError`` for what the dialect cannot say."""
    body = b"".join(member.render(dialect) for member in members)
    return body + ZERO_BLOCK * end_blocks


# -- what an image is made of


def file(name: Text, data: Text = b"", mode: int = 0o644, **attributes: Unpack[Attributes]) -> Entry:
    """A regular file."""
    return _entry(name, b"0", data, b"", mode, attributes)


def directory(name: Text, mode: int = 0o755, **attributes: Unpack[Attributes]) -> Entry:
    """A directory; its name gets a slash at its end, as tar programs do it."""
    name = _bytes(name)
    slash = b"" if name.endswith(b"/") else b"/"
    return _entry(name + slash, b"5", b"", b"", mode, attributes)


def symlink(name: Text, target: Text, mode: int = 0o777, **attributes: Unpack[Attributes]) -> Entry:
    """A symbolic link that says ``target``."""
    return _entry(name, b"2", b"", target, mode, attributes)


def hardlink(name: Text, target: Text, mode: int = 0o644, **attributes: Unpack[Attributes]) -> Entry:
    """A hard link to the earlier entry ``target``."""
    return _entry(name, b"1", b"", target, mode, attributes)


def char(name: Text, major: int, minor: int, mode: int = 0o666, **attributes: Unpack[Attributes]) -> Entry:
    """A character device."""
    return _entry(name, b"3", b"", b"", mode, attributes, (major, minor))


def block(name: Text, major: int, minor: int, mode: int = 0o660, **attributes: Unpack[Attributes]) -> Entry:
    """A block device."""
    return _entry(name, b"4", b"", b"", mode, attributes, (major, minor))


def fifo(name: Text, mode: int = 0o644, **attributes: Unpack[Attributes]) -> Entry:
    """A named pipe."""
    return _entry(name, b"6", b"", b"", mode, attributes)


def whiteout(path: Text, **attributes: Unpack[Attributes]) -> Entry:
    """What hides ``path`` of the lower layers: an empty file ``.wh.NAME`` beside it."""
    folder, slash, name = _bytes(path).rpartition(b"/")
    return file(folder + slash + b".wh." + name, **attributes)


def opaque(path: Text = "", **attributes: Unpack[Attributes]) -> Entry:
    """What hides all that the lower layers put into the directory ``path`` ("" is the root)."""
    folder = _bytes(path)
    slash = b"/" if folder and not folder.endswith(b"/") else b""
    return file(folder + slash + b".wh..wh..opq", **attributes)


def sparse(
    name: Text,
    regions: t.Sequence[tuple[int, Text]],
    length: int,
    form: SparseForm = "pax-1.0",
    mode: int = 0o644,
    **attributes: Unpack[Attributes],
) -> Entry:
    """A sparse file of ``length`` bytes with data at offsets, stored in one of GNU tar's forms.

    GNU tar itself makes regions of whole blocks, but for the last, and misreads others; most readers take both.
    """
    name = _bytes(name)
    pieces = [(offset, _bytes(data)) for offset, data in regions]
    data = b"".join(piece for _offset, piece in pieces)
    pairs = [(offset, len(piece)) for offset, piece in pieces]
    if not pairs or sum(pairs[-1]) < length:
        # a hole at the end is told by a region of no length
        pairs.append((length, 0))
    if form == "old-gnu":
        return _old_gnu_sparse(name, data, pairs, length, mode, attributes)
    numbers = [str(number) for pair in pairs for number in pair]
    folder, slash, base = name.rpartition(b"/")
    stored_name = folder + slash + b"GNUSparseFile.0/" + base
    records: list[tuple[Text, Value]]
    if form == "pax-0.0":
        stored_name = name
        records = [("GNU.sparse.size", length), ("GNU.sparse.numblocks", len(pairs))]
        for offset, count in pairs:
            records.append(("GNU.sparse.offset", offset))
            records.append(("GNU.sparse.numbytes", count))
    elif form == "pax-0.1":
        records = [
            ("GNU.sparse.size", length),
            ("GNU.sparse.numblocks", len(pairs)),
            ("GNU.sparse.name", name),
            ("GNU.sparse.map", ",".join(numbers)),
        ]
    else:
        records = [
            ("GNU.sparse.major", 1),
            ("GNU.sparse.minor", 0),
            ("GNU.sparse.name", name),
            ("GNU.sparse.realsize", length),
        ]
        lines = "".join(f"{number}\n" for number in [str(len(pairs)), *numbers])
        data = _padded(lines.encode()) + data
    own = attributes.get("pax", {})
    if not isinstance(own, bytes):
        attributes["pax"] = _merged(records, own)
    return _entry(stored_name, b"0", data, b"", mode, attributes)


def global_header(records: Records, **attributes: Unpack[Attributes]) -> Entry:
    """A pax global header."""
    data = pax_records(records)
    return _entry("pax_global_header", b"g", data, b"", 0o666, attributes)


def entry(
    name: Text,
    flag: Text,
    data: Text = b"",
    linkname: Text = b"",
    mode: int = 0o644,
    device: tuple[int, int] | None = None,
    **attributes: Unpack[Attributes],
) -> Entry:
    """An entry of any type flag, with nothing added to its name."""
    return _entry(name, _bytes(flag), data, linkname, mode, attributes, device)


def raw(data: bytes) -> Raw:
    """Bytes that are put into the tar as they are, at the place of an entry."""
    return Raw(data)


# -- numbers and records, also for tests that build headers of their own


def nanoseconds(value: int) -> str:
    """A time in nanoseconds since the epoch as what ``mtime`` takes."""
    seconds, fraction = divmod(abs(value), 10**9)
    return f"{'-' if value < 0 else ''}{seconds}.{fraction:09d}"


def octal(value: int, width: int) -> bytes:
    """A number as octal digits and a NUL. Raises ``ValueError`` where they do not suffice."""
    digits = b"%0*o" % (width - 1, value)
    if value < 0 or len(digits) >= width:
        raise ValueError(f"{value} does not fit into {width - 1} octal digits")
    return digits + b"\0"


def base_256(value: int, width: int) -> bytes:
    """A number as GNU tar writes those that octal digits cannot hold. Raises ``ValueError``."""
    if not -(1 << 8 * width - 2) <= value < 1 << 8 * width - 2:
        raise ValueError(f"{value} does not fit into {width} bytes")
    number = bytearray((value % (1 << 8 * width)).to_bytes(width, "big"))
    number[0] |= 0x80
    return bytes(number)


def pax_records(records: Records) -> bytes:
    """The content of a pax extended header."""
    if isinstance(records, bytes):
        return records
    return b"".join(_record(key, value) for key, value in _merged([], records))


def check_options(options: t.Mapping[str, t.Any], known: type) -> None:
    """Refuse misspelt keywords, which would pass for a fault that was never made. Raises ``TypeError``."""
    unknown = sorted(options.keys() - known.__annotations__.keys())
    if unknown:
        raise TypeError(f"unknown keywords: {', '.join(unknown)}")


# -- how they become bytes


def _entry(
    name: Text,
    flag: bytes,
    data: Text,
    linkname: Text,
    mode: int,
    attributes: Attributes,
    device: tuple[int, int] | None = None,
    between: bytes = b"",
) -> Entry:
    check_options(attributes, Attributes)
    return Entry(_bytes(name), flag, _bytes(data), _bytes(linkname), mode, device, between, attributes)


def _render(entry: Entry, dialect: Dialect) -> bytes:
    attributes = entry.attributes
    size = attributes.get("size", len(entry.data))
    numbers = {
        "mode": entry.mode,
        "uid": attributes.get("uid", 0),
        "gid": attributes.get("gid", 0),
        "size": size,
        "mtime": _seconds(attributes.get("mtime", 0)),
    }
    if dialect != "v7":
        major, minor = entry.device or (0, 0)
        numbers.update({"devmajor": major, "devminor": minor})
    elif entry.device is not None:
        raise _refused(entry, dialect, "has no devices")
    texts = {
        "name": entry.name,
        "linkname": entry.linkname,
        "uname": _bytes(attributes.get("uname", b"")),
        "gname": _bytes(attributes.get("gname", b"")),
    }
    before = b""
    records: list[tuple[Text, Value]] = []
    if dialect == "pax":
        records = _needed_records(numbers, texts, attributes)
    else:
        _refuse_records(entry, dialect)
        if dialect == "gnu":
            before = _long_names(texts)
    flag = entry.flag
    if dialect == "v7" and flag in (b"0", b"5"):
        # v7 knows a directory by its slash alone
        flag = b"\0"
    fields: dict[str, bytes] = {"type": flag, "magic": _MAGIC[dialect]}
    if dialect == "ustar" and len(texts["name"]) > 100:
        fields["prefix"], texts["name"] = _split(entry)
    for key, text in texts.items():
        width = _FIELDS[key][1]
        if len(text) > width and dialect in ("v7", "ustar"):
            raise _refused(entry, dialect, f"holds a {key} of {width} bytes")
        if text and not (dialect == "v7" and key in ("uname", "gname")):
            fields[key] = text[:width]
    for key, number in numbers.items():
        fields[key] = _number(entry, dialect, key, number)
    own = attributes.get("pax")
    if isinstance(own, bytes):
        before += _extended(own)
    else:
        records = _merged(records, own or {})
        if records:
            before += _extended(pax_records(records))
    header = _header(fields, attributes.get("fields", {}))
    return before + header + entry.between + _padded(entry.data)


def _needed_records(
    numbers: t.Mapping[str, int], texts: t.Mapping[str, bytes], attributes: Attributes
) -> list[tuple[Text, Value]]:
    """The records for what an ustar header cannot say."""
    records: list[tuple[Text, Value]] = []
    keys = {"name": "path", "linkname": "linkpath"}
    for field_name, text in texts.items():
        if len(text) > _FIELDS[field_name][1] or not text.isascii():
            records.append((keys.get(field_name, field_name), text))
    for key in ("uid", "gid", "size"):
        if not _fits(key, numbers[key]):
            records.append((key, numbers[key]))
    mtime = attributes.get("mtime", 0)
    if isinstance(mtime, str) or not _fits("mtime", mtime):
        records.append(("mtime", mtime))
    for name, value in attributes.get("xattrs", {}).items():
        records.append((b"SCHILY.xattr." + _bytes(name), value))
    for name, value in attributes.get("libarchive_xattrs", {}).items():
        encoded = base64.b64encode(_bytes(value)).rstrip(b"=")
        records.append(("LIBARCHIVE.xattr." + quote_from_bytes(_bytes(name)), encoded))
    if "acl_access" in attributes:
        records.append(("SCHILY.acl.access", attributes["acl_access"]))
    if "acl_default" in attributes:
        records.append(("SCHILY.acl.default", attributes["acl_default"]))
    return records


def _refuse_records(entry: Entry, dialect: Dialect) -> None:
    for key in ("xattrs", "libarchive_xattrs", "acl_access", "acl_default"):
        if entry.attributes.get(key):
            raise _refused(entry, dialect, f"has no {key}")
    mtime = entry.attributes.get("mtime", 0)
    if isinstance(mtime, str) and "." in mtime:
        raise _refused(entry, dialect, "has no fractions of seconds")


def _long_names(texts: dict[str, bytes]) -> bytes:
    before = b""
    for key, flag in (("linkname", b"K"), ("name", b"L")):
        text = texts[key]
        if len(text) > 100:
            data = text + b"\0"
            extended = _entry("././@LongLink", flag, data, b"", 0o644, {})
            before += _render(extended, "gnu")
    return before


def _split(entry: Entry) -> tuple[bytes, bytes]:
    """An ustar prefix, and the rest of the name."""
    name = entry.name
    slash = name.find(b"/", len(name) - 101)
    if slash < 1 or slash > 155 or slash == len(name) - 1:
        raise _refused(entry, "ustar", "cannot split this name in two")
    return name[:slash], name[slash + 1 :]


def _number(entry: Entry, dialect: Dialect, key: str, number: int) -> bytes:
    width = _FIELDS[key][1]
    if _fits(key, number):
        return octal(number, width)
    if dialect == "gnu":
        return base_256(number, width)
    if dialect == "pax" and key in ("uid", "gid", "size", "mtime"):
        return octal(0, width)
    raise _refused(entry, dialect, f"has no {key} {number}")


def _fits(key: str, number: int) -> bool:
    return 0 <= number < 8 ** (_FIELDS[key][1] - 1)


def _header(fields: dict[str, bytes], own: t.Mapping[str, bytes | int]) -> bytes:
    header = bytearray(BLOCK)
    for key, content in [*fields.items(), *own.items()]:
        offset, width = _FIELDS[key]
        if isinstance(content, int):
            content = _own_number(key, content)
        if len(content) > width:
            raise ValueError(f"{content!r} is longer than the field {key}: {width}")
        header[offset : offset + width] = content.ljust(width, b"\0")
    if "checksum" not in own:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _own_number(key: str, number: int) -> bytes:
    if key == "checksum":
        return b"%06o\0 " % number
    if key not in _NUMBERS:
        raise ValueError(f"the field {key} is no number: give bytes")
    width = _FIELDS[key][1]
    return octal(number, width) if _fits(key, number) else base_256(number, width)


def _old_gnu_sparse(
    name: bytes, data: bytes, pairs: list[tuple[int, int]], size: int, mode: int, attributes: Attributes
) -> Entry:
    slots = [octal(offset, 12) + octal(length, 12) for offset, length in pairs]
    first, rest = slots[:4], slots[4:]
    area = b"".join(first).ljust(96, b"\0") + (b"\1" if rest else b"\0")
    between = b""
    while rest:
        block_slots, rest = rest[:21], rest[21:]
        more = b"\1" if rest else b"\0"
        between += (b"".join(block_slots).ljust(504, b"\0") + more).ljust(BLOCK, b"\0")
    fields = {"sparse": area + octal(size, 12), **attributes.get("fields", {})}
    attributes["fields"] = fields
    attributes.setdefault("dialect", "gnu")
    return _entry(name, b"S", data, b"", mode, attributes, None, between)


def _extended(data: bytes) -> bytes:
    return _render(_entry("././@PaxHeader", b"x", data, b"", 0o644, {}), "ustar")


def _merged(generated: list[tuple[Text, Value]], own: Records) -> list[tuple[Text, Value]]:
    """The records of both; those of the second replace the first's of the same key."""
    assert not isinstance(own, bytes)
    pairs: list[tuple[Text, Value]] = [*own.items()] if isinstance(own, t.Mapping) else [*own]
    replaced = {_bytes(key) for key, _value in pairs}
    kept = [pair for pair in generated if _bytes(pair[0]) not in replaced]
    return kept + [pair for pair in pairs if pair[1] is not None]


def _record(key: Text, value: Value) -> bytes:
    text = str(value).encode() if isinstance(value, int) else _bytes(value or b"")
    content = b" %s=%s\n" % (_bytes(key), text)
    length = len(content)
    while length != len(content) + len(str(length)):
        length = len(content) + len(str(length))
    return str(length).encode() + content


def _seconds(mtime: Time) -> int:
    """Whole seconds, rounded down."""
    if isinstance(mtime, int):
        return mtime
    match = _TIME.match(mtime)
    if match is None:
        raise ValueError(f"{mtime!r} is no time; give odd ones by pax")
    seconds = int(match.group(2))
    if not match.group(1):
        return seconds
    return -seconds - (1 if (match.group(3) or "").strip("0") else 0)


def _refused(entry: Entry, dialect: Dialect, why: str) -> ValueError:
    return ValueError(f"{entry.name!r}: the dialect {dialect} {why}")


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def _bytes(text: Text) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogateescape")
