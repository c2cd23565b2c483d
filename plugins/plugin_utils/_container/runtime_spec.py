# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""A container as ``config.json`` of an OCI bundle (runtime-spec 1.0.2; docs/behaviour.md, section 9; docs/rendering.md).

What the image-spec says of the conversion (``conversion.md``) holds; all else is as in Docker's own defaults.
"""

from __future__ import annotations

import json
import math
import typing as t
from collections.abc import Mapping

from ...module_utils._errors import show
from .model import Container, ContainerError, IdRange, Mount, Option
from .text import require_text

Document = t.Dict[str, t.Any]

# Nothing newer is used, and systemd-nspawn --oci-bundle takes no other number; runc and crun take all of 1.0.
_VERSION = "1.0.0"
_ANNOTATION = "org.opencontainers.image."
_DEPTH = 32
_MOST_SHOWN = 10
_LARGEST = 2**63 - 1

_CAPABILITIES = [
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
]
_MASKED = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
]
_READ_ONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
# null, zero, full, random, urandom, tty, console; runtimes add ptmx and the pts themselves
_DEVICES = ((1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1))
_TTY_GROUP = 5
_PROPAGATION = ("private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable")
# LXC's words for what a runtime does anyway
_CREATE = ("create=dir", "create=file")
_TMPFS_DEFAULT = ("nosuid", "nodev", "mode=1777")

# Annotations by which runtimes are told to do something; an image has no say in that.
_COMMANDS = (
    "run.oci.",
    "org.systemd.property.",
    "org.criu.",
    "module.wasm.",
    "krun.",
    "io.katacontainers.",
    "dev.gvisor.",
)


def runtime_spec(
    container: Container, *, network: str | None = "private", settings: t.Mapping[str, t.Any] | None = None
) -> Document:
    """The document, of JSON's types only.

    ``network``: ``private`` (a new network namespace), ``host`` (the host's), or the absolute path of one.
    ``settings``: the administrator's, merged into the document: mappings by key, ``None`` takes a key out, all
    else replaces what was there, lists too. Raises ``ContainerError``.
    """
    network = "private" if network is None else str(network)
    own: Document = {
        "ociVersion": _VERSION,
        "process": _process(container),
        "root": {"path": container.rootfs, "readonly": False},
        "hostname": container.hostname,
        "mounts": _mounts(container, network),
        "linux": _linux(container, network),
        "annotations": _annotations(container),
    }
    _check(own, "container")
    given = settings or {}
    if not isinstance(given, Mapping):
        raise ContainerError(Option("settings"), " must be a mapping, like a config.json")
    merged: Document = _merged(own, given, "settings", 0)
    return merged


def dropped_labels(container: Container) -> tuple[str, ...]:
    """Labels of the image that do not become annotations, since a runtime would obey them."""
    return tuple(key for key, _value in container.labels if _is_command(key))


def needs_wrapper(container: Container, **options: t.Any) -> bool:
    """Return ``False``: JSON expresses every word."""
    del container, options
    return False


def wrapper_script(container: Container, **options: t.Any) -> str | None:
    """Return ``None``: there is never a wrapper."""
    del container, options
    return None


def _process(container: Container) -> Document:
    if not container.argv:
        raise ContainerError(Option("command"), " is empty")
    user = container.user
    process: Document = {
        "terminal": False,
        "user": {"uid": user.uid, "gid": user.gid},
        "args": list(container.argv),
        "env": [f"{key}={value}" for key, value in container.env],
        "cwd": container.working_dir,
        "capabilities": {"bounding": list(_CAPABILITIES)},
        "noNewPrivileges": False,
    }
    if user.groups:
        process["user"]["additionalGids"] = list(user.groups)
    if user.uid == 0:
        # for others, a change of the user would have taken them away, too
        process["capabilities"]["effective"] = list(_CAPABILITIES)
        process["capabilities"]["permitted"] = list(_CAPABILITIES)
    return process


def _mounts(container: Container, network: str) -> list[Document]:
    """The file systems of every container, then the user's; one of theirs takes the place of ours."""
    mounts = {mount["destination"]: mount for mount in _api_mounts(container, network)}
    for mount in container.mounts:
        mounts.pop(mount.target, None)
        mounts[mount.target] = _user_mount(mount)
    return list(mounts.values())


def _api_mounts(container: Container, network: str) -> list[Document]:
    mapped = bool(container.uid_map)
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if not mapped or _is_mapped(_TTY_GROUP, container.gid_map):
        pts.append(f"gid={_TTY_GROUP}")
    safe = ["nosuid", "noexec", "nodev"]
    if mapped and network != "private":
        # the kernel mounts sysfs only for the owner of the network namespace
        sys = _mount("/sys", "none", "/sys", ["rbind", "rprivate", *safe, "ro"])
    else:
        sys = _mount("/sys", "sysfs", "sysfs", [*safe, "ro"])
    return [
        _mount("/proc", "proc", "proc", safe),
        _mount("/dev", "tmpfs", "tmpfs", ["nosuid", "strictatime", "mode=755", "size=65536k"]),
        _mount("/dev/pts", "devpts", "devpts", pts),
        _mount("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", "size=65536k"]),
        _mount("/dev/mqueue", "mqueue", "mqueue", safe),
        sys,
        _mount("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, "relatime", "ro"]),
    ]


def _mount(target: str, kind: str, source: str, options: list[str]) -> Document:
    return {"destination": target, "type": kind, "source": source, "options": list(options)}


def _user_mount(mount: Mount) -> Document:
    read_only = mount.read_only
    options = []
    for option in mount.options:
        if option in ("ro", "rw"):
            read_only = option == "ro"
        elif option not in _CREATE:
            options.append(option)
    if mount.type == "tmpfs":
        options = options or list(_TMPFS_DEFAULT)
    else:
        if not {"bind", "rbind"}.intersection(options):
            # mounts below would stay writable
            options.insert(0, "bind" if read_only else "rbind")
        if not set(_PROPAGATION).intersection(options):
            options.append("rprivate")
    options.append("ro" if read_only else "rw")
    return _mount(mount.target, mount.type, mount.source, options)


def _is_mapped(number: int, ranges: tuple[IdRange, ...]) -> bool:
    return any(ids.container <= number < ids.container + ids.count for ids in ranges)


def _linux(container: Container, network: str) -> Document:
    namespaces: list[Document] = [{"type": kind} for kind in ("pid", "ipc", "uts", "mount", "cgroup")]
    if network == "private":
        namespaces.append({"type": "network"})
    elif network.startswith("/"):
        namespaces.append({"type": "network", "path": network})
    elif network != "host":
        raise ContainerError(
            Option("network"), f": {show(network)} must be private, host or the absolute path of a network namespace"
        )
    linux: Document = {
        "resources": {"devices": _devices()},
        "namespaces": namespaces,
        "maskedPaths": list(_MASKED),
        "readonlyPaths": list(_READ_ONLY),
    }
    if container.uid_map:
        namespaces.append({"type": "user"})
        linux["uidMappings"] = _mappings(container.uid_map)
        linux["gidMappings"] = _mappings(container.gid_map)
    return linux


def _mappings(ranges: tuple[IdRange, ...]) -> list[Document]:
    return [{"containerID": ids.container, "hostID": ids.host, "size": ids.count} for ids in ranges]


def _devices() -> list[Document]:
    rules: list[Document] = [{"allow": False, "access": "rwm"}]
    for major, minor in _DEVICES:
        rules.append({"allow": True, "type": "c", "major": major, "minor": minor, "access": "rwm"})
    return rules


def _annotations(container: Container) -> dict[str, str]:
    """What conversion.md says; a label of the image wins over what is concluded from its fields."""
    annotations = {
        f"{_ANNOTATION}os": container.os,
        f"{_ANNOTATION}architecture": container.architecture,
        f"{_ANNOTATION}stopSignal": container.stop_signal,
    }
    if container.variant:
        annotations[f"{_ANNOTATION}variant"] = container.variant
    if container.created is not None:
        annotations[f"{_ANNOTATION}created"] = container.created
    if container.exposed_ports:
        annotations[f"{_ANNOTATION}exposedPorts"] = ",".join(container.exposed_ports)
    for key, value in container.labels:
        # the runtime-spec has no annotation without a name
        if key and not _is_command(key):
            annotations[key] = value
    return annotations


def _is_command(key: str) -> bool:
    return key.startswith(_COMMANDS)


def _merged(own: t.Any, given: t.Any, field: str, depth: int) -> t.Any:
    if depth > _DEPTH:
        raise ContainerError(Option(field), f": settings are nested more than {_DEPTH} deep")
    if isinstance(given, Mapping):
        result = dict(own) if isinstance(own, dict) else {}
        for key, value in given.items():
            if not isinstance(key, str):
                raise ContainerError(
                    Option(field), f": the key {show(str(key))} must be a string; put it between quotes"
                )
            inner = f"{field}.{show(key)[1:-1]}"
            require_text(inner, key)
            if value is None:
                result.pop(key, None)
            else:
                result[key] = _merged(result.get(key), value, inner, depth + 1)
        return result
    if isinstance(given, (list, tuple)):
        return [_merged(None, value, f"{field}[{number}]", depth + 1) for number, value in enumerate(given)]
    return _scalar(given, field)


def _scalar(value: t.Any, field: str) -> t.Any:
    if isinstance(value, str):
        return require_text(field, value)
    if isinstance(value, int) and abs(value) <= _LARGEST * 2 + 1:
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    raise ContainerError(
        Option(field),
        f": a config.json cannot express {show(str(value))}; use a string, number, boolean, list or mapping",
    )


def _check(value: t.Any, field: str) -> None:
    """No NUL, and valid Unicode, in every key and value: C strings end at a NUL."""
    if isinstance(value, str):
        require_text(field, value)
    elif isinstance(value, dict):
        for key, item in value.items():
            inner = f"{field}.{show(key)[1:-1]}"
            require_text(inner, key)
            _check(item, inner)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            _check(item, f"{field}[{number}]")


def spec_text(document: t.Mapping[str, t.Any]) -> str:
    """Return the text of config.json, in ASCII: no byte of an image stands in the file as it was."""
    return json.dumps(document, indent=2) + "\n"


def label_warnings(container: Container) -> list[str]:
    """Return a warning if labels of the image were left out, since a runtime would obey them as annotations."""
    dropped = dropped_labels(container)
    if not dropped:
        return []
    shown = ", ".join(map(show, dropped[:_MOST_SHOWN]))
    rest = len(dropped) - _MOST_SHOWN
    more = f" and {rest} more" if rest > 0 else ""
    return [f"labels of the image did not become annotations, since a runtime would obey them: {shown}{more}"]
