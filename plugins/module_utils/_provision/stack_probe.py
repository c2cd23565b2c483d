# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Try what a stack needs of a file system, by doing it (docs/behaviour.md, section 16)."""

from __future__ import annotations

import os

from .._dest.dest import PROBE
from .._fs.descriptors import opened
from .._fs.directories import DIRECTORY, make_private
from .._fs.overlay import Lowers, is_mounted, open_overlay, require_overlays
from .._fs.removal import try_remove_tree

_OPAQUE = "trusted.overlay.opaque"


def probe(folder: int | None) -> str:
    """Return why no stack can be made in a private folder; empty if one can be. Raises ``OSError`` and ``RootfsError``.

    A run that may not write has no such folder, and tries only what the kernel can do.
    """
    if folder is None:
        require_overlays()
        return ""
    # of a run that was interrupted
    try_remove_tree(folder, PROBE)
    with opened(make_private(folder, PROBE)) as fd:
        try:
            return _try(fd)
        finally:
            try_remove_tree(folder, PROBE)


def _try(fd: int) -> str:
    for path in ("low", "low/x", "low/x/y", "upper", "work"):
        os.mkdir(path, 0o700, dir_fd=fd)
    with opened(open_overlay(Lowers(fd, ("low",)), fd)) as root:
        # a directory that replaces another one hides what that holds
        for path in ("x/y", "x"):
            os.rmdir(path, dir_fd=root)
        os.mkdir("x", 0o700, dir_fd=root)
        if not is_mounted(fd):
            return "this kernel does not tell whether an overlay is mounted"
    with opened(os.open("upper/x", DIRECTORY, dir_fd=fd)) as made:
        return "" if os.getxattr(made, _OPAQUE) == b"y" else "the file system keeps no attributes of overlays"
