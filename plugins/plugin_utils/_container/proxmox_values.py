# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""Single values of Proxmox VE's configuration of a container (docs/behaviour.md, section 9)."""

from __future__ import annotations

import posixpath
import re
import typing as t

from ...module_utils._errors import show
from .model import ContainerError, Mount, Option
from .text import require_line

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_DNS_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\Z")
_TRUE = ("1", "on", "yes", "true")
_FALSE = ("0", "off", "no", "false")
_BOOLEANS = ("unprivileged", "onboot", "console", "protection", "debug", "template")
_MOUNT_POINT = re.compile(r"mp([0-9]+)\Z")
_PROPERTY_STRING = re.compile(r"(?:mp|net)[0-9]+\Z")
_MOUNT_POINTS = 256
_MOUNT_OPTIONS = ("discard", "lazytime", "noatime", "nodev", "noexec", "nosuid")
_READ_ONLY_OPTIONS = ("nodev", "noexec", "nosuid")
_FSTAB_ESCAPE = re.compile(r"\\([0-7]{3})")

# What pve-container knows, but for keys of its own and of ours.
_PROPERTY_WORDS = (
    "arch ostype console tty cores cpulimit cpuunits memory swap onboot startup nameserver searchdomain timezone"
    " protection features hookscript tags debug"
)
_PROPERTIES = tuple(_PROPERTY_WORDS.split())
_NUMBERED = re.compile(r"(?:net(?:[12]?[0-9]|3[01])|dev(?:[0-9]{1,2}|1[0-9]{2}|2[0-4][0-9]|25[0-5]))\Z")
_LXC_WORDS = (
    "apparmor.profile apparmor.allow_incomplete apparmor.allow_nesting apparmor.raw selinux.context include arch"
    " uts.name signal.reboot signal.stop pty.max console.logfile console.path tty.max devtty.dir autodev kmsg"
    " mount.fstab mount.auto rootfs.mount cap.drop cap.keep seccomp.profile seccomp.notify.proxy"
    " seccomp.notify.cookie hook.autodev hook.pre-start hook.pre-mount hook.mount hook.start hook.stop hook.post-stop"
    " hook.clone hook.destroy hook.version log.level log.file start.auto start.delay start.order group environment"
    " environment.hooks sysctl.fs.mqueue sysctl.kernel.msgmax sysctl.kernel.msgmnb sysctl.kernel.msgmni"
    " sysctl.kernel.sem sysctl.kernel.shmall sysctl.kernel.shmmax sysctl.kernel.shmmni"
    " sysctl.kernel.shm_rmid_forced"
)
_LXC_KEYS = tuple(_LXC_WORDS.split())
_LXC_FAMILIES = re.compile(r"lxc\.(?:cgroup2|prlimit|net)\.[a-z0-9_\-.]+\Z")


def is_property_key(key: t.Any) -> bool:
    """Whether the administrator may set this property."""
    return isinstance(key, str) and (key in _PROPERTIES or _NUMBERED.match(key) is not None)


def is_lxc_key(key: t.Any) -> bool:
    """Whether pve-container takes this raw key of LXC's."""
    return isinstance(key, str) and (
        (key.startswith("lxc.") and key[4:] in _LXC_KEYS) or _LXC_FAMILIES.match(key) is not None
    )


def setting(key: str, value: t.Any) -> str:
    """A value of the administrator's as it stands in the file. Raises ``ContainerError``."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if not isinstance(value, (str, int, float)):
        raise ContainerError(
            Option(f"settings.{key}"), " must be a string, a number or a boolean, or null to remove it"
        )
    text = require_line(f"settings.{key}", str(value).strip())
    if not text:
        raise ContainerError(Option(f"settings.{key}"), " is empty; use null to remove it")
    return text


def hostname(name: str) -> str:
    """A DNS name. Raises ``ContainerError``."""
    if not _DNS_NAME.match(name):
        raise ContainerError(
            Option("hostname"),
            f": Proxmox VE does not accept {show(name)}; use letters, digits and '-', and '.' between them",
        )
    return name


def is_true(value: str) -> bool:
    """A boolean of Proxmox VE's."""
    return value.lower() in _TRUE


def same(key: str, now: str | None, wanted: str | None) -> bool:
    """Whether the file says what is wanted already, in whatever way Proxmox VE wrote it."""
    if now is None or wanted is None:
        return now is wanted
    if key in _BOOLEANS and now.lower() in (*_TRUE, *_FALSE):
        return is_true(now) == is_true(wanted)
    if _PROPERTY_STRING.match(key):
        return _parts(now) == _parts(wanted)
    return now == wanted


def _parts(text: str) -> dict[str, str]:
    """A property string; the part without a key is the volume."""
    parts = {}
    for part in text.split(","):
        key, equals, value = part.partition("=")
        if part.strip():
            parts[key if equals else "volume"] = value if equals else part
    return parts


def host_managed(key: str, net: str) -> str:
    """A network whose addresses the host sets, unless it says something of that. Raises ``ContainerError``."""
    parts = _parts(net)
    if "host-managed" in parts:
        return net
    if parts.get("ip6") == "auto":
        raise ContainerError(
            f"{key}: the host cannot set ip6=auto, and the image may not do it; set another ip6, or" " host-managed=0"
        )
    return f"{net},host-managed=1"


def mount_points(
    binds: t.Sequence[Mount], now: t.Mapping[str, str], elsewhere: t.Collection[str], dropped: t.Collection[str]
) -> dict[str, str | None]:
    """``mpN`` for each bind mount: the one that has its target, or a new one with a number that no section uses.

    ``dropped`` are targets whose bind mounts go. Raises ``ContainerError``.
    """
    by_target = {}
    for key, value in now.items():
        if _MOUNT_POINT.match(key):
            by_target[posixpath.normpath(_parts(value).get("mp", ""))] = key
    result: dict[str, str | None] = {}
    for target in dropped:
        key = by_target.get(target, "")
        if key:
            _require_bind(key, target, _parts(now[key]))
            result[key] = None
    used = {*now, *elsewhere}
    for mount in binds:
        key = by_target.get(mount.target) or _free(used)
        used.add(key)
        result[key] = _mount_point(key, mount, _parts(now.get(key, "")))
    return result


def _free(used: t.Collection[str]) -> str:
    for number in range(_MOUNT_POINTS):
        if f"mp{number}" not in used:
            return f"mp{number}"
    raise ContainerError(
        Option("mounts"), f": all {_MOUNT_POINTS} mount points of the container are in use; remove some"
    )


def _mount_point(key: str, mount: Mount, now: dict[str, str]) -> str:
    if now:
        _require_bind(key, mount.target, now)
    # whatever else stands there, such as backup=1, is the administrator's
    parts = {name: value for name, value in now.items() if name not in ("volume", "mp", "ro", "mountoptions")}
    parts["mp"] = _path("mounts.target", mount.target)
    source = _path("mounts.source", mount.source)
    if source.startswith("/dev/"):
        raise ContainerError(
            Option("mounts.source"), f": Proxmox VE would mount the disk {show(source)}; use a directory"
        )
    options = _options(mount)
    if options:
        parts["mountoptions"] = ";".join(options)
    if mount.read_only:
        parts["ro"] = "1"
    return ",".join([source, *(f"{name}={parts[name]}" for name in sorted(parts))])


def _require_bind(key: str, target: str, now: dict[str, str]) -> None:
    """Volumes are Proxmox VE's own: dropping their line would lose them."""
    volume = now.get("volume", "")
    if not volume.startswith("/"):
        raise ContainerError(
            Option("mounts"),
            f": {key} mounts the volume {show(volume)} at {show(target)}; use another target, or remove the"
            " volume with Proxmox VE's own tools",
        )


def _path(field: str, path: str) -> str:
    require_line(field, path)
    if "," in path or "=" in path or path[-1].isspace():
        raise ContainerError(
            Option(field),
            f": Proxmox VE cannot express {show(path)}; use a path without ',', '=' and a blank at its end",
        )
    return path


def _options(mount: Mount) -> list[str]:
    allowed = _READ_ONLY_OPTIONS if mount.read_only else _MOUNT_OPTIONS
    options = []
    for option in mount.options:
        if option not in allowed and option != "bind":
            raise ContainerError(
                Option("mounts.options"),
                f": Proxmox VE does not know the option {show(option)} for the mount at {show(mount.target)};"
                f" use {', '.join(allowed)}",
            )
        if option != "bind":
            options.append(option)
    return sorted(set(options))


def entry_target(value: str) -> str:
    """The target of a line of ``lxc.mount.entry``, as an absolute path, or an empty string."""
    if len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]:
        value = value[1:-1]
    fields = value.split()
    if len(fields) < 2:
        return ""
    text = _FSTAB_ESCAPE.sub(lambda match: chr(int(match.group(1), 8)), fields[1])
    return posixpath.normpath("/" + text.lstrip("/"))
