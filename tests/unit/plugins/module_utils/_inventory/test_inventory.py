# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory of a tree, in a result and in a record (docs/behaviour.md, section 13)."""

from __future__ import annotations

import json
import zlib

import pytest
from ansible_collections.hypervisor.oci.plugins.module_utils._inventory import inventory as inventories
from ansible_collections.hypervisor.oci.plugins.module_utils._inventory.inventory import (
    Collector,
    InventoryError,
    inventory_from,
    inventory_from_result,
)


def collected(number: int) -> Collector:
    collector = Collector()
    for place in range(number):
        collector.add("setuid", f"/{number - place:05}\udcff", {"uid": place})
    return collector


def test_it_is_stored_whole() -> None:
    inventory = collected(2500).inventory()
    assert not inventory.is_shown
    assert inventory_from(inventory.to_bytes()) == inventory
    assert inventory.findings["setuid"][0].path == "/00001\udcff"


def test_a_short_one_is_its_result() -> None:
    inventory = collected(1000).inventory()
    assert inventory.is_shown
    assert inventory_from_result(json.loads(json.dumps(inventory.to_result()))) == inventory


@pytest.mark.parametrize("bound", ["MOST_KEPT", "_MOST_BYTES"])
def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, bound: str) -> None:
    monkeypatch.setattr(inventories, bound, 20)
    inventory = collected(100).inventory()
    assert inventory.counts["setuid"] == 100
    assert len(inventory.findings["setuid"]) <= 20
    assert not inventory.is_whole("setuid")
    assert inventory.is_whole("setgid")


@pytest.mark.parametrize(
    "data", [b"", b"x", zlib.compress(b"{}"), zlib.compress(b"[1]"), zlib.compress(b"[" * 100_000)]
)
def test_a_damaged_one(data: bytes) -> None:
    with pytest.raises(InventoryError):
        inventory_from(data)


def test_one_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    data = collected(100).inventory().to_bytes()
    monkeypatch.setattr(inventories, "_MOST_STORED", 500)
    with pytest.raises(InventoryError, match="larger than 500 bytes"):
        inventory_from(data)
