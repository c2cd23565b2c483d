# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The variables of the role, parsed and checked as far as they can be without the node and the image."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from ansible.module_utils.parsing.convert_bool import boolean

from ...module_utils._errors import show
from .model import ContainerError
from .text import require_line

Facts = t.Mapping[str, t.Any]

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_PATH = re.compile(r"/[^/\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*\Z")
_STATES = ("started", "stopped", "present", "absent")
_RESTARTS = ("no", "on-failure", "always", "unless-stopped")
_NETWORKS = ("private", "host")
_LEAST_VMID = 100


@dataclass(frozen=True)
class Request:
    """What the variables ``container_…`` ask for; each field is one of them, without the prefix."""

    name: str
    runtime: str
    state: str = "started"
    src: str | None = None
    remote_src: bool = False
    ref: str | None = None
    digest: str | None = None
    platform: str | None = None
    force: bool = False
    reachable: str = "fail"
    keep: int = 0
    rootfs_options: Facts = field(default_factory=dict)
    env: Facts = field(default_factory=dict)
    entrypoint: list[str] | None = None
    command: list[str] | None = None
    user: str | None = None
    working_dir: str | None = None
    stop_signal: str | None = None
    stop_timeout: int = 10
    start_wait: int = 3
    hostname: str | None = None
    mounts: list[Facts] = field(default_factory=list)
    volumes: list[Facts] = field(default_factory=list)
    image_volumes: bool = True
    purge: bool = False
    uid_map: list[str] = field(default_factory=list)
    gid_map: list[str] = field(default_factory=list)
    network: str = "private"
    lxc_settings: list[str] = field(default_factory=list)
    nspawn_settings: Facts = field(default_factory=dict)
    runtime_spec_settings: Facts = field(default_factory=dict)
    proxmox_settings: Facts = field(default_factory=dict)
    hosts: bool = True
    extra_hosts: Facts = field(default_factory=dict)
    resolv_conf: bool = True
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    wrapper: bool = True
    restart: str = "no"
    autostart: bool = True
    vmid: int | None = None
    folder: str | None = None
    rootfs: str | None = None
    state_folder: str = "/var/lib/hypervisor.oci/containers"
    volumes_folder: str = "/var/lib/hypervisor.oci/volumes"
    log_folder: str = "/var/log/hypervisor.oci"


VARIABLES = tuple(item.name for item in fields(Request))
_REQUIRED = ("name", "runtime")


def parse_request(variables: Facts, runtimes: t.Collection[str]) -> Request:
    """Parse the variables, given without their prefix; those that are ``None`` are not given. Raises ``ContainerError``."""
    unknown = sorted(set(variables) - set(VARIABLES))
    if unknown:
        raise ContainerError(
            f"container_{unknown[0]} is not a variable of this role; see its README for those that are"
        )
    values = {}
    for item in fields(Request):
        value = variables.get(item.name)
        if value is not None:
            values[item.name] = _parse(item.name, str(item.type), value)
    for name in _REQUIRED:
        if not values.get(name):
            raise ContainerError(f"{name} is missing")
    values = {name: value for name, value in values.items() if value is not None}
    request = Request(**values)
    _require_choices(request, runtimes)
    _require_values(request)
    return request


def _require_choices(request: Request, runtimes: t.Collection[str]) -> None:
    choices = {"runtime": runtimes, "state": _STATES, "restart": _RESTARTS, "network": _NETWORKS}
    for name, allowed in choices.items():
        value = getattr(request, name)
        if value not in allowed:
            raise ContainerError(f"{name}: {show(value)} is not one of {', '.join(allowed)}")  # fmt: skip


def _require_values(request: Request) -> None:
    if not _NAME.match(request.name):
        raise ContainerError(
            f"name: invalid container name {show(request.name)}; use at most 64 letters, digits, '_', '.' and '-', a letter or"
            " digit first"
        )
    if request.state != "absent" and not request.src:
        raise ContainerError("src is missing; give the archive or directory of the image")
    if request.runtime == "proxmox" and (request.vmid or 0) < _LEAST_VMID:
        raise ContainerError("vmid is missing; give the number of a container of Proxmox VE whose root volume exists")
    for name in ("folder", "rootfs", "state_folder", "volumes_folder", "log_folder"):
        value = getattr(request, name)
        if value is not None and not _PATH.match(value):
            raise ContainerError(f"{name}: {show(value)} is not an absolute path below / without control characters")
    for name, address in request.extra_hosts.items():
        require_line("extra_hosts", f"{address} {name}")
    for kind in ("dns", "dns_search", "dns_options"):
        for word in getattr(request, kind):
            require_line(kind, word)
    if request.stop_timeout < 0 or request.start_wait < 0:
        raise ContainerError("stop_timeout and start_wait must not be negative")


def _parse(name: str, kind: str, value: t.Any) -> t.Any:
    if kind == "bool":
        return _boolean(name, value)
    if kind.startswith("int"):
        return None if value == "" else _number(name, value)
    if kind.startswith("list[str]"):
        return _strings(name, value)
    if kind == "list[Facts]":
        return _mappings(name, value)
    if kind == "Facts":
        if not isinstance(value, Mapping):
            raise ContainerError(f"{name} must be a mapping")
        return dict(value)
    if name == "restart" and value is False:
        # YAML reads an unquoted no as false
        return "no"
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ContainerError(f"{name} must be a string")
    return str(value) or None


def _boolean(name: str, value: t.Any) -> bool:
    try:
        return bool(boolean(value))
    except TypeError as error:
        raise ContainerError(f"{name} must be true or false") from error


def _number(name: str, value: t.Any) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not re.match(r"-?[0-9]{1,10}\Z", text):
        raise ContainerError(f"{name} must be a whole number")
    return int(text)


def _strings(name: str, value: t.Any) -> list[str]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ContainerError(f"{name} must be a list of strings")
    for item in value:
        if isinstance(item, bool) or not isinstance(item, (str, int, float)):
            raise ContainerError(f"{name} must be a list of strings")
    return [str(item) for item in value]


def _mappings(name: str, value: t.Any) -> list[Facts]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ContainerError(f"{name} must be a list of mappings")
    for item in value:
        if not isinstance(item, Mapping):
            raise ContainerError(f"{name} must be a list of mappings")
    return [dict(item) for item in value]
