# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""The inventory of a tree as it was recorded when the tree was made: in its result, or beside it if it is long."""

from __future__ import annotations

from .._dest.dest import INVENTORY, Dest
from .._dest.record import Tree
from .._errors import RootfsError, show
from .._inventory.inventory import KINDS, Inventory, InventoryError, inventory_from, inventory_from_result

_UNKNOWN = "set recreate: true to have it unpacked again"


def inventory_of(dest: Dest, tree: Tree) -> Inventory:
    """Read the inventory. Raises ``RootfsError`` if there is none that can be read."""
    found = find_inventory(dest, tree)
    if found is None:
        raise RootfsError(
            f"policy cannot be judged: the record of {show(dest.path)} has no inventory of the tree; {_UNKNOWN}"
        )
    return found


def find_inventory(dest: Dest, tree: Tree) -> Inventory | None:
    """Return the inventory; ``None`` if none was recorded. Raises ``RootfsError`` if it is damaged."""
    shown = (tree.result.get("report") or {}).get("inventory")
    if shown is None:
        return None
    found = inventory_from_result(shown)
    if all(map(found.is_whole, KINDS)):
        return found
    data = dest.read((tree.papers + INVENTORY).encode()) if tree.papers else None
    try:
        return inventory_from(data or b"")
    except InventoryError as error:
        raise RootfsError(
            f"the inventory of {show(dest.path)} in its private folder is damaged: {error}; {_UNKNOWN}"
        ) from error
