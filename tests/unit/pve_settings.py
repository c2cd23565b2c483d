# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A strict reader and a writer of Proxmox VE's ``VMID.conf``, by the grammar of pve-container 6.1.

``parse`` refuses what parse_pct_config warns of or refuses, ``write`` sorts as write_pct_config does, and ``lxc_config`` is
what update_lxc_config makes of the keys that matter here. Formats of properties are checked as JSONSchema does it.
"""

from __future__ import annotations

import copy
import re
import typing as t
from dataclasses import dataclass, field


def _words(text: str) -> set[str]:
    return set(text.split())


_SECTION = re.compile(r"\[([a-z][a-z0-9_\-]+)\]\s*\Z", re.I | re.A)
_PENDING = re.compile(r"\[pve:pending\]\s*\Z", re.I | re.A)
_LXC = re.compile(r"(lxc\.[a-z0-9_\-.]+)(:|\s*=)\s*(.*?)\s*\Z", re.A)
_PROPERTY = re.compile(r"([a-z][a-z_]*\d*):\s*(.+?)\s*\Z", re.A)

_LXC_KEYS = _words("""
    apparmor.profile apparmor.allow_incomplete apparmor.allow_nesting apparmor.raw selinux.context include arch uts.name
    signal.halt signal.reboot signal.stop init.cmd init.cwd init.uid init.gid init.groups pty.max console.logfile
    console.path tty.max devtty.dir hook.autodev autodev kmsg mount.fstab mount.entry mount.auto rootfs.mount cap.drop
    cap.keep seccomp.profile seccomp.notify.proxy seccomp.notify.cookie idmap hook.pre-start hook.pre-mount hook.mount
    hook.start hook.stop hook.post-stop hook.clone hook.destroy hook.version log.level log.file start.auto start.delay
    start.order group environment environment.runtime environment.hooks sysctl.fs.mqueue sysctl.kernel.msgmax
    sysctl.kernel.msgmnb sysctl.kernel.msgmni sysctl.kernel.sem sysctl.kernel.shmall sysctl.kernel.shmmax
    sysctl.kernel.shmmni sysctl.kernel.shm_rmid_forced
    """)
_BOOLEANS = _words("onboot template console protection unprivileged debug")
_INTEGERS = _words("tty cores cpuunits memory swap snaptime")
_NUMBERS = {"cpulimit"}
_STRINGS = _words(
    "lock arch ostype hostname description searchdomain nameserver timezone rootfs parent cmode entrypoint features env"
    " hookscript tags startup"
)
_ENUMS = {"cmode": ("shell", "console", "tty")}
_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9\-]*[a-zA-Z0-9])?"
_DNS_NAME = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}\Z")
_NET_KEYS = _words("type name bridge hwaddr mtu ip gw ip6 gw6 firewall tag trunks rate link_down host-managed")
_ROOTFS_KEYS = _words("volume size acl mountoptions idmap ro quota replicate shared")
_MP_KEYS = _ROOTFS_KEYS | {"backup", "mp", "keepattrs"}
_OPTION = r"(?:discard|lazytime|noatime|nodev|noexec|nosuid)"


class Refused(Exception):
    """Something that Proxmox VE would not read."""


@dataclass
class Section:
    """One set of settings; ``env`` and ``lxc`` in their order."""

    properties: dict[str, str] = field(default_factory=dict)
    env: list[str] = field(default_factory=list)
    lxc: list[tuple[str, str]] = field(default_factory=list)
    description: str = ""

    def values(self, key: str) -> list[str]:
        """The values of one raw key."""
        return [value for name, value in self.lxc if name == key]


@dataclass
class Config:
    """A whole file."""

    main: Section = field(default_factory=Section)
    pending: Section | None = None
    snapshots: dict[str, Section] = field(default_factory=dict)


def parse(text: str) -> Config:
    """Raises ``Refused`` where the strict parser would die."""
    config = Config()
    section = config.main
    in_pending = False
    for line in text.split("\n"):
        if not line.strip(" \t\r\f\v"):
            continue
        if _PENDING.match(line):
            section = config.pending = Section()
            in_pending = True
            continue
        match = _SECTION.match(line)
        if match:
            section = config.snapshots[match.group(1)] = Section()
            in_pending = False
            continue
        if line.startswith("#"):
            section.description += _decode(line[1:]) + "\n"
            continue
        match = _LXC.match(line)
        if match:
            key, value = match.group(1), match.group(3)
            if key == "lxc.environment.runtime":
                section.env.append(value)
            elif _is_lxc_key(key):
                section.lxc.append((key, value))
            else:
                raise Refused(f"unable to parse config: {line}")
            continue
        match = _PROPERTY.match(line)
        if match is None:
            raise Refused(f"unable to parse config: {line}")
        key, value = match.group(1), match.group(2)
        if key in ("delete", "snapstate") and (in_pending or key == "snapstate"):
            section.properties[key] = value
            continue
        section.properties[key] = _checked(key, value)
    return config


def write(config: Config) -> str:
    """As Proxmox VE writes it: properties sorted, then the environment, then raw keys."""
    text = _write_section(config.main)
    if config.pending is not None and config.pending != Section():
        text += "\n[pve:pending]\n" + _write_section(config.pending)
    for name in sorted(config.snapshots):
        text += f"\n[{name}]\n" + _write_section(config.snapshots[name])
    return text


def _write_section(section: Section) -> str:
    lines = ["#" + _encode(line) for line in section.description.split("\n")[:-1]]
    lines += [f"{key}: {section.properties[key]}" for key in sorted(section.properties)]
    # an empty list is no environment; parts are split by one or more NULs
    lines += [f"lxc.environment.runtime: {value}" for value in section.env if value]
    lines += [f"{key}: {value}" for key, value in section.lxc]
    return "".join(line + "\n" for line in lines)


def lxc_config(section: Section) -> str:
    """The lines that Proxmox VE writes for LXC from entrypoint, environment and raw keys, in its order."""
    lines = ["lxc.environment = TERM=linux"]
    custom = bool(section.values("lxc.idmap"))
    if section.properties.get("unprivileged") == "1" and not custom:
        lines += ["lxc.idmap = u 0 100000 65536", "lxc.idmap = g 0 100000 65536"]
    lines.append(f"lxc.uts.name = {section.properties.get('hostname', 'CT100')}")
    lines.append("lxc.rootfs.path = /var/lib/lxc/100/rootfs")
    if "entrypoint" in section.properties:
        lines.append(f"lxc.init.cmd = {section.properties['entrypoint']}")
    lines += [f"lxc.environment.runtime = {value}" for value in section.env]
    lines += [f"{key} = {value}" for key, value in section.lxc]
    return "\n".join(lines) + "\n"


def property_string(text: str, keys: t.Collection[str]) -> dict[str, str]:
    """A list of ``key=value``; the one without a key is the volume."""
    found: dict[str, str] = {}
    for part in text.split(","):
        if not part.strip():
            continue
        match = re.match(r"([^=]+)=(.+)\Z", part)
        if match:
            key, value = match.groups()
        elif "=" not in part:
            key, value = "volume", part
        else:
            raise Refused(f"missing key: {part}")
        if key in found:
            raise Refused(f"duplicate key: {key}")
        if key not in keys:
            raise Refused(f"invalid key: {key}")
        found[key] = value
    return found


def mount_points(section: Section) -> dict[str, dict[str, str]]:
    """Every ``mpN``, taken apart."""
    return {
        key: property_string(value, _MP_KEYS) for key, value in section.properties.items() if re.match(r"mp\d+\Z", key)
    }


def copied(config: Config) -> Config:
    """For changes as Proxmox VE's own tools make them."""
    return copy.deepcopy(config)


def _is_lxc_key(key: str) -> bool:
    return key[4:] in _LXC_KEYS or bool(re.match(r"lxc\.(?:cgroup2|prlimit|net)\.", key))


def _checked(key: str, value: str) -> str:
    if key in _BOOLEANS:
        if value.lower() in ("1", "on", "yes", "true"):
            return "1"
        if value.lower() in ("0", "off", "no", "false"):
            return "0"
        raise Refused(f"{key}: no boolean: {value}")
    if key in _INTEGERS:
        if not re.match(r"[0-9]+\Z", value):
            raise Refused(f"{key}: no integer: {value}")
        return str(int(value))
    if key in _NUMBERS:
        if not re.match(r"[0-9]+(?:\.[0-9]+)?\Z", value):
            raise Refused(f"{key}: no number: {value}")
        return value
    numbered = re.match(r"(net|mp|dev|unused)([0-9]+)\Z", key)
    if key not in _STRINGS and numbered is None:
        raise Refused(f"unknown setting {key}")
    if numbered is not None:
        kind, number = numbered.group(1), int(numbered.group(2))
        if number >= (32 if kind == "net" else 256):
            raise Refused(f"unknown setting {key}")
        if kind == "net":
            _check_net(property_string(value, _NET_KEYS | {"volume"}))
        if kind == "mp":
            _check_mount_point(property_string(value, _MP_KEYS), True)
    if key == "rootfs":
        _check_mount_point(property_string(value, _ROOTFS_KEYS), False)
    if key == "hostname" and not (_DNS_NAME.match(value) and len(value) <= 255):
        raise Refused(f"{key}: no DNS name: {value}")
    # the patterns of its API, which its parser of the file does not enforce
    if key == "entrypoint" and re.search(r"[\x00-\x08\x0a-\x1f\x7f]", value):
        raise Refused(f"{key}: a control character")
    if key in _ENUMS and value not in _ENUMS[key]:
        raise Refused(f"{key}: not one of {_ENUMS[key]}")
    return value


def _check_net(parts: dict[str, str]) -> None:
    if "name" not in parts or "volume" in parts:
        raise Refused("a network without a name")
    if parts.get("host-managed", "0") not in ("0", "1"):
        raise Refused("host-managed is no boolean")
    if parts.get("host-managed") == "1" and parts.get("ip6") == "auto":
        raise Refused("SLAAC is not supported for host-managed network configuration")


def _check_mount_point(parts: dict[str, str], needs_target: bool) -> None:
    if "volume" not in parts or (needs_target and "mp" not in parts):
        raise Refused(f"an incomplete mount point: {parts}")
    for path in (parts["volume"], parts.get("mp", "")):
        if re.search(r"/\.\.?/|/\.\.?\Z|\A\.\./", path):
            raise Refused(f"illegal character sequences: {path}")
    options = parts.get("mountoptions")
    if options is not None and not re.match(rf"{_OPTION}(?:;{_OPTION})*\Z", options):
        raise Refused(f"mount options: {options}")
    for key in ("ro", "backup", "shared", "quota", "acl", "replicate"):
        if parts.get(key, "0") not in ("0", "1"):
            raise Refused(f"{key} is no boolean")


def _encode(text: str) -> str:
    return re.sub(
        r"[\x00-\x1f\x7f%:\u0080-\U0010ffff]", lambda m: "".join(f"%{byte:02X}" for byte in m.group(0).encode()), text
    )


def _decode(text: str) -> str:
    data = re.sub(rb"%([0-9A-Fa-f]{2})", lambda m: bytes([int(m.group(1), 16)]), text.encode())
    return data.decode("utf-8", "replace")
