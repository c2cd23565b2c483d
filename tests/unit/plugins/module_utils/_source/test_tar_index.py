# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The index of an outer tar (docs/behaviour.md, section 1)."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import SourceError
from ansible_collections.hypervisor.oci.plugins.module_utils._source import tar_index
from ansible_collections.hypervisor.oci.plugins.module_utils._source.tar_index import TarIndex, index_tar
from ansible_collections.hypervisor.oci.tests.images.builder import (
    Entry,
    base_256,
    block,
    char,
    directory,
    fifo,
    file,
    flip,
    global_header,
    hardlink,
    raw,
    sparse,
    symlink,
    tar,
)

if t.TYPE_CHECKING:
    from ansible_collections.hypervisor.oci.tests.images.tarfiles import Dialect, Member


def index(data: bytes) -> TarIndex:
    """The index of a tar in memory."""
    return index_tar(lambda offset, count: data[offset : offset + count], len(data), "A")


def names(found: TarIndex) -> list[str]:
    """Return the names of all members but directories."""
    return list(vars(found)["_members"])


def content(name: str, *members: Member, dialect: Dialect = "pax") -> bytes | None:
    """What the index of a tar of these members finds under a name."""
    data = tar(members, dialect=dialect)
    member = index(data).find(name)
    if member is None:
        return None
    return data[member.offset : member.offset + member.size]


@pytest.mark.parametrize("dialect", ["v7", "ustar", "gnu", "pax"])
def test_members_are_found_in_every_dialect(dialect: Dialect) -> None:
    members = [directory("blobs"), file("a", b"one"), file("blobs/b", b"x" * 600)]
    found = index(tar(members, dialect=dialect))
    # a directory of v7 is known by its slash alone
    assert {"a", "blobs/b"} <= set(names(found)) <= {"a", "blobs/b", "blobs"}
    assert content("a", *members, dialect=dialect) == b"one"
    assert content("blobs/b", *members, dialect=dialect) == b"x" * 600
    assert content("c", *members, dialect=dialect) is None


@pytest.mark.parametrize("name", ["./a", "a", "/a", ".//a", "a/", "././a"])
def test_names_are_cleaned(name: str) -> None:
    assert content("a", file(name, b"data")) == b"data"


@pytest.mark.parametrize("dialect", ["gnu", "pax"])
def test_long_names_and_links(dialect: Dialect) -> None:
    long = "d/" + "n" * 300
    members = [file(long, b"data"), symlink("x" * 200, long)]
    assert content(long, *members, dialect=dialect) == b"data"
    assert content("x" * 200, *members, dialect=dialect) == b"data"


def test_a_ustar_prefix_is_joined() -> None:
    name = "p" * 120 + "/" + "n" * 60
    assert content(name, file(name, b"data"), dialect="ustar") == b"data"


def test_a_pax_size_decides_how_far_data_reaches() -> None:
    """Section 3, CVE-2025-62518: the header's size is not looked at."""
    smuggled = tar([file("index.json", b"evil")], end_blocks=0)
    outer = file("outer", smuggled, pax={"size": len(smuggled)}, fields={"size": 0})
    assert content("index.json", outer, file("index.json", b"good")) == b"good"
    assert content("index.json", outer) is None
    assert content("outer", outer) == smuggled


def test_global_headers_are_ignored() -> None:
    assert content("a", global_header({"path": "b", "size": 1}), file("a", b"da")) == b"da"


def test_the_last_of_two_wins() -> None:
    assert content("a", file("a", b"old"), file("./a", b"new")) == b"new"
    assert content("a", file("a", b"old"), directory("a")) is None
    assert content("a", directory("a"), file("a", b"new")) == b"new"


def test_names_that_are_no_utf8() -> None:
    assert content("\udcff", file(b"\xff", b"data"), dialect="gnu") == b"data"


def test_links_and_nodes_carry_no_data() -> None:
    link = symlink("l", "a", size=512)
    assert content("l", link, file("a", b"data")) == b"data"
    assert content("a", directory("d", size=1024), file("a", b"data")) == b"data"


# -- links


@pytest.mark.parametrize(
    "link",
    [
        symlink("d/l", "../a"),
        symlink("d/l", "./.././a"),
        symlink("d/l", "x/../../a"),
        hardlink("d/l", "a"),
        hardlink("d/l", "./a"),
    ],
)
def test_links_lead_to_members(link: Entry) -> None:
    assert content("d/l", file("a", b"data"), link) == b"data"


def test_chains_of_links() -> None:
    links = [symlink(f"l{number}", f"l{number + 1}") for number in range(30)]
    assert content("l0", *links, hardlink("l30", "a"), file("a", b"data")) == b"data"


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([symlink("l", "/etc/passwd")], r"'l' is a link out of the archive, to '/etc"),
        ([symlink("l", "../a")], r"'l' is a link out of the archive, to '\.\./a'"),
        ([symlink("d/l", "../../a")], r"'d/l' is a link out of the archive"),
        ([hardlink("l", "/a")], r"'l' is a link out of the archive, to '/a'"),
        ([hardlink("l", "../a")], r"'l' is a link out of the archive"),
        ([symlink("l", "b")], r"'l' is a link to 'b', which is not in the archive"),
        ([hardlink("l", "b")], r"'l' is a link to 'b', which is not in the archive"),
        ([symlink("l", "d"), directory("d")], r"'l' is a link to 'd', which is no"),
        ([symlink("l", "m"), symlink("m", "l")], r"'l' is part of a loop of links"),
        ([hardlink("l", "l")], r"'l' is part of a loop of links"),
        ([fifo("l")], r"'l' is a device or FIFO, not a file; do not use"),
        ([char("l", 1, 3)], r"'l' is a device or FIFO, not a file"),
        ([block("l", 8, 0)], r"'l' is a device or FIFO, not a file"),
        ([symlink("l", "m"), fifo("m")], r"'l' is a device or FIFO, not a file"),
    ],
)
def test_bad_links_and_nodes_are_errors_when_asked_for(members: list[Member], message: str) -> None:
    found = index(tar([*members, file("a", b"data")]))
    assert found.find("a") is not None
    with pytest.raises(SourceError, match=message):
        found.find("l" if "l" in names(found) else "d/l")


# -- damage


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (flip(0)(tar([file("a", b"data")])), "near byte 0: the checksum of a tar header is wrong; fetch it again"),
        (tar([file("a", b"x" * 600)])[:1000], "near byte 1536: it ends in the middle of a member"),
        (tar([file("a", b"x" * 600)])[:1500], "near byte 1536: it ends in the middle of a member"),
        (tar([file("a"), file("b")])[:700], "near byte 512: it ends in the middle of a header"),
        (tar([file("n" * 1000)], dialect="gnu")[:1100], "it ends in the middle of an extended header"),
        (tar([file("n" * 1000)], dialect="gnu")[:1536], "it ends after an extended header"),
        (tar([file("n" * 1000)], dialect="pax", end_blocks=0)[:-512], "it ends after an extended header"),
        (tar([file("a", fields={"size": base_256(-1, 12)})]), "the size is negative: -1"),
        (tar([file("a", fields={"size": b"12345678901x"})]), "the size field"),
        (tar([file("a", pax={"size": "-5"})]), "the pax record size holds '-5'"),
        (tar([file("a", pax={"size": 2**63})]), "the pax record size holds"),
        (tar([file("a", pax={"size": 2**62})]), "it ends in the middle of a member"),
        (tar([file("a", pax=b"99 path=b\n")]), "a pax record's length and content"),
        (
            tar([file("a", pax={"comment": "x" * (1 << 20)})]),
            "an extended header holds more than 1048576 bytes, a fixed limit",
        ),
        (tar([sparse("a", [(0, b"x")], 9)]), "a sparse member cannot be read in place"),
        (tar([sparse("a", [(0, b"x")], 9, form="old-gnu")]), "a sparse member cannot be read in place"),
    ],
)
def test_a_damaged_archive_is_an_error(data: bytes, message: str) -> None:
    with pytest.raises(SourceError) as caught:
        index(data)
    assert message in caught.value.message
    assert caught.value.message.startswith("'A' is a damaged tar near byte ")
    assert caught.value.message.endswith("; fetch it again")


def test_no_end_blocks_at_a_clean_end_are_fine() -> None:
    found = index(tar([file("a", b"data")], end_blocks=0))
    assert names(found) == ["a"]


def test_what_follows_the_end_is_ignored() -> None:
    assert names(index(tar([file("a"), raw(bytes(1024)), file("b")]))) == ["a"]


def test_members_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_index, "_MOST_MEMBERS", 3)
    index(tar([file("a")] * 3))
    for member in (file("a"), directory("d"), file("./")):
        with pytest.raises(SourceError, match="more than 3 members, a fixed limit"):
            index(tar([member] * 4))


def test_extended_headers_are_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those of members that are fine, and empty ones; each counts with its own block."""
    for member, size in ((file("x" * 150), 512 + 151), (global_header({"a": "b"}), 512 + 6)):
        monkeypatch.setattr(tar_index, "_MOST_EXTENDED_SIZE", 4 * size)
        index(tar([member] * 4, dialect="gnu"))
        with pytest.raises(
            SourceError,
            match=f"'A': its extended headers hold more than {4 * size} bytes, a fixed limit; it is not an image archive",
        ):
            index(tar([member] * 5, dialect="gnu"))


def test_no_blob_is_read() -> None:
    """Section 1: headers are read, data is seeked over."""
    data = tar([file(f"blob{number}", bytes(100_000)) for number in range(5)])
    reads: list[tuple[int, int]] = []

    def read_at(offset: int, count: int) -> bytes:
        reads.append((offset, count))
        return data[offset : offset + count]

    index_tar(read_at, len(data), "A")
    assert sum(count for _offset, count in reads) <= 6 * 512


def test_pax_records_are_those_of_one_member() -> None:
    named = raw(tar([file("x", pax={"path": "named"})], end_blocks=0))
    assert names(index(tar([named, file("b")]))) == ["named", "b"]
