# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare a live tree with what is recorded of it, by status and xattrs alone (docs/behaviour.md, section 17).

The container may run, and change everything meanwhile. Directories are opened by their paths from the root, through no link
and no mount, and files by their names in them; so nothing outside of the tree is looked at.
"""

from __future__ import annotations

import os
import stat
import time
import typing as t
from dataclasses import dataclass

from .._fs.beneath import ELSEWHERE, Beneath
from .._fs.btrfs import is_subvolume_root
from .._fs.descriptors import opened
from .._rootfs import journal as events
from .exclusions import Rules
from .findings import EXTRA, MISSING, Drift, Finding
from .objects import Looks, type_of
from .proven import Times
from .recorded import Recorded

# Extra objects that are looked at.
_MOST_EXTRA = 1_000_000
# Longer paths are not entered: each directory is opened from the root.
_LONGEST_PATH = 128 * 1024


class Place(t.NamedTuple):
    """A name in a directory of the tree, whose path begins with a slash, or is empty for the root."""

    folder: str
    name: str

    @property
    def path(self) -> str:
        """The whole path."""
        return f"{self.folder}/{self.name}"


@dataclass(frozen=True)
class Compared:
    """The findings, and where the regular files are whose type and size are as recorded, by number.

    ``linked`` has the names of files that have or had several, each with its inode. ``suspects`` has the times of suspects,
    ``equal`` those of files whose content was compared, and is the image's, with one place each.
    """

    recorded: Recorded
    drift: Drift
    files: dict[int, Place]
    linked: dict[int, list[tuple[Place, int]]]
    suspects: dict[int, Times]
    equal: dict[int, Times]


class _StopError(Exception):
    """A bound is reached; the text says which."""


class _Extra:
    """An extra directory, or one in the place of something else, with the number of objects below it."""

    def __init__(self, finding: Finding) -> None:
        self.finding = finding
        self.below = 0


class _Pending(t.NamedTuple):
    place: Place
    number: int
    extra: _Extra | None


def compare(top: int, recorded: Recorded, rules: Rules, looks: Looks, deadline: float) -> Compared:
    """Compare the tree in the directory ``top``; stop at ``deadline``, by ``time.monotonic``. Raises ``OSError``."""
    return compared_by(Walk(top, recorded, rules, looks, deadline))


def compared_by(walk: Walk) -> Compared:
    """Return what a walk finds. Raises ``OSError``."""
    try:
        walk.run()
    except _StopError as error:
        walk.drift.incomplete = str(error)
    walk.finish()
    return Compared(walk.recorded, walk.drift, walk.files, walk.linked, walk.suspects, {})


class Walk:
    """A walk through a tree, with what it finds."""

    def __init__(self, top: int, recorded: Recorded, rules: Rules, looks: Looks, deadline: float) -> None:
        self.drift = Drift()
        self.files: dict[int, Place] = {}
        # names of files that have or had several, with their inodes
        self.linked: dict[int, list[tuple[Place, int]]] = {}
        self.suspects: dict[int, Times] = {}
        self._beneath = Beneath(top)
        self._device = os.fstat(top).st_dev
        self.recorded = recorded
        self._rules = rules
        self._looks = looks
        self._deadline = deadline
        self._pending: list[_Pending] = []
        self._extras: list[_Extra] = []
        self._extra_left = _MOST_EXTRA

    def run(self) -> None:
        """Walk through the tree."""
        top = Place("", "")
        status = os.fstat(self._beneath.top)
        self._judge(self._beneath.top, top, self.recorded.top, status)
        self._look_in("", _Pending(top, self.recorded.top, None))
        while self._pending:
            pending = self._pending.pop()
            self._look_in(pending.place.path, pending)

    def finish(self) -> None:
        """Add what is known at the end alone."""
        for extra in self._extras:
            self.drift.add(extra.finding._replace(below=extra.below))
        owners = _owners_of(self.linked)
        for number, names in self.linked.items():
            self._judge_links(number, names, owners)
        self.drift.files = len(self.files)

    def _look_in(self, path: str, pending: _Pending) -> None:
        if time.monotonic() > self._deadline:
            raise _StopError("it took longer than verify_timeout")
        if len(path) > _LONGEST_PATH:
            raise _StopError(f"a path has more than {_LONGEST_PATH} characters")
        try:
            with opened(self._beneath.directory(path)) as fd:
                if pending.extra is None:
                    self._look_in_known(fd, path, pending.number)
                else:
                    self._look_in_extra(fd, path, pending.extra)
        except OSError as error:
            if error.errno not in ELSEWHERE:
                raise
            self.drift.add_busy(path or "/")

    def _look_in_known(self, fd: int, path: str, number: int) -> None:
        recorded, looks = self.recorded, self._looks
        table, styles, sizes, times = recorded.table, recorded.styles, recorded.sizes, recorded.times
        finished, files, special, kinds = looks.finished, self.files, looks.special, recorded.kinds
        left = dict(recorded.folders.get(number, {}))
        omitted = self._rules.names_in(path)
        for name in omitted:
            left.pop(name, None)
        self.drift.entries += len(left)
        with os.scandir(fd) as entries:
            for entry in entries:
                name = entry.name
                found = left.pop(name, -1)
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    if found >= 0:
                        left[name] = found
                    continue
                if (
                    found >= 0
                    and kinds[found] == events.FILE
                    and table[styles[found]] == (status.st_mode, status.st_uid, status.st_gid)
                    and status.st_size == sizes[found]
                    and status.st_mtime_ns == times[found]
                    and status.st_ctime_ns <= finished
                    and status.st_nlink == 1
                    and found not in special
                ):
                    # nearly all
                    files[found] = Place(path, name)
                    continue
                if name not in omitted:
                    self._look_at(fd, Place(path, name), found, status)
        for name, found in left.items():
            self._look_for(fd, Place(path, name), found)

    def _look_at(self, fd: int, place: Place, number: int, status: os.stat_result) -> None:
        if self._rules.has_patterns and self._rules.excludes(place.path):
            return
        if number < 0:
            self._add_extra(fd, place, status)
        elif not self._is_mount(status):
            self._judge(fd, place, number, status)
            if stat.S_ISDIR(status.st_mode) and number in self.recorded.folders:
                self._pending.append(_Pending(place, number, None))

    def _look_for(self, fd: int, place: Place, number: int) -> None:
        """Look for a name that was not listed."""
        if self._rules.has_patterns and self._rules.excludes(place.path):
            return
        try:
            status = os.stat(place.name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            self._add_missing(place, number)
        else:
            # it came while the directory was read
            self._look_at(fd, place, number, status)

    def _add_missing(self, place: Place, number: int) -> None:
        if self._rules.has_patterns and self._rules.excludes(place.path):
            return
        rights = self._looks.gave_rights(number)
        below = self._count_below(number, place.path)
        kind = type_of(self.recorded.attributes(number)[0])
        self.drift.add(Finding(MISSING, place.path, kind, number, gives_rights=rights, below=below))

    def _count_below(self, number: int, path: str) -> int:
        """Return how many recorded objects lie in a directory, without those that are left out."""
        count = 0
        pending = [(number, path)]
        while pending:
            above, folder = pending.pop()
            names = self.recorded.folders.get(above, {})
            omitted = self._rules.names_in(folder)
            for name, below in names.items():
                if name in omitted:
                    continue
                count += 1
                if below in self.recorded.folders:
                    pending.append((below, f"{folder}/{name}"))
        return count

    def _is_mount(self, status: os.stat_result) -> bool:
        return status.st_dev != self._device and not is_subvolume_root(status)

    # -- what is recorded

    def _judge(self, fd: int, place: Place, number: int, status: os.stat_result) -> None:
        """Compare an object with what is recorded of it."""
        drift, recorded = self.drift, self.recorded
        try:
            judged = self._looks.judge(fd, place.name, number, status)
        except OSError as error:
            if error.errno not in ELSEWHERE:
                raise
            drift.add_busy(place.path)
            return
        is_file = recorded.kinds[number] == events.FILE and stat.S_ISREG(status.st_mode)
        if is_file:
            if "size" not in judged.differs:
                self.files.setdefault(number, place)
            if judged.is_suspect:
                # the first of its names, whatever order they are read in
                drift.suspects[number] = min(drift.suspects.get(number, place.path), place.path)
                self.suspects[number] = (status.st_mtime_ns, status.st_ctime_ns)
        if judged.has_type and not stat.S_ISDIR(status.st_mode):
            self._note_links(place, number, status)
        if not judged.differs:
            return
        finding = judged.finding(place.path or "/", number)
        if not judged.has_type and stat.S_ISDIR(status.st_mode):
            self._enter_extra(place, finding)
            return
        if not judged.has_type:
            finding = finding._replace(below=self._count_below(number, place.path))
        drift.add(finding)

    def _note_links(self, place: Place, number: int, status: os.stat_result) -> None:
        if number in self.recorded.linked or status.st_nlink > 1:
            self.linked.setdefault(number, []).append((place, status.st_ino))

    def _judge_links(self, number: int, names: list[tuple[Place, int]], owners: dict[int, int]) -> None:
        """Find names of one file that are several now, and those of several that are one."""
        counts: dict[int, int] = {}
        for _place, inode in names:
            counts[inode] = counts.get(inode, 0) + 1
        usual = max(counts, key=lambda inode: (counts[inode], -inode))
        for place, inode in names:
            if inode != usual or owners[inode] != number:
                self.drift.add(self._looks.link_finding(place.path, number, inode == usual))

    # -- what is not

    def _add_extra(self, fd: int, place: Place, status: os.stat_result) -> None:
        if self._rules.excludes_extra(place.path) or self._is_mount(status):
            return
        self._count_extra()
        if stat.S_ISDIR(status.st_mode) and self._rules.is_way(place.path):
            self._pending.append(_Pending(place, -1, None))
            return
        finding = self._looks.extra_finding(fd, place.name, status)._replace(path=place.path)
        if stat.S_ISDIR(status.st_mode):
            self._enter_extra(place, finding)
        else:
            self.drift.add(finding)

    def _enter_extra(self, place: Place, finding: Finding) -> None:
        extra = _Extra(finding)
        self._extras.append(extra)
        self._pending.append(_Pending(place, -1, extra))

    def _look_in_extra(self, fd: int, path: str, extra: _Extra) -> None:
        """Count what lies in an extra directory; only what gives rights away is a finding of its own."""
        omitted = self._rules.names_in(path)
        with os.scandir(fd) as entries:
            for entry in entries:
                if entry.name in omitted:
                    continue
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                self._count_extra()
                extra.below += 1
                place = Place(path, entry.name)
                if stat.S_ISDIR(status.st_mode):
                    if not self._is_mount(status):
                        self._pending.append(_Pending(place, -1, extra))
                    continue
                finding = self._looks.extra_finding(fd, entry.name, status)
                if finding.gives_rights:
                    self.drift.add(finding._replace(path=place.path, kind=EXTRA))

    def _count_extra(self) -> None:
        self._extra_left -= 1
        if self._extra_left < 0:
            raise _StopError(f"there are more than {_MOST_EXTRA} extra files and directories")
        if not self._extra_left & 0x3FF and time.monotonic() > self._deadline:
            raise _StopError("it took longer than verify_timeout")


def _owners_of(linked: dict[int, list[tuple[Place, int]]]) -> dict[int, int]:
    """Return which recorded file each inode is: the one that most of its names belong to, else the one with the first name."""
    names: dict[int, dict[int, list[Place]]] = {}
    for number, places in linked.items():
        for place, inode in places:
            names.setdefault(inode, {}).setdefault(number, []).append(place)
    return {inode: _owner_of(numbers) for inode, numbers in names.items()}


def _owner_of(names: dict[int, list[Place]]) -> int:
    def order(number: int) -> tuple[int, Place]:
        return -len(names[number]), min(names[number])

    return min(names, key=order)
