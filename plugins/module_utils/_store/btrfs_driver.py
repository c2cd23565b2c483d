# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots of btrfs: a tree is a subvolume (docs/behaviour.md, section 16)."""

from __future__ import annotations

import os

from .._fs.btrfs import make_read_only, make_snapshot, make_subvolume
from .._fs.descriptors import opened
from .._fs.directories import DIRECTORY
from .driver import Folders, Lower


class BtrfsDriver:
    """A snapshot is a read-only subvolume, a draft and a tree are writable ones."""

    name = "btrfs"
    deepest = 1_000_000

    def open_draft(self, folders: Folders, draft: str, lower: Lower) -> int:
        """Make an empty subvolume, or a snapshot of the topmost one."""
        if lower:
            self.make_tree(folders, lower, folders["w"], draft.encode())
        else:
            make_subvolume(folders["w"], draft.encode())
        return os.open(draft, DIRECTORY, dir_fd=folders["w"])

    def publish(self, folders: Folders, draft: str, name: str) -> None:
        """Rename a draft: a read-only one could not be."""
        os.rename(draft, name, src_dir_fd=folders["w"], dst_dir_fd=folders["s"])
        with opened(os.open(name, DIRECTORY, dir_fd=folders["s"])) as fd:
            make_read_only(fd)

    def make_tree(self, folders: Folders, lower: Lower, folder: int, name: bytes) -> None:
        """Make a writable snapshot."""
        with opened(os.open(lower[0], DIRECTORY, dir_fd=folders["s"])) as source:
            make_snapshot(source, folder, name)
