# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a store needs of a file system: trees on top of snapshots that are never written again."""

from __future__ import annotations

import typing as t

# The folder ``s`` of snapshots, and ``w`` of drafts; ``lower`` are names of snapshots, the top first.
Folders = t.Mapping[str, int]
Lower = t.Sequence[str]


class Driver(t.Protocol):
    """How a file system makes trees of snapshots. All methods raise ``OSError``, most ``RootfsError`` too."""

    name: str
    # A deeper tree is one snapshot of all its layers.
    deepest: int

    def open_draft(self, folders: Folders, draft: str, lower: Lower) -> int:
        """Make a draft on top of snapshots, or an empty one, and return a descriptor of the root of its tree."""

    def publish(self, folders: Folders, draft: str, name: str) -> None:
        """Make a draft, whose tree nobody has open and which is durable, the snapshot ``name``."""

    def make_tree(self, folders: Folders, lower: Lower, folder: int, name: bytes) -> None:
        """Make a tree of snapshots at a name in a folder."""


def driver_of(name: str) -> Driver:
    """Return the driver of a form of trees."""
    # imported late: a run needs one of them
    if name == "btrfs":
        from .btrfs_driver import BtrfsDriver

        return BtrfsDriver()
    from .overlay_driver import OverlayDriver

    return OverlayDriver()
