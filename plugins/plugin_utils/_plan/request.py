# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""The role's variables, parsed (docs/behaviour.md, section 10)."""

from __future__ import annotations

import difflib
import re
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields

from ansible.module_utils.parsing.convert_bool import boolean

from ...module_utils._errors import show
from .._container.model import ContainerError, Option
from .._container.text import require_line

Facts = t.Mapping[str, t.Any]

PREFIX = "container_"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}\Z")
_PATH = re.compile(r"/[^/\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*\Z")
_NUMBER = re.compile(r"-?[0-9]{1,10}\Z")
_CHOICES = {
    "state": ("started", "stopped", "present", "absent"),
    "reachable": ("fail", "warn", "allow"),
    "fetch": ("node", "controller", None),
    "restart": ("no", "on-failure", "always", "unless-stopped"),
    "network": ("private", "host"),
    "verify": ("none", "metadata", "content"),
    "repair": ("none", "paths", "recreate"),
}
_PATHS = ("folder", "rootfs", "state_folder", "volumes_folder", "log_folder")
# Without one of these an image with more rights or fewer signatures would do, so an empty or undefined value must not count as not given.
_NEVER_EMPTY = ("policy", "signature_keys", "signature_threshold", "signature_identity")
_NOT_NEGATIVE = ("health_wait", "keep", "stop_timeout", "start_wait")


@dataclass(frozen=True)
class Request:
    """What the variables ``container_…`` ask for; each field but ``own`` is one of them, without the prefix.

    ``own`` holds the variables that belong to one runtime each, by name.
    """

    name: str
    runtime: str
    state: str = "started"
    src: str | None = None
    remote_src: bool = False
    fetch: str | None = None
    ref: str | None = None
    digest: str | None = None
    platform: str | None = None
    force: bool = False
    reachable: str = "fail"
    keep: int = 0
    health: str | Facts = "image"
    health_wait: int | None = None
    store_dir: str | None = None
    verify: str = "none"
    repair: str = "none"
    rootfs_options: Facts = field(default_factory=dict)
    registry_auth_file: str | None = None
    registry_mirrors: list[str] | None = None
    registry_plain_http: bool | None = None
    policy: Facts | None = None
    signature_keys: list[str] | None = None
    signature_threshold: int | None = None
    signature_identity: str | None = None
    signatures: list[str] | None = None
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
    hosts: bool = True
    extra_hosts: Facts = field(default_factory=dict)
    resolv_conf: bool = True
    dns: list[str] = field(default_factory=list)
    dns_search: list[str] = field(default_factory=list)
    dns_options: list[str] = field(default_factory=list)
    wrapper: bool = True
    restart: str = "no"
    autostart: bool = True
    folder: str | None = None
    rootfs: str | None = None
    state_folder: str = "/var/lib/hypervisor.oci/containers"
    volumes_folder: str = "/var/lib/hypervisor.oci/volumes"
    log_folder: str = "/var/log/hypervisor.oci"
    own: Facts = field(default_factory=dict)

    @property
    def starts_with_node(self) -> bool:
        """Return whether the container starts with the node."""
        return self.autostart and self.state != "stopped"


_KINDS = {item.name: str(item.type) for item in fields(Request) if item.name != "own"}
_REQUIRED = ("name", "runtime")


def variables_with(own: t.Mapping[str, t.Mapping[str, str]]) -> dict[str, str]:
    """Return the kinds of all variables by name; ``own`` has those of each runtime."""
    kinds = dict(_KINDS)
    for more in own.values():
        kinds.update(more)
    return kinds


def parse_request(variables: Facts, own: t.Mapping[str, t.Mapping[str, str]]) -> Request:
    """Parse the variables, given without their prefix; those that are ``None`` are not given.

    ``own`` has the kinds of each runtime's own variables, by runtime and name. Raises ``ContainerError``.
    """
    kinds = variables_with(own)
    _require_known(variables, kinds)
    _require_not_empty(variables)
    given = {name: variables.get(name) for name in kinds}
    values = {name: _parse(name, kinds[name], value) for name, value in given.items() if value is not None}
    values = {name: value for name, value in values.items() if value is not None}
    for name in _REQUIRED:
        if name not in values:
            raise ContainerError(Option(name), " is missing")
    _require_choice("runtime", values["runtime"], tuple(own))
    mine = {name: value for name, value in values.items() if name in _KINDS}
    request = Request(**mine, own={name: value for name, value in values.items() if name not in _KINDS})
    _require_values(request)
    return request


def _require_known(variables: Facts, kinds: t.Collection[str]) -> None:
    for name in sorted(set(variables) - set(kinds)):
        near = difflib.get_close_matches(name, kinds, 1)
        advice = f"did you mean {PREFIX}{near[0]}?" if near else "the role's README lists them"
        raise ContainerError(f"{PREFIX}{name} is not a variable of this role; {advice}")


def _require_not_empty(variables: Facts) -> None:
    for name in _NEVER_EMPTY:
        if name in variables and variables[name] in (None, "", []):
            raise ContainerError(Option(name), " is empty or undefined; give a value, or leave the variable out")


def _require_choice(name: str, value: t.Any, allowed: t.Sequence[str | None]) -> None:
    if value not in allowed:
        raise ContainerError(
            Option(name), f" must be one of {', '.join(filter(None, allowed))}, not {show(str(value))}"
        )


def _require_values(request: Request) -> None:
    for name, allowed in _CHOICES.items():
        _require_choice(name, getattr(request, name), allowed)
    if not _NAME.match(request.name):
        raise ContainerError(
            Option("name"),
            f": invalid container name {show(request.name)}; use at most 64 letters, digits, '_', '.' and '-', a letter or"
            " digit first",
        )
    if request.state != "absent" and not request.src:
        raise ContainerError(Option("src"), " is missing; set it to the archive or directory of the image")
    _require_repairable(request)
    for name in _PATHS:
        value = getattr(request, name)
        if value is not None and not _PATH.match(value):
            raise ContainerError(
                Option(name), f": {show(value)} is not an absolute path below / without control characters"
            )
    for host, address in request.extra_hosts.items():
        require_line("extra_hosts", f"{address} {host}")
    for name in ("dns", "dns_search", "dns_options"):
        for word in getattr(request, name):
            require_line(name, word)
    for name in _NOT_NEGATIVE:
        if (getattr(request, name) or 0) < 0:
            raise ContainerError(Option(name), " must not be negative")


def _require_repairable(request: Request) -> None:
    if request.repair != "none" and request.verify == "none":
        raise ContainerError(
            Option("repair"), " needs ", Option("verify"), ", metadata or content, which finds what to repair"
        )
    for name in ("verify", "repair"):
        # it would be given to tasks that must not compare anything
        if name in request.rootfs_options:
            raise ContainerError(Option(f"rootfs_options.{name}"), " has a variable of its own; set ", Option(name))


def _parse(name: str, kind: str, value: t.Any) -> t.Any:
    """Return a value of its kind, ``None`` for an empty text or number, which is not given. Raises ``ContainerError``."""
    if kind.startswith("bool"):
        return _boolean(name, value)
    if kind.startswith("int"):
        return None if value == "" else _number(name, value)
    if kind.startswith("list[str]"):
        return _strings(name, value)
    if kind == "list[Facts]":
        return _mappings(name, value)
    if kind == "str | Facts" and isinstance(value, Mapping):
        return dict(value)
    if kind.startswith("Facts"):
        if not isinstance(value, Mapping):
            raise ContainerError(Option(name), " must be a mapping")
        return dict(value)
    if name == "restart" and value is False:
        # YAML reads an unquoted no as false
        return "no"
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ContainerError(Option(name), " must be a string")
    return str(value) or None


def _boolean(name: str, value: t.Any) -> bool:
    try:
        return bool(boolean(value))
    except TypeError as error:
        raise ContainerError(Option(name), " must be true or false") from error


def _number(name: str, value: t.Any) -> int:
    text = str(value).strip()
    if isinstance(value, bool) or not _NUMBER.match(text):
        raise ContainerError(Option(name), " must be a whole number")
    return int(text)


def _strings(name: str, value: t.Any) -> list[str]:
    for item in _items(name, value, "strings"):
        if isinstance(item, bool) or not isinstance(item, (str, int, float)):
            raise ContainerError(Option(name), " must be a list of strings")
    return [str(item) for item in value]


def _mappings(name: str, value: t.Any) -> list[Facts]:
    for item in _items(name, value, "mappings"):
        if not isinstance(item, Mapping):
            raise ContainerError(Option(name), " must be a list of mappings")
    return [dict(item) for item in value]


def _items(name: str, value: t.Any, what: str) -> t.Sequence[t.Any]:
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise ContainerError(Option(name), f" must be a list of {what}")
    return value
