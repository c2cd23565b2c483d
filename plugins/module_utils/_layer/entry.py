# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""An entry of a layer, passed from the parser to the tree."""

from __future__ import annotations

import typing as t

FILE = b"0"
HARD_LINK = b"1"
SYMLINK = b"2"
CHARACTER_DEVICE = b"3"
BLOCK_DEVICE = b"4"
DIRECTORY = b"5"
FIFO = b"6"


class Entry(t.NamedTuple):
    """One entry; a tuple, because an image has hundreds of thousands.

    ``name`` and ``link`` are bytes of the archive, not yet cleaned; ``type`` is one of this module's constants;
    ``mtime`` is in nanoseconds since the epoch and may be negative; ``size`` is the apparent size of a file in bytes.
    ``xattrs`` holds values by name; ``acls`` holds ACLs as text by the names of their xattrs. ``regions`` are the
    ``(offset, length)`` pairs of a sparse file's data, None for a file that is stored whole.
    """

    name: bytes
    type: bytes
    mode: int
    uid: int
    gid: int
    mtime: int
    size: int
    link: bytes
    device: tuple[int, int]
    xattrs: dict[bytes, bytes]
    acls: dict[bytes, bytes]
    regions: tuple[tuple[int, int], ...] | None
