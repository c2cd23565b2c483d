# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Paths in a container that belong to the kernel and the runtime (docs/behaviour.md, section 9).

If a directory replaced procfs, an image could forge what programs of the container read about processes, labels and
limits, and the runtime's masks would have no effect.
"""

from __future__ import annotations

import posixpath

from .._errors import show

RESERVED = ("/proc", "/sys", "/dev")


def reserved_place(target: str) -> str | None:
    """Return the reserved path that an absolute path is or lies below, or ``None``."""
    # normpath keeps two leading slashes
    clean = posixpath.normpath("/" + target.lstrip("/"))
    for place in RESERVED:
        if clean == place or clean.startswith(place + "/"):
            return place
    return None


def mount_problem(given: str, target: str, kind: str, source: str) -> str | None:
    """Return why a mount of the task is not allowed at ``target``, or ``None``; ``given`` is the path before links.

    Allowed are the node's own files of the same reserved path, such as ``/dev/fuse`` or ``/sys/fs/cgroup``, and file systems
    in memory below ``/dev``, such as ``/dev/shm``.
    """
    place = reserved_place(target)
    if place is None:
        return None
    if kind == "bind" and reserved_place(source) == place:
        return None
    if kind == "tmpfs" and place == "/dev" and posixpath.normpath(target) != place:
        return None
    return (
        f"the mount target {_resolved(given, target)} is in {place}, which belongs to the runtime; mount the node's own files"
        f" of {place} there, or choose another target"
    )


def volume_problem(given: str, target: str) -> str | None:
    """Return why ``target`` cannot be a volume, or ``None``; ``given`` is the path before links."""
    if posixpath.normpath("/" + target.lstrip("/")) == "/":
        why = "it is the root directory"
    else:
        place = reserved_place(target)
        if place is None:
            return None
        why = f"{place} belongs to the runtime"
    return f"{_resolved(given, target)} cannot be a volume: {why}"


def ignored_volume(given: str, target: str) -> str | None:
    """Return the warning about a volume of an image that is ignored, or ``None``."""
    problem = volume_problem(given, target)
    return None if problem is None else f"a volume of the image is ignored: {problem}"


def _resolved(given: str, target: str) -> str:
    if given == target:
        return show(given)
    return f"{show(given)} (which leads to {show(target)} in the root)"
