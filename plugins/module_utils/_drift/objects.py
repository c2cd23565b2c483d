# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare one object of a tree with what is recorded of it (docs/behaviour.md, section 17)."""

from __future__ import annotations

import os
import stat
import typing as t

from .._errors import visible
from .._fs.xattrs import list_xattrs, read_xattrs
from .._inventory.capability_names import decode
from .._rootfs import capability
from .._rootfs import journal as events
from .._rootfs.attributes import Policy
from .findings import CHANGED, EXTRA, Finding
from .proven import Times
from .recorded import Recorded

_SET_IDS = stat.S_ISUID | stat.S_ISGID
_NAMES = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFSOCK: "socket",
}
_DEVICES = (stat.S_IFCHR, stat.S_IFBLK)
# Where the digests of each kind of xattrs are, see ``digests_of``.
_DIGESTS = (("capabilities", slice(0, 16)), ("acl", slice(16, 32)), ("xattrs", slice(32, 48)))
_SECOND = 1_000_000_000
_LONGEST_TEXT = 500


def type_of(mode: int) -> str:
    """Return the word for a type."""
    return _NAMES.get(stat.S_IFMT(mode), "object")


class Judged(t.NamedTuple):
    """What differs; ``is_suspect`` says that a file of which nothing differs was touched since."""

    type: str
    has_type: bool
    differs: tuple[str, ...]
    recorded: dict[str, t.Any]
    found: dict[str, t.Any]
    gives_rights: bool
    is_suspect: bool

    def finding(self, path: str, number: int) -> Finding:
        """Return the finding."""
        return Finding(CHANGED, path, self.type, number, self.differs, self.recorded, self.found, self.gives_rights)


class Looks:
    """Judges objects of a tree. What changed after ``finished``, in nanoseconds, is looked at more closely.

    ``policy`` says which xattrs this collection writes, and has the maps of ids. ``proven`` are files that were touched, and whose
    content was compared since. ``parts_names`` says that the tree is a stack: an overlay makes a name that is opened for writing
    a file of its own.
    """

    def __init__(
        self, recorded: Recorded, policy: Policy, finished: int, proven: dict[int, Times], parts_names: bool = False
    ) -> None:
        self.finished = finished
        self.proven = proven
        self.parts_names = parts_names
        # what is never passed over
        self.special = frozenset(recorded.xattrs).union(recorded.linked)
        self._recorded = recorded
        self._policy = policy

    def judge(self, fd: int, name: str, number: int, status: os.stat_result) -> Judged:
        """Compare what is at a name in an open directory; without a name, the directory. Raises ``OSError``."""
        recorded = self._recorded
        mode, uid, gid = recorded.attributes(number)
        has_type = stat.S_IFMT(mode) == stat.S_IFMT(status.st_mode)
        pairs: dict[str, tuple[t.Any, t.Any]] = {}
        touched = status.st_ctime_ns > self.finished
        rights = self.gave_rights(number) or self._gives_rights(status)
        if not has_type:
            pairs["type"] = (type_of(mode), type_of(status.st_mode))
            rights = rights or self._has_capability(fd, name, status)
        else:
            pairs.update(self._compare_details(fd, name, number, status))
            if touched or number in recorded.xattrs:
                found = self._xattrs(fd, name)
                rights = rights or capability.NAME in found
                pairs.update(_compare_xattrs(recorded.xattrs.get(number, events.NO_XATTRS), found))
        if mode & 0o7777 != status.st_mode & 0o7777 and not stat.S_ISLNK(status.st_mode) and has_type:
            pairs["mode"] = (f"{mode & 0o7777:04o}", f"{status.st_mode & 0o7777:04o}")
        if (uid, gid) != (status.st_uid, status.st_gid):
            pairs["owner"] = (self._owner(uid, gid), self._owner(status.st_uid, status.st_gid))
        is_file = has_type and stat.S_ISREG(mode)
        touched = touched or not _is_same_time(recorded.times[number], status.st_mtime_ns)
        is_proven = self.proven.get(number) == (status.st_mtime_ns, status.st_ctime_ns)
        return Judged(
            type_of(mode),
            has_type,
            tuple(pairs),
            {key: pair[0] for key, pair in pairs.items()},
            {key: pair[1] for key, pair in pairs.items()},
            rights,
            is_file and not pairs and touched and not is_proven,
        )

    def extra_finding(self, fd: int, name: str, status: os.stat_result) -> Finding:
        """Return the finding for an object that the image does not have, without its path."""
        rights = self._gives_rights(status) or self._has_capability(fd, name, status)
        return Finding(EXTRA, "", type_of(status.st_mode), gives_rights=rights)

    def link_finding(self, path: str, number: int, is_joined: bool) -> Finding:
        """Return the finding for a name that has lost the others of its file, or was joined with another file."""
        found = "one file with others" if is_joined else "a file of its own"
        recorded = "a file of its own" if is_joined else "one file with others"
        kind = type_of(self._recorded.attributes(number)[0])
        rights = self.gave_rights(number)
        return Finding(CHANGED, path, kind, number, ("links",), {"links": recorded}, {"links": found}, rights)

    def gave_rights(self, number: int) -> bool:
        """Return whether a recorded object gives rights away."""
        mode = self._recorded.attributes(number)[0]
        if stat.S_IFMT(mode) in _DEVICES or (stat.S_ISREG(mode) and mode & _SET_IDS):
            return True
        digests = self._recorded.xattrs.get(number, events.NO_XATTRS)
        return digests[_DIGESTS[0][1]] != events.NO_XATTRS[_DIGESTS[0][1]]

    def _gives_rights(self, status: os.stat_result) -> bool:
        mode = status.st_mode
        return stat.S_IFMT(mode) in _DEVICES or bool(stat.S_ISREG(mode) and mode & _SET_IDS)

    def _has_capability(self, fd: int, name: str, status: os.stat_result) -> bool:
        if not stat.S_ISREG(status.st_mode):
            return False
        try:
            return capability.NAME in read_xattrs(_target(fd, name), [capability.NAME])
        except FileNotFoundError:
            return False

    def _xattrs(self, fd: int, name: str) -> dict[str, bytes]:
        target = _target(fd, name)
        return read_xattrs(target, filter(self._policy.keeps, list_xattrs(target)))

    def _compare_details(
        self, fd: int, name: str, number: int, status: os.stat_result
    ) -> t.Iterator[tuple[str, tuple[t.Any, t.Any]]]:
        recorded = self._recorded
        if stat.S_ISREG(status.st_mode):
            if status.st_size != recorded.sizes[number]:
                yield "size", (recorded.sizes[number], status.st_size)
        elif stat.S_ISLNK(status.st_mode):
            text = os.readlink(name, dir_fd=fd)
            if text != recorded.texts[number]:
                yield "target", (_visible(recorded.texts[number]), _visible(text))
        elif stat.S_IFMT(status.st_mode) in _DEVICES and status.st_rdev != recorded.sizes[number]:
            yield "device", (_device(recorded.sizes[number]), _device(status.st_rdev))

    def _owner(self, uid: int, gid: int) -> str:
        """Return user and group by their ids in the container; ``?`` for those that it does not have."""
        ids = (self._policy.uids.to_container(uid), self._policy.gids.to_container(gid))
        return ":".join("?" if number is None else str(number) for number in ids)


def _target(fd: int, name: str) -> int | bytes:
    return b"/proc/self/fd/%d/%b" % (fd, os.fsencode(name)) if name else fd


def _compare_xattrs(recorded: bytes, found: dict[str, bytes]) -> t.Iterator[tuple[str, tuple[t.Any, t.Any]]]:
    digests = events.digests_of(found)
    for key, place in _DIGESTS:
        if digests[place] == recorded[place]:
            continue
        there: t.Any = "other" if digests[place] != events.NO_XATTRS[place] else "none"
        if key == "capabilities" and capability.NAME in found:
            there = " ".join(decode(found[capability.NAME], 0)["permitted"]) or "none permitted"
        yield key, ("some" if recorded[place] != events.NO_XATTRS[place] else "none", there)


def _is_same_time(recorded: int, found: int) -> bool:
    """Return whether times are the same; some file systems keep whole seconds alone."""
    return recorded == found or (not found % _SECOND and found // _SECOND == recorded // _SECOND)


def _device(number: int) -> str:
    return f"{os.major(number)}:{os.minor(number)}"


def _visible(text: str) -> str:
    return visible(os.fsencode(text), _LONGEST_TEXT)
