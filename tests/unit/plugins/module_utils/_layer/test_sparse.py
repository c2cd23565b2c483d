# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The maps of sparse files (docs/behaviour.md, section 3)."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import LayerError
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import Budget
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.entry import Entry
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.tar_entries import TarReader
from ansible_collections.hypervisor.oci.plugins.module_utils._report import Report
from ansible_collections.hypervisor.oci.tests.images.builder import Entry as Member
from ansible_collections.hypervisor.oci.tests.images.builder import base_256, file, octal, sparse, tar
from ansible_collections.hypervisor.oci.tests.unit.support import chunks

FORMS = ("old-gnu", "pax-0.0", "pax-0.1", "pax-1.0")
# as many as the fixed limit for one entry allows: a mebibyte of 24 bytes each
MOST = 43_690


def read(data: bytes, chunk: int = 64 * 1024) -> list[tuple[Entry, bytes]]:
    """All entries with the data that is stored."""
    reader = TarReader(chunks(data, chunk), "sha256:1234", Report(), Budget(2**62, 10**6))
    return [(found, b"".join(map(bytes, reader.data()))) for found in reader]


def refused(data: bytes) -> str:
    """What is wrong with it; the entry is always called f."""
    with pytest.raises(LayerError) as caught:
        read(data)
    where, _colon, what = caught.value.message.partition(": ")
    assert where == "layer sha256:1234, entry 'f'"
    what, _semicolon, advice = what.partition("; ")
    assert advice == "build the image again with a sound tar writer"
    return what


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("regions", "length", "expected"),
    [
        ([], 0, []),
        ([], 5000, []),
        ([(0, b"x" * 512)], 512, [(0, 512)]),
        ([(0, b"x" * 512)], 5000, [(0, 512)]),
        ([(512, b"x" * 512), (2048, b"y" * 100)], 2148, [(512, 512), (2048, 100)]),
        ([(0, b"x"), (1, b"y"), (3, b"z")], 4, [(0, 1), (1, 1), (3, 1)]),
        ([(n * 1024, b"z" * 512) for n in range(4)], 4096, None),
        ([(n * 1024, b"z" * 512) for n in range(25)], 10**6, None),
        ([(n * 1024, b"z" * 512) for n in range(26)], 10**6, None),
        ([(n * 1024, b"z" * 512) for n in range(200)], 10**6, None),
        ([(8 * 10**9, b"far")], 8 * 10**9 + 9, [(8 * 10**9, 3)]),
    ],
)
def test_the_four_forms(form: t.Any, regions: t.Any, length: int, expected: t.Any) -> None:
    """Section 3: old GNU headers with extension blocks, pax 0.0, 0.1 and 1.0."""
    if expected is None:
        expected = [(offset, len(data)) for offset, data in regions]
    members = [sparse("dir/f", regions, length, form), file("next", b"!")]
    for chunk in (64 * 1024, 700):
        found, after = read(tar(members), chunk)
        entry, data = found
        assert (entry.name, entry.size) == (b"dir/f", length)
        assert [pair for pair in entry.regions or () if pair[1]] == expected
        assert data == b"".join(piece for _offset, piece in regions)
        assert after[1] == b"!"


def test_old_gnu_maps_of_large_files_are_base_256() -> None:
    slots = base_256(2**40, 12) + octal(3, 12)
    area = slots.ljust(96, b"\0") + b"\0" + base_256(2**41, 12)
    member = sparse("f", [(0, b"far")], 3, "old-gnu", fields={"sparse": area})
    ((entry, data),) = read(tar([member]))
    assert (entry.size, entry.regions, data) == (2**41, ((2**40, 3),), b"far")


@pytest.mark.parametrize("form", ["pax-0.1", "pax-1.0"])
def test_the_real_name_stands_in_the_map(form: t.Any) -> None:
    member = sparse("a/b", [(0, b"x")], 1, form)
    assert member.name == b"a/GNUSparseFile.0/b"
    ((entry, _data),) = read(tar([member]))
    assert entry.name == b"a/b"


def test_records_without_a_map_make_no_sparse_file() -> None:
    member = file("f", b"whole", pax={"GNU.sparse.size": 5})
    ((entry, data),) = read(tar([member]))
    assert (entry.regions, entry.size, data) == (None, 5, b"whole")


def one(data: bytes, **records: t.Any) -> bytes:
    """A tar of a file with these sparse records."""
    pax: t.Any = {"GNU.sparse." + key: value for key, value in records.items()}
    return tar([file("f", data, pax=pax), file("next")])


def mapped(*numbers: object, data: bytes = b"") -> bytes:
    """A tar with a 1.0 map of these lines in its data."""
    text = "".join(f"{number}\n" for number in numbers).encode()
    padded = text + bytes(-len(text) % 512)
    return one(padded + data, major=1, minor=0, realsize=100)


MALFORMED = "the map of a sparse file is malformed"
CONTRADICTS = "the map of a sparse file contradicts itself"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        # in order, inside the file, and as long as the stored data
        (one(b"abcd", size=9, map="4,2,0,2"), CONTRADICTS),
        (one(b"abcd", size=9, map="0,2,1,2"), CONTRADICTS),
        (one(b"abcd", size=3, map="0,4"), CONTRADICTS),
        (one(b"", size=3, map="4,0"), CONTRADICTS),
        (
            one(b"abcd", size=9, map="0,2"),
            "the map of a sparse file covers 2 bytes, but the archive holds 4",
        ),
        (
            one(b"abcd", size=99, map="0,20"),
            "the map of a sparse file covers 20 bytes, but the archive holds 4",
        ),
        (one(b"ab", size=9, map="0,2,5"), "the map of a sparse file has an odd number of values"),
        (one(b"ab", size=9, map="0,x"), "the pax record sparse map holds 'x'"),
        (one(b"ab", size=9, map="-1,2"), "the pax record sparse map holds '-1'"),
        (one(b"ab", size="x", map="0,2"), "the pax record sparse size holds 'x'"),
        (one(b"ab", size=2**63, map="0,2"), f"the pax record sparse size holds '{2**63}'"),
        (one(b"ab", major=2, minor=0), "the entry is a sparse file of an unknown format"),
        (one(b"ab", major=1, minor=1), "the entry is a sparse file of an unknown format"),
        (one(b"ab", major=1), "the entry is a sparse file of an unknown format"),
        (one(b"ab", name=b"a\0b", map="0,2"), "the pax record GNU.sparse.name contains a NUL"),
        (mapped("x"), "the pax record sparse map holds 'x'"),
        (mapped(1, "x", 0), "the pax record sparse map holds 'x'"),
        (mapped(-1), "the pax record sparse map holds '-1'"),
        (mapped(1, 101, 0), CONTRADICTS),
        (mapped(1, 0, 101, data=b"x" * 101), CONTRADICTS),
        (mapped(2, 0, 2, 1, 2, data=b"abcd"), CONTRADICTS),
        (mapped(1, 0, 3), "the map of a sparse file covers 3 bytes, but the archive holds 0"),
        (mapped("1" * 600), f"the pax record sparse map holds '{'1' * 40}'"),
        (one(b"1" * 1024, major=1, minor=0, realsize=9), MALFORMED),
        (
            mapped(10**9),
            f"the map of a sparse file has more than {MOST} regions, a fixed limit",
        ),
        (
            one(b"", size=9, map=",".join(["0,0"] * (MOST + 1))),
            f"the map of a sparse file has more than {MOST} regions, a fixed limit",
        ),
        (one(b"", major=1, minor=0, realsize=9), MALFORMED),
    ],
)  # fmt: skip
def test_maps_that_are_none(data: bytes, what: str) -> None:
    """Section 3: an error that names layer and entry, whatever the map says."""
    assert refused(data) == what


def old(area: bytes, data: bytes = b"ab", between: bytes = b"") -> bytes:
    """A tar with an old GNU map of these bytes."""
    member = sparse("f", [(0, data)], len(data), "old-gnu", fields={"sparse": area})
    whole = Member(member.name, member.flag, member.data, b"", member.mode, None, between, member.attributes)
    return tar([whole])


def slot(offset: int, length: int) -> bytes:
    """A region as an old header says it."""
    return octal(offset, 12) + octal(length, 12)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (old(slot(0, 2).ljust(96, b"\0") + b"\0" + octal(1, 12)), CONTRADICTS),
        (old((slot(5, 1) + slot(0, 1)).ljust(96, b"\0") + b"\0" + octal(9, 12)), CONTRADICTS),
        (
            old(slot(0, 1).ljust(96, b"\0") + b"\0" + octal(9, 12)),
            "the map of a sparse file covers 1 bytes, but the archive holds 2",
        ),
        (
            old((base_256(-1, 12) + octal(2, 12)).ljust(96, b"\0") + b"\0" + octal(9, 12)),
            "the sparse offset is negative: -1",
        ),
        (
            old((octal(0, 12) + base_256(-2, 12)).ljust(96, b"\0") + b"\0" + octal(9, 12)),
            "the sparse length is negative: -2",
        ),
        (
            old(slot(0, 2).ljust(96, b"\0") + b"\0" + base_256(-9, 12)),
            "the real size is negative: -9",
        ),
        (
            old(slot(0, 2).ljust(96, b"\0") + b"\1" + octal(9, 12), b"", b"")[:1024],
            "the map of a sparse file covers 2 bytes, but the archive holds 0",
        ),
        (
            old(slot(0, 2).ljust(96, b"\0") + b"\1" + octal(9, 12), b"")[:512],
            "the tar ends in the middle of an entry",
        ),
    ],
)  # fmt: skip
def test_old_maps_that_are_none(data: bytes, what: str) -> None:
    """Section 3."""
    assert refused(data) == what


def test_endless_extension_blocks_are_bounded() -> None:
    """Section 3: sparse maps of 43,690 regions at most."""
    full = (slot(0, 0) * 21 + b"\1").ljust(512, b"\0")
    area = slot(0, 0) * 4 + b"\1" + octal(9, 12)
    data = old(area, b"", full * 3000)
    assert refused(data) == (f"the map of a sparse file has more than {MOST} regions, a fixed limit")


def test_a_sparse_map_of_many_lines_costs_no_square() -> None:
    """A 1.0 map is read block by block; what it may hold is bounded."""
    numbers = [MOST] + [value for n in range(MOST) for value in (n, 0)]
    text = "".join(f"{number}\n" for number in numbers).encode()
    data = text + bytes(-len(text) % 512)
    pax: t.Any = {"GNU.sparse.major": 1, "GNU.sparse.minor": 0, "GNU.sparse.realsize": 10**6}
    ((entry, stored),) = read(tar([file("f", data, pax=pax)]))
    assert (len(entry.regions or ()), stored) == (MOST, b"")
