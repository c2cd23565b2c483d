# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The mounts of a container, and the directories on the node that it needs."""

from __future__ import annotations

import posixpath
import typing as t

from ...module_utils._errors import show
from .._container.model import ContainerError, Option
from .._container.volumes import Volumes, volumes_of
from .known import Facts, Places, Root
from .request import Request
from .runtime import Directory, Runtime


def require_sources(request: Request) -> None:
    """Check that no source lies inside of a volume. Raises ``ContainerError``."""
    folder = _components(request.volumes_folder)
    for name, items in (("volumes", request.volumes), ("mounts", request.mounts)):
        for item in items:
            source = item.get("source")
            if not isinstance(source, str):
                # the volumes and mounts themselves are checked when they are merged
                continue
            below = _components(source)
            # a folder of the container and one of the volume are above what is inside of a volume
            if below[: len(folder)] == folder and len(below) > len(folder) + 2:
                raise ContainerError(
                    Option(name),
                    f": the source {show(source)} lies in a volume: a link that its container puts there could lead the"
                    " mount to any path of the node; use a source outside of volumes, or a volume as a whole",
                )


def _components(path: str) -> list[str]:
    return [part for part in posixpath.normpath(path).split("/") if part]


def plan_volumes(request: Request, places: Places, root: Root | None) -> Volumes:
    """Return the volumes of the variables, and with ``root`` those of the image. Raises ``ContainerError``."""
    if request.state == "absent":
        return Volumes([], [])
    image = root.image if root is not None and request.image_volumes else {}
    return volumes_of(image, places.own_volumes, request.volumes, request.mounts)


def etc_names(request: Request, runtime: Runtime) -> list[str]:
    """Return the names of the files below /etc that the container gets."""
    if runtime.is_managed:
        return []
    names = ["hosts", "hostname"] if request.hosts else []
    return [*names, "resolv.conf"] if request.resolv_conf else names


def plan_mounts(request: Request, places: Places, runtime: Runtime, volumes: Volumes) -> list[Facts]:
    """Return all mounts: volumes, those of the variables, and files below /etc that they do not replace."""
    taken = {mount.get("target") for mount in request.mounts}
    own = [
        {"source": f"{places.own_folder}/{name}", "target": f"/etc/{name}", "read_only": True, "is_file": True}
        for name in etc_names(request, runtime)
        if f"/etc/{name}" not in taken
    ]
    return [*volumes.mounts, *request.mounts, *own]


def writable_sources(request: Request, volumes: Volumes) -> list[str]:
    """Return the sources that the container can write to, below which nothing of the node is looked up."""
    sources = [item.get("source") for item in (*request.mounts, *volumes.mounts) if item.get("read_only") is not True]
    return [source for source in sources if source]


def plan_directories(request: Request, places: Places, runtime: Runtime, volumes: Volumes) -> list[Directory]:
    """Return the directories to create: only a mapped root must be able to pass to its tree and its mounts."""
    found = [
        Directory(request.state_folder, passable=True, shared=True),
        Directory(places.own_folder, passable=True),
        Directory(request.log_folder, mode="0750"),
    ]
    if volumes.mounts:
        found += [
            Directory(request.volumes_folder, passable=True, shared=True),
            Directory(places.own_volumes, passable=True),
        ]
    return [*found, *runtime.directories(request, places)]


def without_kind(mounts: t.Sequence[Facts]) -> list[Facts]:
    """Return the mounts as a container has them, without what is only for creating mount points."""
    return [{key: value for key, value in mount.items() if key != "is_file"} for mount in mounts]
