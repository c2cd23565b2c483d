# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""What a plan asks of a runtime."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field

from .._container.model import Container
from .health import Check, Joining
from .known import Facts, Node, Places
from .request import Request


@dataclass(frozen=True)
class Context:
    """Everything from which a container is described.

    ``nss``: the user as systemd-nspawn looks it up in the root. ``former_targets``: of the mounts that the last run noted.
    ``stacked``: the root is a stack, whose overlay is mounted at the start.
    """

    request: Request
    places: Places
    node: Node
    container: Container
    nss: Facts | None = None
    former_targets: tuple[str, ...] = ()
    stacked: bool = False

    @property
    def wrapper(self) -> str | None:
        """Return the exec wrapper's path, or ``None`` if the administrator does not allow one."""
        return self.places.wrapper if self.request.wrapper else None


@dataclass(frozen=True)
class File:
    """A file to write, as ``oci_container_files`` takes it; ``shown`` says what a diff may show."""

    path: str
    content: str
    shown: str = "all"
    mode: str = "0644"
    owner: int | None = None


@dataclass(frozen=True)
class Directory:
    """A directory to create, as ``oci_container_files`` takes it: passable for a mapped root, shared by containers."""

    path: str
    mode: str | None = None
    passable: bool = False
    shared: bool = False


@dataclass(frozen=True)
class Service:
    """The commands that start, stop and watch a container.

    ``running`` and ``stays`` are patterns for the output of ``status``: the container runs, and it runs without having been
    started again. ``status_codes`` are exit statuses of ``status`` that are not errors. ``enabled`` is ``None`` if ``units`` stay as
    they are. ``note`` says what the service cannot do. One of the lines ``alive`` is in the
    output of ``status`` while the container runs.
    """

    kind: str
    start: list[list[str]]
    stop: list[str]
    status: list[str]
    log: list[str]
    running: str
    stays: str
    status_codes: list[int]
    unit: str = ""
    units: list[str] = field(default_factory=list)
    enabled: bool | None = None
    unit_file: str = ""
    removed: str = ""
    note: str = ""
    alive: list[str] = field(default_factory=list)


class Runtime(t.Protocol):
    """One runtime and what it needs."""

    @property
    def programs(self) -> tuple[str, ...]:
        """Return the programs that must be installed on the node."""

    @property
    def version_command(self) -> tuple[str, ...]:
        """Return the command that prints the version, empty if it does not matter."""

    @property
    def variables(self) -> t.Mapping[str, str]:
        """Return the role's variables that belong to this runtime, with their kinds."""

    @property
    def settings(self) -> str:
        """Return which of them its renderer calls ``settings``."""

    @property
    def shown(self) -> str:
        """Return what a diff of its file may show, in the words of ``oci_container_files``."""

    @property
    def needs_user_info(self) -> bool:
        """Return whether every user has to be looked up in the root, and not only one that the administrator names."""

    @property
    def is_managed(self) -> bool:
        """Return whether a manager on the node owns the container.

        Its root is then a volume that is mounted while it is filled, its file is edited and not written, and the manager
        writes its files below /etc.
        """

    @property
    def paths(self) -> tuple[str, ...]:
        """Return the paths on the node whose existence matters."""

    def folder(self, request: Request) -> str:
        """Return the folder of the files that the runtime reads."""

    def rootfs(self, request: Request, folder: str) -> str:
        """Return the path of the root file system."""

    def file(self, request: Request, places: Places) -> str:
        """Return the path of the file that describes the container."""

    def check(self, request: Request, places: Places) -> None:
        """Check what only this runtime requires of the variables. Raises ``ContainerError``."""

    def render(self, context: Context) -> str:
        """Return the text of the file. Raises ``ContainerError``."""

    def wrapper(self, context: Context) -> str | None:
        """Return the text of the exec wrapper, or ``None`` if it is not needed. Raises ``ContainerError``."""

    def warnings(self, container: Container) -> list[str]:
        """Return what the administrator should know about the image."""

    def directories(self, request: Request, places: Places) -> list[Directory]:
        """Return the directories to create."""

    def service(self, request: Request, places: Places, node: Node) -> Service:
        """Return what runs the container. Raises ``ContainerError`` if that cannot do what is asked for."""

    def join(self, context: Context, check: Check) -> Joining:
        """Return how a health check gets into the container."""

    def join_files(self, context: Context, argv: tuple[str, ...]) -> list[File]:
        """Return the files that this needs."""

    def service_files(self, context: Context) -> list[File]:
        """Return the files of the service."""

    def id_ranges(self, request: Request) -> list[dict[str, str]]:
        """Return the lines that the node's files of id ranges need."""

    def volume(self, request: Request, node: Node) -> str:
        """Return what identifies the root volume of a managed container."""

    def volume_commands(self, request: Request) -> dict[str, list[str]]:
        """Return the commands ``mount`` and ``unmount`` of a managed container."""
