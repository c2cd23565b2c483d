# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Id maps (docs/behaviour.md, section 6)."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._errors import RootfsError
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.ids import IdMap, UnmappedError, parse_id_map


@pytest.mark.parametrize(
    ("ranges", "container", "host"),
    [
        ([], 0, 0),
        ([], 4294967294, 4294967294),
        (["0:100000:65536"], 0, 100000),
        (["0:100000:65536"], 65535, 165535),
        (["0:100000:1", "1:1:1"], 0, 100000),
        (["0:100000:1", "1:1:1"], 1, 1),
        (["1000:1000:1", "0:100000:1000", "1001:101001:64535"], 1000, 1000),
        (["1000:1000:1", "0:100000:1000", "1001:101001:64535"], 999, 100999),
        (["1000:1000:1", "0:100000:1000", "1001:101001:64535"], 1001, 101001),
        ([" 0:1:2 "], 1, 2),
        (["0:0:4294967295"], 4294967294, 4294967294),
    ],
)
def test_ids_of_the_host(ranges: list[str], container: int, host: int) -> None:
    assert parse_id_map("uid", ranges).to_host(container) == host


@pytest.mark.parametrize("number", [9, 20, 4294967294])
def test_an_id_outside_of_all_ranges(number: int) -> None:
    """Section 6: an error; the entry's name is added where it is applied."""
    with pytest.raises(UnmappedError) as caught:
        parse_id_map("gid", ["10:100:10"]).to_host(number)
    assert str(caught.value) == f"no range of gid_map contains the gid {number}"


@pytest.mark.parametrize(
    "text",
    ["", "0", "0:1", "0:1:0", "0:1:2:3", "a:1:2", "-1:1:2", "0:1:-2", "0x0:1:2", "0 :1:2", "0:1:99999999999", "٣:1:2", "0,1,2", "0:1:2\n3"],
)  # fmt: skip
def test_ranges_that_are_none(text: str) -> None:
    with pytest.raises(RootfsError) as caught:
        parse_id_map("uid", ["5:5:5", text])
    assert caught.value.message == (
        f"uid_map: invalid range {text!r};" " expected container:host:count, three numbers with a count above 0"
    )


@pytest.mark.parametrize(
    "text", ["4294967295:0:1", "0:4294967295:1", "1:0:4294967295", "0:1:4294967295", "9999999999:0:1"]
)  # fmt: skip
def test_ranges_beyond_the_largest_id(text: str) -> None:
    with pytest.raises(RootfsError) as caught:
        parse_id_map("gid", [text])
    assert caught.value.message == (f"gid_map: the range '{text}' exceeds the largest id, 4294967294")


@pytest.mark.parametrize(
    ("ranges", "side", "number"),
    [
        (["0:100:10", "9:200:10"], "container", 9),
        (["9:200:10", "0:100:10"], "container", 9),
        (["0:100:10", "0:200:10"], "container", 0),
        (["0:100:10", "10:109:10"], "host", 109),
        (["10:109:10", "0:100:10"], "host", 109),
    ],
)
def test_ranges_that_overlap(ranges: list[str], side: str, number: int) -> None:
    with pytest.raises(RootfsError) as caught:
        parse_id_map("uid", ranges)
    assert caught.value.message == (
        f"uid_map: two ranges overlap at {side} id {number}; each id may be in one range only"
    )


def test_a_map_is_the_same_in_whatever_order() -> None:
    """Section 7, fingerprint: the same map is the same map."""
    ranges = ["10:200:5", "0:100:10"]
    one = parse_id_map("uid", ranges)
    other = parse_id_map("uid", ranges[::-1])
    assert one == other == IdMap("uid", ((0, 100, 10), (10, 200, 5)))
    assert one.to_list() == ["0:100:10", "10:200:5"]


def test_no_map() -> None:
    empty: t.Any = parse_id_map("uid", [])
    assert (empty.ranges, empty.to_list()) == ((), [])
