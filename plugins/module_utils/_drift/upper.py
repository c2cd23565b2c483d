# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Compare a stack with what is recorded of it by its upper directory alone (docs/behaviour.md, section 17).

All that a container has written lies there: what it has removed as a whiteout, what it has made anew as an opaque directory. So
the comparison costs what the container has written; lower entries are those of snapshots, which nobody writes to.
"""

from __future__ import annotations

import errno
import os
import stat

from .._fs.beneath import ELSEWHERE, Beneath
from .._fs.descriptors import opened
from .._rootfs import journal as events
from .compare import Compared, Place, Walk, compared_by
from .exclusions import Rules
from .objects import Looks
from .recorded import Recorded

_OPAQUE = "trusted.overlay.opaque"
_NO_OPAQUE = (errno.ENODATA, errno.ENOTSUP)


def compare_upper(tops: tuple[int, int], recorded: Recorded, rules: Rules, looks: Looks, deadline: float) -> Compared:
    """Compare a stack whose overlay and whose upper directory are ``tops``; else as ``compare``. Raises ``OSError``."""
    return compared_by(_UpperWalk(tops, recorded, rules, looks, deadline))


class _UpperWalk(Walk):
    def __init__(self, tops: tuple[int, int], recorded: Recorded, rules: Rules, looks: Looks, deadline: float) -> None:
        merged, upper = tops
        super().__init__(upper, recorded, rules, looks, deadline)
        self._merged = Beneath(merged)
        # which recorded paths the upper directory decides about: true if a directory is there
        self._decided: dict[str, bool] = {}
        # directories of which nothing lower is seen
        self._hidden: set[str] = set()

    def finish(self) -> None:
        """Add what lower entries give: nothing of them differs."""
        others = self._pass_over_lower()
        linked = {number: [place for place, _inode in names] for number, names in self.linked.items()}
        self.linked.clear()
        for number, places in linked.items():
            for place in sorted({*places, *others.get(number, ())}):
                self._note_name(number, place)
        super().finish()

    def _look_in_known(self, fd: int, path: str, number: int) -> None:
        left = dict(self.recorded.folders.get(number, {}))
        omitted = self._rules.names_in(path)
        for name in omitted:
            left.pop(name, None)
        if path.rpartition("/")[0] in self._hidden or _is_opaque(fd):
            self._hidden.add(path)
        with os.scandir(fd) as entries:
            for entry in entries:
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    self.drift.add_busy(f"{path}/{entry.name}")
                    continue
                found = left.pop(entry.name, -1)
                if entry.name in omitted:
                    continue
                place = Place(path, entry.name)
                if found >= 0:
                    self._decided[place.path] = stat.S_ISDIR(status.st_mode)
                if not _is_whiteout(status):
                    self._look_at(fd, place, found, status)
                elif found >= 0:
                    self._add_missing(place, found)
        if path in self._hidden:
            for name, found in left.items():
                self._add_missing(Place(path, name), found)

    def _pass_over_lower(self) -> dict[int, list[Place]]:
        """Count what is recorded, and note lower files; return the lower names of files with several."""
        recorded = self.recorded
        linked: dict[int, list[Place]] = {}
        pending = [("", recorded.top)]
        while pending:
            path, above = pending.pop()
            is_seen = path not in self._hidden
            omitted = self._rules.names_in(path)
            for name, number in recorded.folders[above].items():
                if name in omitted:
                    continue
                self.drift.entries += 1
                place = Place(path, name)
                decided = self._decided.get(place.path)
                if self._is_excluded(place) or not (decided or (decided is None and is_seen)):
                    continue
                if number in recorded.folders:
                    pending.append((place.path, number))
                elif decided is None:
                    if recorded.kinds[number] == events.FILE:
                        self.files.setdefault(number, place)
                    if number in recorded.linked:
                        linked.setdefault(number, []).append(place)
        return linked

    def _is_excluded(self, place: Place) -> bool:
        return self._rules.has_patterns and self._rules.excludes(place.path)

    def _note_name(self, number: int, place: Place) -> None:
        """Note a name with the inode that the overlay gives its file."""
        try:
            with opened(self._merged.directory(place.folder)) as folder:
                inode = os.stat(place.name, dir_fd=folder, follow_symlinks=False).st_ino
        except OSError as error:
            if error.errno not in ELSEWHERE:
                raise
            self.drift.add_busy(place.path)
            return
        self.linked.setdefault(number, []).append((place, inode))


def _is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def _is_opaque(fd: int) -> bool:
    try:
        return os.getxattr(fd, _OPAQUE) == b"y"
    except OSError as error:
        if error.errno in _NO_OPAQUE:
            return False
        raise
