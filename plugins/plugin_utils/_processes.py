# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# Note that this plugin util is PRIVATE to the collection.

"""How far this process, and those that it started, have come: what Linux shows below ``/proc``.

A connection's programs and a module of a local connection do not report to Ansible before they end. What cannot be
read, such as processes of other users, is left out.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from ..module_utils._process_name import parse_progress


def read_position(path: str) -> int:
    """Return how many bytes of a file have been read, or 0 when no process at work has the file open."""
    positions = [0]
    with contextlib.suppress(OSError):
        wanted = os.stat(path)
        for pid in _family():
            positions += _positions(pid, wanted)
    return max(positions)


def layer_progress() -> tuple[int, int] | None:
    """Return the layer that a module on this machine unpacks, and how many there are; ``None`` when none does."""
    for pid in _family():
        with contextlib.suppress(OSError, UnicodeDecodeError), open(f"/proc/{pid}/comm", encoding="ascii") as file:
            progress = parse_progress(file.read())
            if progress is not None:
                return progress
    return None


def _family() -> t.Iterator[int]:
    """Yield this process and all that it started."""
    pending = [os.getpid()]
    while pending:
        pid = pending.pop()
        yield pid
        with contextlib.suppress(OSError):
            for thread in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{thread}/children", encoding="ascii") as file:
                    pending += map(int, file.read().split())


def _positions(pid: int, wanted: os.stat_result) -> t.Iterator[int]:
    """Yield the read positions of a process in this file."""
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), wanted):
                    with open(f"/proc/{pid}/fdinfo/{fd}", encoding="ascii") as file:
                        yield int(file.readline().partition(":")[2])
