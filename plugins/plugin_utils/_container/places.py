# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Where mounts may come from and lead to, as far as their texts tell (docs/behaviour.md, section 9).

The module oci_mount_points looks at the node and the root themselves, where links lead elsewhere.
"""

from __future__ import annotations

import posixpath
import typing as t

from ...module_utils._errors import show
from ...module_utils._container.reserved import mount_problem
from .model import ContainerError, Mount, Option


def require_places(mounts: t.Sequence[Mount], rootfs: str | None = None) -> None:
    """Check that no target belongs to the runtime, and that no source lies below what the container can write to.

    There, the container could put a link that leads the mount to any path of the node. Raises ``ContainerError``.
    """
    for mount in mounts:
        problem = mount_problem(mount.target, mount.target, mount.type, mount.source)
        if problem is not None:
            raise ContainerError(Option("mounts"), f": {problem}")
    binds = [mount for mount in mounts if mount.type == "bind"]
    writable = {_clean(mount.source) for mount in binds if not mount.read_only}
    if rootfs is not None:
        writable.add(_clean(rootfs))
    for mount in binds:
        above = posixpath.dirname(_clean(mount.source))
        # a container that has / is not held back by anything
        while above != "/":
            if above in writable:
                raise ContainerError(
                    Option("mounts"),
                    f": the source {show(mount.source)} lies in {show(above)}, to which the container can write: a link that it puts"
                    " there could lead the mount to any path of the node; choose another source, or mount that one read-only",
                )
            above = posixpath.dirname(above)


def _clean(path: str) -> str:
    return posixpath.normpath("/" + path.lstrip("/"))
