# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is recorded of a snapshot: only what is sound is used."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._layer.budget import COUNTS
from ansible_collections.hypervisor.oci.plugins.module_utils._store.snapshot import Snapshot, from_json
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.told import Told

A, B = (f"sha256:{letter * 64}" for letter in "ab")
USED = dict.fromkeys(COUNTS, 2)
SNAPSHOT = Snapshot("key", "abc123", "def456", A, (B,), Told({"entries": 1}, USED, {"paths": []}), {"devices": "safe"})


def test_it_is_read_as_it_was_written() -> None:
    assert from_json(SNAPSHOT.to_json(), "key") == SNAPSHOT


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2}, {"format": None}, {"key": "other"}, {"name": "../x"}, {"name": ""}, {"parent": "a/b"}, {"told": None},
        {"told": {}}, {"digests": 5}, {"digests": ["abc"]}, {"diff_id": "sha256:xyz"}, {"options": 5},
        {"told": {"report": {}, "candidates": {}, "budget": {"size": 2}}},
        {"told": {"report": {}, "candidates": {}, "budget": {**USED, "size": -1}}},
        {"told": {"report": {}, "candidates": {}, "budget": {**USED, "size": "2"}}},
        {"told": {"report": {}, "candidates": {}, "budget": {**USED, "holes": True}}},
    ],
)  # fmt: skip
def test_what_is_not_sound(change: dict[str, t.Any]) -> None:
    value = {**json.loads(SNAPSHOT.to_json()), **change}
    assert from_json(json.dumps(value).encode(), "key") is None


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"5", b"null", b"[" * 100_000, b"\xff"])
def test_what_is_damaged(data: bytes) -> None:
    assert from_json(data, "key") is None
