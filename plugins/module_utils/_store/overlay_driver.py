# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Snapshots as layers of overlays: a tree is a stack (docs/behaviour.md, section 16)."""

from __future__ import annotations

import os

from .._fs.descriptors import opened
from .._fs.directories import DIRECTORY, make_private
from .._fs.overlay import Lowers, open_overlay
from .._fs.stack import make_stack, make_upper
from .driver import Folders, Lower


class OverlayDriver:
    """A snapshot is what its layer adds, as the upper directory that an overlay has left."""

    name = "overlay"
    # the names fit in one page of mount options, with room for those of the start
    deepest = 400

    def open_draft(self, folders: Folders, draft: str, lower: Lower) -> int:
        """Make an empty directory, or an overlay on top of snapshots."""
        lowers = Lowers(folders["s"], lower)
        with opened(make_private(folders["w"], draft.encode())) as fd:
            make_upper(fd, lowers)
            return open_overlay(lowers, fd) if lower else os.open("upper", DIRECTORY, dir_fd=fd)

    def publish(self, folders: Folders, draft: str, name: str) -> None:
        """Rename the upper directory."""
        with opened(os.open(draft, DIRECTORY, dir_fd=folders["w"])) as fd:
            os.rename("upper", name, src_dir_fd=fd, dst_dir_fd=folders["s"])

    def make_tree(self, folders: Folders, lower: Lower, folder: int, name: bytes) -> None:
        """Make a stack with an upper directory of its own."""
        make_stack(folder, name, Lowers(folders["s"], lower), os.readlink(f"/proc/self/fd/{folders['s']}"))
