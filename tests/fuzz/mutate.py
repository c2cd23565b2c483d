# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Changes to bytes, headers, records, documents and frames; each takes a ``Random``, and nothing else is random.

Where a change alone would only fail a checksum, there is one that makes the checksum right again.
"""

from __future__ import annotations

import functools
import json
import struct
import typing as t
from dataclasses import replace
from random import Random

from ansible_collections.hypervisor.oci.tests.fuzz.seeds import TARGET
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Entry,
    Raw,
    base_256,
    gzip_member,
    pax_records,
    raw,
    skippable_frame,
    sparse,
    zstd_frame,
    zstd_stored_frame,
)
from ansible_collections.hypervisor.oci.tests.images.tarfiles import BLOCK, Member

T = t.TypeVar("T")

NUMBERS = (
    *(0, 1, -1, 7, 255, 256, 511, 512, 513, 4095, 4096, 65535, 65536),
    *(2**31 - 1, 2**31, 2**32 - 2, 2**32 - 1, 2**32, 2**33, 8**7, 8**11 - 1, 8**11),
    *(2**62, 2**63 - 512, 2**63 - 1, 2**63, 2**64 - 1, 2**64, -(2**31), -(2**63)),
    *(10**19, 10**20, 10**30),
)
BYTES = b"\0\1\7 /.=\n\r\t\x1b0179Sxg-\x7f\x80\xc3\xff"

_COMPONENTS = (
    *(b"", b".", b"..", b"...", b".wh.", b".wh..", b".wh...", b".wh..wh..opq"),
    *(b".wh..wh.plnk", b".wh..wh..opqx", b".wh..wh.", b".wh.a", b".wh.etc"),
    *(b"a", b"b", b"c", b"d", b"e", b"etc", b"passwd", b"group", b"usr", b"bin", b"s"),
    *(b"abs", b"rel", b"rel2", b"deep", b"loop", b"o", b"victim", b"target", b"dest"),
    *(b"x" * 255, b"x" * 256, b"\xff\xfe", b"\xc3\xa9", b"line\nbreak", b"\x1b[31m"),
    *(b"lost+found", b"record.json", b" ", b"\\", b"*", b"\xe2\x80\xae", b".dest"),
)
_RECORDS = (
    *("path", "linkpath", "size", "uid", "gid", "mtime", "atime", "uname", "hdrcharset"),
    *("GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.name", "GNU.sparse.realsize"),
    *("GNU.sparse.size", "GNU.sparse.numblocks", "GNU.sparse.offset"),
    *("GNU.sparse.numbytes", "GNU.sparse.map", "SCHILY.acl.access"),
    *("SCHILY.acl.default", "SCHILY.xattr.security.capability", "SCHILY.xattr."),
    *("SCHILY.xattr.user.x", "SCHILY.xattr.trusted.x", "SCHILY.xattr.user.overlay.o"),
    *("SCHILY.xattr.system.posix_acl_access", "SCHILY.xattr.security.selinux"),
    *("SCHILY.xattr.trusted.hypervisor_oci", "LIBARCHIVE.xattr.user.y%0a"),
    *("LIBARCHIVE.xattr.security.capability", "LIBARCHIVE.xattr.%00", "comment", ""),
)
_ACLS = (
    *("user::rwx", "u:0:rw-", "user:name:r--:5", "g:7:r-x", "mask::rwx", "other:r--"),
    *("other::---", "user:00000000000999999999999:r--", "default:user::r", "m:rwx"),
    *("user:4294967295:rwx", "user:4294967294:rwx", "group::", "junk", "u:x:y:z:w", ":"),
)
_TAGS = (1, 2, 4, 8, 16, 32, 64, 0)
_TYPES = b"0\x00123456789SxgLKVMDNAZ"
_MOST = 4000


def pick(random: Random, values: t.Sequence[T]) -> T:
    """One of them."""
    return values[random.randrange(len(values))]


# -- bytes


def blind(random: Random, data: bytes) -> bytes:
    """A change that knows nothing of what it changes."""
    if not data:
        return bytes([pick(random, BYTES)])
    start = random.randrange(len(data))
    end = min(len(data), start + pick(random, (1, 1, 2, 4, 8, 100, 512, 2000)))
    how = random.randrange(9)
    if how == 0:
        return data[:start] + bytes([data[start] ^ 1 << random.randrange(8)]) + data[start + 1 :]
    if how == 1:
        return data[:start] + bytes([pick(random, BYTES)]) + data[start + 1 :]
    if how == 2:
        return data[:start]
    if how == 3:
        return data[:start] + data[end:]
    if how == 4:
        return data[:end] + data[start:end] * pick(random, (1, 1, 2, 50)) + data[end:]
    if how == 5:
        return data[:start] + bytes([pick(random, BYTES)]) * (end - start) + data[end:]
    if how == 6:
        other = random.randrange(len(data))
        return data[:start] + data[other : other + end - start] + data[end:]
    if how == 7:
        return data[:start] + _number_bytes(random) + data[start:]
    return data + bytes([pick(random, BYTES)]) * pick(random, (1, 3, 512, 1024))


def blinds(random: Random, data: bytes) -> bytes:
    """A few of them."""
    for _time in range(pick(random, (1, 1, 1, 2, 5))):
        data = blind(random, data)
    return data


def _number_bytes(random: Random) -> bytes:
    number = pick(random, NUMBERS)
    how = random.randrange(4)
    if how == 0:
        return b"%d" % number
    if how == 1:
        return b"%o" % abs(number)
    return (number % 2**64).to_bytes(8, "little" if how == 2 else "big")


# -- tars, of layers and of archives


def name(random: Random, known: t.Sequence[bytes]) -> bytes:
    """A name: one that is known, a path of odd components, or one that leads out."""
    how = random.randrange(12)
    if how < 4 and known:
        return pick(random, known)
    if how < 6 and known:
        return pick(random, known) + b"/" + pick(random, _COMPONENTS)
    if how == 6 and known:
        folder, slash, last = pick(random, known).rstrip(b"/").rpartition(b"/")
        return folder + slash + b".wh." + last
    if how == 7:
        return TARGET.encode() + pick(random, (b"", b"/", b"/victim", b"/folder/x"))
    if how == 8:
        up = b"../" * pick(random, (1, 2, 3, 9))
        return up + pick(random, (b"", b"target/victim", TARGET.encode()[1:] + b"/victim"))
    if how == 9:
        return (pick(random, _COMPONENTS) + b"/") * pick(random, (1, 2, 40, 130, 700))
    count = random.randrange(6)
    parts = [pick(random, _COMPONENTS) for _part in range(count)]
    return pick(random, (b"", b"", b"/", b"./", b"//")) + b"/".join(parts)


def members(random: Random, found: t.Sequence[Member]) -> list[Raw]:
    """A few changes to the entries of a tar, as bytes."""
    changed: list[Member] = list(found)
    for _time in range(pick(random, (1, 1, 2, 3, 6))):
        names = [item.name for item in changed if isinstance(item, Entry)]
        place = random.randrange(len(changed) + 1)
        how = random.randrange(10)
        if how == 0 and changed:
            changed.insert(place, pick(random, changed))
        elif how == 1 and len(changed) > 1:
            del changed[place % len(changed)]
        elif how == 2 and changed:
            other = random.randrange(len(changed))
            place %= len(changed)
            changed[place], changed[other] = changed[other], changed[place]
        elif how == 3:
            changed.insert(place, _odd_blocks(random))
        elif how == 4:
            changed.insert(place, _new_sparse(random, name(random, names)))
        elif changed:
            place %= len(changed)
            item = changed[place]
            if isinstance(item, Entry):
                changed[place] = _entry(random, item, names)
    return [_rendered(item) for item in changed]


def _entry(random: Random, entry: Entry, names: t.Sequence[bytes]) -> Entry:
    attributes = t.cast("dict[str, t.Any]", dict(entry.attributes))
    how = random.randrange(15)
    if how < 3:
        return replace(entry, name=name(random, names))
    if how < 5:
        return replace(entry, linkname=name(random, names))
    if how == 5:
        return replace(entry, flag=bytes([pick(random, _TYPES)]))
    if how == 6:
        return replace(entry, mode=random.randrange(8**4))
    if how == 7:
        attributes["size"] = pick(random, (0, 1, 512, 1024, 513, 8**11 - 1, 10**6))
    elif how == 8:
        attributes["dialect"] = pick(random, ("gnu", "pax", "ustar", "v7"))
    elif how < 11:
        attributes["pax"] = _pax(random, names)
        attributes["dialect"] = "pax"
    elif how == 11:
        key = pick(random, ("acl_access", "acl_access", "acl_default"))
        attributes[key] = _acl(random)
        attributes["dialect"] = "pax"
    elif how < 14:
        attributes["fields"] = {**attributes.get("fields", {}), **_field(random)}
    else:
        data = bytes(random.randrange(256) for _byte in range(random.randrange(64)))
        return replace(entry, data=data * pick(random, (1, 9, 300)))
    return replace(entry, attributes=t.cast(t.Any, attributes))


def _field(random: Random) -> dict[str, bytes | int]:
    widths = {"mode": 8, "uid": 8, "gid": 8, "size": 12, "mtime": 12, "devmajor": 8}
    widths.update({"devminor": 8, "magic": 8, "prefix": 155, "trailer": 12})
    widths.update({"sparse": 109, "linkname": 100, "name": 100, "checksum": 8})
    key = pick(random, tuple(widths))
    width = widths[key]
    how = random.randrange(4)
    if how == 0 and width <= 12:
        number = pick(random, NUMBERS)
        limit = 1 << 8 * width - 2
        return {key: base_256(max(-limit, min(limit - 1, number)), width)}
    if how == 1:
        return {key: (b"%o" % abs(pick(random, NUMBERS)))[:width]}
    if how == 2:
        return {key: bytes([pick(random, BYTES)]) * random.randrange(width + 1)}
    return {key: bytes(pick(random, BYTES) for _byte in range(width))}


def _pax(random: Random, names: t.Sequence[bytes]) -> bytes:
    """The content of an extended header, mostly well-formed."""
    records: list[tuple[str, bytes]] = []
    for _record in range(pick(random, (1, 1, 2, 4, 12))):
        key = pick(random, _RECORDS)
        records.append((key, _pax_value(random, key, names)))
    content = pax_records(records)
    if random.random() < 0.2:
        content = blinds(random, content)
    if random.random() < 0.05:
        content *= pick(random, (2, 20, 400))
    return content


def _pax_value(random: Random, key: str, names: t.Sequence[bytes]) -> bytes:
    if "acl" in key and "xattr" not in key and random.random() < 0.7:
        return _acl(random).encode()
    how = random.randrange(8)
    if how < 2:
        return name(random, names)
    if how == 2:
        return b"%d.%d" % (pick(random, NUMBERS), abs(pick(random, NUMBERS)))
    if how < 5:
        return b"%d" % pick(random, NUMBERS)
    if how == 5:
        return b",".join(b"%d" % abs(pick(random, NUMBERS)) for _turn in range(random.randrange(9)))
    if how == 6:
        return pick(random, (b"0" * 30 + b"7", b"1e9", b"+5", b"1_0", b"\xd9\xa3", b"AAA", b"====", b"inf"))
    if "acl" in key:
        entry = struct.pack("<HHI", pick(random, _TAGS), 7, pick(random, (0, 7, 2**32 - 1)))
        return struct.pack("<I", 2) + entry * random.randrange(5)
    magic = struct.pack("<I", pick(random, (0x02000000, 0x03000000, 2, 0, 2**32 - 1)))
    return magic + bytes(pick(random, BYTES) for _turn in range(pick(random, (0, 8, 16, 20, 24))))


def _acl(random: Random) -> str:
    """The text of an ACL, right but for a line or two."""
    lines = ["user::rw-", "user:7:r--", "group::r--", "mask::r--", "other::---"]
    for _line in range(random.randrange(3)):
        number = "0" * pick(random, (0, 0, 1, 20, 5000)) + str(pick(random, NUMBERS))
        odd = (pick(random, _ACLS), f"user:{number}:r--", f"group:x:-wx:{number}")
        lines[random.randrange(5)] = pick(random, odd)
    return pick(random, (",", "\n")).join(lines)


def _new_sparse(random: Random, own_name: bytes) -> Member:
    regions = []
    position = 0
    for _region in range(random.randrange(30)):
        position += pick(random, (0, 512, 1024, -512, 5000))
        data = b"d" * pick(random, (0, 1, 512, 700))
        regions.append((max(0, position), data))
        position += len(data)
    length = max(0, position + pick(random, (0, 0, 1000, -1, 10**7, 2**33 - 1)))
    form = pick(random, ("old-gnu", "pax-0.0", "pax-0.1", "pax-1.0"))
    try:
        return sparse(own_name or b"s", regions, length, t.cast(t.Any, form))
    except ValueError:
        # a length that old headers cannot say
        return sparse(own_name or b"s", regions, length, "pax-0.1")


def _odd_blocks(random: Random) -> Raw:
    how = random.randrange(5)
    if how == 0:
        return raw(bytes(BLOCK))
    if how == 1:
        return raw(bytes(pick(random, (1, 511, 1024, 1536))))
    if how == 2:
        return raw(bytes(random.randrange(256) for _byte in range(BLOCK)))
    flag = bytes([pick(random, b"xgLKSM")])
    content = blinds(random, pax_records({"path": "p"}))
    header = Entry(b"odd", flag, content, b"", 0o644, None, b"", {"dialect": "ustar"})
    rendered = header.render()
    return raw(rendered * pick(random, (1, 1, 2, 30)))


# What seeds' own entries look like: most of them never change.
_kept: dict[int, tuple[Member, Raw]] = {}


def remember(found: t.Iterable[Member]) -> None:
    """Keep the bytes of entries that are there for as long as the process lives."""
    for item in found:
        _kept[id(item)] = (item, raw(item.render()))


def _rendered(item: Member) -> Raw:
    """The entry's bytes, or of what of it a dialect can say: a mutation must not stop at the writer."""
    kept = _kept.get(id(item))
    if kept is not None:
        return kept[1]
    attributes = dict(item.attributes) if isinstance(item, Entry) else {}
    for changes in ({}, {"dialect": "pax"}):
        try:
            return raw(_with(item, {**attributes, **changes}).render())
        except ValueError:
            continue
    return raw(_with(item, {}).render())


def _with(item: Member, attributes: dict[str, t.Any]) -> Member:
    if isinstance(item, Entry):
        return replace(item, attributes=t.cast(t.Any, attributes))
    return item


def headers(random: Random, data: bytes) -> bytes:
    """Change bytes of tar headers and make their checksums right; data is treated as a header too, now and then."""
    changed = bytearray(data)
    for _time in range(pick(random, (1, 1, 2, 4))):
        starts = [
            at
            for at in range(0, len(changed) - BLOCK + 1, BLOCK)
            if changed[at + 148 : at + 156].strip(b"0 \0").isdigit()
        ]
        if not starts:
            break
        start = pick(random, starts)
        offset, width = pick(random, _PLACES)
        for byte in range(offset, offset + width):
            if random.random() < pick(random, (0.1, 0.5, 1)):
                changed[start + byte] = pick(random, BYTES)
        block = changed[start : start + BLOCK]
        block[148:156] = b" " * 8
        changed[start + 148 : start + 156] = b"%06o\0 " % sum(block)
    return bytes(changed)


_PLACES = (
    *((0, 100), (100, 8), (108, 8), (116, 8), (124, 12), (136, 12), (156, 1)),
    *((157, 100), (257, 8), (329, 8), (337, 8), (345, 155), (386, 109), (482, 1)),
    *((156, 1), (124, 12), (500, 12), (0, 4), (157, 4), (124, 1), (345, 8)),
)


# -- documents


_TEXTS = (
    *("", " ", ".", "..", "/", "a" * 300, "\0", "\n", "\ud800", "\u202e", "\x1b[31m", "é"),
    *("SIGRTMAX-3", "rtmin+0", "40", "kill", "SIGKILL", "65", "RTMIN+40", "v1", "8.1"),
    *("sha256:", "sha256:" + "0" * 64, "sha512:" + "0" * 128, "md5:" + "0" * 32),
    *("sha256:" + "A" * 64, "sha256:../../../etc/passwd", "latest", "linux", "amd64"),
    *("application/vnd.oci.image.index.v1+json", "unknown", "windows", "arm", "v8.99"),
    *("application/vnd.oci.image.manifest.v1+json", "1.0.0", "SIGRTMIN+99", "9", "=x"),
    *("application/vnd.oci.image.layer.v1.tar+gzip", "layers", "0:0", "app:", ":1", "=="),
    *("org.opencontainers.image.ref.name", "../" * 9 + TARGET[1:] + "/victim", "\uffff"),
)
_KEYS = (
    *("manifests", "layers", "config", "mediaType", "digest", "size", "data", "platform"),
    *("annotations", "rootfs", "diff_ids", "os", "architecture", "variant", "User"),
    *("Env", "Entrypoint", "Cmd", "Labels", "Volumes", "ExposedPorts", "Healthcheck"),
    *("Config", "RepoTags", "Layers", "history", "created", "type", "urls", "StopSignal"),
)


def json_value(random: Random, depth: int = 0) -> t.Any:
    """Any JSON value."""
    how = random.randrange(9)
    if how == 0:
        return None
    if how == 1:
        return pick(random, (True, False))
    if how == 2:
        return pick(random, NUMBERS)
    if how == 3:
        return pick(random, (0.5, -0.0, 1e308, 1.0))
    if how < 6 or depth > 2:
        return pick(random, _TEXTS)
    if how == 6:
        return [json_value(random, depth + 1) for _item in range(random.randrange(4))]
    return {pick(random, _KEYS): json_value(random, depth + 1) for _item in range(random.randrange(4))}


def document(random: Random, data: bytes) -> bytes:
    """A JSON document with a few values changed, mostly still JSON."""
    try:
        value = json.loads(data)
    except ValueError:
        return blinds(random, data)
    for _time in range(pick(random, (1, 1, 1, 2, 4))):
        value = _change_json(random, value)
    text = json.dumps(value)
    how = random.randrange(20)
    if how == 0:
        return blinds(random, text.encode("utf-8", "surrogatepass"))
    if how == 1:
        # a key twice
        key = json.dumps(pick(random, _KEYS))
        twice = f"{{{key}: {json.dumps(json_value(random))}, "
        return text.replace("{", twice, 1).encode()
    if how == 2:
        return _awkward_text(random, text)
    return text.encode()


def _change_json(random: Random, value: t.Any) -> t.Any:
    places = list(_places(value))
    if not places:
        return json_value(random)
    holder, key = pick(random, places)
    how = random.randrange(8)
    if how == 0:
        del holder[key]
    elif how == 1 and isinstance(holder, dict):
        holder[pick(random, _KEYS)] = holder[key]
    elif how == 1:
        holder.insert(key, holder[key])
    elif how == 2 and isinstance(holder[key], list):
        holder[key] = holder[key] * pick(random, (0, 2, 40))
    elif how == 3:
        other_holder, other = pick(random, places)
        holder[key] = json.loads(json.dumps(other_holder[other]))
    elif how == 4 and isinstance(holder[key], str):
        holder[key] = blind(random, holder[key].encode("utf-8", "surrogatepass")).decode("latin-1")
    elif how == 5 and isinstance(holder[key], int):
        holder[key] += pick(random, (1, -1, 512, 2**32))
    else:
        holder[key] = json_value(random)
    return value


def _places(value: t.Any) -> t.Iterator[tuple[t.Any, t.Any]]:
    pending = [value]
    while pending:
        found = pending.pop()
        keys: t.Iterable[t.Any] = ()
        if isinstance(found, dict):
            keys = list(found)
        elif isinstance(found, list):
            keys = range(len(found))
        for key in keys:
            yield found, key
            pending.append(found[key])


def _awkward_text(random: Random, text: str) -> bytes:
    how = random.randrange(8)
    if how == 0:
        return b"\xef\xbb\xbf" + text.encode()
    if how == 1:
        return text.encode("utf-16")
    if how == 2:
        return b"[" * pick(random, (100, 1000, 100000)) + text.encode()
    if how == 3:
        return b'{"a":' * pick(random, (100, 5000)) + text.encode() + b"}" * 100
    if how == 4:
        return text.replace(": ", ": " + "9" * pick(random, (19, 20, 21, 5000)), 1).encode()
    if how == 5:
        return text.replace(": ", pick(random, (": NaN", ": -Infinity", ": 1e999", ": -")), 1).encode()
    if how == 6:
        return text.encode() + pick(random, (b"\0", b" ", b"\n{}", b"x"))
    return b""


# -- compressed streams


def gzip_frames(random: Random, data: bytes) -> bytes:
    """A gzip stream of these bytes, wrong in one place or two, or odd but right."""
    how = random.randrange(10)
    middle = random.randrange(len(data) + 1)
    member = gzip_member(data, pick(random, (0, 1, 6, 9)))
    if how < 3:
        return blinds(random, member)
    if how == 3:
        return gzip_member(data[:middle]) + gzip_member(data[middle:])
    if how == 4:
        return gzip_member(data[:middle]) + bytes(pick(random, (1, 7, 512, 70000))) + gzip_member(data[middle:])
    if how == 5:
        return _gzip_header(random) + member[10:]
    if how == 6:
        return member + pick(random, (b"\x1f", b"\x1f\x8b", b"junk", b"\0\0x", skippable_frame(b"")))
    if how == 7:
        return member + gzip_member(b"") * pick(random, (1, 2, 300))
    if how == 8:
        return member + pick(random, (gzip_member(bytes(10**6)), _bomb()))
    crc = random.randrange(8)
    return member[: -8 + crc] + bytes([member[-8 + crc] ^ 1]) + (member[-7 + crc :] if crc < 7 else b"")


@functools.lru_cache(None)
def _bomb() -> bytes:
    """96 MiB in less than a chunk of what is read at once."""
    return gzip_member(bytes(96 * 1024 * 1024), 9)


def _gzip_header(random: Random) -> bytes:
    flags = random.randrange(256)
    extra = struct.pack("<H", pick(random, (0, 4, 300, 65535))) + b"abcd"
    header = b"\x1f\x8b" + bytes([pick(random, (8, 8, 8, 7, 9)), flags]) + bytes(6)
    if flags & 4:
        header += extra
    if flags & 8:
        header += b"name" * pick(random, (1, 1000)) + b"\0"
    if flags & 16:
        header += b"comment\0"
    if flags & 2:
        header += b"\0\0"
    return header


def zstd_frames(random: Random, data: bytes) -> bytes:
    """A zstd stream of these bytes, wrong in one place or two, or odd but right."""
    how = random.randrange(11)
    middle = random.randrange(len(data) + 1)
    frame = zstd_frame(data, pick(random, (1, 3, 9)))
    if how < 3:
        return blinds(random, frame)
    if how == 3:
        return zstd_frame(data[:middle]) + zstd_frame(data[middle:])
    if how == 4:
        skipped = skippable_frame(bytes(pick(random, (0, 1, 9, 300000))), random.randrange(16))
        return skipped + frame + skipped * pick(random, (1, 1, 100))
    if how == 5:
        size = pick(random, (1, 100, 2**31, 2**32 - 1))
        return frame + struct.pack("<LL", 0x184D2A50, size) + b"x" * random.randrange(9)
    if how == 6:
        return zstd_stored_frame(data, pick(random, (10, 17, 20, 27, 28, 31, 41)))
    if how == 7:
        return frame[:4] + bytes([random.randrange(256)]) + frame[5:]
    if how == 8:
        return frame[:4] + _zstd_header(random) + _zstd_blocks(random)
    if how == 9:
        return frame + pick(random, (b"\x28", b"\x28\xb5\x2f", b"junk", bytes(512), gzip_member(b"")))
    return zstd_stored_frame(data[:middle]) + zstd_frame(b"") * pick(random, (1, 5)) + zstd_stored_frame(data[middle:])


def _zstd_header(random: Random) -> bytes:
    descriptor = random.randrange(256) & 0xF7
    rest = pick(random, (6, 7, 8, 9, 11, 15, 18))
    return bytes([descriptor]) + bytes(pick(random, BYTES) for _byte in range(rest))


def _zstd_blocks(random: Random) -> bytes:
    """Raw, run-length, compressed and reserved blocks that hold whatever comes."""
    blocks = b""
    bomb = struct.pack("<L", 1 << 1 | 128 * 1024 << 3)[:3] + b"r"
    if random.random() < 0.2:
        blocks = bomb * 1000
    for number in range(random.randrange(1, 30)):
        kind = random.randrange(4)
        size = pick(random, (0, 1, 100, 128 * 1024, 128 * 1024 + 1, 2**21 - 1))
        last = random.random() < 0.1
        blocks += struct.pack("<L", last | kind << 1 | size << 3)[:3]
        if kind == 1:
            blocks += b"r"
        else:
            blocks += bytes(min(size, _MOST))
        if last and number % 2:
            break
    return blocks
