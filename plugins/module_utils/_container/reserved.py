# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Places in a container that belong to the kernel and the runtime (docs/behaviour.md, section 9).

A directory of an image's in the place of procfs would let it say what programs of the container believe of their
processes, labels and limits, and would leave the runtime's masks without effect.
"""

from __future__ import annotations

import posixpath

from .._errors import show

RESERVED = ("/proc", "/sys", "/dev")


def reserved_place(target: str) -> str | None:
    """Return which of the reserved places an absolute path lies at or below, or ``None``."""
    # POSIX keeps two slashes at the beginning
    clean = posixpath.normpath("/" + target.lstrip("/"))
    for place in RESERVED:
        if clean == place or clean.startswith(place + "/"):
            return place
    return None


def mount_problem(given: str, target: str, kind: str, source: str) -> str | None:
    """Return why a mount of the user's may not be at ``target``, where links led the one that was ``given``, or ``None``.

    What belongs there is allowed: the node's own files of the same place, such as ``/dev/fuse`` or ``/sys/fs/cgroup``, and
    file systems in memory below ``/dev``, such as ``/dev/shm``.
    """
    place = reserved_place(target)
    if place is None:
        return None
    if kind == "bind" and reserved_place(source) == place:
        return None
    if kind == "tmpfs" and place == "/dev" and posixpath.normpath(target) != place:
        return None
    return (
        f"the mount target {_led(given, target)} lies in {place}, which is the runtime's; mount what the node has in"
        f" {place} there, or choose another target"
    )


def volume_problem(given: str, target: str) -> str | None:
    """Return why there can be no volume at ``target``, where links led the one that was ``given``, or ``None``."""
    if posixpath.normpath("/" + target.lstrip("/")) == "/":
        why = "it is the root itself"
    else:
        place = reserved_place(target)
        if place is None:
            return None
        why = f"{place} is the runtime's"
    return f"{_led(given, target)} cannot be a volume: {why}"


def ignored_volume(given: str, target: str) -> str | None:
    """Return the warning about a volume of an image that is ignored, or ``None``."""
    problem = volume_problem(given, target)
    return None if problem is None else f"a volume of the image is ignored: {problem}"


def _led(given: str, target: str) -> str:
    if given == target:
        return show(given)
    return f"{show(given)} (which is {show(target)} in the root)"
