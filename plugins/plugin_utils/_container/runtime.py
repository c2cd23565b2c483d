# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What a runtime is asked for, and what it is told of the container and the node."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .model import Container
from .request import Request


@dataclass(frozen=True)
class Places:
    """Where the files of one container lie on the node."""

    folder: str
    rootfs: str
    own_folder: str
    own_volumes: str
    log: str

    @property
    def control(self) -> str:
        return f"{self.own_folder}/control"

    @property
    def wrapper(self) -> str:
        return f"{self.own_folder}/exec"

    @property
    def previous(self) -> str:
        return f"{self.own_folder}/previous"

    @property
    def note(self) -> str:
        return f"{self.own_folder}/volume.json"


@dataclass(frozen=True)
class Node:
    """What the role found out about the node; ``configuration`` is the text of VMID.conf, for Proxmox VE."""

    systemd: bool = False
    seccomp: bool = False
    resolv_conf: str = ""
    uplink: str = ""
    version: str | None = None
    configuration: str = ""
    note: t.Mapping[str, t.Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Context:
    """Everything from which a container is rendered. ``nss`` is the user as systemd-nspawn looks it up in the root."""

    request: Request
    places: Places
    node: Node
    container: Container
    nss: t.Mapping[str, t.Any] | None = None

    @property
    def wrapper(self) -> str | None:
        """Return where the exec wrapper lies, if the administrator allows one."""
        return self.places.wrapper if self.request.wrapper else None


class Runtime(t.Protocol):
    """One runtime and what it needs."""

    @property
    def programs(self) -> tuple[str, ...]:
        """Return the programs that must be on the node."""

    @property
    def shown(self) -> str:
        """Return how a diff of its file hides secrets, in the words of oci_container_files."""

    @property
    def needs_user_info(self) -> bool:
        """Return whether every user has to be looked up in the root, and not only one that the administrator names."""

    def folder(self, request: Request) -> str:
        """Return where the files lie that the runtime itself reads."""

    def rootfs(self, request: Request, folder: str) -> str:
        """Return where the root file system lies."""

    def check(self, request: Request, places: Places) -> None:
        """Check what only this runtime asks for. Raises ``ContainerError``."""

    def file(self, request: Request, places: Places) -> str:
        """Return the path of the file that describes the container."""

    def render(self, context: Context) -> str:
        """Return the text of that file. Raises ``ContainerError``."""

    def wrapper(self, context: Context) -> str | None:
        """Return the text of the exec wrapper, or ``None`` if none is needed. Raises ``ContainerError``."""

    def version(self) -> list[str]:
        """Return the command that prints the version, empty if none matters."""

    def warnings(self, container: Container) -> list[str]:
        """Return what the administrator should know about the image."""

    def directories(self, request: Request, places: Places) -> list[dict[str, t.Any]]:
        """Return the directories to create, as oci_container_files takes them."""

    def unit(self, request: Request) -> str:
        """Return the name of the systemd unit."""

    def unit_file(self, request: Request) -> str:
        """Return the file of the role that makes or changes that unit."""

    def unit_text(self, context: Context) -> str:
        """Return the text of that file."""

    def wanted_units(self, request: Request) -> list[str]:
        """Return units to enable besides the container's own."""

    def control(self, context: Context) -> str:
        """Return the functions alive, start, stop and log of the control script."""

    def log(self, request: Request, places: Places) -> list[str]:
        """Return the command that prints the end of what the container wrote under systemd."""

    def id_ranges(self, request: Request) -> list[dict[str, str]]:
        """Return the lines that the node's files of id ranges need."""
