# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The sets of a file capability (docs/behaviour.md, section 13)."""

from __future__ import annotations

import struct

from ansible_collections.hypervisor.oci.plugins.module_utils._inventory.capability_names import NAMES, decode


def xattr(permitted: int = 0, inheritable: int = 0, effective: bool = False, root: int | None = None) -> bytes:
    revision = 0x02000000 if root is None else 0x03000000
    low = 2**32 - 1
    value = struct.pack(
        "<5I", revision | effective, permitted & low, inheritable & low, permitted >> 32, inheritable >> 32
    )
    return value if root is None else value + struct.pack("<I", root)


def test_names() -> None:
    assert NAMES.index("cap_net_raw") == 13
    assert NAMES.index("cap_sys_admin") == 21
    assert NAMES.index("cap_checkpoint_restore") == len(NAMES) - 1 == 40


def test_sets() -> None:
    assert decode(xattr(1 << 13 | 1 << 40, 1 << 0, effective=True), 0) == {
        "permitted": ["cap_net_raw", "cap_checkpoint_restore"],
        "inheritable": ["cap_chown"],
        "effective": True,
    }


def test_bits_without_a_name() -> None:
    assert decode(xattr(1 << 41 | 1 << 63), 0)["permitted"] == ["cap_41", "cap_63"]


def test_the_root_that_it_counts_for() -> None:
    assert "root_id" not in decode(xattr(1, root=100_000), 100_000)
    assert decode(xattr(1, root=5), 100_000)["root_id"] == 5


def test_another_length() -> None:
    assert decode(b"\x00" * 12, 0)["permitted"] == ["unknown"]
