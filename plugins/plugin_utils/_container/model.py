# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""One container, as every runtime is told of it (docs/behaviour.md, section 9)."""

from __future__ import annotations

from dataclasses import dataclass

from ...module_utils._errors import OciError


class ContainerError(OciError):
    """A container that cannot be described to a runtime, in one sentence that names the field."""


@dataclass(frozen=True)
class User:
    """Ids inside of the container; ``groups`` are the supplementary ones, ``home`` is ``None`` without an account."""

    name: str
    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str | None = None


@dataclass(frozen=True)
class Mount:
    """``source`` on the host, ``target`` an absolute path inside; ``type`` is ``bind`` or ``tmpfs``."""

    source: str
    target: str
    read_only: bool = False
    type: str = "bind"
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class IdRange:
    """``count`` ids from ``container`` inside are those from ``host`` outside."""

    container: int
    host: int
    count: int


@dataclass(frozen=True)
class Container:
    """The image's facts merged with the user's overrides, checked; ``rootfs`` is absolute, no map means the host's ids.

    ``volumes``, ``exposed_ports`` and ``labels`` are the image's own words: facts, not settings.
    """

    name: str
    rootfs: str
    hostname: str
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    working_dir: str
    user: User
    stop_signal: str
    architecture: str
    os: str
    created: str | None = None
    mounts: tuple[Mount, ...] = ()
    uid_map: tuple[IdRange, ...] = ()
    gid_map: tuple[IdRange, ...] = ()
    volumes: tuple[str, ...] = ()
    exposed_ports: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    variant: str | None = None
