# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this module util is PRIVATE to the collection.

"""Who uses a tree: mounts at or below it, and processes that live in it (docs/behaviour.md, section 7).

A container's processes have a mount namespace of their own, where the tree lies at another path: they
are found by the identity of their root, and by mounts of the same part of the same file system.
"""

from __future__ import annotations

import os
import typing as t

from ansible_collections.hypervisor.oci.plugins.module_utils._errors import (
    RootfsError,
    show,
    visible,
)
from ansible_collections.hypervisor.oci.plugins.module_utils._rootfs.syscalls import (
    mount_id,
)

_MOST_SHOWN = 10


class Mount(t.NamedTuple):
    """A line of C(mountinfo): C(device) is C(major:minor), C(root) the part of the file system shown."""

    id: int
    device: str
    root: str
    point: str


def users_of(fd: int, path: str) -> list[str]:
    """What uses the tree whose root is open as C(fd) and lies at C(path), in words for a message."""
    return [*_mounts(fd, path), *_processes(fd, path)]


def require_unused(fd: int, path: str) -> None:
    """Raises C(RootfsError) that lists what uses the tree."""
    users = users_of(fd, path)
    if not users:
        return
    shown = ", ".join(users[:_MOST_SHOWN])
    rest = len(users) - _MOST_SHOWN
    if rest > 0:
        shown += f" and {rest} more"
    raise RootfsError(
        f"{show(path)} is in use by {shown}; stop what uses it, or set in_use: ignore"
    )


def require_no_mount_below(path: str) -> None:
    """Raises C(RootfsError) where a removal of C(path) would come upon a mount, before it begins."""
    for mount in read_mounts():
        if _is_below(mount.point, path):
            raise RootfsError(
                f"{show(path)} cannot be removed with the mount at {show(mount.point)} inside of it; unmount that and run again"
            )


def read_mounts(path: str = "/proc/self/mountinfo") -> list[Mount]:
    """The mounts of a process; none where they may not be read or it is gone."""
    mounts = []
    try:
        with open(path, "rb") as lines:
            for line in lines:
                fields = line.split(b" ")
                mounts.append(
                    Mount(
                        int(fields[0]),
                        fields[2].decode(),
                        _unescape(fields[3]),
                        _unescape(fields[4]),
                    )
                )
    except OSError:
        return []
    return mounts


def _mounts(fd: int, path: str) -> list[str]:
    own = read_mounts()
    found = [
        f"a mount at {mount.point}" for mount in own if _is_below(mount.point, path)
    ]
    number = mount_id(fd)
    home = next((mount for mount in own if mount.id == number), None)
    if home is None:
        return found
    inside = path[len(home.point.rstrip("/")) :] if home.point != path else ""
    part = (home.root.rstrip("/") + inside) or "/"
    known = {(mount.device, mount.root, mount.point) for mount in own}
    found += [
        f"a mount of it at {mount.point}"
        for mount in own
        if mount.device == home.device
        and mount.id != home.id
        and _is_at_or_below(mount.root, part)
        and not _is_at_or_below(mount.point, path)
    ]
    for process, mounts in _other_namespaces():
        found += [
            f"a mount of it at {mount.point} of process {process}"
            for mount in mounts
            if mount.device == home.device
            and (mount.device, mount.root, mount.point) not in known
            and _is_at_or_below(mount.root, part)
        ]
    return found


def _processes(fd: int, path: str) -> list[str]:
    root = os.fstat(fd)
    found = []
    for process in _process_ids():
        for link, words in (("root", "its root"), ("cwd", "its working directory")):
            name = f"/proc/{process}/{link}"
            try:
                there = os.stat(name)
                text = os.readlink(name)
            except OSError:
                # gone, or of another user
                continue
            same = (there.st_dev, there.st_ino) == (root.st_dev, root.st_ino)
            if same or _is_at_or_below(text, path):
                found.append(f"process {process} ({_command(process)}) with {words}")
                break
    return found


def _other_namespaces() -> t.Iterator[tuple[int, list[Mount]]]:
    try:
        seen = {os.stat("/proc/self/ns/mnt").st_ino}
    except OSError:
        return
    for process in _process_ids():
        try:
            namespace = os.stat(f"/proc/{process}/ns/mnt").st_ino
        except OSError:
            continue
        if namespace not in seen:
            seen.add(namespace)
            yield process, read_mounts(f"/proc/{process}/mountinfo")


def _process_ids() -> list[int]:
    own = os.getpid()
    ids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [process for process in ids if process != own]


def _command(process: int) -> str:
    try:
        with open(f"/proc/{process}/comm", "rb") as name:
            return visible(name.read(64).strip(), 64)
    except OSError:
        return "?"


def _is_below(path: str, above: str) -> bool:
    return path.startswith(above.rstrip("/") + "/") and path != above


def _is_at_or_below(path: str, above: str) -> bool:
    return path == above or _is_below(path, above)


def _unescape(field: bytes) -> str:
    parts = field.split(b"\\")
    text = parts[0]
    for part in parts[1:]:
        text += bytes([int(part[:3], 8)]) + part[3:]
    return os.fsdecode(text)
