# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Read the mounts of every mount namespace (docs/behaviour.md, section 7).

A path means something else in each mount namespace. A ``Spot`` is the same in all of them: the file system's device
number and the path below that file system's own root. Both come from the kernel, so a container cannot choose them. The
files themselves are not touched, because a container's own file system (FUSE) could block that for ever.
"""

from __future__ import annotations

import contextlib
import os
import typing as t
from dataclasses import dataclass

# A container decides how many of its processes have another root, and each may show other mounts of its namespace.
_MOST_READS = 8
_LONGEST = 1 << 16
_LAYERS = (b"upperdir", b"workdir", b"lowerdir", b"lowerdir+", b"datadir+")


class Spot(t.NamedTuple):
    """A place in a file system: its device number, and the path below the file system's own root."""

    device: str
    path: str

    def holds(self, other: Spot | None) -> bool:
        """Return whether the other spot is this one, or lies below it."""
        return other is not None and other.device == self.device and is_at_or_below(other.path, self.path)


@dataclass(frozen=True)
class Mount:
    """A line of ``mountinfo``: ``device`` is ``major:minor``, ``root`` the mounted directory in the file system.

    ``point`` is the mount point below the root of the process whose mounts were read; ``above`` is the path of that root
    for this process. ``layers`` are the directories of an overlay by their paths at the time of the mount.
    """

    id: int
    parent: int
    device: str
    root: str
    point: str
    type: str = ""
    layers: tuple[str, ...] = ()
    above: str = ""

    def spot(self, path: str) -> Spot | None:
        """Return the spot of a path of this process on this mount; ``None`` if the path is not on it."""
        point = self.above + self.point.rstrip("/")
        if not is_at_or_below(path, point or "/"):
            return None
        inside = path[len(point) :].rstrip("/")
        return Spot(self.device, self.root.rstrip("/") + inside or "/")

    @property
    def top(self) -> Spot:
        """The root of the mount."""
        return Spot(self.device, self.root)

    @property
    def place(self) -> str:
        """The mount point for this process."""
        return self.above + self.point

    @property
    def alike(self) -> tuple[str, str, str]:
        """Equal for a mount and its copy in another namespace."""
        return self.device, self.root, self.point


Table = t.Dict[int, Mount]


class Namespaces:
    """The mounts of all mount namespaces, each read on first use.

    A process is named as in ``/proc``: by its number, or for a thread as ``NUMBER/task/NUMBER``.
    """

    def __init__(self) -> None:
        self.own: Table = {mount.id: mount for mount in read_mounts()}
        self._own_name = _name_of("self")
        self._others: dict[str, Table] = {}
        self._reads: dict[str, int] = {}

    def is_own(self, process: str) -> bool:
        """Return whether a process is in this process's mount namespace."""
        return _name_of(process) == self._own_name

    def others(self, processes: t.Iterable[str]) -> t.Iterator[tuple[str, Table]]:
        """Yield the tables of all other namespaces, each with the first process in it."""
        seen = {self._own_name, ""}
        for process in processes:
            name = _name_of(process)
            if name not in seen:
                seen.add(name)
                yield process, self._read(name, process)

    def find(self, process: str, number: int) -> Mount | None:
        """Return the mount with the kernel's number ``number`` in the namespace of a process."""
        mount = self.own.get(number)
        if mount is not None:
            return mount
        name = _name_of(process)
        table = self._others.get(name, {})
        if number not in table and name not in ("", self._own_name) and self._reads.get(name, 0) < _MOST_READS:
            table = self._read(name, process)
        return table.get(number)

    def _read(self, name: str, process: str) -> Table:
        table = self._others.setdefault(name, {})
        self._reads[name] = self._reads.get(name, 0) + 1
        try:
            above = os.readlink(f"/proc/{process}/root").rstrip("/")
        except OSError:
            return table
        for mount in read_mounts(f"/proc/{process}/mountinfo", above):
            table.setdefault(mount.id, mount)
        return table


def read_mounts(path: str = "/proc/self/mountinfo", above: str = "") -> list[Mount]:
    """Return the mounts of a process; empty if they cannot be read or the process is gone."""
    mounts = []
    try:
        with open(path, "rb") as lines:
            for line in iter(lambda: lines.readline(_LONGEST), b""):
                # the rest of a line that a container made too long does not parse
                with contextlib.suppress(ValueError, IndexError):
                    mounts.append(_mount(line.rstrip(b"\n").split(b" "), above))
    except OSError:
        return []
    return mounts


def names_of(table: Table, tree: Spot) -> tuple[str, ...]:
    """Return the paths that lead to a tree by the mounts of ``table``."""
    names = []
    for mount in table.values():
        if tree.holds(mount.top):
            names.append(mount.point)
        elif mount.top.holds(tree):
            below = tree.path[len(mount.root.rstrip("/")) :]
            names.append(mount.point.rstrip("/") + below)
    return tuple(names)


def spot_by_name(table: Table, path: str) -> Spot | None:
    """Return the spot of an absolute path without links by the mounts of ``table``."""
    path = os.path.normpath(path)
    best: Mount | None = None
    for mount in table.values():
        if is_at_or_below(path, mount.point) and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best.spot(best.above + path) if best is not None else None


def is_below(path: str, above: str) -> bool:
    """Return whether ``path`` lies below ``above``, both without links."""
    return path.startswith(above.rstrip("/") + "/") and path != above


def is_at_or_below(path: str, above: str) -> bool:
    """Return whether ``path`` is ``above`` or lies below it, both without links."""
    return path == above or is_below(path, above)


def _mount(fields: list[bytes], above: str) -> Mount:
    kind, layers = _kind(fields)
    return Mount(
        int(fields[0]),
        int(fields[1]),
        fields[2].decode("ascii"),
        _unescape(fields[3]),
        _unescape(fields[4]),
        kind,
        layers,
        above,
    )


def _name_of(process: str) -> str:
    try:
        return os.readlink(f"/proc/{process}/ns/mnt")
    except OSError:
        return ""


def _kind(fields: list[bytes]) -> tuple[str, tuple[str, ...]]:
    """Return the file system's type, and the layers of an overlay."""
    try:
        end = fields.index(b"-", 6)
    except ValueError:
        return "", ()
    kind = fields[end + 1].decode("ascii", "replace")
    if kind != "overlay" or len(fields) < end + 4:
        return kind, ()
    layers: list[str] = []
    for option in fields[end + 3].split(b","):
        name, _equals, value = option.partition(b"=")
        if name in _LAYERS:
            layers += _layer_paths(_unescape(value), name == b"lowerdir")
    return kind, tuple(layers)


def _layer_paths(value: str, several: bool) -> list[str]:
    """Parse the paths in an option of an overlay, in which a backslash escapes the next character."""
    paths = [""]
    characters = iter(value)
    for character in characters:
        if character == "\\":
            paths[-1] += next(characters, "")
        elif character == ":" and several:
            paths.append("")
        else:
            paths[-1] += character
    return [path for path in paths if path.startswith("/")]


def _unescape(field: bytes) -> str:
    parts = field.split(b"\\")
    text = parts[0]
    for part in parts[1:]:
        text += bytes([int(part[:3], 8)]) + part[3:]
    return os.fsdecode(text)
