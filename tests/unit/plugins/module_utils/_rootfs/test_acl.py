# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""POSIX ACLs as text and as bytes (docs/behaviour.md, section 6)."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.acl import (
    AclEntry,
    AclError,
    group_bits_without,
    parse_binary,
    parse_text,
    to_binary,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.ids import IdMap, UnmappedError

NONE = 0xFFFFFFFF
USER_OBJ, USER, GROUP_OBJ, GROUP, MASK, OTHER = 1, 2, 4, 8, 16, 32
UIDS = IdMap("uid", ((0, 100000, 2000),))
GIDS = IdMap("gid", ((0, 200000, 2000),))


def binary(*entries: tuple[int, int, int]) -> bytes:
    """What the kernel takes."""
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *e) for e in entries)


FULL = [(USER_OBJ, 7, NONE), (USER, 6, 1000), (GROUP_OBJ, 5, NONE), (GROUP, 4, 50), (MASK, 7, NONE), (OTHER, 0, NONE)]


@pytest.mark.parametrize(
    "text",
    [
        # star and GNU tar: names, with the number as a fourth field
        "user::rwx,user:app:rw-:1000,group::r-x,group:staff:r--:50,mask::rwx,other::---",
        # numbers alone
        "user::rwx,user:1000:rw-,group::r-x,group:50:r--,mask::rwx,other::---",
        # libarchive; getfacl's lines, blanks and comments
        "user::rwx\nuser:1000:rw-\ngroup::r-x\ngroup:50:r--\nmask::rwx\nother::---\n",
        "# file: f\n user::rwx \nuser:1000:rw- #effective:rw-\n\ngroup::r-x\ngroup:50:r--\nmask:rwx\nother:---",
        # short forms, any order, letters without dashes
        "o::,m::rwx,g:50:r,g::rx,u:1000:rw,u::rwx",
        "other::---,mask::rwx,group:staff:r--:50,group::r-x,user:app:rw-:1000,user::rwx",
    ],
)
def test_texts(text: str) -> None:
    """Section 6: SCHILY.acl text with numeric ids; sorted as the kernel wants it."""
    assert parse_text(text.encode()) == FULL


@pytest.mark.parametrize(
    "line",
    ["user:app:rw-", "user:app:rw-:", "user:app:rw-:app", "group:staff:r--", "user:-1:rw-", "user:4294967295:rwx", "user:99999999999999:rwx",
     "user:00000000000000004294967295:rwx", "group:x:r--:٣"],
)  # fmt: skip
def test_names_are_not_looked_up(line: str) -> None:
    """Section 6: an ACL that names somebody without a number is an error."""
    with pytest.raises(AclError) as caught:
        parse_text(f"user::rwx,{line},other::---".encode())
    assert str(caught.value) == (f"the ACL line {line!r} has no valid id, and names are not looked up")


@pytest.mark.parametrize(
    "line",
    ["nonsense", "user", "user:", "user::rwxr", "user::rwz", "user::r w", "mask:5:rwx", "other:5:rwx", "flag::rwx", "default:user::rwx:1:2", "user::RWX"],
)  # fmt: skip
def test_lines_that_are_none(line: str) -> None:
    with pytest.raises(AclError) as caught:
        parse_text(f"user::rwx,{line}".encode())
    assert str(caught.value) == f"the ACL line {line!r} is malformed"


def test_a_long_line_is_cut_in_the_message() -> None:
    with pytest.raises(AclError) as caught:
        parse_text(b"x" * 10_000)
    assert len(str(caught.value)) < 200


def test_binary_there_and_back() -> None:
    entries = parse_binary(binary(*FULL))
    assert entries == FULL
    assert to_binary(entries, IdMap("uid"), IdMap("gid")) == binary(*FULL)


def test_ids_are_mapped() -> None:
    """Section 6: those of users and groups, each by its own map, and no others."""
    mapped = [(tag, permissions, {USER: 101000, GROUP: 200050}.get(tag, NONE)) for tag, permissions, _number in FULL]
    entries = [AclEntry(*entry) for entry in FULL]
    assert to_binary(entries, UIDS, GIDS) == binary(*mapped)


@pytest.mark.parametrize(("tag", "what"), [(USER, "uid"), (GROUP, "gid")])
def test_an_id_outside_of_the_map(tag: int, what: str) -> None:
    with pytest.raises(UnmappedError, match=f"no range of {what}_map contains the {what} 5000"):
        to_binary([AclEntry(tag, 7, 5000)], UIDS, GIDS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"", "the ACL has an invalid length"),
        (b"\2\0", "the ACL has an invalid length"),
        (binary(*FULL)[:-1], "the ACL has an invalid length"),
        (binary(*FULL) + b"\0", "the ACL has an invalid length"),
        (b"\1" + binary(*FULL)[1:], "the ACL does not have version 2"),
        (b"\0\0\0\0", "the ACL does not have version 2"),
    ],
)
def test_bytes_that_are_no_acl(value: bytes, message: str) -> None:
    with pytest.raises(AclError) as caught:
        parse_binary(value)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("entries", "mode", "expected"),
    [
        # group:: and the mask
        ([(GROUP_OBJ, 5, NONE), (MASK, 7, NONE)], 0o670, 0o650),
        ([(GROUP_OBJ, 7, NONE), (MASK, 1, NONE)], 0o670, 0o610),
        ([(GROUP_OBJ, 6, NONE), (MASK, 3, NONE)], 0o4777, 0o4727),
        ([(GROUP_OBJ, 4, NONE)], 0o640, 0o640),
        # an ACL that says nothing of its group gives it nothing
        ([(MASK, 7, NONE)], 0o670, 0o600),
        # a named group's permissions are not the group's
        ([(GROUP_OBJ, 0, NONE), (GROUP, 7, 50), (MASK, 7, NONE)], 0o670, 0o600),
    ],
)
def test_group_bits_of_a_file_that_must_do_without(
    entries: list[tuple[int, int, int]], mode: int, expected: int
) -> None:
    """Section 6, ``acl: drop``: rights never widen."""
    assert group_bits_without(binary(*entries), mode) == expected
