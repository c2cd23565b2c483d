# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Remember what this collection makes in a tree after it was finished, so that it does not count as drift."""

from __future__ import annotations

import json
import os
import typing as t

from .._errors import RootfsError
from .dest import MADE, Dest, lock_dest
from .dest_path import RECORD, resolve_dest
from .record import Tree

# More are not remembered.
_MOST = 10_000
_TIMEOUT = 300
_MODE = 0o700


def note_made(rootfs: str, paths: t.Collection[str]) -> None:
    """Note paths that were made in a root file system, if a tree of this collection is there. Raises ``RootfsError``."""
    if not paths:
        return
    try:
        location = resolve_dest(rootfs)
    except RootfsError:
        # another place than a dest
        return
    if not os.path.lexists(os.path.join(location.state_path, os.fsdecode(RECORD))):
        return
    with lock_dest(location, _TIMEOUT, _MODE, False) as dest:
        tree = dest.load().tree
        if tree is not None and tree.papers:
            known = read_made(dest, tree)
            every = sorted({*known, *paths})[:_MOST]
            if every != known:
                dest.write((tree.papers + MADE).encode(), json.dumps(every).encode("ascii"))


def read_made(dest: Dest, tree: Tree) -> list[str]:
    """Return the paths that were noted for a tree."""
    data = dest.read((tree.papers + MADE).encode()) if tree.papers else None
    try:
        return [str(path) for path in json.loads(data or b"[]")]
    except (ValueError, TypeError, RecursionError):
        return []
