# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Layers whose single bytes cost much processor time or memory, in whatever size."""

from __future__ import annotations

import itertools
import os
import struct
import typing as t

from ansible_collections.hypervisor.oci.tests.images.builder import (
    Image,
    Layer,
    file,
    opaque,
    pax_records,
    write_oci_archive,
    zstd_stored_frame,
)
from ansible_collections.hypervisor.oci.tests.images.documents import LAYER
from ansible_collections.hypervisor.oci.tests.limits.images import MIB, extended, header, layered, streamed

DIRECTORY, FIFO, FILE, HARD_LINK, SYMLINK = b"5", b"6", b"0", b"1", b"2"
_LONG = 240
# of one block of a zstd frame
_PIECE = 128 * 1024


def _record(key: bytes, value: bytes) -> bytes:
    """One pax record."""
    return pax_records(t.cast(t.Any, [(key.decode(), value)]))


# -- extended headers


def acl_text(folder: str, kind: bytes, which: str, count: int) -> str:
    """Entries of one type, each with an ACL text of nearly 1 MiB."""
    text = b",".join(b"u:%d:r" % number for number in range(100_000, 210_000))
    content = _record(b"SCHILY.acl." + which.encode(), text[:1_000_000])
    parts = (extended(content) + header(b"e%d" % number, kind, link=b"f") for number in range(count))
    return streamed(folder, itertools.chain([header(b"f", FILE)], parts))


def acl_of_directory(folder: str, count: int) -> str:
    """One directory over and over, with an ACL of as many lines as an extended attribute holds."""
    base = [b"u::rwx", b"g::rwx", b"o::rwx", b"m::rwx"]
    users = [b"u:%d:r" % number for number in range(4, 4000)]
    content = _record(b"SCHILY.acl.access", b",".join(base + users))
    return streamed(folder, [extended(content) + header(b"d", DIRECTORY)] * count)


def tiny_records(folder: str, records: int, count: int) -> str:
    """Files, each with so many of the smallest pax records."""
    content = b"5 a=\n" * records
    parts = (extended(content) + header(b"f%d" % n, FILE) for n in range(count))
    return streamed(folder, parts)


def forbidden_xattrs(folder: str, count: int) -> str:
    """Symlinks with user attributes, which the kernel refuses one by one."""
    pairs = [(f"SCHILY.xattr.user.{number}", b"") for number in range(30)]
    content = pax_records(t.cast(t.Any, pairs))
    parts = (extended(content) + header(b"l%d" % n, SYMLINK, link=b"f") for n in range(count))
    return streamed(folder, parts)


def file_xattrs(folder: str, count: int, kind: str) -> str:
    """Files with attributes: small ones, encoded ones, ones that are filtered, or a capability."""
    value = struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0)
    names: dict[str, list[tuple[str, bytes]]] = {
        "small": [(f"SCHILY.xattr.user.{n}", b"") for n in range(30)],
        "encoded": [("LIBARCHIVE.xattr.user." + "%41" * 200 + f"{n}", b"") for n in range(30)],
        "filtered": [(f"SCHILY.xattr.trusted.{n}", b"") for n in range(30)],
        "capability": [("SCHILY.xattr.security.capability", value)],
    }
    content = pax_records(t.cast(t.Any, names[kind]))
    parts = (extended(content) + header(b"f%d" % n, FILE) for n in range(count))
    return streamed(folder, parts)


def empty_global_headers(folder: str, count: int) -> str:
    """As many global headers before each file as one entry may have."""
    several = extended(b"", b"g") * 2000
    return streamed(folder, (several + header(b"f%d" % n, FILE) for n in range(count)))


def paths_of_dots(folder: str, count: int, kind: bytes) -> str:
    """Names, or targets of hard links, that lead nowhere for nearly a MiB."""
    way = b"./" * 490_000
    parts = []
    for number in range(count):
        # what is the same is looked up once
        if kind == FILE:
            path = way + b"d%d/f" % number
            parts.append(extended(_record(b"path", path)) + header(b"f", FILE))
        else:
            link = extended(_record(b"linkpath", way + b"f"))
            parts.append(link + header(b"l%d" % number, HARD_LINK))
    return streamed(folder, [header(b"f", FILE), *parts])


def one_byte_regions(folder: str, count: int) -> str:
    """Sparse files of one byte in each page."""
    regions = 40_000
    pairs = b"".join(b"%d\n1\n" % (4096 * n) for n in range(regions))
    text = b"%d\n" % regions + pairs
    text += bytes(-len(text) % 512)
    pax: dict[t.Any, t.Any] = {"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.realsize": 4096 * regions}
    data = text + b"x" * regions
    one = [file(f"f{n % 2}", data, pax=pax).render() for n in range(count)]
    return streamed(folder, one)


# -- directories and names


def flat_directories(folder: str, count: int, length: int = 0) -> str:
    """Directories beside each other, every one with owner and time of its own."""
    return streamed(folder, _directories(count, length))


def _directories(count: int, length: int = 0) -> t.Iterator[bytes]:
    for number in range(count):
        path = b"t%d/%d" % (number // 1000, number)
        yield _entry(path + b"n" * max(0, length - len(path)), DIRECTORY)


def _entry(path: bytes, kind: bytes, link: bytes = b"") -> bytes:
    """A header, with an extended one where the name is long."""
    if len(path) <= 100:
        return header(path, kind, link=link)
    return extended(path, b"L") + header(path[:100], kind, link=link)


def long_names_above(folder: str, count: int, length: int = _LONG) -> str:
    """A directory, and a layer with files in it: what that layer brings must be known by name."""
    return layered(folder, [[header(b"d", DIRECTORY)], _named(count, length)])


def _named(count: int, length: int) -> t.Iterator[bytes]:
    for number in range(count):
        name = b"%d" % number
        yield _entry(b"d/" + name + b"n" * max(0, length - len(name)), FILE)


def long_names_hidden(folder: str, count: int) -> str:
    """Files of long names in one directory, and a layer that hides them all."""
    own = [opaque("d").render(), header(b"d/own", FILE)]
    return layered(folder, [_named(count, _LONG), own])


def top_names(folder: str, names: int, layers: int) -> str:
    """Files in the root, and layer after layer above them."""
    first = (header(b"f%d" % number, FILE) for number in range(names))
    return layered(folder, [first, *[[header(b"g", FILE)]] * layers])


def all_at_once(folder: str, count: int) -> str:
    """Directories in a stream that needs the largest window, over a config of many values."""
    data = b"".join(_directories(count)) + bytes(1024)
    pieces = [data[start : start + _PIECE] for start in range(0, len(data), _PIECE)]
    # one frame: it says 128 MiB in its header, and has blocks that are stored
    blocks = [
        (len(piece) << 3 | (number == len(pieces))).to_bytes(3, "little") + piece
        for number, piece in enumerate(pieces, 1)
    ]
    frame = b"".join([b"\x28\xb5\x2f\xfd", bytes([0, (27 - 10) << 3]), *blocks])
    layer = Layer(edit_tar=lambda _tar: data, compression=lambda _tar: frame, media_type=LAYER + "+zstd")
    labels = {f"label-number-{number}": "" for number in range(9000)}
    image = Image([layer], {"Labels": labels})
    return write_oci_archive(os.path.join(folder, "a.tar"), image)


# -- entries


def same_again(folder: str, kind: bytes, count: int, level: int = 1) -> str:
    """One entry over and over, each of which removes the one before."""
    link = b"g" if kind in (HARD_LINK, SYMLINK) else b""
    first = [header(b"g", FILE)]
    again = [header(b"f", kind, link=link)] * count
    return streamed(folder, first + again, level)


def trees_replaced(folder: str, count: int) -> str:
    """A small tree that a file replaces, over and over."""
    tree = [header(b"d/" + b"%d/" % n * 3, DIRECTORY) for n in range(10)]
    return streamed(folder, [*tree, header(b"d", FILE)] * count)


def levels_again(folder: str, levels: int, count: int) -> str:
    """Files far down in more directories than are held open, one after the other."""
    ways = [b"%d/" % number + b"d/" * levels for number in range(150)]
    parts = (_entry(ways[number % 150] + b"%d" % number, FILE) for number in range(count))
    return streamed(folder, parts)


def links_again(folder: str, links: int, count: int) -> str:
    """Files through a chain of links, by two ways in turn."""
    chain = [header(b"l%d" % n, SYMLINK, link=b"l%d" % (n + 1)) for n in range(links)]
    start = [header(b"l%d" % links, DIRECTORY), *chain, header(b"d", DIRECTORY)]
    pairs = (header((b"l0/%d", b"d/%d")[number % 2] % number, FILE) for number in range(count))
    return streamed(folder, itertools.chain(start, pairs))


def whiteouts_of_nothing(folder: str, count: int) -> str:
    """Whiteouts of what was never there."""
    marks = (header(b"d/.wh.%d" % number, FILE) for number in range(count))
    return layered(folder, [[header(b"d", DIRECTORY)], marks])


def large_accounts(folder: str) -> str:
    """A user by name, whose group is in files of nearly a MiB."""
    size = MIB - 100
    passwd = (b"a:x:1:1::/:\n" * (size // 12))[: size // 12 * 12] + b"u:x:5:5::/:\n"
    group = b"g:x:1:" + b"v," * (size // 2 - 10) + b"u\n"
    image = Image([Layer(file("etc/passwd", passwd), file("etc/group", group))], {"User": "u"})
    return write_oci_archive(os.path.join(folder, "a.tar"), image)


# -- compressed streams


def zstd_skipped(folder: str, count: int) -> str:
    """A layer with very many frames that are skipped."""
    skipped = b"\x50\x2a\x4d\x18" + bytes(4)
    layer = Layer(
        file("f", b"x"), compression=lambda data: zstd_stored_frame(data) + skipped * count, media_type=LAYER + "+zstd"
    )
    return write_oci_archive(os.path.join(folder, "a.tar"), Image([layer]))


# -- documents


def large_configs(folder: str, count: int) -> str:
    """Images of different configs, each with very many labels."""
    images = []
    for number in range(count):
        labels = {f"l{number}-{label}": "" for label in range(9000)}
        platform: dict[str, t.Any] = {"platform": None}
        layer = Layer(file("f"))
        images.append(Image([layer], {"Labels": labels}, descriptor=platform))
    names = [image.listed(ref=f"n{number}") for number, image in enumerate(images)]
    return write_oci_archive(os.path.join(folder, "a.tar"), *names)


def large_environment(folder: str) -> str:
    """A config with very many variables."""
    env = [f"V{number}=" for number in range(200_000)]
    image = Image([Layer(file("f"))], {"Env": env})
    return write_oci_archive(os.path.join(folder, "a.tar"), image)


def wide_text(folder: str, count: int) -> str:
    """Images whose configs hold texts of nearly 3 MiB each, which take four bytes for each letter."""
    images = []
    for number in range(count):
        text = "x" * (MIB - 1000) + "\U0001f600"
        labels = {f"l{label}": text for label in range(3)}
        platform: dict[str, t.Any] = {"platform": None}
        config = {"Labels": labels, "User": str(number)}
        images.append(Image([Layer(file("f"))], config, descriptor=platform))
    names = [image.listed(ref=f"n{number}") for number, image in enumerate(images)]
    return write_oci_archive(os.path.join(folder, "a.tar"), *names)
