# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The entries of a layer's tar (docs/behaviour.md, section 3)."""

from __future__ import annotations

import tracemalloc
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import Budget
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.entry import (
    BLOCK_DEVICE,
    CHARACTER_DEVICE,
    DIRECTORY,
    FIFO,
    FILE,
    HARD_LINK,
    SYMLINK,
    Entry,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.tar_entries import TarReader
from ansible_collections.hypervisor.oci.plugins.module_utils._report import Report
from ansible_collections.hypervisor.oci.tests.images.builder import (
    ZERO_BLOCK,
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
    raw,
    sparse,
    symlink,
    tar,
)
from ansible_collections.hypervisor.oci.tests.unit.support import Members, chunks

LAYER = "sha256:1234"
DIALECTS = ("v7", "ustar", "gnu", "pax")
SECOND = 10**9


def read(
    data: bytes, chunk: int = 64 * 1024, report: Report | None = None, budget: Budget | None = None
) -> list[tuple[Entry, bytes]]:
    """All entries of a tar, each with its data."""
    reader = TarReader(chunks(data, chunk), LAYER, report or Report(), budget or Budget(2**40, 10**6))
    return [(found, b"".join(map(bytes, reader.data()))) for found in reader]


def read_one(*members: t.Any, dialect: t.Any = "pax") -> Entry:
    """The one entry of a tar."""
    ((found, _data),) = read(tar(members, dialect=dialect))
    return found


def refused(data: bytes) -> str:
    """The one sentence that a wrong tar gives."""
    with pytest.raises(LayerError) as caught:
        read(data)
    message = caught.value.message
    assert message.startswith(f"layer {LAYER}")
    assert message.endswith("; build the image again with a sound tar writer")
    assert "\n" not in message
    return message


# -- dialects


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_says_the_same(dialect: t.Any) -> None:
    """Section 3, dialects: v7, ustar, GNU and pax."""
    found = read(
        tar(
            [
                directory("d", 0o1777, uid=1, gid=2, mtime=1_700_000_000),
                file("d/f", b"content", 0o4755, uid=3, gid=4, mtime=5),
                file("d/empty"),
                symlink("d/s", "../target"),
                hardlink("d/h", "d/f"),
                fifo("d/p", 0o600),
                file("d/block", b"x" * 512),
            ],
            dialect=dialect,
        )
    )
    assert [(e.name.rstrip(b"/"), e.type, e.mode, e.uid, e.gid, e.mtime, e.link, data) for e, data in found] == [
        (b"d", DIRECTORY, 0o1777, 1, 2, 1_700_000_000 * SECOND, b"", b""),
        (b"d/f", FILE, 0o4755, 3, 4, 5 * SECOND, b"", b"content"),
        (b"d/empty", FILE, 0o644, 0, 0, 0, b"", b""),
        (b"d/s", SYMLINK, 0o777, 0, 0, 0, b"../target", b""),
        (b"d/h", HARD_LINK, 0o644, 0, 0, 0, b"d/f", b""),
        (b"d/p", FIFO, 0o600, 0, 0, 0, b"", b""),
        (b"d/block", FILE, 0o644, 0, 0, 0, b"", b"x" * 512),
    ]


@pytest.mark.parametrize("dialect", ["ustar", "gnu", "pax"])
def test_devices_have_their_numbers(dialect: t.Any) -> None:
    found = read(tar([char("c", 5, 1), block("b", 259, 70000)], dialect=dialect))
    assert [(e.type, e.device) for e, _data in found] == [(CHARACTER_DEVICE, (5, 1)), (BLOCK_DEVICE, (259, 70000))]


@pytest.mark.parametrize(
    ("dialect", "name"),
    [
        ("v7", b"n" * 100),
        ("ustar", b"n" * 100),
        ("ustar", b"p" * 155 + b"/" + b"n" * 100),
        ("ustar", b"/".join([b"directory"] * 15)),
        ("gnu", b"n" * 101),
        ("gnu", b"/".join([b"directory"] * 300)),
        ("pax", b"/".join([b"directory"] * 300)),
        ("pax", "größe/☃".encode()),
        ("pax", b"no utf-8 \xff\xfe"),
        ("gnu", b"no utf-8 \xff\xfe"),
        ("v7", b"no utf-8 \xff\xfe"),
        ("v7", b"a\nline"),
    ],
)
def test_names_as_long_and_as_odd_as_each_dialect_can(dialect: t.Any, name: bytes) -> None:
    assert read_one(file(name), dialect=dialect).name == name


@pytest.mark.parametrize("dialect", ["gnu", "pax"])
def test_long_links(dialect: t.Any) -> None:
    target = b"/".join([b"directory"] * 300)
    found = read(tar([symlink("s", target), hardlink("h", target)], dialect=dialect))
    assert [e.link for e, _data in found] == [target, target]


def test_star_has_a_shorter_prefix() -> None:
    """star keeps times behind a prefix of 131 bytes, with its magic at the very end."""
    prefix = b"some/where".ljust(131, b"\0") + b"14370000000 14370000001 "
    member = file("name", dialect="ustar", fields={"prefix": prefix, "trailer": b"\0" * 8 + b"tar\0"})
    assert read_one(member).name == b"some/where/name"


def test_gnu_has_no_prefix() -> None:
    """GNU tar keeps times where ustar has its prefix."""
    member = file("name", dialect="gnu", fields={"prefix": b"14370000000"})
    assert read_one(member).name == b"name"


@pytest.mark.parametrize(
    ("field", "value", "result"),
    [
        ("uid", base_256(2**31, 8), 2**31),
        ("gid", base_256(2**32 - 2, 8), 2**32 - 2),
        ("mtime", base_256(2**40, 12), 2**40 * SECOND),
        ("mtime", base_256(-1, 12), -SECOND),
        ("mtime", base_256(-(2**35), 12), -(2**35) * SECOND),
        ("uid", b"       ", 0),
        ("uid", b"", 0),
        ("uid", b"  17 \0", 0o17),
        ("uid", b"17", 0o17),
        ("mode", b"100644 \0", 0o644),
        ("mode", b"107777 \0", 0o7777),
    ],
)
def test_numbers_of_headers(field: str, value: bytes, result: int) -> None:
    """Octal with blanks or NULs on either side, base-256, nothing at all."""
    found = read_one(file("f", fields={field: value}, dialect="gnu"))
    assert getattr(found, field) == result


@pytest.mark.parametrize("key", ["uid", "gid"])
def test_pax_ids_win_over_the_header(key: t.Any) -> None:
    member = file("f", fields={key: 5}, pax={key: 2**32 - 2})
    assert getattr(read_one(member), key) == 2**32 - 2


@pytest.mark.parametrize(
    ("mtime", "result"),
    [
        ("0", 0),
        ("1700000000", 1_700_000_000 * SECOND),
        ("1700000000.5", 1_700_000_000 * SECOND + 500_000_000),
        ("1700000000.123456789", 1_700_000_000_123_456_789),
        # what is finer than a nanosecond is cut off
        ("1700000000.1234567899", 1_700_000_000_123_456_789),
        ("1.", SECOND),
        ("-1", -SECOND),
        ("-1.25", -1_250_000_000),
        ("-0.000000001", -1),
    ],
)
def test_times_have_fractions_and_may_be_negative(mtime: str, result: int) -> None:
    assert read_one(file("f", pax={"mtime": mtime})).mtime == result
    assert read_one(file("f", mtime=nanoseconds(result))).mtime == result


def test_global_pax_headers_are_counted_and_change_nothing() -> None:
    report = Report()
    data = tar(
        [
            global_header({"comment": "a commit", "path": "other", "uid": 7}),
            file("f"),
            global_header({"mtime": "1"}),
            file("g", pax={"uid": 3}),
        ]
    )
    found = [e for e, _data in read(data, report=report)]
    assert [(e.name, e.uid, e.mtime) for e in found] == [(b"f", 0, 0), (b"g", 3, 0)]
    assert report.to_dict()["counts"] == {"pax_global_headers": 2}


def test_records_without_effect_are_counted() -> None:
    """Section 6."""
    report = Report()
    records: dict[str | bytes, str | bytes | int | None] = {
        "SCHILY.acl.ace": "owner@:r::allow",
        "SCHILY.fflags": "nodump",
        "VENDOR.a": "b",
        "VENDOR.c": "d",
        "atime": "1",
    }
    list(read(tar([file("f", pax=records)]), report=report))
    assert report.to_dict()["counts"] == {"acls_filtered": 1, "file_flags_ignored": 1, "pax_records_ignored": 2}


def test_an_extended_header_speaks_of_the_next_entry_alone() -> None:
    data = tar([file("a", pax={"path": "long", "uid": 9}), file("b")])
    assert [(e.name, e.uid) for e, _data in read(data)] == [(b"long", 9), (b"b", 0)]


def test_gnus_long_name_wins_over_a_pax_path() -> None:
    """In whatever order the two come."""
    long_name = entry("././@LongLink", "L", b"gnu\0", dialect="gnu")
    for members in ([long_name, file("f", pax={"path": "pax"})], [file("f", pax={"path": "pax"}, dialect="pax")]):
        found = read_one(*members)
        assert found.name == (b"gnu" if len(members) == 2 else b"pax")


@pytest.mark.parametrize(
    ("pax", "name"),
    [
        ([("path", "one"), ("path", "two")], b"two"),
        ([("path", "one"), ("path", "")], b"one"),
        ([("path", "")], b"header"),
        ([("comment", "x"), ("vendor.thing", "y"), ("atime", "nan")], b"header"),
    ],
)
def test_repeated_empty_and_unknown_records(pax: t.Any, name: bytes) -> None:
    assert read_one(file("header", pax=pax)).name == name


def test_old_checksums_of_signed_bytes_are_good() -> None:
    """Some old writers summed signed bytes."""
    plain = bytearray(tar([file(b"\xff\xfe", dialect="v7")], end_blocks=0))
    plain[148:156] = b" " * 8
    signed = sum(byte - 256 if byte > 127 else byte for byte in plain)
    plain[148:156] = b"%06o\0 " % signed
    assert [e.name for e, _data in read(bytes(plain))] == [b"\xff\xfe"]


# -- how far data reaches


@pytest.mark.parametrize("header_size", [0, 3, 5000])
def test_a_pax_size_decides_how_far_data_reaches(header_size: int) -> None:
    """Section 3: CVE-2025-62518; what hides in the data is no entry."""
    hidden = tar([file("hidden", b"x")])
    data = tar([file("f", hidden, size=header_size, pax={"size": len(hidden)})])
    assert [(e.name, content) for e, content in read(data)] == [(b"f", hidden)]


@pytest.mark.parametrize("size", [1, 512, 10_000_000])
@pytest.mark.parametrize(
    "member",
    [
        lambda size: directory("x", size=size),
        lambda size: symlink("x", "y", size=size),
        lambda size: hardlink("x", "y", size=size),
        lambda size: char("x", 1, 3, size=size),
        lambda size: block("x", 1, 3, size=size),
        lambda size: fifo("x", size=size),
        lambda size: symlink("x", "y", pax={"size": size}),
    ],
    ids=["directory", "symlink", "hardlink", "char", "block", "fifo", "pax size"],
)
def test_links_directories_and_nodes_carry_no_data(member: t.Any, size: int) -> None:
    data = tar([member(size), file("next", b"!")])
    found = read(data)
    assert [e.name.rstrip(b"/") for e, _data in found] == [b"x", b"next"]
    assert found[1][1] == b"!"


@pytest.mark.parametrize("chunk", [1, 7, 511, 512, 513, 1000, 4096, 10**6])
def test_any_chunks_of_the_stream_give_the_same(chunk: int) -> None:
    """Section 3: memory does not grow with the layer, so a stream comes in any pieces."""
    members = [
        directory("d"),
        file("d/" + "long" * 60, bytes(range(256)) * 9),
        file("d/gnu" + "long" * 60, b"gnu", dialect="gnu"),
        sparse("d/s", [(512, b"s" * 512), (4096, b"t" * 700)], 9000, "pax-1.0"),
        sparse("d/o", [(n * 1024, b"o" * 512) for n in range(40)], 50000, "old-gnu"),
        file("d/last", b"end", xattrs={"user.a": "b" * 3000}),
    ]
    assert read(tar(members), chunk) == read(tar(members))


def test_data_that_nobody_reads_is_skipped() -> None:
    data = tar([file("a", b"a" * 5000), file("b", b"b" * 5000), file("c", b"c")])
    reader = TarReader(chunks(data, 700), LAYER, Report(), Budget(2**40, 100))
    seen = []
    for found in reader:
        piece = next(reader.data(), b"")
        seen.append((found.name, bytes(piece[:1])))
    assert seen == [(b"a", b"a"), (b"b", b"b"), (b"c", b"c")]


# -- types


@pytest.mark.parametrize("flag", [b"0", b"\0", b"7"])
def test_files_of_three_flags(flag: bytes) -> None:
    """Section 4: 7, a contiguous file, is a file."""
    ((found, data),) = read(tar([entry("f", flag, b"content")]))
    assert (found.type, data) == (FILE, b"content")


def test_an_old_directory_is_known_by_its_slash() -> None:
    assert read_one(entry("d/", b"\0")).type == DIRECTORY
    assert read_one(entry("d/", b"0")).type == FILE


@pytest.mark.parametrize("flag", [b"s", b"V", b"M", b"D", b"N", b"A", b"8", b"\xff"])
def test_unknown_types_and_sockets_are_errors(flag: bytes) -> None:
    """Section 4."""
    shown = flag.decode("latin-1")
    assert refused(tar([entry("a/thing", flag)])).startswith(
        f"layer {LAYER}, entry 'a/thing': entries of type {shown!r} are not supported;"
    )


# -- extended attributes and ACLs (section 6 says what becomes of them)


def test_xattrs_of_both_writers() -> None:
    """Section 6: SCHILY wins over LIBARCHIVE, in whatever order they come."""
    member = file(
        "f",
        xattrs={"user.both": b"raw\0\n\xff", "user.equals=in": "v", "user.empty": ""},
        libarchive_xattrs={"user.both": "encoded", "user.percent %": b"\0\1\2"},
    )
    assert read_one(member).xattrs == {
        b"user.both": b"raw\0\n\xff",
        b"user.percent %": b"\0\1\2",
        b"user.equals": b"in=v",
        b"user.empty": b"",
    }


def test_texts_of_acls() -> None:
    member = directory("d", acl_access="user::rwx", acl_default="other::r--")
    assert read_one(member).acls == {
        b"system.posix_acl_access": b"user::rwx",
        b"system.posix_acl_default": b"other::r--",
    }


# -- errors: the layer, the entry, what to do


@pytest.mark.parametrize(
    ("member", "message"),
    [
        (file("f", fields={"checksum": 1}), "the checksum of a tar header is wrong"),
        (file("f", fields={"checksum": b"nonsense"}), "the checksum field 'nonsense' is not a number"),
        (file("f", fields={"size": -1}), "the size is negative: -1"),
        (file("f", fields={"uid": -1}), "the uid is negative: -1"),
        (file("f", fields={"gid": -5}), "the gid is negative: -5"),
        (file("f", fields={"mode": -5}), "the mode is negative: -5"),
        (file("f", fields={"size": b"00000000-17\0"}), "the size field '00000000-17\\x00' is not a number"),
        (file("f", fields={"size": b"00000000019\0"}), "the size field '00000000019\\x00' is not an octal number"),
        (
            file("f", fields={"mtime": b"nan"}),
            "the mtime field 'nan\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00' is not a number",
        ),
        (file("f", fields={"size": b"\x80" + b"\xff" * 11}), "the size does not fit into 64 bits"),
        (file("f", fields={"mtime": b"\x80" + b"\xff" * 11}), "the mtime does not fit into 64 bits"),
        (file("f", fields={"uid": 2**32 - 1}), "the owner 4294967295:0 is beyond what a system can hold"),
        (file("f", pax={"gid": 2**32}), "the owner 0:4294967296 is beyond what a system can hold"),
        (file("f", pax={"size": "-1"}), "the pax record size holds '-1'"),
        (file("f", pax={"uid": "-1"}), "the pax record uid holds '-1'"),
        (file("f", pax={"uid": "1e3"}), "the pax record uid holds '1e3'"),
        (file("f", pax={"gid": "0x10"}), "the pax record gid holds '0x10'"),
        (file("f", pax={"size": str(2**63)}), "the pax record size holds '9223372036854775808'"),
        (file("f", pax={"size": "9" * 50}), f"the pax record size holds '{'9' * 40}'"),
        (file("f", pax={"mtime": "nan"}), "the pax record mtime is not a valid time: 'nan'"),
        (file("f", pax={"mtime": "inf"}), "the pax record mtime is not a valid time: 'inf'"),
        (file("f", pax={"mtime": "1e9"}), "the pax record mtime is not a valid time: '1e9'"),
        (file("f", pax={"mtime": "+1"}), "the pax record mtime is not a valid time: '+1'"),
        (file("f", pax={"mtime": "."}), "the pax record mtime is not a valid time: '.'"),
        (file("f", pax={"mtime": str(2**63)}), "the pax record mtime is not a valid time: '9223372036854775808'"),
        (file("f", pax={"path": b"a\0b"}), "the pax record path contains a NUL"),
        (symlink("f", "t", pax={"linkpath": b"a\0b"}), "linkpath contains a NUL"),
        (file("f", pax={"SCHILY.xattr.": "value"}), "a pax record has an invalid name of an extended attribute"),
        (file("f", xattrs={"user." + "x" * 251: "value"}), "a pax record has an invalid name of an extended attribute"),
        (
            file("f", pax={"LIBARCHIVE.xattr.user.%00": "YQ"}),
            "a pax record has an invalid name of an extended attribute",
        ),
        (
            file("f", pax={"LIBARCHIVE.xattr.user.a": "not base64!"}),
            "the extended attribute 'user.a' is not valid base64",
        ),
    ],
)
def test_wrong_numbers_name_layer_and_entry(member: t.Any, message: str) -> None:
    """Section 3, errors."""
    text = refused(tar([file("before", b"!"), member, file("after")]))
    where, _colon, what = text.partition(": ")
    assert where == f"layer {LAYER}, entry 'f'"
    assert what.startswith(message) or message in what


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no record", "a pax record does not begin with its length"),
        (b" 5 a=b\n", "a pax record does not begin with its length"),
        (b"-6 a=b\n", "a pax record does not begin with its length"),
        (b"99 path=x\n", "a pax record's length and content disagree"),
        (b"9 path=xy\n", "a pax record's length and content disagree"),
        (b"0 path=x\n", "a pax record does not begin with its length"),
        (b"5 =x\n", "a pax record's length and content disagree"),
        (b"6 path\n", "a pax record's length and content disagree"),
        (b"10 path=xy", "a pax record's length and content disagree"),
        (b"99999999999999 path=x\n", "a pax record's length and content disagree"),
        (b"9" * 20 + b" path=x\n", "a pax record does not begin with its length"),
    ],
)
def test_malformed_extended_headers(content: bytes, message: str) -> None:
    text = refused(tar([file("f", pax=content)]))
    assert f"entry 'f': {message};" in text


def test_a_hostile_name_cannot_break_the_message() -> None:
    text = refused(tar([file(b"a\nb\x1b[31m\xff" + b"c" * 500, pax={"uid": "x"})]))
    assert "entry 'a\\nb\\x1b[31m\\xff" in text
    assert text.isprintable()
    assert len(text) < 500


def ended(members: Members, cut: int | None = None, end_blocks: int = 2) -> bytes:
    """A tar that ends somewhere."""
    return tar(members, end_blocks=end_blocks)[:cut]


MIDDLE = "the tar ends in the middle of an entry"
PENDING = "the tar ends after an extended header"
NO_UID = "the pax record uid holds 'x'"


@pytest.mark.parametrize(
    ("data", "entry_name", "message"),
    [
        (ended([file("f", b"x" * 600)], 100), None, MIDDLE),
        (ended([file("f", b"x" * 600)], 512), "f", MIDDLE),
        (ended([file("f", b"x" * 600)], 512 + 100), "f", MIDDLE),
        (ended([file("f", b"x" * 600)], 512 + 600), "f", MIDDLE),
        (ended([file("f", b"x" * 600)], 512 + 1023), "f", MIDDLE),
        (ended([file("f"), file("g")], 512 + 511), "f", MIDDLE),
        (ended([file("f", b"x", size=5000)], None, 0), "f", MIDDLE),
        (ended([file("f", pax={"uid": 1})], 512), "././@PaxHeader", MIDDLE),
        (ended([file("f", pax={"uid": 1})], 1024), "././@PaxHeader", PENDING),
        (ended([file("f", pax={"path": "long"})], 1024), "long", PENDING),
        (ended([file("f", pax={"uid": 1})], 1024) + ZERO_BLOCK * 2, "././@PaxHeader", PENDING),
        (ended([file("f", pax={"uid": "x"})], 1024), "././@PaxHeader", NO_UID),
        (ended([file("f", pax={"uid": "x"})], 1100), "././@PaxHeader", MIDDLE),
        (ended([file("n" * 101, dialect="gnu")], 1024), "n" * 101, PENDING),
    ],
)
def test_streams_that_end_too_early(data: bytes, entry_name: str | None, message: str) -> None:
    text = refused(data)
    where = f", entry '{entry_name}'" if entry_name is not None else ""
    assert text.startswith(f"layer {LAYER}{where}: {message};")


# -- the end


@pytest.mark.parametrize("end_blocks", [0, 1, 2, 20])
def test_a_clean_end_needs_no_end_blocks(end_blocks: int) -> None:
    data = tar([file("f", b"x")], end_blocks=end_blocks)
    assert [e.name for e, _data in read(data)] == [b"f"]


@pytest.mark.parametrize("data", [b"", ZERO_BLOCK, ZERO_BLOCK * 2])
def test_a_layer_may_hold_nothing(data: bytes) -> None:
    assert read(data) == []


def test_what_follows_the_end_blocks_is_read_and_ignored() -> None:
    """Section 3: so that it is hashed; another tar behind the end is not applied."""
    rest = iter([tar([file("f")]), b"garbage", tar([file("never")]), b"the very last chunk"])
    reader = TarReader(rest, LAYER, Report(), Budget(2**40, 100))
    assert [e.name for e in reader] == [b"f"]
    assert next(rest, None) is None


def test_a_lone_block_of_zeros_is_an_error() -> None:
    """Section 3: one reader would stop there, another would go on."""
    text = refused(tar([file("f"), raw(ZERO_BLOCK), file("g")]))
    assert "a single zero block between two entries" in text


# -- bounds


def test_extended_headers_of_one_entry_may_hold_a_mebibyte() -> None:
    """Section 3: a fixed limit, and its error says so."""
    fits = tar([file("f", pax={"comment": "x" * (1024 * 1024 - 600)})])
    assert len(read(fits)) == 1
    text = refused(tar([file("f", pax={"comment": "x" * 1024 * 1024})]))
    assert "its extended headers hold more than 1048576 bytes, a fixed limit" in text


def test_many_small_extended_headers_count_together() -> None:
    headers = [raw(global_header({"a": "b"}).render())] * 2100
    assert "a fixed limit" in refused(tar([*headers, file("f")]))


@pytest.mark.parametrize("flag", ["x", "g", "L", "K"])
def test_a_huge_extended_header_is_refused_before_it_is_held(flag: str) -> None:
    """Section 3: memory does not grow with headers."""
    header = entry("huge", flag, size=2**40, dialect="gnu").render()

    def endless() -> t.Iterator[bytes]:
        yield header
        for _number in range(64):
            yield bytes(1024 * 1024)

    reader = TarReader(endless(), LAYER, Report(), Budget(2**60, 100))
    tracemalloc.start()
    try:
        with pytest.raises(LayerError, match="entry 'huge': .* a fixed limit"):
            list(reader)
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_a_large_file_is_never_held() -> None:
    size = 64 * 1024 * 1024

    def stream() -> t.Iterator[bytes]:
        yield file("f", size=size, dialect="gnu").render()
        for _number in range(64):
            yield bytes(1024 * 1024)
        yield ZERO_BLOCK * 2

    reader = TarReader(stream(), LAYER, Report(), Budget(2**40, 100))
    tracemalloc.start()
    try:
        assert [sum(map(len, reader.data())) for _found in reader] == [size]
        assert tracemalloc.get_traced_memory()[1] < 8 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_max_entries() -> None:
    """Section 7, limits; the message names the option."""
    data = tar([file("a"), file("b"), file("c")])
    assert len(read(data, budget=Budget(2**40, 3))) == 3
    with pytest.raises(LayerError) as caught:
        read(data, budget=Budget(2**40, 2))
    assert caught.value.message == (
        f"layer {LAYER}, entry 'c': the image's layers hold more than 2 entries;"
        " raise max_entries if you trust this image"
    )


@pytest.mark.parametrize("form", ["old-gnu", "pax-0.0", "pax-0.1", "pax-1.0"])
def test_sparse_files_count_with_their_apparent_size(form: t.Any) -> None:
    """Section 7, max_size."""
    data = tar([sparse("f", [(0, b"x" * 512)], 10**9, form)])
    with pytest.raises(LayerError) as caught:
        read(data, budget=Budget(10**8, 100))
    assert caught.value.message == (
        f"layer {LAYER}, entry 'f': the image's layers hold more than 100000000 bytes when decompressed;"
        " raise max_size if you trust this image"
    ) or (form in ("pax-0.1", "pax-1.0") and "GNUSparseFile.0/f" in caught.value.message)
