# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""File capabilities (docs/behaviour.md, section 6)."""

from __future__ import annotations

import struct

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.capability import CapabilityError, for_host
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.ids import IdMap, UnmappedError

SETS = struct.pack("<IIII", 0x2000, 0, 1, 2)
EFFECTIVE = 1
NO_MAP = IdMap("uid")
MAP = IdMap("uid", ((0, 100000, 10), (1000, 7, 1)))


def v2(flags: int = EFFECTIVE) -> bytes:
    """A version 2, as file systems hold it."""
    return struct.pack("<I", 0x02000000 | flags) + SETS


def v3(root: int, flags: int = EFFECTIVE) -> bytes:
    """A version 3 with a root's id."""
    return struct.pack("<I", 0x03000000 | flags) + SETS + struct.pack("<I", root)


@pytest.mark.parametrize(
    ("value", "uids", "written"),
    [
        (v2(), NO_MAP, v2()),
        (v2(0), NO_MAP, v2(0)),
        (v3(0), NO_MAP, v2()),
        (v3(1000, 0), NO_MAP, v2(0)),
        (v2(), MAP, v3(100000)),
        (v2(0), MAP, v3(100000, 0)),
        (v3(0), MAP, v3(100000)),
        (v3(1000), MAP, v3(7)),
        (v2(), IdMap("uid", ((0, 0, 10),)), v3(0)),
    ],
)
def test_versions(value: bytes, uids: IdMap, written: bytes) -> None:
    """Section 6: version 2 without a map, version 3 with one, whatever the image brings."""
    assert for_host(value, uids) == written


@pytest.mark.parametrize(("value", "uids", "number"), [(v3(5000), MAP, 5000), (v2(), IdMap("uid", ((1, 100, 5),)), 0)])
def test_a_root_that_the_map_does_not_hold(value: bytes, uids: IdMap, number: int) -> None:
    with pytest.raises(UnmappedError) as caught:
        for_host(value, uids)
    assert str(caught.value) == f"no range of uid_map contains the uid {number}"


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\1",
        b"\0\0\0\2",
        struct.pack("<I", 0x01000000) + bytes(8),
        struct.pack("<I", 0x04000000) + bytes(20),
        v2() + b"\0",
        v2()[:-1],
        v3(0)[:-1],
        v3(0) + b"\0",
        struct.pack("<I", 0x02000000) + bytes(20),
        struct.pack("<I", 0x03000000) + bytes(16),
        struct.pack(">I", 0x02000001) + SETS,
    ],
)
@pytest.mark.parametrize("uids", [NO_MAP, MAP])
def test_values_that_are_no_capability(value: bytes, uids: IdMap) -> None:
    """Section 6: anything but version 2 or 3 is an error."""
    with pytest.raises(CapabilityError) as caught:
        for_host(value, uids)
    assert str(caught.value) == ("its security.capability has neither version 2 nor version 3" f" ({len(value)} bytes)")
