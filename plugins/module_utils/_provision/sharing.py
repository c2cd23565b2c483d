# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the tree of a run shares its layers with others, and how."""

from __future__ import annotations

from .._errors import show
from .._store.store import can_share
from .target import Target


def form_of(target: Target) -> str:
    """Return how the tree will share its layers; empty for a tree of its own, which a warning tells if a store is named."""
    path = target.options.store_dir
    location = target.dest.location
    if not location.is_mount and can_share(path, location.parent):
        return "btrfs"
    why = "dest is a mount point" if location.is_mount else "they do not lie on one btrfs"
    target.dest.warn(
        f"store_dir {show(path)} cannot be used for {show(location.path)}, because {why}; the whole image is unpacked"
    )
    return ""
