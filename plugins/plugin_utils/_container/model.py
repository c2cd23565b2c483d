# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""One container, as every runtime is told of it (docs/behaviour.md, section 9)."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass

from ...module_utils._errors import OciError


class Option(str):
    """The name of an option in an error, with a path inside of it: ``env.TOKEN``.

    Filters have these names; whoever gives options other names renders the error with ``ContainerError.named``.
    """


class ContainerError(OciError):
    """A container that cannot be described to a runtime: one sentence in parts, of which some name options."""

    def __init__(self, *parts: str) -> None:
        super().__init__("".join(parts))
        self.parts = parts

    def named(self, name: t.Callable[[str], str]) -> str:
        """Return the sentence with the names that ``name`` gives to its options."""
        return OciError("".join(name(part) if isinstance(part, Option) else part for part in self.parts)).message


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
