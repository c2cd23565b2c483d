# Copyright (c) the hypervisor.oci authors
# SPDX-License-Identifier: GPL-3.0-or-later

"""Map user and group ids of the image to those of the host (docs/behaviour.md, section 6)."""

from __future__ import annotations

import bisect
import re
import typing as t
from dataclasses import dataclass

from .._errors import RootfsError, show

_RANGE = re.compile(r"([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,10})\Z")
_IDS = 2**32 - 1


class UnmappedError(ValueError):
    """An id that no range contains; the text is a phrase."""


@dataclass(frozen=True)
class IdMap:
    """Sorted ranges of ``(container, host, count)``; without any, ids are not mapped."""

    what: str
    ranges: tuple[tuple[int, int, int], ...] = ()

    def to_host(self, container_id: int) -> int:
        """Return the host's id. Raises ``UnmappedError``."""
        if not self.ranges:
            return container_id
        # a map may have hundreds of ranges
        place = bisect.bisect_right(self.ranges, (container_id, _IDS, 0))
        if place:
            container, host, count = self.ranges[place - 1]
            if container_id < container + count:
                return host + container_id - container
        raise UnmappedError(f"no range of {self.what}_map contains the {self.what} {container_id}")

    def to_container(self, host_id: int) -> int | None:
        """Return the container's id of an id of the host, or ``None`` if it has none."""
        if not self.ranges:
            return host_id
        for container, host, count in self.ranges:
            if host <= host_id < host + count:
                return container + host_id - host
        return None

    def to_list(self) -> list[str]:
        """Return the ranges as the user writes them: ``container:host:count``."""
        return [":".join(map(str, numbers)) for numbers in self.ranges]


def parse_id_map(what: str, ranges: t.Sequence[str]) -> IdMap:
    """Parse ``container:host:count`` strings; ``what`` is ``uid`` or ``gid``. Raises ``RootfsError``."""
    parsed = []
    for text in ranges:
        match = _RANGE.match(text.strip())
        numbers = tuple(int(digits) for digits in match.groups()) if match else ()
        if len(numbers) != 3 or not numbers[2]:
            raise RootfsError(
                f"{what}_map: invalid range {show(text)}; expected container:host:count, three numbers with a count above 0"
            )
        if numbers[0] + numbers[2] > _IDS or numbers[1] + numbers[2] > _IDS:
            raise RootfsError(f"{what}_map: the range {show(text)} exceeds the largest id, {_IDS - 1}")
        parsed.append((numbers[0], numbers[1], numbers[2]))
    for side, name in ((0, "container"), (1, "host")):
        spans = sorted((numbers[side], numbers[2]) for numbers in parsed)
        for (start, count), (following, _count) in zip(spans, spans[1:]):
            if start + count > following:
                raise RootfsError(
                    f"{what}_map: two ranges overlap at {name} id {following}; each id may be in one range only"
                )
    return IdMap(what, tuple(sorted(parsed)))


def parse_id_maps(uid_map: t.Sequence[str], gid_map: t.Sequence[str]) -> tuple[IdMap, IdMap]:
    """Parse both maps of a container. Raises ``RootfsError``, also if only one of them is given."""
    uids = parse_id_map("uid", uid_map)
    gids = parse_id_map("gid", gid_map)
    if bool(uids.ranges) != bool(gids.ranges):
        raise RootfsError("uid_map and gid_map must be given together")
    return uids, gids
