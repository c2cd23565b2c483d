# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Whether the tree of a run shares its layers with others, and how."""

from __future__ import annotations

import os
import re

from .._dest.record import Record
from .._errors import RootfsError, os_phrase, show
from .._fs.btrfs import file_system_of, is_same_file_system
from .._fs.descriptors import opened
from .._fs.directories import open_existing
from .target import Target

# Options of a mount are separated by commas, its lower directories by colons; units and shells have characters of their own.
_PLAIN = re.compile(r"[A-Za-z0-9/._+@=~-]+\Z")
_OWN = ("trusted.overlay.", "user.overlay.")
_LABEL = "security.selinux"


def form_of(target: Target, record: Record) -> str:
    """Return how the tree will share its layers; empty for a tree of its own, which a warning tells if a store is named."""
    store = os.path.realpath(target.options.store_dir)
    try:
        why = _obstacle(target, store)
        if not why:
            with opened(_nearest(target.dest.location.parent)) as parent:
                if file_system_of(parent) is not None:
                    return "btrfs"
                why = _obstacle_to_stacks(target, record, store, parent)
    except OSError as error:
        why = f"it cannot be looked at ({os_phrase(error)})"
    if not why:
        return "overlay"
    target.dest.warn(
        f"store_dir {show(target.options.store_dir)} cannot be used for {show(target.dest.location.path)}, because {why}; the"
        " whole image is unpacked"
    )
    return ""


def _obstacle(target: Target, store: str) -> str:
    """Return why no driver can share layers, empty if one may."""
    if target.dest.location.is_mount:
        return "dest is a mount point"
    with opened(_nearest(store)) as one, opened(_nearest(target.dest.location.parent)) as other:
        if not is_same_file_system(one, other):
            return "they do not lie on one file system"
    return ""


def _obstacle_to_stacks(target: Target, record: Record, store: str, parent: int) -> str:
    """Return why no overlay can be made at dest, whose nearest directory above is ``parent``; empty if one can be."""
    if os.geteuid() != 0:
        return "only root can mount overlays"
    if any(name.startswith(_OWN) for name in target.options.unpack.xattrs):
        return "xattrs names one of overlay's own"
    for path in (store, target.dest.location.path):
        if not _PLAIN.match(path):
            return f"the path {show(path)} has characters that mount or systemd would interpret"
    with opened(_nearest(store)) as above:
        if _label_of(above) != _label_of(parent):
            return "files get other SELinux labels there"
    trees = [record.tree, record.next, *record.generations]
    if any(tree is not None and tree.form == "overlay" for tree in trees):
        return ""
    # imported late: dests with a stack do not need it
    from .stack_probe import probe

    try:
        return probe(target.dest.state if target.dest.writable else None)
    except (OSError, RootfsError) as error:
        why = os_phrase(error) if isinstance(error, OSError) else error.message
        return f"no overlay can be mounted ({why})"


def _nearest(path: str) -> int:
    fd, _missing = open_existing(os.fsencode(os.path.realpath(path)))
    return fd


def _label_of(fd: int) -> bytes:
    try:
        return os.getxattr(fd, _LABEL)
    except OSError:
        return b""
