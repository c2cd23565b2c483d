# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The tar writer of the image builder against the standard library's reader.

The dialects are those of docs/behaviour.md, section 3.
"""

from __future__ import annotations

import io
import tarfile
import typing as t

import pytest
from ansible_collections.hypervisor.oci.tests.images.builder import (
    ZERO_BLOCK,
    Entry,
    base_256,
    block,
    char,
    directory,
    entry,
    fifo,
    file,
    global_header,
    hardlink,
    nanoseconds,
    octal,
    opaque,
    pax_records,
    raw,
    sparse,
    symlink,
    tar,
    whiteout,
)

DIALECTS = ("v7", "ustar", "gnu", "pax")
LONG = "/".join(["directory"] * 12) + "/file"
VERY_LONG = "/".join(["directory"] * 40) + "/file"


def read(data: bytes) -> list[tarfile.TarInfo]:
    """All members, by the standard library."""
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


def read_one(member: Entry, dialect: t.Any = "pax") -> tarfile.TarInfo:
    """The one member of a tar."""
    (info,) = read(tar([member], dialect=dialect))
    return info


@pytest.mark.parametrize("dialect", DIALECTS)
def test_kinds_of_entries(dialect: t.Any) -> None:
    """Section 3: what each dialect says of files, directories and links is what others read."""
    data = tar(
        [
            directory("etc", 0o700, uid=1, gid=2, mtime=3),
            file("etc/file", "content", 0o4755, uid=0o7777777, gid=5, mtime=0o77777777777),
            symlink("etc/link", "../file"),
            hardlink("hard", "etc/file"),
            fifo("pipe"),
        ],
        dialect=dialect,
    )
    infos = read(data)
    assert [(info.name, info.linkname) for info in infos] == [
        ("etc", ""),
        ("etc/file", ""),
        ("etc/link", "../file"),
        ("hard", "etc/file"),
        ("pipe", ""),
    ]
    assert [info.isdir() for info in infos[:1]] + [info.isreg() for info in infos[1:2]] == [True, True]
    assert infos[2].issym() and infos[3].islnk() and infos[4].isfifo()
    first, second = infos[:2]
    assert (first.mode, first.uid, first.gid, first.mtime) == (0o700, 1, 2, 3)
    assert (second.mode, second.uid, second.gid) == (0o4755, 0o7777777, 5)
    assert (second.mtime, second.size) == (0o77777777777, 7)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        stream = archive.extractfile(second)
        assert stream is not None and stream.read() == b"content"


@pytest.mark.parametrize("dialect", DIALECTS[1:])
def test_devices(dialect: t.Any) -> None:
    """Section 3: devices have their numbers."""
    first, second = read(tar([char("null", 1, 3), block("disk", 8, 17)], dialect=dialect))
    assert first.ischr() and (first.devmajor, first.devminor) == (1, 3)
    assert second.isblk() and (second.devmajor, second.devminor) == (8, 17)


@pytest.mark.parametrize("dialect, other", [("ustar", tarfile.USTAR_FORMAT), ("gnu", tarfile.GNU_FORMAT)])
def test_header_is_that_of_the_standard_library(dialect: t.Any, other: t.Any) -> None:
    """Section 3: byte for byte, for a device, where no field may be left blank."""
    info = tarfile.TarInfo("dev/tty")
    info.type = tarfile.CHRTYPE
    info.mode, info.uid, info.gid, info.mtime = 0o620, 1, 5, 1700000000
    info.devmajor, info.devminor = 5, 0
    info.uname, info.gname = "daemon", "tty"
    ours = char("dev/tty", 5, 0, 0o620, uid=1, gid=5, mtime=1700000000, uname="daemon", gname="tty")
    assert ours.render(dialect) == info.tobuf(other)


@pytest.mark.parametrize("dialect", ["gnu", "pax"])
def test_long_names_of_any_length(dialect: t.Any) -> None:
    """Section 3: GNU's long names and links, pax path and linkpath."""
    info = read_one(symlink(VERY_LONG, "../" + VERY_LONG), dialect)
    assert (info.name, info.linkname) == (VERY_LONG, "../" + VERY_LONG)


def test_ustar_prefix() -> None:
    """Section 3: a name of up to 256 bytes is split at a slash."""
    data = file(LONG).render("ustar")
    assert len(data) == 512
    assert data[345:500].rstrip(b"\0") + b"/" + data[:100].rstrip(b"\0") == LONG.encode()
    assert read_one(file(LONG), "ustar").name == LONG


@pytest.mark.parametrize("dialect", DIALECTS)
def test_name_of_exactly_100_bytes_needs_nothing_more(dialect: t.Any) -> None:
    """Section 3: the name field need not end with a NUL."""
    name = "n" * 100
    assert len(file(name).render(dialect)) == 512
    assert read_one(file(name), dialect).name == name


def test_pax_is_used_only_where_it_is_needed() -> None:
    """Section 3: a plain entry is an ustar header alone."""
    plain = file("plain", uid=1000, mtime=1700000000)
    assert plain.render() == plain.render("ustar")
    assert len(file("größe").render()) == 3 * 512
    assert read_one(file("größe")).name == "größe"


@pytest.mark.parametrize("dialect", ["gnu", "pax"])
def test_big_and_negative_numbers(dialect: t.Any) -> None:
    """Section 3: base-256 and pax records hold what octal digits cannot."""
    info = read_one(file("a", uid=2**31, gid=2**32 - 2, mtime=-86400), dialect)
    assert (info.uid, info.gid, info.mtime) == (2**31, 2**32 - 2, -86400)


@pytest.mark.parametrize("text", ["1700000000.123456789", "-1.5", "0.000000001", "-7"])
def test_times_with_fractions_are_written_as_given(text: str) -> None:
    """Section 3: mtime with fractions, before the epoch too."""
    info = read_one(file("a", mtime=text))
    assert info.pax_headers["mtime"] == text
    assert info.mtime == float(text)


@pytest.mark.parametrize(
    "value, text",
    [
        (1700000000123456789, "1700000000.123456789"),
        (-1500000000, "-1.500000000"),
        (-1, "-0.000000001"),
        (0, "0.000000000"),
    ],
)
def test_nanoseconds(value: int, text: str) -> None:
    """Section 3: nanoseconds become the text of a pax record without a float in between."""
    assert nanoseconds(value) == text
    assert (
        file("a", mtime=nanoseconds(value))
        .render()[512:]
        .startswith(b"%d mtime=%s\n" % (len(text) + 10, text.encode()))
    )


def test_extended_attributes_and_acls() -> None:
    """Section 3: SCHILY.xattr, LIBARCHIVE.xattr (encoded key, base64 without padding), SCHILY.acl."""
    info = read_one(
        file(
            "a",
            xattrs={"user.text": "value", b"user.bytes": b"a\nb="},
            libarchive_xattrs={"user.with space=": b"\0\1\2\3"},
            acl_access="user::rwx,user:1000:r--",
            acl_default="user::rwx",
        )
    )
    assert info.pax_headers == {
        "SCHILY.xattr.user.text": "value",
        "SCHILY.xattr.user.bytes": "a\nb=",
        "LIBARCHIVE.xattr.user.with%20space%3D": "AAECAw",
        "SCHILY.acl.access": "user::rwx,user:1000:r--",
        "SCHILY.acl.default": "user::rwx",
    }


@pytest.mark.parametrize("form", ["old-gnu", "pax-0.0", "pax-0.1", "pax-1.0"])
@pytest.mark.parametrize("count", [0, 1, 4, 5, 60])
@pytest.mark.parametrize("times", [1, 128])
def test_sparse_files(form: t.Any, count: int, times: int) -> None:
    """Section 3: all four sparse forms, with extension blocks and a hole at the end."""
    regions = [(4096 * number + 512, f"{number:04}" * times) for number in range(count)]
    expected = bytearray(4096 * count + 3)
    for offset, text in regions:
        expected[offset : offset + len(text)] = text.encode()
    data = tar([sparse("dir/a", regions, len(expected), form), file("next")])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        info, following = archive.getmembers()
        assert (info.name, info.size, following.name) == ("dir/a", len(expected), "next")
        stream = archive.extractfile(info)
        assert stream is not None and stream.read() == bytes(expected)


@pytest.mark.parametrize("form", ["old-gnu", "pax-0.0", "pax-0.1", "pax-1.0"])
def test_sparse_file_that_ends_with_data(form: t.Any) -> None:
    """Section 3: no hole at the end, no region of no length."""
    data = tar([sparse("a", [(10, b"end")], 13, form)])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        stream = archive.extractfile("a")
        assert stream is not None and stream.read() == bytes(10) + b"end"
    assert data.count(b"end") == 1


def test_whiteouts() -> None:
    """docs/behaviour.md, section 5: the names of markers."""
    names = [
        whiteout("a").name,
        whiteout("a/b/c").name,
        whiteout(b"\xff").name,
        opaque("a/b").name,
        opaque("a/").name,
        opaque().name,
    ]
    assert names == [b".wh.a", b"a/b/.wh.c", b".wh.\xff", b"a/b/.wh..wh..opq", b"a/.wh..wh..opq", b".wh..wh..opq"]


def test_global_header() -> None:
    """Section 3: a pax global header, seen by others."""
    data = tar([global_header({"comment": "hello"}), file("a")])
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        assert archive.getnames() == ["a"]
        assert archive.pax_headers == {"comment": "hello"}


def test_entry_of_any_type() -> None:
    """Section 3: any type flag, and a name to which nothing is added."""
    long_name = entry("././@LongLink", "L", "name\0", dialect="gnu")
    infos = read(tar([long_name, file("short"), entry("socket", "s"), entry("d", "5")]))
    assert [(info.name, info.type) for info in infos] == [("name", b"0"), ("socket", b"s"), ("d", b"5")]


# -- faults


def test_wrong_checksum() -> None:
    """Section 3: a bad checksum is what others see too."""
    with pytest.raises(tarfile.ReadError):
        read(tar([file("a", fields={"checksum": 1})]))


def test_header_fields_are_what_the_test_says() -> None:
    """Section 3: any bytes in any field, with a checksum that holds."""
    header = file("a", fields={"name": b"b", "size": b"-1\0", "uid": -1, "trailer": b"x" * 8 + b"tar\0"}).render()
    assert header[:2] == b"b\0"
    assert header[124:136] == b"-1".ljust(12, b"\0")
    assert header[116 - 8 : 116] == b"\xff" * 8
    assert header[500:512] == b"x" * 8 + b"tar\0"
    assert header[148:156] == b"%06o\0 " % (sum(header[:148] + header[156:]) + 8 * 32)


def test_pax_size_over_the_size_of_the_header() -> None:
    """Section 3: the two disagree, as in CVE-2025-62518."""
    member = file("a", b"hello", size=0, pax={"size": 5})
    assert member.render()[2 * 512 + 124 : 2 * 512 + 136] == b"00000000000\0"
    infos = read(tar([member, file("b")]))
    assert [(info.name, info.size) for info in infos] == [("a", 5), ("b", 0)]


def test_size_of_what_has_no_data() -> None:
    """Section 3: a link, a directory and a node may claim a size."""
    for member in (
        symlink("a", "b", size=512),
        hardlink("a", "b", size=512),
        directory("a", size=512),
        char("a", 1, 3, size=512),
    ):
        assert len(member.render()) == 512
        assert member.render()[124:136] == b"00000001000\0"


def test_pax_records_replace_repeat_and_drop() -> None:
    """Section 3: records in the test's hands."""
    assert pax_records({"path": "a"}) == b"9 path=a\n"
    # a length that counts its own two, then three digits
    assert [len(pax_records({"k": "v" * size})) for size in (93, 94, 95)] == [99, 101, 102]
    replaced = file("größe", pax={"path": "other"}).render()
    assert b"14 path=other\n" in replaced and "größe".encode() not in replaced[512:1024]
    assert len(file("größe", pax={"path": None}).render()) == 512
    repeated = file("a", pax=[("path", "b"), ("path", "c")]).render()
    assert repeated[512:].startswith(b"9 path=b\n9 path=c\n")
    assert file("a", pax=b"nonsense").render()[512:1024].rstrip(b"\0") == b"nonsense"


def test_raw_bytes_and_end_blocks() -> None:
    """Section 3: bytes as they are; none, one or two blocks of zeros at the end."""
    for count in (0, 1, 2, 20):
        assert tar([raw(b"bytes")], end_blocks=count) == b"bytes" + ZERO_BLOCK * count


def test_base_256() -> None:
    """Section 3: GNU's numbers, as its manual has them."""
    assert base_256(2**33, 12) == b"\x80" + bytes(6) + b"\2" + bytes(4)
    assert base_256(-1, 12) == b"\xff" * 12
    assert base_256(-(2**62), 8) == b"\xc0" + bytes(7)
    with pytest.raises(ValueError, match="does not fit into 8 bytes"):
        base_256(2**62, 8)


def test_octal() -> None:
    """Section 3: digits and a NUL."""
    assert octal(0o755, 8) == b"0000755\0"
    for value in (-1, 8**7):
        with pytest.raises(ValueError, match="octal digits"):
            octal(value, 8)


# -- what the writer itself refuses


@pytest.mark.parametrize(
    "dialect, member, message",
    [
        ("v7", file("a" * 101), "holds a name of 100 bytes"),
        ("ustar", file("a" * 101), "cannot split this name"),
        ("ustar", file("a" * 160 + "/b"), "cannot split this name"),
        ("ustar", directory("a" * 100), "cannot split this name"),
        ("ustar", symlink("a", "b" * 101), "holds a linkname of 100 bytes"),
        ("ustar", file("a", uid=2**31), "has no uid 2147483648"),
        ("ustar", file("a", mtime=-1), "has no mtime -1"),
        ("gnu", file("a", mtime="1.5"), "has no fractions"),
        ("gnu", file("a", xattrs={"user.a": "b"}), "has no xattrs"),
        ("ustar", file("a", acl_access="user::r"), "has no acl_access"),
        ("v7", char("a", 1, 3), "has no devices"),
        ("pax", file("a", mtime="nan"), "is no time"),
        ("pax", file("a", fields={"size": bytes(13)}), "longer than the field size"),
        ("pax", file("a", fields={"name": 1}), "is no number"),
    ],
)
def test_what_a_dialect_cannot_say(dialect: t.Any, member: Entry, message: str) -> None:
    """Section 3: the limits of the dialects; nothing is cut silently."""
    with pytest.raises(ValueError, match=message):
        member.render(dialect)


def test_misspelt_keyword() -> None:
    """A fault that is not made would be a test that cannot fail."""
    wrong: t.Any = {"sise": 5}
    with pytest.raises(TypeError, match="unknown keywords: sise"):
        file("a", **wrong)
