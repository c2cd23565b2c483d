# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Find who uses a tree: mounts, overlays and processes (docs/behaviour.md, section 7).

In the mount namespace of a container the tree may lie at another path, and its path may lead to another directory. So
everything is compared as a ``Spot``: by file system and path within it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import typing as t

from .._errors import RootfsError, show
from .._fs.descriptors import opened
from .mounts import Mount, Namespaces, Spot, Table, is_at_or_below, is_below, names_of, read_mounts, spot_by_name
from .._fs.syscalls import mount_id

_MOST_SHOWN = 10
# A container decides how long the paths of its mapped files are, and how many it maps.
_LONGEST_LINE = 1 << 16
_MOST_HELD = 10_000
_LINKS = (("root", "its root"), ("cwd", "its working directory"), ("exe", "its executable"))
# Such a descriptor only names a file: opening one neither reads nor blocks.
_PATH = os.O_PATH | os.O_CLOEXEC
# How far to climb from a directory whose path is too long.
_MOST_STEPS = 10_000


def require_unused(fd: int, path: str) -> None:
    """Raise ``RootfsError`` that lists what uses the tree."""
    users = users_of(fd)
    if not users:
        return
    shown = ", ".join(users[:_MOST_SHOWN])
    rest = len(users) - _MOST_SHOWN
    if rest > 0:
        shown += f" and {rest} more"
    raise RootfsError(f"{show(path)} is in use by {shown}; stop what uses it, or set in_use: ignore")


def require_no_mount_below(path: str) -> None:
    """Raise ``RootfsError`` if there is a mount below ``path``, which can neither be moved nor removed."""
    for mount in read_mounts():
        if is_below(mount.point, path):
            raise RootfsError(
                f"{show(path)} cannot be replaced or removed with a mount at {show(mount.point)} in it;"
                " unmount that and run again"
            )


def users_of(fd: int) -> list[str]:
    """Return what uses the tree whose root is open as ``fd``, in words for a message."""
    namespaces = Namespaces()
    number = mount_id(fd)
    # in a chroot that is not a mount point, the table lacks the mount of the root
    home = namespaces.own.setdefault(number, Mount(number, 0, f"mount {number}", "/", "/"))
    tree = home.spot(os.readlink(f"/proc/self/fd/{fd}"))
    if tree is None:
        raise RootfsError("the tree was moved while its users were looked for")
    processes = list(_living_processes())
    return [*_mounts(namespaces, home, tree, processes), *_processes(namespaces, home, tree, processes)]


# -- mounts


def _mounts(namespaces: Namespaces, home: Mount, tree: Spot, processes: list[str]) -> t.Iterator[str]:
    names = names_of(namespaces.own, tree)
    for mount in namespaces.own.values():
        use = _use_of(namespaces.own, mount, tree, mount.id == home.id)
        # an administrator mounted what is in this namespace, so links in the paths can be followed
        layers = {*mount.layers, *map(os.path.realpath, mount.layers)}
        use = use or _layer_use(namespaces.own, layers, tree, names)
        if use:
            yield f"{use} at {show(mount.point)}"
    known = {mount.alike for mount in namespaces.own.values()}
    for process, table in namespaces.others(processes):
        names = names_of(table, tree)
        for mount in table.values():
            if mount.alike in known:
                continue
            use = _use_of(table, mount, tree, False)
            use = use or _layer_use(table, mount.layers, tree, names)
            if use:
                yield f"{use} at {show(mount.point)} of process {_number(process)}"


def _use_of(table: Table, mount: Mount, tree: Spot, is_home: bool) -> str:
    """Return how a mount uses the tree; empty if it does not."""
    if is_home:
        return ""
    parent = table.get(mount.parent)
    if parent is not None and tree.holds(parent.spot(mount.place)):
        return "a mount"
    return "a mount of it" if tree.holds(mount.top) else ""


def _layer_use(table: Table, layers: t.Iterable[str], tree: Spot, names: tuple[str, ...]) -> str:
    """Return how an overlay uses the tree as a layer; empty if it does not.

    Its layers are known only by the paths at the time of the mount, in its own namespace.
    """
    for layer in layers:
        path = os.path.normpath(layer)
        # resolve only paths that can lead to the tree, however many a container has
        if any(is_at_or_below(path, name) for name in names) and tree.holds(spot_by_name(table, path)):
            return "an overlay of it"
    return ""


# -- processes


def _processes(namespaces: Namespaces, home: Mount, tree: Spot, processes: list[str]) -> t.Iterator[str]:
    # for files mapped from an overlay, the kernel shows the device of the layer
    device = None if home.type == "overlay" else home.device
    maps = _Maps(namespaces, tree, device)
    for process in processes:
        words = _link_use(namespaces, tree, process)
        if not words and _has_open(namespaces, tree, process):
            words = "an open file"
        if not words and maps.use(process):
            words = "a mapped file"
        if words:
            yield f"process {_number(process)} ({_command(process)}) with {words}"


def _link_use(namespaces: Namespaces, tree: Spot, process: str) -> str:
    for link, words in _LINKS:
        try:
            fd = os.open(f"/proc/{process}/{link}", _PATH)
        except OSError:
            # gone, of another user, or without an executable
            continue
        if _is_in(namespaces, tree, process, fd):
            return words
    return ""


def _is_in(namespaces: Namespaces, tree: Spot, process: str, fd: int) -> bool:
    """Return whether what is open as ``fd`` lies in the tree; close ``fd``."""
    with opened(fd):
        try:
            return _holds(tree, namespaces.find(process, mount_id(fd)), _path_of(f"/proc/self/fd/{fd}"))
        except OSError:
            return False


def _path_of(link: str) -> str | None:
    """Return the path that a link in ``/proc`` leads to.

    If it is too long for the kernel to tell, return that of the deepest directory above whose path it tells. The tree's own
    path is told, so both lie in the tree, or neither does. Return ``None`` if this is not a directory.
    """
    try:
        return os.readlink(link)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
    try:
        fd = os.open(link, _PATH | os.O_DIRECTORY)
    except NotADirectoryError:
        return None
    return _path_above(fd)


def _path_above(fd: int) -> str | None:
    """Return the path of the nearest directory above whose path the kernel tells, on the same mount; close ``fd``."""
    with contextlib.ExitStack() as stack:
        stack.callback(os.close, fd)
        mount = mount_id(fd)
        for _step in range(_MOST_STEPS):
            above = os.open("..", _PATH | os.O_DIRECTORY, dir_fd=fd)
            stack.pop_all().close()
            stack.callback(os.close, above)
            fd = above
            if mount_id(fd) != mount:
                return None
            with contextlib.suppress(OSError):
                return os.readlink(f"/proc/self/fd/{fd}")
    return None


def _holds(tree: Spot, mount: Mount | None, path: str | None) -> bool:
    """Return whether a path on a mount lies in the tree; an unknown path does if the mount shows nothing else."""
    if mount is None:
        return False
    if path is None:
        # a whole file system would let anybody's deep path elsewhere on it keep every tree in use
        return tree.holds(mount.top)
    return tree.holds(mount.spot(path))


def _has_open(namespaces: Namespaces, tree: Spot, process: str) -> bool:
    try:
        with os.scandir(f"/proc/{process}/fd") as descriptors:
            for descriptor in descriptors:
                info = f"/proc/{process}/fdinfo/{descriptor.name}"
                if _is_open_in(namespaces, tree, process, descriptor.path, info):
                    return True
    except OSError:
        # gone, or of another user
        return False
    return False


def _is_open_in(namespaces: Namespaces, tree: Spot, process: str, link: str, info: str) -> bool:
    try:
        path = _path_of(link)
        # sockets, pipes and the like have no path
        if path is not None and not path.startswith("/"):
            return False
        return _holds(tree, namespaces.find(process, _mount_id_in(info)), path)
    except OSError:
        return False


def _mount_id_in(info: str) -> int:
    with opened(os.open(info, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        # a container can make the file long, but the number comes first
        for line in os.read(fd, 256).split(b"\n"):
            if line.startswith(b"mnt_id:"):
                return int(line.split()[1])
    return -1


class _Maps:
    """Look for mapped files of a tree; each other file is judged once for all processes of a namespace."""

    def __init__(self, namespaces: Namespaces, tree: Spot, device: str | None) -> None:
        self._namespaces = namespaces
        self._tree = tree
        self._device = _in_hexadecimal(device)
        self._others: set[tuple[str, bytes]] = set()

    def use(self, process: str) -> bool:
        """Return whether a process has mapped a file of the tree."""
        name = ""
        try:
            with open(f"/proc/{process}/maps", "rb") as lines:
                for line in iter(lambda: lines.readline(_LONGEST_LINE), b""):
                    if self._device not in line:
                        continue
                    fields = line.split(None, 5)
                    if len(fields) < 6 or not fields[5].startswith(b"/"):
                        continue
                    name = name or os.readlink(f"/proc/{process}/ns/mnt")
                    if (name, fields[5]) in self._others:
                        continue
                    if self._is_in(process, fields[0], fields[5]):
                        return True
                    if len(self._others) >= _MOST_HELD:
                        self._others.clear()
                    self._others.add((name, fields[5]))
        except OSError:
            return False
        return False

    def _is_in(self, process: str, area: bytes, path: bytes) -> bool:
        try:
            start, end = (int(part, 16) for part in area.split(b"-"))
            fd = os.open(f"/proc/{process}/map_files/{start:x}-{end:x}", _PATH)
        except PermissionError:
            # an ordinary user sees only the path, which is valid in the own namespace
            return self._namespaces.is_own(process) and self._tree.holds(
                spot_by_name(self._namespaces.own, os.fsdecode(path.rstrip(b"\n")))
            )
        except (OSError, ValueError):
            return False
        return _is_in(self._namespaces, self._tree, process, fd)


def _in_hexadecimal(device: str | None) -> bytes:
    """Return a device number as ``maps`` writes it; for ``None``, text that every line has."""
    major, colon, minor = (device or "").partition(":")
    if not colon:
        return b" "
    return b" %02x:%02x " % (int(major), int(minor))


def _living_processes() -> t.Iterator[str]:
    """Yield the names below ``/proc`` of all other processes that this one may inspect."""
    own = str(os.getpid())
    for number in os.listdir("/proc"):
        if number.isdigit() and number != own:
            process = _living(number)
            if process:
                yield process


def _living(number: str) -> str:
    """Return a process, or its first living thread if the main thread has ended; empty if it is gone or of another user."""
    try:
        os.readlink(f"/proc/{number}/root")
        return number
    except FileNotFoundError:
        pass
    except OSError:
        # of another user
        return ""
    with contextlib.suppress(OSError):
        for name in os.listdir(f"/proc/{number}/task"):
            with contextlib.suppress(OSError):
                os.readlink(f"/proc/{number}/task/{name}/root")
                return f"{number}/task/{name}"
    return ""


def _number(process: str) -> str:
    return process.partition("/")[0]


def _command(process: str) -> str:
    try:
        with open(f"/proc/{process}/comm", "rb") as name:
            return show(name.read(64).rstrip(b"\n"))
    except OSError:
        return "?"
