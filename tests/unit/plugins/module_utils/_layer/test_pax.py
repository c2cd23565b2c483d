# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The records of pax headers (docs/behaviour.md, sections 3 and 6)."""

from __future__ import annotations

import base64

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.pax import PaxFields
from ansible_collections.hypervisor.oci.plugins.module_utils._source.tar_header import HeaderError, parse_pax


def test_nothing_leaves_the_header_alone() -> None:
    fields = PaxFields([])
    assert (fields.path, fields.linkpath, fields.size) == (None, None, None)
    assert (fields.uid, fields.gid, fields.mtime) == (None, None, None)
    assert (fields.xattrs, fields.acls, fields.sparse) == ({}, {}, [])


@pytest.mark.parametrize("key", [b"path", b"linkpath", b"size", b"uid", b"gid", b"mtime"])
def test_an_empty_value_says_nothing(key: bytes) -> None:
    assert vars(PaxFields([(key, b"")])) == vars(PaxFields([]))


@pytest.mark.parametrize(
    ("value", "nanoseconds"),
    [
        (b"0", 0),
        (b"-0", 0),
        (b"-0.5", -500_000_000),
        (b"12.000000001", 12_000_000_001),
        (b"1.9999999999999", 1_999_999_999),
        (b"-1.9999999999999", -1_999_999_999),
        (b"9223372036854775807", (2**63 - 1) * 10**9),
        (b"0" * 40 + b"12.5", 12_500_000_000),
        (b"-" + b"0" * 40 + b"1", -(10**9)),
    ],
)
def test_times(value: bytes, nanoseconds: int) -> None:
    assert PaxFields([(b"mtime", value)]).mtime == nanoseconds


@pytest.mark.parametrize(
    "value", [b"nan", b"-nan", b"inf", b"1,5", b"1.5.5", b"1e3", b" 1", b"1 ", b"1\n", b"--1", b".5", b"9" * 30]
)
def test_times_that_are_none(value: bytes) -> None:
    with pytest.raises(HeaderError, match="the pax record mtime is not a valid time"):
        PaxFields([(b"mtime", value)])


@pytest.mark.parametrize("order", [1, -1])
def test_schily_wins_over_libarchive(order: int) -> None:
    """Section 6."""
    records = [(b"SCHILY.xattr.user.a", b"raw"), (b"LIBARCHIVE.xattr.user.a", base64.b64encode(b"encoded"))]
    assert PaxFields(records[::order]).xattrs == {b"user.a": b"raw"}


@pytest.mark.parametrize(
    ("key", "value", "result"),
    [
        (b"user.a", b"", {b"user.a": b""}),
        (b"user.a", b"YQ==", {b"user.a": b"a"}),
        (b"user.a", b"YQ", {b"user.a": b"a"}),
        (b"user.a", b"YQ=", {b"user.a": b"a"}),
        (b"user.a", b"YWI", {b"user.a": b"ab"}),
        (b"user.%3d%25%20%ff", b"YQ", {b"user.=% \xff": b"a"}),
        (b"user.a%2", b"YQ", {b"user.a%2": b"a"}),
    ],
)
def test_libarchives_encodings(key: bytes, value: bytes, result: dict[bytes, bytes]) -> None:
    """Section 6: URL-encoded names, base64 values with or without padding."""
    assert PaxFields([(b"LIBARCHIVE.xattr." + key, value)]).xattrs == result


@pytest.mark.parametrize("value", [b"Y", b"YQ===", b"Y Q=", b"\xff\xff", b"YQ==YQ"])
def test_values_that_are_no_base64(value: bytes) -> None:
    with pytest.raises(HeaderError, match="is not valid base64"):
        PaxFields([(b"LIBARCHIVE.xattr.user.a", value)])


def test_sparse_records_keep_their_order_and_repetitions() -> None:
    records = [
        (b"GNU.sparse.offset", b"0"),
        (b"GNU.sparse.numbytes", b"1"),
        (b"GNU.sparse.offset", b"5"),
        (b"GNU.sparse.numbytes", b""),
    ]
    assert PaxFields(records).sparse == [(b"offset", b"0"), (b"numbytes", b"1"), (b"offset", b"5"), (b"numbytes", b"")]


@pytest.mark.parametrize("key", [b"size", b"uid", b"gid"])
def test_leading_zeros_do_not_count(key: bytes) -> None:
    """Section 3: a number is a number, however it is filled up."""
    fields = PaxFields([(key, b"0" * 40 + b"7")])
    assert getattr(fields, key.decode()) == 7
    assert getattr(PaxFields([(key, b"0" * 40)]), key.decode()) == 0
    for wrong in (b"9223372036854775808", b"1" * 20, b"0" * 40 + b"1" * 20, b"-7", b"7 ", b"0x7"):
        with pytest.raises(HeaderError, match="the pax record"):
            PaxFields([(key, wrong)])


def test_leading_zeros_of_a_record() -> None:
    for zeros in (1, 10, 40):
        rest = b" path=x\n"
        length = zeros + 2 + len(rest)
        assert parse_pax(b"0" * zeros + b"%02d" % length + rest + b"10 uid=77\n") == [(b"path", b"x"), (b"uid", b"77")]
    for wrong in (b"0" * 40 + b" a=b\n", b"1" * 30 + b" a=b\n", b"+6 a=b\n", b"000 a=b\n", b" a=b\n", b"0" * 40):
        with pytest.raises(HeaderError, match="a pax record"):
            parse_pax(wrong)


def test_the_label_of_gnu_tar_is_an_attribute() -> None:
    """Section 6: so it is filtered, counted, or written where ``xattrs`` names it."""
    label = (b"RHT.security.selinux", b"system_u:object_r:bin_t:s0")
    assert PaxFields([label]).xattrs == {b"security.selinux": label[1]}
    own = (b"SCHILY.xattr.security.selinux", b"other")
    for records in ([label, own], [own, label]):
        assert PaxFields(records).xattrs == {b"security.selinux": b"other"}


@pytest.mark.parametrize(
    ("key", "counts"),
    [
        (b"SCHILY.acl.ace", ["acls_filtered"]),
        (b"SCHILY.fflags", ["file_flags_ignored"]),
        (b"VENDOR.thing", ["pax_records_ignored"]),
        (b"LIBARCHIVE.symlinktype", ["pax_records_ignored"]),
        (b"atime", []),
        (b"LIBARCHIVE.creationtime", []),
        (b"uname", []),
        (b"comment", []),
        (b"SCHILY.nlink", []),
    ],
)
def test_nothing_is_left_out_without_a_count(key: bytes, counts: list[str]) -> None:
    """Section 6, but for what no tree has: other times, names of owners, facts about the archive."""
    assert PaxFields([(key, b"x")]).left_out == counts
