# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""A container's settings in the configuration that Proxmox VE has of it (docs/behaviour.md, section 9).

The container exists, with its volumes and networks. What describes the image's process is put into the main section of
its ``VMID.conf``, in the grammar that pve-container reads; everything else stays as it is. Proxmox VE sorts the file when
it writes it, so lines are compared by what they say and not by where they stand.
"""

from __future__ import annotations

import posixpath
import re
import typing as t
from collections.abc import Sequence
from dataclasses import dataclass

from ...module_utils._errors import show
from . import proxmox_values as values
from .lxc_values import (
    Start,
    command_value,
    id_map_values,
    mount_value,
    plan_start,
    quote_value,
    require_wrapper,
    signal_value,
    variable_value,
    wrapper_mount,
    wrapper_reason,
)
from .model import Container, ContainerError, Option
from .wrapper import WRAPPER_TARGET

_INIT = "/sbin/init"
_ENVIRONMENT = "lxc.environment.runtime"
_MOUNT = "lxc.mount.entry"
# what an unprivileged container has without a line of its own
_DEFAULT_MAP = ["u 0 100000 65536", "g 0 100000 65536"]
# releases of pve-container, the package whose parser reads the file
_OLDEST = (6, 0, 15)
_OLDEST_WITH_USERS = (6, 1, 0)
_VERSION = re.compile(r"([0-9]{1,5})\.([0-9]{1,5})(?:\.([0-9]{1,5}))?(?:[-+~].*)?\Z")

_SECTION = re.compile(r"\[(?:pve:pending|[a-z][a-z0-9_\-]+)\]\s*\Z", re.IGNORECASE)
# The beginnings of lines only: what follows is stripped in code, in one step however many blanks there are.
_LXC_LINE = re.compile(r"(lxc\.[a-z0-9_\-.]+)(?::|\s*=)")
_PROPERTY_LINE = re.compile(r"([a-z][a-z_]*[0-9]*):.")
_NET = re.compile(r"net[0-9]+\Z")

_COMMAND = (Option("entrypoint"), " and ", Option("command"))
_ID_MAPS = (Option("uid_map"), " and ", Option("gid_map"))
# Keys of ours, and what says them instead of settings.
_OWN = {
    "entrypoint": _COMMAND,
    "cmode": _COMMAND,
    "hostname": (Option("hostname"),),
    "unprivileged": _ID_MAPS,
    "env": (Option("env"),),
    "lxc.init.cmd": _COMMAND,
    "lxc.init.cwd": (Option("working_dir"),),
    "lxc.init.uid": (Option("user"),),
    "lxc.init.gid": (Option("user"),),
    "lxc.init.groups": (Option("user"),),
    "lxc.signal.halt": (Option("stop_signal"),),
    "lxc.idmap": _ID_MAPS,
    _ENVIRONMENT: (Option("env"),),
    _MOUNT: (Option("mounts"),),
}
# What belongs to Proxmox VE's own tools.
_THEIRS = ("rootfs", "lock", "parent", "snaptime", "snapstate", "template", "digest")


@dataclass(frozen=True)
class ProxmoxOptions:
    """What decides the configuration besides the container and the current text.

    ``wrapper``: the exec wrapper's path on the node, ``None`` if it must not be used. ``version``: the installed
    pve-container's, ``None`` for the newest known one. ``settings``: properties and raw ``lxc`` keys of the administrator,
    ``None`` to remove one. ``drop_mounts``: targets of mounts to remove.
    """

    wrapper: str | None = None
    version: str | None = None
    settings: t.Mapping[str, t.Any] | None = None
    drop_mounts: t.Sequence[str] = ()


@dataclass(frozen=True)
class _Wanted:
    """Values by key: of properties, where ``None`` removes one, and of ``lxc`` keys, which may come more than once."""

    properties: dict[str, str | None]
    lists: dict[str, list[str]]


def render_proxmox(container: Container, current: str, options: ProxmoxOptions = ProxmoxOptions()) -> str:
    """Return the new text of ``VMID.conf``; ``current`` comes back unchanged if it already says all of it.

    ``container.rootfs`` is not used: the root volume belongs to Proxmox VE. Raises ``ContainerError``.
    """
    main, rest = _split(current)
    properties = _properties(main)
    if "rootfs" not in properties:
        raise ContainerError(
            Option("current"),
            " has no rootfs, so it does not describe a container; use the text of /etc/pve/lxc/VMID.conf",
        )
    if isinstance(options.drop_mounts, str) or not isinstance(options.drop_mounts, Sequence):
        raise ContainerError(Option("drop_mounts"), " must be a list of targets")
    _require_version(container, options.version)
    _require_unprivileged(container, main)
    wanted = _wanted(container, main, rest, options)
    lines = _with_properties(main, wanted.properties)
    for key, items in wanted.lists.items():
        lines = _with_list(lines, key, items)
    if lines == main:
        return current
    if "lock" in properties:
        raise ContainerError(
            f"Proxmox VE has locked the container ({show(properties['lock'])}); wait until its task ends, and run again"
        )
    return "\n".join([*lines, *rest]).rstrip("\n") + "\n"


def needs_wrapper(container: Container, **options: t.Any) -> bool:
    """Return whether ``render_proxmox`` needs the exec wrapper."""
    del options
    return wrapper_reason(container, False) is not None


def wrapper_script(container: Container, **options: t.Any) -> str | None:
    """Return the text of the wrapper, or ``None`` if it is not needed. Raises ``ContainerError``."""
    del options
    return plan_start(container, False).script


def _split(current: t.Any) -> tuple[list[str], list[str]]:
    """Return the lines of the main section, and those of pending changes and snapshots."""
    if not isinstance(current, str):
        raise ContainerError(Option("current"), " must be the text of /etc/pve/lxc/VMID.conf")
    lines = current.rstrip("\n").split("\n")
    for index, line in enumerate(lines):
        if _SECTION.match(line):
            return lines[:index], lines[index:]
    return lines, []


def _item(line: str) -> tuple[str, str]:
    """Return key and value of a line, both empty for comments and other lines that the grammar does not know."""
    match = _LXC_LINE.match(line)
    if match is not None:
        return match.group(1), line[match.end() :].strip()
    match = _PROPERTY_LINE.match(line)
    if match is None:
        return "", ""
    return match.group(1), line[match.end() - 1 :].strip()


def _properties(lines: t.Iterable[str]) -> dict[str, str]:
    """Return the values by key; the last line of a key wins, as in Proxmox VE."""
    return {key: value for key, value in map(_item, lines) if key}


def _list(lines: t.Iterable[str], key: str) -> list[str]:
    return [value for found, value in map(_item, lines) if found == key]


def _require_version(container: Container, version: str | None) -> None:
    if version is None:
        return
    match = _VERSION.match(str(version).strip())
    if match is None:
        raise ContainerError(
            Option("version"), f": invalid version of pve-container {show(str(version))}; expected one such as 6.1.0"
        )
    found = tuple(int(part or "0") for part in match.groups())
    if found < _OLDEST:
        raise ContainerError(
            f"pve-container {show(str(version))} cannot set a container's entrypoint and environment; update it to"
            f" {_dotted(_OLDEST)} or newer"
        )
    if found < _OLDEST_WITH_USERS and _has_user(container):
        raise ContainerError(
            Option("user"),
            f": pve-container {show(str(version))} starts containers as root only; update it to {_dotted(_OLDEST_WITH_USERS)} or"
            " newer, or set user to 0:0",
        )


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _has_user(container: Container) -> bool:
    user = container.user
    return (user.uid, user.gid, user.groups) != (0, 0, ())


def _require_unprivileged(container: Container, main: list[str]) -> None:
    """Check that an image does not turn an unprivileged container into a privileged one."""
    if container.uid_map:
        return
    if values.is_true(_properties(main).get("unprivileged", "0")) or _list(main, "lxc.idmap"):
        raise ContainerError(
            Option("uid_map"),
            " is missing, but the container is unprivileged, so its program would run as root of the host; set ",
            *(Option("uid_map"), " and ", Option("gid_map")),
            ", to 0:100000:65536 unless the container has lxc.idmap",
        )


def _wanted(container: Container, main: list[str], rest: list[str], options: ProxmoxOptions) -> _Wanted:
    properties, lists = _settings(options.settings or {})
    start = plan_start(container, False)
    properties["hostname"] = values.hostname(container.hostname)
    if container.uid_map:
        properties["unprivileged"] = "1"
    _add_command(start.argv, properties, lists, main)
    _add_mounts(container, _Wanted(properties, lists), (main, rest), options)
    _add_process(container, start, lists)
    return _Wanted(properties, lists)


def _add_mounts(
    container: Container, wanted: _Wanted, text: tuple[list[str], list[str]], options: ProxmoxOptions
) -> None:
    """Add bind mounts as mount points, and the others and the wrapper as lines of LXC."""
    main, rest = text
    reason = wrapper_reason(container, False)
    extra = [wrapper_mount(require_wrapper(reason, options.wrapper))] if reason is not None else []
    extra += [mount for mount in container.mounts if mount.type != "bind"]
    targets = {mount.target for mount in container.mounts}
    dropped = {posixpath.normpath(target) for target in map(str, options.drop_mounts)} - targets
    wanted.properties.update(
        values.mount_points(
            [mount for mount in container.mounts if mount.type == "bind"],
            {**_properties(main), **_some(wanted.properties)},
            {key for key, _value in map(_item, rest)},
            dropped | {mount.target for mount in extra},
        )
    )
    ours = {WRAPPER_TARGET, *targets, *dropped}
    kept = [value for value in _list(main, _MOUNT) if values.entry_target(value) not in ours]
    wanted.lists[_MOUNT] = kept + [mount_value(mount) for mount in extra]


def _add_process(container: Container, start: Start, lists: dict[str, list[str]]) -> None:
    user = container.user
    has_user = _has_user(container)
    id_map = id_map_values(container)
    lists["lxc.init.cwd"] = [quote_value("working_dir", container.working_dir)]
    lists["lxc.init.uid"] = [str(user.uid)] if has_user else []
    lists["lxc.init.gid"] = [str(user.gid)] if has_user else []
    lists["lxc.init.groups"] = [",".join(map(str, user.groups))] if user.groups else []
    lists["lxc.signal.halt"] = [signal_value(container.stop_signal)]
    lists["lxc.idmap"] = [] if id_map == _DEFAULT_MAP else id_map
    lists[_ENVIRONMENT] = [variable_value(name, value) for name, value in start.env]


def _some(properties: dict[str, str | None]) -> dict[str, str]:
    return {key: value for key, value in properties.items() if value is not None}


def _add_command(
    argv: tuple[str, ...], properties: dict[str, str | None], lists: dict[str, list[str]], main: list[str]
) -> None:
    """Add the command: Proxmox VE starts an application container, or a system with an init of its own."""
    now = _properties(main)
    lists["lxc.init.cmd"] = []
    if argv[0] == _INIT:
        properties["entrypoint"] = None
        if "entrypoint" in now and now.get("cmode") == "console":
            properties["cmode"] = None
        if len(argv) > 1:
            lists["lxc.init.cmd"] = [command_value(argv)]
        return
    properties["entrypoint"] = command_value(argv)
    properties["cmode"] = "console"
    nets = {**now, **_some(properties)}
    for key, value in nets.items():
        removed = key in properties and properties[key] is None
        if _NET.match(key) and not removed:
            properties[key] = values.host_managed(key, value)


def _settings(settings: t.Mapping[str, t.Any]) -> tuple[dict[str, str | None], dict[str, list[str]]]:
    properties: dict[str, str | None] = {}
    lists: dict[str, list[str]] = {}
    if not isinstance(settings, t.Mapping):
        raise ContainerError(Option("settings"), " must be a mapping of keys of the configuration, such as memory: 512")
    for key, value in settings.items():
        if key in _OWN:
            raise ContainerError(
                Option(f"settings.{key}"), " is rendered from the container; set ", *_OWN[key], " instead"
            )
        if key in _THEIRS:
            raise ContainerError(Option(f"settings.{key}"), " is written by Proxmox VE alone; use its tools")
        if values.is_lxc_key(key):
            items = value if isinstance(value, (list, tuple)) else [value]
            lists[key] = [values.setting(key, item) for item in items if item is not None]
        elif values.is_property_key(key):
            properties[key] = None if value is None else values.setting(key, value)
        else:
            raise ContainerError(Option("settings"), f": pve-container does not read the key {show(str(key))}")
    return properties, lists


def _with_properties(lines: list[str], properties: dict[str, str | None]) -> list[str]:
    now = _properties(lines)
    changed = {key: value for key, value in properties.items() if not values.same(key, now.get(key), value)}
    result = []
    done = set()
    for line in lines:
        key = _item(line)[0]
        if key not in changed:
            result.append(line)
            continue
        value = changed[key]
        # where a key came twice, the one line that is left says what is wanted
        if value is not None and key not in done:
            result.append(f"{key}: {value}")
        done.add(key)
    added = [f"{key}: {value}" for key, value in changed.items() if key not in done and value is not None]
    return _insert(result, added, _after_properties(result))


def _with_list(lines: list[str], key: str, wanted: list[str]) -> list[str]:
    if _list(lines, key) == wanted:
        return lines
    places = [index for index, line in enumerate(lines) if _item(line)[0] == key]
    kept = [line for line in lines if _item(line)[0] != key]
    place = places[0] if places else _end(kept)
    return _insert(kept, [f"{key}: {value}" for value in wanted], place)


def _insert(lines: list[str], added: list[str], place: int) -> list[str]:
    return [*lines[:place], *added, *lines[place:]]


def _after_properties(lines: list[str]) -> int:
    for index, line in enumerate(lines):
        if _LXC_LINE.match(line):
            return index
    return _end(lines)


def _end(lines: list[str]) -> int:
    """Return the index before the blank lines at the end."""
    end = len(lines)
    while end and not lines[end - 1].strip():
        end -= 1
    return end
