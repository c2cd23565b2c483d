# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What is known of a container and its node when a plan is made."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .request import Request

Facts = t.Mapping[str, t.Any]

SYSTEMD = "/run/systemd/system"
RESOLV_CONF = "/etc/resolv.conf"
# the servers that systemd-resolved itself asks
UPLINK = "/run/systemd/resolve/resolv.conf"


@dataclass(frozen=True)
class Places:
    """Where the files of one container are on the node."""

    folder: str
    rootfs: str
    own_folder: str
    own_volumes: str
    log: str

    @property
    def control(self) -> str:
        return f"{self.own_folder}/control"

    @property
    def mounter(self) -> str:
        return f"{self.own_folder}/mount"

    @property
    def wrapper(self) -> str:
        return f"{self.own_folder}/exec"

    @property
    def previous(self) -> str:
        return f"{self.own_folder}/previous"

    @property
    def made(self) -> str:
        return f"{self.own_folder}/made.json"

    @property
    def note(self) -> str:
        return f"{self.own_folder}/volume.json"


@dataclass(frozen=True)
class Node:
    """What the role found out about the node.

    ``missing``: programs that are not installed. ``version``: the runtime's, as its command prints it. ``paths``: those of the
    paths to look at that exist. ``texts``: the content of files by path, without those that do not exist.
    """

    missing: tuple[str, ...] = ()
    version: str | None = None
    paths: frozenset[str] = frozenset()
    texts: t.Mapping[str, str] = field(default_factory=dict)

    @property
    def systemd(self) -> bool:
        """Return whether systemd runs the node."""
        return SYSTEMD in self.paths


@dataclass(frozen=True)
class Root:
    """What is known of the root file system: the result of ``oci_rootfs``, and what was found in the tree, or ``None``.

    ``key`` is the volume's key, if an earlier plan of the same run computed it.
    """

    result: Facts
    user_info: Facts | None = None
    mounts: list[Facts] | None = None
    key: str | None = None

    @property
    def image(self) -> Facts:
        """Return the facts of the image."""
        image: Facts = self.result.get("image") or {}
        return image


def places_of(request: Request, folder: str, rootfs: str) -> Places:
    """Return the container's places; ``folder`` and ``rootfs`` are the runtime's."""
    return Places(
        folder=folder,
        rootfs=rootfs,
        own_folder=f"{request.state_folder}/{request.name}",
        own_volumes=f"{request.volumes_folder}/{request.name}",
        log=f"{request.log_folder}/{request.name}.log",
    )
